/*-------------------------------------------------------------------------
 *
 * read.c
 *	  SQL functions that read changes.
 *
 * ectowatch_changes() and ectowatch_wait() read the ring, ectowatch_pending()
 * what this transaction has captured.  The first two wait on the slot's
 * condition variable, which the worker broadcasts when the ring has grown.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "access/xact.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "tcop/pquery.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"
#include "utils/xid8.h"

#include "ectowatch.h"
#include "message.h"
#include "pending.h"
#include "reader.h"
#include "rights.h"

PG_FUNCTION_INFO_V1(ectowatch_changes);
PG_FUNCTION_INFO_V1(ectowatch_wait);
PG_FUNCTION_INFO_V1(ectowatch_pending);

/* --- waiting --- */

/*
 * Waits until the ring has grown, or until 'until'; false if it is that late.
 * The first call only prepares to sleep, so the caller looks again before he
 * really does, and misses nothing that came in between.
 */
static bool
reader_sleep(Reader *reader, TimestampTz until)
{
	long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
													   until);

	if (left <= 0)
		return false;
	/* asking for rights has taken a snapshot of the catalogs */
	InvalidateCatalogSnapshot();
	(void) ConditionVariableTimedSleep(slot_changed(reader->slot),
									   Min(left, 3600 * 1000L),
									   PG_WAIT_EXTENSION);
	return true;
}

TimestampTz
reader_wait_until(FunctionCallInfo fcinfo, int n, long max_ms)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz until = DT_NOEND;

	if (!PG_ARGISNULL(n))
	{
		Interval   *timeout = PG_GETARG_INTERVAL_P(n);
		int64		days = timeout->day + (int64) timeout->month * DAYS_PER_MONTH;

		if (timeout->time < 0 || timeout->day < 0 || timeout->month < 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("timeout must not be negative"),
					 errhint("Use zero not to wait.")));

		/* a century and more is for ever */
		if (days < 36500 && timeout->time < 36500 * USECS_PER_DAY)
			until = now + timeout->time + days * USECS_PER_DAY;
	}
	if (max_ms >= 0)
		until = Min(until, TimestampTzPlusMilliseconds(now, max_ms));
	return until;
}

/*
 * Lets go of the snapshots that a CALL outside a transaction block holds, as
 * COMMIT in a procedure does; and of the one kept for its output.  False where
 * that is not possible.
 */
static bool
release_snapshots(FunctionCallInfo fcinfo)
{
	if (!IsA(fcinfo->context, CallContext) ||
		castNode(CallContext, fcinfo->context)->atomic ||
		IsolationUsesXactSnapshot())
		return false;

	ForgetPortalSnapshots();
	if (ActivePortal != NULL && ActivePortal->holdSnapshot != NULL)
	{
		UnregisterSnapshotFromOwner(ActivePortal->holdSnapshot,
									ActivePortal->resowner);
		ActivePortal->holdSnapshot = NULL;
	}
	return true;
}

/* --- results --- */

static Datum
json_to_jsonb(const char *json, uint32 len)
{
	char	   *string = pnstrdup(json, len);
	Datum		result = DirectFunctionCall1(jsonb_in, CStringGetDatum(string));

	pfree(string);
	return result;
}

/* The same where jsonb may not take it; false then. */
static bool
try_json_to_jsonb(const char *json, uint32 len, Datum *result)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool done = false;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		*result = json_to_jsonb(json, len);
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		done = true;
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
			ReThrowError(error);
	}
	PG_END_TRY();
	return done;
}

/*
 * Values that may hold JSON of others, which is not always fit for jsonb
 * ("\u0000", numbers without end).  Then the key alone has to do, or nothing.
 */
static Datum
foreign_json_to_jsonb(const char *json, uint32 len, uint32 keys_len)
{
	Datum		result;
	char	   *keys;

	if (try_json_to_jsonb(json, len, &result))
		return result;
	keys = psprintf("%.*s}", (int) keys_len, json);
	if (try_json_to_jsonb(keys, strlen(keys), &result))
		return result;
	return json_to_jsonb("{}", 2);
}

