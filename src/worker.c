/*-------------------------------------------------------------------------
 *
 * worker.c
 *	  The background worker of one database.
 *
 * It has feed.c take what is in the queue to the ring, and notify.c send what
 * is new there.  When there is nothing to do it sleeps, without a transaction,
 * without a timer unless a message is held back by throttle, or there are files
 * of what listeners have not read.
 *
 * The next commit wakes it, and what that has changed is sent at once.  To be
 * woken for each costs the committing backends a system call and a change of
 * processes each.  So where commits come fast, it naps for a moment instead,
 * while batches gather and nobody wakes it but who finds the queue full.
 *
 * It may be ended at any CHECK_FOR_INTERRUPTS().  What is done is in shared
 * memory, so another worker goes on behind it: see feed.c for the ring; what
 * was sent is known by notify_offset; what is held back, by held_offset
 * (throttle.c).  The same is done after an error: the turn is given up, and the
 * next one starts as a new worker would.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/sinval.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "ectowatch.h"
#include "feed.h"
#include "notify.h"
#include "positions.h"
#include "slot.h"
#include "worker.h"

/* From how many batches a millisecond on they are left to gather; so long. */
#define BUSY_PER_MS			4
#define NAP_MS				2

/* Over what time that is averaged: a burst behind a slow flush is no load. */
#define RATE_MS				10

/* After an error. */
#define RETRY_MS			1000

typedef struct Worker
{
	Slot	   *slot;
	Feed		feed;
	TimestampTz notify_at;		/* not before that */
	TimestampTz rested_at;		/* when it slept or napped last */
	double		rate;			/* batches a millisecond, of late */
	bool		failed;			/* the last turn was given up */
} Worker;

/* --- sending --- */

/* Sends, and notes when that is to be done next. */
static void
worker_notify(Worker *worker, bool urgent)
{
	long		pause;

	(void) notify_send(worker->slot, urgent, &pause);
	worker->notify_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), pause);
}

static bool
worker_notify_is_due(Worker *worker)
{
	TimestampTz now = GetCurrentTimestamp();

	/* far in the future: someone has set the clock back */
	return now >= worker->notify_at || now + USECS_PER_SEC < worker->notify_at;
}

/*
 * In between: sends some, without a pause, if else the ring would soon
 * overwrite what listeners have not got.
 */
static void
worker_keep_listeners_up(void *arg)
{
	Worker	   *worker = arg;
	SlotProgress *progress = slot_progress(worker->slot);
	uint64		limit = (uint64) ectowatch_ring_size * 1024 / 4;
	pg_atomic_uint32 *blocked = &progress->notify_blocked;

	while (ring_head_offset(slot_ring(worker->slot)) -
		   pg_atomic_read_u64(&progress->notify_offset) > limit)
	{
		if (pg_atomic_read_u32(blocked) == 0 || worker_notify_is_due(worker))
		{
			feed_publish(&worker->feed);
			worker_notify(worker, true);
		}
		if (pg_atomic_read_u32(blocked) != 0)
			break;
		CHECK_FOR_INTERRUPTS();
	}
}

/* --- the process --- */

/*
 * Does what there is to do.  Returns how long to sleep afterwards: 0 not at
 * all, -1 until woken.
 */
static long
worker_turn(Worker *worker)
{
	bool		more;
	long		wait = -1;

	/* who asks for a position need not wait for the first change */
	(void) positions_reserve(worker->slot, &worker->feed.next_position, 1);

	more = feed_take(&worker->feed);
	if (notify_has_work(worker->slot))
	{
		if (worker_notify_is_due(worker))
			worker_notify(worker, false);
		if (notify_has_work(worker->slot))
			wait = TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
												   worker->notify_at);
	}
	if (wait < 0)
		wait = notify_wait(worker->slot);
	return more ? 0 : wait;
}

