/*-------------------------------------------------------------------------
 *
 * account.h
 *	  What is known of each watcher and channel of a database, in shared memory.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef ECTOWATCH_ACCOUNT_H
#define ECTOWATCH_ACCOUNT_H

#include "port/atomics.h"

#include "slot.h"

/*
 * Watchers of one database at a time.  Ids of living watchers differ modulo
 * this number, so that each has an entry of its own in the slot.
 */
#define SLOT_MAX_WATCHERS	8192

/*
 * There may be any number of channels of ectowatch_notify().  All their changes
 * have one id in place of a watcher's, and one entry, which has no name and
 * counts for all.  A channel of which something is lost has an entry of its own
 * until that is told on it: see "channels" in account.c.
 */
#define SLOT_MAX_CHANNELS	1024
#define SLOT_CHANNEL		((uint32) 0x80000000)	/* + number: its id */
#define SLOT_CHANNELS		(SLOT_CHANNEL + SLOT_MAX_CHANNELS - 1)	/* of all */
#define SLOT_ENTRIES		(SLOT_MAX_WATCHERS + SLOT_MAX_CHANNELS)

/* A channel belongs to one of so many classes, by a hash of its name. */
#define SLOT_CHANNEL_CLASSES	4096

/*
 * What the worker knows of one watcher, or channel.  Written by the worker
 * alone, but for id and name of a channel, which who holds it has written; read
 * by all, each field by itself.
 */
typedef struct Account
{
	pg_atomic_uint32 id;		/* whose entry this is; 0: nobody's yet */
	bool		gap_told;		/* worker's: listeners know that a restart may
								 * have lost something, */
	uint8		delivery;		/* worker's: how its newest change goes to
								 * channels, a ChangeDelivery */
	uint8		flags;			/* worker's: of the flags of its newest change
								 * CHANGE_FRESH and CHANGE_DEBUG */
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
} Account;

/*
 * What the worker knows of the channels of a class.  Written by it alone.
 */
typedef struct ChannelClass
{
	pg_atomic_uint64 appended;	/* put into the ring; read by all */
	pg_atomic_uint64 evicted_position;	/* of the newest that is no longer
										 * there; read by all */

	/* worker's: a gap to be told with the next message to each of them */
	uint64		gap_from;
	uint64		gap_to;			/* 0: none */
	uint64		gap_told;		/* to whom it was, by account_class_bit(), */
	uint64		gap_attempt;	/* and by this attempt, */
	uint64		gap_attempted;	/* to whom, if it commits */
} ChannelClass;

/*
 * When a watcher's condition was last evaluated, as TimestampTz to about a
 * second, 0: not since the server started.  Written by any backend.
 */
typedef struct ConditionAccount
{
	pg_atomic_uint32 id;		/* whose entry this is; 0: nobody's yet */
	pg_atomic_uint64 checked_at;
	pg_atomic_uint64 matched_at;	/* and it was true, */
	pg_atomic_uint64 failed_at; /* and it failed */
} ConditionAccount;

/* --- a slot's memory (slot.c) --- */

extern Size accounts_shmem_size(void);

/*
 * Prepares them for a database; 'used': there was another.  'tranche' is that
 * of their lock.
 */
extern void accounts_init(Accounts *accounts, int tranche, bool used);

/* --- any process --- */

/* The entry that belongs to a watcher's id; check the id in it. */
extern Account *account_of(Slot *slot, uint32 id);

/* Which one that is, below SLOT_ENTRIES; and the one of a number. */
extern uint32 account_number(uint32 id);
extern Account *account_at(Slot *slot, uint32 number);

/*
 * Gets an entry for a channel of which something is lost, and keeps it for the
 * channel until account_release_channel(): its id, or SLOT_CHANNELS if there is
 * none.  Takes a lock.  Releasing it is legal where nothing may fail.
 */
extern uint32 account_hold_channel(Slot *slot, const char *name);
extern void account_release_channel(Slot *slot, uint32 id);

/*
 * The class of a channel, and a bit that tells it from most others there; and
 * all classes, by number.
 */
extern ChannelClass *account_class_of(Slot *slot, const char *name);
extern uint64 account_class_bit(const char *name);
extern ChannelClass *account_class_at(Slot *slot, uint32 number);

/* Notes that there are changes of channels, and tells. */
extern void account_use_channels(Slot *slot);
extern bool account_uses_channels(Slot *slot);

/* The same of conditions. */
extern ConditionAccount *account_condition(Slot *slot, uint32 id);

/*
 * Notes that a watcher's condition has been evaluated: with which result, and
 * whether it failed.  In a transaction; cheap enough for each row.
 */
extern void account_note_condition(Slot *slot, uint32 watcher, bool matched,
								   bool failed);

/*
 * Counts changes of a watcher that are dropped for want of room.  The worker
 * makes a gap of them.  Legal where nothing may fail.
 */
extern void account_add_lost(Slot *slot, uint32 watcher, uint64 changes);

/*
 * How often that was called, and whether the gaps of so many calls are in
 * the ring.
 */
extern uint64 account_lost_added(Slot *slot);
extern bool account_lost_is_told(Slot *slot, uint64 added);

/* --- the worker --- */

/*
 * What account_add_lost() counted for the next watcher that lost something, by
 * the number of its entry, from 'entry' on, which is set to it; 0: none.  Once
 * a gap tells of it, it is taken off.  What had been added before the first
 * entry was looked at, is told after the last one.
 */
extern bool account_has_lost(Slot *slot);
extern uint64 account_next_lost(Slot *slot, uint32 *entry);
extern void account_clear_lost(Slot *slot, uint32 entry, uint64 changes);
extern void account_set_lost_told(Slot *slot, uint64 added);

#endif							/* ECTOWATCH_ACCOUNT_H */
