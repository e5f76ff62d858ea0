/*-------------------------------------------------------------------------
 *
 * reader.h
 *	  A reader's way through the ring.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef ECTOWATCH_READER_H
#define ECTOWATCH_READER_H

#include "datatype/timestamp.h"
#include "fmgr.h"
#include "nodes/pg_list.h"
#include "utils/hsearch.h"

#include "change.h"
#include "slot.h"

/* The reader's own but for slot, after and payload, which callers read. */
typedef struct Reader
{
	Slot	   *slot;
	Ring	   *ring;
	RingCursor	cursor;
	bool		seated;			/* the cursor is where 'after' says */
	uint64		after;			/* read so far */
	List	   *names;			/* of watchers and channels; NIL: all */
	List	   *channels;		/* those of them that are not watchers */
	char	   *payload;
	HTAB	   *rights;
	List	   *gaps;			/* ReaderGap, to be told first */
} Reader;

typedef struct ReaderGap
{
	uint64		position;		/* from which to go on after it */
	const char *watcher;		/* NULL: all */
	uint64		from;
	uint64		to;
	uint64		changes;		/* 0: not known */
	const char *reason;
} ReaderGap;

typedef enum ReaderResult
{
	READER_CHANGE,
	READER_GAP,
	READER_END
} ReaderResult;

/*
 * The slot of this database, with a worker on its way; an error where there
 * can be none.
 */
extern Slot *reader_slot(void);

/*
 * Opens a reader for a function whose first two arguments are 'after' and
 * 'watchers', and checks them and the caller's right to read.
 */
extern void reader_open(Reader *reader, FunctionCallInfo fcinfo);

/*
 * Takes the next gap, or the next change into reader->payload.  reader->after
 * is behind it, or, at the end, behind all that there is.
 */
extern ReaderResult reader_next(Reader *reader, RingRecord *record,
								ReaderGap *gap);

/*
 * When a wait ends whose timeout is argument n, an interval: NULL is for
 * ever.  It ends after max_ms at the latest, unless that is negative.
 */
extern TimestampTz reader_wait_until(FunctionCallInfo fcinfo, int n,
									 long max_ms);

#endif							/* ECTOWATCH_READER_H */
