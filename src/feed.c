/*-------------------------------------------------------------------------
 *
 * feed.c
 *	  From the queue to the ring.
 *
 * Takes decided batches off the queue in the order of tickets, gives each
 * change a position, and puts it into the ring, whole.  Aborted batches are
 * only freed.  What was lost for want of room is put into the ring as gaps.
 *
 * What is done is in shared memory, so a feed that starts anew, in another
 * worker or after an error, goes on behind it:
 *
 *	- The newest record in the ring has a ticket and an index.  If that ticket
 *	  is still the oldest in the queue, its batch is in the ring up to that
 *	  index, and goes on behind it.
 *	- The newest position is in that record too.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/condition_variable.h"
#include "utils/timestamp.h"

#include "account.h"
#include "ectowatch.h"
#include "feed.h"
#include "message.h"
#include "notify.h"
#include "positions.h"
#include "spill.h"
#include "watcher.h"

/* How much is taken off the queue before notifications get their turn. */
#define TAKE_MAX_BYTES		(1024 * 1024)

/* A piece of a long batch, after which others get a look in. */
#define PIECE_BYTES			(256 * 1024)

#define add_u64(counter, n) \
	pg_atomic_write_u64(counter, pg_atomic_read_u64(counter) + (n))

/* --- the ring --- */

static void
feed_evicted(const RingRecord *record, uint64 offset, void *arg)
{
	Slot	   *slot = arg;
	Account    *watcher = account_of(slot, record->watcher);

	if (pg_atomic_read_u32(&watcher->id) == record->watcher)
	{
		add_u64(&watcher->evicted, record->span);
		pg_atomic_write_u64(&watcher->evicted_position, record->position);
	}
	notify_evicted(slot, record, offset);
}

/* Where a new feed, or a new turn after an error, finds its place. */
void
feed_resume(Feed *feed)
{
	RingRecord	newest;

	ring_writer_start(&feed->writer, feed->ring, feed_evicted, feed->slot);
	feed->next_position = pg_atomic_read_u64(&feed->progress->run_start);
	if (ring_newest(feed->ring, &newest))
		feed->next_position = Max(feed->next_position, newest.position + 1);
	feed->resuming = true;
}

void
feed_start(Feed *feed, Slot *slot, void (*between) (void *), void *arg)
{
	memset(feed, 0, sizeof(*feed));
	feed->slot = slot;
	feed->queue = slot_queue(slot);
	feed->ring = slot_ring(slot);
	feed->progress = slot_progress(slot);
	feed->between = between;
	feed->between_arg = arg;
	brief_reader_init(&feed->reader);
	feed_resume(feed);
}

/*
 * The entry of a change's watcher, which is taken over from a former one.
 * The name counts too: a restored dump can bring ids that others have had.
 */
