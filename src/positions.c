/*-------------------------------------------------------------------------
 *
 * positions.c
 *	  Numbers for changes that only grow.
 *
 * Positions come from a sequence, a block at a time, and a block is flushed
 * to disk before the first of it is given; so none is given twice, whatever
 * happens.  The first block of each run of the server begins no lower than the
 * clock says, in microseconds.  So positions go on growing where the sequence
 * began anew, because the extension was dropped and created, and where it went
 * back, because the database was restored to an earlier time.  If the clock is
 * set back, the sequence rules.  (A block is worth a fifteenth of a second, so
 * that the sequence does not run ahead of the clock through many restarts.)
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/sequence.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "positions.h"
#include "watcher.h"

/* Positions in a block: the increment of sequence ectowatch_positions. */
#define POSITION_BLOCK		((uint64) 1 << 16)

/* JSON parsers keep integers exact below this. */
#define POSITION_MAX		((uint64) 1 << 53)

/* Microseconds since 2000: below POSITION_MAX until the year 2285. */
static uint64
clock_position(void)
{
	return (uint64) GetCurrentTimestamp();
}

bool
positions_reserve(Slot *slot, uint64 *next, uint64 n)
{
	SlotProgress *progress = slot_progress(slot);
	uint64		end = pg_atomic_read_u64(&progress->position_end);
	uint64		floor;
	bool		first = pg_atomic_read_u64(&progress->run_start) == 0;
	MemoryContext context = CurrentMemoryContext;
	Oid			sequence;

	if (!first && end - *next >= n)
		return true;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	sequence = watcher_positions_oid();
	if (!OidIsValid(sequence))
	{
		AbortCurrentTransaction();
		MemoryContextSwitchTo(context);
		return false;
	}

	floor = first ? clock_position() : end;
	while (first || end - *next < n)
	{
		uint64		start = (uint64) nextval_internal(sequence, false);

		if (start < floor)
		{
			start = floor;
			DirectFunctionCall2(setval_oid, ObjectIdGetDatum(sequence),
								Int64GetDatum((int64) start));
		}
		if (start + POSITION_BLOCK >= POSITION_MAX)
			ereport(ERROR,
					(errcode(ERRCODE_SEQUENCE_GENERATOR_LIMIT_EXCEEDED),
					 errmsg("ectowatch has no more positions")));
		if (start != end)
			*next = start;
		end = floor = start + POSITION_BLOCK;
		first = false;
	}

	/* synchronous_commit is off, but a position may not be given twice */
	ForceSyncCommit();
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);

	pg_atomic_write_u64(&progress->position_end, end);
	if (pg_atomic_read_u64(&progress->run_start) == 0)
	{
		pg_atomic_write_u64(&progress->newest_position,
							*next - 1);
		pg_write_barrier();
		pg_atomic_write_u64(&progress->run_start, *next);
		ConditionVariableBroadcast(slot_changed(slot));
	}
	return true;
}
