/*-------------------------------------------------------------------------
 *
 * worker.c
 *	  The background worker of one database.
 *
 * It takes decided batches off the queue in the order of tickets, gives each
 * change a position, and puts it into the ring.  Aborted batches it only
 * frees.  What was lost for want of room it puts into the ring as gaps.  Then
 * it has notify.c send what is new there.  When there is nothing to do it
 * sleeps, without a transaction, without a timer unless a message is held back
 * by throttle, and commits nothing.
 *
 * When it was idle, the next commit wakes it, and what that has changed is
 * sent at once.  To be woken for each costs the committing backends a system
 * call and a change of processes each.  So as soon as a turn finds more than
 * one batch, it naps for a moment after it, during which nobody wakes it and
 * batches gather, until a turn finds one or none.
 *
 * It may be ended at any CHECK_FOR_INTERRUPTS().  What is done is in shared
 * memory, so another worker goes on behind it:
 *
 *	- The newest record in the ring has a ticket and an index.  If that ticket
 *	  is still the oldest in the queue, its batch is in the ring up to that
 *	  index, and goes on behind it.
 *	- The newest position is in that record too.
 *	- What was sent is known by notify_offset; what is held back, by
 *	  held_offset (throttle.c).
 *
 * The same is done after an error: the turn is given up, and the next one
 * starts as a new worker would.
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

#include "brief.h"
#include "ectowatch.h"
#include "message.h"
#include "notify.h"
#include "positions.h"
#include "slot.h"
#include "spill.h"
#include "watcher.h"
#include "worker.h"

/* How much is taken off the queue before notifications get their turn. */
#define TAKE_MAX_BYTES		(1024 * 1024)

/* A piece of a long batch, after which others get a look in. */
#define PIECE_BYTES			(256 * 1024)

/* How long batches gather while there is more than one at a time. */
#define NAP_MS				1

/* After an error. */
#define RETRY_MS			1000

#define add_u64(counter, n) \
	pg_atomic_write_u64(counter, pg_atomic_read_u64(counter) + (n))

typedef struct Worker
{
	Slot	   *slot;
	Queue	   *queue;
	Ring	   *ring;
	SlotProgress *progress;
	RingWriter	writer;
	BriefReader reader;			/* of the batch in hand */
	TimestampTz now;			/* when the batch in hand was taken */
	uint64		next_position;
	bool		resuming;		/* the oldest batch may be in the ring */
	TimestampTz notify_at;		/* not before that */
	int			taken;			/* batches, in this turn */
	bool		failed;			/* the last turn was given up */
} Worker;

/* --- the ring --- */

static void
worker_evicted(const RingRecord *record, uint64 offset, void *arg)
{
	Slot	   *slot = arg;
	SlotWatcher *watcher = slot_watcher(slot, record->watcher);

	if (pg_atomic_read_u32(&watcher->id) == record->watcher)
	{
		add_u64(&watcher->evicted, record->span);
		pg_atomic_write_u64(&watcher->evicted_position, record->position);
	}
	notify_evicted(slot, record, offset);
}

/* Where a new worker, or a new turn after an error, finds its place. */
static void
worker_resume(Worker *worker)
{
	RingRecord	newest;

	ring_writer_start(&worker->writer, worker->ring, worker_evicted, worker->slot);
	worker->next_position = pg_atomic_read_u64(&worker->progress->run_start);
	if (ring_newest(worker->ring, &newest))
		worker->next_position = Max(worker->next_position, newest.position + 1);
	worker->resuming = true;
}

/*
 * The entry of a change's watcher, which is taken over from a former one.
 * The name counts too: a restored dump can bring ids that others have had.
 */
