/*-------------------------------------------------------------------------
 *
 * account.c
 *	  What is known of each watcher and channel of a database, in shared memory.
 *
 * Fields, and who touches them:
 *
 *	watchers				stored by the worker, read by all; those of channels
 *							also by backends, see "channels" below
 *	lock, channel_holders,	see there
 *	classes
 *	lost, lost_added,		added to by committing backends, first lost[], then
 *	lost_told				the number of additions; the worker reads that
 *							before it goes through lost[] once, and stores it
 *							in lost_told afterwards
 *	conditions				stored by any backend, read by all; see below
 *
 * conditions[] says when watchers' conditions were last evaluated.  Backends
 * store there without order, each field by itself: of two at once one remains.
 * An entry is taken over by who finds another watcher's id in it.  A backend
 * that still captures for the former watcher may then leave a time there that
 * is not the new one's; it is a figure to be looked at, nothing hangs on it.
 * Times are those of statements, and a newer one is stored only where it
 * differs by a second: the line stays shared among writers.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "storage/lwlock.h"
#include "utils/timestamp.h"

#include "account.h"

struct Accounts
{
	LWLock		lock;
	pg_atomic_uint64 lost_added;
	pg_atomic_uint64 lost_told;
	pg_atomic_uint64 lost[SLOT_ENTRIES];
	Account		watchers[SLOT_ENTRIES];
	pg_atomic_uint32 channel_holders[SLOT_MAX_CHANNELS];
	ChannelClass classes[SLOT_CHANNEL_CLASSES];
	ConditionAccount conditions[SLOT_MAX_WATCHERS];
};

pg_attribute_hot Size
accounts_shmem_size(void)
{
	return sizeof(Accounts);
}

/* Shared memory comes zeroed, so only a former user's traces matter. */
void
accounts_init(Accounts *accounts, int tranche, bool used)
{
	if (used)
		memset(accounts, 0, sizeof(*accounts));
	LWLockInitialize(&accounts->lock, tranche);
	pg_atomic_init_u64(&accounts->lost_added, 0);
	pg_atomic_init_u64(&accounts->lost_told, 0);
}

Account *
account_of(Slot *slot, uint32 id)
{
	return &slot_accounts(slot)->watchers[account_number(id)];
}

uint32
account_number(uint32 id)
{
	return id >= SLOT_CHANNEL ?
		SLOT_MAX_WATCHERS + (id - SLOT_CHANNEL) % SLOT_MAX_CHANNELS :
		id % SLOT_MAX_WATCHERS;
}

Account *
account_at(Slot *slot, uint32 number)
{
	return &slot_accounts(slot)->watchers[number];
}

/* --- what is lost --- */

void
account_add_lost(Slot *slot, uint32 watcher, uint64 changes)
{
	Accounts   *accounts = slot_accounts(slot);

	pg_atomic_fetch_add_u64(&accounts->lost[account_number(watcher)], changes);
	pg_atomic_fetch_add_u64(&accounts->lost_added, 1);
}

uint64
account_lost_added(Slot *slot)
{
	uint64		added = pg_atomic_read_u64(&slot_accounts(slot)->lost_added);

	pg_read_barrier();			/* lost[] has them all */
	return added;
}

bool
account_lost_is_told(Slot *slot, uint64 added)
{
	bool		told = pg_atomic_read_u64(&slot_accounts(slot)->lost_told) >= added;

	pg_read_barrier();
	return told;
}

bool
account_has_lost(Slot *slot)
{
	return !account_lost_is_told(slot, account_lost_added(slot));
}

uint64
account_next_lost(Slot *slot, uint32 *entry)
{
	Accounts   *accounts = slot_accounts(slot);

	for (; *entry < SLOT_ENTRIES; (*entry)++)
	{
		uint64		lost = pg_atomic_read_u64(&accounts->lost[*entry]);

		if (lost > 0)
			return lost;
	}
	return 0;
}

void
account_clear_lost(Slot *slot, uint32 entry, uint64 changes)
{
	pg_atomic_fetch_sub_u64(&slot_accounts(slot)->lost[entry], changes);
}

void
account_set_lost_told(Slot *slot, uint64 added)
{
	pg_write_barrier();
	pg_atomic_write_u64(&slot_accounts(slot)->lost_told, added);
}

/* --- channels ---
 *
 * Of a channel of ectowatch_notify() nothing is kept while all goes well, so
 * there may be any number of them.  Two things have to be known of what is lost.
 *
 * 1. On which channels it is to be told.  A backend that cannot hand over its
 *	  batch, at PRE_COMMIT, where a lock may be taken, holds an entry for each
 *	  channel in it, and adds to lost[] there at COMMIT; the worker does so
 *	  for what the ring drops before it was sent, and sets gap_changes.  An entry
 *	  that nobody holds, and with nothing to be told, is free for any other
 *	  channel.  It is looked for in a few places that follow from the name, and
 *	  if all are taken, so by more than a thousand channels that lost something at
 *	  about one time, then
 *	  - what a backend lost is counted for all channels together, in lost[] of
 *		SLOT_CHANNELS, and becomes a gap without a name, which is for readers
 *		of any channel, and is told to listeners of any with its next message;
 *	  - what the ring drops is noted for the channel's class, and is told with
 *		the next message to each of that class.  Who was told is kept as one of 64
 *		bits, by the same hash; so of two channels with class and bit in common
 *		only the first to get a message is told.  What is noted later takes all
 *		bits back, those of the transaction in hand too.
 *
 * 2. Whether the ring has dropped changes that a reader asks for.  That is known
 *	  of classes.  A reader may so be told of a gap that is another channel's, but
 *	  only where he came too late for the ring.
 *
 * Names are written under the lock, to entries that nobody looks at: who
 * adds to lost[] holds the entry from before until after that, both by full
 * barriers; who looks for a free one reads holders first, lost[] after that.
 * The worker reads a name after it has seen lost[], and before it takes that off.
 * gap_changes is the worker's own; it sets it while it holds the entry, and should
 * another process see too late that it was cleared, that costs nothing.
 */

