/*-------------------------------------------------------------------------
 *
 * notify.c
 *	  From the ring to channels.
 *
 * The worker reads the ring as any reader does, from a cursor of its own,
 * which is kept in the slot and moved on when what it has passed is on the
 * board: so a new worker goes on where the last one stopped.
 *
 * On its way to channels, a change passes
 *
 *		delivery	none: it is for readers of the ring only;
 *		throttle.c	which may hold it back for a while, one by channel and key;
 *		outbox.c	which gives it the form of its delivery, and sends it.
 *
 * The message goes to the channel of the watcher, and then to its narrowed
 * channels.  Throttling is for changes of rows whose key is known and stayed
 * the same.  Nothing else may overtake what is held back of the watcher, or be
 * overtaken: before a gap, an end, a truncate, a bulk, a change of a key, or
 * of a watcher that no longer throttles, all that is held back of it is sent.
 *
 * Those who listen are woken for what is theirs and read it from the board
 * (deliver.c).  Where many are, the next waking comes a little later, so that more
 * comes with it.  One who does not read costs disk for a while (board.c).  Only if
 * that becomes too much, nothing is sent to anybody until he reads, or ends;
 * the ring goes on meanwhile.  If it overtakes the cursor, what was dropped is
 * counted by watcher, and each gets a gap on its channels, as soon as sending is
 * possible again.
 *
 * After a restart of the server what had not been delivered is gone.  The
 * first message of each watcher that had been there before is a gap that says
 * so.  It is for channels only; a reader of the ring learns it by position.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "account.h"
#include "change.h"
#include "message.h"
#include "narrow.h"
#include "notify.h"
#include "outbox.h"
#include "subscription.h"
#include "throttle.h"

/* How many records are looked at for one outbox, sent or not. */
#define NOTIFY_MAX_RECORDS		16384

/* How long to wait while the board takes no more. */
#define NOTIFY_BLOCKED_PAUSE_MS	250

/* How often to wait a millisecond for those who read slowly. */
#define NOTIFY_MAX_WAITS		10

/*
 * What waking a session costs it and the worker is some 10 us, so this leaves
 * that a fifth of a processor.
 */
#define NOTIFY_PAUSE_PER_WOKEN_US	50

/* How often to look whether files are still needed. */
#define NOTIFY_FILE_PAUSE_MS	10000

#define add_u64(counter, n) \
	pg_atomic_write_u64(counter, pg_atomic_read_u64(counter) + (n))

/* The record in hand, on its way to channels. */
typedef struct Delivery
{
	Slot	   *slot;
	uint64		attempt;		/* tells one from another that failed */
	bool		restoring;		/* nothing is sent, but held back again */
	List	   *crash_told;		/* Accounts whose gap is in the outbox */
	List	   *classes_told;	/* ChannelClasses whose gap is there */
	MemoryContext scratch;		/* of one record; NULL: not needed yet */
	StringInfoData out;

	RingRecord	record;
	uint64		offset;			/* of it in the ring */
	const Change *change;
	bool		throttled;
	Message		message;		/* of it, but for the channel */
} Delivery;

static char *payload;			/* room for any record's */

bool
notify_has_work(Slot *slot)
{
	return pg_atomic_read_u64(&slot_progress(slot)->notify_offset) <
		ring_head_offset(slot_ring(slot)) ||
		slot_progress(slot)->gaps ||
		throttle_wait() == 0;
}

long
notify_wait(Slot *slot)
{
	long		wait = throttle_wait();

	if (!outbox_keeps_file(slot))
		return wait;
	return wait < 0 ? NOTIFY_FILE_PAUSE_MS : Min(wait, NOTIFY_FILE_PAUSE_MS);
}

/* --- gaps --- */

