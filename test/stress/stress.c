/*-------------------------------------------------------------------------
 *
 * stress.c
 *	  Stress test of queue.c and ring.c alone, without a server.
 *
 * Many writers, one worker and several readers are processes that share one
 * queue and one ring, both so small that they wrap, fill up, overrun and
 * evict all the time.  Writers are ended between reservation and decision, as
 * SIGTERM does it in a backend: the batch is aborted.  The worker is killed
 * at any instruction, and its successor goes on from what it finds.
 *
 * Nothing random has to be told from process to process: all that is in a
 * batch follows from the seed and the batch's xid, which is the writer's
 * number and that writer's count of batches (plan_make()).  So whoever sees
 * a batch or a record can tell whether each byte of it is right.
 *
 * What is checked, and by whom:
 *
 *	worker		Tickets come one by one; a batch is what its writer said, and
 *				each byte of it is right, unless the ring says that it need
 *				not be read again.
 *	readers		Each byte of each record is right.  Positions follow on each
 *				other; after a seek one may be missing only if
 *				ring_evicted_position() says so.  The end is not reported
 *				before the newest published position.  Indexes of a batch are
 *				adjacent and complete; tickets and each writer's count grow.
 *				Nothing of an aborted batch.  One reader follows closely, one
 *				slowly, one by headers alone, one seeks at random, and one
 *				looks at queue_usage() and at the ring's offsets.
 *	parent		At the end, by the log in which the worker's evict callback
 *				noted each record, and by what is left in the ring: the ring
 *				got all committed batches, whole, once, in the order of their
 *				tickets, and nothing else.  An empty queue has room for the
 *				longest batch, and does not stay overrun.  All the while: no
 *				wake-up is lost, which shows as a standstill, for no wait of
 *				the worker has a timeout; no process ends other than it should.
 *
 * Each configuration is one test.  Queue and ring end at pages that cannot be
 * touched, so that a write behind them is noticed.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "port/atomics.h"
#include "storage/s_lock.h"

#include "queue.h"
#include "ring.h"

/* The server's own, which need its library. */
#undef fprintf
#undef printf
#undef snprintf
#undef vsnprintf

#define MAX_WRITERS		16		/* one of them is the parent, at the end */
#define MAX_CHANGES		256		/* of a batch */
#define MAX_SPAN		64		/* positions of a gap */
#define MAX_READERS		5
#define MAX_SEQ			((uint64) 1 << 19)	/* batches of a writer */
#define MAX_TICKETS		((uint64) 1 << 21)
#define MAX_POSITIONS	((uint64) 1 << 24)
#define HANG_SECONDS	8		/* no batch done, though there is one */
#define END_SECONDS		30		/* for what comes after the load */

/* One configuration. */
typedef struct Config
{
	const char *name;
	Size		queue_bytes;
	uint32		nbatches;
	uint32		chunks;			/* of the ring */
	int			nwriters;
	uint32		point_mask;		/* a point acts once in so many + 1; 0: never */
	int			worker_kills;	/* by the parent, of 1000 turns */
	int			writer_kills;
	bool		pingpong;		/* each writer waits until its batch is done */
	int			nreaders;
} Config;

static const Config configs[] = {
	{"roomy", 1024 * 1024, 1024, 64, 8, 0, 0, 0, false, MAX_READERS},
	{"small", 64 * 1024, 64, 16, 12, 1023, 100, 60, false, MAX_READERS},
	{"tiny", 4 * 1024, 4, 1, 12, 255, 200, 100, false, MAX_READERS},
	{"odd", 10 * 1000 + 8, 256, 3, 12, 511, 100, 60, false, MAX_READERS},
	{"one", 8 * 1024, 1, 2, 4, 255, 100, 60, false, MAX_READERS},
	{"wake", 64 * 1024, 64, 4, 1, 0, 0, 0, true, 0},
	{"wake-kill", 64 * 1024, 64, 4, 2, 127, 50, 20, true, MAX_READERS},
};

/* What became of a batch; told before the queue is told. */
typedef enum Outcome
{
	OUTCOME_NONE,
	OUTCOME_LOST,				/* no room, or its writer ended before */
	OUTCOME_COMMITTED,
	OUTCOME_ABORTED
} Outcome;

/* Shared by all processes of a configuration. */
typedef struct Shared
{
	/* set by the parent */
	pg_atomic_uint32 stop_writers;
	pg_atomic_uint32 stop_readers;
	pg_atomic_uint32 stop_worker;
	pg_atomic_uint32 calm;		/* no one dies any more */
	pg_atomic_uint32 pace;		/* microseconds between batches */

	/* set by whoever fails first */
	pg_atomic_uint32 failed;
	char		message[512];

	/* what the worker is asked for beside batches */
	pg_atomic_uint64 requested;
	pg_atomic_uint64 served;

	/* newest position that readers must find; set by the worker */
	pg_atomic_uint64 published;

	/* for the summary */
	pg_atomic_uint64 committed;
	pg_atomic_uint64 aborted;
	pg_atomic_uint64 spilled;
	pg_atomic_uint64 lost;
	pg_atomic_uint64 overruns;
	pg_atomic_uint64 worker_kills;
	pg_atomic_uint64 writer_kills;
	pg_atomic_uint64 overtaken;
	pg_atomic_uint64 wakeups;
	pg_atomic_uint64 bytes;

	/* next count of each writer; set by it */
	pg_atomic_uint64 seq[MAX_WRITERS];
} Shared;

/* What follows from the xid of a batch. */
typedef struct Plan
{
	uint64		xid;
	uint64		len;			/* of all changes */
	uint32		nchanges;
	bool		spilled;
	bool		silent;			/* the worker makes no record of it */
	uint32		change_len[MAX_CHANGES];
} Plan;

/* A change in the queue; its payload follows. */
typedef struct Change
{
	uint64		xid;
	uint32		index;
	uint32		len;
} Change;

static const Config *config;
static uint64 seed;
static Shared *shared;
static Queue *queue;
static Ring *ring;
static int	wake_pipe[2];

/* xid by ticket; its writer sets it before it decides the batch */
static pg_atomic_uint64 *ticket_xid;

/* by writer * MAX_SEQ + count: Outcome */
static uint8 *outcomes;

/* by position: what was there, LOG_CHANGE() or LOG_GAP(); 0: unknown */
static pg_atomic_uint64 *position_log;

#define LOG_CHANGE(xid, index)	((xid) << 16 | (index))
#define LOG_GAP_BIT				((uint64) 1 << 63)
#define LOG_GAP(span)			(LOG_GAP_BIT | (span))

/* An xid: writer + 1, and the writer's count. */
#define XID(writer, seq)		((uint64) ((writer) + 1) << 32 | (seq))
#define XID_WRITER(xid)			((int) ((xid) >> 32) - 1)
#define XID_SEQ(xid)			((xid) & 0xFFFFFFFF)

