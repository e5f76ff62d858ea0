/*-------------------------------------------------------------------------
 *
 * outbox.c
 *	  What the worker sends to channels at once.
 *
 * Messages come in the order of the ring.  What becomes of one is told by its
 * delivery:
 *
 *	each		it is sent as it is.
 *	packed		it is put behind the others of its channel, until one does not
 *				fit any more, and then these are sent in one message.  One that
 *				is alone is sent in the same form, and so are gaps and ends: a
 *				reader needs to know one form only.
 *	doorbell	its channel is marked as one to be rung, once, at the end.  Only
 *				gaps and ends are sent as they are, and what is to be rung before
 *				them is rung then.
 *
 * So what is kept here is packs and bells, by channel, in memory of this
 * attempt; of channels with delivery each nothing is known.  At the end
 * packs and bells go in the order of their positions.  Within a channel,
 * messages stay in the order in which they came, unless its delivery changes
 * midway: then what is kept of it goes first.
 *
 * What ectowatch_notify() was given is looked at once more before it is sent:
 * the channel may be a watcher's by now (taken.c).  That takes a transaction, as
 * do core's digests, by which long narrowed channels are named.  It has no xid,
 * and is there only if it is needed.
 *
 * Messages go to the board (board.c), unless nobody listens to their channel,
 * and those who may listen are told at the end (listener.c): no lock that others
 * could want, no xid, no WAL, and nobody else is woken.
 *
 * All of this is private to the worker, and of one attempt: whatever ends it,
 * a commit, an abort or an error, outbox_begin() starts anew.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "pgstat.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "account.h"
#include "board.h"
#include "ectowatch.h"
#include "listener.h"
#include "outbox.h"
#include "taken.h"

/*
 * What is sent at once.  While listeners take it, the next is put together, so
 * many are better than a few long ones.
 */
#define OUTBOX_MAX_MESSAGES		4096
#define OUTBOX_MAX_BYTES		(1024 * 1024)

StaticAssertDecl(MAXALIGN(offsetof(BoardMessage, text) + NAMEDATALEN +
						  MESSAGE_MAX_LENGTH + 1) <= BOARD_MAX_MESSAGE,
				 "a message must fit on the board");

/* What that may take on the board, with channels and headers. */
#define OUTBOX_ROOM				(2 * OUTBOX_MAX_BYTES)

#define PACK_HEAD	"{\"type\":\"packed\",\"changes\":["
#define PACK_TAIL	"],\"position\":" UINT64_FORMAT "}"

/* The head, the tail, and a position of 20 digits. */
StaticAssertDecl(sizeof(PACK_HEAD) + 14 + 20 + 1 <=
				 MESSAGE_MAX_LENGTH - OUTBOX_MAX_PACKED,
				 "a message that may be packed must fit into a pack");

#define add_u64(counter, n) \
	pg_atomic_write_u64(counter, pg_atomic_read_u64(counter) + (n))

/* What is kept of a channel. */
typedef struct Channel
{
	char		name[NAMEDATALEN];	/* hash key */
	Message		newest;			/* of what is kept; its position the highest */
	bool		kept;			/* there is something */
	StringInfoData pack;		/* data NULL: never used */
} Channel;

/* Of messages that were sent to watchers' own channels. */
typedef struct OwnCount
{
	uint64		attempt;
	uint32		sent;
} OwnCount;

static Slot *slot;
static MemoryContext context;
static uint64 attempt;
static bool begun;				/* there is a transaction */
static int	blocked;			/* the board takes no more: errno; 0: it does */
static BoardWriter writer;
static ListenerFilter wanted;	/* channels to which somebody may listen */
static ListenerFilter put;		/* channels of what is on the board */
static int	woken;
static bool withheld;			/* it has been logged that something is */
static uint32 messages;
static Size bytes;
static HTAB *channels;			/* of Channel; NULL: none yet */
static List *debug_lines;

/* By a watcher's entry in the slot, and the ids that have one of this attempt. */
static OwnCount *counts;
static uint32 *counted;
static int	ncounted;

MemoryContext
outbox_context(void)
{
	return context;
}

void
outbox_begin(Slot *for_slot)
{
	slot = for_slot;
	if (context == NULL)
	{
		context = AllocSetContextCreate(TopMemoryContext, "ectowatch outbox",
										ALLOCSET_DEFAULT_SIZES);
		counts = MemoryContextAllocZero(TopMemoryContext,
										SLOT_ENTRIES * sizeof(OwnCount));
		counted = MemoryContextAlloc(TopMemoryContext,
									 SLOT_ENTRIES * sizeof(uint32));
	}
	MemoryContextReset(context);
	attempt++;
	begun = false;
	blocked = 0;
	withheld = false;
	messages = 0;
	bytes = 0;
	channels = NULL;
	debug_lines = NIL;
	ncounted = 0;
	woken = 0;

	board_begin(&writer, slot_board(slot));
	board_release(&writer, listener_first_unread());
	listener_all(&wanted);
	memset(&put, 0, sizeof(put));
}

