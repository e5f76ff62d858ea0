/*-------------------------------------------------------------------------
 *
 * pending.c
 *	  The changes of this transaction, and their hand-over at its end.
 *
 * Changes are put into a store, one behind the other: into memory, and when
 * they are more than the queue carries, or than their share of
 * ectowatch.pending_memory, into a file.  A rolled back subtransaction cuts the
 * end off.
 *
 * Some are counted only, and summaries take their place when the transaction
 * ends (counts.c).
 *
 * What happens at the end of the transaction, and what is legal there:
 *
 * 1. PRE_COMMIT, while errors are legal and row locks are held: the batch
 *	  gets a ticket and its bytes go to the queue; if there are too many, they
 *	  all go to the file, and the queue names that.  If there is no room, the
 *	  backend waits for a few milliseconds, and then gives up: the batch is
 *	  lost, which is to be told at COMMIT.  The callback is registered when the
 *	  library is loaded, and so called after those of most others; what they
 *	  write is in the batch.  What another one writes after that comes too late:
 *	  it is lost, which is to be told at COMMIT too.
 * 2. Other things happen that can fail, and the commit record is flushed.
 * 3. COMMIT, where nothing may fail: the batch is decided, or what is lost is
 *	  counted.  No allocation, no lock.  A file belongs to the worker now.
 * 3' ABORT, where nothing may fail either: the batch is decided, the file is
 *	  removed.
 *
 * PREPARE TRANSACTION is refused while changes are pending, for nothing of
 * ours would be called when it is committed.  But where logical replication
 * prepares, they are lost, and a gap says so at once; so is what comes after
 * PRE_PREPARE.
 *
 * Subtransactions: the state before the first change of each nesting level is
 * kept in levels[]; store.c, counts.c and rows.c can be set back.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "replication/logicalworker.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "account.h"
#include "counts.h"
#include "ectowatch.h"
#include "pending.h"
#include "rows.h"
#include "slot.h"
#include "spill.h"
#include "store.h"

/* How things were before the first change of a nesting level. */
typedef struct PendingLevel
{
	int			nest;
	StoreMark	stored;
	uint64		nchanges;
	uint64		rows;			/* rows_mark() */
	CountsMark	counts;
} PendingLevel;

typedef struct Pending
{
	MemoryContext context;		/* of all below */

	Store		store;
	uint64		nchanges;		/* in it */
	Store		former;			/* the store before summaries */
	Counts		counts;			/* once a ticket was taken, and at COMMIT: of
								 * what is lost */

	PendingLevel *levels;
	int			nlevels;
	int			maxlevels;

	/*
	 * As long as one command has made all row versions, and one trigger
	 * captures each, none comes twice or late, and rows is NULL.
	 */
	CommandId	command;		/* InvalidCommandId: none yet */
	Rows	   *rows;

	/* from PRE_COMMIT on */
	Slot	   *slot;			/* NULL: there is none, or no need yet */
	uint64		ticket;			/* 0: none was taken */
	uint64	   *channels_lost;	/* of ectowatch_notify(), by number of the
								 * entry that is held for them, or NULL */
} Pending;

/* context is NULL, and nothing else counts, when nothing is pending */
static Pending pending;

/* What comes now, between PRE_COMMIT and the end, comes too late. */
static bool handed_over;

/* It is emptied at the end of each transaction. */
static MemoryContext pending_context;

/* Of pending_memory, three quarters are the changes', one the rows'. */
static Size
pending_changes_memory(void)
{
	return (Size) ectowatch_pending_memory * 1024 / 4 * 3;
}

/* More than the queue carries goes to a file in any case. */
static Size
pending_buffer_limit(void)
{
	return Min(pending_changes_memory(), slot_max_inline());
}

static Size
pending_rows_memory(void)
{
	return (Size) ectowatch_pending_memory * 1024 / 4;
}

static pg_attribute_hot void
pending_start(void)
{
	MemoryContext old;

	if (pending_context == NULL)
		pending_context = AllocSetContextCreate(TopMemoryContext,
												"ectowatch pending",
												ALLOCSET_DEFAULT_SIZES);
	memset(&pending, 0, sizeof(pending));
	pending.store.file = -1;
	pending.former.file = -1;
	pending.context = pending_context;
	old = MemoryContextSwitchTo(pending.context);
	store_init(&pending.store, pending_buffer_limit());
	counts_init(&pending.counts);
	pending.command = InvalidCommandId;
	MemoryContextSwitchTo(old);
}

static void
pending_end(void)
{
	store_close(&pending.former);
	store_close(&pending.store);
	pending.context = NULL;
	MemoryContextReset(pending_context);
}

