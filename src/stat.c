/*-------------------------------------------------------------------------
 *
 * stat.c
 *	  Functions behind the statistics views.
 *
 * Each figure is read by itself, without a lock; they need not fit together to
 * the last unit.  Only figures of the caller's own database are shown.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "account.h"
#include "board.h"
#include "ectowatch.h"
#include "listener.h"
#include "slot.h"

PG_FUNCTION_INFO_V1(ectowatch_stat_get);
PG_FUNCTION_INFO_V1(ectowatch_stat_watchers_get);
PG_FUNCTION_INFO_V1(ectowatch_stat_conditions_get);
PG_FUNCTION_INFO_V1(ectowatch_stat_library_get);

/* A row being filled, column by column. */
typedef struct Row
{
	int			n;
	Datum		values[32];
	bool		nulls[32];
} Row;

static void
row_add(Row *row, Datum value, bool isnull)
{
	row->values[row->n] = value;
	row->nulls[row->n] = isnull;
	row->n++;
}

static void
row_add_count(Row *row, uint64 value)
{
	row_add(row, Int64GetDatum((int64) value), false);
}

static void
row_add_counter(Row *row, pg_atomic_uint64 *counter)
{
	row_add_count(row, pg_atomic_read_u64(counter));
}

/* Positions and times: 0 is none. */
static void
row_add_position(Row *row, uint64 position)
{
	row_add(row, Int64GetDatum((int64) position), position == 0);
}

static void
row_add_time(Row *row, pg_atomic_uint64 *at)
{
	TimestampTz time = (TimestampTz) pg_atomic_read_u64(at);

	row_add(row, TimestampTzGetDatum(time), time == 0);
}

static void
row_put(Row *row, ReturnSetInfo *rsinfo)
{
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc,
						 row->values, row->nulls);
}

static void
row_add_queue(Row *row, Slot *slot)
{
	QueueUsage	usage;
	bool		blocked;

	queue_usage(slot_queue(slot), &usage);
	row_add_count(row, usage.batches);
	row_add_count(row, usage.bytes);

	/* a transaction at whose commit the worker waits */
	blocked = usage.oldest_state == BATCH_UNDECIDED;
	row_add(row, FullTransactionIdGetDatum(FullTransactionIdFromU64(usage.oldest.xid)),
			!blocked);
	row_add(row, Int32GetDatum(usage.oldest.pid), !blocked);
	row_add(row, TimestampTzGetDatum(usage.oldest.reserved_at), !blocked);
}

static void
row_add_ring(Row *row, Slot *slot)
{
	Ring	   *ring = slot_ring(slot);
	SlotProgress *progress = slot_progress(slot);
	RingCursor	cursor;
	RingRecord	oldest;
	bool		empty;

	ring_seek(&cursor, ring, 0);
	empty = ring_read_header(&cursor, &oldest) != RING_RECORD;
	row_add_count(row, ring_head_offset(ring) - ring_oldest_offset(ring));
	row_add_position(row, empty ? 0 : oldest.position);
	row_add_position(row, pg_atomic_read_u64(&progress->newest_position));
	row_add(row, TimestampTzGetDatum(oldest.committed_at), empty);
}

Datum
ectowatch_stat_get(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Slot	   *slot;
	SlotProgress *progress;
	Row			row = {0};
	uint64		unread;
	uint64		head;
	int			pid;

	ectowatch_require_preload();
	InitMaterializedSRF(fcinfo, 0);
	slot = slot_attach();
	if (slot == NULL)
		return (Datum) 0;
	progress = slot_progress(slot);

	pid = slot_worker_pid(slot);
	row_add(&row, Int32GetDatum(pid), pid == 0);
	row_add_queue(&row, slot);
	row_add_counter(&row, &progress->batches);
	row_add_counter(&row, &progress->aborted);
	row_add_counter(&row, &progress->spilled);
	row_add_counter(&row, &progress->changes);
	row_add_counter(&row, &progress->lost);
	row_add_ring(&row, slot);
	row_add_counter(&row, &progress->notified);
	row_add_counter(&row, &progress->notify_sends);
	row_add_counter(&row, &progress->skipped);
	row_add_position(&row, pg_atomic_read_u64(&progress->notify_position));
	row_add_count(&row, ring_head_offset(slot_ring(slot)) -
				  Min(ring_head_offset(slot_ring(slot)),
					  pg_atomic_read_u64(&progress->notify_offset)));
	row_add(&row, BoolGetDatum(pg_atomic_read_u32(&progress->notify_blocked) != 0),
			false);
	unread = listener_first_unread();
	head = board_head(slot_board(slot));
	row_add_count(&row, head - Min(head, unread));
	row_add_time(&row, &progress->last_at);
	row_add_time(&row, &progress->notified_at);
	Assert(row.n == rsinfo->setDesc->natts);
	row_put(&row, rsinfo);
	return (Datum) 0;
}