bool
outbox_is_full(void)
{
	return blocked != 0 || messages >= OUTBOX_MAX_MESSAGES ||
		bytes >= OUTBOX_MAX_BYTES;
}

bool
outbox_is_worth_waiting(void)
{
	static uint64 former_unread = 0;
	bool		moved = writer.unread != former_unread;

	former_unread = writer.unread;
	return moved && !board_has_room(&writer, OUTBOX_ROOM);
}

bool
outbox_keeps_file(Slot *of_slot)
{
	if (!board_has_file(slot_board(of_slot)))
		return false;
	board_begin(&writer, slot_board(of_slot));
	board_release(&writer, listener_first_unread());
	return board_has_file(slot_board(of_slot));
}

/* --- sending --- */

void
outbox_open_transaction(void)
{
	MemoryContext old = CurrentMemoryContext;

	if (begun)
		return;
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	begun = true;
	MemoryContextSwitchTo(old);
}

static void
close_transaction(void)
{
	MemoryContext old = CurrentMemoryContext;

	if (!begun)
		return;
	CommitTransactionCommand();
	pgstat_report_stat(false);
	begun = false;
	MemoryContextSwitchTo(old);
}

/* Written once it has been sent; 'what' is its type, or of its form. */
static void
keep_debug_line(const Message *message, const char *what)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	Account    *watcher = account_of(slot, message->watcher);

	debug_lines = lappend(debug_lines,
						  psprintf("worker %d sent for watcher \"%s\" to channel \"%s\": %s, position " UINT64_FORMAT,
								   MyProcPid, watcher->name, message->channel,
								   what, message->position));
	MemoryContextSwitchTo(old);
}

static void
count_own(uint32 watcher)
{
	OwnCount   *count = &counts[account_number(watcher)];

	if (count->attempt != attempt)
	{
		count->attempt = attempt;
		count->sent = 0;
		counted[ncounted++] = watcher;
	}
	count->sent++;
}

/*
 * Whether it is of ectowatch_notify(), and its channel is a watcher's by now.
 * It stays in the ring.
 */
static bool
is_withheld(const Message *message)
{
	if (message->watcher < SLOT_CHANNEL)
		return false;
	outbox_open_transaction();
	if (!channel_is_taken(message->channel, false))
		return false;
	if (!withheld)
		ereport(LOG,
				(errmsg("ectowatch does not send to channel \"%s\" what ectowatch_notify() was given: it belongs to a watcher",
						message->channel),
				 errdetail("It did not when ectowatch_notify() was called. What is not sent can be read at position " UINT64_FORMAT ".",
						   message->position)));
	withheld = true;
	return true;
}

/* 'what' is NULL for a message that is sent as it is. */
static void
send_message(const Message *message, const char *payload, Size len,
			 const char *what)
{
	uint32		hash = listener_hash(message->channel);

	if (blocked != 0 || is_withheld(message))
		return;
	if (listener_filter_has(&wanted, hash))
	{
		if (!board_put(&writer, message->channel, payload, len))
		{
			blocked = errno;
			return;
		}
		listener_filter_add(&put, hash);
	}
	messages++;
	if (message->own)
		count_own(message->watcher);
	if (message->debug || ectowatch_debug)
		keep_debug_line(message, what ? what : change_type_name(message->type));
}

/* Sends what is kept of a channel. */
static void
send_kept(Channel *channel)
{
	Message    *newest = &channel->newest;

	if (!channel->kept)
		return;
	channel->kept = false;
	if (newest->delivery == DELIVERY_PACKED)
	{
		appendStringInfo(&channel->pack, PACK_TAIL, newest->position);
		send_message(newest, channel->pack.data, channel->pack.len, "packed");
		resetStringInfo(&channel->pack);
	}
	else
	{
		char		bell[64];

		snprintf(bell, sizeof(bell),
				 "{\"type\":\"doorbell\",\"values\":{},\"position\":" UINT64_FORMAT "}",
				 newest->position);
		send_message(newest, bell, strlen(bell), "doorbell");
	}
}

/* --- keeping --- */