/* Says, once per session, that this database cannot be served. */
static void
pending_warn_no_slot(void)
{
	static bool warned = false;

	if (warned)
		return;
	warned = true;
	ereport(WARNING,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("changes of watched tables are not delivered in this database"),
			 errdetail("%d other databases use ectowatch already.",
					   ectowatch_max_databases),
			 errhint("Increase ectowatch.max_databases and restart the server.")));
}

/* False if this database cannot be served. */
static bool
pending_attach(void)
{
	pending.slot = slot_attach();
	if (pending.slot == NULL)
	{
		pending_warn_no_slot();
		return false;
	}
	slot_request_worker(pending.slot);
	return true;
}

/* --- rows --- */

static RowVersion
version_of_row(const char *values, uint32 keys_len, CommandId command)
{
	RowVersion	version;

	version.key = change_key_hash(values, keys_len);
	version.command = command;
	version.lasting = false;
	return version;
}

static void
note_stored_row(const Change *change, void *arg)
{
	RowVersion	version;

	if (change->type > CHANGE_DELETED || change->keys_len <= 1)
		return;
	version = version_of_row(change_values(change), change->keys_len,
							 pending.command);
	(void) rows_note(arg, change->watcher, &version, change_digest(change));
}

/* Whether those that are stored may still be remembered. */
static bool
pending_has_all_rows(void)
{
	return store_bytes(&pending.store) <= pending_changes_memory();
}

/* From now on rows are remembered; those that are stored, as if they had been. */
static void
pending_remember_rows(void)
{
	MemoryContext old;
	Rows	   *rows;

	if (pending.rows != NULL)
		return;
	old = MemoryContextSwitchTo(pending.context);
	rows = rows_create(pending_rows_memory());
	MemoryContextSwitchTo(old);

	/* what is stored came after the mark of every level */
	if (pending.nlevels > 0)
		(void) rows_mark(rows);
	if (!pending_has_all_rows() ||
		pending.nchanges > rows_room(pending_rows_memory()) ||
		!store_walk(&pending.store, note_stored_row, rows))
	{
		rows_forget(rows);
		store_walk_buffer(&pending.store, note_stored_row, rows);
	}

	/* not before: an error leaves no half of them to those who go on */
	pending.rows = rows;
}

/*
 * Notes how things are before the first change of this nesting level.
 */
static pg_attribute_hot void
pending_enter_level(void)
{
	int			nest = GetCurrentTransactionNestLevel();
	PendingLevel *level;

	if (nest == 1 ||
		(pending.nlevels > 0 && pending.levels[pending.nlevels - 1].nest == nest))
		return;

	if (pending.command != InvalidCommandId)
		pending_remember_rows();
	if (pending.nlevels == pending.maxlevels)
	{
		int			n = Max(8, pending.maxlevels * 2);
		Size		size = n * sizeof(PendingLevel);

		pending.levels = pending.levels ? repalloc(pending.levels, size) :
			MemoryContextAlloc(pending.context, size);
		pending.maxlevels = n;
	}
	level = &pending.levels[pending.nlevels];
	level->nest = nest;
	level->stored = store_mark(&pending.store);
	level->nchanges = pending.nchanges;
	level->rows = pending.rows ? rows_mark(pending.rows) : 0;
	level->counts = counts_mark(&pending.counts);
	pending.nlevels++;
}

void
pending_moved(uint32 watcher, const char *old, uint32 keys_len,
			  CommandId command)
{
	RowVersion	version = version_of_row(old, keys_len, command);

	if (pending.context == NULL)
		pending_start();
	pending_enter_level();
	pending_remember_rows();
	(void) rows_note(pending.rows, watcher, &version, 0);
}

void
pending_expect_repeats(void)
{
	if (pending.context == NULL)
		pending_start();
	pending_remember_rows();
}

void
pending_forget_rows(void)
{
	if (pending.context == NULL)
		return;
	pending_remember_rows();
	rows_begin_anew(pending.rows);
}

pg_attribute_hot bool
pending_remembers_rows(CommandId command)
{
	if (pending.context == NULL)
		return true;

	/* whether they fit is known only then */
	if (pending.command != InvalidCommandId && command != pending.command)
		pending_remember_rows();
	return pending.rows ? rows_are_complete(pending.rows) :
		pending_has_all_rows();
}

/* --- collecting --- */

static void
pending_begin_change(void)
{
	if (pending.context == NULL)
		pending_start();

	/* COMMIT cannot, and may have to tell of a loss */
	if (handed_over && pending.slot == NULL)
		(void) pending_attach();
	pending_enter_level();
}

