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
change_make(const ChangeParts *parts)
{
	const char *relation = parts->relation_name ? parts->relation_name : "";
	const char *values = parts->values ? parts->values : "{}";
	Change		head;
	Change	   *change;
	Size		size;

	memset(&head, 0, sizeof(head));
	head.watcher = parts->watcher;
	head.relation = parts->relation;
	head.type = parts->type;
	head.flags = parts->flags;
	head.ncolumns = parts->ncolumns;
	head.name_len = strlen(parts->name);
	head.relation_len = strlen(relation);
	head.values_len = parts->values ? parts->values_len : 2;
	head.keys_len = parts->values ? parts->keys_len : 1;
	head.old_len = parts->old ? parts->old_len : 0;
	Assert(head.name_len < NAMEDATALEN);

	size = MAXALIGN(offsetof(Change, columns) +
					head.ncolumns * sizeof(AttrNumber) +
					head.name_len + head.relation_len +
					head.values_len + head.old_len);
	head.size = size;
	change = palloc(size);

	/* the padding too: the bytes are compared and written to files */
	memset((char *) change + size - MAXIMUM_ALIGNOF, 0, MAXIMUM_ALIGNOF);
	memcpy(change, &head, offsetof(Change, columns));
	if (head.ncolumns > 0)
		memcpy(change->columns, parts->columns,
			   head.ncolumns * sizeof(AttrNumber));
	memcpy(change_name(change), parts->name, head.name_len);
	memcpy(change_relation(change), relation, head.relation_len);
	memcpy(change_values(change), values, head.values_len);
	if (head.old_len > 0)
		memcpy(change_old(change), parts->old, head.old_len);
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