static Account *
feed_entry(Feed *feed, const Change *change)
{
	Account    *entry = account_of(feed->slot, change->watcher);

	/* what all channels share has the name of none */
	if (change->watcher == SLOT_CHANNELS)
	{
		account_use_channels(feed->slot);
		if (change->name_len > 0)
		{
			char		channel[NAMEDATALEN];

			change_copy_name(change, channel);
			add_u64(&account_class_of(feed->slot, channel)->appended, 1);
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
feed_show(Feed *feed)
{
	if (feed->next_position > 0)
		pg_atomic_write_u64(&feed->progress->newest_position,
							feed->next_position - 1);
	ring_publish(&feed->writer);
}

/*
 * Puts a change into the ring under the next position, or the next 'span' of
 * them.  They have been reserved.
 */
static void
feed_append(Feed *feed, const Change *change, const Batch *batch,
			uint32 index, uint32 span)
{
	Account    *entry = feed_entry(feed, change);
	RingRecord	record;

	memset(&record, 0, sizeof(record));
	record.len = change->size;
	record.watcher = change->watcher;
	record.position = feed->next_position + span - 1;
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
		record.committed_at = feed->now;
	}
	ring_append(&feed->writer, &record, change);
	feed->next_position += span;

	/* what a backend made a gap of was not wanted */
	if (change->type == CHANGE_GAP && change->count == 0)
		add_u64(&entry->lost, span);
	else if (change->type != CHANGE_GAP)
	{
		add_u64(&entry->changes, 1);
		add_u64(&feed->progress->changes, 1);
	}
	entry->delivery = change->delivery;
	entry->flags = change->flags & (CHANGE_FRESH | CHANGE_DEBUG);
	pg_atomic_write_u64(&entry->last_position, record.position);
	pg_atomic_write_u64(&entry->last_at, (uint64) record.committed_at);

	/* before ring_append() would do it, which knows nothing of the newest */
	if (feed->writer.tail - ring_head_offset(feed->ring) >
		(uint64) ectowatch_ring_size * 1024 / 8)
		feed_show(feed);
}

void
feed_publish(Feed *feed)
{
	feed_show(feed);
	pg_atomic_write_u64(&feed->progress->last_at,
						(uint64) feed->now);
	ConditionVariableBroadcast(slot_changed(feed->slot));
	CHECK_FOR_INTERRUPTS();
}

/* --- gaps --- */

/*
 * Puts a gap of one watcher into the ring; 0 changes are an unknown number.
 * 'batch' is the one that it stands for the rest of, or NULL.
 */
static void
feed_append_gap(Feed *feed, const WatcherDef *def, const Batch *batch,
				uint64 changes, const char *reason)
{
	StringInfoData values;
	ChangeParts parts;
	uint32		span;

	initStringInfo(&values);
	span = (uint32) Max(Min(changes, PG_INT32_MAX), 1);
	message_gap_values(&values, feed->next_position,
					   feed->next_position + span - 1, changes, reason);
	watcher_change_parts(def, def->relation, def->relation_name, &parts);
	parts.type = CHANGE_GAP;
	parts.values = values.data;
	parts.values_len = values.len;
	parts.keys_len = 1;
	feed_append(feed, change_make(&parts), batch,
				batch ? batch->nchanges - 1 : 0, span);
}

/* All watchers, in a transaction of its own. */
static List *
feed_watchers(void)
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
find_by_entry(Feed *feed, List *watchers, uint32 entry)
{
	ListCell   *lc;

	/* a channel of ectowatch_notify(), which has no crash gap either; or all */
	if (entry >= SLOT_MAX_WATCHERS)
	{
		WatcherDef *def = palloc0(sizeof(WatcherDef));

		pg_read_barrier();
		def->id = SLOT_CHANNELS;
		def->name = pstrdup(account_at(feed->slot, entry)->name);
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
 * The same for one that is no longer there, whose listeners may be: as the
 * worker knows it, NULL if it has never had a change.
 */
static WatcherDef *
find_removed(Feed *feed, uint32 entry)
{
	Account    *account = account_at(feed->slot, entry);
	WatcherDef *def;

	if (pg_atomic_read_u32(&account->id) == 0)
		return NULL;
	def = palloc0(sizeof(WatcherDef));
	def->id = pg_atomic_read_u32(&account->id);
	def->name = pstrdup(account->name);
	def->delivery = account->delivery;
	def->debug = (account->flags & CHANGE_DEBUG) != 0;
	def->run = (account->flags & CHANGE_FRESH) ? slot_run() : ~slot_run();
	return def;
}

static bool
has_name(List *watchers, const char *name)
{
	ListCell   *lc;

	foreach(lc, watchers)
	{
		if (strcmp(((WatcherDef *) lfirst(lc))->name, name) == 0)
			return true;
	}
	return false;
}

/*
 * The watchers, with those before them that have had changes and are no longer
 * there.  Of each name one: it is by name that they are listened to.
 */
static List *
add_removed(Feed *feed, List *watchers)
{
	List	   *removed = NIL;

	for (uint32 entry = 0; entry < SLOT_MAX_WATCHERS; entry++)
	{
		WatcherDef *def = find_removed(feed, entry);

		if (def != NULL && !has_name(watchers, def->name) &&
			!has_name(removed, def->name))
			removed = lappend(removed, def);
	}
	return list_concat(removed, watchers);
}

/*
 * Makes gaps of what backends could not hand over.  Goes through the watchers
 * once: while more is lost, the queue is to be emptied in between.
 */
static void
feed_append_lost(Feed *feed)
{
	uint64		added = account_lost_added(feed->slot);
	List	   *watchers = feed_watchers();
	uint64		lost;

	for (uint32 entry = 0;
		 (lost = account_next_lost(feed->slot, &entry)) > 0;
		 entry++)
	{
		WatcherDef *def = find_by_entry(feed, watchers, entry);

		/* it may be younger than the list */
		if (def == NULL)
		{
			watchers = feed_watchers();
			def = find_by_entry(feed, watchers, entry);
		}
		if (def == NULL)
			def = find_removed(feed, entry);

		/* if the extension was dropped, there is nobody to tell */
		if (def != NULL &&
			positions_reserve(feed->slot, &feed->next_position, lost))
		{
			feed->now = GetCurrentTimestamp();
			feed_append_gap(feed, def, NULL, lost, "queue_full");
			feed_show(feed);
		}

		/* no interrupts since it was shown: it is told once */
		account_clear_lost(feed->slot, entry, lost);
		add_u64(&feed->progress->lost, lost);
		WAIT_POINT("lost");
		CHECK_FOR_INTERRUPTS();
	}
	account_set_lost_told(feed->slot, added);
	feed_publish(feed);
}

/*
 * The rest of a batch could not be read from its file.  Which watchers it had
 * changes of is not known, so all get a gap, removed ones too, and channels one
 * for all of them.  No interrupts once positions are reserved: to a later worker
 * the first gap says that the batch is done.
 */
static void
feed_append_unread(Feed *feed, const Batch *batch, uint64 changes)
{
	List	   *watchers = add_removed(feed, feed_watchers());
	ListCell   *lc;

	if (account_uses_channels(feed->slot))
		watchers = lappend(watchers,
						   find_by_entry(feed, NIL, SLOT_ENTRIES - 1));
	if (!positions_reserve(feed->slot, &feed->next_position,
						   list_length(watchers)))
		return;
	add_u64(&feed->progress->lost, changes);
	foreach(lc, watchers)
		feed_append_gap(feed, lfirst(lc), batch, 0, "queue_full");
}

/*
 * Puts a change of a batch into the ring.  A gap that its backend made gets
 * the positions that only we know.
 */
static void
feed_append_next(Feed *feed, const Change *change, const Batch *batch,
				   uint32 index)
{
	StringInfoData values;
	ChangeParts parts = {0};

	if (change->type != CHANGE_GAP)
	{
		feed_append(feed, change, batch, index, 1);
		return;
	}
	initStringInfo(&values);
	message_gap_values(&values, feed->next_position, feed->next_position,
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
	feed_append(feed, change_make(&parts), batch, index, 1);
}

/* --- the queue --- */

/*
 * How many changes of the oldest batch are in the ring already.
 */
static uint32
feed_done_of(Feed *feed, const Batch *batch)
{
	RingRecord	newest;

	if (!feed->resuming)
		return 0;
	feed->resuming = false;
	if (!ring_newest(feed->ring, &newest) || newest.ticket != batch->ticket)
		return 0;
	return newest.index + 1;
}

/*
 * Puts the changes of a batch into the ring but for those that are there.
 * Returns how many of them have been read.  No interrupts between an append and
 * the next feed_show(): what is counted is shown, and not appended again.
 */
static uint32
feed_append_places(Feed *feed, const Batch *batch, uint32 done,
				   BriefPlaces *places)
{
	const void *place;
	uint32		i = 0;
	Size		piece = 0;

	while (i < batch->nchanges && (place = brief_next_place(places)) != NULL)
	{
		const Change *change = brief_next(&feed->reader, place);

		piece += brief_size(place);
		if (i >= done)
			feed_append_next(feed, change, batch, i);
		i++;
		if (piece > PIECE_BYTES)
		{
			feed_publish(feed);
			feed->between(feed->between_arg);
			piece = 0;
		}
	}
	return i;
}

static void
feed_append_inline(Feed *feed, const Batch *batch, uint32 done)
{
	BriefPlaces places;
	uint32		read PG_USED_FOR_ASSERTS_ONLY;

	brief_places_in_memory(&places, queue_data(feed->queue), batch->len);
	read = feed_append_places(feed, batch, done, &places);
	Assert(read == batch->nchanges);
}

static void
feed_append_spilled(Feed *feed, const Batch *batch, uint32 done)
{
	BriefPlaces places;
	File		file;
	volatile uint32 read = 0;

	if (done == batch->nchanges)
		return;
	file = spill_open(batch->spill_id);
	if (file >= 0)
	{
		PG_TRY();
		{
			brief_places_in_file(&places, file, batch->len);
			read = feed_append_places(feed, batch, done, &places);
			feed_show(feed);	/* reporting takes interrupts */
			pfree(places.piece);
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
		uint32		unread = batch->nchanges - Max(read, done);

		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not read %u changes that a transaction had put into a temporary file: %m",
						unread)));
		feed_append_unread(feed, batch, unread);
	}
}

static void
feed_append_batch(Feed *feed, const Batch *batch)
{
	uint32		done = feed_done_of(feed, batch);

	brief_reader_cut(&feed->reader, 0);

	/*
	 * Its transaction saw the extension.  If it is not there, it was dropped
	 * since, with all watchers: there is nobody to tell.
	 */
	if (!positions_reserve(feed->slot, &feed->next_position,
						   Max(batch->nchanges - done, 1)))
		ereport(LOG,
				(errmsg("ectowatch drops %u changes, because the extension was dropped",
						batch->nchanges - done)));
	else if (batch->spill_id != 0)
		feed_append_spilled(feed, batch, done);
	else
		feed_append_inline(feed, batch, done);

	/* no interrupts from here until it is off the queue */
	feed_show(feed);
	WAIT_POINT("appended");
	if (batch->spill_id != 0)
	{
		spill_remove(batch->spill_id);
		add_u64(&feed->progress->spilled, 1);
	}
	queue_advance(feed->queue);
	add_u64(&feed->progress->batches, 1);
	feed->taken++;
}

bool
feed_take(Feed *feed)
{
	uint64		bytes = 0;
	bool		aborted = false;
	bool		more = true;

	while (bytes < TAKE_MAX_BYTES)
	{
		Batch		batch;
		BatchState	state = queue_peek(feed->queue, &batch);

		feed->now = GetCurrentTimestamp();

		if (state == BATCH_COMMITTED)
		{
			bytes += batch.len;
			feed_append_batch(feed, &batch);
			feed->between(feed->between_arg);
		}
		else if (state == BATCH_ABORTED)
		{
			queue_advance(feed->queue);
			add_u64(&feed->progress->aborted, 1);
			aborted = true;
		}
		else
		{
			more = false;
			break;
		}
	}
	if (bytes > 0)
		feed_publish(feed);
	else if (aborted)
		/* someone may wait for the queue to get this far (wait_for.c) */
		ConditionVariableBroadcast(slot_changed(feed->slot));

	/* later than the commits that it is about: who asks anew sees them */
	if (account_has_lost(feed->slot))
		feed_append_lost(feed);
	return more;
}

bool
feed_has_input(Feed *feed)
{
	Batch		batch;
	BatchState	state = queue_peek(feed->queue, &batch);

	return state == BATCH_COMMITTED || state == BATCH_ABORTED ||
		account_has_lost(feed->slot);
}
