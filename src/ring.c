/*-------------------------------------------------------------------------
 *
 * ring.c
 *	  The newest changes, kept in shared memory: one writer, many readers.
 *
 * The ring is an endless stream of records of which the newest 'size' bytes
 * are kept.  Places in the stream are called offsets: 64-bit, only growing,
 * never wrapping; byte 'offset' lives at data[offset % size].  A record is a
 * RingRecord, its payload, padding, and a trailer that repeats the record's
 * whole size, by which the newest record is found from the head backwards.
 *
 * Readers have no place in shared memory.  The writer never waits for them
 * and never knows of them; a reader copies, and then looks whether what it
 * copied may have been overwritten meanwhile.
 *
 * Fields, and who touches them:
 *
 *		size, nchunks		constant after ring_init()
 *		evicted_*			stored by the writer, read by all
 *		oldest, head		stored by the writer, read by all
 *		chunk[]				stored by the writer, read by all
 *		data[]				stored by the writer, read by all
 *
 * All of them but data[] are 64-bit atomics, so no reader sees half of one.
 *
 * The writer, for each record:
 *
 *	 1. While the record does not fit between 'oldest' and its end: show the
 *		oldest record to the evict callback and step over it.  Then store
 *		evicted_*; write barrier; store oldest; write barrier.  The first
 *		barrier: who sees the new oldest sees what was evicted for it.  The
 *		second: who sees new bytes in data[] sees that oldest has passed the
 *		former ones.
 *	 2. Write data[], and chunk[] for each chunk that begins within the record.
 *	 3. At ring_publish(): write barrier; store head.  Who sees head sees data[].
 *
 * A reader: load head; read barrier; copy from data[]; read barrier; load
 * oldest.  A copy from an offset below oldest is discarded.  Lengths come out
 * of data[], so the header is validated that way before its length is used.
 *
 * A writer may die at any instruction.  What it had not published is behind
 * head, where no reader looks; its successor starts at head.  Records that
 * were evicted for the sake of the unpublished ones are gone all the same,
 * which oldest says.
 *
 * chunk[] finds a position without reading the stream from the start.  The
 * stream is divided into chunks of RING_CHUNK_SIZE; chunk[c % nchunks] names
 * the record that covers the first byte of chunk c.  Its position is the key
 * of a binary search, after which at most one chunk and one record are read.
 * An entry of an overwritten chunk has an offset behind that chunk's first
 * byte, for no record is as long as the ring; so it is recognised.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "port/atomics.h"

#include "ring.h"

/*
 * A record is at most this part of the ring, on which chunk[] relies, and no
 * longer than this, so that readers need no more memory in a large one.
 */
#define RING_MAX_FRACTION	16
#define RING_MAX_RECORD		((uint64) 2 * 1024 * 1024)

/* Of how many transactions we know for certain that they were evicted. */
#define RING_XIDS			4096

typedef uint64 RingTrailer;

typedef struct RingChunk
{
	pg_atomic_uint64 offset;	/* of the record on the chunk's first byte */
	pg_atomic_uint64 position;	/* of that record */
} RingChunk;

struct Ring
{
	/* constant */
	uint64		size;
	uint64		nchunks;

	/* the writer's, on a line of their own: readers poll them */
	char		pad1[PG_CACHE_LINE_SIZE];
	pg_atomic_uint64 oldest;
	pg_atomic_uint64 evicted_position;
	pg_atomic_uint64 evicted_horizon;
	pg_atomic_uint64 evicted_gap_horizon;
	pg_atomic_uint64 evicted_xids[RING_XIDS];	/* by xid % RING_XIDS, the
												 * highest */
	char		pad2[PG_CACHE_LINE_SIZE];
	pg_atomic_uint64 head;
	char		pad3[PG_CACHE_LINE_SIZE];

	RingChunk	chunk[FLEXIBLE_ARRAY_MEMBER];	/* followed by data[] */
};

StaticAssertDecl(sizeof(RingRecord) == MAXALIGN(sizeof(RingRecord)),
				 "a record's payload must begin aligned");
StaticAssertDecl(sizeof(RingTrailer) == MAXALIGN(sizeof(RingTrailer)),
				 "a record must end aligned");

static Size
ring_data_offset(Size bytes)
{
	return CACHELINEALIGN(offsetof(Ring, chunk) +
						  bytes / RING_CHUNK_SIZE * sizeof(RingChunk));
}

static inline char *
ring_data(const Ring *ring)
{
	return (char *) ring + ring_data_offset(ring->size);
}

/* The bytes that a record takes in the stream. */
static inline uint64
record_size(const RingRecord *record)
{
	return sizeof(RingRecord) + MAXALIGN(record->len) + sizeof(RingTrailer);
}

