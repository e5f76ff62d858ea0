/*-------------------------------------------------------------------------
 *
 * throttle.c
 *	  At most one message per channel, key and interval.
 *
 * Of each channel and key that had a message in its interval there is an entry:
 * when the next one may be sent, and the newest that was held back until then,
 * if one was.  The first message of a key finds no entry and is sent at once.
 * One that comes too early is held back, in place of an older one; it is the
 * newest that is sent when its time has come.  An entry whose time has come and
 * which holds nothing is dropped.
 *
 * Whether something was sent is known when it has been put on the board.  So
 * what is decided meanwhile is kept beside what holds (new_until, new_held
 * beside until, held), in entries that are listed in touched[].
 * throttle_commit() puts it in force, without allocating anything;
 * throttle_begin() drops what an attempt that failed has left.  Only the heap
 * of those that wait is changed before, for there is no other way to take one
 * by one from it.
 *
 * Where things are:
 *
 *		entries		all, by a hash of channel and key of 128 bits, with a random
 *					seed: so two keys never share one
 *		waiting		a heap by time of those that hold something
 *		idle		a heap by time of those that do not
 *		by_watcher	what is held of each watcher, in the order of the ring
 *		in_ring		what is held and still in the ring, in its order
 *
 * All of this is memory of the worker.  For the one that comes after it, there
 * is in shared memory
 *
 *		SlotProgress.held_offset	one above the offset of the first record in the
 *									ring that is held back; 0: none is
 *		Account.held_evicted		how many messages of a watcher are held back
 *									whose records are no longer in the ring, and
 *									where these were: held_from, held_to
 *
 *		Account.held				how many are held back of it at all, for a view
 *
 * which only the worker writes, together with the cursor, so that they fit to
 * it.  A new worker, before it writes to the ring, goes through it from there
 * to the cursor, and holds back the newest change of each channel and key that
 * it finds, to send them at once; some have been sent before.  What is no
 * longer in the ring becomes a gap (notify.c).
 *
 * Time is that of the monotonic clock, which nobody sets.  Memory is bounded
 * by THROTTLE_MAX_BYTES: beyond it, messages that would need more are sent;
 * or, as a new worker cannot do that before it works, become a gap.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "lib/ilist.h"
#include "lib/pairingheap.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "portability/instr_time.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "account.h"
#include "throttle.h"

#define THROTTLE_MAX_BYTES	((Size) 64 * 1024 * 1024)

/* When nothing is left, memory is given back if there was more than that. */
#define THROTTLE_KEEP_BYTES	((Size) 1024 * 1024)

typedef struct Key
{
	uint64		hash[2];
} Key;

typedef struct Entry Entry;

/* A message that is held back, in one piece with its strings. */
typedef struct Held
{
	Message		message;
	uint64		offset;			/* of its record */
	Size		size;
	Entry	   *entry;
	bool		evicted;		/* not in in_ring any more */
	dlist_node	in_ring;		/* once it is in force, as the next */
	dlist_node	of_watcher;
	char		strings[FLEXIBLE_ARRAY_MEMBER];
} Held;

struct Entry
{
	Key			key;			/* hash key */
	uint32		watcher;		/* id */
	int64		interval;		/* us, of the newest message */

	/* in force */
	int64		until;			/* nothing is sent before */
	Held	   *held;			/* or NULL */
	pairingheap *heap;			/* in which it is, or NULL */
	pairingheap_node node;

	/* decided, if this is the attempt in hand */
	uint64		attempt;
	bool		fresh;			/* made in it */
	int64		new_until;
	Held	   *new_held;
};

typedef struct Watcher
{
	dlist_head	held;			/* zeroed: empty */
	uint64		attempt;		/* something was held back in this one, since
								 * it was flushed */
	uint64		flushed;		/* what is in force was sent in this one */

	/* changes that a new worker had no room for */
	uint64		refused;
	uint64		refused_from;
	uint64		refused_to;
	uint32		refused_id;		/* of whom */
} Watcher;

