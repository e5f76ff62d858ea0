/*-------------------------------------------------------------------------
 *
 * queue.h
 *	  Batches from committing backends to the worker, through shared memory:
 *	  many writers, one reader.
 *
 * The queue knows nothing of changes: a batch is opaque bytes.  It throws no
 * error, waits for nothing and wakes nobody; callers do.  The protocol is
 * told at the top of queue.c.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef ECTOWATCH_QUEUE_H
#define ECTOWATCH_QUEUE_H

typedef struct Queue Queue;

/* A batch as its backend states it and as the worker gets it. */
typedef struct Batch
{
	uint64		ticket;			/* set by queue_reserve() */
	uint64		len;			/* bytes of all changes */
	uint64		xid;			/* full transaction id */
	uint64		spill_id;		/* where the bytes are; 0: in the queue */
	int64		reserved_at;	/* TimestampTz, as all times here */
	int64		committed_at;	/* set by queue_commit() */
	uint32		nchanges;
	int32		pid;			/* of the backend */
} Batch;

typedef enum BatchState
{
	BATCH_NONE,					/* no ticket has been taken */
	BATCH_UNDECIDED,			/* its transaction has not ended */
	BATCH_COMMITTED,
	BATCH_ABORTED
} BatchState;

/* What queue_usage() tells. */
typedef struct QueueUsage
{
	uint64		batches;		/* tickets that are not free again */
	uint64		bytes;
	uint64		tickets;		/* ever taken */
	BatchState	oldest_state;
	Batch		oldest;			/* valid unless oldest_state is BATCH_NONE */
} QueueUsage;

/* bytes: a multiple of 8; nbatches: a power of two. */
extern Size queue_shmem_size(Size bytes, uint32 nbatches);
extern void queue_init(Queue *queue, Size bytes, uint32 nbatches);

/* The longest batch that a queue of so many bytes carries itself. */
extern uint64 queue_max_inline(Size bytes);

/* --- committing backends --- */

/*
 * Takes a ticket, and room for batch->len bytes unless spill_id is set; false
 * if there is no room.  On true the caller must end with queue_commit() or
 * queue_abort(), whatever happens: all later batches wait for it.
 */
extern bool queue_reserve(Queue *queue, Batch *batch);

/* Copies bytes into the room of a reserved batch. */
extern void queue_write(Queue *queue, uint64 ticket, uint64 offset,
						const void *from, Size len);

/*
 * Decides a batch.  True if the worker sleeps and has to be woken, which is
 * said to one caller only.  May be called where nothing may fail.
 */
extern bool queue_commit(Queue *queue, uint64 ticket, int64 committed_at);
extern bool queue_abort(Queue *queue, uint64 ticket);

/*
 * For backends that changed something else that the worker looks at: true
 * if it sleeps and has to be woken.  A full memory barrier.
 */
extern bool queue_worker_sleeps(Queue *queue);

/*
 * The queue is overrun from when a backend waited for room in vain until the
 * worker has freed a quarter.  No one waits for an overrun queue.
 */
extern bool queue_is_overrun(Queue *queue);
extern void queue_set_overrun(Queue *queue);

/* --- the worker --- */

/* Describes the oldest batch; 'batch' is set if it is decided. */
extern BatchState queue_peek(Queue *queue, Batch *batch);

/* The bytes of the oldest batch, whose spill_id is 0.  Contiguous. */
extern const char *queue_data(Queue *queue);

/* Frees the oldest batch, which must be decided. */
extern void queue_advance(Queue *queue);

/*
 * Says that the worker is going to sleep (or no longer does).  After saying
 * so the worker must look once more at all that could wake it.
 */
extern void queue_set_sleeping(Queue *queue, bool sleeping);

/* --- anyone --- */

extern void queue_usage(Queue *queue, QueueUsage *usage);

#endif							/* ECTOWATCH_QUEUE_H */