static Channel *
find_channel(const char *name, bool create)
{
	Channel    *channel;
	bool		found;

	if (channels == NULL)
	{
		HASHCTL		info;

		if (!create)
			return NULL;
		info.keysize = NAMEDATALEN;
		info.entrysize = sizeof(Channel);
		info.hcxt = context;
		channels = hash_create("ectowatch outbox", 64, &info,
							   HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	}
	channel = hash_search(channels, name, create ? HASH_ENTER : HASH_FIND,
						  &found);
	if (create && !found)
	{
		channel->kept = false;
		channel->pack.data = NULL;
	}
	return channel;
}

static void
note_newest(Channel *channel, const Message *message)
{
	uint64		highest = channel->kept ? channel->newest.position : 0;

	channel->newest = *message;
	channel->newest.channel = channel->name;
	channel->newest.payload = NULL;

	/* a bell says how far to read; of a pack it is its last message's */
	if (message->delivery == DELIVERY_DOORBELL)
		channel->newest.position = Max(message->position, highest);
	channel->kept = true;
}

static void
put_packed(Channel *channel, const Message *message)
{
	Assert(message->len <= OUTBOX_MAX_PACKED);

	if (channel->kept &&
		channel->pack.len - (int) strlen(PACK_HEAD) + 1 + (int) message->len >
		OUTBOX_MAX_PACKED)
		send_kept(channel);

	if (channel->pack.data == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(context);

		initStringInfo(&channel->pack);
		MemoryContextSwitchTo(old);
	}
	if (channel->pack.len == 0)
		appendStringInfoString(&channel->pack, PACK_HEAD);
	else
		appendStringInfoChar(&channel->pack, ',');
	appendBinaryStringInfo(&channel->pack, message->payload, message->len);
	bytes += message->len;
}

/* Whether a message of delivery doorbell is sent as it is. */
static bool
goes_past_bell(const Message *message)
{
	return message->type == CHANGE_GAP || message->type == CHANGE_ENDED;
}

void
outbox_put(const Message *message)
{
	Channel    *channel;

	if (message->delivery == DELIVERY_NONE)
		return;

	/* without a look into a table where there is none */
	channel = NULL;
	if (message->delivery != DELIVERY_EACH || channels != NULL)
		channel = find_channel(message->channel,
							   message->delivery != DELIVERY_EACH);
	if (channel != NULL && channel->kept &&
		channel->newest.delivery != message->delivery)
		send_kept(channel);

	if (message->delivery == DELIVERY_PACKED)
	{
		put_packed(channel, message);
		note_newest(channel, message);
	}
	else if (message->delivery == DELIVERY_DOORBELL && !goes_past_bell(message))
		note_newest(channel, message);
	else
	{
		/* it must not overtake the bell */
		if (channel != NULL)
			send_kept(channel);
		bytes += message->len;
		send_message(message, message->payload, message->len, NULL);
	}
}

/* --- the end --- */

/* For list_sort(). */
static int
channel_compare(const ListCell *a, const ListCell *b)
{
	uint64		at_a = ((const Channel *) lfirst(a))->newest.position;
	uint64		at_b = ((const Channel *) lfirst(b))->newest.position;

	return at_a < at_b ? -1 : at_a > at_b;
}

static void
send_all_kept(void)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	List	   *kept = NIL;
	ListCell   *lc;
	HASH_SEQ_STATUS scan;
	Channel    *channel;

	hash_seq_init(&scan, channels);
	while ((channel = hash_seq_search(&scan)) != NULL)
	{
		if (channel->kept)
			kept = lappend(kept, channel);
	}
	list_sort(kept, channel_compare);
	foreach(lc, kept)
		send_kept(lfirst(lc));
	MemoryContextSwitchTo(old);
}

OutboxResult
outbox_commit(void)
{
	uint64		from = board_head(slot_board(slot));

	if (channels != NULL && blocked == 0)
		send_all_kept();
	close_transaction();
	if (blocked != 0)
	{
		errno = blocked;
		return OUTBOX_FULL;
	}
	if (messages == 0)
		return OUTBOX_EMPTY;
	board_publish(&writer);
	if (board_head(slot_board(slot)) > from)
		woken = listener_tell(&put, from, board_head(slot_board(slot)));
	return OUTBOX_SENT;
}

int
outbox_woken(void)
{
	return woken;
}

void
outbox_count_sent(void)
{
	SlotProgress *progress = slot_progress(slot);

	add_u64(&progress->notified, messages);
	add_u64(&progress->notify_sends, 1);
	for (int i = 0; i < ncounted; i++)
	{
		Account    *watcher = account_of(slot, counted[i]);

		if (pg_atomic_read_u32(&watcher->id) == counted[i])
			add_u64(&watcher->notified, counts[account_number(counted[i])].sent);
	}
}

void
outbox_log_sent(void)
{
	ListCell   *lc;

	foreach(lc, debug_lines)
		ereport(LOG,
				(errmsg_internal("ectowatch: %s", (char *) lfirst(lc)),
				 errhidestmt(true)));
}
