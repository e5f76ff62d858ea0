/*-------------------------------------------------------------------------
 *
 * listener.c
 *	  The sessions that listen: what may be for them, and how far they have
 *	  read.
 *
 * Every session that has executed LISTEN has an entry here, whatever it
 * listens to and whether its database has the extension yet.  The worker asks
 * for what there may be listeners, puts that on the board, and tells each
 * listener whom it may concern up to where there is something for him.  The
 * others are left alone: neither woken, nor do they ever read what was put.
 *
 * To what a session listens is known here by a filter of hashes, in a fixed
 * place.  It may say that someone listens where nobody does; the session
 * itself knows better when it reads (listening.c).
 *
 * Fields of an entry, and who touches them.  All are written under the entry's
 * spinlock, a leaf, which is held for a few instructions:
 *
 *	database, pid,	stored by the session.  The worker looks at the first two
 *	backend, filter	without the lock, and again with it before it relies on
 *					them.
 *	from, until		what the session has not read: empty if from is not below until.  The
 *					worker stores until, and from too if there was nothing;
 *					the session moves from up to until.  Both are offsets on
 *					the board of the session's database; only the worker of
 *					that database writes them, since it finds the database in
 *					the entry under the lock.  A glance without it tells whether
 *					there may be something: the worker, whose own until is,
 *					at worst sees an old from, and keeps more; the session looks
 *					again when it is signalled; to a view it does not matter.
 *
 * control->used, how many entries have ever been used, is raised with a compare
 * and exchange before an entry is filled.
 *
 * Why nobody misses a message.  The worker stores until under the lock, behind
 * board_publish(), and signals if there was nothing to read before.  The session
 * finds under the lock that it has come to until, or that there is more.  So
 * if there is no signal, the session has not come to its look yet, and will find
 * the new until.  What L owes to a LISTEN that commits before a change is
 * told in listening.c.
 *
 * The signal is core's own for NOTIFY: it makes an idle session start a
 * transaction to look at core's queue, in which deliver.c sends ours.  Sent to a
 * process that has inherited the pid and place it does nothing but that.
 *
 * An entry belongs to the session's place among backends, and is freed before
 * the session gives that place up.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/backendid.h"
#include "storage/ipc.h"
#include "storage/procsignal.h"
#include "storage/shmem.h"
#include "storage/spin.h"

#include "compat.h"
#include "listener.h"

typedef struct Listener
{
	slock_t		lock;
	Oid			database;		/* InvalidOid: nobody's */
	int			pid;
	BackendId	backend;
	uint64		from;
	uint64		until;
	ListenerFilter filter;
} Listener;

typedef struct ListenerControl
{
	pg_atomic_uint32 used;
	char		pad[PG_CACHE_LINE_SIZE];
	Listener	listeners[FLEXIBLE_ARRAY_MEMBER];
} ListenerControl;

static ListenerControl *control;
static Listener *mine;			/* NULL: never listened */

uint32
listener_hash(const char *channel)
{
	return hash_bytes((const unsigned char *) channel, (int) strlen(channel));
}

Size
listener_shmem_size(void)
{
	return add_size(offsetof(ListenerControl, listeners),
					mul_size(MaxBackends, sizeof(Listener)));
}

void
listener_shmem_init(void)
{
	bool		found;

	control = ShmemInitStruct("ectowatch listeners", listener_shmem_size(),
							  &found);
	mine = NULL;
	if (found)
		return;
	memset(control, 0, listener_shmem_size());
	pg_atomic_init_u32(&control->used, 0);
	for (int i = 0; i < MaxBackends; i++)
		SpinLockInit(&control->listeners[i].lock);
}

/* --- this session --- */

/* before_shmem_exit callback */
static void
listener_exit(int code pg_attribute_unused(), Datum arg pg_attribute_unused())
{
	listener_set(NULL);
}

static void
listener_claim(void)
{
	uint32		index = MyBackendId - 1;
	uint32		used = pg_atomic_read_u32(&control->used);

	while (used <= index &&
		   !pg_atomic_compare_exchange_u32(&control->used, &used, index + 1))
		 /* somebody else has raised it; look again */ ;
	mine = &control->listeners[index];
	before_shmem_exit(listener_exit, (Datum) 0);
}