/* About what an entry takes in a hash table. */
#define ENTRY_BYTES			(sizeof(Entry) + 2 * sizeof(void *) + 16)

static MemoryContext context;
static HTAB *entries;
static uint64 seed;
static Size memory;				/* taken by entries and what they hold */
static Watcher *by_watcher;
static dlist_head in_ring;
static pairingheap waiting;
static pairingheap idle;

static SlotProgress *progress;
static Slot *slot;
static uint64 attempt;
static int64 now;				/* when it began, us */
static Entry **touched;
static int	ntouched;
static int	max_touched;

/* --- time --- */

static int64
monotonic_us(void)
{
	instr_time	time;

	INSTR_TIME_SET_CURRENT(time);
	return (int64) INSTR_TIME_GET_MICROSEC(time);
}

/* For the heaps, the first of which is the earliest. */
static int
entry_compare(const pairingheap_node *a, const pairingheap_node *b,
			  void *arg pg_attribute_unused())
{
	int64		at_a = pairingheap_const_container(Entry, node, a)->until;
	int64		at_b = pairingheap_const_container(Entry, node, b)->until;

	return at_a < at_b ? 1 : at_a > at_b ? -1 : 0;
}

static Entry *
heap_first(pairingheap *heap)
{
	if (pairingheap_is_empty(heap))
		return NULL;
	return pairingheap_container(Entry, node, pairingheap_first(heap));
}

static void
entry_enter_heap(Entry *entry, pairingheap *heap)
{
	Assert(entry->heap == NULL);
	pairingheap_add(heap, &entry->node);
	entry->heap = heap;
}

static void
entry_leave_heap(Entry *entry)
{
	if (entry->heap != NULL)
		pairingheap_remove(entry->heap, &entry->node);
	entry->heap = NULL;
}

/* --- entries --- */

static bool
has_room(void)
{
#ifdef ECTOWATCH_WAIT_POINTS
	const char *less = getenv("ECTOWATCH_THROTTLE_BYTES");

	if (less != NULL)
		return memory < strtoul(less, NULL, 10);
#endif
	return memory < THROTTLE_MAX_BYTES;
}