/*
 * Counts a change.  False if it is not to be stored: the store has been handed
 * over, so it is lost.
 */
static bool
pending_count(uint32 watcher)
{
	counts_of(&pending.counts, watcher)->stored++;
	if (handed_over)
		return false;
	pending.nchanges++;
	return true;
}

/* The same for one that no bulk_threshold counts. */
static bool
pending_count_apart(uint32 watcher)
{
	counts_of(&pending.counts, watcher)->apart++;
	return pending_count(watcher);
}

void
pending_add(const ChangeParts *parts, const RowVersion *version)
{
	Change	   *change = change_make(parts);

	pending_begin_change();
	if (version != NULL)
	{
		pending_remember_rows();
		if (rows_note(pending.rows, parts->watcher, version,
					  change_digest(change)) != ROW_NEWEST)
			return;
	}
	if (pending_count_apart(parts->watcher))
		store_add(&pending.store, change);
}

static void
pending_store_row(const ChangeParts *parts, StoreHead *head)
{
	if (pending_count(parts->watcher))
		store_add_brief(&pending.store, parts, head);
}

pg_attribute_hot void
pending_add_row(const ChangeParts *parts, CommandId command, StoreHead *head)
{
	pending_begin_change();
	if (pending.command == InvalidCommandId)
		pending.command = command;
	if (command == InvalidCommandId || command != pending.command)
		pending_remember_rows();
	if (pending.rows != NULL && parts->keys_len > 1)
	{
		RowVersion	version = version_of_row(parts->values, parts->keys_len,
											 command);

		switch (rows_note(pending.rows, parts->watcher, &version,
						  change_parts_digest(parts)))
		{
			case ROW_NEWEST:
				break;
			case ROW_REPEATED:
				return;
			case ROW_LATE:
				pending_add_late(parts, head);
				return;
		}
	}
	pending_store_row(parts, head);
}

void
pending_add_late(const ChangeParts *parts, StoreHead *head)
{
	ChangeParts key = *parts;

	if (parts->old_len == 0)
		return;
	pending_begin_change();
	key.values = psprintf("%.*s}", (int) parts->keys_len, parts->values);
	key.values_len = parts->keys_len + 1;
	key.flags |= CHANGE_PARTIAL | CHANGE_LEFT;
	if (pending_count_apart(parts->watcher))
		store_add_brief(&pending.store, &key, head);
}

/* --- counting only --- */

bool
pending_is_over(uint32 watcher, uint32 threshold)
{
	const Count *count;

	if (pending.context == NULL)
		return false;
	count = counts_of(&pending.counts, watcher);
	return count->stored - count->apart >= threshold;
}

static Count *
pending_count_only(const ChangeParts *parts)
{
	pending_begin_change();
	return counts_with_template(&pending.counts, parts);
}

void
pending_add_over(const ChangeParts *parts)
{
	Assert(parts->type <= CHANGE_DELETED);
	pending_count_only(parts)->over[parts->type]++;
}

void
pending_add_muted(const ChangeParts *parts)
{
	pending_count_only(parts)->muted++;
}

/* --- what is to be delivered --- */

bool
pending_walk(ChangeCallback callback, void *arg)
{
	/* what comes too late would not be delivered */
	return pending.context == NULL || handed_over ||
		counts_walk(&pending.counts, &pending.store, callback, arg);
}

static void
put_into_store(const Change *change, void *arg)
{
	store_add(arg, change);
	pending.nchanges++;
}

/*
 * Puts summaries and gaps into the place of what they stand for, in a new
 * store.
 */
static void
pending_summarize(void)
{
	MemoryContext old = MemoryContextSwitchTo(pending.context);

	/* should this fail, both files are known */
	pending.former = pending.store;
	store_init(&pending.store, pending_buffer_limit());
	pending.nchanges = 0;
	if (!counts_walk(&pending.counts, &pending.former, put_into_store,
					 &pending.store))
		pending.store.failed = true;
	MemoryContextSwitchTo(old);
	store_close(&pending.former);
}

/* --- subtransactions --- */

static void
pending_roll_back(PendingLevel *level)
{
	store_cut(&pending.store, &level->stored);
	pending.nchanges = level->nchanges;
	counts_cut(&pending.counts, &level->counts);

	/* where no rows were remembered, all are gone */
	if (pending.rows != NULL)
		rows_roll_back(pending.rows, level->rows);
	else
		pending.command = InvalidCommandId;
}