/* this process */
static const char *role = "parent";
static uint64 random_state;
static uint64 point_state;
static uint32 point_mask = 0;
static bool mortal = false;
static uint32 doomed = 0;		/* dies after so many points; 0: need not */
static volatile sig_atomic_t terminated = 0;
static char *buffer;			/* for a batch or a payload */

/* the children, known to the parent */
static pid_t worker_pid;
static pid_t writer_pids[MAX_WRITERS];
static pid_t reader_pids[MAX_READERS];
static uint64 incarnation = 0;
static uint64 deadline;			/* of the end, 0: not yet there */

static void reader_main(int kind) pg_attribute_noreturn();
static void worker_main(void) pg_attribute_noreturn();
static void writer_main(int writer) pg_attribute_noreturn();

/* --- basics --- */

static void fail(const char *fmt,...) pg_attribute_noreturn();

/* Notes the first failure, and ends this process. */
static void
fail(const char *fmt,...)
{
	va_list		args;
	char		text[400];

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);

	if (shared && pg_atomic_exchange_u32(&shared->failed, 1) == 0)
		snprintf(shared->message, sizeof(shared->message),
				 "%s: %s", role, text);
	_exit(2);
}

static uint64
mix(uint64 x)
{
	x += UINT64CONST(0x9E3779B97F4A7C15);
	x = (x ^ (x >> 30)) * UINT64CONST(0xBF58476D1CE4E5B9);
	x = (x ^ (x >> 27)) * UINT64CONST(0x94D049BB133111EB);
	return x ^ (x >> 31);
}

static uint64
next_random(uint64 *state)
{
	*state += UINT64CONST(0x9E3779B97F4A7C15);
	return mix(*state);
}

/* From 0 to n - 1. */
static uint64
below(uint64 n)
{
	return next_random(&random_state) % n;
}

static uint64
now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64) ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

/*
 * One turn of waiting for another process.  Must soon become a sleep: the
 * scheduler lets many that only yield starve that other process for seconds.
 */
static void
nap(uint32 *turns)
{
	if ((*turns)++ < 100)
		sched_yield();
	else
		usleep(50);
}

static void
count(pg_atomic_uint64 *counter)
{
	pg_atomic_fetch_add_u64(counter, 1);
}

/*
 * Lets the worker's falling asleep meet a decision, to some nanoseconds: both
 * call this before.
 */
static void
dither(void)
{
	if (config->pingpong)
		for (volatile int i = below(4000); i > 0; i--)
			;
}

static void
worker_die(void)
{
	if (pg_atomic_read_u32(&shared->calm) != 0)
		return;
	kill(getpid(), SIGKILL);
}

/* Lets the worker now and then die at one of the next points. */
static void
worker_doom(uint32 points)
{
	if (mortal && below(64) == 0)
		doomed = 1 + below(points);
}

/*
 * Called from within queue.c and ring.c, see points.h.  Never acts in the
 * parent.
 */
extern void stress_point(void);

void
stress_point(void)
{
	uint64		r;

	if (point_mask == 0)
		return;
	if (doomed > 0 && --doomed == 0)
		worker_die();
	r = next_random(&point_state);
	if ((r & point_mask) != 0)
		return;

	r >>= 32;
	if (r % 8 < 5)
		sched_yield();
	else if (r % 8 < 7)
		usleep(1 + r / 8 % 100);
	else if (mortal && r / 8 % 4 == 0)
		worker_die();
}

/* --- stubs for the server's symbols --- */

void
ExceptionalCondition(const char *conditionName, const char *errorType,
					 const char *fileName, int lineNumber)
{
	fail("%s: \"%s\", %s:%d", errorType, conditionName, fileName, lineNumber);
}

int
s_lock(volatile slock_t *lock, const char *file, int line, const char *func)
{
	uint64		start = now_us();
	uint32		turns = 0;

	while (TAS_SPIN(lock))
	{
		if (now_us() - start > (uint64) HANG_SECONDS * 1000000)
			fail("stuck spinlock in %s, %s:%d", func, file, line);
		nap(&turns);
	}
	return 0;
}

/* --- what a batch is --- */

static uint32
plan_change_len(uint64 r)
{
	uint32		max = ring_max_payload(ring);
	uint32		kind = r % 64;

	r = mix(r);
	if (kind < 36)
		return r % Min(64, max);
	if (kind < 56)
		return r % Min(512, max);
	if (kind < 61)
		return r % (max / 4);
	if (kind < 63)
		return r % max;
	return max;
}

/* Lets 'plan' be that of 'xid'. */
static void
plan_make(Plan *plan, uint64 xid)
{
	uint64		state = mix(seed ^ mix(xid));
	uint64		max = queue_max_inline(config->queue_bytes);
	uint32		kind = next_random(&state) % 64;
	uint64		huge_len = Min(config->chunks, 8) * RING_CHUNK_SIZE;
	bool		longest = false;
	bool		huge = false;
	uint64		len = 0;

	if (plan->xid == xid)
		return;
	plan->xid = xid;
	plan->spilled = next_random(&state) % 32 == 0;
	plan->silent = next_random(&state) % 4 == 0;

	if (kind < 2)
		plan->nchanges = 0;
	else if (kind < 34 || config->pingpong)
		plan->nchanges = 1;
	else if (kind < 52)
		plan->nchanges = 1 + next_random(&state) % 4;
	else if (kind < 60)
		plan->nchanges = 1 + next_random(&state) % 32;
	else if (kind < 61)
		plan->nchanges = 1 + next_random(&state) % MAX_CHANGES;
	else
	{
		plan->nchanges = MAX_CHANGES;
		longest = kind < 63;
		huge = !longest;
	}

	for (uint32 i = 0; i < plan->nchanges; i++)
	{
		uint32		change_len = plan_change_len(next_random(&state));

		/* Longer than a small ring, so that it evicts what it began with. */
		if (huge)
		{
			change_len = next_random(&state) % ring_max_payload(ring);
			if (len > huge_len + huge_len / 4)
				plan->nchanges = i + 1;
		}

		/* The last change takes what is left, if it is not too long for it. */
		if (longest &&
			len + 2 * sizeof(Change) + MAXALIGN(change_len) > max)
		{
			plan->nchanges = i + 1;
			plan->spilled = false;
			change_len = Min(max - len - sizeof(Change),
							 ring_max_payload(ring));
		}
		plan->change_len[i] = change_len;
		len += sizeof(Change) +
			(i + 1 < plan->nchanges ? MAXALIGN(change_len) : change_len);
	}
	plan->len = len;
	if (len > max)
		plan->spilled = true;
}

static uint64
payload_key(uint64 xid, uint32 index)
{
	return mix(seed + mix(xid * MAX_CHANGES + index));
}