static void
throttle_create(void)
{
	HASHCTL		info;

	if (context == NULL)
	{
		context = AllocSetContextCreate(TopMemoryContext, "ectowatch throttle",
										ALLOCSET_DEFAULT_SIZES);
		if (!pg_strong_random(&seed, sizeof(seed)))
			seed = (uint64) monotonic_us();
	}
	info.keysize = sizeof(Key);
	info.entrysize = sizeof(Entry);
	info.hcxt = context;
	by_watcher = MemoryContextAllocZero(context,
										SLOT_ENTRIES * sizeof(Watcher));
	dlist_init(&in_ring);
	waiting.ph_compare = idle.ph_compare = entry_compare;
	pairingheap_reset(&waiting);
	pairingheap_reset(&idle);
	entries = hash_create("ectowatch throttle", 256, &info,
						  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

static Watcher *
watcher_of(uint32 id)
{
	return &by_watcher[account_number(id)];
}

static Key
item_key(const ThrottleItem *item)
{
	Key			key;

	for (int i = 0; i < 2; i++)
	{
		key.hash[i] = hash_bytes_extended((const unsigned char *) item->message.channel,
										  strlen(item->message.channel), seed + i);
		key.hash[i] = hash_bytes_extended((const unsigned char *) item->key,
										  item->key_len, key.hash[i]);
	}
	return key;
}

static void
entry_remove(Entry *entry)
{
	entry_leave_heap(entry);
	memory -= ENTRY_BYTES;
	(void) hash_search(entries, &entry->key, HASH_REMOVE, NULL);
}

/* What is held is not the entry's any more. */
static void
held_free(Held *held)
{
	memory -= held->size;
	pfree(held);
}

static Held *
held_make(Entry *entry, const ThrottleItem *item)
{
	const Message *message = &item->message;
	Size		channel_size = strlen(message->channel) + 1;
	Size		size = offsetof(Held, strings) + channel_size + message->len + 1;
	Held	   *held = MemoryContextAlloc(context, size);

	held->message = *message;
	held->message.channel = held->strings;
	held->message.payload = held->strings + channel_size;
	memcpy(held->strings, message->channel, channel_size);
	memcpy(held->strings + channel_size, message->payload, message->len);
	held->strings[channel_size + message->len] = '\0';
	held->offset = item->offset;
	held->size = size;
	held->entry = entry;
	held->evicted = false;
	memory += size;
	return held;
}

/* --- what is decided in an attempt --- */

static void
touch(Entry *entry)
{
	if (entry->attempt == attempt)
		return;
	if (ntouched == max_touched)
	{
		int			n = Max(2 * max_touched, 256);

		touched = touched == NULL ?
			MemoryContextAlloc(TopMemoryContext, n * sizeof(Entry *)) :
			repalloc_huge(touched, n * sizeof(Entry *));
		max_touched = n;
	}
	touched[ntouched++] = entry;
	entry->attempt = attempt;
	entry->new_until = entry->until;
	entry->new_held = entry->held;
}

/* Holds something else, or nothing. */
static void
decide_held(Entry *entry, Held *held)
{
	if (entry->new_held != NULL && entry->new_held != entry->held)
		held_free(entry->new_held);
	entry->new_held = held;
	if (held != NULL)
		watcher_of(entry->watcher)->attempt = attempt;
}

/* What it holds is sent now, or something newer is. */
static void
decide_sent(Entry *entry)
{
	touch(entry);
	decide_held(entry, NULL);
	entry->new_until = now + entry->interval;
}

/* The entry of a message, touched; a new one is at its interval's end. */
static Entry *
item_entry(const ThrottleItem *item, bool create)
{
	Key			key;
	Entry	   *entry;
	bool		found;

	if (entries == NULL)
		throttle_create();
	key = item_key(item);
	entry = hash_search(entries, &key, HASH_FIND, NULL);
	if (entry == NULL)
	{
		if (!create)
			return NULL;
		entry = hash_search(entries, &key, HASH_ENTER, &found);
		memory += ENTRY_BYTES;
		entry->until = now;
		entry->held = NULL;
		entry->heap = NULL;
		entry->attempt = 0;
		entry->fresh = true;
	}
	entry->watcher = item->message.watcher;
	entry->interval = (int64) item->interval * 1000;
	touch(entry);
	return entry;
}

/* Gives up what was decided in an attempt that has failed. */
static void
drop_attempt(void)
{
	for (int i = 0; i < ntouched; i++)
	{
		Entry	   *entry = touched[i];

		decide_held(entry, entry->held);
		if (entry->fresh)
			entry_remove(entry);
		else if (entry->heap == NULL)
			entry_enter_heap(entry, entry->held ? &waiting : &idle);
	}
	ntouched = 0;
}

/* --- what comes into force --- */

static void
set_held_offset(void)
{
	uint64		offset = 0;

	if (!dlist_is_empty(&in_ring))
		offset = dlist_head_element(Held, in_ring, &in_ring)->offset + 1;
	pg_atomic_write_u64(&progress->held_offset, offset);
}

/* The entry of a watcher in the slot, or NULL if it is another one's by now. */
static Account *
held_watcher(const Held *held)
{
	Account    *watcher = account_of(slot, held->message.watcher);

	if (pg_atomic_read_u32(&watcher->id) != held->message.watcher)
		return NULL;
	return watcher;
}

/* Only the worker writes it. */
static void
count_held(Account *watcher, int by)
{
	pg_atomic_write_u32(&watcher->held,
						pg_atomic_read_u32(&watcher->held) + by);
}

/* It was sent, or something newer takes its place. */
static void
held_release(Held *held)
{
	Account    *watcher = held_watcher(held);

	dlist_delete(&held->of_watcher);
	if (watcher != NULL)
		count_held(watcher, -1);
	if (held->evicted)
	{
		if (watcher != NULL && watcher->held_evicted > 0)
			watcher->held_evicted--;
	}
	else
		dlist_delete(&held->in_ring);
	held_free(held);
}

/* For qsort(). */
static int
held_compare(const void *a, const void *b)
{
	uint64		at_a = (*(Entry *const *) a)->held->offset;
	uint64		at_b = (*(Entry *const *) b)->held->offset;

	return at_a < at_b ? -1 : at_a > at_b;
}

void
throttle_commit(void)
{
	int			nnew = 0;
	Entry	   *entry;

	if (entries == NULL)
		return;
	for (int i = 0; i < ntouched; i++)
	{
		entry = touched[i];
		entry_leave_heap(entry);
		if (entry->held != entry->new_held)
		{
			if (entry->held != NULL)
				held_release(entry->held);
			entry->held = entry->new_held;
			if (entry->held != NULL)
				touched[nnew++] = entry;
		}
		entry->until = entry->new_until;
		entry->fresh = false;
		entry_enter_heap(entry, entry->held ? &waiting : &idle);
	}
	ntouched = 0;

	/* all of them are newer than what was held before */
	if (nnew > 1)
		qsort(touched, nnew, sizeof(Entry *), held_compare);
	for (int i = 0; i < nnew; i++)
	{
		Held	   *held = touched[i]->held;
		Account    *watcher = held_watcher(held);

		if (watcher != NULL)
			count_held(watcher, 1);
		dlist_push_tail(&in_ring, &held->in_ring);
		dlist_push_tail(&watcher_of(held->message.watcher)->held,
						&held->of_watcher);
	}
	set_held_offset();

	while ((entry = heap_first(&idle)) != NULL && entry->until <= now)
		entry_remove(entry);
	if (hash_get_num_entries(entries) == 0 &&
		MemoryContextMemAllocated(context, true) > THROTTLE_KEEP_BYTES)
	{
		MemoryContextReset(context);
		entries = NULL;
		by_watcher = NULL;
		memory = 0;
	}
}

void
throttle_begin(Slot *for_slot)
{
	drop_attempt();
	slot = for_slot;
	progress = slot_progress(slot);
	attempt++;
	now = monotonic_us();
}

/* --- deciding --- */

bool
throttle_admit(const ThrottleItem *item)
{
	bool		room = has_room();
	Entry	   *entry = item_entry(item, room);

	if (entry == NULL)
		return true;
	if (!room || entry->new_until <= now)
	{
		decide_sent(entry);
		return true;
	}

	/* the interval may have become shorter */
	entry->new_until = Min(entry->new_until, now + entry->interval);
	decide_held(entry, held_make(entry, item));
	return false;
}

void
throttle_restore(const ThrottleItem *item)
{
	Entry	   *entry = item_entry(item, has_room());
	Watcher    *watcher = watcher_of(item->message.watcher);

	if (entry != NULL)
	{
		entry->new_until = now;
		decide_held(entry, held_make(entry, item));
		return;
	}
	if (watcher->refused == 0)
		watcher->refused_from = item->message.position;
	if (watcher->refused == 0 || watcher->refused_to != item->message.position)
		watcher->refused++;
	watcher->refused_to = item->message.position;
	watcher->refused_id = item->message.watcher;
}

uint64
throttle_refused(uint32 watcher, uint64 *from, uint64 *to)
{
	Watcher    *one = by_watcher ? watcher_of(watcher) : NULL;
	uint64		refused = 0;

	if (one != NULL && one->refused_id == watcher)
	{
		refused = one->refused;
		*from = one->refused_from;
		*to = one->refused_to;
		one->refused = 0;
	}
	return refused;
}

/* For list_sort(). */
static int
held_list_compare(const ListCell *a, const ListCell *b)
{
	uint64		at_a = ((const Held *) lfirst(a))->offset;
	uint64		at_b = ((const Held *) lfirst(b))->offset;

	return at_a < at_b ? -1 : at_a > at_b;
}

/* What is held of a watcher as far as is decided, up to a position. */
static List *
held_of_watcher(uint32 id, uint64 before, bool *rest)
{
	Watcher    *watcher = watcher_of(id);
	List	   *result = NIL;
	dlist_iter	iter;

	if (watcher->flushed != attempt)
		dlist_foreach(iter, &watcher->held)
	{
		Held	   *held = dlist_container(Held, of_watcher, iter.cur);
		Entry	   *entry = held->entry;

		if (entry->attempt == attempt && entry->new_held != held)
			continue;
		if (held->message.position < before)
			result = lappend(result, held);
		else
			*rest = true;
	}
	if (watcher->attempt == attempt)
	{
		for (int i = 0; i < ntouched; i++)
		{
			Entry	   *entry = touched[i];

			if (watcher_of(entry->watcher) == watcher &&
				entry->new_held != NULL && entry->new_held != entry->held)
			{
				if (entry->new_held->message.position < before)
					result = lappend(result, entry->new_held);
				else
					*rest = true;
			}
		}
	}
	list_sort(result, held_list_compare);
	return result;
}

void
throttle_flush(uint32 watcher, uint64 before, ThrottleSend send)
{
	MemoryContext old;
	ListCell   *lc;
	bool		rest = false;

	/* a former worker has sent it */
	if (by_watcher != NULL && send == NULL)
		watcher_of(watcher)->refused = 0;
	if (by_watcher == NULL ||
		((dlist_is_empty(&watcher_of(watcher)->held) ||
		  watcher_of(watcher)->flushed == attempt) &&
		 watcher_of(watcher)->attempt != attempt))
		return;

	old = MemoryContextSwitchTo(outbox_context());
	foreach(lc, held_of_watcher(watcher, before, &rest))
	{
		Held	   *held = lfirst(lc);

		if (send != NULL)
			send(&held->message);
		decide_sent(held->entry);
	}

	/* unless it was up to a gap that lies between */
	if (!rest)
	{
		watcher_of(watcher)->flushed = attempt;
		watcher_of(watcher)->attempt = 0;
	}
	MemoryContextSwitchTo(old);
}

const Message *
throttle_next_due(void)
{
	Entry	   *entry;

	if (entries == NULL)
		return NULL;
	while ((entry = heap_first(&waiting)) != NULL && entry->until <= now)
	{
		Held	   *held = entry->held;

		touch(entry);
		entry_leave_heap(entry);

		/* unless something else was decided of it before */
		if (entry->new_held == held)
		{
			decide_sent(entry);
			return &held->message;
		}
	}
	return NULL;
}

/* --- between attempts --- */

long
throttle_wait(void)
{
	Entry	   *entry;
	int64		left;

	drop_attempt();
	if (entries == NULL || (entry = heap_first(&waiting)) == NULL)
		return -1;
	left = entry->until - monotonic_us();
	return left <= 0 ? 0 : (long) ((left + 999) / 1000);
}

void
throttle_evicted(const RingRecord *record, uint64 offset)
{
	bool		any = false;

	while (!dlist_is_empty(&in_ring))
	{
		Held	   *held = dlist_head_element(Held, in_ring, &in_ring);
		Account    *watcher;

		if (held->offset > offset)
			break;
		Assert(held->offset == offset);
		dlist_delete(&held->in_ring);
		held->evicted = true;
		any = true;

		watcher = held_watcher(held);
		if (watcher == NULL)
			continue;
		if (watcher->held_evicted++ == 0)
			watcher->held_from = record->position;
		watcher->held_to = record->position;
	}
	if (any)
		set_held_offset();
}
