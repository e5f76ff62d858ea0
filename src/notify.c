/*-------------------------------------------------------------------------
 *
 * notify.c
 *	  From the ring to channels.
 *
 * The worker reads the ring as any reader does, from a cursor of its own,
 * which is kept in the slot and moved on after each commit: so a new worker
 * goes on where the last one stopped.  A transaction takes what there is, up
 * to a bound; it is short, and none is open while there is nothing to send.
 *
 * On servers up to 18 each of these transactions takes an xid and wakes all
 * listeners of the database.  So the worker sends at once when it was idle,
 * and when it is busy, it lets messages gather for as long as the last
 * transaction took.
 *
 * To commit, NOTIFY takes a lock that every transaction takes that notifies,
 * and keeps until it has committed, which may be long where that waits for a
 * standby.  The worker waits for it no longer than 10 ms, so that the ring goes
 * on, and tries again a little later.
 *
 * While NOTIFY's own queue is more than a tenth full, because some client
 * does not read, nothing is sent: were it to fill up, commits of users'
 * transactions that use NOTIFY would fail.  The ring goes on meanwhile.  If
 * it overtakes the cursor, what was dropped is counted by watcher, and each
 * gets a gap on its channel, as soon as sending is possible again.
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

#include "access/xact.h"
#include "commands/async.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "pgstat.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "change.h"
#include "message.h"
#include "notify.h"

/* The bounds of one transaction. */
#define NOTIFY_MAX_MESSAGES		4096
#define NOTIFY_MAX_BYTES		(1024 * 1024)

/* How full core's queue may be, and how long to wait when sending cannot be. */
#define NOTIFY_MAX_USAGE		0.1
#define NOTIFY_BLOCKED_PAUSE_MS	250

/* How long to wait for NOTIFY's lock. */
#define NOTIFY_LOCK_TIMEOUT_MS	10

/* How long when another transaction keeps NOTIFY's lock. */
#define NOTIFY_LOCKED_PAUSE_MS	100

/* The longest pause of a busy worker. */
#define NOTIFY_MAX_PAUSE_MS		10

#define add_u64(counter, n) \
	pg_atomic_write_u64(counter, pg_atomic_read_u64(counter) + (n))

bool
notify_has_work(Slot *slot)
{
	return pg_atomic_read_u64(&slot_progress(slot)->notify_offset) <
		ring_head_offset(slot_ring(slot));
}

void
notify_evicted(Slot *slot, const RingRecord *record, uint64 offset)
{
	SlotProgress *progress = slot_progress(slot);
	SlotWatcher *watcher = slot_watcher(slot, record->watcher);

	if (offset < pg_atomic_read_u64(&progress->notify_offset))
		return;
	if (watcher->gap_changes == 0)
		watcher->gap_from = record->position - record->span + 1;
	watcher->gap_to = record->position;
	watcher->gap_changes += record->span;
	add_u64(&watcher->skipped, record->span);
	add_u64(&progress->skipped, record->span);
}

static void
send_message(const char *channel, const char *payload, Size *bytes, int *messages)
{
	Async_Notify(channel, payload);
	*bytes += strlen(payload);
	(*messages)++;
}

static void
send_gap(StringInfo out, const char *channel, uint64 from, uint64 to,
		 uint64 changes, const char *reason, Size *bytes, int *messages)
{
	resetStringInfo(out);
	appendStringInfoString(out, "{\"type\":\"gap\",\"values\":");
	message_gap_values(out, from, to, changes, reason);
	appendStringInfo(out, ",\"position\":" UINT64_FORMAT "}", to);
	send_message(channel, out->data, bytes, messages);
}

/* By the position that they get; for list_sort(). */
static int
skipped_compare(const ListCell *a, const ListCell *b)
{
	uint64		to_a = ((const SlotWatcher *) lfirst(a))->gap_to;
	uint64		to_b = ((const SlotWatcher *) lfirst(b))->gap_to;

	return to_a < to_b ? -1 : to_a > to_b;
}

/* Tells listeners what the ring dropped before it was sent to them. */
static void
send_skipped(Slot *slot, StringInfo out, Size *bytes, int *messages)
{
	List	   *skipped = NIL;
	ListCell   *lc;

	for (uint32 i = 0; i < SLOT_MAX_WATCHERS; i++)
	{
		if (slot_watcher(slot, i)->gap_changes > 0)
			skipped = lappend(skipped, slot_watcher(slot, i));
	}
	list_sort(skipped, skipped_compare);
	foreach(lc, skipped)
	{
		SlotWatcher *watcher = lfirst(lc);

		send_gap(out, watcher->name, watcher->gap_from, watcher->gap_to,
				 watcher->gap_changes, "overtaken", bytes, messages);
	}
}

static void
forget_skipped(Slot *slot)
{
	for (uint32 i = 0; i < SLOT_MAX_WATCHERS; i++)
		slot_watcher(slot, i)->gap_changes = 0;
}

/*
 * One message; before a watcher's first, that a restart may have cost some.
 * 'attempt' tells this transaction from one that failed.
 */
static void
send_change(Slot *slot, StringInfo out, const RingRecord *record,
			const Change *change, uint64 attempt, Size *bytes, int *messages)
{
	SlotWatcher *watcher = slot_watcher(slot, record->watcher);
	char		channel[NAMEDATALEN];

	memcpy(channel, change_name(change), change->name_len);
	channel[change->name_len] = '\0';

	if (!watcher->gap_told && watcher->gap_attempt != attempt &&
		!(change->flags & CHANGE_FRESH))
	{
		watcher->gap_attempt = attempt;
		send_gap(out, channel, 0,
				 pg_atomic_read_u64(&slot_progress(slot)->run_start) - 1,
				 0, "crash", bytes, messages);
	}

	message_for_channel(out, change, record->position);
	send_message(channel, out->data, bytes, messages);
}

