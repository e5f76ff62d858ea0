/*-------------------------------------------------------------------------
 *
 * self_test.c
 *	  ectowatch_self_test(): a probe on the path that changes take.
 *
 * The probe is a payload for channel "ectowatch_self_test", as one that
 * ectowatch_notify() is given (send.c), but not pending first.  It goes through
 * the queue as a batch of its own, into the ring, is read back, and is sent to
 * the channel.  Each step is told with the time since the probe was handed
 * over, and what a failed step can know of its cause.  What comes after a
 * failed step is not tried.
 *
 * The batch is decided as soon as it has its ticket, in the middle of the
 * caller's transaction.  That is legal, because it is not a part of that:
 *
 *	- Nothing can throw, wait or be interrupted between taking the ticket and
 *	  deciding it, so no other batch waits for the caller's transaction.
 *	- Tickets are in the order of commits so that changes of one row are.  The
 *	  probe is about no row.  What the transaction has pending gets a ticket of
 *	  its own at its commit, and comes behind.
 *	- The record has no xid, and as horizon one below which no transaction is:
 *	  so no snapshot fails to see it, and ectowatch_position() passes it by.
 *	  To ectowatch_wait_for() it is a ticket like others.
 *	- If the transaction is rolled back, the probe stays where it is; it tells
 *	  of nothing that was rolled back.
 *
 * A probe that was not taken in time stays in the queue, and is delivered when
 * the worker goes on.  Readers of all watchers are shown it, as any payload
 * for a channel.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "account.h"
#include "change.h"
#include "ectowatch.h"
#include "reader.h"
#include "slot.h"

PG_FUNCTION_INFO_V1(ectowatch_self_test);

#define PROBE_CHANNEL		"ectowatch_self_test"

/* The worker does not say when it has sent; so we look that often. */
#define POLL_MS				1

typedef struct SelfTest
{
	ReturnSetInfo *rsinfo;
	int			step;
	bool		failed;			/* some step has */
	TimestampTz until;
	Slot	   *slot;
	Change	   *probe;
	uint64		ticket;
	instr_time	handed_over;
	RingCursor	cursor;			/* where the probe is, once it is there */
	RingRecord	record;
} SelfTest;

/* A step that was passed or not; detail is NULL if it was not tried. */
static void
put_step(SelfTest *test, const char *what, bool ok, const char *detail)
{
	Datum		values[4] = {0};
	bool		nulls[4] = {false};

	values[0] = Int32GetDatum(++test->step);
	values[1] = CStringGetTextDatum(what);
	nulls[2] = detail == NULL;
	values[2] = BoolGetDatum(ok);
	values[3] = CStringGetTextDatum(detail ? detail :
									"Not tried, since an earlier step failed.");
	tuplestore_putvalues(test->rsinfo->setResult, test->rsinfo->setDesc,
						 values, nulls);
	if (!ok)
		test->failed = true;
}

static double
elapsed_ms(const SelfTest *test)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, test->handed_over);
	return INSTR_TIME_GET_MILLISEC(now);
}

/*
 * Sleeps until something has changed, or for a while; false if it is too late
 * for that.  The first sleep only prepares, so nothing is missed.
 */
static bool
sleep_some(SelfTest *test, long max_ms)
{
	long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
													   test->until);

	if (left <= 0)
		return false;
	(void) ConditionVariableTimedSleep(slot_changed(test->slot),
									   Min(left, max_ms), PG_WAIT_EXTENSION);
	return true;
}

/* --- the steps --- */

static const char *
test_library(SelfTest *test)
{
	if (ectowatch_is_preloaded())
		return "It is loaded at server start.";
	test->failed = true;
	return "It is not in shared_preload_libraries.";
}

static const char *
test_slot(SelfTest *test)
{
	test->failed = true;
	if (RecoveryInProgress())
		return "The server is a standby, where no worker runs.";
	test->slot = slot_attach();
	if (test->slot == NULL)
		return psprintf("ectowatch.max_databases is %d, and so many other databases use ectowatch.",
						ectowatch_max_databases);
	test->failed = false;
	return "This database has one.";
}

static const char *
test_worker(SelfTest *test)
{
	pg_atomic_uint64 *run_start = &slot_progress(test->slot)->run_start;
	int			pid;

	slot_request_worker(test->slot);
	while ((pid = slot_worker_pid(test->slot)) == 0 ||
		   pg_atomic_read_u64(run_start) == 0)
	{
		/* one that found no positions looks for them when it is woken */
		slot_wake_worker(test->slot);
		if (!sleep_some(test, 100))
		{
			test->failed = true;
			return pid == 0 ? "There was none until the time was over; the server log may say why." :
				"It has no positions yet: CREATE EXTENSION is not committed, or the server log says why.";
		}
	}
	return psprintf("It is process %d.", pid);
}