static void
payload_fill(char *to, uint32 len, uint64 key)
{
	uint64		word;

	for (uint32 i = 0; i < len; i += sizeof(word))
	{
		word = (key + i) * UINT64CONST(0xD6E8FEB86659FD93);
		memcpy(to + i, &word, Min(sizeof(word), len - i));
	}
}

static bool
payload_is(const char *from, uint32 len, uint64 key)
{
	uint64		word;

	for (uint32 i = 0; i < len; i += sizeof(word))
	{
		word = (key + i) * UINT64CONST(0xD6E8FEB86659FD93);
		if (memcmp(from + i, &word, Min(sizeof(word), len - i)) != 0)
			return false;
	}
	return true;
}

/* What a writer says of the batch, but for its ticket. */
static void
plan_batch(const Plan *plan, Batch *batch)
{
	memset(batch, 0, sizeof(*batch));
	batch->len = plan->len;
	batch->xid = plan->xid;
	batch->spill_id = plan->spilled ? plan->xid : 0;
	batch->reserved_at = (int64) mix(plan->xid);
	batch->nchanges = plan->nchanges;
	batch->pid = (int32) mix(plan->xid + 1);
}

static int64
plan_committed_at(uint64 xid)
{
	return (int64) mix(xid + 2);
}

static bool
batch_is_planned(const Batch *batch, Plan *plan)
{
	Batch		expected;

	if (XID_WRITER(batch->xid) < 0 || XID_WRITER(batch->xid) >= MAX_WRITERS)
		return false;
	plan_make(plan, batch->xid);
	plan_batch(plan, &expected);
	return batch->len == expected.len &&
		batch->spill_id == expected.spill_id &&
		batch->reserved_at == expected.reserved_at &&
		batch->nchanges == expected.nchanges &&
		batch->pid == expected.pid;
}

/* Of a record; at random, so that it is not always the last that is highest. */
static uint64
horizon(uint64 position)
{
	return mix(seed ^ position);
}

/*
 * Checks a record as such; without its payload if that is NULL.
 */
static void
check_record(const RingRecord *record, const char *payload)
{
	static Plan plan;
	uint64		xid = record->xid;

	if (record->horizon != horizon(record->position))
		fail("bad record at position " UINT64_FORMAT, record->position);
	if (record->ticket == 0)
	{
		/* a gap: its position is its key */
		if (xid != 0 || record->span == 0 || record->span > MAX_SPAN ||
			record->index != 0 || record->len > ring_max_payload(ring))
			fail("bad gap at position " UINT64_FORMAT, record->position);
		if (payload && !payload_is(payload, record->len, mix(record->position)))
			fail("bad bytes in the gap at position " UINT64_FORMAT,
				 record->position);
		return;
	}

	if (record->ticket >= MAX_TICKETS ||
		pg_atomic_read_u64(&ticket_xid[record->ticket]) != xid)
		fail("position " UINT64_FORMAT ": ticket " UINT64_FORMAT
			 " was not given to xid " UINT64_FORMAT,
			 record->position, record->ticket, xid);
	plan_make(&plan, xid);
	if (record->index >= plan.nchanges ||
		record->len != plan.change_len[record->index] ||
		record->span != 1 ||
		record->watcher != (uint32) mix(xid + record->index) ||
		record->committed_at != plan_committed_at(xid))
		fail("bad record at position " UINT64_FORMAT, record->position);
	if (plan.silent ||
		outcomes[XID_WRITER(xid) * MAX_SEQ + XID_SEQ(xid)] != OUTCOME_COMMITTED)
		fail("position " UINT64_FORMAT ": record of a batch that has none",
			 record->position);
	if (payload &&
		!payload_is(payload, record->len, payload_key(xid, record->index)))
		fail("bad bytes at position " UINT64_FORMAT, record->position);
}

/* Notes a record by its position; twice is right if it is the same. */
static void
log_record(const RingRecord *record)
{
	uint64		entry = record->ticket == 0 ? LOG_GAP(record->span) :
	LOG_CHANGE(record->xid, record->index);
	uint64		former;

	if (record->position >= MAX_POSITIONS)
		fail("position " UINT64_FORMAT " is out of range", record->position);
	former = pg_atomic_exchange_u64(&position_log[record->position], entry);
	if (former != 0 && former != entry)
		fail("position " UINT64_FORMAT " was given twice", record->position);
}

/* --- the worker --- */

static void
worker_wake(void)
{
	count(&shared->wakeups);
	if (write(wake_pipe[1], "", 1) < 0 && errno != EAGAIN)
		fail("could not write to pipe: %m");
}

static void
worker_evict(const RingRecord *record, uint64 offset, void *arg)
{
	uint64	   *next_offset = arg;

	if (*next_offset != offset && *next_offset != PG_UINT64_MAX)
		fail("evicted offset " UINT64_FORMAT " instead of " UINT64_FORMAT,
			 offset, *next_offset);
	check_record(record, NULL);
	log_record(record);
	*next_offset = offset + sizeof(RingRecord) + MAXALIGN(record->len) +
		sizeof(uint64);
}

static void
worker_publish(RingWriter *writer, uint64 position)
{
	ring_publish(writer);
	pg_memory_barrier();
	pg_atomic_write_u64(&shared->published, position);
}

/* Appends a batch, but for the first 'skip' changes; returns the position. */
static uint64
worker_append(RingWriter *writer, const Batch *batch, const Plan *plan,
			  uint32 skip, uint64 position)
{
	const char *data = plan->spilled ? NULL : queue_data(queue);
	const char *from = data;
	bool		in_parts = below(2) == 0;

	for (uint32 i = 0; i < plan->nchanges; i++)
	{
		uint32		len = plan->change_len[i];
		uint64		key = payload_key(plan->xid, i);
		const char *payload;

		if (plan->spilled)
		{
			payload_fill(buffer, len, key);
			payload = buffer;
		}
		else
		{
			Change		change;

			memcpy(&change, from, sizeof(change));
			payload = from + sizeof(change);
			if (change.xid != plan->xid || change.index != i ||
				change.len != len || !payload_is(payload, len, key))
				fail("ticket " UINT64_FORMAT ": bad bytes in the queue, change %u of %u%s",
					 batch->ticket, i, plan->nchanges,
					 plan->silent ? ", which make no records" : "");
			from = payload + MAXALIGN(len);
		}

		if (i >= skip && !plan->silent)
		{
			RingRecord	record;

			memset(&record, 0, sizeof(record));
			record.len = len;
			record.watcher = (uint32) mix(plan->xid + i);
			record.position = ++position;
			record.ticket = batch->ticket;
			record.xid = plan->xid;
			record.committed_at = batch->committed_at;
			record.horizon = horizon(position);
			record.index = i;
			record.span = 1;
			ring_append(writer, &record, payload);
			pg_atomic_fetch_add_u64(&shared->bytes, len);
			if (in_parts && below(8) == 0)
				worker_publish(writer, position);
		}
	}
	worker_publish(writer, position);
	return position;
}

