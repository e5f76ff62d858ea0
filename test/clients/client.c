/*-------------------------------------------------------------------------
 *
 * client.c
 *	  What the clients have in common: options, connection, when to end.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "client.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tally.h"

#define OUTPUT_BUFFER	(1024 * 1024)

Options		options = {.after = -1};

static volatile sig_atomic_t stop_requested;

static bool last_seen;
static bool timed_out;
static long long started_ms;
static long long received_ms;	/* 0: nothing yet */
static long long sampled_ms;
static int	samples;
static int	samples_skipped;

static void
handle_stop(int signo)
{
	(void) signo;
	stop_requested = 1;
}

static long long
now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (long long) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int
client_start(int argc, char **argv, const char *usage, PGconn **conn)
{
	static const struct option long_options[] = {
		{"after", required_argument, NULL, 'a'},
		{"count", no_argument, NULL, 'c'},
		{"counter", required_argument, NULL, 'k'},
		{"idle", required_argument, NULL, 'i'},
		{"sample", required_argument, NULL, 's'},
		{"timeout", required_argument, NULL, 't'},
		{"until", required_argument, NULL, 'u'},
		{NULL, 0, NULL, 0}
	};
	struct sigaction action = {.sa_handler = handle_stop};
	int			c;

	while ((c = getopt_long(argc, argv, "", long_options, NULL)) != -1)
	{
		switch (c)
		{
			case 'a':
				options.after = atoll(optarg);
				break;
			case 'c':
				options.count = true;
				break;
			case 'k':
				options.counter = optarg;
				break;
			case 'i':
				options.idle_ms = atoi(optarg);
				break;
			case 's':
				options.sample_ms = atoi(optarg);
				break;
			case 't':
				options.timeout_s = atoi(optarg);
				break;
			case 'u':
				options.until = optarg;
				break;
			default:
				fprintf(stderr, "%s", usage);
				exit(1);
		}
	}
	if (optind >= argc)
	{
		fprintf(stderr, "%s", usage);
		exit(1);
	}

	setvbuf(stdout, NULL, _IOFBF, OUTPUT_BUFFER);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	tally_init(options.counter);

	*conn = PQconnectdb(argv[optind]);
	if (PQstatus(*conn) != CONNECTION_OK)
	{
		fprintf(stderr, "%s", PQerrorMessage(*conn));
		exit(1);
	}
	started_ms = now_ms();
	return optind + 1;
}

PGresult *
client_check(PGconn *conn, PGresult *result)
{
	ExecStatusType status = PQresultStatus(result);

	if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK)
	{
		fprintf(stderr, "%s", PQerrorMessage(conn));
		exit(1);
	}
	return result;
}

void
client_ready(void)
{
	puts("ready");
	fflush(stdout);
}

bool
client_received(const char *watcher)
{
	received_ms = now_ms();
	if (options.until && strcmp(watcher, options.until) == 0)
		last_seen = true;
	if (!options.count)
		return true;
	if (options.sample_ms == 0 || received_ms < sampled_ms + options.sample_ms)
		return false;

	/* not the first one then, which tends to be of always the same watcher */
	if (samples_skipped++ < 5 + 7 * samples % 11)
		return false;
	samples++;
	samples_skipped = 0;
	sampled_ms = received_ms;
	return true;
}

bool
client_done(void)
{
	long long	now = now_ms();

	if (last_seen || stop_requested)
		return true;
	if (options.idle_ms > 0 && received_ms > 0 &&
		now > received_ms + options.idle_ms)
		return true;
	if (options.timeout_s > 0 && now > started_ms + options.timeout_s * 1000LL)
	{
		fprintf(stderr, "timed out after %d s\n", options.timeout_s);
		timed_out = true;
		return true;
	}
	return false;
}

int
client_end(PGconn *conn)
{
	if (options.count)
		tally_print();
	fflush(stdout);
	PQfinish(conn);
	return timed_out ? 2 : 0;
}
