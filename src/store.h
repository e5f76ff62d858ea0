/*-------------------------------------------------------------------------
 *
 * store.h
 *	  Changes one behind the other: in memory, beyond a bound in a file.
 *
 * What is stored is what is in the file, then what is in the buffer; changes of
 * rows are stored in brief (brief.h).  For one
 * transaction of one backend; the memory belongs to a context of the caller's,
 * the file to whoever it is given.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef ECTOWATCH_STORE_H
#define ECTOWATCH_STORE_H

#include "storage/fd.h"

#include "brief.h"

/* Read by callers, written by these functions alone. */
typedef struct Store
{
	char	   *buffer;
	Size		used;
	Size		allocated;
	Size		limit;			/* of the buffer, before there is a file */
	uint64		spilled;		/* bytes that are in the file */
	uint64		spill_id;		/* 0: there is no file */
	File		file;			/* below 0: it is closed */
	bool		failed;			/* the file could not be written */
	BriefReader briefs;			/* knows the heads */
	uint64	   *serials;		/* of the heads; see StoreHead */
	uint32		maxserials;
} Store;

/*
 * Which head stands for changes of one kind.  It is good as long as the store
 * has a head of that number and serial; others may have taken its place, in
 * this store or the next.  Zeroes are none.
 */
typedef struct StoreHead
{
	uint64		serial;
	uint32		number;
} StoreHead;

/* A state to which the store can be cut. */
typedef struct StoreMark
{
	uint64		bytes;
	uint32		nheads;
} StoreMark;

#define store_bytes(s)	((s)->spilled + (s)->used)

/* Memory of the current context. */
extern void store_init(Store *store, Size limit);

/*
 * Adds a change.  Throws only for want of memory; if the file cannot be
 * written, that is noted in 'failed'.
 */
extern void store_add(Store *store, const Change *change);

/*
 * The same for one of many changes that differ in flags, values, old values and
 * context at most; 'head' is the same for all of these.
 */
extern void store_add_brief(Store *store, const ChangeParts *parts,
							StoreHead *head);

extern StoreMark store_mark(const Store *store);

/* Cuts off what lies behind the mark. */
extern void store_cut(Store *store, const StoreMark *mark);

/* Moves all that is in the buffer to the file. */
extern void store_spill(Store *store);

/*
 * Calls back for each change, in order.  False on an I/O error, or if the file
 * is closed.  Throws for want of memory, and if cancelled.
 */
typedef void (*ChangeCallback) (const Change *change, void *arg);
extern bool store_walk(Store *store, ChangeCallback callback, void *arg);

/* The same for those that are in memory.  The callback adds none. */
extern void store_walk_buffer(Store *store, ChangeCallback callback, void *arg);

/* Closes the file, and leaves it there.  Legal where nothing may fail. */
extern void store_close(Store *store);

#endif							/* ECTOWATCH_STORE_H */
