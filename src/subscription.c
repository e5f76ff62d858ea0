/*-------------------------------------------------------------------------
 *
 * subscription.c
 *	  Who listens to what.
 *
 * Core tells nobody who listens to which channel.  So each session that
 * LISTENs to a narrowed channel, or to a watcher's own, notes it in the slot
 * of its database; the worker sends to a narrowed channel only if it finds it
 * there, and a view shows all of them.
 *
 * Parts of the shared memory, and who touches them:
 *
 *	entries		one session listening to one channel.  A used one is in the
 *				chain of its channel's hash, a free one in the free list, one
 *				that was never used is behind 'used', untouched.  Indexes are
 *				counted from 1, so that zeroed memory is empty.
 *	buckets		first entry of each chain
 *	narrowed	how many of the used entries are narrowed channels, by hash of
 *	hashed		the watcher's part of the name; and of those, how many are
 *				hashed.  Different watchers may share a counter.
 *
 * All is written under the slot's lock of this tranche, exclusive, by the
 * session to which the entry belongs; entries and buckets are read under it.
 * The counters are also read without it.  The lock is a leaf: nothing is
 * allocated, thrown, looked up or waited for while it is held.
 *
 * What a session makes and frees entries for, and when, is told in listening.c.
 * An entry that the worker sees is one whose session was told of messages, or
 * will be told; or it is freed before the session reads, and a message was put
 * that nobody hears.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/lwlock.h"
#include "utils/hsearch.h"
#include "utils/timestamp.h"

#include "channel.h"
#include "ectowatch.h"
#include "subscription.h"

/* Watchers' counters; of 4 kB each. */
#define COUNTERS	1024

typedef struct SubscriptionEntry
{
	uint32		next;			/* in its chain or in the free list; 0: none */
	bool		used;
	Subscription what;
} SubscriptionEntry;

struct Subscriptions
{
	int			number;			/* of the slot */
	uint32		used;			/* entries that have ever been used */
	uint32		free;			/* first of the free list, or 0 */
	pg_atomic_uint32 narrowed[COUNTERS];
	pg_atomic_uint32 hashed[COUNTERS];
	uint32		buckets[FLEXIBLE_ARRAY_MEMBER];

	/* entries follow */
};

static LWLockPadded *locks;		/* by number of the slot */

/* --- shared memory --- */

static uint32
bucket_count(void)
{
	return pg_nextpower2_32(ectowatch_max_subscriptions);
}

static Size
entries_offset(void)
{
	return MAXALIGN(offsetof(Subscriptions, buckets) +
					bucket_count() * sizeof(uint32));
}

Size
subscription_shmem_size(void)
{
	return add_size(entries_offset(),
					mul_size(ectowatch_max_subscriptions,
							 sizeof(SubscriptionEntry)));
}

void
subscription_shmem_startup(void)
{
	locks = GetNamedLWLockTranche(SUBSCRIPTION_TRANCHE);
}

void
subscription_shmem_claim(Subscriptions *subscriptions, int number, bool used)
{
	/* of the entries those that are behind 'used' do not matter */
	if (used)
		memset(subscriptions, 0, entries_offset());
	subscriptions->number = number;
}

static LWLock *
lock_of(Subscriptions *subscriptions)
{
	return &locks[subscriptions->number].lock;
}

/* Counted from 1. */
static SubscriptionEntry *
entry_of(Subscriptions *subscriptions, uint32 entry)
{
	Assert(entry > 0 && entry <= subscriptions->used);
	return (SubscriptionEntry *) ((char *) subscriptions + entries_offset()) +
		(entry - 1);
}

static uint32 *
bucket_of(Subscriptions *subscriptions, const char *channel)
{
	return &subscriptions->buckets[string_hash(channel, NAMEDATALEN) %
								   bucket_count()];
}

/* The caller holds the lock. */
static void
count_entry(Subscriptions *subscriptions, const char *channel, int32 by)
{
	uint32		counter = channel_watcher_hash(channel) % COUNTERS;

	if (!channel_is_narrowed(channel))
		return;
	pg_atomic_fetch_add_u32(&subscriptions->narrowed[counter], by);
	if (channel_is_hashed(channel))
		pg_atomic_fetch_add_u32(&subscriptions->hashed[counter], by);
}