/* The context, without what jsonb may not take of it. */
static Datum
context_to_jsonb(const Change *change, uint32 of)
{
	StringInfoData json;
	Datum		result;

	initStringInfo(&json);
	message_append_context(&json, change, of, false);
	if (!(change->flags & CHANGE_FOREIGN_JSON))
		return json_to_jsonb(json.data, json.len);
	if (try_json_to_jsonb(json.data, json.len, &result))
		return result;
	resetStringInfo(&json);
	message_append_context(&json, change, of, true);
	return json_to_jsonb(json.data, json.len);
}

/*
 * Columns 1 to 5 of changes, 0 to 4 of pending: watcher to old_values; and
 * 'context', the last of both.
 */
static void
change_columns(const Change *change, uint32 of, Datum *values, bool *nulls,
			   int context)
{
	StringInfoData old;

	values[0] = PointerGetDatum(cstring_to_text_with_len(change_name(change),
														 change->name_len));
	nulls[0] = change->name_len == 0;
	values[1] = CStringGetTextDatum(change_type_name(change->type));
	values[2] = PointerGetDatum(cstring_to_text_with_len(change_relation(change),
														 change->relation_len));
	nulls[2] = change->relation_len == 0;
	nulls[4] = change->old_shown == 0;
	if (!nulls[4])
	{
		initStringInfo(&old);
		message_append_old(&old, change);
	}
	if (change->flags & CHANGE_FOREIGN_JSON)
	{
		values[3] = foreign_json_to_jsonb(change_values(change),
										  change->values_len, change->keys_len);
		if (!nulls[4])
			values[4] = foreign_json_to_jsonb(old.data, old.len, 1);
	}
	else
	{
		values[3] = json_to_jsonb(change_values(change), change->values_len);
		if (!nulls[4])
			values[4] = json_to_jsonb(old.data, old.len);
	}
	nulls[context] = change->context_len == 0;
	if (!nulls[context])
		values[context] = context_to_jsonb(change, of);
}

#define CHANGES_COLUMNS		9

