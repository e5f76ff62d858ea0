/*-------------------------------------------------------------------------
 *
 * queue.c
 *	  Batches from committing backends to the worker, through shared memory:
 *	  many writers, one reader.
 *
 * A backend that is about to commit takes a ticket and room in one step, so
 * tickets, descriptors and bytes are in the same order.  It does so while it
 * holds its row locks; so of two transactions that changed one row, the one
 * that commits first has the lower ticket.  The worker takes batches in the
 * order of tickets, and waits where one is undecided.
 *
 * A ticket's descriptor is desc[ticket % nbatches].  Its state word holds the
 * ticket beside the state, so that a word left by an earlier ticket is never
 * taken for this one.  Bytes are placed at a 64-bit offset that only grows;
 * byte 'offset' lives at data[offset % size].  A batch never wraps: where it
 * would, it starts at the next multiple of size, and 'end' counts the skip.
 *
 * Life of a descriptor, and who moves it on:
 *
 *		(free)		-> UNDECIDED	its backend, queue_reserve()
 *		UNDECIDED	-> COMMITTED	its backend, queue_commit()
 *		UNDECIDED	-> ABORTED		its backend, queue_abort()
 *		COMMITTED,
 *		ABORTED		-> (free)		the worker, queue_advance(): the ticket is
 *									below done_ticket from then on
 *
 * Fields, and who touches them:
 *
 *		size, nbatches			constant after queue_init()
 *		next_ticket, next_byte	writers, under reserve_lock
 *		done_ticket, done_byte	stored by the worker, read by writers
 *		sleeping				set by the worker, cleared by either
 *		overrun					set by writers, cleared by the worker
 *		desc[], data[]			written by the ticket's backend until it is
 *								decided, then read by the worker
 *
 * Memory order:
 *
 *	- Descriptor and bytes are written, then the state word is stored after a
 *	  write barrier; the worker loads the state word, then, after a read
 *	  barrier, the rest.
 *	- The worker is done with the bytes, then, after a full barrier, stores
 *	  done_ticket, then done_byte; a writer loads both before it writes there,
 *	  with a full barrier between.  done_byte is last, so that bytes which a
 *	  successor may read are never free: a worker that dies between the two
 *	  leaves some that are freed with the next batch.  There is room for that
 *	  one, since it takes less than half, with what it skips at the end.
 *	- A decision is stored, then, after a full barrier, 'sleeping' is loaded.
 *	  The worker stores 'sleeping', then, after a full barrier, looks at the
 *	  oldest state word.  So one of the two sees the other.
 *
 * reserve_lock is a spinlock and a leaf: nothing is called under it.  The
 * worker never takes it, so it may die at any instruction.
 *
 * Who waits: the worker for undecided batches, by sleeping, while it holds
 * nothing.  Backends wait for room, while they hold no ticket (pending.c).
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "port/atomics.h"
#include "storage/spin.h"

#include "queue.h"

/* A batch takes at most this part of the bytes. */
#define QUEUE_MAX_FRACTION	4

/* The state word: ticket << 2 | state */
#define STATE_FREE			0
#define STATE_UNDECIDED		1
#define STATE_COMMITTED		2
#define STATE_ABORTED		3
#define STATE_WORD(ticket, state)	((ticket) << 2 | (state))

typedef struct QueueDesc
{
	pg_atomic_uint64 state;
	uint64		start;			/* of its bytes */
	uint64		end;			/* what next_byte became */
	Batch		batch;
} QueueDesc;

struct Queue
{
	/* constant */
	uint64		size;
	uint32		nbatches;

	/* writers' */
	char		pad1[PG_CACHE_LINE_SIZE];
	slock_t		reserve_lock;
	uint64		next_ticket;
	uint64		next_byte;

	/* the worker's; one line, for writers read both at once */
	char		pad2[PG_CACHE_LINE_SIZE];
	pg_atomic_uint64 done_ticket;
	pg_atomic_uint64 done_byte;

	/* written seldom */
	char		pad3[PG_CACHE_LINE_SIZE];
	pg_atomic_uint32 sleeping;
	pg_atomic_uint32 overrun;
	char		pad4[PG_CACHE_LINE_SIZE];

	QueueDesc	desc[FLEXIBLE_ARRAY_MEMBER];	/* followed by data[] */
};