/* Adds to what a watcher's listeners are to be told. */
static void
add_gap(Slot *slot, Account *watcher, uint64 from, uint64 to,
		uint64 changes)
{
	if (watcher->gap_changes == 0 || from < watcher->gap_from)
		watcher->gap_from = from;
	if (watcher->gap_changes == 0 || to > watcher->gap_to)
		watcher->gap_to = to;
	watcher->gap_changes += changes;
	add_u64(&watcher->skipped, changes);
	add_u64(&slot_progress(slot)->skipped, changes);
	slot_progress(slot)->gaps = true;
}

/*
 * Notes a gap to be told with the next message to each channel of the class, or
 * of all classes.  Doing so again, after a failure, tells it again at worst.
 */
static void
add_class_gap(Slot *slot, ChannelClass *class, const RingRecord *record)
{
	uint64		from = record->position - record->span + 1;

	for (uint32 i = 0; class == NULL && i < SLOT_CHANNEL_CLASSES; i++)
		add_class_gap(slot, account_class_at(slot, i), record);
	if (class == NULL)
		return;
	if (class->gap_to == 0 || from < class->gap_from)
		class->gap_from = from;
	class->gap_to = Max(class->gap_to, record->position);

	/* who has been told has been told of less */
	class->gap_told = 0;
	class->gap_attempted = 0;
}

/* The same for a change of a channel, or a gap of all. */
static void
channel_evicted(Slot *slot, const RingRecord *record, uint64 offset)
{
	union
	{
		Change		change;
		char		bytes[offsetof(Change, columns) + NAMEDATALEN];
	}			head;
	char		channel[NAMEDATALEN];
	ChannelClass *class = NULL;
	uint32		id = SLOT_CHANNELS;

	ring_peek(slot_ring(slot), offset, &head,
			  Min(sizeof(head), record->len));
	change_copy_name(&head.change, channel);
	if (channel[0] != '\0')
	{
		class = account_class_of(slot, channel);
		pg_atomic_write_u64(&class->evicted_position, record->position);
	}
	for (uint32 i = 0; class == NULL && i < SLOT_CHANNEL_CLASSES; i++)
		pg_atomic_write_u64(&account_class_at(slot, i)->evicted_position,
							record->position);

	if (offset < pg_atomic_read_u64(&slot_progress(slot)->notify_offset))
		return;
	if (class != NULL)
		id = account_hold_channel(slot, channel);
	if (id != SLOT_CHANNELS)
		add_gap(slot, account_of(slot, id),
				record->position - record->span + 1, record->position,
				record->span);
	else
	{
		add_class_gap(slot, class, record);
		add_u64(&slot_progress(slot)->skipped, record->span);
	}
	account_release_channel(slot, id);
}

void
notify_evicted(Slot *slot, const RingRecord *record, uint64 offset)
{
	Account    *watcher = account_of(slot, record->watcher);

	throttle_evicted(record, offset);
	if (record->watcher == SLOT_CHANNELS)
	{
		channel_evicted(slot, record, offset);
		return;
	}
	if (offset < pg_atomic_read_u64(&slot_progress(slot)->notify_offset))
		return;

	/* without channels there is nobody to miss it */
	if (watcher->delivery == DELIVERY_NONE)
		return;
	add_gap(slot, watcher, record->position - record->span + 1,
			record->position, record->span);
}