static void
pending_subxact_callback(SubXactEvent event,
						 SubTransactionId mySubid pg_attribute_unused(),
						 SubTransactionId parentSubid pg_attribute_unused(),
						 void *arg pg_attribute_unused())
{
	int			nest = GetCurrentTransactionNestLevel();
	PendingLevel *level;

	if (pending.context == NULL || pending.nlevels == 0)
		return;
	level = &pending.levels[pending.nlevels - 1];
	if (level->nest < nest)
		return;

	if (event == SUBXACT_EVENT_ABORT_SUB)
	{
		pending_roll_back(level);
		pfree(level->counts.counts);
		pending.nlevels--;
	}
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
	{
		/* the changes are the parent's now, and so is what was before them */
		if (nest - 1 == 1 ||
			(pending.nlevels > 1 && level[-1].nest == nest - 1))
		{
			pfree(level->counts.counts);
			pending.nlevels--;
		}
		else
			level->nest = nest - 1;
	}
	if (pending.nlevels == 0 && pending.rows != NULL)
		rows_forget_marks(pending.rows);
}

/* --- the end of the transaction --- */

/*
 * Takes a ticket and room, waiting a little for them if the queue is full.
 */
static bool
pending_reserve(Queue *queue, Batch *batch)
{
	instr_time	start;

	if (queue_reserve(queue, batch))
		return true;
	if (queue_is_overrun(queue))
		return false;

	/* while it naps, nobody else wakes it */
	slot_wake_worker(pending.slot);

	/* by a clock that nobody sets */
	INSTR_TIME_SET_CURRENT(start);
	for (;;)
	{
		instr_time	waited;

		INSTR_TIME_SET_CURRENT(waited);
		INSTR_TIME_SUBTRACT(waited, start);
		if (INSTR_TIME_GET_MILLISEC(waited) >= ectowatch_queue_timeout)
			break;
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 1, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (queue_reserve(queue, batch))
			return true;
		if (queue_is_overrun(queue))
			return false;
	}
	queue_set_overrun(queue);
	return false;
}

static void
lose_channel(const Change *change, void *arg pg_attribute_unused())
{
	char		channel[NAMEDATALEN];
	uint32		id;

	if (change->watcher != SLOT_CHANNELS)
		return;
	change_copy_name(change, channel);
	id = account_hold_channel(pending.slot, channel);

	/* once is enough */
	if (pending.channels_lost[id - SLOT_CHANNEL]++ > 0)
		account_release_channel(pending.slot, id);
}

/*
 * The changes cannot be handed over: those that are counted are lost, if the
 * transaction commits.  Channels are counted by name only now.
 */
static void
pending_note_lost(void)
{
	Store	   *store = &pending.store;
	uint64		notifies = counts_of(&pending.counts, SLOT_CHANNELS)->stored;

	if (notifies == 0)
		return;

	pending.channels_lost = MemoryContextAllocZero(pending.context,
												   SLOT_MAX_CHANNELS * sizeof(uint64));
	if (store->spilled > 0 && store->file < 0 && !store->failed)
		store->file = spill_open(store->spill_id);
	if (store->spilled == 0 || store->file >= 0)
		(void) store_walk(store, lose_channel, NULL);
	store_close(store);

	/* what could not be read is one of all channels */
	for (int i = 0; i < SLOT_MAX_CHANNELS; i++)
		notifies -= pending.channels_lost[i];
	pending.channels_lost[SLOT_CHANNELS - SLOT_CHANNEL] += notifies;
	counts_of(&pending.counts, SLOT_CHANNELS)->stored = 0;
}

/* At COMMIT, or if nothing is lost, at ABORT. */
static void
pending_release_channels(bool lost)
{
	for (int i = 0; pending.channels_lost && i < SLOT_MAX_CHANNELS; i++)
	{
		if (pending.channels_lost[i] == 0)
			continue;
		if (lost)
			account_add_lost(pending.slot, SLOT_CHANNEL + i,
							 pending.channels_lost[i]);
		account_release_channel(pending.slot, SLOT_CHANNEL + i);
	}
	pending.channels_lost = NULL;	/* not twice */
}

