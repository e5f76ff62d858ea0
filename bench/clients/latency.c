/*-------------------------------------------------------------------------
 *
 * latency.c
 *	  How long it takes from a transaction to whoever is told of it.
 *
 * One thread writes: sessions that each run one single-row UPDATE at a time,
 * at a fixed rate in all or as fast as they can.  The other thread is told:
 * by LISTEN, or by CALL ectowatch_wait() and ectowatch_changes().  Every
 * transaction writes its own number to the column n, which comes back in the
 * message; so every message finds the times at which its transaction was sent
 * and acknowledged, all by the one clock of this process.
 *
 * Sent-to-received starts before the UPDATE leaves.  Acknowledged-to-received
 * starts when the writer has its answer, and is negative where the message
 * came first.  The first tenth of the time is not counted.
 *
 * Prints one line: transactions per second, messages counted; median and 99th
 * percentile of sent-to-received, in microseconds; the same of acknowledged-
 * to-received.  Fails if a message is missing.
 *
 * The threads share three arrays, an element per transaction.  An element is
 * written once, by one of them, and read when both have ended; "nsent" and
 * "all_sent" say when the reader is through.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE				/* ppoll */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"

static const char *const usage =
	"usage: latency [OPTION]... CONNINFO TABLE CHANNEL\n"
	"  --rate N      so many transactions per second; default: no limit\n"
	"  --writers N   so many sessions write; default: 16\n"
	"  --time S      for so long; default: 2\n"
	"  --rows N      rows of the table, with ids from 1 on; default: 1000\n"
	"  --ring        read the ring of ectowatch, not the channel\n"
	"  --setup SQL   every writer runs this first\n";

#define MAX_TRANSACTIONS	(16 * 1000 * 1000)
#define LAST_MESSAGE_NS		INT64_C(20000000000)	/* how late it may come */

typedef struct Writer
{
	PGconn	   *conn;
	int64_t		transaction;	/* under way; 0: none */
} Writer;

static int	rate;
static int	nwriters = 16;
static double seconds = 2;
static int	rows = 1000;
static bool ring;
static const char *setup;
static const char *conninfo;
static const char *table;
static const char *channel;

/* by number of transaction, from 1 on; nanoseconds, 0: not yet */
static int64_t *sent;
static int64_t *acknowledged;
static int64_t *received;

static atomic_llong nsent;
static atomic_bool all_sent;
static int64_t nreceived;

static unsigned int
next_random(void)
{
	static uint64_t state = UINT64_C(0x9e3779b97f4a7c15);

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (unsigned int) (state >> 33);
}

/* ----- the thread that writes ----- */

/* Every writer has rows of its own, so that none waits for another's lock. */
static void
writer_send(Writer *writer, int number, int64_t transaction)
{
	char		n[32];
	char		id[32];
	const char *parameters[2] = {n, id};

	snprintf(n, sizeof(n), "%lld", (long long) transaction);
	snprintf(id, sizeof(id), "%d",
			 1 + number + nwriters * (int) (next_random() % (rows / nwriters)));
	writer->transaction = transaction;
	sent[transaction] = now_ns();
	if (!PQsendQueryPrepared(writer->conn, "write", 2, parameters, NULL, NULL, 0))
		end_with_error(writer->conn);
}

static void
writer_receive(Writer *writer)
{
	PGresult   *result;

	if (!PQconsumeInput(writer->conn))
		end_with_error(writer->conn);
	while (!PQisBusy(writer->conn))
	{
		result = PQgetResult(writer->conn);
		if (result == NULL)
		{
			writer->transaction = 0;
			return;
		}
		acknowledged[writer->transaction] = now_ns();
		check_or_end(writer->conn, result);
		if (strcmp(PQcmdTuples(result), "1") != 0)
		{
			fprintf(stderr, "an UPDATE found no row\n");
			exit(1);
		}
		PQclear(result);
	}
}