/* How many places are looked at. */
#define CHANNEL_PLACES	64

static bool
channel_is_idle(Accounts *accounts, uint32 n)
{
	uint32		number = SLOT_MAX_WATCHERS + n;
	uint32		holders = pg_atomic_read_u32(&accounts->channel_holders[n]);

	pg_read_barrier();
	return holders == 0 &&
		pg_atomic_read_u64(&accounts->lost[number]) == 0 &&
		accounts->watchers[number].gap_changes == 0;
}

static uint32
name_hash(const char *name)
{
	return hash_bytes((const unsigned char *) name, (int) strlen(name));
}

uint32
account_hold_channel(Slot *slot, const char *name)
{
	Accounts   *accounts = slot_accounts(slot);
	const uint32 none = SLOT_CHANNELS - SLOT_CHANNEL;
	uint32		start = name_hash(name) % none;
	uint32		found = none;
	uint32		idle = none;
	Account    *entry;

	LWLockAcquire(&accounts->lock, LW_EXCLUSIVE);
	for (uint32 i = 0; i < CHANNEL_PLACES && found == none; i++)
	{
		uint32		n = (start + i) % none;

		entry = &accounts->watchers[SLOT_MAX_WATCHERS + n];
		if (strncmp(entry->name, name, NAMEDATALEN) == 0)
			found = n;
		else if (idle == none && channel_is_idle(accounts, n))
			idle = n;
	}
	if (found == none && idle != none)
	{
		found = idle;
		entry = &accounts->watchers[SLOT_MAX_WATCHERS + found];
		pg_atomic_write_u32(&entry->id, 0);
		pg_write_barrier();
		memset(entry, 0, sizeof(*entry));
		strlcpy(entry->name, name, NAMEDATALEN);
		pg_write_barrier();
		pg_atomic_write_u32(&entry->id, SLOT_CHANNEL + found);
	}
	if (found != none)
		pg_atomic_fetch_add_u32(&accounts->channel_holders[found], 1);
	LWLockRelease(&accounts->lock);
	return SLOT_CHANNEL + found;
}

void
account_release_channel(Slot *slot, uint32 id)
{
	if (id != SLOT_CHANNELS)
		pg_atomic_fetch_sub_u32(&slot_accounts(slot)->channel_holders[id - SLOT_CHANNEL],
								1);
}

ChannelClass *
account_class_of(Slot *slot, const char *name)
{
	return &slot_accounts(slot)->classes[name_hash(name) % SLOT_CHANNEL_CLASSES];
}

uint64
account_class_bit(const char *name)
{
	return UINT64CONST(1) << (name_hash(name) / SLOT_CHANNEL_CLASSES % 64);
}

ChannelClass *
account_class_at(Slot *slot, uint32 number)
{
	return &slot_accounts(slot)->classes[number];
}

void
account_use_channels(Slot *slot)
{
	if (!account_uses_channels(slot))
		pg_atomic_write_u32(&account_of(slot, SLOT_CHANNELS)->id,
							SLOT_CHANNELS);
}

bool
account_uses_channels(Slot *slot)
{
	return pg_atomic_read_u32(&account_of(slot, SLOT_CHANNELS)->id) != 0;
}

/* --- conditions --- */

ConditionAccount *
account_condition(Slot *slot, uint32 id)
{
	return &slot_accounts(slot)->conditions[id % SLOT_MAX_WATCHERS];
}

/* Stores a time unless one of about then is there. */
static void
note_time(pg_atomic_uint64 *at, TimestampTz now)
{
	TimestampTz last = (TimestampTz) pg_atomic_read_u64(at);

	if (now - last > USECS_PER_SEC || now < last)
		pg_atomic_write_u64(at, (uint64) now);
}

void
account_note_condition(Slot *slot, uint32 watcher, bool matched, bool failed)
{
	ConditionAccount *entry = account_condition(slot, watcher);
	TimestampTz now = GetCurrentStatementStartTimestamp();

	if (pg_atomic_read_u32(&entry->id) != watcher)
	{
		pg_atomic_write_u64(&entry->checked_at, 0);
		pg_atomic_write_u64(&entry->matched_at, 0);
		pg_atomic_write_u64(&entry->failed_at, 0);
		pg_atomic_write_u32(&entry->id, watcher);
	}
	note_time(&entry->checked_at, now);
	if (matched)
		note_time(&entry->matched_at, now);
	if (failed)
		note_time(&entry->failed_at, now);
}
