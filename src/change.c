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

#include "common/hashfn.h"

#include "change.h"
#include "ectowatch.h"

/*
 * A change is at most 1 MB, and in a small ring at most a 32nd of it: so that
 * a reader is not overtaken by a handful of changes.
 */
#define CHANGE_MAX_SIZE		(1024 * 1024)
#define CHANGE_RING_PART	32

pg_attribute_hot uint32
change_max_size(void)
{
	uint64		part = (uint64) ectowatch_ring_size * 1024 / CHANGE_RING_PART;

	return (uint32) Min(part, CHANGE_MAX_SIZE);
}

static const char *
relation_of(const ChangeParts *parts)
{
	return parts->relation_name ? parts->relation_name : "";
}

pg_attribute_hot Size
change_needs(const ChangeParts *parts)
{
	return MAXALIGN(offsetof(Change, columns) +
					parts->ncolumns * sizeof(AttrNumber) +
					strlen(parts->name) + strlen(relation_of(parts)) +
					(parts->values ? parts->values_len : strlen("{}")) +
					(parts->old ? parts->old_len : 0) +
					(parts->context ? parts->context_len : 0));
}

pg_attribute_hot void
change_write(Change *change, Size size, const ChangeParts *parts)
{
	/* the padding too: the bytes are compared and written to files */
	memset((char *) change + size - MAXIMUM_ALIGNOF, 0, MAXIMUM_ALIGNOF);
	memset(change, 0, offsetof(Change, columns));
	change->size = size;
	change->watcher = parts->watcher;
	change->relation = parts->relation;
	change->type = parts->type;
	change->delivery = parts->delivery;
	change->flags = parts->flags;
	change->ncolumns = parts->ncolumns;
	change->nkeys = parts->nkeys;
	change->name_len = strlen(parts->name);
	change->relation_len = strlen(relation_of(parts));
	change->values_len = parts->values ? parts->values_len : strlen("{}");
	change->keys_len = parts->values ? parts->keys_len : 1;
	change->old_len = parts->old ? parts->old_len : 0;
	change->old_shown = parts->old ? parts->old_shown : 0;
	change->context_len = parts->context ? parts->context_len : 0;
	change->throttle = parts->throttle;
	change->count = parts->count;
	Assert(change->name_len < NAMEDATALEN);

	if (change->ncolumns > 0)
		memcpy(change->columns, parts->columns,
			   change->ncolumns * sizeof(AttrNumber));
	memcpy(change_name(change), parts->name, change->name_len);
	memcpy(change_relation(change), relation_of(parts), change->relation_len);
	memcpy(change_values(change), parts->values ? parts->values : "{}",
		   change->values_len);
	if (change->old_len > 0)
		memcpy(change_old(change), parts->old, change->old_len);
	if (change->context_len > 0)
		memcpy(change_context(change), parts->context, change->context_len);
}

Change *
change_make(const ChangeParts *parts)
{
	Size		size = change_needs(parts);
	Change	   *change = palloc(size);

	change_write(change, size, parts);
	return change;
}

static inline uint64
hash_more(uint64 digest, const void *bytes, uint32 len)
{
	return len == 0 ? digest :
		hash_bytes_extended(bytes, (int) len, digest);
}

/* Old values that are not shown do not make a change another one. */
uint64
change_parts_digest(const ChangeParts *parts)
{
	uint32		numbers[] = {
		parts->watcher, parts->relation, parts->type, parts->flags,
		parts->keys_len, parts->values_len, parts->old_shown,
		parts->context_len, parts->count
	};
	uint64		digest = hash_more(0, numbers, sizeof(numbers));

	digest = hash_more(digest, parts->columns,
					   parts->ncolumns * sizeof(AttrNumber));
	digest = hash_more(digest, parts->name, strlen(parts->name));
	digest = hash_more(digest, parts->values, parts->values_len);
	digest = hash_more(digest, parts->old, parts->old_shown);
	digest = hash_more(digest, parts->context, parts->context_len);
	return digest + (digest == 0);
}

uint64
change_digest(const Change *change)
{
	ChangeParts parts = {0};
	char		name[NAMEDATALEN];

	change_copy_name(change, name);
	parts.watcher = change->watcher;
	parts.relation = change->relation;
	parts.type = change->type;
	parts.flags = change->flags;
	parts.name = name;
	parts.ncolumns = change->ncolumns;
	parts.columns = change->columns;
	parts.values = change_values(change);
	parts.values_len = change->values_len;
	parts.keys_len = change->keys_len;
	parts.old = change_old(change);
	parts.old_shown = change->old_shown;
	parts.context = change_context(change);
	parts.context_len = change->context_len;
	parts.count = change->count;
	return change_parts_digest(&parts);
}

uint64
change_key_hash(const char *values, uint32 keys_len)
{
	return hash_bytes_extended((const unsigned char *) values, keys_len, 0);
}

void
change_copy_name(const Change *change, char *name)
{
	memcpy(name, change_name(change), change->name_len);
	name[change->name_len] = '\0';
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
		case CHANGE_BULK:
			return "bulk";
		case CHANGE_GAP:
			return "gap";
		case CHANGE_ENDED:
			return "ended";
		case CHANGE_NOTIFY:
			return "notify";
	}
	return "unknown";			/* keep the compiler quiet */
}
