/*-------------------------------------------------------------------------
 *
 * pgq_consumer.c
 *	  A consumer of PgQ, and the ticker that PgQ needs: counts events.
 *
 * Prints as hear.c does.  Ends when it has consumed an event of type "end",
 * which is not counted.  Instead of pgqd it calls the ticker itself, which is
 * all that pgqd would do meanwhile.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common.h"

#define IDLE_US		20000

static int64_t events;
static int64_t first_ns;
static int64_t last_ns;
static bool ended;

static void
consume(PGconn *conn, const char *batch)
{
	PGresult   *result;

	/* row by row: a batch can be one transaction of a million events */
	if (!PQsendQueryParams(conn, "SELECT ev_type, ev_data "
						   "FROM pgq.get_batch_events($1::bigint)",
						   1, NULL, &batch, NULL, NULL, 0) ||
		!PQsetSingleRowMode(conn))
		end_with_error(conn);
	while ((result = PQgetResult(conn)) != NULL)
	{
		if (PQresultStatus(result) == PGRES_SINGLE_TUPLE)
		{
			if (strcmp(PQgetvalue(result, 0, 0), "end") == 0)
				ended = true;
			else
			{
				events++;
				last_ns = now_ns();
				if (first_ns == 0)
					first_ns = last_ns;
			}
		}
		else
			check_or_end(conn, result);
		PQclear(result);
	}
	PQclear(check_or_end(conn, PQexecParams(conn,
											"SELECT pgq.finish_batch($1::bigint)",
											1, NULL, &batch, NULL, NULL, 0)));
}

int
main(int argc, char **argv)
{
	PGconn	   *conn;
	int64_t		give_up;

	if (argc != 3)
	{
		fprintf(stderr, "usage: pgq_consumer CONNINFO TIMEOUT\n");
		return 1;
	}
	give_up = now_ns() + atoi(argv[2]) * INT64_C(1000000000);
	conn = connect_or_end(argv[1]);
	print_ready();
	while (!ended)
	{
		PGresult   *result;

		PQclear(run_or_end(conn, "SELECT pgq.ticker()"));
		result = run_or_end(conn, "SELECT pgq.next_batch('bench', 'bench')");
		if (PQgetisnull(result, 0, 0))
			usleep(IDLE_US);
		else
			consume(conn, PQgetvalue(result, 0, 0));
		PQclear(result);
		if (now_ns() > give_up)
		{
			fprintf(stderr, "timed out\n");
			return 2;
		}
	}
	printf("%lld\t%lld\t%.6f\n", (long long) events, (long long) events,
		   (last_ns - first_ns) / 1e9);
	PQfinish(conn);
	return 0;
}
