/*-------------------------------------------------------------------------
 *
 * common.c
 *	  What the measuring clients have in common.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "common.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int64_t
now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t) now.tv_sec * 1000000000 + now.tv_nsec;
}

void
end_with_error(PGconn *conn)
{
	fprintf(stderr, "%s", PQerrorMessage(conn));
	exit(1);
}

PGconn *
connect_or_end(const char *conninfo)
{
	PGconn	   *conn = PQconnectdb(conninfo);

	if (PQstatus(conn) != CONNECTION_OK)
		end_with_error(conn);
	return conn;
}

PGresult *
check_or_end(PGconn *conn, PGresult *result)
{
	ExecStatusType status = PQresultStatus(result);

	if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK)
		end_with_error(conn);
	return result;
}

PGresult *
run_or_end(PGconn *conn, const char *statement)
{
	return check_or_end(conn, PQexec(conn, statement));
}

void
print_ready(void)
{
	puts("ready");
	fflush(stdout);
}
