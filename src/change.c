/*-------------------------------------------------------------------------
 *
 * change.c
 *	  A change as bytes.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "change.h"
#include "ectowatch.h"

/*
 * A change is at most 1 MB, and in a small ring at most a 32nd of it: so that
 * a reader is not overtaken by a handful of changes.
 */
#define CHANGE_MAX_SIZE		(1024 * 1024)
#define CHANGE_RING_PART	32

uint32
change_max_size(void)
{
	uint64		part = (uint64) ectowatch_ring_size * 1024 / CHANGE_RING_PART;

	return (uint32) Min(part, CHANGE_MAX_SIZE);
}

Change *
change_make(uint32 watcher, Oid relation, ChangeType type, int flags,
			const char *name, const char *relation_name,
			const char *values, uint32 values_len, uint32 keys_len,
			const char *old, uint32 old_len)
{
	Size		name_len = strlen(name);
	Size		relation_len = strlen(relation_name);
	Size		size = MAXALIGN(offsetof(Change, data) + name_len +
								relation_len + values_len + old_len);
	Change	   *change = palloc(size);

	Assert(name_len < NAMEDATALEN);

	/* the padding too: the bytes are compared and written to files */
	memset((char *) change + size - MAXIMUM_ALIGNOF, 0, MAXIMUM_ALIGNOF);
	change->size = size;
	change->watcher = watcher;
	change->relation = relation;
	change->type = type;
	change->flags = flags;
	change->name_len = name_len;
	change->unused = 0;
	change->relation_len = relation_len;
	change->keys_len = keys_len;
	change->values_len = values_len;
	change->old_len = old_len;
	memcpy(change_name(change), name, name_len);
	memcpy(change_relation(change), relation_name, relation_len);
	memcpy(change_values(change), values, values_len);
	if (old_len > 0)
		memcpy(change_old(change), old, old_len);
	return change;
}

const char *
change_type_name(ChangeType type)
{
	switch (type)
	{
		case CHANGE_INSERTED:
			return "inserted";
		case CHANGE_UPDATED:
			return "updated";
		case CHANGE_DELETED:
			return "deleted";
		case CHANGE_TRUNCATED:
			return "truncated";
		case CHANGE_GAP:
			return "gap";
		case CHANGE_ENDED:
			return "ended";
	}
	return "unknown";			/* keep the compiler quiet */
}