static uint64
worker_append_gap(RingWriter *writer, uint64 position)
{
	RingRecord	record;

	memset(&record, 0, sizeof(record));
	record.len = below(Min(200, ring_max_payload(ring)));
	record.span = 1 + below(MAX_SPAN);
	record.position = position + record.span;
	record.horizon = horizon(record.position);
	payload_fill(buffer, record.len, mix(record.position));
	ring_append(writer, &record, buffer);
	worker_publish(writer, record.position);
	return record.position;
}

/* Whether there is something to do; what the worker looks at before it sleeps. */
static bool
worker_is_wanted(void)
{
	Batch		batch;
	BatchState	state = queue_peek(queue, &batch);

	return state == BATCH_COMMITTED || state == BATCH_ABORTED ||
		pg_atomic_read_u64(&shared->served) !=
		pg_atomic_read_u64(&shared->requested) ||
		pg_atomic_read_u32(&shared->stop_worker) != 0;
}

static void
worker_main(void)
{
	static Plan plan;
	RingWriter	writer;
	RingRecord	newest;
	uint64		next_evicted = PG_UINT64_MAX;
	uint64		position = 0;
	uint64		skip_ticket = 0;
	uint64		ticket = 0;
	uint32		skip = 0;

	ring_writer_start(&writer, ring, worker_evict, &next_evicted);
	if (ring_newest(ring, &newest))
	{
		check_record(&newest, NULL);
		position = newest.position;
		skip_ticket = newest.ticket;
		skip = newest.index + 1;
	}
	if (position < pg_atomic_read_u64(&shared->published))
		fail("newest record is at position " UINT64_FORMAT ", not at " UINT64_FORMAT,
			 position, pg_atomic_read_u64(&shared->published));
	pg_atomic_write_u64(&shared->published, position);

	for (;;)
	{
		char		drain[64];
		struct pollfd pollfd = {wake_pipe[0], POLLIN, 0};
		Batch		batch;
		BatchState	state;

		/* As a latch: reset it, then look. */
		while (read(wake_pipe[0], drain, sizeof(drain)) > 0)
			;
		pg_memory_barrier();
		pg_atomic_write_u64(&shared->served,
							pg_atomic_read_u64(&shared->requested));

		while ((state = queue_peek(queue, &batch)) == BATCH_COMMITTED ||
			   state == BATCH_ABORTED)
		{
			if (ticket != 0 && batch.ticket != ticket + 1)
				fail("ticket " UINT64_FORMAT " came after " UINT64_FORMAT,
					 batch.ticket, ticket);
			ticket = batch.ticket;
			if (ticket >= MAX_TICKETS ||
				pg_atomic_read_u64(&ticket_xid[ticket]) != batch.xid ||
				!batch_is_planned(&batch, &plan) ||
				outcomes[XID_WRITER(batch.xid) * MAX_SEQ + XID_SEQ(batch.xid)] !=
				(state == BATCH_COMMITTED ? OUTCOME_COMMITTED : OUTCOME_ABORTED))
				fail("ticket " UINT64_FORMAT " is not as its writer left it",
					 ticket);

			if (state == BATCH_COMMITTED)
			{
				if (batch.committed_at != plan_committed_at(batch.xid))
					fail("ticket " UINT64_FORMAT " has another commit time",
						 ticket);
				if (skip_ticket != ticket)
					skip = 0;
				worker_doom(100);
				if (skip < plan.nchanges)
					position = worker_append(&writer, &batch, &plan, skip,
											 position);
			}
			worker_doom(16);
			queue_advance(queue);

			if (below(64) == 0)
				position = worker_append_gap(&writer, position);
		}

		dither();
		queue_set_sleeping(queue, true);
		if (worker_is_wanted())
		{
			queue_set_sleeping(queue, false);
			if (pg_atomic_read_u32(&shared->stop_worker) != 0)
				_exit(0);
			continue;
		}
		poll(&pollfd, 1, -1);
		queue_set_sleeping(queue, false);
	}
}

/* --- writers --- */

static void
writer_terminate(int signo)
{
	(void) signo;
	terminated = 1;
}

static void
writer_exit(void)
{
	count(&shared->writer_kills);
	_exit(0);
}

/* Whether the worker is done with a ticket. */
static bool
ticket_is_done(uint64 ticket)
{
	QueueUsage	usage;

	queue_usage(queue, &usage);
	return usage.tickets + 1 - usage.batches > ticket;
}

static void
writer_await_ticket(uint64 ticket)
{
	uint32		turns = 0;

	while (!ticket_is_done(ticket))
	{
		if (pg_atomic_read_u32(&shared->failed) != 0)
			_exit(0);
		nap(&turns);
	}
}

/* Copies a batch into the queue; false if this process is to end. */
static bool
writer_copy(uint64 ticket, const Plan *plan)
{
	uint64		filled = 0;
	uint64		written = 0;

	for (uint32 i = 0; i < plan->nchanges; i++)
	{
		Change		change = {plan->xid, i, plan->change_len[i]};

		memcpy(buffer + filled, &change, sizeof(change));
		payload_fill(buffer + filled + sizeof(change), change.len,
					 payload_key(plan->xid, i));
		filled += sizeof(change) + MAXALIGN(change.len);
	}
	while (written < plan->len)
	{
		uint64		part = 1 + below(plan->len);

		part = Min(part, plan->len - written);
		queue_write(queue, ticket, written, buffer + written, part);
		written += part;
		if (terminated)
			return false;
	}
	return true;
}

/* Takes a ticket as pending.c does; false: the batch is lost. */
static bool
writer_reserve(Batch *batch, bool patient)
{
	uint64		start = now_us();
	uint64		patience = below(5000);

	while (!queue_reserve(queue, batch))
	{
		if (terminated || pg_atomic_read_u32(&shared->failed) != 0)
			return false;
		if (!patient)
		{
			if (queue_is_overrun(queue))
				return false;
			if (now_us() - start > patience)
			{
				count(&shared->overruns);
				queue_set_overrun(queue);
				return false;
			}
		}
		usleep(50 + below(200));
	}
	return true;
}