static SlotWatcher *
worker_entry(Worker *worker, const Change *change)
{
	SlotWatcher *entry = slot_watcher(worker->slot, change->watcher);

	/* what all channels share has the name of none */
	if (change->watcher == SLOT_CHANNELS)
	{
		slot_use_channels(worker->slot);
		if (change->name_len > 0)
		{
			char		channel[NAMEDATALEN];

			change_copy_name(change, channel);
			add_u64(&slot_channel_class(worker->slot, channel)->appended, 1);
		}
		return entry;
	}
	if (pg_atomic_read_u32(&entry->id) != change->watcher ||
		memcmp(entry->name, change_name(change), change->name_len) != 0 ||
		entry->name[change->name_len] != '\0')
	{
		pg_atomic_write_u32(&entry->id, 0);
		pg_write_barrier();
		memset(entry, 0, sizeof(*entry));
		memcpy(entry->name, change_name(change), change->name_len);
		pg_write_barrier();
		pg_atomic_write_u32(&entry->id, change->watcher);
	}
	return entry;
}

/*
 * Lets readers see what was appended; newest_position is never behind what
 * they see.
 */
static void
worker_show(Worker *worker)
{
	if (worker->next_position > 0)
		pg_atomic_write_u64(&worker->progress->newest_position,
							worker->next_position - 1);
	ring_publish(&worker->writer);
}

/*
 * Puts a change into the ring under the next position, or the next 'span' of
 * them.  They have been reserved.
 */
static void
worker_append(Worker *worker, const Change *change, const Batch *batch,
			  uint32 index, uint32 span)
{
	SlotWatcher *entry = worker_entry(worker, change);
	RingRecord	record;

	memset(&record, 0, sizeof(record));
	record.len = change->size;
	record.watcher = change->watcher;
	record.position = worker->next_position + span - 1;
	record.span = span;
	record.index = index;
	if (batch != NULL)
	{
		record.ticket = batch->ticket;
		record.xid = batch->xid;
		record.horizon = batch->xid + 1;
		record.committed_at = batch->committed_at;
		record.of = batch->nchanges;
	}
	else
	{
		record.horizon = U64FromFullTransactionId(ReadNextFullTransactionId());
		record.committed_at = worker->now;
	}
	ring_append(&worker->writer, &record, change);
	worker->next_position += span;

	/* what a backend made a gap of was not wanted */
	if (change->type == CHANGE_GAP && change->count == 0)
		add_u64(&entry->lost, span);
	else if (change->type != CHANGE_GAP)
	{
		add_u64(&entry->changes, 1);
		add_u64(&worker->progress->changes, 1);
	}
	entry->delivery = change->delivery;
	pg_atomic_write_u64(&entry->last_position, record.position);
	pg_atomic_write_u64(&entry->last_at, (uint64) record.committed_at);

	/* before ring_append() would do it, which knows nothing of the newest */
	if (worker->writer.tail - ring_head_offset(worker->ring) >
		(uint64) ectowatch_ring_size * 1024 / 8)
		worker_show(worker);
}

/* Lets readers see what was appended, and everybody else have a turn. */
static void
worker_publish(Worker *worker)
{
	worker_show(worker);
	pg_atomic_write_u64(&worker->progress->last_at,
						(uint64) worker->now);
	ConditionVariableBroadcast(slot_changed(worker->slot));
	CHECK_FOR_INTERRUPTS();
}

