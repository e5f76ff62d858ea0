/*-------------------------------------------------------------------------
 *
 * slot.h
 *	  The shared memory of one database: its queue, its ring, its worker.
 *
 * The rules for each part are told at the top of slot.c.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef ECTOWATCH_SLOT_H
#define ECTOWATCH_SLOT_H

#include "port/atomics.h"
#include "storage/condition_variable.h"

#include "board.h"
#include "queue.h"
#include "ring.h"

typedef struct Slot Slot;
typedef struct Subscriptions Subscriptions;

/*
 * Watchers of one database at a time.  Ids of living watchers differ modulo
 * this number, so that each has an entry of its own in the slot.
 */
#define SLOT_MAX_WATCHERS	8192

/*
 * There may be any number of channels of ectowatch_notify().  All their changes
 * have one id in place of a watcher's, and one entry, which has no name and
 * counts for all.  A channel of which something is lost has an entry of its own
 * until that is told on it: see "channels" in slot.c.
 */
#define SLOT_MAX_CHANNELS	1024
#define SLOT_CHANNEL		((uint32) 0x80000000)	/* + number: its id */
#define SLOT_CHANNELS		(SLOT_CHANNEL + SLOT_MAX_CHANNELS - 1)	/* of all */
#define SLOT_ENTRIES		(SLOT_MAX_WATCHERS + SLOT_MAX_CHANNELS)

/* A channel belongs to one of so many classes, by a hash of its name. */
#define SLOT_CHANNEL_CLASSES	4096

/*
 * What the worker knows of one watcher, or channel.  Written by the worker
 * alone; read by all, each field by itself.
 */
typedef struct SlotWatcher
{
	pg_atomic_uint32 id;		/* whose entry this is; 0: nobody's yet */
	bool		gap_told;		/* worker's: listeners know that a restart may
								 * have lost something, */
	uint8		delivery;		/* worker's: how its newest change goes to
								 * channels, a ChangeDelivery */
	uint64		gap_attempt;	/* or will, if this attempt succeeds */
	char		name[NAMEDATALEN];	/* set before id */

	pg_atomic_uint64 changes;	/* put into the ring */
	pg_atomic_uint64 notified;	/* messages sent to its own channel */
	pg_atomic_uint64 lost;		/* became gaps, for want of room */
	pg_atomic_uint64 skipped;	/* not sent: overtaken before that */
	pg_atomic_uint64 last_position;
	pg_atomic_uint64 last_at;	/* TimestampTz, commit time of the newest */
	pg_atomic_uint64 evicted;	/* no longer in the ring: how many, */
	pg_atomic_uint64 evicted_position;	/* and the newest of them */

	/* worker's: a gap to be told on the channel */
	uint64		gap_changes;
	uint64		gap_from;
	uint64		gap_to;

	pg_atomic_uint32 held;		/* messages that throttle holds back, on
								 * channels of all kinds */

	/*
	 * worker's: how many of these are of changes that are no longer in the
	 * ring.  A change has one message for each of its channels, so a gap that
	 * is made of this may count more than there were changes.
	 */
	uint32		held_evicted;
	uint64		held_from;
	uint64		held_to;
} SlotWatcher;

/*
 * What the worker knows of the channels of a class.  Written by it alone.
 */
typedef struct SlotChannelClass
{
	pg_atomic_uint64 appended;	/* put into the ring; read by all */
	pg_atomic_uint64 evicted_position;	/* of the newest that is no longer
										 * there; read by all */

	/* worker's: a gap to be told with the next message to each of them */
	uint64		gap_from;
	uint64		gap_to;			/* 0: none */
	uint64		gap_told;		/* to whom it was, by slot_channel_bit(), */
	uint64		gap_attempt;	/* and by this attempt, */
	uint64		gap_attempted;	/* to whom, if it commits */
} SlotChannelClass;

/*
 * When a watcher's condition was last evaluated, as TimestampTz to about a
 * second, 0: not since the server started.  Written by any backend.
 */
typedef struct SlotCondition
{
	pg_atomic_uint32 id;		/* whose entry this is; 0: nobody's yet */
	pg_atomic_uint64 checked_at;
	pg_atomic_uint64 matched_at;	/* and it was true, */
	pg_atomic_uint64 failed_at; /* and it failed */
} SlotCondition;

/* The worker's counters and places; it writes, all read. */
typedef struct SlotProgress
{
	pg_atomic_uint64 run_start; /* first position since the server started;
								 * 0: the worker has none yet */
	pg_atomic_uint64 position_end;	/* behind the last one it may give */
	pg_atomic_uint64 newest_position;	/* the last one it gave */
	pg_atomic_uint64 batches;	/* taken and committed */
	pg_atomic_uint64 aborted;	/* taken and aborted */
	pg_atomic_uint64 spilled;	/* of batches: came by file */
	pg_atomic_uint64 changes;	/* put into the ring */
	pg_atomic_uint64 last_at;	/* when, TimestampTz */
	pg_atomic_uint64 notified;	/* messages sent */
	pg_atomic_uint64 notify_sends;	/* how often some were */
	pg_atomic_uint64 notified_at;	/* when the last one was */
	pg_atomic_uint64 notify_offset; /* of the next record to be sent */
	pg_atomic_uint64 notify_position;	/* of the one before it */
	pg_atomic_uint64 held_offset;	/* of the first one that is held back by
									 * throttle, plus one; 0: none */
	bool		gaps;			/* worker's: some watcher has gap_changes */
	pg_atomic_uint32 notify_blocked;	/* the board takes no more */
	pg_atomic_uint64 lost;		/* changes that became gaps */
	pg_atomic_uint64 skipped;	/* changes not sent, overtaken */
	pg_atomic_uint32 start_failed;	/* the last start of a worker did; set by
									 * the launcher, cleared by the worker */
} SlotProgress;

