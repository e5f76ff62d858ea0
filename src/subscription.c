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
 * A session's own state, from LISTEN to the end of the transaction:
 *
 *	actions		LISTEN and UNLISTEN of this transaction, in order, with the
 *				nesting level at which they were executed.  Levels never fall
 *				along the list.  At release of a savepoint its actions get the
 *				level below, at rollback to it they are cut off: as async.c
 *				does with its own.
 *	listening	what the session has entries for, by channel
 *
 * At XACT_EVENT_PRE_COMMIT, where an error is still legal, the actions are
 * played: what is new gets an entry, active at once, or the commit fails;
 * what is to go is only marked.  At COMMIT, where nothing may fail, the marked
 * ones are freed; at ABORT the new ones are, and marks taken off.  Neither
 * allocates: an LWLock, of which core itself takes some there, links, and
 * removal from a hash table.  PRE_COMMIT comes behind deferred triggers, so no
 * LISTEN comes later; were another library's callback to execute one, it would
 * not be tracked.  PREPARE: core refuses LISTEN and UNLISTEN there, what is
 * left are UNLISTENs of nothing.
 *
 * Why the worker misses nobody.  L listens, W writes, the worker sends W's
 * changes.  What is owed to L are the changes of those W that commit after L.
 *
 *	L's entry is made, then L commits, then W: the worker looks later than W's
 *		commit, of which it learned from the queue; W's commit comes after L's
 *		by whatever makes it "after" (a lock of core, a message to a client),
 *		L's commit after its entry in program order.  So the worker sees the
 *		counter, which is raised with full barriers, and takes the lock or sees
 *		the entry.
 *	The worker looks before L's entry is made: then it knew of W's commit
 *		before L's, and W's changes are not owed.
 *	Between PRE_COMMIT and COMMIT of L, however long that is (L waits for a
 *		standby), or where L aborts in the end: messages are sent that nobody
 *		hears, or L alone.  Core has a new listener registered from PRE_COMMIT
 *		on, right behind our callback, and at AtCommit_Notify, right behind our
 *		COMMIT, it looks at what was sent since: an entry is never there too late.
 *	UNLISTEN: the entry goes at COMMIT, then core's.  A message between the two
 *		was not sent, of a change that is no longer owed.
 *	UNLISTEN and LISTEN of one channel in a transaction: the entry stays
 *		all the time, in whatever order and at whatever level.
 *	Two sessions with one channel have two entries, the channel is there while
 *		one of them is.  A session with one channel twice has one.
 *	The worker sees an entry that is freed before its NOTIFY commits: a message
 *		that nobody hears.
 *	The worker dies and comes back: entries belong to sessions and stay.
 *	The session ends, in a transaction or not: before_shmem_exit, registered
 *		before its first entry is made, frees all of them, with the same lock;
 *		the ABORT that may follow finds none.  Killed without that, the server
 *		starts over.  DROP DATABASE finds no session, so no entry is left when
 *		the slot gets another database.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
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

/* --- this session --- */

typedef enum ActionKind
{
	ACTION_ADD,
	ACTION_REMOVE,
	ACTION_REMOVE_ALL
} ActionKind;

typedef struct Action
{
	int			level;
	ActionKind	kind;
	bool		required;
	char		channel[NAMEDATALEN];
	char		log_watcher[NAMEDATALEN];	/* "": it is not logged */
} Action;

typedef struct Listening
{
	char		channel[NAMEDATALEN];	/* the hash key */
	uint32		entry;			/* 0: none yet */
	bool		required;
	bool		added;			/* by this transaction */
	bool		removed;		/* by this transaction */
	char		log_watcher[NAMEDATALEN];
} Listening;

static List *actions;			/* in TopTransactionContext */
static HTAB *listening;
static bool played;				/* 'listening' has marks */
static Subscriptions *mine;

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

/* Makes an entry; 0 if none is free. */
static uint32
entry_make(Subscriptions *subscriptions, const Subscription *what)
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

/* Legal where nothing may fail. */
static void
entry_free(Subscriptions *subscriptions, uint32 index)
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

/* --- LISTEN and UNLISTEN --- */

static Listening *
listening_find(const char *channel)
{
	return listening ? hash_search(listening, channel, HASH_FIND, NULL) : NULL;
}

static void
action_append(ActionKind kind, const char *channel, bool required,
			  const char *log_watcher)
{
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);
	Action	   *action = palloc0(sizeof(Action));

	action->level = GetCurrentTransactionNestLevel();
	action->kind = kind;
	action->required = required;
	if (channel)
		strlcpy(action->channel, channel, NAMEDATALEN);
	if (log_watcher)
		strlcpy(action->log_watcher, log_watcher, NAMEDATALEN);
	actions = lappend(actions, action);
	MemoryContextSwitchTo(old);
}

void
subscription_add(Slot *slot, const char *channel, bool required,
				 const char *log_watcher)
{
	mine = slot_subscriptions(slot);
	if (actions != NIL || listening_find(channel) == NULL)
		action_append(ACTION_ADD, channel, required, log_watcher);
}

void
subscription_remove(const char *channel)
{
	if (actions == NIL &&
		(listening == NULL || hash_get_num_entries(listening) == 0))
		return;
	action_append(channel ? ACTION_REMOVE : ACTION_REMOVE_ALL, channel, false,
				  NULL);
}

/* --- the end of the transaction --- */