/* Does one batch; returns its ticket, 0 if it was lost. */
static uint64
writer_batch(int writer, bool patient)
{
	static Plan plan;
	uint64		seq = pg_atomic_fetch_add_u64(&shared->seq[writer], 1);
	uint64		xid = XID(writer, seq);
	uint8	   *outcome = &outcomes[writer * MAX_SEQ + seq];
	Batch		batch;
	bool		wake;

	plan_make(&plan, xid);
	plan_batch(&plan, &batch);
	if (!writer_reserve(&batch, patient))
	{
		count(&shared->lost);
		*outcome = OUTCOME_LOST;
		return 0;
	}
	if (batch.ticket == 0 || batch.ticket >= MAX_TICKETS ||
		pg_atomic_exchange_u64(&ticket_xid[batch.ticket], xid) != 0)
		fail("ticket " UINT64_FORMAT " was given twice", batch.ticket);

	if ((plan.spilled || writer_copy(batch.ticket, &plan)) &&
		below(64) == 0)
		usleep(below(2000));	/* as for a synchronous standby */

	dither();
	if (terminated || below(8) == 0)
	{
		*outcome = OUTCOME_ABORTED;
		wake = queue_abort(queue, batch.ticket);
		count(&shared->aborted);
	}
	else
	{
		*outcome = OUTCOME_COMMITTED;
		wake = queue_commit(queue, batch.ticket, plan_committed_at(xid));
		count(&shared->committed);
	}
	if (wake)
		worker_wake();
	if (plan.spilled)
		count(&shared->spilled);
	return batch.ticket;
}

/* Asks the worker for something else, and waits for it. */
static void
writer_request(void)
{
	uint64		request = pg_atomic_add_fetch_u64(&shared->requested, 1);
	uint32		turns = 0;

	if (queue_worker_sleeps(queue))
		worker_wake();
	while (pg_atomic_read_u64(&shared->served) < request)
	{
		if (pg_atomic_read_u32(&shared->failed) != 0)
			_exit(0);
		nap(&turns);
	}
}

static void
writer_main(int writer)
{
	signal(SIGTERM, writer_terminate);

	while (pg_atomic_read_u32(&shared->stop_writers) == 0)
	{
		uint32		pace = pg_atomic_read_u32(&shared->pace);
		uint64		ticket = writer_batch(writer, config->pingpong);

		if (terminated)
			writer_exit();
		if (ticket == 0)
			usleep(200 + below(1000));
		else if (config->pingpong)
			writer_await_ticket(ticket);
		else if (pace > 0)
			usleep(below(pace));
		if (below(config->pingpong ? 2 : 100) == 0)
			writer_request();
		if (terminated)
			writer_exit();
	}
	_exit(0);
}

/* --- readers --- */

/* What a reader remembers of the records before. */
typedef struct Trail
{
	bool		adjacent;		/* the next one follows 'after' */
	bool		whole;			/* no change is missing behind 'last' */
	bool		ahead;			/* 'after' was not published when sought */
	RingRecord	last;			/* its last change */
	uint64		after;			/* position */
	uint64		seq[MAX_WRITERS];	/* of each writer's last change, + 1 */
} Trail;

static void
trail_reset(Trail *trail, uint64 after)
{
	memset(trail, 0, sizeof(*trail));
	trail->after = after;
}

/* Checks a record against those before it. */
static void
trail_follow(Trail *trail, const RingRecord *record)
{
	static Plan plan;
	uint64		before = record->position - record->span;
	uint64		evicted;

	/* The record has been read: only then this one is loaded. */
	pg_read_barrier();
	evicted = ring_evicted_position(ring);

	/* A seek beyond the end finds the end, behind which all are new. */
	if (trail->ahead && record->position <= trail->after)
		return;
	trail->ahead = false;

	if (record->position <= trail->after)
		fail("position " UINT64_FORMAT " came after " UINT64_FORMAT,
			 record->position, trail->after);
	if (trail->adjacent ? before != trail->after :
		before > Max(trail->after, evicted))
		fail("position " UINT64_FORMAT " (span %u) came after " UINT64_FORMAT
			 ", evicted are those up to " UINT64_FORMAT,
			 record->position, record->span, trail->after, evicted);
	trail->after = record->position;

	if (record->ticket != 0)
	{
		RingRecord *last = &trail->last;
		uint64	   *seq = &trail->seq[XID_WRITER(record->xid)];

		if (record->ticket == last->ticket)
		{
			if (trail->whole ? record->index != last->index + 1 :
				record->index <= last->index)
				fail("ticket " UINT64_FORMAT ": index %u came after %u",
					 record->ticket, record->index, last->index);
		}
		else
		{
			if (last->ticket != 0)
				plan_make(&plan, last->xid);
			if (record->ticket < last->ticket ||
				XID_SEQ(record->xid) < *seq ||
				(trail->whole && record->index != 0) ||
				(trail->whole && last->index + 1 != plan.nchanges))
				fail("index %u of ticket " UINT64_FORMAT " came after index %u of "
					 UINT64_FORMAT, record->index, record->ticket,
					 last->index, last->ticket);
		}
		*seq = XID_SEQ(record->xid) + 1;
		trail->last = *record;
		trail->whole = true;
	}
	trail->adjacent = true;
}

/*
 * Reads one record, or as much as there is; checks all that can be checked.
 */
static RingResult
reader_step(RingCursor *cursor, Trail *trail, bool header)
{
	uint64		published = pg_atomic_read_u64(&shared->published);
	RingRecord	record;
	RingResult	result;

	pg_read_barrier();
	if (header)
		result = ring_read_header(cursor, &record);
	else
		result = ring_read(cursor, &record, buffer);

	switch (result)
	{
		case RING_RECORD:
			check_record(&record, header ? NULL : buffer);
			trail_follow(trail, &record);
			break;
		case RING_END:
			if (published > trail->after)
				fail("end after position " UINT64_FORMAT ", though "
					 UINT64_FORMAT " is published", trail->after, published);
			break;
		case RING_OVERTAKEN:
			count(&shared->overtaken);
			break;
	}
	return result;
}

static void
reader_follow(bool header, bool slow)
{
	RingCursor	cursor;
	Trail		trail;

	trail_reset(&trail, 0);
	ring_seek(&cursor, ring, 0);
	for (;;)
	{
		bool		last = pg_atomic_read_u32(&shared->stop_readers) != 0;

		pg_read_barrier();
		switch (reader_step(&cursor, &trail, header))
		{
			case RING_RECORD:
				break;
			case RING_END:
				if (last)
					_exit(0);
				usleep(50);
				break;
			case RING_OVERTAKEN:
				trail.adjacent = false;
				trail.whole = false;
				ring_seek(&cursor, ring, trail.after);
				break;
		}
		if (slow && !last && below(8) == 0)
			usleep(below(4000));
	}
}

