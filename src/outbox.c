/*-------------------------------------------------------------------------
 *
 * outbox.c
 *	  What one transaction of the worker sends to channels.
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
 * transaction; of channels with delivery each nothing is known.  At the end
 * packs and bells go in the order of their positions.  Within a channel,
 * messages stay in the order in which they came, unless its delivery changes
 * midway: then what is kept of it goes first.
 *
 * What ectowatch_notify() was given is looked at once more before it is sent:
 * the channel may be a watcher's by now (taken.c).
 *
 * The transaction begins with the first message that is sent.  Without one, a
 * turn of the worker costs no xid, no WAL and wakes nobody.
 *
 * The worker waits for NOTIFY's lock, which is taken by the commit, no longer
 * than 10 ms.  Before the first message it looks how full NOTIFY's queue is.
 *
 * What a transaction costs others is seen by the CPU time that its end takes,
 * from when it is committed: that is when core wakes listeners, on servers up
 * to 18 all of the database, one system call for each.
 *
 * All of this is private to the worker, and of one attempt: whatever ends it,
 * a commit, an abort or an error, outbox_begin() starts anew.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <time.h>

#include "access/xact.h"
#include "commands/async.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "pgstat.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "ectowatch.h"
#include "outbox.h"
#include "taken.h"

/*
 * The bounds of one transaction.  While listeners take the messages of one, the
 * next is put together, so many are better than a few long ones; but where
 * waking takes long, there must be few.
 */
#define OUTBOX_MAX_MESSAGES		4096
#define OUTBOX_MAX_BYTES		(1024 * 1024)
#define OUTBOX_MANY_LISTENERS	4	/* times that */
#define OUTBOX_LONG_WAKING_US	200

/* What the end of a commit takes without anybody to wake, and some more. */
#define OUTBOX_NO_WAKING_US		20

/* How full core's queue may be. */
#define OUTBOX_MAX_USAGE		0.1

/* How long to wait for NOTIFY's lock. */
#define OUTBOX_LOCK_TIMEOUT_MS	10

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
static bool blocked;			/* NOTIFY's queue is full */
static bool withheld;			/* it has been logged that something is */
static uint32 messages;
static Size bytes;
static HTAB *channels;			/* of Channel; NULL: none yet */
static List *debug_lines;
static uint64 committed_cpu;	/* cpu_us() at the commit */
static uint64 waking_us;		/* what waking takes after it, on average */

/* By a watcher's entry in the slot, and the ids that have one of this attempt. */
static OwnCount *counts;
static uint32 *counted;
static int	ncounted;

/* The CPU time of this process, in microseconds. */
static uint64
cpu_us(void)
{
	struct timespec now;

	if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now) != 0)
		return 0;
	return (uint64) now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* One sample alone may be an accident. */
static void
note_waking(uint64 us)
{
	us -= Min(us, OUTBOX_NO_WAKING_US);
	waking_us = (7 * waking_us + us) / 8;
}

/* Core wakes listeners later than it calls this. */
static void
outbox_xact_callback(XactEvent event, void *arg pg_attribute_unused())
{
	if (event == XACT_EVENT_COMMIT && begun)
		committed_cpu = cpu_us();
}

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
		RegisterXactCallback(outbox_xact_callback, NULL);
		counts = MemoryContextAllocZero(TopMemoryContext,
										SLOT_ENTRIES * sizeof(OwnCount));
		counted = MemoryContextAlloc(TopMemoryContext,
									 SLOT_ENTRIES * sizeof(uint32));
	}
	MemoryContextReset(context);
	attempt++;
	begun = false;
	blocked = false;
	withheld = false;
	messages = 0;
	bytes = 0;
	channels = NULL;
	debug_lines = NIL;
	ncounted = 0;
}

bool
outbox_is_full(void)
{
	uint32		times = waking_us > OUTBOX_LONG_WAKING_US ?
		OUTBOX_MANY_LISTENERS : 1;

	return blocked || messages >= OUTBOX_MAX_MESSAGES * times ||
		bytes >= OUTBOX_MAX_BYTES * times;
}