/* before_shmem_exit callback */
static void
subscription_exit(int code pg_attribute_unused(),
				  Datum arg pg_attribute_unused())
{
	HASH_SEQ_STATUS scan;
	Listening  *one;

	hash_seq_init(&scan, listening);
	while ((one = hash_seq_search(&scan)) != NULL)
	{
		if (one->entry != 0)
			entry_free(mine, one->entry);
		one->entry = 0;
	}
	listening = NULL;
	actions = NIL;
	played = false;
}

static void
listening_start(void)
{
	HASHCTL		ctl;

	if (listening != NULL)
		return;
	ctl.keysize = NAMEDATALEN;
	ctl.entrysize = sizeof(Listening);
	ctl.hcxt = TopMemoryContext;
	listening = hash_create("ectowatch subscriptions", 16, &ctl,
							HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	before_shmem_exit(subscription_exit, (Datum) 0);
}

/* Marks what an action makes of this session's entries. */
static void
action_play(const Action *action)
{
	HASH_SEQ_STATUS scan;
	Listening  *one;
	bool		found;

	switch (action->kind)
	{
		case ACTION_ADD:
			one = hash_search(listening, action->channel, HASH_ENTER, &found);
			if (!found)
			{
				one->entry = 0;
				one->required = false;
				one->added = true;
			}
			one->required = one->required || action->required;
			one->removed = false;
			strlcpy(one->log_watcher, action->log_watcher, NAMEDATALEN);
			break;
		case ACTION_REMOVE:
			one = listening_find(action->channel);
			if (one != NULL)
				one->removed = true;
			break;
		case ACTION_REMOVE_ALL:
			hash_seq_init(&scan, listening);
			while ((one = hash_seq_search(&scan)) != NULL)
				one->removed = true;
			break;
	}
}

/* Gets entries for what is new; ERROR if one is required and there is none. */
static void
listening_claim(void)
{
	Subscription what;
	HASH_SEQ_STATUS scan;
	Listening  *one;

	memset(&what, 0, sizeof(what));
	what.pid = MyProcPid;
	what.role = GetSessionUserId();
	what.since = GetCurrentTimestamp();

	hash_seq_init(&scan, listening);
	while ((one = hash_seq_search(&scan)) != NULL)
	{
		if (!one->added || one->removed)
			continue;
		strlcpy(what.channel, one->channel, NAMEDATALEN);
		one->entry = entry_make(mine, &what);
		if (one->entry != 0)
			continue;
		if (one->required)
		{
			hash_seq_term(&scan);
			ereport(ERROR,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("cannot listen to channel \"%s\": too many subscriptions",
							what.channel),
					 errdetail("The sessions of this database have %d, and nothing would be sent to another one.",
							   ectowatch_max_subscriptions),
					 errhint("Increase ectowatch.max_subscriptions and restart the server.")));
		}
		one->removed = true;	/* core's business alone */
	}
}

/* For debugging; after COMMIT it would be exact, but nothing may fail there. */
static void
listening_log(void)
{
	HASH_SEQ_STATUS scan;
	Listening  *one;

	hash_seq_init(&scan, listening);
	while ((one = hash_seq_search(&scan)) != NULL)
	{
		if (one->added && !one->removed && one->log_watcher[0] != '\0')
			ereport(LOG,
					(errmsg("ectowatch: process %d listens to channel \"%s\" of watcher \"%s\"",
							MyProcPid, one->channel, one->log_watcher)));
	}
}

static void
subscription_pre_commit(void)
{
	ListCell   *lc;

	if (actions == NIL)
		return;
	listening_start();
	played = true;
	foreach(lc, actions)
		action_play(lfirst(lc));
	if (mine != NULL)
		listening_claim();
	listening_log();
}

/* Nothing in it may fail. */
static void
subscription_end(bool committed)
{
	HASH_SEQ_STATUS scan;
	Listening  *one;

	actions = NIL;				/* its memory goes with the transaction */
	if (!played)
		return;
	played = false;
	hash_seq_init(&scan, listening);
	while ((one = hash_seq_search(&scan)) != NULL)
	{
		if (committed ? one->removed : one->added)
		{
			if (one->entry != 0)
				entry_free(mine, one->entry);
			(void) hash_search(listening, one->channel, HASH_REMOVE, NULL);
			continue;
		}
		one->added = false;
		one->removed = false;
	}
}

static void
subscription_xact_callback(XactEvent event, void *arg pg_attribute_unused())
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			subscription_pre_commit();
			break;
		case XACT_EVENT_COMMIT:
			subscription_end(true);
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			subscription_end(false);
			break;
		default:
			break;
	}
}

static void
subscription_subxact_callback(SubXactEvent event,
							  SubTransactionId subid pg_attribute_unused(),
							  SubTransactionId parent pg_attribute_unused(),
							  void *arg pg_attribute_unused())
{
	int			level = GetCurrentTransactionNestLevel();

	if (event != SUBXACT_EVENT_COMMIT_SUB && event != SUBXACT_EVENT_ABORT_SUB)
		return;
	for (int i = list_length(actions) - 1; i >= 0; i--)
	{
		Action	   *action = list_nth(actions, i);

		if (action->level < level)
			break;
		if (event == SUBXACT_EVENT_COMMIT_SUB)
			action->level = level - 1;
		else
			actions = list_truncate(actions, i);
	}
}

void
subscription_init(void)
{
	RegisterXactCallback(subscription_xact_callback, NULL);
	RegisterSubXactCallback(subscription_subxact_callback, NULL);
}
