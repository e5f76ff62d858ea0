/*-------------------------------------------------------------------------
 *
 * reader.c
 *	  SQL functions that read: the ring, and this transaction's pending.
 *
 * A reader brings the position behind which it wants to read, and nothing of
 * it is kept.  It is told what it has missed: the first row is a gap if
 * positions behind 'after'
 *
 *	- were given before the server last started (reason crash),
 *	- were never given, so 'after' is from another server (position_unknown),
 *	- are no longer in the ring (overtaken).
 *
 * A reader of all watchers gets one such row, without a watcher; a reader of
 * some gets one for each of them that has lost something.
 *
 * Rights: a watcher may be read by who may SELECT the columns that it
 * delivers, and is not subject to row level security on the table.  Who asks
 * for a watcher that he may not read gets an error; who asks for all gets
 * those that he may.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/procarray.h"
#include "tcop/pquery.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/resowner.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"
#include "utils/xid8.h"

#include "change.h"
#include "ectowatch.h"
#include "message.h"
#include "pending.h"
#include "slot.h"
#include "watcher.h"

PG_FUNCTION_INFO_V1(ectowatch_changes);
PG_FUNCTION_INFO_V1(ectowatch_wait);
PG_FUNCTION_INFO_V1(ectowatch_position);
PG_FUNCTION_INFO_V1(ectowatch_pending);

/* How long ectowatch_position() waits for the worker to come up. */
#define WORKER_START_TIMEOUT_MS		10000

/* Whether this role may read some columns of a relation; asked once a call. */
typedef struct ReaderRightKey
{
	Oid			relation;
	uint64		columns;		/* hash of their numbers */
} ReaderRightKey;

typedef struct ReaderRight
{
	ReaderRightKey key;
	bool		allowed;
} ReaderRight;

typedef struct Reader
{
	Slot	   *slot;
	Ring	   *ring;
	RingCursor	cursor;
	bool		seated;			/* the cursor is where 'after' says */
	uint64		after;			/* read so far */
	List	   *names;			/* of watchers; NIL: all */
	char	   *payload;
	HTAB	   *rights;
	List	   *gaps;			/* ReaderGap, to be told first */
} Reader;

typedef struct ReaderGap
{
	uint64		position;		/* from which to go on after it */
	const char *watcher;		/* NULL: all */
	uint64		from;
	uint64		to;
	uint64		changes;		/* 0: not known */
	const char *reason;
} ReaderGap;

typedef enum ReaderResult
{
	READER_CHANGE,
	READER_GAP,
	READER_END
} ReaderResult;

/* --- rights --- */

static bool
columns_allowed(Oid relation, const AttrNumber *columns, int ncolumns)
{
	for (int i = 0; i < ncolumns; i++)
	{
		bool		missing = false;

		if (columns[i] == InvalidAttrNumber ||
			pg_attribute_aclcheck_ext(relation, columns[i], GetUserId(),
									  ACL_SELECT, &missing) != ACLCHECK_OK ||
			missing)
			return false;
	}
	return ncolumns > 0;
}

/*
 * Whether this role may read what a relation's columns held; if there are
 * none, the relation as a whole.
 */
static bool
relation_allowed(Oid relation, const AttrNumber *columns, int ncolumns)
{
	if (get_rel_name(relation) == NULL)
		return has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_DATA);
	if (check_enable_rls(relation, InvalidOid, true) == RLS_ENABLED)
		return false;
	return pg_class_aclcheck(relation, GetUserId(), ACL_SELECT) == ACLCHECK_OK ||
		columns_allowed(relation, columns, ncolumns);
}

static bool
watcher_allowed(const WatcherDef *def)
{
	int			n;
	AttrNumber *columns = watcher_columns(def, &n);

	return relation_allowed(def->relation, columns, n);
}

