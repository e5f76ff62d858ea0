/*-------------------------------------------------------------------------
 *
 * slot.c
 *	  The shared memory of one database: its queue, its ring, its worker.
 *
 * There are ectowatch.max_databases slots in main shared memory.  A slot is
 * claimed by the first backend of a database that captures or calls, and
 * stays with it until DROP DATABASE or the end of the server; pages of a slot
 * that nobody claimed are never touched.
 *
 * Fields of a slot, and who touches them:
 *
 *	database, used, barred	under control->lock.  'database' is also read
 *							without, by the launcher, to which an old value
 *							does no harm.
 *	worker_pid				under control->lock; stored by the worker
 *	worker_procno			stored by the worker, read by those who wake it.
 *							Waking a process that has inherited the number is
 *							harmless.
 *	wanted					set by anyone, once; cleared with the slot
 *	workers_seen			counted by workers, read by the launcher, where an
 *							old value does no harm, and others; cleared with the
 *							slot
 *	progress, watchers		stored by the worker, read by all
 *	channel_holders, classes
 *							see "channels" below
 *	lost, lost_added,		added to by committing backends, first lost[], then
 *	lost_told				the number of additions; the worker reads that
 *							before it looks through lost[], and stores it in
 *							lost_told when nothing is left there
 *	conditions				stored by any backend, read by all; see below
 *	changed, queue, ring,	each with rules of its own
 *	subscriptions, board
 *
 * Life of a slot's worker, and who moves it on:
 *
 *		none, not wanted	-> none, wanted		slot_request_worker()
 *		none, wanted		-> starting			the launcher
 *		starting			-> running			slot_claim_worker()
 *		running				-> none, wanted		exit of the worker
 *
 * While barred, a count of commands, is above zero, no worker may claim the
 * slot, and the launcher starts none.  A worker that comes too late, or twice,
 * is refused by slot_claim_worker() and goes away.
 *
 * conditions[] says when watchers' conditions were last evaluated.  Backends
 * store there without order, each field by itself: of two at once one remains.
 * An entry is taken over by who finds another watcher's id in it.  A backend
 * that still captures for the former watcher may then leave a time there that
 * is not the new one's; it is a figure to be looked at, nothing hangs on it.
 * Times are those of statements, and a newer one is stored only where it
 * differs by a second: the line stays shared among writers.
 *
 * Lock order: control->lock is an LWLock and a leaf; nobody waits for another
 * process while holding it.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "ectowatch.h"
#include "slot.h"
#include "spill.h"
#include "subscription.h"

#define NO_PROC		PG_UINT32_MAX

struct Slot
{
	Oid			database;
	bool		used;			/* has been claimed before */
	int			barred;
	int			worker_pid;
	pg_atomic_uint32 worker_procno;
	pg_atomic_uint32 wanted;
	pg_atomic_uint32 workers_seen;
	ConditionVariable changed;
	SlotProgress progress;

	char		pad[PG_CACHE_LINE_SIZE];
	pg_atomic_uint64 lost_added;
	pg_atomic_uint64 lost_told;
	pg_atomic_uint64 lost[SLOT_ENTRIES];
	SlotWatcher watchers[SLOT_ENTRIES];
	pg_atomic_uint32 channel_holders[SLOT_MAX_CHANNELS];
	SlotChannelClass classes[SLOT_CHANNEL_CLASSES];
	SlotCondition conditions[SLOT_MAX_WATCHERS];

	/* queue, ring, subscriptions and board follow */
};

typedef struct SlotControl
{
	LWLock	   *lock;
	uint64		run;
	pg_atomic_uint32 launcher_procno;
} SlotControl;

static SlotControl *control;
static char *slots;				/* the first one; slot_stride() apart */

static Slot *my_slot;			/* of this process's database */

/*
 * Descriptors for batches: four for each backend that may exist, so that it
 * is the bytes that run out first, and room for 1000 small ones at least.
 */
static uint32
slot_nbatches(void)
{
	uint32		n = 1024;

	while (n < 4 * (uint32) MaxBackends)
		n *= 2;
	return n;
}

static Size
slot_queue_bytes(void)
{
	return (Size) ectowatch_queue_size * 1024;
}

Size
slot_max_inline(void)
{
	return queue_max_inline(slot_queue_bytes());
}

static Size
slot_ring_bytes(void)
{
	Size		bytes = (Size) ectowatch_ring_size * 1024;

	return bytes - bytes % RING_CHUNK_SIZE;
}