Datum
ectowatch_stat_watchers_get(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Slot	   *slot;

	ectowatch_require_preload();
	InitMaterializedSRF(fcinfo, 0);
	slot = slot_attach();
	if (slot == NULL)
		return (Datum) 0;

	for (uint32 i = 0; i < SLOT_ENTRIES; i++)
	{
		Account    *entry = account_at(slot, i);
		uint32		id = pg_atomic_read_u32(&entry->id);
		Row			row = {0};

		if (id == 0)
			continue;
		row_add(&row, Int32GetDatum((int32) id), false);
		row_add_counter(&row, &entry->changes);
		row_add_counter(&row, &entry->notified);
		row_add_counter(&row, &entry->lost);
		row_add_counter(&row, &entry->skipped);
		row_add_count(&row, pg_atomic_read_u32(&entry->held));
		row_add_position(&row, pg_atomic_read_u64(&entry->last_position));
		row_add_time(&row, &entry->last_at);
		row_add_counter(&row, &entry->evicted);
		row_add_position(&row, pg_atomic_read_u64(&entry->evicted_position));
		Assert(row.n == rsinfo->setDesc->natts);
		row_put(&row, rsinfo);
	}
	return (Datum) 0;
}

/* A watcher has one without having had a change, so these are rows apart. */
Datum
ectowatch_stat_conditions_get(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Slot	   *slot;

	ectowatch_require_preload();
	InitMaterializedSRF(fcinfo, 0);
	slot = slot_attach();
	if (slot == NULL)
		return (Datum) 0;

	for (uint32 i = 0; i < SLOT_MAX_WATCHERS; i++)
	{
		ConditionAccount *entry = account_condition(slot, i);
		uint32		id = pg_atomic_read_u32(&entry->id);
		Row			row = {0};

		if (id == 0)
			continue;
		row_add(&row, Int32GetDatum((int32) id), false);
		row_add_time(&row, &entry->checked_at);
		row_add_time(&row, &entry->matched_at);
		row_add_time(&row, &entry->failed_at);
		Assert(row.n == rsinfo->setDesc->natts);
		row_put(&row, rsinfo);
	}
	return (Datum) 0;
}

/*
 * What this process knows of library and worker.  Answers in any state,
 * since it is asked when something does not work.
 */
Datum
ectowatch_stat_library_get(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	bool		preloaded = ectowatch_is_preloaded();
	Slot	   *slot = preloaded ? slot_attach() : NULL;
	Row			row = {0};

	InitMaterializedSRF(fcinfo, 0);
	row_add(&row, CStringGetTextDatum(ECTOWATCH_VERSION), false);
	row_add(&row, BoolGetDatum(preloaded), false);
	row_add(&row, BoolGetDatum(slot != NULL), !preloaded);
	row_add(&row, BoolGetDatum(slot != NULL && slot_worker_is_wanted(slot)),
			slot == NULL);
	row_add(&row, Int64GetDatum(slot != NULL ? slot_workers_seen(slot) : 0),
			slot == NULL);
	row_add(&row, BoolGetDatum(slot != NULL &&
							   pg_atomic_read_u32(&slot_progress(slot)->start_failed) != 0),
			slot == NULL);
	row_add(&row, BoolGetDatum(preloaded && slot_launcher_runs()), !preloaded);
	Assert(row.n == rsinfo->setDesc->natts);
	row_put(&row, rsinfo);
	return (Datum) 0;
}