/* --- start of the server (ectowatch.c) --- */

extern Size slot_shmem_size(void);
extern void slot_shmem_init(void);

/* --- any process --- */

/*
 * The slot of this process's database; claims one if there is none.  NULL if
 * all are taken.  May be called in a transaction only.
 */
extern Slot *slot_attach(void);

/* The slots by number; one without a database is free. */
extern int	slot_count(void);
extern Slot *slot_get(int i);
extern Oid	slot_database(Slot *slot);

extern Queue *slot_queue(Slot *slot);

/* The longest batch that a queue carries itself. */
extern Size slot_max_inline(void);

extern Ring *slot_ring(Slot *slot);
extern Board *slot_board(Slot *slot);
extern SlotProgress *slot_progress(Slot *slot);
extern Subscriptions *slot_subscriptions(Slot *slot);

/* The entry that belongs to a watcher's id; check the id in it. */
extern SlotWatcher *slot_watcher(Slot *slot, uint32 id);

/* Which one that is, below SLOT_ENTRIES; and the one of a number. */
extern uint32 slot_entry_number(uint32 id);
extern SlotWatcher *slot_entry(Slot *slot, uint32 number);

/*
 * Gets an entry for a channel of which something is lost, and keeps it for the
 * channel until slot_release_channel(): its id, or SLOT_CHANNELS if there is
 * none.  Takes a lock.  Releasing it is legal where nothing may fail.
 */
extern uint32 slot_hold_channel(Slot *slot, const char *name);
extern void slot_release_channel(Slot *slot, uint32 id);

/*
 * The class of a channel, and a bit that tells it from most others there; and
 * all classes, by number.
 */
extern SlotChannelClass *slot_channel_class(Slot *slot, const char *name);
extern uint64 slot_channel_bit(const char *name);
extern SlotChannelClass *slot_class(Slot *slot, uint32 number);

/* Notes that there are changes of channels, and tells. */
extern void slot_use_channels(Slot *slot);
extern bool slot_uses_channels(Slot *slot);

/* The same of conditions. */
extern SlotCondition *slot_condition(Slot *slot, uint32 id);

/*
 * Notes that a watcher's condition has been evaluated: with which result, and
 * whether it failed.  In a transaction; cheap enough for each row.
 */
extern void slot_note_condition(Slot *slot, uint32 watcher, bool matched,
								bool failed);

/* Broadcast when the ring has grown or the worker comes or goes. */
extern ConditionVariable *slot_changed(Slot *slot);

/* Random, not 0; another one after each start of shared memory. */
extern uint64 slot_run(void);

/* Sees to it that there will be a worker.  Legal where nothing may fail. */
extern void slot_request_worker(Slot *slot);

/* Whether that was asked for since the server started. */
extern bool slot_worker_is_wanted(Slot *slot);

/* Sets the worker's latch.  Legal where nothing may fail. */
extern void slot_wake_worker(Slot *slot);

/* 0: none is running. */
extern int	slot_worker_pid(Slot *slot);

/* Whether there is a launcher. */
extern bool slot_launcher_runs(void);

/*
 * Counts changes of a watcher that are dropped for want of room.  The worker
 * makes a gap of them.  Legal where nothing may fail.
 */
extern void slot_add_lost(Slot *slot, uint32 watcher, uint64 changes);

/*
 * How often that was called, and whether the gaps of so many calls are in
 * the ring.
 */
extern uint64 slot_lost_added(Slot *slot);
extern bool slot_lost_is_told(Slot *slot, uint64 added);

/* --- the worker --- */

/*
 * Becomes the slot's only worker until this process ends, and tells for which
 * database; false: not now.
 */
extern bool slot_claim_worker(Slot *slot, Oid *database);

/* Says that it is connected and works. */
extern void slot_set_working(Slot *slot);

/*
 * What slot_add_lost() counted for some watcher, by the number of its entry;
 * 0: nothing left.  Once a gap tells of it, it is taken off.
 */
extern bool slot_has_lost(Slot *slot);
extern uint64 slot_next_lost(Slot *slot, uint32 *entry);
extern void slot_clear_lost(Slot *slot, uint32 entry, uint64 changes);

/* --- the launcher --- */

extern void slot_register_launcher(void);

/* Whether a worker is wanted for the slot and there is none. */
extern bool slot_needs_worker(Slot *slot);

/* How many workers have come as far as slot_set_working(). */
extern uint32 slot_workers_seen(Slot *slot);

/* --- commands on databases (ddl.c) --- */

/*
 * Keeps workers out of a database until slot_unbar_worker().  False, and
 * nothing done, if the database has no slot.
 */
extern bool slot_bar_worker(Oid database);

/* Ends the worker of a barred database and waits for that, interruptibly. */
extern void slot_end_worker(Oid database);

/* Lets them in again.  Legal where nothing may fail. */
extern void slot_unbar_worker(Oid database);

/*
 * Frees the slot of a database that was dropped, if it has one.  Legal where
 * nothing may fail.
 */
extern void slot_release(Oid database);

#endif							/* ECTOWATCH_SLOT_H */
