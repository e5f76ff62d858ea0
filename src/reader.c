/*-------------------------------------------------------------------------
 *
 * reader.c
 *	  A reader's way through the ring.
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
 * A name that is no watcher's is that of a channel of ectowatch_notify(), of
 * which nothing may have been sent yet.
 *
 * Who asks for a watcher that he may not read (rights.c) gets an error; who
 * asks for all gets those that he may.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "account.h"
#include "ectowatch.h"
#include "reader.h"
#include "rights.h"
#include "watcher.h"

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
	for (uint32 i = 0; i < SLOT_ENTRIES; i++)
	{
		Account    *entry = account_at(slot, i);

		if (pg_atomic_read_u32(&entry->id) == 0 ||
			strncmp(entry->name, name, NAMEDATALEN) != 0)
			continue;
		found = true;
		*position = Max(*position, pg_atomic_read_u64(&entry->evicted_position));
		*changes += pg_atomic_read_u64(&entry->evicted);
	}
	return found;
}

/*
 * A name that no watcher has.  It may be mistyped, so that is said; not each
 * time, for who waits for a first message asks often.
 */
static void
reader_add_channel(Reader *reader, char *name)
{
	static char last[NAMEDATALEN];
	uint64		position;
	uint64		changes;

	if (name[0] == '\0' || strlen(name) >= NAMEDATALEN)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("watcher \"%s\" does not exist", name),
				 errdetail("It cannot be a channel of ectowatch_notify() either."),
				 errhint("View ectowatch_watchers lists those that do.")));
	reader->channels = lappend(reader->channels, name);

	/* one that has ended may still have changes to be read */
	if (evicted_of_name(reader->slot, name, &position, &changes) ||
		pg_atomic_read_u64(&account_class_of(reader->slot, name)->appended) > 0 ||
		strcmp(name, last) == 0)
		return;
	strlcpy(last, name, NAMEDATALEN);
	ereport(NOTICE,
			(errmsg("there is no watcher \"%s\"", name),
			 errdetail("It is read as a channel of ectowatch_notify(), to which nothing was sent since the server started."),
			 errhint("View ectowatch_watchers lists watchers.")));
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

		CHECK_FOR_INTERRUPTS();
		foreach(ld, defs)
		{
			if (strcmp(((WatcherDef *) lfirst(ld))->name, name) == 0)
				def = lfirst(ld);
		}
		if (def == NULL)
		{
			reader_add_channel(reader, name);
			continue;
		}
		if (!rights_allow_watcher(def))
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("permission denied for watcher \"%s\"", name),
					 errdetail("Reading it needs SELECT on the columns that it delivers, and is refused to those subject to row level security."),
					 errhint("GRANT SELECT on its table.")));
	}
}

/* The names, each once. */
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
		char	   *name;
		bool		found = false;
		ListCell   *lc;

		CHECK_FOR_INTERRUPTS();
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("watchers must not contain nulls"),
					 errhint("Use NULL instead of the array for all watchers.")));
		name = TextDatumGetCString(elements[i]);
		foreach(lc, names)
		{
			found = strcmp(lfirst(lc), name) == 0;
			if (found)
				break;
		}
		if (!found)
			names = lappend(names, name);
	}
	if (names == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("watchers must not be empty"),
				 errhint("Use NULL for all watchers.")));
	return names;
}

Slot *
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

void
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

/* By where they end, and by name; for list_sort(). */
static int
gap_compare(const ListCell *a, const ListCell *b)
{
	uint64		to_a = ((const ReaderGap *) lfirst(a))->to;
	uint64		to_b = ((const ReaderGap *) lfirst(b))->to;

	if (to_a != to_b || ((const ReaderGap *) lfirst(a))->watcher == NULL)
		return to_a < to_b ? -1 : to_a > to_b;
	return strcmp(((const ReaderGap *) lfirst(a))->watcher,
				  ((const ReaderGap *) lfirst(b))->watcher);
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

	/* what is known by watcher and class was stored before that */
	pg_read_barrier();
	if (reader->names == NIL)
		reader_add_gap(reader, NULL, reader->after + 1, evicted,
					   evicted - reader->after, "overtaken");
	foreach(lc, reader->names)
	{
		const char *name = lfirst(lc);
		uint64		to;
		uint64		changes;

		CHECK_FOR_INTERRUPTS();
		/* how many of them come after 'after' is known only of all of them */
		(void) evicted_of_name(reader->slot, name, &to, &changes);
		if (list_member_ptr(reader->channels, name))
		{
			uint64		of_class = pg_atomic_read_u64(&account_class_of(reader->slot, name)->evicted_position);

			/* and of channels not even that */
			if (of_class > to)
			{
				to = of_class;
				changes = 0;
			}
		}
		if (to > reader->after)
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

		CHECK_FOR_INTERRUPTS();
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

	if (change->flags & CHANGE_LEFT)
		return false;
	foreach(lc, reader->names)
	{
		const char *name = lfirst(lc);

		if (strlen(name) == change->name_len &&
			memcmp(name, change_name(change), change->name_len) == 0)
			return rights_allow(reader->rights, change);
	}

	/* a gap of all channels */
	if (change->watcher == SLOT_CHANNELS && change->name_len == 0 &&
		reader->channels != NIL)
		return true;
	return reader->names == NIL && rights_allow(reader->rights, change);
}

ReaderResult
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