static void
reader_jump(void)
{
	while (pg_atomic_read_u32(&shared->stop_readers) == 0)
	{
		uint64		published = pg_atomic_read_u64(&shared->published);
		uint64		evicted = ring_evicted_position(ring);
		uint64		kept = published > evicted ? published - evicted : 1;
		uint64		after = 0;
		RingCursor	cursor;
		Trail		trail;

		switch (below(8))
		{
			case 0:
				break;
			case 1:
				after = below(published + 1);
				break;
			case 2:
				after = published;
				break;
			case 3:
				after = published + below(100);
				break;
			case 4:
				after = PG_UINT64_MAX;
				break;
			default:
				after = evicted + below(kept);
				break;
		}
		trail_reset(&trail, after);
		trail.ahead = after > published;
		ring_seek(&cursor, ring, after);
		for (int i = below(32); i >= 0; i--)
			if (reader_step(&cursor, &trail, false) != RING_RECORD)
				break;
		if (below(4) == 0)
			usleep(below(200));
	}
	_exit(0);
}

/* Looks at what anyone may ask. */
static void
reader_watch(void)
{
	static Plan plan;
	uint64		tickets = 0;
	uint64		done = 0;
	uint64		oldest = 0;
	uint64		head = 0;

	while (pg_atomic_read_u32(&shared->stop_readers) == 0)
	{
		QueueUsage	usage;
		uint64		now;

		queue_usage(queue, &usage);
		now = usage.tickets + 1 - usage.batches;
		if (usage.tickets < tickets || now < done ||
			now > usage.tickets + 1)
			fail("queue went back");
		tickets = usage.tickets;
		done = now;
		if (usage.oldest_state != BATCH_NONE &&
			(usage.oldest.ticket != done ||
			 !batch_is_planned(&usage.oldest, &plan) ||
			 (usage.oldest_state == BATCH_COMMITTED &&
			  usage.oldest.committed_at != plan_committed_at(plan.xid))))
			fail("queue_usage() mixes batches: oldest is ticket " UINT64_FORMAT
				 ", batch is of ticket " UINT64_FORMAT,
				 done, usage.oldest.ticket);

		now = ring_oldest_offset(ring);
		pg_read_barrier();
		if (now < oldest || ring_head_offset(ring) < Max(now, head))
			fail("ring went back");
		oldest = now;
		head = ring_head_offset(ring);
		if (below(4) == 0)
			usleep(below(100));
	}
	_exit(0);
}

static void
reader_main(int kind)
{
	switch (kind)
	{
		case 0:
			reader_follow(false, false);
			break;
		case 1:
			reader_follow(false, true);
			break;
		case 2:
			reader_follow(true, false);
			break;
		case 3:
			reader_jump();
			break;
		default:
			reader_watch();
			break;
	}
	_exit(0);
}

/* --- the parent --- */

/* Starts a child; returns in the parent, and in the child with 0. */
static pid_t
start_child(const char *child_role)
{
	pid_t		parent = getpid();
	pid_t		pid;

	incarnation++;
	pid = fork();
	if (pid < 0)
		fail("could not fork: %m");
	if (pid > 0)
		return pid;

#ifdef __linux__
	prctl(PR_SET_PDEATHSIG, SIGKILL);
#endif
	if (getppid() != parent)
		_exit(0);
	signal(SIGCHLD, SIG_DFL);
	role = child_role;
	random_state = mix(mix(seed) + incarnation);
	point_state = mix(random_state);
	point_mask = config->point_mask;
	return 0;
}

static void
start_worker(void)
{
	worker_pid = start_child("worker");
	if (worker_pid == 0)
	{
		mortal = config->worker_kills > 0;
		worker_main();
	}
}

static void
start_writer(int writer)
{
	writer_pids[writer] = start_child("writer");
	if (writer_pids[writer] == 0)
		writer_main(writer);
}

static void
start_reader(int kind)
{
	reader_pids[kind] = start_child("reader");
	if (reader_pids[kind] == 0)
		reader_main(kind);
}

static bool
is_failed(void)
{
	return pg_atomic_read_u32(&shared->failed) != 0;
}

/* Notes a failure that the parent found, and goes on to the end. */
static void
note_failure(const char *fmt,...)
{
	va_list		args;

	if (pg_atomic_exchange_u32(&shared->failed, 1) != 0)
		return;
	va_start(args, fmt);
	vsnprintf(shared->message, sizeof(shared->message), fmt, args);
	va_end(args);
}

/* Takes note of the children that have ended, and starts others for them. */
static void
reap_children(void)
{
	int			status;
	pid_t		pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
	{
		bool		ended = WIFEXITED(status) && WEXITSTATUS(status) == 0;
		bool		stop = pg_atomic_read_u32(&shared->stop_writers) != 0;
		const char *who = "reader";

		if (pid == worker_pid)
		{
			who = "worker";
			worker_pid = 0;
			if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
			{
				count(&shared->worker_kills);
				ended = true;
			}
			if (!is_failed() &&
				pg_atomic_read_u32(&shared->stop_worker) == 0)
				start_worker();
		}
		for (int i = 0; i < MAX_WRITERS; i++)
			if (pid == writer_pids[i])
			{
				who = "writer";
				writer_pids[i] = 0;

				/* it may have ended before it had its handler */
				if (WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM)
					ended = true;
				if (!is_failed() && !stop)
					start_writer(i);
			}
		for (int i = 0; i < MAX_READERS; i++)
			if (pid == reader_pids[i])
				reader_pids[i] = 0;

		if (!ended)
			note_failure("%s ended with status %#x", who, status);
	}
}

/* Whether there is work and yet nothing has been done for long. */
static void
check_progress(void)
{
	static uint64 last_work;
	static uint64 last_at;
	static const Config *last_config;
	QueueUsage	usage;
	uint64		work;

	queue_usage(queue, &usage);
	work = usage.tickets - usage.batches +
		pg_atomic_read_u64(&shared->served);
	if (work != last_work || config != last_config ||
		(usage.batches == 0 &&
		 pg_atomic_read_u64(&shared->served) ==
		 pg_atomic_read_u64(&shared->requested)))
	{
		last_work = work;
		last_config = config;
		last_at = now_us();
	}
	else if (now_us() - last_at > (uint64) HANG_SECONDS * 1000000)
		note_failure("standstill: " UINT64_FORMAT " batches in the queue, the oldest is %s; "
					 UINT64_FORMAT " requests open",
					 usage.batches,
					 usage.oldest_state == BATCH_UNDECIDED ? "undecided" :
					 usage.oldest_state == BATCH_NONE ? "missing" : "decided",
					 pg_atomic_read_u64(&shared->requested) -
					 pg_atomic_read_u64(&shared->served));
}

static bool
any_alive(const pid_t *pids, int npids)
{
	for (int i = 0; i < npids; i++)
		if (pids[i] != 0)
			return true;
	return false;
}

/*
 * One turn of the parent: sleep a moment, look after the children.  False if
 * the test has failed.
 */
static bool
take_turn(void)
{
	usleep(1 + below(2000));	/* ends early if a child does */
	reap_children();
	check_progress();
	if (deadline != 0 && now_us() > deadline)
		note_failure("did not come to an end");
	return !is_failed();
}