/* --- sending --- */

static bool
server_queue_is_full(void)
{
	return DatumGetFloat8(DirectFunctionCall1(pg_notification_queue_usage,
											  (Datum) 0)) > OUTBOX_MAX_USAGE;
}

/* Begins the transaction, unless nothing can be sent. */
static bool
open_transaction(void)
{
	MemoryContext old = CurrentMemoryContext;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	pgstat_report_activity(STATE_RUNNING, "sending notifications");
	begun = true;
	blocked = server_queue_is_full();
	MemoryContextSwitchTo(old);
	return !blocked;
}

/* Written once it has been sent; 'what' is its type, or of its form. */
static void
keep_debug_line(const Message *message, const char *what)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	SlotWatcher *watcher = slot_watcher(slot, message->watcher);

	debug_lines = lappend(debug_lines,
						  psprintf("worker %d sent for watcher \"%s\" to channel \"%s\": %s, position " UINT64_FORMAT,
								   MyProcPid, watcher->name, message->channel,
								   what, message->position));
	MemoryContextSwitchTo(old);
}

static void
count_own(uint32 watcher)
{
	OwnCount   *count = &counts[slot_entry_number(watcher)];

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
	if (message->watcher < SLOT_CHANNEL ||
		!channel_is_taken(message->channel, false))
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
send_message(const Message *message, const char *payload, const char *what)
{
	if (blocked || (!begun && !open_transaction()) || is_withheld(message))
		return;
	Async_Notify(message->channel, payload);
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
		send_message(newest, channel->pack.data, "packed");
		resetStringInfo(&channel->pack);
	}
	else
	{
		char		bell[64];

		snprintf(bell, sizeof(bell),
				 "{\"type\":\"doorbell\",\"values\":{},\"position\":" UINT64_FORMAT "}",
				 newest->position);
		send_message(newest, bell, "doorbell");
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
		send_message(message, message->payload, NULL);
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

/* Commits.  False if another transaction keeps NOTIFY's lock. */
static bool
commit_unless_locked(void)
{
	MemoryContext old = CurrentMemoryContext;
	volatile bool done = false;

	LockTimeout = OUTBOX_LOCK_TIMEOUT_MS;
	PG_TRY();
	{
		CommitTransactionCommand();
		LockTimeout = 0;
		note_waking(cpu_us() - committed_cpu);
		done = true;
	}
	PG_CATCH();
	{
		LockTimeout = 0;
		if (geterrcode() != ERRCODE_LOCK_NOT_AVAILABLE)
			PG_RE_THROW();
		MemoryContextSwitchTo(old);
		HOLD_INTERRUPTS();
		AbortCurrentTransaction();
		FlushErrorState();
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
	return done;
}

OutboxResult
outbox_commit(void)
{
	MemoryContext old = CurrentMemoryContext;
	OutboxResult result;

	if (channels != NULL && !blocked)
		send_all_kept();
	if (!begun)
		return OUTBOX_EMPTY;

	if (blocked)
	{
		AbortCurrentTransaction();
		MemoryContextSwitchTo(old);
		result = OUTBOX_FULL;
	}
	else
		result = commit_unless_locked() ? OUTBOX_SENT : OUTBOX_LOCKED;
	begun = false;
	return result;
}

uint64
outbox_waking_us(void)
{
	return waking_us;
}

void
outbox_count_sent(void)
{
	SlotProgress *progress = slot_progress(slot);

	add_u64(&progress->notified, messages);
	add_u64(&progress->notify_commits, 1);
	for (int i = 0; i < ncounted; i++)
	{
		SlotWatcher *watcher = slot_watcher(slot, counted[i]);

		if (pg_atomic_read_u32(&watcher->id) == counted[i])
			add_u64(&watcher->notified, counts[slot_entry_number(counted[i])].sent);
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
