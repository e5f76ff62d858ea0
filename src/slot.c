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
 *	progress				stored by the worker, read by all
 *	changed, accounts,		each with rules of its own
 *	queue, ring,
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
 * Lock order: control->lock is an LWLock and a leaf, as that of accounts is;
 * nobody waits for another process while holding one.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "account.h"
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

	/* accounts, queue, ring, subscriptions and board follow */
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

pg_attribute_hot Size
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
slot_queue_offset(void)
{
	return CACHELINEALIGN(sizeof(Slot)) + CACHELINEALIGN(accounts_shmem_size());
}

static Size
slot_ring_offset(void)
{
	return add_size(slot_queue_offset(),
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
		memset(&slot->progress, 0, sizeof(slot->progress));
	pg_atomic_init_u32(&slot->wanted, 0);
	pg_atomic_init_u32(&slot->workers_seen, 0);
	accounts_init(slot_accounts(slot), control->lock->tranche, slot->used);
	queue_init(slot_queue(slot), slot_queue_bytes(), slot_nbatches());
	ring_init(slot_ring(slot), slot_ring_bytes());
	board_init(slot_board(slot), number);
	subscription_shmem_claim(slot_subscriptions(slot), number, slot->used);
	slot->used = true;
	slot->barred = 0;
	slot->database = database;
}

pg_attribute_hot Slot *
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

Accounts *
slot_accounts(Slot *slot)
{
	return (Accounts *) ((char *) slot + CACHELINEALIGN(sizeof(Slot)));
}

pg_attribute_hot Queue *
slot_queue(Slot *slot)
{
	return (Queue *) ((char *) slot + slot_queue_offset());
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

pg_attribute_hot void
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