static void
run_load(uint64 duration_us)
{
	static const uint32 paces[] = {0, 200, 1000, 4000};
	uint64		start = now_us();

	while (now_us() - start < duration_us && !is_failed())
	{
		QueueUsage	usage;

		if (below(1000) < (uint64) config->worker_kills && worker_pid != 0)
			kill(worker_pid, SIGKILL);
		if (below(1000) < (uint64) config->writer_kills)
		{
			int			writer = below(config->nwriters);

			if (writer_pids[writer] != 0)
				kill(writer_pids[writer], SIGTERM);
		}
		if (below(50) == 0)
			pg_atomic_write_u32(&shared->pace, paces[below(lengthof(paces))]);
		take_turn();

		/* Stop before an array is full. */
		queue_usage(queue, &usage);
		if (usage.tickets > MAX_TICKETS / 8 * 7 ||
			pg_atomic_read_u64(&shared->published) > MAX_POSITIONS / 8 * 7)
			break;
		for (int i = 0; i < config->nwriters; i++)
			if (pg_atomic_read_u64(&shared->seq[i]) > MAX_SEQ / 8 * 7)
				return;
	}
}

/* An empty queue must take any batch, and must not stay overrun. */
static void
check_empty_queue(void)
{
	for (int i = 0; i < 64 && !is_failed(); i++)
	{
		uint64		ticket = 0;

		/* the parent may fail() here, hence in a child */
		writer_pids[config->nwriters] = start_child("last writer");
		if (writer_pids[config->nwriters] == 0)
		{
			Batch		batch;
			static Plan plan;

			plan_make(&plan, XID(config->nwriters,
								 pg_atomic_read_u64(&shared->seq[config->nwriters])));
			plan_batch(&plan, &batch);
			ticket = writer_batch(config->nwriters, false);
			if (ticket == 0)
				fail("no room in the empty queue for " UINT64_FORMAT " bytes",
					 batch.len);
			writer_await_ticket(ticket);
			_exit(0);
		}
		while (writer_pids[config->nwriters] != 0 && take_turn())
			;
	}
	if (!is_failed() && queue_is_overrun(queue))
		note_failure("empty queue stays overrun");
}

/* Compares the whole of what came with the whole of what was committed. */
static void
check_all(void)
{
	static Plan plan;
	QueueUsage	usage;
	RingCursor	cursor;
	RingRecord	record;
	RingResult	result;
	uint64		position = 0;
	uint64		last = pg_atomic_read_u64(&shared->published);
	uint64		highest = 0;
	uint64		evicted = ring_evicted_position(ring);
	uint64		decided = 0;

	/* Complete the log by what has not been evicted. */
	ring_seek(&cursor, ring, 0);
	while ((result = ring_read(&cursor, &record, buffer)) == RING_RECORD)
	{
		check_record(&record, buffer);
		log_record(&record);
	}
	if (result != RING_END)
		fail("ring could not be read to its end");

	queue_usage(queue, &usage);
	if (usage.batches != 0 || usage.bytes != 0)
		fail("queue is not empty in the end");

	for (uint64 ticket = 1; ticket <= usage.tickets + 1; ticket++)
	{
		bool		end = ticket > usage.tickets;
		uint64		xid = end ? 0 : pg_atomic_read_u64(&ticket_xid[ticket]);
		uint64		entry;
		uint8	   *outcome;

		/* Gaps come between batches. */
		for (;;)
		{
			uint64		next = position + 1;

			while (next <= last && next <= position + MAX_SPAN &&
				   pg_atomic_read_u64(&position_log[next]) == 0)
				next++;
			if (next > last)
				break;
			entry = pg_atomic_read_u64(&position_log[next]);
			if (entry == LOG_GAP(next - position))
				position = next;
			else if (next == position + 1)
				break;
			else
				fail("no record at position " UINT64_FORMAT, position + 1);
		}
		if (end)
			break;

		outcome = &outcomes[XID_WRITER(xid) * MAX_SEQ + XID_SEQ(xid)];
		decided++;
		if (*outcome == OUTCOME_COMMITTED)
		{
			plan_make(&plan, xid);
			for (uint32 i = 0; i < (plan.silent ? 0 : plan.nchanges); i++)
			{
				position++;
				entry = position <= last ?
					pg_atomic_read_u64(&position_log[position]) : 0;
				if (entry != LOG_CHANGE(xid, i))
					fail("position " UINT64_FORMAT " is not change %u of ticket "
						 UINT64_FORMAT, position, i, ticket);
			}
		}
		else if (*outcome != OUTCOME_ABORTED)
			fail("ticket " UINT64_FORMAT " was never decided", ticket);
	}
	if (position != last)
		fail("positions end at " UINT64_FORMAT ", not at " UINT64_FORMAT,
			 position, last);
	if (decided != pg_atomic_read_u64(&shared->committed) +
		pg_atomic_read_u64(&shared->aborted))
		fail(UINT64_FORMAT " tickets for another number of batches", decided);

	/* A worker that died may have left a later one. */
	for (position = 1; position <= Min(evicted, last); position++)
		if (pg_atomic_read_u64(&position_log[position]) != 0)
			highest = Max(highest, horizon(position));
	if (pg_atomic_read_u64(&shared->worker_kills) == 0 ?
		ring_evicted_horizon(ring) != highest : ring_evicted_horizon(ring) < highest)
		fail("highest evicted horizon is " UINT64_FORMAT ", not " UINT64_FORMAT,
			 ring_evicted_horizon(ring), highest);
}

/* MAP_SHARED or MAP_PRIVATE */
static void *
map_memory(Size size, int sharing)
{
	void	   *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
						 sharing | MAP_ANONYMOUS
#ifdef MAP_NORESERVE
						 | MAP_NORESERVE
#endif
						 ,-1, 0);

	if (p == MAP_FAILED)
	{
		perror("could not map memory");
		exit(2);
	}
	return p;
}

/* What is returned ends where a page begins that cannot be touched. */
static void *
map_guarded(Size size, int sharing, void **start, Size *mapped)
{
	Size		page = sysconf(_SC_PAGESIZE);
	Size		pages = (size + page - 1) / page * page;

	*mapped = pages + page;
	*start = map_memory(*mapped, sharing);
	mprotect((char *) *start + pages, page, PROT_NONE);
	return (char *) *start + pages - size;
}

/* Ends all children, by pid. */
static void
end_children(void)
{
	for (int i = 0; i < MAX_WRITERS; i++)
		if (writer_pids[i] != 0)
			kill(writer_pids[i], SIGKILL);
	for (int i = 0; i < MAX_READERS; i++)
		if (reader_pids[i] != 0)
			kill(reader_pids[i], SIGKILL);
	if (worker_pid != 0)
		kill(worker_pid, SIGKILL);
	while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
		;
	memset(writer_pids, 0, sizeof(writer_pids));
	memset(reader_pids, 0, sizeof(reader_pids));
	worker_pid = 0;
}