static void
write_all(Writer *writers)
{
	struct pollfd *polled = calloc(nwriters, sizeof(struct pollfd));
	int64_t		start = now_ns();
	int64_t		end = start + (int64_t) (seconds * 1e9);
	int64_t		transactions = 0;
	int			busy = 0;

	for (int i = 0; i < nwriters; i++)
	{
		polled[i].fd = PQsocket(writers[i].conn);
		polled[i].events = POLLIN;
	}
	while (now_ns() < end || busy > 0)
	{
		int64_t		now = now_ns();
		int64_t		due = rate == 0 ? now :
			start + transactions * INT64_C(1000000000) / rate;
		struct timespec wait = {0};

		for (int i = 0; i < nwriters && now < end && due <= now; i++)
		{
			if (writers[i].transaction != 0 ||
				transactions + 1 >= MAX_TRANSACTIONS)
				continue;
			writer_send(&writers[i], i, ++transactions);
			atomic_store(&nsent, transactions);
			busy++;
			if (rate != 0)
				due = start + transactions * INT64_C(1000000000) / rate;
		}

		/* until an answer comes or the next one is due */
		if (busy == nwriters || now >= end || rate == 0 || due < now)
			wait.tv_nsec = 100 * 1000 * 1000;
		else
			wait.tv_nsec = due - now < 100000000 ? due - now : 100000000;
		if (ppoll(polled, nwriters, &wait, NULL) < 0 && errno != EINTR)
		{
			perror("ppoll");
			exit(1);
		}
		for (int i = 0; i < nwriters; i++)
		{
			if (polled[i].revents == 0 || writers[i].transaction == 0)
				continue;
			writer_receive(&writers[i]);
			if (writers[i].transaction == 0)
				busy--;
		}
	}
	atomic_store(&all_sent, true);
	free(polled);
}

static Writer *
writers_start(void)
{
	Writer	   *writers = calloc(nwriters, sizeof(Writer));
	char		statement[256];

	snprintf(statement, sizeof(statement),
			 "UPDATE %s SET n = $1 WHERE id = $2", table);
	for (int i = 0; i < nwriters; i++)
	{
		writers[i].conn = connect_or_end(conninfo);
		if (setup)
			PQclear(run_or_end(writers[i].conn, setup));
		PQclear(check_or_end(writers[i].conn,
							 PQprepare(writers[i].conn, "write", statement, 0, NULL)));
	}
	return writers;
}

/* ----- the thread that is told ----- */

/* The number is member n of a JSON object, with spaces or without. */
static void
note_message(const char *message, int64_t now)
{
	const char *p = strstr(message, "\"n\"");
	long long	transaction = 0;

	if (p)
	{
		p += 3;
		p += strspn(p, " :");
		transaction = atoll(p);
	}
	if (transaction <= 0 || transaction >= MAX_TRANSACTIONS)
	{
		fprintf(stderr, "unexpected message: %s\n", message);
		exit(1);
	}
	if (received[transaction] == 0)
		nreceived++;
	received[transaction] = now;
}

/* Whether there is nothing to wait for any more, for a good or a bad reason. */
static bool
reader_done(int64_t *give_up)
{
	if (!atomic_load(&all_sent))
		return false;
	if (nreceived == atomic_load(&nsent))
		return true;
	if (*give_up == 0)
		*give_up = now_ns() + LAST_MESSAGE_NS;
	return now_ns() > *give_up;
}

static void
read_channel(PGconn *conn)
{
	int64_t		give_up = 0;

	while (!reader_done(&give_up))
	{
		struct pollfd polled = {.fd = PQsocket(conn),.events = POLLIN};
		PGnotify   *notify;

		poll(&polled, 1, 100);
		if (!PQconsumeInput(conn))
			end_with_error(conn);
		while ((notify = PQnotifies(conn)) != NULL)
		{
			note_message(notify->extra, now_ns());
			PQfreemem(notify);
		}
	}
}

static PGresult *
query_position(PGconn *conn, const char *statement, const char *position)
{
	return check_or_end(conn, PQexecParams(conn, statement, 1, NULL, &position,
										   NULL, NULL, 0));
}

static void
read_ring(PGconn *conn, char *position)
{
	int64_t		give_up = 0;

	while (!reader_done(&give_up))
	{
		PGresult   *result;
		int			n;

		result = query_position(conn, "CALL ectowatch_wait($1::bigint, NULL, "
								"'100 ms', NULL)", position);
		strcpy(position, PQgetvalue(result, 0, 0));
		PQclear(result);
		do
		{
			int64_t		now;

			result = query_position(conn, "SELECT position, values "
									"FROM ectowatch_changes($1::bigint, NULL, 10000)",
									position);
			now = now_ns();
			n = PQntuples(result);
			for (int i = 0; i < n; i++)
				note_message(PQgetvalue(result, i, 1), now);
			if (n > 0)
				strcpy(position, PQgetvalue(result, n - 1, 0));
			PQclear(result);
		} while (n == 10000);
	}
}

