/*-------------------------------------------------------------------------
 *
 * ring_alone.c
 *	  How fast the ring is read, without a server around it.
 *
 * One process reads with src/ring.c what a reader's backend reads, in batches
 * of as many changes as told: each begins by finding its position, as another
 * call would.  Meanwhile another process writes, slowly, so that the reader
 * never starves and is overtaken now and then.  The reader checks that
 * positions follow each other and that each change is what was written under
 * its position.
 *
 * Prints one line: changes that were read per second of the reader's processor
 * time, and how often it was overtaken.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ring.h"

#define RING_BYTES		(32 * 1024 * 1024)
#define CHANGE_BYTES	96		/* two integers, name and table */

/* The writer is the slower one. */
#define WRITE_AT_ONCE	100
#define WRITE_PAUSE_US	1000

static Ring *ring;
static volatile int *stop;

#undef fprintf
#undef printf

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

/* Each word of a change tells its position. */
static void
append(RingWriter *writer, uint64 position)
{
	uint64		change[CHANGE_BYTES / sizeof(uint64)];
	RingRecord	record = {.len = CHANGE_BYTES,.position = position,.span = 1};

	for (size_t i = 0; i < lengthof(change); i++)
		change[i] = position * 8 + i % 8;
	ring_append(writer, &record, change);
}

static uint64
fill(RingWriter *writer)
{
	uint64		position = 1;

	ring_writer_start(writer, ring, NULL, NULL);
	while (ring_oldest_offset(ring) == 0)
	{
		append(writer, position++);
		ring_publish(writer);
	}
	return position;
}

static void
run_writer(RingWriter *writer, uint64 position)
{
	while (!*stop)
	{
		for (int i = 0; i < WRITE_AT_ONCE; i++)
			append(writer, position++);
		ring_publish(writer);
		usleep(WRITE_PAUSE_US);
	}
	_exit(0);
}

static void
check(const uint64 *change, uint64 position, uint64 after, bool follows)
{
	if (follows && position != after + 1)
	{
		fprintf(stderr, "%llu comes after %llu\n",
				(unsigned long long) position, (unsigned long long) after);
		exit(1);
	}
	for (size_t i = 0; i < CHANGE_BYTES / sizeof(uint64); i++)
	{
		if (change[i] != position * 8 + i % 8)
		{
			fprintf(stderr, "change %llu is another one\n",
					(unsigned long long) position);
			exit(1);
		}
	}
}

int
main(int argc, char **argv)
{
	int			batch = argc == 3 ? atoi(argv[1]) : 0;
	double		seconds = argc == 3 ? atof(argv[2]) : 0;
	RingWriter	writer;
	uint64		position;
	uint64		after = 0;
	bool		follows = false;
	uint64		changes = 0;
	uint64		overtaken = 0;
	double		before;
	double		spent;
	uint64	   *payload;
	int			status;
	pid_t		pid;

	if (batch < 1 || seconds <= 0)
	{
		fprintf(stderr, "usage: ring_alone BATCH SECONDS\n");
		return 1;
	}
	stop = share(sizeof(*stop));
	ring = share(ring_shmem_size(RING_BYTES));
	ring_init(ring, RING_BYTES);
	payload = malloc(ring_max_payload(ring));
	position = fill(&writer);

	pid = fork();
	if (pid == 0)
		run_writer(&writer, position);
	if (pid < 0 || payload == NULL)
		abort();

	before = processor_seconds();
	do
	{
		RingCursor	cursor;
		RingRecord	record;
		RingResult	result = RING_RECORD;

		ring_seek(&cursor, ring, after);
		for (int i = 0; i < batch && result == RING_RECORD; i++)
		{
			result = ring_read(&cursor, &record, (char *) payload);
			if (result != RING_RECORD)
				break;
			check(payload, record.position, after, follows);
			after = record.position;
			follows = true;
			changes++;
		}
		if (result == RING_OVERTAKEN)
			overtaken++;

		/* at the end, or overtaken: once more from the oldest */
		if (result != RING_RECORD)
		{
			after = 0;
			follows = false;
		}
		spent = processor_seconds() - before;
	} while (spent < seconds);
	*stop = 1;
	if (wait(&status) < 0 || status != 0)
		abort();
	printf("%.0f\t%llu\n", changes / spent, (unsigned long long) overtaken);
	return 0;
}