static void
run_processes(uint64 duration_us)
{
	QueueUsage	usage;

	deadline = 0;
	start_worker();
	for (int i = 0; i < config->nreaders; i++)
		start_reader(i);
	for (int i = 0; i < config->nwriters; i++)
		start_writer(i);
	run_load(duration_us);

	/* Writers first, and then the worker empties the queue. */
	deadline = now_us() + (uint64) END_SECONDS * 1000000;
	pg_atomic_write_u32(&shared->stop_writers, 1);
	while (any_alive(writer_pids, MAX_WRITERS) && take_turn())
		;
	do
	{
		queue_usage(queue, &usage);
	} while (usage.batches != 0 && take_turn());
	pg_atomic_write_u32(&shared->calm, 1);
	check_empty_queue();

	/* The worker ends before the readers, so that they see all of it. */
	pg_atomic_write_u32(&shared->stop_worker, 1);
	worker_wake();
	while (worker_pid != 0 && take_turn())
		;
	pg_atomic_write_u32(&shared->stop_readers, 1);
	while (any_alive(reader_pids, MAX_READERS) && take_turn())
		;

	/* In a child, which may fail(). */
	if (!is_failed())
	{
		reader_pids[0] = start_child("check of all");
		if (reader_pids[0] == 0)
		{
			point_mask = 0;
			check_all();
			_exit(0);
		}
		while (reader_pids[0] != 0 && take_turn())
			;
	}
	end_children();
}

/* Runs one configuration; true if it passed. */
static bool
run_config(uint64 duration_us)
{
	Size		queue_size = queue_shmem_size(config->queue_bytes,
											  config->nbatches);
	Size		ring_bytes = config->chunks * RING_CHUNK_SIZE;
	Size		ring_size = ring_shmem_size(ring_bytes);
	void	   *queue_map;
	void	   *ring_map;
	Size		queue_mapped;
	Size		ring_mapped;
	void	   *buffer_map;
	Size		buffer_mapped;
	bool		passed;

	shared = map_memory(sizeof(Shared), MAP_SHARED);
	ticket_xid = map_memory(MAX_TICKETS * sizeof(pg_atomic_uint64),
							MAP_SHARED);
	position_log = map_memory(MAX_POSITIONS * sizeof(pg_atomic_uint64),
							  MAP_SHARED);
	outcomes = map_memory(MAX_WRITERS * MAX_SEQ, MAP_SHARED);
	queue = map_guarded(queue_size, MAP_SHARED, &queue_map, &queue_mapped);
	ring = map_guarded(ring_size, MAP_SHARED, &ring_map, &ring_mapped);
	queue_init(queue, config->queue_bytes, config->nbatches);
	ring_init(ring, ring_bytes);

	/* A reader of broken lengths must not write over its neighbours. */
	buffer = map_guarded(MAXALIGN(Max(queue_max_inline(config->queue_bytes) + sizeof(uint64),
									  ring_max_payload(ring))),
						 MAP_PRIVATE, &buffer_map, &buffer_mapped);
	if (pipe(wake_pipe) != 0 ||
		fcntl(wake_pipe[0], F_SETFL, O_NONBLOCK) != 0 ||
		fcntl(wake_pipe[1], F_SETFL, O_NONBLOCK) != 0)
	{
		perror("could not prepare");
		exit(2);
	}

	run_processes(duration_us);

	passed = !is_failed();
#define COUNT(field)	((unsigned long) pg_atomic_read_u64(&shared->field))
	printf("%-10s %lu committed, %lu aborted, %lu spilled, %lu lost, "
		   "%lu overruns, %lu wake-ups, %lu worker kills, %lu writer kills, "
		   "%lu overtaken, %lu positions, %lu kB: %s\n",
		   config->name, COUNT(committed), COUNT(aborted), COUNT(spilled),
		   COUNT(lost), COUNT(overruns), COUNT(wakeups), COUNT(worker_kills),
		   COUNT(writer_kills), COUNT(overtaken), COUNT(published),
		   COUNT(bytes) / 1024, passed ? "ok" : "FAILED");
#undef COUNT
	if (!passed)
		printf("%-10s %s\n", config->name, shared->message);
	fflush(stdout);

	close(wake_pipe[0]);
	close(wake_pipe[1]);
	munmap(buffer_map, buffer_mapped);
	munmap(queue_map, queue_mapped);
	munmap(ring_map, ring_mapped);
	munmap(outcomes, MAX_WRITERS * MAX_SEQ);
	munmap(position_log, MAX_POSITIONS * sizeof(pg_atomic_uint64));
	munmap(ticket_xid, MAX_TICKETS * sizeof(pg_atomic_uint64));
	munmap(shared, sizeof(Shared));
	return passed;
}

static void
child_ended(int signo)
{
	(void) signo;				/* it was only to end usleep() */
}

int
main(int argc, char **argv)
{
	struct sigaction action;
	double		seconds = 20;
	const char *only = NULL;
	int			nconfigs = 0;
	int			passed = 0;
	int			failed = 0;

	seed = mix(now_us() ^ ((uint64) getpid() << 32)) % 1000000000;
	for (int i = 1; i < argc; i++)
	{
		if (strcmp(argv[i], "--seconds") == 0 && i + 1 < argc)
			seconds = atof(argv[++i]);
		else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc)
			seed = strtoull(argv[++i], NULL, 10);
		else if (strcmp(argv[i], "--only") == 0 && i + 1 < argc)
			only = argv[++i];
		else
		{
			fprintf(stderr,
					"usage: %s [--seconds N] [--seed S] [--only CONFIGURATION]\n",
					argv[0]);
			return 2;
		}
	}
	printf("%s: --seconds %g --seed %lu\n", argv[0], seconds,
		   (unsigned long) seed);
	fflush(stdout);
	random_state = mix(seed);

	memset(&action, 0, sizeof(action));
	action.sa_handler = child_ended;
	sigemptyset(&action.sa_mask);
	sigaction(SIGCHLD, &action, NULL);

	for (size_t i = 0; i < lengthof(configs); i++)
		if (only == NULL || strcmp(only, configs[i].name) == 0)
			nconfigs++;
	for (size_t i = 0; i < lengthof(configs); i++)
	{
		if (only != NULL && strcmp(only, configs[i].name) != 0)
			continue;
		config = &configs[i];
		if (run_config(seconds / nconfigs * 1000000))
			passed++;
		else
			failed++;
	}
	printf("%d passed, %d failed\n", passed, failed);
	return failed == 0 && passed > 0 ? 0 : 1;
}