static Size
queue_data_offset(uint32 nbatches)
{
	return CACHELINEALIGN(offsetof(Queue, desc) + nbatches * sizeof(QueueDesc));
}

static inline QueueDesc *
queue_desc(Queue *queue, uint64 ticket)
{
	return &queue->desc[ticket & (queue->nbatches - 1)];
}

static inline char *
queue_byte(Queue *queue, uint64 offset)
{
	return (char *) queue + queue_data_offset(queue->nbatches)
		+ offset % queue->size;
}

Size
queue_shmem_size(Size bytes, uint32 nbatches)
{
	return queue_data_offset(nbatches) + bytes;
}

void
queue_init(Queue *queue, Size bytes, uint32 nbatches)
{
	Assert(bytes == MAXALIGN(bytes));
	Assert(nbatches > 0 && (nbatches & (nbatches - 1)) == 0);

	queue->size = bytes;
	queue->nbatches = nbatches;
	SpinLockInit(&queue->reserve_lock);

	/* Ticket 0 is none, so that zero can say so elsewhere. */
	queue->next_ticket = 1;
	queue->next_byte = 0;
	pg_atomic_init_u64(&queue->done_ticket, 1);
	pg_atomic_init_u64(&queue->done_byte, 0);
	pg_atomic_init_u32(&queue->sleeping, 0);
	pg_atomic_init_u32(&queue->overrun, 0);
	for (uint32 i = 0; i < nbatches; i++)
		pg_atomic_init_u64(&queue->desc[i].state, STATE_WORD(0, STATE_FREE));
}

pg_attribute_hot uint64
queue_max_inline(Size bytes)
{
	return TYPEALIGN_DOWN(MAXIMUM_ALIGNOF, bytes / QUEUE_MAX_FRACTION);
}

/*
 * Reads where it is about to write.  Where this process has not touched the
 * memory yet, the kernel maps one page for a write, but its neighbours too for
 * a read, and each process comes to each page of the queue.
 */
static inline void
queue_map(Queue *queue, QueueDesc *desc, uint64 start, uint64 len)
{
	(void) pg_atomic_read_u64(&desc->state);
	if (len > 0)
		(void) *(volatile char *) queue_byte(queue, start);
}

pg_attribute_hot bool
queue_reserve(Queue *queue, Batch *batch)
{
	uint64		need = batch->spill_id ? 0 : MAXALIGN(batch->len);
	uint64		ticket = 0;
	uint64		start = 0;
	uint64		end = 0;
	QueueDesc  *desc;

	Assert(need <= queue_max_inline(queue->size));

	SpinLockAcquire(&queue->reserve_lock);
	start = queue->next_byte;
	if (start % queue->size + need > queue->size)
		start += queue->size - start % queue->size;
	end = start + need;
	if (queue->next_ticket - pg_atomic_read_u64(&queue->done_ticket)
		< queue->nbatches &&
		end - pg_atomic_read_u64(&queue->done_byte) <= queue->size)
	{
		ticket = queue->next_ticket++;
		queue->next_byte = end;
	}
	SpinLockRelease(&queue->reserve_lock);

	if (ticket == 0)
		return false;

	pg_memory_barrier();
	batch->ticket = ticket;
	desc = queue_desc(queue, ticket);
	queue_map(queue, desc, start, need);
	desc->start = start;
	desc->end = end;
	desc->batch = *batch;
	pg_write_barrier();
	pg_atomic_write_u64(&desc->state, STATE_WORD(ticket, STATE_UNDECIDED));
	return true;
}

pg_attribute_hot void
queue_write(Queue *queue, uint64 ticket, uint64 offset,
			const void *from, Size len)
{
	QueueDesc  *desc = queue_desc(queue, ticket);

	Assert(pg_atomic_read_u64(&desc->state) ==
		   STATE_WORD(ticket, STATE_UNDECIDED));
	Assert(desc->start + offset + len <= desc->end);

	memcpy(queue_byte(queue, desc->start) + offset, from, len);
}

static bool
queue_decide(Queue *queue, uint64 ticket, int state)
{
	QueueDesc  *desc = queue_desc(queue, ticket);

	Assert(pg_atomic_read_u64(&desc->state) ==
		   STATE_WORD(ticket, STATE_UNDECIDED));

	pg_write_barrier();
	pg_atomic_write_u64(&desc->state, STATE_WORD(ticket, state));
	return queue_worker_sleeps(queue);
}

