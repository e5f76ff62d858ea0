/*-------------------------------------------------------------------------
 *
 * ring.h
 *	  The newest changes, kept in shared memory: one writer, many readers.
 *
 * The ring knows nothing of changes: a record is a header and opaque bytes.
 * It takes no lock and throws no error, so that any process may call it at
 * any time.  The protocol is told at the top of ring.c.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef ECTOWATCH_RING_H
#define ECTOWATCH_RING_H

typedef struct Ring Ring;

/* The header of a record, as its writer states it and as a reader gets it. */
typedef struct RingRecord
{
	uint32		len;			/* bytes of payload that follow */
	uint32		watcher;		/* whose change it is */
	uint64		position;		/* grows from record to record */
	uint64		ticket;			/* the batch it came with, 0: with none */
	uint64		xid;			/* full transaction id, 0: with none */
	int64		committed_at;	/* TimestampTz, as all times here */
	uint64		horizon;		/* full xid that is above those of all
								 * transactions that it tells of */
	uint32		index;			/* its place in the batch, from 0 */
	uint32		span;			/* it stands for positions (position - span,
								 * position]; 1 but for a gap */
	uint32		of;				/* how many changes the batch has */
	uint32		unused;
} RingRecord;

typedef enum RingResult
{
	RING_RECORD,				/* a record was read */
	RING_END,					/* nothing newer yet */
	RING_OVERTAKEN				/* the writer has reused the place */
} RingResult;

/* A reader's place: offset of the record that it reads next. */
typedef struct RingCursor
{
	Ring	   *ring;
	uint64		offset;
} RingCursor;

/*
 * Called by ring_append() for each record that is about to be overwritten,
 * with its offset.  Must not throw.
 */
typedef void (*RingEvict) (const RingRecord *record, uint64 offset, void *arg);

/* The writer's private state; what lies behind the published head. */
typedef struct RingWriter
{
	Ring	   *ring;
	uint64		tail;			/* end of what was appended */
	RingEvict	evict;
	void	   *evict_arg;
} RingWriter;

/* bytes: a multiple of RING_CHUNK_SIZE.  Memory given to init is zeroed. */
#define RING_CHUNK_SIZE		((uint64) 64 * 1024)

extern Size ring_shmem_size(Size bytes);
extern void ring_init(Ring *ring, Size bytes);

/* The longest payload that ring_append() takes. */
extern uint32 ring_max_payload(const Ring *ring);

/* --- the writer: one process at a time, the worker --- */

/* Starts behind what a former writer published, forgetting the rest. */
extern void ring_writer_start(RingWriter *writer, Ring *ring,
							  RingEvict evict, void *evict_arg);

/* Reads the newest published record's header; false if there is none. */
extern bool ring_newest(const Ring *ring, RingRecord *record);

/* Copies a record behind the last one.  No reader sees it yet. */
extern void ring_append(RingWriter *writer, const RingRecord *record,
						const void *payload);

/* Shows readers all that was appended. */
extern void ring_publish(RingWriter *writer);

/*
 * Copies the beginning of a record's payload.  For RingEvict: the record is
 * there, and only the writer could overwrite it.
 */
extern void ring_peek(const Ring *ring, uint64 offset, void *to, Size len);

/* --- readers: any process, no lock --- */

/* Offsets of the oldest record kept and of the end of the newest. */
extern uint64 ring_oldest_offset(const Ring *ring);
extern uint64 ring_head_offset(const Ring *ring);

/* Position of the newest record that was overwritten, 0 if none was. */
extern uint64 ring_evicted_position(const Ring *ring);

/*
 * The highest horizon of the records that were overwritten, 0 if none was; and
 * of those among them that had no xid.
 */
extern uint64 ring_evicted_horizon(const Ring *ring);
extern uint64 ring_evicted_gap_horizon(const Ring *ring);

/*
 * Whether a record of a transaction was overwritten.  May say so wrongly of
 * one that has run while thousands of others did.
 */
extern bool ring_has_evicted_xid(const Ring *ring, uint64 xid);

/*
 * Puts the cursor on the oldest kept record whose position is above 'after'.
 * Says nothing of records that are no longer there: compare 'after' with
 * ring_evicted_position() once a record has been read.
 */
extern void ring_seek(RingCursor *cursor, Ring *ring, uint64 after);

/*
 * Reads the record at the cursor and moves it on.  'payload' has room for
 * ring_max_payload() bytes.  The cursor stays where it was unless the result
 * is RING_RECORD.  ring_read_header() reads the header alone.
 */
extern RingResult ring_read(RingCursor *cursor, RingRecord *record,
							char *payload);
extern RingResult ring_read_header(RingCursor *cursor, RingRecord *record);

#endif							/* ECTOWATCH_RING_H */