/* The same, after an error as well. */
static long
worker_try_turn(Worker *worker, MemoryContext context)
{
	long		wait;

	worker->failed = false;
	PG_TRY();
	{
		wait = worker_turn(worker);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		HOLD_INTERRUPTS();
		EmitErrorReport();
		AbortOutOfAnyTransaction();
		FlushErrorState();
		pgstat_report_activity(STATE_IDLE, NULL);
		feed_resume(&worker->feed);
		ConditionVariableBroadcast(slot_changed(worker->slot));
		RESUME_INTERRUPTS();
		worker->failed = true;
		wait = RETRY_MS;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	MemoryContextReset(context);
	return wait;
}

static void
worker_sleep(Worker *worker, long wait)
{
	queue_set_sleeping(slot_queue(worker->slot), true);

	/* after a failure there is a wait whatever comes */
	if (worker->failed)
		(void) WaitLatch(MyLatch, WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 wait, PG_WAIT_EXTENSION);
	else if (!feed_has_input(&worker->feed))
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_EXIT_ON_PM_DEATH |
						 (wait >= 0 ? WL_TIMEOUT : 0),
						 wait, PG_WAIT_EXTENSION);
	queue_set_sleeping(slot_queue(worker->slot), false);
	ResetLatch(MyLatch);
}

/* Whether batches come fast; asked before each sleep or nap. */
static bool
worker_is_busy(Worker *worker)
{
	TimestampTz now = GetCurrentTimestamp();
	double		elapsed = Max(now - worker->rested_at, 1) / 1000.0;

	worker->rate += (worker->feed.taken / elapsed - worker->rate) *
		Min(elapsed / RATE_MS, 1);
	worker->rested_at = now;
	worker->feed.taken = 0;
	return worker->rate >= BUSY_PER_MS;
}

/* Lets batches gather: no commit has to wake us, unless the queue is full. */
static void
worker_nap(void)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 NAP_MS, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
}

/*
 * ALTER DATABASE and ALTER ROLE may set what a worker cannot live with.
 */
static void
worker_override_settings(void)
{
	static const char *const settings[][2] = {
		{"synchronous_commit", "off"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_deferrable", "off"},
		{"lock_timeout", "0"},
		{"role", "none"},
		{"statement_timeout", "0"},
		{"idle_in_transaction_session_timeout", "0"},
		{"search_path", "pg_catalog"}
	};

	for (size_t i = 0; i < lengthof(settings); i++)
		SetConfigOption(settings[i][0], settings[i][1],
						PGC_SUSET, PGC_S_OVERRIDE);
}

void
ectowatch_worker_main(Datum arg)
{
	Worker		worker;
	Oid			database;
	MemoryContext context;

	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();

	memset(&worker, 0, sizeof(worker));
	worker.slot = slot_get(DatumGetInt32(arg));

	/* first: who bars workers from the database has to know of this one */
	if (!slot_claim_worker(worker.slot, &database))
		proc_exit(0);
	BackgroundWorkerInitializeConnectionByOid(database, InvalidOid,
											  BGWORKER_BYPASS_ALLOWCONN);

	worker_override_settings();
	feed_start(&worker.feed, worker.slot, worker_keep_listeners_up, &worker);
	notify_start(worker.slot);

	/* what fails at each start has to be tried less and less often */
	slot_set_working(worker.slot);
	pg_atomic_write_u32(&slot_progress(worker.slot)->start_failed, 0);
	pgstat_report_activity(STATE_IDLE, NULL);

	context = AllocSetContextCreate(TopMemoryContext, "ectowatch worker",
									ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(context);

	for (;;)
	{
		long		wait;

		if (ProcDiePending)
			proc_exit(0);		/* asked to: no need to be loud */
		CHECK_FOR_INTERRUPTS();
		if (catchupInterruptPending)
			ProcessCatchupInterrupt();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}

		wait = worker_try_turn(&worker, context);
		if (wait == 0)
			continue;
		if (worker_is_busy(&worker) && !worker.failed)
			worker_nap();
		else
			worker_sleep(&worker, wait);
	}
}