static PGconn *reader;
static char reader_position[64];

static void
reader_start(void)
{
	PGresult   *result;
	char		statement[256];

	reader = connect_or_end(conninfo);
	if (ring)
	{
		result = run_or_end(reader, "SELECT ectowatch_position()");
		strcpy(reader_position, PQgetvalue(result, 0, 0));
	}
	else
	{
		snprintf(statement, sizeof(statement), "LISTEN %s", channel);
		result = run_or_end(reader, statement);
	}
	PQclear(result);
}

static void *
reader_main(void *unused)
{
	(void) unused;
	if (ring)
		read_ring(reader, reader_position);
	else
		read_channel(reader);
	return NULL;
}

/* ----- the result ----- */

static int
compare_times(const void *a, const void *b)
{
	int64_t		x = *(const int64_t *) a;
	int64_t		y = *(const int64_t *) b;

	return (x > y) - (x < y);
}

static double
percentile(const int64_t *sorted, int64_t n, int percent)
{
	return sorted[(n - 1) * percent / 100] / 1000.0;
}

static void
print_result(void)
{
	int64_t		transactions = atomic_load(&nsent);
	int64_t		counted_from = sent[1] + (int64_t) (seconds * 1e8);
	int64_t    *whole = calloc(transactions + 1, sizeof(int64_t));
	int64_t    *behind = calloc(transactions + 1, sizeof(int64_t));
	int64_t		n = 0;

	for (int64_t i = 1; i <= transactions; i++)
	{
		if (sent[i] < counted_from)
			continue;
		whole[n] = received[i] - sent[i];
		behind[n++] = received[i] - acknowledged[i];
	}
	if (n == 0)
	{
		fprintf(stderr, "nothing was measured\n");
		exit(1);
	}
	qsort(whole, n, sizeof(int64_t), compare_times);
	qsort(behind, n, sizeof(int64_t), compare_times);
	printf("%.1f\t%lld\t%.1f\t%.1f\t%.1f\t%.1f\n", transactions / seconds,
		   (long long) n, percentile(whole, n, 50), percentile(whole, n, 99),
		   percentile(behind, n, 50), percentile(behind, n, 99));
}

static int64_t *
times(void)
{
	int64_t    *result = calloc(MAX_TRANSACTIONS, sizeof(int64_t));

	if (result == NULL)
		abort();
	return result;
}

int
main(int argc, char **argv)
{
	static const struct option long_options[] = {
		{"rate", required_argument, NULL, 'r'},
		{"ring", no_argument, NULL, 'g'},
		{"rows", required_argument, NULL, 'n'},
		{"setup", required_argument, NULL, 's'},
		{"time", required_argument, NULL, 't'},
		{"writers", required_argument, NULL, 'w'},
		{NULL, 0, NULL, 0}
	};
	pthread_t	thread;
	Writer	   *writers;
	int			c;

	while ((c = getopt_long(argc, argv, "", long_options, NULL)) != -1)
	{
		if (c == 'r')
			rate = atoi(optarg);
		else if (c == 'g')
			ring = true;
		else if (c == 'n')
			rows = atoi(optarg);
		else if (c == 's')
			setup = optarg;
		else if (c == 't')
			seconds = atof(optarg);
		else if (c == 'w')
			nwriters = atoi(optarg);
		else
			optind = argc;
	}
	if (argc - optind != 3 || nwriters < 1 || rows < nwriters || rate < 0)
	{
		fprintf(stderr, "%s", usage);
		return 1;
	}
	conninfo = argv[optind];
	table = argv[optind + 1];
	channel = argv[optind + 2];
	sent = times();
	acknowledged = times();
	received = times();

	writers = writers_start();
	reader_start();
	if (pthread_create(&thread, NULL, reader_main, NULL) != 0)
		abort();
	write_all(writers);
	pthread_join(thread, NULL);
	if (nreceived != atomic_load(&nsent))
	{
		fprintf(stderr, "%lld transactions, %lld messages\n",
				(long long) atomic_load(&nsent), (long long) nreceived);
		return 1;
	}
	print_result();
	return 0;
}