/* Sends, and notes when that is to be done next. */
static void
worker_notify(Worker *worker)
{
	long		pause;

	(void) notify_send(worker->slot, &pause);
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
worker_keep_listeners_up(Worker *worker)
{
	uint64		limit = (uint64) ectowatch_ring_size * 1024 / 4;
	pg_atomic_uint32 *blocked = &worker->progress->notify_blocked;

	while (ring_head_offset(worker->ring) -
		   pg_atomic_read_u64(&worker->progress->notify_offset) > limit)
	{
		if (pg_atomic_read_u32(blocked) == 0 || worker_notify_is_due(worker))
		{
			worker_publish(worker);
			worker_notify(worker);
		}
		if (pg_atomic_read_u32(blocked) != 0)
			break;
		CHECK_FOR_INTERRUPTS();
	}
}

/* --- gaps --- */

/*
 * Puts a gap of one watcher into the ring; 0 changes are an unknown number.
 * 'batch' is the one that it stands for the rest of, or NULL.
 */
static void
worker_append_gap(Worker *worker, const WatcherDef *def, const Batch *batch,
				  uint64 changes, const char *reason)
{
	StringInfoData values;
	ChangeParts parts = {0};
	uint32		span;

	initStringInfo(&values);
	span = (uint32) Max(Min(changes, PG_INT32_MAX), 1);
	message_gap_values(&values, worker->next_position,
					   worker->next_position + span - 1, changes, reason);
	parts.watcher = def->id;
	parts.relation = def->relation;
	parts.type = CHANGE_GAP;
	parts.delivery = def->delivery;
	parts.flags = watcher_flags(def);
	parts.name = def->name;
	parts.relation_name = def->relation_name;
	parts.values = values.data;
	parts.values_len = values.len;
	parts.keys_len = 1;
	worker_append(worker, change_make(&parts), batch,
				  batch ? batch->nchanges - 1 : 0, span);
}

/* All watchers, in a transaction of its own. */
static List *
worker_watchers(void)
{
	MemoryContext context = CurrentMemoryContext;
	List	   *watchers;
	ListCell   *lc;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	MemoryContextSwitchTo(context);
	watchers = watcher_list(InvalidOid);
	foreach(lc, watchers)
	{
		WatcherDef *def = lfirst(lc);

		def->relation_name = watcher_relation_name(def->relation);
	}
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	return watchers;
}

/* The watcher to which an entry of the slot belongs. */
static WatcherDef *
find_by_entry(Worker *worker, List *watchers, uint32 entry)
{
	ListCell   *lc;

	/* a channel of ectowatch_notify(), which has no crash gap either; or all */
	if (entry >= SLOT_MAX_WATCHERS)
	{
		WatcherDef *def = palloc0(sizeof(WatcherDef));

		pg_read_barrier();
		def->id = SLOT_CHANNELS;
		def->name = pstrdup(slot_entry(worker->slot, entry)->name);
		def->run = slot_run();
		return def;
	}

	foreach(lc, watchers)
	{
		if (((WatcherDef *) lfirst(lc))->id % SLOT_MAX_WATCHERS == entry)
			return lfirst(lc);
	}
	return NULL;
}

/*
 * Makes gaps of what backends could not hand over.  A watcher that is no
 * longer there has nobody to tell it to.
 */
static void
worker_append_lost(Worker *worker)
{
	List	   *watchers = worker_watchers();
	uint32		entry;
	uint64		lost;

	while ((lost = slot_next_lost(worker->slot, &entry)) > 0)
	{
		WatcherDef *def = find_by_entry(worker, watchers, entry);

		/* it may be younger than the list */
		if (def == NULL)
		{
			watchers = worker_watchers();
			def = find_by_entry(worker, watchers, entry);
		}
		if (def != NULL)
		{
			/* if the extension was dropped, there is nobody to tell */
			if (positions_reserve(worker->slot, &worker->next_position, lost))
			{
				worker->now = GetCurrentTimestamp();
				worker_append_gap(worker, def, NULL, lost, "queue_full");
				worker_show(worker);
			}
		}

		/* no interrupts since it was shown: it is told once */
		slot_clear_lost(worker->slot, entry, lost);
		add_u64(&worker->progress->lost, lost);
	}
	worker_publish(worker);
}

/*
 * The rest of a batch could not be read from its file.  Which watchers it had
 * changes of is not known, so all get a gap, and channels one for all of them.  No interrupts once positions are
 * reserved: to a later worker the first gap says that the batch is done.
 */
static void
worker_append_unread(Worker *worker, const Batch *batch, uint64 changes)
{
	List	   *watchers = worker_watchers();
	ListCell   *lc;

	if (slot_uses_channels(worker->slot))
		watchers = lappend(watchers,
						   find_by_entry(worker, NIL, SLOT_ENTRIES - 1));
	if (!positions_reserve(worker->slot, &worker->next_position,
						   list_length(watchers)))
		return;
	add_u64(&worker->progress->lost, changes);
	foreach(lc, watchers)
		worker_append_gap(worker, lfirst(lc), batch, 0, "queue_full");
}

/*
 * Puts a change of a batch into the ring.  A gap that its backend made gets
 * the positions that only we know.
 */
static void
worker_append_next(Worker *worker, const Change *change, const Batch *batch,
				   uint32 index)
{
	StringInfoData values;
	ChangeParts parts = {0};

	if (change->type != CHANGE_GAP)
	{
		worker_append(worker, change, batch, index, 1);
		return;
	}
	initStringInfo(&values);
	message_gap_values(&values, worker->next_position, worker->next_position,
					   change->count, "muted");
	parts.watcher = change->watcher;
	parts.relation = change->relation;
	parts.type = CHANGE_GAP;
	parts.delivery = change->delivery;
	parts.flags = change->flags;
	parts.name = pnstrdup(change_name(change), change->name_len);
	parts.relation_name = pnstrdup(change_relation(change), change->relation_len);
	parts.values = values.data;
	parts.values_len = values.len;
	parts.keys_len = 1;
	parts.count = change->count;
	worker_append(worker, change_make(&parts), batch, index, 1);
}

/* --- the queue --- */

/*
 * How many changes of the oldest batch are in the ring already.
 */
static uint32
worker_done_of(Worker *worker, const Batch *batch)
{
	RingRecord	newest;

	if (!worker->resuming)
		return 0;
	worker->resuming = false;
	if (!ring_newest(worker->ring, &newest) || newest.ticket != batch->ticket)
		return 0;
	return newest.index + 1;
}

static void
worker_append_inline(Worker *worker, const Batch *batch, uint32 done)
{
	const char *data = queue_data(worker->queue);
	uint64		at = 0;
	uint64		piece = 0;

	for (uint32 i = 0; i < batch->nchanges; i++)
	{
		const Change *change = brief_next(&worker->reader, data + at);

		if (i >= done)
			worker_append_next(worker, change, batch, i);
		at += brief_size(data + at);
		if (at - piece > PIECE_BYTES)
		{
			worker_publish(worker);
			worker_keep_listeners_up(worker);
			piece = at;
		}
	}
}

/*
 * The same from a spill file.  Returns how many changes of it have been read.
 */
static uint32
worker_append_file(Worker *worker, const Batch *batch, uint32 done, File file)
{
	Size		room = PIECE_BYTES + change_max_size();
	char	   *piece = palloc(room);
	uint64		read = 0;		/* of the file */
	Size		have = 0;		/* in piece[] */
	uint32		i = 0;

	while (i < batch->nchanges)
	{
		Size		want = Min(room - have, batch->len - read);
		Size		at = 0;

		if (want == 0 || !spill_read(file, read, piece + have, want))
			break;
		read += want;
		have += want;

		while (have - at >= sizeof(uint32) &&
			   have - at >= brief_size(piece + at))
		{
			const Change *change = brief_next(&worker->reader, piece + at);

			if (i++ >= done)
				worker_append_next(worker, change, batch, i - 1);
			at += brief_size(piece + at);
		}
		memmove(piece, piece + at, have - at);
		have -= at;
		worker_publish(worker);
		worker_keep_listeners_up(worker);
	}
	pfree(piece);
	return i;
}

static void
worker_append_spilled(Worker *worker, const Batch *batch, uint32 done)
{
	File		file;
	volatile uint32 read = 0;

	if (done == batch->nchanges)
		return;
	file = spill_open(batch->spill_id);
	if (file >= 0)
	{
		PG_TRY();
		{
			read = worker_append_file(worker, batch, done, file);
		}
		PG_CATCH();
		{
			FileClose(file);
			PG_RE_THROW();
		}
		PG_END_TRY();
		FileClose(file);
	}
	if (read < batch->nchanges)
	{
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not read %u changes that a transaction had put into a temporary file: %m",
						batch->nchanges - read)));
		worker_append_unread(worker, batch, batch->nchanges - read);
	}
}