void
listener_set(const ListenerFilter *filter)
{
	if (mine == NULL && filter == NULL)
		return;
	if (mine == NULL)
		listener_claim();
	SpinLockAcquire(&mine->lock);
	if (filter == NULL || mine->database != MyDatabaseId)
		mine->from = mine->until = 0;
	mine->database = filter ? MyDatabaseId : InvalidOid;
	mine->pid = MyProcPid;
	mine->backend = MyBackendId;
	if (filter)
		mine->filter = *filter;
	SpinLockRelease(&mine->lock);
}

pg_attribute_hot bool
listener_has_unread(void)
{
	/* a glance; it is the signal that is relied on */
	volatile const Listener *listener = mine;

	return listener != NULL && listener->from < listener->until;
}

bool
listener_unread(uint64 *from, uint64 *until)
{
	SpinLockAcquire(&mine->lock);
	*from = mine->from;
	*until = mine->until;
	SpinLockRelease(&mine->lock);
	return *from < *until;
}

void
listener_advance(uint64 to)
{
	SpinLockAcquire(&mine->lock);
	mine->from = to;
	SpinLockRelease(&mine->lock);
}

/* --- the worker --- */

/* Those that may be of this database. */
#define foreach_listener(listener) \
	for (Listener *listener = control->listeners, \
		 *end_ = listener + pg_atomic_read_u32(&control->used); \
		 listener < end_; listener++) \
		if (listener->database == MyDatabaseId)

void
listener_all(ListenerFilter *filter)
{
	memset(filter, 0, sizeof(*filter));
	pg_memory_barrier();
	foreach_listener(listener)
	{
		for (int i = 0; i < LISTENER_BITS / 64; i++)
			filter->words[i] |= listener->filter.words[i];
	}
}

static bool
filters_meet(const ListenerFilter *a, const ListenerFilter *b)
{
	uint64		common = 0;

	for (int i = 0; i < LISTENER_BITS / 64; i++)
		common |= a->words[i] & b->words[i];
	return common != 0;
}

int
listener_tell(const ListenerFilter *filter, uint64 from, uint64 until)
{
	int			woken = 0;

	foreach_listener(listener)
	{
		bool		wake = false;
		int			pid = 0;
		BackendId	backend = InvalidBackendId;

		if (!filters_meet(filter, &listener->filter))
			continue;
		SpinLockAcquire(&listener->lock);
		if (listener->database == MyDatabaseId)
		{
			wake = listener->from >= listener->until;
			if (wake)
				listener->from = from;
			listener->until = until;
			pid = listener->pid;
			backend = listener->backend;
		}
		SpinLockRelease(&listener->lock);
		if (wake)
		{
			(void) SendProcSignal(pid, PROCSIG_NOTIFY_INTERRUPT, backend);
			woken++;
		}
	}
	return woken;
}

/* Where it begins what a listener has not read; PG_UINT64_MAX: nothing. */
static uint64
unread_of(Listener *listener)
{
	uint64		from = PG_UINT64_MAX;

	/* of the worker's own making, so that a glance will do for him */
	if (listener->from >= listener->until)
		return from;
	SpinLockAcquire(&listener->lock);
	if (listener->database == MyDatabaseId && listener->from < listener->until)
		from = listener->from;
	SpinLockRelease(&listener->lock);
	return from;
}

ListenerUnread *
listener_unread_list(int *n)
{
	ListenerUnread *list = palloc(MaxBackends * sizeof(ListenerUnread));

	*n = 0;
	foreach_listener(listener)
	{
		uint64		from = unread_of(listener);

		if (from == PG_UINT64_MAX)
			continue;
		list[*n].pid = listener->pid;
		list[(*n)++].from = from;
	}
	return list;
}

uint64
listener_first_unread(void)
{
	uint64		first = PG_UINT64_MAX;

	foreach_listener(listener)
	{
		uint64		from = unread_of(listener);

		first = Min(first, from);
	}
	return first;
}