/* Puts a message on the channel of a watcher, and on all narrowed ones. */
static void
put_on_all(Slot *slot, Message *message)
{
	MemoryContext context;
	MemoryContext old;
	ListCell   *lc;

	message->own = true;
	outbox_put(message);
	if (!subscription_any_narrowed(slot, message->channel))
		return;
	message->own = false;
	outbox_open_transaction();	/* for digests */
	context = AllocSetContextCreate(outbox_context(), "ectowatch all narrowed channels",
									ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(context);
	foreach(lc, subscription_narrowed(slot, message->channel))
	{
		message->channel = lfirst(lc);
		outbox_put(message);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

static void
send_gap(Delivery *delivery, const char *channel, uint32 watcher,
		 ChangeDelivery mode, bool debug, uint64 from, uint64 to,
		 uint64 changes, const char *reason)
{
	StringInfo	out = &delivery->out;
	Message		message = {0};

	resetStringInfo(out);
	appendStringInfoString(out, "{\"type\":\"gap\",\"values\":");
	message_gap_values(out, from, to, changes, reason);
	appendStringInfo(out, ",\"position\":" UINT64_FORMAT "}", to);

	message.channel = channel;
	message.payload = out->data;
	message.len = out->len;
	message.watcher = watcher;
	message.position = to;
	message.type = CHANGE_GAP;
	message.delivery = mode;
	message.debug = debug;
	throttle_flush(watcher, to, outbox_put);
	put_on_all(delivery->slot, &message);
}

/* By the position that they get; for list_sort(). */
static int
skipped_compare(const ListCell *a, const ListCell *b)
{
	uint64		to_a = ((const Account *) lfirst(a))->gap_to;
	uint64		to_b = ((const Account *) lfirst(b))->gap_to;

	return to_a < to_b ? -1 : to_a > to_b;
}

/* Tells listeners what the ring dropped before it was sent to them. */
static void
send_skipped(Delivery *delivery)
{
	List	   *skipped = NIL;
	ListCell   *lc;

	for (uint32 i = 0; i < SLOT_ENTRIES; i++)
	{
		Account    *watcher = account_at(delivery->slot, i);

		if (watcher->gap_changes > 0)
			skipped = lappend(skipped, watcher);
	}
	list_sort(skipped, skipped_compare);
	foreach(lc, skipped)
	{
		Account    *watcher = lfirst(lc);

		send_gap(delivery, watcher->name, pg_atomic_read_u32(&watcher->id),
				 watcher->delivery, false, watcher->gap_from, watcher->gap_to,
				 watcher->gap_changes, "overtaken");
	}
}

static void
forget_skipped(Slot *slot)
{
	for (uint32 i = 0; i < SLOT_ENTRIES; i++)
		account_at(slot, i)->gap_changes = 0;
	slot_progress(slot)->gaps = false;
}

/* Before a watcher's first message: that a restart may have cost some. */
static void
send_crash_gap(Delivery *delivery, const char *channel)
{
	Account    *watcher = account_of(delivery->slot, delivery->record.watcher);
	const Change *change = delivery->change;

	if (watcher->gap_told || watcher->gap_attempt == delivery->attempt ||
		(change->flags & CHANGE_FRESH))
		return;
	watcher->gap_attempt = delivery->attempt;
	delivery->crash_told = lappend(delivery->crash_told, watcher);
	send_gap(delivery, channel, change->watcher, change->delivery,
			 (change->flags & CHANGE_DEBUG) != 0, 0,
			 pg_atomic_read_u64(&slot_progress(delivery->slot)->run_start) - 1,
			 0, "crash");
}

/* --- changes --- */

/* Whether it is about one row. */
static bool
is_row_change(const Change *change)
{
	return change->type == CHANGE_INSERTED ||
		change->type == CHANGE_UPDATED ||
		change->type == CHANGE_DELETED;
}

/*
 * Whether old values begin with those of the key, whose label is known, and
 * these are others.
 */
static bool
key_was_changed(const Change *change)
{
	const char *values = change_values(change);
	const char *old = change_old(change);
	uint32		len = 2;

	while (len < change->keys_len && values[len] != '"')
		len += values[len] == '\\' ? 2 : 1;
	len++;
	if (change->old_len <= len || change->keys_len <= len ||
		memcmp(old, values, len) != 0)
		return false;
	return change->old_len <= change->keys_len ||
		memcmp(old, values, change->keys_len) != 0 ||
		(old[change->keys_len] != ',' && old[change->keys_len] != '}');
}

/*
 * Whether it may be held back.  Where the key is not known, a newer change
 * would take the place of that of another row; where it has changed, nobody
 * would hear of the old one.
 */
static bool
is_throttled(const Change *change)
{
	return change->throttle > 0 && is_row_change(change) &&
		change->keys_len > 1 && !(change->flags & CHANGE_OLD_CUT) && !key_was_changed(change);
}

/* To one channel of a change. */
static void
deliver_to(Delivery *delivery, const char *channel, bool own)
{
	delivery->message.channel = channel;
	delivery->message.own = own;
	if (delivery->throttled)
	{
		const Change *change = delivery->change;
		ThrottleItem item;

		item.message = delivery->message;
		item.offset = delivery->offset;
		item.interval = change->throttle;
		item.key = change_values(change);
		item.key_len = change->keys_len;
		if (delivery->restoring)
			throttle_restore(&item);
		if (delivery->restoring || !throttle_admit(&item))
			return;
	}
	outbox_put(&delivery->message);
}

static void
collect_channel(const char *channel, void *arg)
{
	List	  **channels = arg;

	*channels = lappend(*channels, pstrdup(channel));
}

/* To the narrowed channels that somebody listens to. */
static void
deliver_narrowed(Delivery *delivery, const char *watcher)
{
	Slot	   *slot = delivery->slot;
	MemoryContext old;
	List	   *channels = NIL;
	ListCell   *lc;

	if (!subscription_any_narrowed(slot, watcher))
		return;
	outbox_open_transaction();	/* for digests */
	if (delivery->scratch == NULL)
		delivery->scratch = AllocSetContextCreate(outbox_context(),
												  "ectowatch narrowed channels",
												  ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(delivery->scratch);
	if (!narrow_change(delivery->change, subscription_any_hashed(slot, watcher),
					   collect_channel, &channels))
		channels = subscription_narrowed(slot, watcher);
	foreach(lc, channels)
	{
		if (subscription_exists(slot, lfirst(lc)))
			deliver_to(delivery, lfirst(lc), false);
	}
	MemoryContextSwitchTo(old);
	MemoryContextReset(delivery->scratch);
}

/*
 * What ectowatch_notify() was given: the payload as it is, if NOTIFY carries
 * it.  Before it a gap that could not be told by itself.
 */
static void
deliver_notify(Delivery *delivery)
{
	const Change *change = delivery->change;
	Message    *message = &delivery->message;
	char		channel[NAMEDATALEN];
	ChannelClass *class;
	uint64		bit;

	if (delivery->restoring)
		return;
	change_copy_name(change, channel);
	class = account_class_of(delivery->slot, channel);
	bit = account_class_bit(channel);
	if (class->gap_attempt != delivery->attempt)
		class->gap_attempted = 0;
	if (class->gap_to > 0 && !((class->gap_told | class->gap_attempted) & bit))
	{
		class->gap_attempt = delivery->attempt;
		class->gap_attempted |= bit;
		delivery->classes_told = lappend(delivery->classes_told, class);
		send_gap(delivery, channel, change->watcher, DELIVERY_EACH, false,
				 class->gap_from, class->gap_to, 0, "overtaken");
	}
	resetStringInfo(&delivery->out);
	if (change->count <= MESSAGE_MAX_LENGTH)
		appendBinaryStringInfo(&delivery->out, change_old(change), change->count);
	else
		message_for_channel(&delivery->out, change, delivery->record.position,
							delivery->record.of, MESSAGE_MAX_LENGTH);
	memset(message, 0, sizeof(*message));
	message->channel = channel;
	message->payload = delivery->out.data;
	message->len = delivery->out.len;
	message->watcher = change->watcher;
	message->position = delivery->record.position;
	message->type = CHANGE_NOTIFY;
	message->delivery = DELIVERY_EACH;
	message->own = true;
	outbox_put(message);
}

static void
deliver_change(Delivery *delivery)
{
	const Change *change = delivery->change;
	Message    *message = &delivery->message;
	char		channel[NAMEDATALEN];

	if (change->type == CHANGE_NOTIFY)
	{
		deliver_notify(delivery);
		return;
	}
	if (change->watcher == SLOT_CHANNELS && change->name_len == 0)
	{
		if (!delivery->restoring)
			add_class_gap(delivery->slot, NULL, &delivery->record);
		return;
	}
	if (change->delivery == DELIVERY_NONE)
		return;

	delivery->throttled = is_throttled(change);
	if (!delivery->throttled)
		throttle_flush(change->watcher, delivery->record.position,
					   delivery->restoring ? NULL : outbox_put);
	if (delivery->restoring && !delivery->throttled)
		return;

	memcpy(channel, change_name(change), change->name_len);
	channel[change->name_len] = '\0';
	if (!delivery->restoring)
		send_crash_gap(delivery, channel);

	/* if nobody but a bell needs the text, it is not made */
	resetStringInfo(&delivery->out);
	if (change->delivery != DELIVERY_DOORBELL ||
		change->type == CHANGE_GAP || change->type == CHANGE_ENDED)
		message_for_channel(&delivery->out, change, delivery->record.position,
							delivery->record.of,
							change->delivery == DELIVERY_PACKED ?
							OUTBOX_MAX_PACKED : MESSAGE_MAX_LENGTH);
	message->channel = channel;
	message->payload = delivery->out.data;
	message->len = delivery->out.len;
	message->watcher = change->watcher;
	message->position = delivery->record.position;
	message->type = change->type;
	message->delivery = change->delivery;
	message->debug = (change->flags & CHANGE_DEBUG) != 0;
	if (is_row_change(change))
	{
		if (!(change->flags & CHANGE_LEFT))
			deliver_to(delivery, channel, true);
		deliver_narrowed(delivery, channel);
	}
	else
		put_on_all(delivery->slot, message);
}

/* --- an attempt --- */

static void
delivery_begin(Delivery *delivery, Slot *slot)
{
	if (payload == NULL)
		payload = MemoryContextAlloc(TopMemoryContext,
									 ring_max_payload(slot_ring(slot)));
	outbox_begin(slot);
	throttle_begin(slot);
	MemoryContextSwitchTo(outbox_context());
	memset(delivery, 0, sizeof(*delivery));
	delivery->slot = slot;
	delivery->change = (const Change *) payload;
	initStringInfo(&delivery->out);
}

/* Takes the record at the cursor; false if there is none. */
static bool
delivery_take(Delivery *delivery, RingCursor *cursor)
{
	RingCursor	next = *cursor;
	RingRecord	record;

	if (ring_read(&next, &record, payload) != RING_RECORD)
		return false;
	delivery->offset = cursor->offset;
	delivery->record = record;
	*cursor = next;
	deliver_change(delivery);
	return true;
}

void
notify_start(Slot *slot)
{
	MemoryContext context = CurrentMemoryContext;
	SlotProgress *progress = slot_progress(slot);
	uint64		held_offset = pg_atomic_read_u64(&progress->held_offset);
	uint64		end = pg_atomic_read_u64(&progress->notify_offset);

	for (uint32 i = 0; i < SLOT_ENTRIES; i++)
	{
		Account    *watcher = account_at(slot, i);

		if (watcher->held_evicted > 0)
			add_gap(slot, watcher, watcher->held_from, watcher->held_to,
					watcher->held_evicted);
		watcher->held_evicted = 0;
		pg_atomic_write_u32(&watcher->held, 0);
	}
	if (held_offset > 0)
	{
		RingCursor	cursor = {slot_ring(slot), held_offset - 1};
		Delivery	delivery;

		delivery_begin(&delivery, slot);
		delivery.restoring = true;
		while (cursor.offset < end && delivery_take(&delivery, &cursor))
			CHECK_FOR_INTERRUPTS();
		(void) outbox_commit(); /* of nothing, but perhaps a transaction */
		MemoryContextSwitchTo(context);
		throttle_commit();
		for (uint32 i = 0; i < SLOT_ENTRIES; i++)
		{
			Account    *watcher = account_at(slot, i);
			uint64		from;
			uint64		to;
			uint64		changes;

			changes = throttle_refused(pg_atomic_read_u32(&watcher->id),
									   &from, &to);
			if (changes > 0)
				add_gap(slot, watcher, from, to, changes);
		}
	}
}

/* Notes that sending is not possible, and says so once. */
static void
note_blocked(Slot *slot)
{
	if (pg_atomic_exchange_u32(&slot_progress(slot)->notify_blocked, 1) == 0)
		ereport(LOG,
				(errmsg("ectowatch does not send notifications: what listening sessions have not read cannot be kept: %m"),
				 errhint("Find the session that does not read: unread_bytes in ectowatch_stat_subscriptions. Or increase ectowatch.backlog_size.")));
}

/* Puts together what is to be sent; where the cursor is then. */
static RingCursor
gather(Delivery *delivery)
{
	Ring	   *ring = slot_ring(delivery->slot);
	SlotProgress *progress = slot_progress(delivery->slot);
	RingCursor	cursor;
	const Message *due;

	/* out of the ring's reach, in this process only we write to it */
	cursor.ring = ring;
	cursor.offset = Max(pg_atomic_read_u64(&progress->notify_offset),
						ring_oldest_offset(ring));

	if (progress->gaps)
		send_skipped(delivery);
	while (!outbox_is_full() && (due = throttle_next_due()) != NULL)
		outbox_put(due);
	for (int i = 0; i < NOTIFY_MAX_RECORDS && !outbox_is_full(); i++)
	{
		if (!delivery_take(delivery, &cursor))
			break;
	}
	return cursor;
}

/*
 * It has been sent, or there was nothing to send.  Nothing here looks at
 * interrupts or throws before the cursor is moved: so nothing is sent twice.
 */
static void
note_done(Delivery *delivery, const RingCursor *cursor, bool sent)
{
	SlotProgress *progress = slot_progress(delivery->slot);
	ListCell   *lc;

	throttle_commit();
	if (progress->gaps)
		forget_skipped(delivery->slot);
	foreach(lc, delivery->crash_told)
		((Account *) lfirst(lc))->gap_told = true;
	foreach(lc, delivery->classes_told)
	{
		ChannelClass *class = lfirst(lc);

		class->gap_told |= class->gap_attempted;
		if (class->gap_told == PG_UINT64_MAX)
			class->gap_to = 0;
	}
	if (delivery->record.position > 0)
		pg_atomic_write_u64(&progress->notify_position,
							delivery->record.position);
	if (sent)
		outbox_count_sent();
	pg_atomic_write_u64(&progress->notify_offset, cursor->offset);

	if (pg_atomic_exchange_u32(&progress->notify_blocked, 0) != 0)
		ereport(LOG,
				(errmsg("ectowatch sends notifications again")));
	if (sent)
		outbox_log_sent();
}

bool
notify_send(Slot *slot, bool urgent, long *pause)
{
	static int	waits = 0;
	MemoryContext context = CurrentMemoryContext;
	Delivery	delivery;
	RingCursor	cursor;
	OutboxResult result;

	*pause = 0;
	if (!notify_has_work(slot))
		return false;

	delivery_begin(&delivery, slot);
	if (!urgent && waits < NOTIFY_MAX_WAITS && outbox_is_worth_waiting())
	{
		MemoryContextSwitchTo(context);
		waits++;
		*pause = 1;
		return true;
	}
	waits = 0;
	delivery.attempt = (uint64) GetCurrentTimestamp();
	cursor = gather(&delivery);
	result = outbox_commit();
	if (result == OUTBOX_FULL)
	{
		note_blocked(slot);
		MemoryContextSwitchTo(context);
		*pause = NOTIFY_BLOCKED_PAUSE_MS;
		return true;
	}
	MemoryContextSwitchTo(context);
	note_done(&delivery, &cursor, result == OUTBOX_SENT);
	if (result == OUTBOX_SENT)
		pg_atomic_write_u64(&slot_progress(slot)->notified_at,
							(uint64) GetCurrentTimestamp());
	*pause = (long) outbox_woken() * NOTIFY_PAUSE_PER_WOKEN_US / 1000;
	return notify_has_work(slot);
}