static void
pending_pre_commit(void)
{
	Store	   *store = &pending.store;
	Queue	   *queue;
	Batch		batch;

	if (counts_need_summary(&pending.counts))
		pending_summarize();

	/* nothing, unless the file failed before summaries could be made */
	if (pending.nchanges == 0 && !(store->failed && counts_total(&pending.counts) > 0))
		return;

	if (!pending_attach())
		return;
	queue = slot_queue(pending.slot);

	if (store->spilled > 0 || store->used > slot_max_inline())
		store_spill(store);
	store_close(store);

	memset(&batch, 0, sizeof(batch));
	batch.len = store_bytes(store);
	batch.xid = U64FromFullTransactionId(GetTopFullTransactionId());
	batch.spill_id = store->spilled > 0 ? store->spill_id : 0;
	batch.nchanges = (uint32) pending.nchanges;
	batch.pid = MyProcPid;
	batch.reserved_at = GetCurrentTimestamp();

	/* a batch cannot say of more than that how many they are */
	if (store->failed || pending.nchanges > PG_UINT32_MAX ||
		!pending_reserve(queue, &batch))
	{
		pending_note_lost();
		return;
	}

	pending.ticket = batch.ticket;
	if (batch.spill_id == 0)
		queue_write(queue, batch.ticket, 0, store->buffer, store->used);

	/* of what is lost: nothing yet */
	counts_clear(&pending.counts);
	WAIT_POINT_INTERRUPTIBLE("reserved");
}

/*
 * The apply worker of a two-phase subscription prepares what its publisher
 * has prepared.  An error would stop replication for good.
 */
static void
pending_lose(void)
{
	if (pending_attach())
		pending_note_lost();
}

/* Counts what is lost; at COMMIT.  Whether the worker has to be woken. */
static bool
pending_tell_lost(void)
{
	if (pending.slot == NULL ||
		(counts_total(&pending.counts) == 0 && pending.channels_lost == NULL))
		return false;
	for (int i = 0; i < pending.counts.n; i++)
	{
		const Count *count = &pending.counts.counts[i];
		uint64		lost = count_total(count);

		/* of channels, those of which nobody took the name */
		if (lost > 0)
			account_add_lost(pending.slot, count->watcher, lost);
	}
	pending_release_channels(true);
	return queue_worker_sleeps(slot_queue(pending.slot));
}

static pg_attribute_hot void
pending_commit(void)
{
	bool		wake;

	WAIT_POINT("commit");
	wake = pending.ticket != 0 &&
		queue_commit(slot_queue(pending.slot), pending.ticket,
					 GetCurrentTransactionStopTimestamp());
	if (pending_tell_lost())
		wake = true;

	/* a file that the queue does not name is nobody's */
	if (pending.store.spill_id != 0 &&
		(pending.ticket == 0 || pending.store.spilled == 0))
		spill_remove(pending.store.spill_id);
	if (pending.former.spill_id != 0)
		spill_remove(pending.former.spill_id);
	if (wake)
		slot_wake_worker(pending.slot);
	pending_end();
}

static void
pending_abort(void)
{
	bool		wake = false;

	pending_release_channels(false);
	if (pending.ticket != 0)
		wake = queue_abort(slot_queue(pending.slot), pending.ticket);
	if (pending.store.spill_id != 0)
		spill_remove(pending.store.spill_id);
	if (pending.former.spill_id != 0)
		spill_remove(pending.former.spill_id);
	if (wake)
		slot_wake_worker(pending.slot);
	pending_end();
}

static pg_attribute_hot void
pending_xact_callback(XactEvent event, void *arg pg_attribute_unused())
{
	/* also if nothing is pending yet */
	handed_over = event == XACT_EVENT_PRE_COMMIT ||
		event == XACT_EVENT_PRE_PREPARE;
	if (pending.context == NULL)
		return;

	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			pending_pre_commit();
			break;
		case XACT_EVENT_COMMIT:
			pending_commit();
			break;
		case XACT_EVENT_ABORT:
			pending_abort();
			break;
		case XACT_EVENT_PRE_PREPARE:
			if (counts_total(&pending.counts) > 0 && IsLogicalWorker())
				pending_lose();
			else if (counts_of(&pending.counts, SLOT_CHANNELS)->stored > 0)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("cannot PREPARE a transaction that has called ectowatch_notify()"),
						 errhint("Use COMMIT, or call it in another transaction.")));
			else if (counts_total(&pending.counts) > 0)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("cannot PREPARE a transaction that has changes of watched tables to deliver"),
						 errdetail_plural("%lu change waits for the end of this transaction.",
										  "%lu changes wait for the end of this transaction.",
										  counts_total(&pending.counts), counts_total(&pending.counts)),
						 errhint("Use COMMIT, or remove the watchers of these tables with ectowatch_unwatch().")));
			break;
		case XACT_EVENT_PREPARE:
			pending_commit();	/* what is here was rolled back, or is lost */
			break;
		case XACT_EVENT_PARALLEL_PRE_COMMIT:
		case XACT_EVENT_PARALLEL_COMMIT:
		case XACT_EVENT_PARALLEL_ABORT:
			break;
	}
}

void
pending_init(void)
{
	RegisterXactCallback(pending_xact_callback, NULL);
	RegisterSubXactCallback(pending_subxact_callback, NULL);
}