static void
worker_append_batch(Worker *worker, const Batch *batch)
{
	uint32		done = worker_done_of(worker, batch);

	brief_reader_cut(&worker->reader, 0);
	/*
	 * Its transaction saw the extension.  If it is not there, it was dropped
	 * since, with all watchers: there is nobody to tell.
	 */
	if (!positions_reserve(worker->slot, &worker->next_position,
						   Max(batch->nchanges - done, 1)))
		ereport(LOG,
				(errmsg("ectowatch drops %u changes, because the extension was dropped",
						batch->nchanges - done)));
	else if (batch->spill_id != 0)
		worker_append_spilled(worker, batch, done);
	else
		worker_append_inline(worker, batch, done);

	/* no interrupts from here until it is off the queue */
	worker_show(worker);
	WAIT_POINT("appended");
	if (batch->spill_id != 0)
	{
		spill_remove(batch->spill_id);
		add_u64(&worker->progress->spilled, 1);
	}
	queue_advance(worker->queue);
	add_u64(&worker->progress->batches, 1);
	worker->taken++;
}

/*
 * Takes batches off the queue until it is empty, the oldest is undecided, or
 * notifications are due.  Returns whether there is more to take.
 */
static bool
worker_take(Worker *worker)
{
	uint64		bytes = 0;
	bool		aborted = false;
	bool		more = true;

	while (bytes < TAKE_MAX_BYTES)
	{
		Batch		batch;
		BatchState	state = queue_peek(worker->queue, &batch);

		worker->now = GetCurrentTimestamp();

		if (state == BATCH_COMMITTED)
		{
			bytes += batch.len;
			worker_append_batch(worker, &batch);
			worker_keep_listeners_up(worker);
		}
		else if (state == BATCH_ABORTED)
		{
			queue_advance(worker->queue);
			add_u64(&worker->progress->aborted, 1);
			aborted = true;
		}
		else
		{
			more = false;
			break;
		}
	}
	if (bytes > 0)
		worker_publish(worker);
	else if (aborted)
		/* someone may wait for the queue to get this far (wait_for.c) */
		ConditionVariableBroadcast(slot_changed(worker->slot));

	/* later than the commits that it is about: who asks anew sees them */
	if (slot_has_lost(worker->slot))
		worker_append_lost(worker);
	return more;
}

