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

#include "miscadmin.h"
#include "utils/memutils.h"

#include "spill.h"
#include "store.h"

/* Of the heads of this backend, one after the other, whatever their store. */
static uint64 last_serial;

pg_attribute_hot void
store_init(Store *store, Size limit)
{
	memset(store, 0, sizeof(*store));
	brief_reader_init(&store->briefs);
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
	if (store->file < 0 ||
		!spill_write(store->file, store->spilled, store->buffer, store->used))
		store->failed = true;
	store->spilled += store->used;
	store->used = 0;
}

/* Room for a change behind the others. */
static pg_attribute_hot void *
store_room(Store *store, Size size)
{
	Size		limit = store->limit;
	void	   *room;

	/* once there is a file, by pieces */
	if (store->spilled > 0)
		limit = Min(limit, BRIEF_PIECE_BYTES);
	if (store->used > 0 && store->used + size > limit)
		store_spill(store);
	if (store->used + size > store->allocated)
	{
		Size		allocate = Max(2 * store->allocated, store->used + size);

		store->buffer = repalloc_huge(store->buffer, allocate);
		store->allocated = allocate;
	}
	room = store->buffer + store->used;
	store->used += size;
	return room;
}

void
store_add(Store *store, const Change *change)
{
	memcpy(store_room(store, change->size), change, change->size);
}

/* Nobody tells those who refer to a head that it was cut off. */
static bool
store_has_head(const Store *store, const StoreHead *head)
{
	return head->serial != 0 && head->number < store->briefs.nheads &&
		store->serials[head->number] == head->serial;
}

static void
store_add_head(Store *store, const Change *change, StoreHead *head)
{
	uint32		number = store->briefs.nheads;

	if (number >= store->maxserials)
	{
		uint32		n = Max(8, number * 2);
		Size		size = n * sizeof(uint64);

		store->serials = store->serials ?
			repalloc_huge(store->serials, size) :
			MemoryContextAllocHuge(store->briefs.context, size);
		store->maxserials = n;
	}
	brief_add_head(&store->briefs, change);
	store->serials[number] = ++last_serial;
	head->number = number;
	head->serial = last_serial;
}

pg_attribute_hot void
store_add_brief(Store *store, const ChangeParts *parts, StoreHead *head)
{
	Change	   *change;
	Size		size;

	if (store_has_head(store, head))
	{
		size = brief_needs(parts);
		brief_write(store_room(store, size), size, head->number, parts);
		return;
	}
	size = change_needs(parts);
	change = store_room(store, size);
	change_write(change, size, parts);
	change->flags |= CHANGE_HEAD;
	store_add_head(store, change, head);
}

StoreMark
store_mark(const Store *store)
{
	StoreMark	mark = {store_bytes(store), store->briefs.nheads};

	return mark;
}

void
store_cut(Store *store, const StoreMark *mark)
{
	if (mark->bytes < store->spilled)
	{
		store->spilled = mark->bytes;
		store->used = 0;
	}
	else
		store->used = mark->bytes - store->spilled;
	brief_reader_cut(&store->briefs, mark->nheads);
}

/* False if they could not be read. */
static bool
store_walk_places(Store *store, BriefPlaces *places, ChangeCallback callback,
				  void *arg)
{
	const void *place;

	while ((place = brief_next_place(places)) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		callback(brief_whole(&store->briefs, place), arg);
	}
	return !places->failed;
}

void
store_walk_buffer(Store *store, ChangeCallback callback, void *arg)
{
	BriefPlaces places;

	brief_places_in_memory(&places, store->buffer, store->used);
	(void) store_walk_places(store, &places, callback, arg);
}

static bool
store_walk_file(Store *store, ChangeCallback callback, void *arg)
{
	BriefPlaces places;
	bool		done;

	brief_places_in_file(&places, store->file, store->spilled);
	done = store_walk_places(store, &places, callback, arg);
	pfree(places.piece);
	return done;
}

bool
store_walk(Store *store, ChangeCallback callback, void *arg)
{
	if (store->failed || (store->spilled > 0 && store->file < 0))
		return false;
	if (store->spilled > 0 && !store_walk_file(store, callback, arg))
		return false;
	store_walk_buffer(store, callback, arg);
	return true;
}

pg_attribute_hot void
store_close(Store *store)
{
	if (store->file >= 0)
		FileClose(store->file);
	store->file = -1;
}