static HTAB *
rights_create(void)
{
	HASHCTL		ctl;

	ctl.keysize = sizeof(ReaderRightKey);
	ctl.entrysize = sizeof(ReaderRight);
	ctl.hcxt = CurrentMemoryContext;
	return hash_create("ectowatch rights", 16, &ctl,
					   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/*
 * Whether a change may be read.  It shows the columns that its watcher had
 * then, which need not be those that it has now.
 */
static bool
rights_allow(HTAB *rights, const Change *change)
{
	ReaderRightKey key;
	ReaderRight *right;
	bool		found;

	/* these say nothing of any row, and no reader may go without them */
	if (change->type == CHANGE_ENDED || change->type == CHANGE_GAP)
		return true;

	memset(&key, 0, sizeof(key));
	key.relation = change->relation;
	key.columns = hash_bytes_extended((const unsigned char *) change->columns,
									  change->ncolumns * sizeof(AttrNumber),
									  change->ncolumns);
	right = hash_search(rights, &key, HASH_ENTER, &found);
	if (!found)
		right->allowed = relation_allowed(change->relation, change->columns,
										  change->ncolumns);
	return right->allowed;
}

/* --- opening --- */

/*
 * What the ring has dropped of the watchers that have, or have had, a name:
 * the newest position, and how many changes.  False if it never had any.
 */
static bool
evicted_of_name(Slot *slot, const char *name, uint64 *position, uint64 *changes)
{
	bool		found = false;

	*position = *changes = 0;
	for (uint32 i = 0; i < SLOT_MAX_WATCHERS; i++)
	{
		SlotWatcher *entry = slot_watcher(slot, i);

		if (pg_atomic_read_u32(&entry->id) == 0 ||
			strncmp(entry->name, name, NAMEDATALEN) != 0)
			continue;
		found = true;
		*position = Max(*position, pg_atomic_read_u64(&entry->evicted_position));
		*changes += pg_atomic_read_u64(&entry->evicted);
	}
	return found;
}

static void
reader_check_names(Reader *reader)
{
	List	   *defs = watcher_list(InvalidOid);
	ListCell   *lc;

	foreach(lc, reader->names)
	{
		char	   *name = lfirst(lc);
		WatcherDef *def = NULL;
		ListCell   *ld;

		foreach(ld, defs)
		{
			if (strcmp(((WatcherDef *) lfirst(ld))->name, name) == 0)
				def = lfirst(ld);
		}
		if (def == NULL)
		{
			uint64		position;
			uint64		changes;

			/* one that has ended may still have changes to be read */
			if (evicted_of_name(reader->slot, name, &position, &changes))
				continue;
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("watcher \"%s\" does not exist", name),
					 errhint("View ectowatch_watchers lists those that do.")));
		}
		if (!watcher_allowed(def))
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("permission denied for watcher \"%s\"", name),
					 errdetail("Reading it needs SELECT on the columns that it delivers, and is refused to those subject to row level security."),
					 errhint("GRANT SELECT on its table.")));
	}
}

static List *
names_argument(ArrayType *array)
{
	Datum	   *elements;
	bool	   *nulls;
	int			n;
	List	   *names = NIL;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT,
					  &elements, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("watchers must not contain nulls"),
					 errhint("Use NULL instead of the array for all watchers.")));
		names = lappend(names, TextDatumGetCString(elements[i]));
	}
	if (names == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("watchers must not be empty"),
				 errhint("Use NULL for all watchers.")));
	return names;
}

/* The slot of this database, with a worker on its way; else an error. */
static Slot *
reader_slot(void)
{
	Slot	   *slot;

	ectowatch_require_preload();
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("recovery is in progress"),
				 errhint("Changes are read on the primary server.")));
	slot = slot_attach();
	if (slot == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no more databases can use ectowatch"),
				 errdetail("%d others do already.", ectowatch_max_databases),
				 errhint("Increase ectowatch.max_databases and restart the server.")));
	slot_request_worker(slot);
	return slot;
}

/* Arguments 'after' and 'watchers', which are the first two everywhere. */
static void
reader_open(Reader *reader, FunctionCallInfo fcinfo)
{
	int64		after;

	memset(reader, 0, sizeof(*reader));
	reader->slot = reader_slot();
	reader->ring = slot_ring(reader->slot);
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("after must not be null"),
				 errhint("Use the last position that was read, ectowatch_position() to begin now, or 0 for the oldest that is kept.")));
	after = PG_GETARG_INT64(0);
	if (after < 0)
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("after must not be negative"),
				 errhint("Use 0 for the oldest change that is kept.")));
	reader->after = after;
	if (!PG_ARGISNULL(1))
	{
		reader->names = names_argument(PG_GETARG_ARRAYTYPE_P(1));
		reader_check_names(reader);
	}
	reader->payload = palloc(ring_max_payload(reader->ring));

	reader->rights = rights_create();
}

/* --- reading --- */

static void
reader_add_gap(Reader *reader, const char *watcher, uint64 from, uint64 to,
			   uint64 changes, const char *reason)
{
	ReaderGap  *gap = palloc(sizeof(ReaderGap));

	gap->watcher = watcher;
	gap->from = from;
	gap->to = to;
	gap->changes = changes;
	gap->reason = reason;
	reader->gaps = lappend(reader->gaps, gap);
}

