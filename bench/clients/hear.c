/*-------------------------------------------------------------------------
 *
 * hear.c
 *	  Many sessions that LISTEN: counts what each of them hears.
 *
 * Every session runs the given statements, in which %d stands for its number,
 * from 1 on.  Prints "ready", and at the end one line: the least and greatest
 * number of messages that a session heard, and the seconds from the first to
 * the last message of all.  It does as little as it can per message, so that
 * what is measured is the server.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>

#include "common.h"

static const char *const usage =
	"usage: hear [OPTION]... CONNINFO STATEMENT...\n"
	"  --sessions N     so many sessions; default: 1\n"
	"  --until CHANNEL  end when every session heard a message of it, which is\n"
	"                   not counted; without this, SIGTERM ends\n"
	"  --timeout S      fail after so long\n";

#define MAX_STATEMENT	1024
#define POLL_MS			200

typedef struct Session
{
	PGconn	   *conn;
	int64_t		messages;
	bool		ended;			/* it heard the last one */
} Session;

static Session *sessions;
static int	nsessions = 1;
static int	nended;
static const char *until;

static int64_t first_ns;
static int64_t last_ns;

static volatile sig_atomic_t stop_requested;

static void
handle_stop(int signo)
{
	(void) signo;
	stop_requested = 1;
}

static void
session_start(Session *session, const char *conninfo, int number,
			  char **statements)
{
	session->conn = connect_or_end(conninfo);
	for (; *statements; statements++)
	{
		char		statement[MAX_STATEMENT];
		const char *mark = strstr(*statements, "%d");

		if (mark)
			snprintf(statement, sizeof(statement), "%.*s%d%s",
					 (int) (mark - *statements), *statements, number, mark + 2);
		else
			snprintf(statement, sizeof(statement), "%s", *statements);
		PQclear(run_or_end(session->conn, statement));
	}
}

static void
session_drain(Session *session)
{
	static const char gap[] = "{\"type\":\"gap\"";
	PGnotify   *notify;
	int64_t		heard = 0;

	if (!PQconsumeInput(session->conn))
		end_with_error(session->conn);
	while ((notify = PQnotifies(session->conn)) != NULL)
	{
		if (until && strcmp(notify->relname, until) == 0)
		{
			session->ended = true;
			nended++;
		}
		else
			heard++;
		if (strncmp(notify->extra, gap, sizeof(gap) - 1) == 0)
		{
			fprintf(stderr, "heard a gap: %s\n", notify->extra);
			exit(1);
		}
		PQfreemem(notify);
	}
	if (heard > 0)
	{
		last_ns = now_ns();
		if (first_ns == 0)
			first_ns = last_ns;
		session->messages += heard;
	}
}

static void
print_result(void)
{
	int64_t		least = INT64_MAX;
	int64_t		greatest = 0;

	for (int i = 0; i < nsessions; i++)
	{
		if (sessions[i].messages < least)
			least = sessions[i].messages;
		if (sessions[i].messages > greatest)
			greatest = sessions[i].messages;
	}
	printf("%lld\t%lld\t%.6f\n", (long long) least, (long long) greatest,
		   (last_ns - first_ns) / 1e9);
}

int
main(int argc, char **argv)
{
	static const struct option long_options[] = {
		{"sessions", required_argument, NULL, 's'},
		{"timeout", required_argument, NULL, 't'},
		{"until", required_argument, NULL, 'u'},
		{NULL, 0, NULL, 0}
	};
	struct sigaction action = {.sa_handler = handle_stop};
	struct rlimit files;
	int64_t		give_up = INT64_MAX;
	int			epoll;
	int			c;

	while ((c = getopt_long(argc, argv, "", long_options, NULL)) != -1)
	{
		if (c == 's')
			nsessions = atoi(optarg);
		else if (c == 't')
			give_up = now_ns() + atoi(optarg) * INT64_C(1000000000);
		else if (c == 'u')
			until = optarg;
		else
			optind = argc;
	}
	if (argc - optind < 2 || nsessions < 1)
	{
		fprintf(stderr, "%s", usage);
		return 1;
	}
	sigaction(SIGTERM, &action, NULL);

	/* a descriptor per session, where 1,024 is the usual limit */
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);

	sessions = calloc(nsessions, sizeof(Session));
	epoll = epoll_create1(0);
	for (int i = 0; i < nsessions; i++)
	{
		struct epoll_event event = {.events = EPOLLIN,.data.ptr = &sessions[i]};

		session_start(&sessions[i], argv[optind], i + 1, &argv[optind + 1]);
		epoll_ctl(epoll, EPOLL_CTL_ADD, PQsocket(sessions[i].conn), &event);
	}
	print_ready();
	for (int i = 0; i < nsessions; i++)
		session_drain(&sessions[i]);

	while (!stop_requested && nended < nsessions)
	{
		struct epoll_event events[64];
		int			n = epoll_wait(epoll, events, 64, POLL_MS);

		for (int i = 0; i < n; i++)
			session_drain(events[i].data.ptr);
		if (now_ns() > give_up)
		{
			fprintf(stderr, "timed out\n");
			print_result();
			return 2;
		}
	}
	print_result();
	for (int i = 0; i < nsessions; i++)
		PQfinish(sessions[i].conn);
	return 0;
}
