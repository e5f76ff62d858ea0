/*-------------------------------------------------------------------------
 *
 * brief.h
 *	  Changes of a batch, in brief.
 *
 * A batch may hold a million changes of one watcher, most of whose bytes would
 * be the same.  So in pending, spill file and queue the first is written whole,
 * as a head, and the others as briefs, which name their head by its number, in
 * the order of heads in the batch.  Whoever reads a batch reads it from its
 * start, and so knows the heads.  In the ring each change is whole again.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef ECTOWATCH_BRIEF_H
#define ECTOWATCH_BRIEF_H

#include "storage/fd.h"

#include "change.h"

/* In the place where a Change has its size, which is a multiple of 8. */
#define BRIEF_MARK			1

typedef struct Brief
{
	uint32		size;			/* of the whole, a multiple of 8; BRIEF_MARK */
	uint32		head;
	uint16		flags;
	uint8		padding;		/* bytes at the end */
	bool		more;			/* a BriefMore comes first in rest[] */
	uint32		keys_len;
	char		rest[FLEXIBLE_ARRAY_MEMBER];	/* values, old, context */
} Brief;

/* What a change has besides that has old values, shown or not, or a context. */
typedef struct BriefMore
{
	uint32		old_len;
	uint32		old_shown;
	uint32		context_len;
} BriefMore;

/* The bytes that a change takes in a batch, be it whole or brief. */
#define brief_size(at)		(*(const uint32 *) (at) & ~(uint32) BRIEF_MARK)

/* The bytes that a change takes in brief, and writing it there. */
extern Size brief_needs(const ChangeParts *parts);
extern void brief_write(Brief *brief, Size size, uint32 head,
						const ChangeParts *parts);

/*
 * Where the changes of a batch lie, one after the other.  A file is written and
 * read by pieces of about so many bytes: memory that is used again and again is
 * in the processor's cache.
 */
#define BRIEF_PIECE_BYTES	(256 * 1024)

typedef struct BriefPlaces
{
	File		file;			/* below 0: all is in the piece */
	uint64		read;			/* of the file, */
	uint64		left;			/* and what is not read yet */
	char	   *piece;
	Size		room;			/* in the piece, */
	Size		have;			/* of which so much is filled, */
	Size		at;				/* and so much behind us */
	bool		failed;			/* the file could not be read; errno is set */
} BriefPlaces;

extern void brief_places_in_memory(BriefPlaces *places, const char *batch,
								   Size len);

/* The piece is memory of the current context, here and in brief_next_place(). */
extern void brief_places_in_file(BriefPlaces *places, File file, uint64 len);

/*
 * The next one, valid until the next call; NULL: there is none, or it could not
 * be read.  Throws only for want of memory; takes no interrupts, for its caller
 * may be in the middle of something.
 */
extern const void *brief_next_place(BriefPlaces *places);

/* The heads of one batch, and room for one change. */
typedef struct BriefReader
{
	MemoryContext context;
	Change	  **heads;
	uint32		nheads;
	uint32		maxheads;
	Change	   *whole;
	Size		room;			/* of it */
} BriefReader;

/* Its memory is of the current context, and goes with that. */
extern void brief_reader_init(BriefReader *reader);

/* Forgets all heads but the first n. */
extern void brief_reader_cut(BriefReader *reader, uint32 n);

/* Remembers the next head. */
extern void brief_add_head(BriefReader *reader, const Change *head);

/*
 * The change at a place of the batch, whose head is known; it lasts until the
 * next call.  Throws only for want of memory.
 */
extern const Change *brief_whole(BriefReader *reader, const void *at);

/* The same for who reads from the start, and so learns the heads. */
extern const Change *brief_next(BriefReader *reader, const void *at);

#endif							/* ECTOWATCH_BRIEF_H */