static void
put_change(ReturnSetInfo *rsinfo, const RingRecord *record,
		   const Change *change)
{
	Datum		values[CHANGES_COLUMNS] = {0};
	bool		nulls[CHANGES_COLUMNS] = {false};

	values[0] = Int64GetDatum((int64) record->position);
	change_columns(change, record->of, &values[1], &nulls[1], 7);
	nulls[6] = record->xid == 0;
	values[6] = FullTransactionIdGetDatum(FullTransactionIdFromU64(record->xid));
	values[7] = TimestampTzGetDatum(record->committed_at);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

static void
put_gap(ReturnSetInfo *rsinfo, const ReaderGap *gap)
{
	Datum		values[CHANGES_COLUMNS] = {0};
	bool		nulls[CHANGES_COLUMNS] = {false};
	StringInfoData json;

	initStringInfo(&json);
	message_gap_values(&json, gap->from, gap->to, gap->changes, gap->reason);
	values[0] = Int64GetDatum((int64) gap->position);
	nulls[1] = gap->watcher == NULL;
	if (gap->watcher)
		values[1] = CStringGetTextDatum(gap->watcher);
	values[2] = CStringGetTextDatum(change_type_name(CHANGE_GAP));
	nulls[3] = true;
	values[4] = json_to_jsonb(json.data, json.len);
	nulls[5] = nulls[6] = nulls[7] = nulls[8] = true;
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* --- SQL functions --- */

/*
 * ectowatch_changes(after, watchers, max_changes, timeout)
 */
Datum
ectowatch_changes(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Reader		reader;
	int64		max_changes;
	int64		n = 0;
	TimestampTz until;
	MemoryContext row_context;

	ectowatch_require_preload();
	InitMaterializedSRF(fcinfo, 0);
	reader_open(&reader, fcinfo);
	max_changes = PG_ARGISNULL(2) ? PG_INT64_MAX : PG_GETARG_INT32(2);
	if (max_changes <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_changes must be greater than zero"),
				 errhint("Use NULL for all changes.")));
	until = reader_wait_until(fcinfo, 3, ectowatch_max_wait);

	row_context = AllocSetContextCreate(CurrentMemoryContext, "ectowatch row",
										ALLOCSET_DEFAULT_SIZES);
	for (;;)
	{
		while (n < max_changes)
		{
			RingRecord	record;
			ReaderGap	gap;
			ReaderResult result = reader_next(&reader, &record, &gap);
			MemoryContext old;

			if (result == READER_END)
				break;
			old = MemoryContextSwitchTo(row_context);
			if (result == READER_GAP)
				put_gap(rsinfo, &gap);
			else
				put_change(rsinfo, &record, (Change *) reader.payload);
			MemoryContextSwitchTo(old);
			MemoryContextReset(row_context);
			n++;
		}
		if (n > 0)
			break;
		if (!reader_sleep(&reader, until))
			break;
	}
	ConditionVariableCancelSleep();
	return (Datum) 0;
}

/*
 * CALL ectowatch_wait(after, watchers, timeout, INOUT next_after)
 */
Datum
ectowatch_wait(PG_FUNCTION_ARGS)
{
	Reader		reader;
	TimestampTz until;
	uint64		next_after;
	TupleDesc	desc;
	Datum		values[1];
	bool		nulls[1] = {false};

	reader_open(&reader, fcinfo);
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");

	/* with a snapshot held, as in ectowatch_changes(), not for ever */
	until = reader_wait_until(fcinfo, 2,
							  release_snapshots(fcinfo) ? -1 : ectowatch_max_wait);

	for (;;)
	{
		RingRecord	record;
		ReaderGap	gap;
		uint64		before = reader.after;
		ReaderResult result = reader_next(&reader, &record, &gap);

		next_after = reader.after;
		if (result == READER_GAP)
		{
			/* to be read by who comes with the same position */
			next_after = before;
			break;
		}
		if (result == READER_CHANGE)
		{
			next_after = record.position - record.span;
			break;
		}
		if (!reader_sleep(&reader, until))
			break;
	}
	ConditionVariableCancelSleep();

	values[0] = Int64GetDatum((int64) next_after);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(desc, values, nulls)));
}

typedef struct PendingReader
{
	ReturnSetInfo *rsinfo;
	HTAB	   *rights;
	MemoryContext row_context;
} PendingReader;

static void
put_pending(const Change *change, void *arg)
{
	PendingReader *reader = arg;
	Datum		values[6] = {0};
	bool		nulls[6] = {false};
	MemoryContext old;

	/* the transaction may have changed it with the rights of another role */
	if ((change->flags & CHANGE_LEFT) || !rights_allow(reader->rights, change))
		return;
	old = MemoryContextSwitchTo(reader->row_context);
	/* how many there will be, nobody knows yet */
	change_columns(change, 0, values, nulls, 5);
	tuplestore_putvalues(reader->rsinfo->setResult, reader->rsinfo->setDesc,
						 values, nulls);
	MemoryContextSwitchTo(old);
	MemoryContextReset(reader->row_context);
}

/*
 * ectowatch_pending()
 */
Datum
ectowatch_pending(PG_FUNCTION_ARGS)
{
	PendingReader reader;

	ectowatch_require_preload();
	InitMaterializedSRF(fcinfo, 0);
	reader.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	reader.rights = rights_create();
	reader.row_context = AllocSetContextCreate(CurrentMemoryContext,
											   "ectowatch row",
											   ALLOCSET_DEFAULT_SIZES);
	if (!pending_walk(put_pending, &reader))
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not read pending changes from their temporary file: %m")));
	return (Datum) 0;
}
