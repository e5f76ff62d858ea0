/*-------------------------------------------------------------------------
 *
 * ringread.c
 *	  A reader of the ring by SQL: prints or counts the changes.
 *
 * Prints "ready" when it has a position to read from, then a line per change:
 * position, watcher, type and values, separated by tabs.  It waits by CALL
 * ectowatch_wait, which holds no snapshot, and reads what came in one or more
 * statements, as an application would.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client.h"
#include "tally.h"

static const char *const usage =
	"usage: ringread [OPTION]... CONNINFO\n"
	"  --after POSITION  start behind this position, not behind the newest\n"
	"  --count           print how many came, by watcher and type, at the end\n"
	"  --counter FIELD   with --count: check the order by this field of values\n"
	"  --sample MS       with --count: print a change too, this often at most\n"
	"  --until WATCHER   end when a change of this watcher comes\n"
	"  --idle MS         end when no change came for so long, after the first\n"
	"  --timeout S       give up after so long\n";

#define READ_CHANGES	"10000"
#define WAIT_TIME		"500 ms"	/* a signal may have to wait so long */

static long long position;

static PGresult *
query(PGconn *conn, const char *command)
{
	char		text[32];
	const char *parameters[1] = {text};

	snprintf(text, sizeof(text), "%lld", position);
	return client_check(conn, PQexecParams(conn, command, 1, NULL, parameters,
										   NULL, NULL, 0));
}

/* Takes all that is there. */
static void
drain(PGconn *conn)
{
	int			n;

	do
	{
		PGresult   *result = query(conn,
								   "SELECT position, watcher, type, values "
								   "FROM ectowatch_changes($1::bigint, NULL, "
								   READ_CHANGES ")");

		n = PQntuples(result);
		for (int i = 0; i < n; i++)
		{
			const char *watcher = PQgetvalue(result, i, 1);
			const char *type = PQgetvalue(result, i, 2);
			const char *values = PQgetvalue(result, i, 3);

			position = atoll(PQgetvalue(result, i, 0));
			if (client_received(watcher))
				printf("%lld\t%s\t%s\t%s\n", position, watcher, type, values);
			if (options.count)
				tally_add(watcher, type, strlen(type), values, position);
		}
		PQclear(result);
		fflush(stdout);
	} while (n > 0);
}

int
main(int argc, char **argv)
{
	PGconn	   *conn;
	PGresult   *result;

	client_start(argc, argv, usage, &conn);
	position = options.after;
	if (position < 0)
	{
		result = client_check(conn, PQexec(conn, "SELECT ectowatch_position()"));
		position = atoll(PQgetvalue(result, 0, 0));
		PQclear(result);
	}
	client_ready();

	drain(conn);
	while (!client_done())
	{
		result = query(conn, "CALL ectowatch_wait($1::bigint, NULL, '"
					   WAIT_TIME "', NULL)");
		position = atoll(PQgetvalue(result, 0, 0));
		PQclear(result);
		drain(conn);
	}
	return client_end(conn);
}