/* After the commit: what was sent need not be sent again. */
static void
note_sent(Slot *slot, uint64 from, uint64 to)
{
	RingCursor	cursor = {slot_ring(slot), from};
	RingRecord	record;

	while (cursor.offset < to &&
		   ring_read_header(&cursor, &record) == RING_RECORD)
	{
		SlotWatcher *watcher = slot_watcher(slot, record.watcher);

		watcher->gap_told = true;
		add_u64(&watcher->notified, 1);
		pg_atomic_write_u64(&slot_progress(slot)->notify_position,
							record.position);
	}
}

static bool
server_queue_is_full(void)
{
	return DatumGetFloat8(DirectFunctionCall1(pg_notification_queue_usage,
											  (Datum) 0)) > NOTIFY_MAX_USAGE;
}

/*
 * Commits.  False if another transaction keeps NOTIFY's lock; nothing was sent
 * then.
 */
static bool
commit_unless_locked(void)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool done = false;

	LockTimeout = NOTIFY_LOCK_TIMEOUT_MS;
	PG_TRY();
	{
		CommitTransactionCommand();
		LockTimeout = 0;
		done = true;
	}
	PG_CATCH();
	{
		LockTimeout = 0;
		if (geterrcode() != ERRCODE_LOCK_NOT_AVAILABLE)
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		HOLD_INTERRUPTS();
		AbortCurrentTransaction();
		FlushErrorState();
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	return done;
}

/* Notes that sending is not possible, and says so once. */
static void
note_blocked(Slot *slot, const char *reason, const char *hint)
{
	if (pg_atomic_exchange_u32(&slot_progress(slot)->notify_blocked, 1) == 0)
		ereport(LOG,
				(errmsg("ectowatch does not send notifications: %s", reason),
				 errhint("%s", hint)));
}

bool
notify_send(Slot *slot, long *pause)
{
	MemoryContext context = CurrentMemoryContext;
	static char *payload = NULL;
	SlotProgress *progress = slot_progress(slot);
	Ring	   *ring = slot_ring(slot);
	RingCursor	cursor;
	uint64		start;
	bool		overtaken;
	StringInfoData out;
	Size		bytes = 0;
	int			messages = 0;
	TimestampTz started_at;
	TimestampTz ended_at;

	*pause = 0;
	if (!notify_has_work(slot))
		return false;
	if (payload == NULL)
		payload = MemoryContextAlloc(TopMemoryContext, ring_max_payload(ring));

	started_at = GetCurrentTimestamp();
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	pgstat_report_activity(STATE_RUNNING, "sending notifications");

	if (server_queue_is_full())
	{
		AbortCurrentTransaction();
		MemoryContextSwitchTo(context);
		pgstat_report_activity(STATE_IDLE, NULL);
		note_blocked(slot, "NOTIFY's queue is more than a tenth full",
					 "Find the session that does not read its notifications: pg_notification_queue_usage() and pg_stat_activity.");
		*pause = NOTIFY_BLOCKED_PAUSE_MS;
		return true;
	}

	/* out of the ring's reach, in this process only we write to it */
	start = pg_atomic_read_u64(&progress->notify_offset);
	overtaken = start < ring_oldest_offset(ring);
	if (overtaken)
		start = ring_oldest_offset(ring);
	cursor.ring = ring;
	cursor.offset = start;

	initStringInfo(&out);
	if (overtaken)
		send_skipped(slot, &out, &bytes, &messages);
	while (messages < NOTIFY_MAX_MESSAGES && bytes < NOTIFY_MAX_BYTES)
	{
		RingRecord	record;

		if (ring_read(&cursor, &record, payload) != RING_RECORD)
			break;
		send_change(slot, &out, &record, (const Change *) payload,
					(uint64) started_at, &bytes, &messages);
	}

	/*
	 * Once it has committed, nothing looks at interrupts until the cursor is
	 * moved: so no message is sent twice.
	 */
	if (!commit_unless_locked())
	{
		MemoryContextSwitchTo(context);
		pgstat_report_activity(STATE_IDLE, NULL);
		note_blocked(slot, "another transaction keeps NOTIFY's lock",
					 "Find the transaction that has used NOTIFY and waits at its commit.");
		*pause = NOTIFY_LOCKED_PAUSE_MS;
		return true;
	}
	MemoryContextSwitchTo(context);
	if (overtaken)
		forget_skipped(slot);
	note_sent(slot, start, cursor.offset);
	pg_atomic_write_u64(&progress->notify_offset, cursor.offset);

	if (pg_atomic_exchange_u32(&progress->notify_blocked, 0) != 0)
		ereport(LOG,
				(errmsg("ectowatch sends notifications again")));

	ended_at = GetCurrentTimestamp();
	add_u64(&progress->notified, messages);
	add_u64(&progress->notify_commits, 1);
	pg_atomic_write_u64(&progress->notified_at, (uint64) ended_at);
	pgstat_report_stat(false);
	pgstat_report_activity(STATE_IDLE, NULL);

	*pause = Min((ended_at - started_at) / 1000, NOTIFY_MAX_PAUSE_MS);
	return notify_has_work(slot);
}