Size
ring_shmem_size(Size bytes)
{
	return ring_data_offset(bytes) + bytes;
}

void
ring_init(Ring *ring, Size bytes)
{
	Assert(bytes % RING_CHUNK_SIZE == 0 && bytes > 0);

	ring->size = bytes;
	ring->nchunks = bytes / RING_CHUNK_SIZE;
	pg_atomic_init_u64(&ring->oldest, 0);
	pg_atomic_init_u64(&ring->evicted_position, 0);
	pg_atomic_init_u64(&ring->evicted_horizon, 0);
	pg_atomic_init_u64(&ring->evicted_gap_horizon, 0);
	for (int i = 0; i < RING_XIDS; i++)
		pg_atomic_init_u64(&ring->evicted_xids[i], 0);
	pg_atomic_init_u64(&ring->head, 0);

	/* chunk[] is valid as zeroes: on every 64-bit platform, no init needed */
}

uint32
ring_max_payload(const Ring *ring)
{
	return Min(ring->size / RING_MAX_FRACTION, RING_MAX_RECORD)
		- sizeof(RingRecord) - sizeof(RingTrailer);
}

/* Copies out of the stream; what is read may be garbage until validated. */
static void
stream_read(const Ring *ring, uint64 offset, void *to, Size len)
{
	Size		start = offset % ring->size;
	Size		first = Min(len, ring->size - start);

	memcpy(to, ring_data(ring) + start, first);
	if (first < len)
		memcpy((char *) to + first, ring_data(ring), len - first);
}

static void
stream_write(Ring *ring, uint64 offset, const void *from, Size len)
{
	Size		start = offset % ring->size;
	Size		first = Min(len, ring->size - start);

	memcpy(ring_data(ring) + start, from, first);
	if (first < len)
		memcpy(ring_data(ring), (const char *) from + first, len - first);
}

void
ring_writer_start(RingWriter *writer, Ring *ring,
				  RingEvict evict, void *evict_arg)
{
	writer->ring = ring;
	writer->tail = pg_atomic_read_u64(&ring->head);
	writer->evict = evict;
	writer->evict_arg = evict_arg;
}

bool
ring_newest(const Ring *ring, RingRecord *record)
{
	Ring	   *r = (Ring *) ring;
	uint64		head = pg_atomic_read_u64(&r->head);
	RingTrailer size;

	/*
	 * A writer that died between eviction and publication may have emptied
	 * the ring; not even then is the newest record overwritten, since no
	 * single batch of appends is allowed to be as long as the ring.
	 */
	if (head == 0)
		return false;
	stream_read(ring, head - sizeof(size), &size, sizeof(size));
	stream_read(ring, head - size, record, sizeof(*record));
	return true;
}

static void
raise_u64(pg_atomic_uint64 *ptr, uint64 value)
{
	if (pg_atomic_read_u64(ptr) < value)
		pg_atomic_write_u64(ptr, value);
}

/* Makes room so that the stream may be written up to 'end'. */
static void
ring_make_room(RingWriter *writer, uint64 end)
{
	Ring	   *ring = writer->ring;
	uint64		oldest = pg_atomic_read_u64(&ring->oldest);

	if (end - oldest <= ring->size)
		return;

	while (end - oldest > ring->size)
	{
		RingRecord	record;

		stream_read(ring, oldest, &record, sizeof(record));
		if (writer->evict)
			writer->evict(&record, oldest, writer->evict_arg);

		/* who sees the position sees what the callback has stored */
		pg_write_barrier();
		raise_u64(&ring->evicted_position, record.position);
		raise_u64(&ring->evicted_horizon, record.horizon);
		if (record.xid == 0)
			raise_u64(&ring->evicted_gap_horizon, record.horizon);
		else
			raise_u64(&ring->evicted_xids[record.xid % RING_XIDS], record.xid);
		oldest += record_size(&record);
	}

	pg_write_barrier();
	pg_atomic_write_u64(&ring->oldest, oldest);
	pg_write_barrier();
}

void
ring_append(RingWriter *writer, const RingRecord *record, const void *payload)
{
	Ring	   *ring = writer->ring;
	uint64		start = writer->tail;
	RingTrailer size = record_size(record);
	uint64		end = start + size;
	uint64		c;

	Assert(record->len <= ring_max_payload(ring));

	/* Keep the newest published record: a successor starts from it. */
	if (end - pg_atomic_read_u64(&ring->head) > ring->size / 2)
		ring_publish(writer);

	ring_make_room(writer, end);

	stream_write(ring, start, record, sizeof(*record));
	stream_write(ring, start + sizeof(*record), payload, record->len);
	stream_write(ring, end - sizeof(size), &size, sizeof(size));

	/* each chunk whose first byte is in [start, end) */
	for (c = (start + RING_CHUNK_SIZE - 1) / RING_CHUNK_SIZE;
		 c * RING_CHUNK_SIZE < end; c++)
	{
		RingChunk  *chunk = &ring->chunk[c % ring->nchunks];

		pg_atomic_write_u64(&chunk->offset, start);
		pg_atomic_write_u64(&chunk->position, record->position);
	}

	writer->tail = end;
}

