/*-------------------------------------------------------------------------
 *
 * wait_for.c
 *	  ectowatch_wait_for(): waiting for the changes of one transaction.
 *
 * Who has written in one session, or has been given the transaction id of who
 * has, wants to read the ring only when it shows these changes.  Nothing
 * in shared memory leads from a transaction to its batch, and it needs none:
 *
 * 1. Wait until the transaction has ended, and so has what it does at its
 *	  end.  Its batch took a ticket before it left the list of running
 *	  transactions; but pending_commit(), which decides the batch or counts what
 *	  is lost, comes after that.  So it is not enough that it is not
 *	  running any more: its lock on its own id, released later still, must be
 *	  free as well.  With the id of a savepoint it is the whole transaction's,
 *	  since RELEASE frees that of the savepoint.  Which one that is can be asked
 *	  of a running transaction only: who asks for a savepoint later, in the
 *	  moment between, may miss that a loss is still to be counted.
 * 2. Note how many tickets have been taken, and how many losses counted.
 *	  Those of the transaction are among them: it released the lock after both,
 *	  and we have had the lock since.
 * 3. Wait until the worker has freed as many tickets, and told as many
 *	  losses.  It shows a batch or a gap to readers before that.
 *
 * Later batches may be among those of step 2, so this waits for a little more
 * than is needed, but no longer than a reader of the newest change would.
 *
 * Sleeping: the worker broadcasts the slot's condition variable when it has
 * freed batches or told losses; so step 3 just sleeps.  Nobody tells of the
 * end of a transaction without changes; so step 1 looks again after ever longer
 * naps, on the same condition variable, as the end of most that are waited
 * for shows there.
 *
 * It holds no lock but the transaction id's, shared, for an instant, and
 * never waits for that one.  So a session that waits here for another one which
 * waits for its locks is not in a deadlock that the server would find: it
 * waits until the timeout.
 *
 * A worker that dies is restarted, and goes on with the oldest ticket; until
 * then this waits.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/subtrans.h"
#include "access/transam.h"
#include "access/xact.h"
#include "storage/condition_variable.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"
#include "utils/xid8.h"

#include "account.h"
#include "ectowatch.h"
#include "reader.h"

#define MIN_NAP_MS		1
#define MAX_NAP_MS		50

PG_FUNCTION_INFO_V1(ectowatch_wait_for);

/* What the worker has to have done. */
typedef struct Goal
{
	uint64		tickets;
	uint64		lost;
} Goal;

/*
 * The id of a transaction that may still run; invalid if it is too old for
 * that.  An error where nobody could wait for it.
 */
static TransactionId
check_xid(FullTransactionId full)
{
	TransactionId xid = XidFromFullTransactionId(full);
	FullTransactionId next = ReadNextFullTransactionId();

	if (!TransactionIdIsNormal(xid) ||
		FullTransactionIdFollowsOrEquals(full, next))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("transaction " UINT64_FORMAT " does not exist",
						U64FromFullTransactionId(full)),
				 errdetail("The next transaction will be " UINT64_FORMAT ".",
						   U64FromFullTransactionId(next)),
				 errhint("Take the result of pg_current_xact_id() in the transaction itself.")));

	/* so long ago that its id has been, or could be, given again */
	if (U64FromFullTransactionId(next) - U64FromFullTransactionId(full) >=
		(uint64) PG_INT32_MAX)
		return InvalidTransactionId;

	if (TransactionIdIsCurrentTransactionId(xid))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot wait for the changes of the transaction that asks for them"),
				 errdetail("Changes can be read after the commit."),
				 errhint("Commit first. Function ectowatch_pending() shows what the commit will deliver.")));
	return xid;
}

/*
 * Step 1; *nap is set to how long to sleep if it has not.  *top is noted while it
 * runs: the transaction of which it is a part.
 */
static bool
has_ended(TransactionId xid, TransactionId *top, long *nap)
{
	if (!TransactionIdIsValid(xid))
		return true;
	if (TransactionIdIsInProgress(xid))
	{
		*top = SubTransGetTopmostTransaction(xid);
		*nap = Min(Max(*nap * 2, MIN_NAP_MS), MAX_NAP_MS);
	}
	/* what was rolled back to a savepoint has no changes to wait for */
	else if (ConditionalXactLockTableWait(*top != xid && TransactionIdDidCommit(xid) ?
										  *top : xid))
		return true;
	else
		*nap = MIN_NAP_MS;		/* it is about to */
	return false;
}

/* Step 2. */
static void
goal_set(Goal *goal, Slot *slot)
{
	QueueUsage	usage;

	queue_usage(slot_queue(slot), &usage);
	goal->tickets = usage.tickets;
	goal->lost = account_lost_added(slot);
}

/* Step 3. */
static bool
goal_reached(const Goal *goal, Slot *slot)
{
	QueueUsage	usage;

	queue_usage(slot_queue(slot), &usage);
	return usage.tickets - usage.batches >= goal->tickets &&
		account_lost_is_told(slot, goal->lost);
}

/*
 * ectowatch_wait_for(xid, timeout)
 */
Datum
ectowatch_wait_for(PG_FUNCTION_ARGS)
{
	Slot	   *slot = reader_slot();
	TransactionId xid;
	TransactionId top;
	TimestampTz until;
	Goal		goal;
	bool		ended = false;
	bool		reached = false;
	long		nap = 0;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("xid must not be null"),
				 errdetail("Function pg_current_xact_id_if_assigned() gives null in a transaction that has written nothing."),
				 errhint("Use pg_current_xact_id(), or do not wait.")));
	until = reader_wait_until(fcinfo, 1, ectowatch_max_wait);
	xid = top = check_xid(PG_GETARG_FULLTRANSACTIONID(0));

	for (;;)
	{
		long		left;

		if (!ended && has_ended(xid, &top, &nap))
		{
			ended = true;
			goal_set(&goal, slot);
		}
		if (ended && goal_reached(&goal, slot))
		{
			reached = true;
			break;
		}
		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);
		if (left <= 0)
			break;

		/* the first one only prepares, and so misses nothing */
		(void) ConditionVariableTimedSleep(slot_changed(slot),
										   ended ? Min(left, 3600 * 1000L) :
										   Min(left, nap),
										   PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
	PG_RETURN_BOOL(reached);
}
