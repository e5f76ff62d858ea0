/*-------------------------------------------------------------------------
 *
 * store.h
 *	  Changes one behind the other: in memory, beyond a bound in a file.
 *
 * What is stored is what is in the file, then what is in the buffer.  For one
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

#include "change.h"

/* Read by callers, written by these functions alone. */
typedef struct Store
{
	char	   *buffer;
	Size		used;
	Size		allocated;
	Size		limit;			/* of the buffer */
	uint64		spilled;		/* bytes that are in the file */
	uint64		spill_id;		/* 0: there is no file */
	File		file;			/* below 0: it is closed */
	bool		failed;			/* the file could not be written */
} Store;

#define store_bytes(s)	((s)->spilled + (s)->used)

/* Memory of the current context. */
extern void store_init(Store *store, Size limit);

/*
 * Adds a change.  Throws only for want of memory; if the file cannot be
 * written, that is noted in 'failed'.
 */
extern void store_add(Store *store, const Change *change);

/* Cuts off what lies behind the first 'bytes'. */
extern void store_cut(Store *store, uint64 bytes);

/* Moves all that is in the buffer to the file. */
extern void store_spill(Store *store);

/* Calls back for each change, in order.  False on an I/O error. */
typedef void (*ChangeCallback) (const Change *change, void *arg);
extern bool store_walk(Store *store, ChangeCallback callback, void *arg);

/* Closes the file, and leaves it there.  Legal where nothing may fail. */
extern void store_close(Store *store);

#endif							/* ECTOWATCH_STORE_H */