uint32
subscription_make(Subscriptions *subscriptions, const Subscription *what)
{
	uint32	   *bucket = bucket_of(subscriptions, what->channel);
	uint32		index = 0;

	LWLockAcquire(lock_of(subscriptions), LW_EXCLUSIVE);
	if (subscriptions->free != 0)
	{
		index = subscriptions->free;
		subscriptions->free = entry_of(subscriptions, index)->next;
	}
	else if (subscriptions->used < (uint32) ectowatch_max_subscriptions)
		index = ++subscriptions->used;
	if (index != 0)
	{
		SubscriptionEntry *entry = entry_of(subscriptions, index);

		entry->what = *what;
		entry->used = true;
		entry->next = *bucket;
		*bucket = index;
		count_entry(subscriptions, what->channel, 1);
	}
	LWLockRelease(lock_of(subscriptions));
	return index;
}

void
subscription_free(Subscriptions *subscriptions, uint32 index)
{
	SubscriptionEntry *entry = entry_of(subscriptions, index);
	uint32	   *link = bucket_of(subscriptions, entry->what.channel);

	LWLockAcquire(lock_of(subscriptions), LW_EXCLUSIVE);
	while (*link != index)
		link = &entry_of(subscriptions, *link)->next;
	*link = entry->next;
	count_entry(subscriptions, entry->what.channel, -1);
	entry->used = false;
	entry->next = subscriptions->free;
	subscriptions->free = index;
	LWLockRelease(lock_of(subscriptions));
}

/* --- who delivers, who looks --- */

bool
subscription_any_narrowed(Slot *slot, const char *watcher)
{
	Subscriptions *subscriptions = slot_subscriptions(slot);
	uint32		counter = channel_watcher_hash(watcher) % COUNTERS;

	/* not before the change was found to be committed */
	pg_read_barrier();
	return pg_atomic_read_u32(&subscriptions->narrowed[counter]) > 0;
}

bool
subscription_any_hashed(Slot *slot, const char *watcher)
{
	Subscriptions *subscriptions = slot_subscriptions(slot);
	uint32		counter = channel_watcher_hash(watcher) % COUNTERS;

	pg_read_barrier();
	return pg_atomic_read_u32(&subscriptions->hashed[counter]) > 0;
}

bool
subscription_exists(Slot *slot, const char *channel)
{
	Subscriptions *subscriptions = slot_subscriptions(slot);
	uint32		index;

	LWLockAcquire(lock_of(subscriptions), LW_SHARED);
	index = *bucket_of(subscriptions, channel);
	while (index != 0 &&
		   strcmp(entry_of(subscriptions, index)->what.channel, channel) != 0)
		index = entry_of(subscriptions, index)->next;
	LWLockRelease(lock_of(subscriptions));
	return index != 0;
}

Subscription *
subscription_list(Slot *slot, int *n)
{
	Subscriptions *subscriptions = slot_subscriptions(slot);
	Subscription *list = NULL;
	uint32		room = 0;
	uint32		used = 0;

	/* memory first, then the lock */
	do
	{
		room = Max(used, 64);
		if (list != NULL)
			pfree(list);
		list = palloc(room * sizeof(Subscription));
		*n = 0;

		LWLockAcquire(lock_of(subscriptions), LW_SHARED);
		used = subscriptions->used;
		for (uint32 i = 1; i <= Min(used, room); i++)
		{
			SubscriptionEntry *entry = entry_of(subscriptions, i);

			if (entry->used)
				list[(*n)++] = entry->what;
		}
		LWLockRelease(lock_of(subscriptions));
	} while (used > room);
	return list;
}

static int
channel_compare(const ListCell *a, const ListCell *b)
{
	return strcmp(lfirst(a), lfirst(b));
}

List *
subscription_narrowed(Slot *slot, const char *watcher)
{
	List	   *channels = NIL;
	List	   *distinct = NIL;
	int			n;
	Subscription *all = subscription_list(slot, &n);
	ListCell   *lc;

	for (int i = 0; i < n; i++)
	{
		if (channel_is_of(all[i].channel, watcher))
			channels = lappend(channels, pstrdup(all[i].channel));
	}
	pfree(all);
	list_sort(channels, channel_compare);
	foreach(lc, channels)
	{
		if (distinct == NIL || strcmp(llast(distinct), lfirst(lc)) != 0)
			distinct = lappend(distinct, lfirst(lc));
	}
	list_free(channels);
	return distinct;
}

