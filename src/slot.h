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
typedef struct Accounts Accounts;
typedef struct Subscriptions Subscriptions;

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

extern Accounts *slot_accounts(Slot *slot);
extern Queue *slot_queue(Slot *slot);

/* The longest batch that a queue carries itself. */
extern Size slot_max_inline(void);

extern Ring *slot_ring(Slot *slot);
extern Board *slot_board(Slot *slot);
extern SlotProgress *slot_progress(Slot *slot);
extern Subscriptions *slot_subscriptions(Slot *slot);

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

/* --- the worker --- */

/*
 * Becomes the slot's only worker until this process ends, and tells for which
 * database; false: not now.
 */
extern bool slot_claim_worker(Slot *slot, Oid *database);

/* Says that it is connected and works. */
extern void slot_set_working(Slot *slot);

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
