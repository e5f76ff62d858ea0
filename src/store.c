/*-------------------------------------------------------------------------
 *
 * store.c
 *	  Changes one behind the other: in memory, beyond a bound in a file.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "spill.h"
#include "store.h"

void
store_init(Store *store, Size limit)
{
	memset(store, 0, sizeof(*store));
	store->file = -1;
	store->limit = limit;
	store->allocated = 1024;
	store->buffer = palloc(store->allocated);
}

/* After a failure the bytes are dropped. */
void
store_spill(Store *store)
{
	if (store->spill_id == 0 && !store->failed)
		store->spill_id = spill_create(&store->file);
	if (store->spill_id == 0 ||
		!spill_write(store->file, store->spilled, store->buffer, store->used))
		store->failed = true;
	store->spilled += store->used;
	store->used = 0;
}

void
store_add(Store *store, const Change *change)
{
	if (store->used > 0 && store->used + change->size > store->limit)
		store_spill(store);
	if (store->used + change->size > store->allocated)
	{
		Size		size = Max(2 * store->allocated,
							   store->used + change->size);

		store->buffer = repalloc_huge(store->buffer, size);
		store->allocated = size;
	}
	memcpy(store->buffer + store->used, change, change->size);
	store->used += change->size;
}

void
store_cut(Store *store, uint64 bytes)
{
	if (bytes < store->spilled)
	{
		store->spilled = bytes;
		store->used = 0;
	}
	else
		store->used = bytes - store->spilled;
}

bool
store_walk(Store *store, ChangeCallback callback, void *arg)
{
	if (store->failed)
		return false;

	for (uint64 at = 0; at < store->spilled;)
	{
		Change		header;
		Change	   *change;

		if (!spill_read(store->file, at, &header, sizeof(header)))
			return false;
		change = palloc(header.size);
		if (!spill_read(store->file, at, change, header.size))
			return false;
		callback(change, arg);
		pfree(change);
		at += header.size;
	}
	for (Size at = 0; at < store->used;)
	{
		const Change *change = (const Change *) (store->buffer + at);

		callback(change, arg);
		at += change->size;
	}
	return true;
}

void
store_close(Store *store)
{
	if (store->file >= 0)
		FileClose(store->file);
	store->file = -1;
}