/* By the position that they get; for list_sort(). */
static int
gap_compare(const ListCell *a, const ListCell *b)
{
	uint64		to_a = ((const ReaderGap *) lfirst(a))->to;
	uint64		to_b = ((const ReaderGap *) lfirst(b))->to;

	return to_a < to_b ? -1 : to_a > to_b;
}

/* A gap for all that the reader asked for. */
static void
reader_add_gaps(Reader *reader, uint64 from, uint64 to, const char *reason)
{
	ListCell   *lc;

	if (reader->names == NIL)
		reader_add_gap(reader, NULL, from, to, 0, reason);
	foreach(lc, reader->names)
		reader_add_gap(reader, lfirst(lc), from, to, 0, reason);
}

/*
 * Compares 'after' with what the ring has, notes gaps, and moves 'after' to
 * where reading can go on.  False if there are no positions yet to compare
 * it with.
 */
static bool
reader_compare(Reader *reader)
{
	SlotProgress *progress = slot_progress(reader->slot);
	uint64		run_start = pg_atomic_read_u64(&progress->run_start);
	uint64		evicted;
	ListCell   *lc;

	if (run_start == 0)
		return false;
	pg_read_barrier();

	/* 0 asks for what there is */
	if (reader->after == 0)
		reader->after = Max(run_start - 1, ring_evicted_position(reader->ring));

	if (reader->after > pg_atomic_read_u64(&progress->newest_position))
	{
		reader_add_gaps(reader, 0, run_start - 1, "position_unknown");
		reader->after = run_start - 1;
	}
	else if (reader->after < run_start - 1)
	{
		reader_add_gaps(reader, reader->after + 1, run_start - 1, "crash");
		reader->after = run_start - 1;
	}

	evicted = ring_evicted_position(reader->ring);
	if (evicted <= reader->after)
		return true;
	if (reader->names == NIL)
		reader_add_gap(reader, NULL, reader->after + 1, evicted,
					   evicted - reader->after, "overtaken");
	foreach(lc, reader->names)
	{
		uint64		to;
		uint64		changes;

		/* how many of them come after 'after' is known only of all of them */
		if (evicted_of_name(reader->slot, lfirst(lc), &to, &changes) &&
			to > reader->after)
			reader_add_gap(reader, lfirst(lc), reader->after + 1, to,
						   reader->after < run_start ? changes : 0,
						   "overtaken");
	}
	reader->after = evicted;
	return true;
}

/*
 * Finds gaps, in the order of their positions.  Of several that end at one,
 * all but the last get a place before it; so who stops between them, and comes
 * back with the place of one, still gets the others.
 */
static bool
reader_find_gaps(Reader *reader)
{
	uint64		before = reader->after;
	bool		comparable = reader_compare(reader);
	uint64		next_to = 0;
	uint64		position = 0;

	list_sort(reader->gaps, gap_compare);
	for (int i = list_length(reader->gaps) - 1; i >= 0; i--)
	{
		ReaderGap  *gap = list_nth(reader->gaps, i);

		position = gap->to == next_to ? position - 1 : gap->to;
		next_to = gap->to;
		gap->position = position;
		if (before < gap->to && gap->position <= before)
			reader->gaps = list_delete_nth_cell(reader->gaps, i);
	}
	return comparable;
}

static bool
reader_wants(Reader *reader, const Change *change)
{
	ListCell   *lc;

	foreach(lc, reader->names)
	{
		const char *name = lfirst(lc);

		if (strlen(name) == change->name_len &&
			memcmp(name, change_name(change), change->name_len) == 0)
			return rights_allow(reader->rights, change);
	}
	return reader->names == NIL && rights_allow(reader->rights, change);
}

/*
 * Takes the next gap or change.  reader->after is behind it, or, at the end,
 * behind all that there is.
 */
static ReaderResult
reader_next(Reader *reader, RingRecord *record, ReaderGap *gap)
{
	for (;;)
	{
		uint64		at;

		CHECK_FOR_INTERRUPTS();

		if (reader->gaps != NIL)
		{
			*gap = *(ReaderGap *) linitial(reader->gaps);
			reader->gaps = list_delete_first(reader->gaps);
			return READER_GAP;
		}

		at = reader->after;
		if (!reader->seated)
		{
			if (!reader_find_gaps(reader))
				return READER_END;
			if (reader->gaps != NIL)
				continue;
			at = reader->after;
			ring_seek(&reader->cursor, reader->ring, at);
		}

		switch (ring_read(&reader->cursor, record, reader->payload))
		{
			case RING_END:
				/* no one has passed us while we looked for our place */
				if (!reader->seated &&
					ring_evicted_position(reader->ring) > at)
					continue;
				reader->seated = true;
				return READER_END;
			case RING_OVERTAKEN:
				reader->seated = false;
				continue;
			case RING_RECORD:
				pg_read_barrier();
				if (!reader->seated &&
					ring_evicted_position(reader->ring) > at)
					continue;
				reader->seated = true;
				reader->after = record->position;
				if (reader_wants(reader, (Change *) reader->payload))
					return READER_CHANGE;
				break;
		}
	}
}

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