/* --- the process --- */

/* Whether something has been handed over that could be taken. */
static bool
worker_has_input(Worker *worker)
{
	Batch		batch;
	BatchState	state = queue_peek(worker->queue, &batch);

	return state == BATCH_COMMITTED || state == BATCH_ABORTED ||
		slot_has_lost(worker->slot);
}

/*
 * Does what there is to do.  Returns how long to sleep afterwards: 0 not at
 * all, -1 until woken.
 */
static long
worker_turn(Worker *worker)
{
	bool		more;
	long		wait = -1;

	worker->taken = 0;

	/* who asks for a position need not wait for the first change */
	(void) positions_reserve(worker->slot, &worker->next_position, 1);

	more = worker_take(worker);
	if (notify_has_work(worker->slot))
	{
		if (worker_notify_is_due(worker))
			worker_notify(worker);
		if (notify_has_work(worker->slot))
			wait = TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
												   worker->notify_at);
	}
	if (wait < 0)
		wait = notify_wait();
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
		worker_resume(worker);
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
	queue_set_sleeping(worker->queue, true);

	/* after a failure there is a wait whatever comes */
	if (worker->failed)
		(void) WaitLatch(MyLatch, WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 wait, PG_WAIT_EXTENSION);
	else if (!worker_has_input(worker))
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_EXIT_ON_PM_DEATH |
						 (wait >= 0 ? WL_TIMEOUT : 0),
						 wait, PG_WAIT_EXTENSION);
	queue_set_sleeping(worker->queue, false);
	ResetLatch(MyLatch);
}

/* Lets batches gather: no commit has to wake us. */
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

	slot_set_working(worker.slot);
	worker_override_settings();
	worker.queue = slot_queue(worker.slot);
	worker.ring = slot_ring(worker.slot);
	worker.progress = slot_progress(worker.slot);
	worker_resume(&worker);
	brief_reader_init(&worker.reader);
	notify_start(worker.slot);
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
		if (!worker.failed && worker.taken > 1)
			worker_nap();
		else
			worker_sleep(&worker, wait);
	}
}