void
ring_publish(RingWriter *writer)
{
	pg_write_barrier();
	pg_atomic_write_u64(&writer->ring->head, writer->tail);
}

void
ring_peek(const Ring *ring, uint64 offset, void *to, Size len)
{
	stream_read(ring, offset + sizeof(RingRecord), to, len);
}

uint64
ring_oldest_offset(const Ring *ring)
{
	return pg_atomic_read_u64(&((Ring *) ring)->oldest);
}

uint64
ring_head_offset(const Ring *ring)
{
	return pg_atomic_read_u64(&((Ring *) ring)->head);
}

uint64
ring_evicted_position(const Ring *ring)
{
	return pg_atomic_read_u64(&((Ring *) ring)->evicted_position);
}

uint64
ring_evicted_horizon(const Ring *ring)
{
	return pg_atomic_read_u64(&((Ring *) ring)->evicted_horizon);
}

uint64
ring_evicted_gap_horizon(const Ring *ring)
{
	return pg_atomic_read_u64(&((Ring *) ring)->evicted_gap_horizon);
}

bool
ring_has_evicted_xid(const Ring *ring, uint64 xid)
{
	/* a higher one in its place tells nothing of it */
	return pg_atomic_read_u64(&((Ring *) ring)->evicted_xids[xid % RING_XIDS]) >= xid;
}

/*
 * Finds a record from which a scan for the first position above 'after' may
 * start: the newest record known from chunk[] that is not above it.
 */
static uint64
ring_find_start(Ring *ring, uint64 after)
{
	uint64		oldest = ring_oldest_offset(ring);
	uint64		head = ring_head_offset(ring);
	uint64		start = oldest;
	uint64		low = oldest / RING_CHUNK_SIZE + 1;
	uint64		high;			/* one behind the last candidate */

	pg_read_barrier();
	high = (head + RING_CHUNK_SIZE - 1) / RING_CHUNK_SIZE;
	while (low < high)
	{
		uint64		middle = low + (high - low) / 2;
		RingChunk  *chunk = &ring->chunk[middle % ring->nchunks];
		uint64		offset = pg_atomic_read_u64(&chunk->offset);
		uint64		position;

		pg_read_barrier();
		position = pg_atomic_read_u64(&chunk->position);

		if (offset > middle * RING_CHUNK_SIZE)
			low = middle + 1;	/* overwritten meanwhile: look later */
		else if (position <= after)
		{
			start = Max(start, offset);
			low = middle + 1;
		}
		else
			high = middle;
	}
	return start;
}

void
ring_seek(RingCursor *cursor, Ring *ring, uint64 after)
{
	RingRecord	record;

	cursor->ring = ring;
	cursor->offset = ring_find_start(ring, after);

	for (;;)
	{
		RingCursor	next = *cursor;

		switch (ring_read_header(&next, &record))
		{
			case RING_RECORD:
				if (record.position > after)
					return;
				*cursor = next;
				break;
			case RING_END:
				return;
			case RING_OVERTAKEN:
				cursor->offset = ring_oldest_offset(ring);
				break;
		}
	}
}

/* Whether what was copied from 'offset' on was intact all the while. */
static inline bool
ring_still_there(Ring *ring, uint64 offset)
{
	pg_read_barrier();
	return ring_oldest_offset(ring) <= offset;
}

RingResult
ring_read_header(RingCursor *cursor, RingRecord *record)
{
	Ring	   *ring = cursor->ring;

	if (!ring_still_there(ring, cursor->offset))
		return RING_OVERTAKEN;
	if (cursor->offset >= ring_head_offset(ring))
		return RING_END;
	pg_read_barrier();
	stream_read(ring, cursor->offset, record, sizeof(*record));
	if (!ring_still_there(ring, cursor->offset))
		return RING_OVERTAKEN;

	cursor->offset += record_size(record);
	return RING_RECORD;
}

RingResult
ring_read(RingCursor *cursor, RingRecord *record, char *payload)
{
	RingCursor	next = *cursor;
	RingResult	result = ring_read_header(&next, record);

	if (result != RING_RECORD)
		return result;

	stream_read(cursor->ring, cursor->offset + sizeof(*record),
				payload, record->len);
	if (!ring_still_there(cursor->ring, cursor->offset))
		return RING_OVERTAKEN;

	*cursor = next;
	return RING_RECORD;
}