/* When a wait of an interval ends; NULL is for ever. */
static TimestampTz
wait_until(FunctionCallInfo fcinfo, int n, long max_ms)
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

/* Columns 1 to 5 of changes, 0 to 4 of pending: watcher to old_values. */
static void
change_columns(const Change *change, Datum *values, bool *nulls)
{
	values[0] = PointerGetDatum(cstring_to_text_with_len(change_name(change),
														 change->name_len));
	values[1] = CStringGetTextDatum(change_type_name(change->type));
	values[2] = PointerGetDatum(cstring_to_text_with_len(change_relation(change),
														 change->relation_len));
	nulls[2] = change->relation_len == 0;
	nulls[4] = change->old_len == 0;
	if (change->flags & CHANGE_FOREIGN_JSON)
	{
		values[3] = foreign_json_to_jsonb(change_values(change),
										  change->values_len, change->keys_len);
		if (!nulls[4])
			values[4] = foreign_json_to_jsonb(change_old(change),
											  change->old_len, 1);
	}
	else
	{
		values[3] = json_to_jsonb(change_values(change), change->values_len);
		if (!nulls[4])
			values[4] = json_to_jsonb(change_old(change), change->old_len);
	}
}

#define CHANGES_COLUMNS		8

static void
put_change(ReturnSetInfo *rsinfo, const RingRecord *record,
		   const Change *change)
{
	Datum		values[CHANGES_COLUMNS] = {0};
	bool		nulls[CHANGES_COLUMNS] = {false};

	values[0] = Int64GetDatum((int64) record->position);
	change_columns(change, &values[1], &nulls[1]);
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
	nulls[5] = nulls[6] = nulls[7] = true;
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
	until = wait_until(fcinfo, 3, ectowatch_max_wait);

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
	until = wait_until(fcinfo, 2,
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

/* Whether the snapshot may not see what some transaction below 'xid' wrote. */
static bool
snapshot_is_before(Snapshot snapshot, uint64 xid)
{
	return TransactionIdPrecedes(snapshot->xmin, (TransactionId) xid);
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
	FullTransactionId next = ReadNextFullTransactionId();

	if (horizon != 0 &&
		TransactionIdPrecedes(snapshot->xmax, (TransactionId) horizon))
		return true;
	if (gap_horizon != 0 && snapshot_is_before(snapshot, gap_horizon))
		return true;
	for (uint32 i = 0; i < snapshot->xcnt; i++)
	{
		TransactionId xid = snapshot->xip[i];
		uint32		epoch = EpochFromFullTransactionId(next);

		if (xid > XidFromFullTransactionId(next))
			epoch--;
		if (ring_has_evicted_xid(ring,
								 U64FromFullTransactionId(FullTransactionIdFromEpochAndXid(epoch, xid))) &&
			!TransactionIdIsInProgress(xid) && TransactionIdDidCommit(xid))
			return true;
	}
	return false;
}

/*
 * ectowatch_position(): the newest position such that all changes up to it are
 * visible to the caller's snapshot.  What comes into the ring later has a
 * higher one.
 */
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
				XidInMVCCSnapshot((TransactionId) record.xid, snapshot))
				PG_RETURN_INT64((int64) (record.position - record.span));
			visible_xid = record.xid;
			position = record.position;
		}
		if (result == RING_END)
			PG_RETURN_INT64((int64) position);
	} while (result == RING_OVERTAKEN);

	elog(ERROR, "unexpected end of the ring");
}

typedef struct PendingReader
{
	ReturnSetInfo *rsinfo;
	HTAB	   *rights;
} PendingReader;

static void
put_pending(const Change *change, void *arg)
{
	PendingReader *reader = arg;
	Datum		values[5] = {0};
	bool		nulls[5] = {false};

	/* the transaction may have changed it with the rights of another role */
	if (!rights_allow(reader->rights, change))
		return;
	change_columns(change, values, nulls);
	tuplestore_putvalues(reader->rsinfo->setResult, reader->rsinfo->setDesc,
						 values, nulls);
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
	if (!pending_walk(put_pending, &reader))
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not read pending changes from their temporary file: %m")));
	return (Datum) 0;
}
