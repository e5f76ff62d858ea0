/*-------------------------------------------------------------------------
 *
 * launcher.c
 *	  The background worker that starts the workers of databases.
 *
 * It is connected to no database, so it cannot know which of them hold the
 * extension, and does not look: a worker is asked for by the first capture or
 * call in its database, through slot_request_worker(), and from then on is
 * started again whenever it has gone.  The postmaster does not restart
 * workers; so a command on a database can keep its worker away (slot.c).
 *
 * It sleeps until its latch is set: by a request, by a worker's exit, by the
 * postmaster when a worker has come or could not.  Where a worker could not be
 * started it tries again after a second, and less and less often where it did
 * not get as far as to its work.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/procsignal.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "ectowatch.h"
#include "launcher.h"
#include "slot.h"

/*
 * Between two starts of one slot's worker.  Where workers do not get as far as
 * to their work it is a second, doubled up to about a minute.
 */
#define MIN_INTERVAL_MS			100
#define RESTART_INTERVAL_MS		1000
#define MAX_DOUBLINGS			6

typedef struct LauncherSlot
{
	Oid			database;		/* all that follows is about it */
	BackgroundWorkerHandle *handle; /* of the last start, or NULL */
	TimestampTz started_at;
	uint32		seen;			/* of workers at work, at the last start */
	int			failures;		/* starts since there was a new one */
	bool		quiet;			/* a failure has been logged */
} LauncherSlot;

void
launcher_init(void)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 1;
	strlcpy(worker.bgw_library_name, ECTOWATCH_NAME, BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "ectowatch_launcher_main", BGW_MAXLEN);
	strlcpy(worker.bgw_name, "ectowatch launcher", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "ectowatch launcher", BGW_MAXLEN);
	RegisterBackgroundWorker(&worker);
}

static bool
launcher_start_worker(int i, LauncherSlot *state)
{
	BackgroundWorker worker;

	if (state->handle)
		pfree(state->handle);
	state->handle = NULL;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS |
		BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, ECTOWATCH_NAME, BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "ectowatch_worker_main", BGW_MAXLEN);
	snprintf(worker.bgw_name, BGW_MAXLEN, "ectowatch worker for database %u",
			 slot_database(slot_get(i)));
	strlcpy(worker.bgw_type, "ectowatch worker", BGW_MAXLEN);
	worker.bgw_main_arg = Int32GetDatum(i);
	worker.bgw_notify_pid = MyProcPid;

	state->started_at = GetCurrentTimestamp();
	if (RegisterDynamicBackgroundWorker(&worker, &state->handle))
	{
		state->quiet = false;
		return true;
	}

	if (!state->quiet)
		ereport(LOG,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("could not start an ectowatch worker: out of background worker slots"),
				 errhint("You might need to increase max_worker_processes.")));
	state->quiet = true;
	return false;
}

/* For ectowatch_check(). */
static void
launcher_note_failure(int i)
{
	pg_atomic_write_u32(&slot_progress(slot_get(i))->start_failed, 1);
}

/*
 * Starts what has to be started; returns how long to sleep, or -1.
 */
static long
launcher_serve(LauncherSlot *states)
{
	long		timeout = -1;

	for (int i = 0; i < slot_count(); i++)
	{
		LauncherSlot *state = &states[i];
		pid_t		pid;
		int64		since;
		int64		interval;

		if (state->database != slot_database(slot_get(i)))
		{
			if (state->handle)
				pfree(state->handle);
			memset(state, 0, sizeof(*state));
			state->database = slot_database(slot_get(i));
			state->seen = slot_workers_seen(slot_get(i));
		}

		if (!slot_needs_worker(slot_get(i)))
			continue;

		/* on its way, or not quite gone?  The postmaster tells which. */
		if (state->handle &&
			GetBackgroundWorkerPid(state->handle, &pid) != BGWH_STOPPED)
		{
			timeout = RESTART_INTERVAL_MS;
			continue;
		}

		if (slot_workers_seen(slot_get(i)) != state->seen)
			state->failures = 0;
		interval = state->failures == 0 ? MIN_INTERVAL_MS :
			(int64) RESTART_INTERVAL_MS << Min(state->failures - 1, MAX_DOUBLINGS);
		if (state->failures > 0)
			launcher_note_failure(i);

		/* a negative time: someone has set the clock back */
		since = (GetCurrentTimestamp() - state->started_at) / 1000;
		if (since >= 0 && since < interval)
			timeout = Min(RESTART_INTERVAL_MS, interval);
		else if (!launcher_start_worker(i, state))
		{
			launcher_note_failure(i);
			timeout = RESTART_INTERVAL_MS;
		}
		else
		{
			state->seen = slot_workers_seen(slot_get(i));
			state->failures++;
		}
	}
	return timeout;
}

void
ectowatch_launcher_main(Datum arg pg_attribute_unused())
{
	LauncherSlot *states;

	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	pqsignal(SIGHUP, SIG_IGN);

	/* the postmaster's word on workers; ignored without a database */
	pqsignal(SIGUSR1, procsignal_sigusr1_handler);
	BackgroundWorkerUnblockSignals();

	/* pg_upgrade's servers are nobody's but its own */
	if (IsBinaryUpgrade)
		proc_exit(0);

	states = MemoryContextAllocZero(TopMemoryContext,
									Max(slot_count(), 1) * sizeof(LauncherSlot));
	slot_register_launcher();

	while (!ShutdownRequestPending)
	{
		long		timeout = launcher_serve(states);

		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_EXIT_ON_PM_DEATH |
						 (timeout >= 0 ? WL_TIMEOUT : 0),
						 timeout, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}

	/* 1: to be started again, unless the server stops */
	proc_exit(1);
}