static Size
slot_ring_offset(void)
{
	return add_size(CACHELINEALIGN(sizeof(Slot)),
					CACHELINEALIGN(queue_shmem_size(slot_queue_bytes(),
													slot_nbatches())));
}

static Size
slot_subscriptions_offset(void)
{
	return CACHELINEALIGN(add_size(slot_ring_offset(),
								   ring_shmem_size(slot_ring_bytes())));
}

static Size
slot_board_offset(void)
{
	return CACHELINEALIGN(add_size(slot_subscriptions_offset(),
								   subscription_shmem_size()));
}

static Size
slot_stride(void)
{
	return CACHELINEALIGN(add_size(slot_board_offset(), board_shmem_size()));
}

Size
slot_shmem_size(void)
{
	return add_size(CACHELINEALIGN(sizeof(SlotControl)),
					mul_size(slot_stride(), ectowatch_max_databases));
}

/* The caller holds AddinShmemInitLock. */
void
slot_shmem_init(void)
{
	bool		found;

	control = ShmemInitStruct(ECTOWATCH_NAME, slot_shmem_size(), &found);
	slots = (char *) control + CACHELINEALIGN(sizeof(SlotControl));
	my_slot = NULL;
	subscription_shmem_startup();
	if (found)
		return;

	control->lock = &GetNamedLWLockTranche(ECTOWATCH_NAME)->lock;
	if (!pg_strong_random(&control->run, sizeof(control->run)))
		control->run = (uint64) GetCurrentTimestamp();
	control->run = (control->run >> 1) | 1; /* fits bigint, is not 0 */
	pg_atomic_init_u32(&control->launcher_procno, NO_PROC);
	for (int i = 0; i < ectowatch_max_databases; i++)
	{
		Slot	   *slot = slot_get(i);

		slot->database = InvalidOid;
		slot->used = false;
		slot->barred = 0;
		slot->worker_pid = 0;
		pg_atomic_init_u32(&slot->worker_procno, NO_PROC);
		pg_atomic_init_u32(&slot->wanted, 0);
		pg_atomic_init_u32(&slot->workers_seen, 0);
		ConditionVariableInit(&slot->changed);
	}
}

/* The rest is set when a database claims the slot. */
static void
slot_claim(Slot *slot, Oid database)
{
	int			number = (int) (((char *) slot - slots) / slot_stride());

	/* shared memory comes zeroed, so only a former user's traces matter */
	if (slot->used)
	{
		memset(&slot->progress, 0, sizeof(slot->progress));
		memset(slot->lost, 0, sizeof(slot->lost));
		memset(slot->watchers, 0, sizeof(slot->watchers));
		memset(slot->channel_holders, 0, sizeof(slot->channel_holders));
		memset(slot->classes, 0, sizeof(slot->classes));
		memset(slot->conditions, 0, sizeof(slot->conditions));
	}
	pg_atomic_init_u64(&slot->lost_added, 0);
	pg_atomic_init_u64(&slot->lost_told, 0);
	pg_atomic_init_u32(&slot->wanted, 0);
	pg_atomic_init_u32(&slot->workers_seen, 0);
	queue_init(slot_queue(slot), slot_queue_bytes(), slot_nbatches());
	ring_init(slot_ring(slot), slot_ring_bytes());
	board_init(slot_board(slot), number);
	subscription_shmem_claim(slot_subscriptions(slot), number, slot->used);
	slot->used = true;
	slot->barred = 0;
	slot->database = database;
}

Slot *
slot_attach(void)
{
	Slot	   *free_slot = NULL;

	Assert(OidIsValid(MyDatabaseId));

	if (my_slot != NULL)
		return my_slot;
	if (control == NULL)
		return NULL;

	LWLockAcquire(control->lock, LW_EXCLUSIVE);
	for (int i = 0; i < ectowatch_max_databases && my_slot == NULL; i++)
	{
		Slot	   *slot = slot_get(i);

		if (slot->database == MyDatabaseId)
			my_slot = slot;
		else if (slot->database == InvalidOid && free_slot == NULL)
			free_slot = slot;
	}
	if (my_slot == NULL && free_slot != NULL)
	{
		slot_claim(free_slot, MyDatabaseId);
		my_slot = free_slot;
	}
	LWLockRelease(control->lock);

	return my_slot;
}

int
slot_count(void)
{
	return control ? ectowatch_max_databases : 0;
}

Slot *
slot_get(int i)
{
	return (Slot *) (slots + i * slot_stride());
}

Oid
slot_database(Slot *slot)
{
	return slot->database;
}