/* No two are the same, so none is taken for a repetition. */
static Change *
make_probe(void)
{
	ChangeParts parts = {0};
	char	   *payload = psprintf("process %d at " INT64_FORMAT,
								   MyProcPid, GetCurrentTimestamp());
	char	   *values = psprintf("{\"payload\":\"%s\"}", payload);

	parts.watcher = SLOT_CHANNELS;
	parts.type = CHANGE_NOTIFY;
	parts.flags = CHANGE_FRESH;
	parts.name = PROBE_CHANNEL;
	parts.count = strlen(payload);
	parts.keys_len = 1;
	parts.values = values;
	parts.values_len = strlen(values);
	parts.old = payload;
	parts.old_len = strlen(payload);
	return change_make(&parts);
}

static const char *
test_queue(SelfTest *test)
{
	Queue	   *queue = slot_queue(test->slot);
	Batch		batch;
	TimestampTz now = GetCurrentTimestamp();

	test->probe = make_probe();
	memset(&batch, 0, sizeof(batch));
	batch.len = test->probe->size;
	batch.nchanges = 1;
	batch.pid = MyProcPid;
	batch.reserved_at = now;

	/* it comes behind what is there now */
	test->cursor.ring = slot_ring(test->slot);
	test->cursor.offset = ring_head_offset(test->cursor.ring);
	INSTR_TIME_SET_CURRENT(test->handed_over);

	/* from here on nothing may throw or wait until it is decided */
	if (!queue_reserve(queue, &batch))
	{
		test->failed = true;
		return "It is full: the worker does not come up with the writers, or not on.";
	}
	queue_write(queue, batch.ticket, 0, test->probe, test->probe->size);
	if (queue_commit(queue, batch.ticket, now))
		slot_wake_worker(test->slot);

	test->ticket = batch.ticket;
	return psprintf("The probe has ticket " UINT64_FORMAT ".", batch.ticket);
}

/* Looks for the probe in what is new in the ring; leaves the cursor there. */
static bool
find_probe(SelfTest *test)
{
	for (;;)
	{
		RingCursor	next = test->cursor;

		switch (ring_read_header(&next, &test->record))
		{
			case RING_RECORD:
				if (test->record.ticket == test->ticket)
					return true;
				test->cursor = next;
				break;
			case RING_OVERTAKEN:
				test->cursor.offset = ring_oldest_offset(test->cursor.ring);
				break;
			case RING_END:
				return false;
		}
		CHECK_FOR_INTERRUPTS();
	}
}

static const char *
test_ring(SelfTest *test)
{
	QueueUsage	usage;

	while (!find_probe(test))
	{
		if (!sleep_some(test, 1000))
		{
			test->failed = true;
			queue_usage(slot_queue(test->slot), &usage);
			if (usage.tickets - usage.batches >= test->ticket)
				return "The worker has taken it, and the ring has overwritten it already, or the extension was dropped.";
			if (usage.oldest_state == BATCH_UNDECIDED)
				return psprintf("The worker waits for the end of transaction " UINT64_FORMAT " of process %d, which commits.",
								usage.oldest.xid, usage.oldest.pid);
			return "The worker did not take it until the time was over.";
		}
	}
	return psprintf("It is at position " UINT64_FORMAT ", %.1f ms after it was handed over.",
					test->record.position, elapsed_ms(test));
}

static const char *
test_read(SelfTest *test)
{
	char	   *payload = palloc(ring_max_payload(test->cursor.ring));
	RingCursor	cursor = test->cursor;

	if (ring_read(&cursor, &test->record, payload) != RING_RECORD)
	{
		test->failed = true;
		return "The ring has overwritten it already.";
	}
	if (test->record.len != test->probe->size ||
		memcmp(payload, test->probe, test->probe->size) != 0)
	{
		test->failed = true;
		return "It is not what was handed over.";
	}
	return psprintf("It is what was handed over, %.1f ms ago.", elapsed_ms(test));
}

static const char *
test_channel(SelfTest *test)
{
	SlotProgress *progress = slot_progress(test->slot);

	while (pg_atomic_read_u64(&progress->notify_offset) <= test->cursor.offset)
	{
		if (!sleep_some(test, POLL_MS))
		{
			test->failed = true;
			return pg_atomic_read_u32(&progress->notify_blocked) != 0 ?
				"What listening sessions have not read leaves no room." :
				"The worker did not send it until the time was over.";
		}
	}
	return psprintf("It was sent %.1f ms after it was handed over.",
					elapsed_ms(test));
}

/*
 * ectowatch_self_test(timeout)
 */
Datum
ectowatch_self_test(PG_FUNCTION_ARGS)
{
	static const struct
	{
		const char *what;
		const char *(*run) (SelfTest *test);
	}			steps[] =
	{
		{"library", test_library},
		{"place for this database", test_slot},
		{"worker", test_worker},
		{"queue", test_queue},
		{"ring", test_ring},
		{"reading", test_read},
		{"channel", test_channel}
	};
	SelfTest	test = {0};

	InitMaterializedSRF(fcinfo, 0);
	test.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	test.until = reader_wait_until(fcinfo, 0, ectowatch_max_wait);
	for (size_t i = 0; i < lengthof(steps); i++)
	{
		const char *detail = test.failed ? NULL : steps[i].run(&test);

		put_step(&test, steps[i].what, !test.failed, detail);
	}
	ConditionVariableCancelSleep();
	return (Datum) 0;
}
