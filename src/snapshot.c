/*-------------------------------------------------------------------------
 *
 * snapshot.c
 *	  ectowatch_position(): where in the ring a snapshot stands.
 *
 * The newest position such that all changes up to it are visible to the
 * caller's snapshot: who copies a table with that snapshot, and then reads
 * behind that position, misses nothing.  What comes into the ring later has a
 * higher one, so it is enough to look at what is there, for the first record
 * that the snapshot does not see.
 *
 * What the ring has dropped is not there to be looked at.  If some of it may
 * be unseen, the position is that before the first of this run of the server:
 * a reader is told of a gap.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/procarray.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "reader.h"
#include "slot.h"

PG_FUNCTION_INFO_V1(ectowatch_position);

/* How long ectowatch_position() waits for the worker to come up. */
#define WORKER_START_TIMEOUT_MS		10000

/* Waits until the worker has a first position, so that there is one to tell. */
static void
wait_for_worker(Slot *slot)
{
	SlotProgress *progress = slot_progress(slot);
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													WORKER_START_TIMEOUT_MS);

	if (pg_atomic_read_u64(&progress->run_start) != 0)
		return;
	ConditionVariablePrepareToSleep(slot_changed(slot));
	while (pg_atomic_read_u64(&progress->run_start) == 0)
	{
		long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
														   until);

		if (left <= 0)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("ectowatch's worker of this database is not ready"),
					 errhint("If CREATE EXTENSION has just been committed, or max_worker_processes is large enough, the server log tells why.")));
		slot_wake_worker(slot);
		(void) ConditionVariableTimedSleep(slot_changed(slot), Min(left, 100),
										   PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
}

/* A transaction id of about now, in full. */
static uint64
full_xid(TransactionId xid)
{
	FullTransactionId next = ReadNextFullTransactionId();
	uint32		epoch = EpochFromFullTransactionId(next);

	if (xid > XidFromFullTransactionId(next))
		epoch--;
	return U64FromFullTransactionId(FullTransactionIdFromEpochAndXid(epoch, xid));
}

/* Whether the snapshot may not see what some transaction below 'xid' wrote. */
static bool
snapshot_is_before(Snapshot snapshot, uint64 xid)
{
	return full_xid(snapshot->xmin) < xid;
}

/* Whether the snapshot does not see what a transaction wrote. */
static bool
snapshot_misses(Snapshot snapshot, uint64 xid)
{
	return full_xid(snapshot->xmin) <= xid &&
		XidInMVCCSnapshot((TransactionId) xid, snapshot);
}

/*
 * Whether the ring has dropped something that the snapshot does not see.  It
 * has, if a transaction came after the snapshot, or was running when that was
 * taken, and has ended since.
 */
static bool
evicted_unseen(Ring *ring, Snapshot snapshot)
{
	uint64		horizon = ring_evicted_horizon(ring);
	uint64		gap_horizon = ring_evicted_gap_horizon(ring);

	if (horizon > full_xid(snapshot->xmax))
		return true;
	if (gap_horizon != 0 && snapshot_is_before(snapshot, gap_horizon))
		return true;
	for (uint32 i = 0; i < snapshot->xcnt; i++)
	{
		TransactionId xid = snapshot->xip[i];

		if (ring_has_evicted_xid(ring, full_xid(xid)) &&
			!TransactionIdIsInProgress(xid) && TransactionIdDidCommit(xid))
			return true;
	}
	return false;
}

Datum
ectowatch_position(FunctionCallInfo fcinfo pg_attribute_unused())
{
	Slot	   *slot = reader_slot();
	Ring	   *ring = slot_ring(slot);
	Snapshot	snapshot = GetActiveSnapshot();
	RingResult	result;

	wait_for_worker(slot);
	do
	{
		RingCursor	cursor;
		RingRecord	record;
		uint64		visible_xid = 0;
		uint64		position;

		CHECK_FOR_INTERRUPTS();
		ring_seek(&cursor, ring, 0);

		/* then it is a position at which a reader is told of a gap */
		position = pg_atomic_read_u64(&slot_progress(slot)->run_start) - 1;
		if (evicted_unseen(ring, snapshot))
			PG_RETURN_INT64((int64) position);
		position = Max(position, ring_evicted_position(ring));

		while ((result = ring_read_header(&cursor, &record)) == RING_RECORD)
		{
			/* a gap has no xid: it may stand for whatever came before it */
			if (record.xid == 0 ?
				snapshot_is_before(snapshot, record.horizon) :
				record.xid != visible_xid &&
				snapshot_misses(snapshot, record.xid))
				PG_RETURN_INT64((int64) (record.position - record.span));
			visible_xid = record.xid;
			position = record.position;
		}
		if (result == RING_END)
			PG_RETURN_INT64((int64) position);
	} while (result == RING_OVERTAKEN);

	elog(ERROR, "unexpected end of the ring");
}