Queue *
slot_queue(Slot *slot)
{
	return (Queue *) ((char *) slot + CACHELINEALIGN(sizeof(Slot)));
}

Ring *
slot_ring(Slot *slot)
{
	return (Ring *) ((char *) slot + slot_ring_offset());
}

Subscriptions *
slot_subscriptions(Slot *slot)
{
	return (Subscriptions *) ((char *) slot + slot_subscriptions_offset());
}

Board *
slot_board(Slot *slot)
{
	return (Board *) ((char *) slot + slot_board_offset());
}

SlotProgress *
slot_progress(Slot *slot)
{
	return &slot->progress;
}

SlotWatcher *
slot_watcher(Slot *slot, uint32 id)
{
	return &slot->watchers[slot_entry_number(id)];
}

uint32
slot_entry_number(uint32 id)
{
	return id >= SLOT_CHANNEL ?
		SLOT_MAX_WATCHERS + (id - SLOT_CHANNEL) % SLOT_MAX_CHANNELS :
		id % SLOT_MAX_WATCHERS;
}

SlotWatcher *
slot_entry(Slot *slot, uint32 number)
{
	return &slot->watchers[number];
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
 * Names are written under control->lock, to entries that nobody looks at: who
 * adds to lost[] holds the entry from before until after that, both by full
 * barriers; who looks for a free one reads holders first, lost[] after that.
 * The worker reads a name after it has seen lost[], and before it takes that off.
 * gap_changes is the worker's own; it sets it while it holds the entry, and should
 * another process see too late that it was cleared, that costs nothing.
 */

/* How many places are looked at. */
#define CHANNEL_PLACES	64

static bool
channel_is_idle(Slot *slot, uint32 n)
{
	uint32		number = SLOT_MAX_WATCHERS + n;
	uint32		holders = pg_atomic_read_u32(&slot->channel_holders[n]);

	pg_read_barrier();
	return holders == 0 && pg_atomic_read_u64(&slot->lost[number]) == 0 &&
		slot->watchers[number].gap_changes == 0;
}

static uint32
name_hash(const char *name)
{
	return hash_bytes((const unsigned char *) name, (int) strlen(name));
}

uint32
slot_hold_channel(Slot *slot, const char *name)
{
	const uint32 none = SLOT_CHANNELS - SLOT_CHANNEL;
	uint32		start = name_hash(name) % none;
	uint32		found = none;
	uint32		idle = none;
	SlotWatcher *entry;

	LWLockAcquire(control->lock, LW_EXCLUSIVE);
	for (uint32 i = 0; i < CHANNEL_PLACES && found == none; i++)
	{
		uint32		n = (start + i) % none;

		entry = &slot->watchers[SLOT_MAX_WATCHERS + n];
		if (strncmp(entry->name, name, NAMEDATALEN) == 0)
			found = n;
		else if (idle == none && channel_is_idle(slot, n))
			idle = n;
	}
	if (found == none && idle != none)
	{
		found = idle;
		entry = &slot->watchers[SLOT_MAX_WATCHERS + found];
		pg_atomic_write_u32(&entry->id, 0);
		pg_write_barrier();
		memset(entry, 0, sizeof(*entry));
		strlcpy(entry->name, name, NAMEDATALEN);
		pg_write_barrier();
		pg_atomic_write_u32(&entry->id, SLOT_CHANNEL + found);
	}
	if (found != none)
		pg_atomic_fetch_add_u32(&slot->channel_holders[found], 1);
	LWLockRelease(control->lock);
	return SLOT_CHANNEL + found;
}

void
slot_release_channel(Slot *slot, uint32 id)
{
	if (id != SLOT_CHANNELS)
		pg_atomic_fetch_sub_u32(&slot->channel_holders[id - SLOT_CHANNEL], 1);
}

SlotChannelClass *
slot_channel_class(Slot *slot, const char *name)
{
	return &slot->classes[name_hash(name) % SLOT_CHANNEL_CLASSES];
}

uint64
slot_channel_bit(const char *name)
{
	return UINT64CONST(1) << (name_hash(name) / SLOT_CHANNEL_CLASSES % 64);
}

SlotChannelClass *
slot_class(Slot *slot, uint32 number)
{
	return &slot->classes[number];
}

void
slot_use_channels(Slot *slot)
{
	if (!slot_uses_channels(slot))
		pg_atomic_write_u32(&slot_watcher(slot, SLOT_CHANNELS)->id,
							SLOT_CHANNELS);
}

bool
slot_uses_channels(Slot *slot)
{
	return pg_atomic_read_u32(&slot_watcher(slot, SLOT_CHANNELS)->id) != 0;
}

/* --- conditions --- */

SlotCondition *
slot_condition(Slot *slot, uint32 id)
{
	return &slot->conditions[id % SLOT_MAX_WATCHERS];
}

/* Stores a time unless one of about then is there. */
static void
slot_note_time(pg_atomic_uint64 *at, TimestampTz now)
{
	TimestampTz last = (TimestampTz) pg_atomic_read_u64(at);

	if (now - last > USECS_PER_SEC || now < last)
		pg_atomic_write_u64(at, (uint64) now);
}

void
slot_note_condition(Slot *slot, uint32 watcher, bool matched, bool failed)
{
	SlotCondition *entry = slot_condition(slot, watcher);
	TimestampTz now = GetCurrentStatementStartTimestamp();

	if (pg_atomic_read_u32(&entry->id) != watcher)
	{
		pg_atomic_write_u64(&entry->checked_at, 0);
		pg_atomic_write_u64(&entry->matched_at, 0);
		pg_atomic_write_u64(&entry->failed_at, 0);
		pg_atomic_write_u32(&entry->id, watcher);
	}
	slot_note_time(&entry->checked_at, now);
	if (matched)
		slot_note_time(&entry->matched_at, now);
	if (failed)
		slot_note_time(&entry->failed_at, now);
}

ConditionVariable *
slot_changed(Slot *slot)
{
	return &slot->changed;
}

uint64
slot_run(void)
{
	return control->run;
}

static void
slot_wake(pg_atomic_uint32 *procno)
{
	uint32		n = pg_atomic_read_u32(procno);

	if (n != NO_PROC)
		SetLatch(&ProcGlobal->allProcs[n].procLatch);
}

void
slot_request_worker(Slot *slot)
{
	if (pg_atomic_read_u32(&slot->wanted) == 0 &&
		pg_atomic_exchange_u32(&slot->wanted, 1) == 0)
		slot_wake(&control->launcher_procno);
}

bool
slot_worker_is_wanted(Slot *slot)
{
	return pg_atomic_read_u32(&slot->wanted) != 0;
}

void
slot_wake_worker(Slot *slot)
{
	slot_wake(&slot->worker_procno);
}

int
slot_worker_pid(Slot *slot)
{
	int			pid;

	LWLockAcquire(control->lock, LW_SHARED);
	pid = slot->worker_pid;
	LWLockRelease(control->lock);
	return pid;
}

bool
slot_launcher_runs(void)
{
	return pg_atomic_read_u32(&control->launcher_procno) != NO_PROC;
}

void
slot_add_lost(Slot *slot, uint32 watcher, uint64 changes)
{
	pg_atomic_fetch_add_u64(&slot->lost[slot_entry_number(watcher)], changes);
	pg_atomic_fetch_add_u64(&slot->lost_added, 1);
}

uint64
slot_lost_added(Slot *slot)
{
	return pg_atomic_read_u64(&slot->lost_added);
}

bool
slot_lost_is_told(Slot *slot, uint64 added)
{
	bool		told = pg_atomic_read_u64(&slot->lost_told) >= added;

	pg_read_barrier();
	return told;
}

bool
slot_has_lost(Slot *slot)
{
	return !slot_lost_is_told(slot, slot_lost_added(slot));
}

uint64
slot_next_lost(Slot *slot, uint32 *entry)
{
	uint64		added = slot_lost_added(slot);

	pg_memory_barrier();
	for (uint32 i = 0; i < SLOT_ENTRIES; i++)
	{
		uint64		lost = pg_atomic_read_u64(&slot->lost[i]);

		if (lost > 0)
		{
			*entry = i;
			return lost;
		}
	}
	pg_write_barrier();
	pg_atomic_write_u64(&slot->lost_told, added);
	return 0;
}

void
slot_clear_lost(Slot *slot, uint32 entry, uint64 changes)
{
	pg_atomic_fetch_sub_u64(&slot->lost[entry], changes);
}

/* before_shmem_exit callback of the worker */
static void
slot_release_worker(int code pg_attribute_unused(), Datum arg)
{
	Slot	   *slot = (Slot *) DatumGetPointer(arg);

	LWLockAcquire(control->lock, LW_EXCLUSIVE);
	slot->worker_pid = 0;
	pg_atomic_write_u32(&slot->worker_procno, NO_PROC);
	LWLockRelease(control->lock);

	ConditionVariableBroadcast(&slot->changed);
	slot_wake(&control->launcher_procno);
}

bool
slot_claim_worker(Slot *slot, Oid *database)
{
	bool		claimed = false;

	LWLockAcquire(control->lock, LW_EXCLUSIVE);
	if (OidIsValid(slot->database) && slot->worker_pid == 0 &&
		slot->barred == 0)
	{
		*database = slot->database;
		slot->worker_pid = MyProcPid;
		pg_atomic_write_u32(&slot->worker_procno, MyProc->pgprocno);
		claimed = true;
	}
	if (claimed)
		before_shmem_exit(slot_release_worker, PointerGetDatum(slot));
	LWLockRelease(control->lock);
	return claimed;
}

/* before_shmem_exit callback of the launcher */
static void
slot_release_launcher(int code pg_attribute_unused(),
					  Datum arg pg_attribute_unused())
{
	pg_atomic_write_u32(&control->launcher_procno, NO_PROC);
}

void
slot_register_launcher(void)
{
	before_shmem_exit(slot_release_launcher, (Datum) 0);
	pg_atomic_write_u32(&control->launcher_procno, MyProc->pgprocno);
}

bool
slot_needs_worker(Slot *slot)
{
	bool		needs;

	LWLockAcquire(control->lock, LW_SHARED);
	needs = OidIsValid(slot->database) &&
		pg_atomic_read_u32(&slot->wanted) != 0 &&
		slot->worker_pid == 0 && slot->barred == 0;
	LWLockRelease(control->lock);
	return needs;
}

void
slot_set_working(Slot *slot)
{
	pg_atomic_fetch_add_u32(&slot->workers_seen, 1);
}

uint32
slot_workers_seen(Slot *slot)
{
	return pg_atomic_read_u32(&slot->workers_seen);
}

static Slot *
slot_of(Oid database)
{
	for (int i = 0; i < slot_count(); i++)
	{
		if (slot_get(i)->database == database)
			return slot_get(i);
	}
	return NULL;
}

bool
slot_bar_worker(Oid database)
{
	Slot	   *slot;

	if (control == NULL)
		return false;

	LWLockAcquire(control->lock, LW_EXCLUSIVE);
	slot = slot_of(database);
	if (slot != NULL)
		slot->barred++;
	LWLockRelease(control->lock);
	return slot != NULL;
}

void
slot_unbar_worker(Oid database)
{
	Slot	   *slot;

	LWLockAcquire(control->lock, LW_EXCLUSIVE);
	slot = slot_of(database);
	if (slot != NULL && slot->barred > 0)
		slot->barred--;
	LWLockRelease(control->lock);
	slot_wake(&control->launcher_procno);
}

/* The worker of a database, if it has a slot, and that one. */
static int
worker_pid_of(Oid database, Slot **slot)
{
	int			pid = 0;

	LWLockAcquire(control->lock, LW_SHARED);
	*slot = slot_of(database);
	if (*slot != NULL)
		pid = (*slot)->worker_pid;
	LWLockRelease(control->lock);
	return pid;
}

void
slot_end_worker(Oid database)
{
	Slot	   *slot;
	int			pid;
	int			last_pid = 0;

	while ((pid = worker_pid_of(database, &slot)) != 0)
	{
		kill(pid, SIGTERM);
		last_pid = pid;

		/* the first one only prepares to sleep; so we look once more */
		ConditionVariableTimedSleep(&slot->changed, 100, PG_WAIT_EXTENSION);
	}

	/* it says so a little before core no longer counts it */
	while (last_pid != 0 && BackendPidGetProc(last_pid) != NULL)
		ConditionVariableTimedSleep(&slot->changed, 1, PG_WAIT_EXTENSION);
	ConditionVariableCancelSleep();
}

/* Nobody is left who could write to the queue, and no worker to read it. */
void
slot_release(Oid database)
{
	Slot	   *slot;
	Batch		batch;

	if (control == NULL)
		return;

	LWLockAcquire(control->lock, LW_EXCLUSIVE);
	slot = slot_of(database);
	if (slot != NULL)
	{
		BatchState	state;

		while ((state = queue_peek(slot_queue(slot), &batch)) == BATCH_COMMITTED ||
			   state == BATCH_ABORTED)
		{
			if (state == BATCH_COMMITTED && batch.spill_id != 0)
				spill_remove(batch.spill_id);
			queue_advance(slot_queue(slot));
		}
		board_discard(slot_board(slot));
		slot->database = InvalidOid;
		pg_atomic_write_u32(&slot->wanted, 0);
	}
	LWLockRelease(control->lock);
}
