/*-------------------------------------------------------------------------
 *
 * listen.c
 *	  A LISTEN client: prints or counts the messages of channels.
 *
 * Prints "ready" when it listens, then a line per message: channel, pid of the
 * sender and payload, separated by tabs.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client.h"
#include "tally.h"

static const char *const usage =
	"usage: listen [OPTION]... CONNINFO CHANNEL...\n"
	"  --count          print how many came, by channel and type, at the end\n"
	"  --counter FIELD  with --count: check the order by this field of values\n"
	"  --sample MS      with --count: print a message too, this often at most\n"
	"  --until CHANNEL  end when a message comes on this channel\n"
	"  --idle MS        end when no message came for so long, after the first\n"
	"  --timeout S      give up after so long\n";

/* How long a signal may have to wait at most. */
#define POLL_MS		100

static void
listen_to(PGconn *conn, const char *channel)
{
	char	   *quoted = PQescapeIdentifier(conn, channel, strlen(channel));
	char		command[256];

	if (quoted == NULL)
	{
		fprintf(stderr, "%s", PQerrorMessage(conn));
		exit(1);
	}
	snprintf(command, sizeof(command), "LISTEN %s", quoted);
	PQclear(client_check(conn, PQexec(conn, command)));
	PQfreemem(quoted);
}

/* Takes all that has arrived. */
static void
drain(PGconn *conn)
{
	PGnotify   *notify;

	if (!PQconsumeInput(conn))
	{
		fprintf(stderr, "%s", PQerrorMessage(conn));
		exit(1);
	}
	while ((notify = PQnotifies(conn)) != NULL)
	{
		if (client_received(notify->relname))
			printf("%s\t%d\t%s\n", notify->relname, notify->be_pid,
				   notify->extra);
		if (options.count)
			tally_add_message(notify->relname, notify->extra);
		PQfreemem(notify);
	}
	fflush(stdout);
}

int
main(int argc, char **argv)
{
	PGconn	   *conn;
	int			first = client_start(argc, argv, usage, &conn);

	for (int i = first; i < argc; i++)
		listen_to(conn, argv[i]);
	client_ready();

	/* messages may have come with the answers already */
	drain(conn);
	while (!client_done())
	{
		struct pollfd input = {.fd = PQsocket(conn),.events = POLLIN};

		if (poll(&input, 1, POLL_MS) < 0 && errno != EINTR)
		{
			perror("poll");
			return 1;
		}
		drain(conn);
	}
	return client_end(conn);
}
