/*-------------------------------------------------------------------------
 *
 * queue_alone.c
 *	  What it costs to hand a batch over, without a server around it.
 *
 * So many processes as told do nothing but what a committing backend does
 * with src/queue.c: take a ticket and room, write 64 bytes, decide.  One
 * process does what the worker does there.  A server's backends do this
 * once per transaction, and the rest of it keeps them apart; so this is the
 * worst that contention on the queue can be.
 *
 * Prints one line: batches per second in all, and nanoseconds of processor
 * time that a writer spent per batch.  A writer that finds the queue full
 * sleeps, which takes no processor time.  The worker checks that batches come
 * by tickets, and at the end that it got as many as were handed over.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sched.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "storage/s_lock.h"

#include "queue.h"

#define QUEUE_BYTES		(8 * 1024 * 1024)
#define QUEUE_BATCHES	65536
#define BATCH_BYTES		64
#define MAX_WRITERS		1024

typedef struct Shared
{
	volatile int stop;
	struct
	{
		uint64		batches;
		double		seconds;	/* of processor time */
	}			writers[MAX_WRITERS];
} Shared;

static Shared *shared;
static Queue *queue;

/* --- stubs for the server's symbols --- */

#undef fprintf
#undef printf
#undef snprintf

int
s_lock(volatile slock_t *lock, const char *file, int line, const char *func)
{
	int			spins = 0;

	(void) file;
	(void) line;
	(void) func;
	while (TAS_SPIN(lock))
	{
		/* as the server's, but that one sleeps longer from time to time */
		if (++spins % 100 == 0)
			sched_yield();
		SPIN_DELAY();
	}
	return 0;
}

static void *
share(size_t size)
{
	void	   *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
							  MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (memory == MAP_FAILED)
		abort();
	return memory;
}

static double
processor_seconds(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_utime.tv_sec + usage.ru_stime.tv_sec +
		(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void
run_writer(int number)
{
	static const char bytes[BATCH_BYTES];
	double		before = processor_seconds();
	uint64		batches = 0;

	while (!shared->stop)
	{
		Batch		batch = {.len = BATCH_BYTES,.xid = batches,.nchanges = 1};

		if (!queue_reserve(queue, &batch))
		{
			usleep(50);
			continue;
		}
		queue_write(queue, batch.ticket, 0, bytes, BATCH_BYTES);
		(void) queue_commit(queue, batch.ticket, 0);
		batches++;
	}
	shared->writers[number].batches = batches;
	shared->writers[number].seconds = processor_seconds() - before;
	_exit(0);
}

/* Takes what is there; how much it was. */
static uint64
take_batches(void)
{
	static uint64 ticket = 1;
	uint64		taken = 0;
	Batch		batch;

	while (queue_peek(queue, &batch) == BATCH_COMMITTED)
	{
		if (batch.ticket != ticket++)
			abort();
		queue_advance(queue);
		taken++;
	}
	return taken;
}

int
main(int argc, char **argv)
{
	int			nwriters = argc == 3 ? atoi(argv[1]) : 0;
	double		seconds = argc == 3 ? atof(argv[2]) : 0;
	struct timespec start,
				now;
	double		elapsed;
	uint64		taken = 0;
	uint64		batches = 0;
	double		writers_seconds = 0;

	if (nwriters < 1 || nwriters > MAX_WRITERS || seconds <= 0)
	{
		fprintf(stderr, "usage: queue_alone WRITERS SECONDS\n");
		return 1;
	}
	shared = share(sizeof(Shared));
	queue = share(queue_shmem_size(QUEUE_BYTES, QUEUE_BATCHES));
	queue_init(queue, QUEUE_BYTES, QUEUE_BATCHES);

	clock_gettime(CLOCK_MONOTONIC, &start);
	for (int i = 0; i < nwriters; i++)
	{
		pid_t		pid = fork();

		if (pid == 0)
			run_writer(i);
		if (pid < 0)
			abort();
	}
	do
	{
		taken += take_batches();
		usleep(100);
		clock_gettime(CLOCK_MONOTONIC, &now);
		elapsed = (now.tv_sec - start.tv_sec) + (now.tv_nsec - start.tv_nsec) / 1e9;
	} while (elapsed < seconds);
	shared->stop = 1;
	for (int i = 0; i < nwriters; i++)
	{
		int			status;

		if (wait(&status) < 0 || status != 0)
			abort();
	}
	taken += take_batches();

	for (int i = 0; i < nwriters; i++)
	{
		batches += shared->writers[i].batches;
		writers_seconds += shared->writers[i].seconds;
	}
	if (taken != batches)
	{
		fprintf(stderr, "%llu batches were handed over, %llu were taken\n",
				(unsigned long long) batches, (unsigned long long) taken);
		return 1;
	}
	printf("%.0f\t%.1f\n", batches / elapsed, writers_seconds / batches * 1e9);
	return 0;
}