pg_attribute_hot bool
queue_commit(Queue *queue, uint64 ticket, int64 committed_at)
{
	queue_desc(queue, ticket)->batch.committed_at = committed_at;
	return queue_decide(queue, ticket, STATE_COMMITTED);
}

bool
queue_abort(Queue *queue, uint64 ticket)
{
	return queue_decide(queue, ticket, STATE_ABORTED);
}

pg_attribute_hot bool
queue_worker_sleeps(Queue *queue)
{
	pg_memory_barrier();
	return pg_atomic_read_u32(&queue->sleeping) != 0 &&
		pg_atomic_exchange_u32(&queue->sleeping, 0) != 0;
}

bool
queue_is_overrun(Queue *queue)
{
	return pg_atomic_read_u32(&queue->overrun) != 0;
}

void
queue_set_overrun(Queue *queue)
{
	pg_atomic_write_u32(&queue->overrun, 1);
}

/* The state of a ticket that is not below done_ticket. */
static BatchState
desc_state(QueueDesc *desc, uint64 ticket)
{
	uint64		word = pg_atomic_read_u64(&desc->state);

	pg_read_barrier();
	if (word == STATE_WORD(ticket, STATE_COMMITTED))
		return BATCH_COMMITTED;
	if (word == STATE_WORD(ticket, STATE_ABORTED))
		return BATCH_ABORTED;
	if (word == STATE_WORD(ticket, STATE_UNDECIDED))
		return BATCH_UNDECIDED;
	return BATCH_NONE;
}

BatchState
queue_peek(Queue *queue, Batch *batch)
{
	uint64		ticket = pg_atomic_read_u64(&queue->done_ticket);
	QueueDesc  *desc = queue_desc(queue, ticket);
	BatchState	state = desc_state(desc, ticket);

	if (state == BATCH_COMMITTED || state == BATCH_ABORTED)
		*batch = desc->batch;
	return state;
}

const char *
queue_data(Queue *queue)
{
	uint64		ticket = pg_atomic_read_u64(&queue->done_ticket);

	return queue_byte(queue, queue_desc(queue, ticket)->start);
}

void
queue_advance(Queue *queue)
{
	uint64		ticket = pg_atomic_read_u64(&queue->done_ticket);
	uint64		end = queue_desc(queue, ticket)->end;

	pg_memory_barrier();
	pg_atomic_write_u64(&queue->done_ticket, ticket + 1);
	pg_write_barrier();
	pg_atomic_write_u64(&queue->done_byte, end);

	if (queue_is_overrun(queue))
	{
		QueueUsage	usage;

		queue_usage(queue, &usage);
		if (usage.batches <= queue->nbatches / 4 * 3 &&
			usage.bytes <= queue->size / 4 * 3)
			pg_atomic_write_u32(&queue->overrun, 0);
	}
}

void
queue_set_sleeping(Queue *queue, bool sleeping)
{
	pg_atomic_write_u32(&queue->sleeping, sleeping ? 1 : 0);
	pg_memory_barrier();
}

void
queue_usage(Queue *queue, QueueUsage *usage)
{
	uint64		done;

	/*
	 * No lock, so that the worker may ask.  next_* are read after done_*, so
	 * differences are not negative.  If the worker has freed the oldest batch
	 * meanwhile, what was copied may be another's.
	 */
	do
	{
		QueueDesc  *desc;

		usage->bytes = pg_atomic_read_u64(&queue->done_byte);
		pg_read_barrier();
		done = pg_atomic_read_u64(&queue->done_ticket);
		pg_read_barrier();
		usage->tickets = *(volatile uint64 *) &queue->next_ticket;
		usage->bytes = *(volatile uint64 *) &queue->next_byte - usage->bytes;
		usage->batches = usage->tickets - done;
		usage->tickets--;

		desc = queue_desc(queue, done);
		usage->oldest_state = desc_state(desc, done);
		if (usage->oldest_state != BATCH_NONE)
			usage->oldest = desc->batch;
		pg_read_barrier();
	} while (pg_atomic_read_u64(&queue->done_ticket) != done);
}
