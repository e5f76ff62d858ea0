/*-------------------------------------------------------------------------
 *
 * brief.c
 *	  Changes of a batch, in brief.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "brief.h"

static bool
is_brief(const void *at)
{
	return (*(const uint32 *) at & BRIEF_MARK) != 0;
}

Size
brief_needs(const ChangeParts *parts)
{
	return MAXALIGN(offsetof(Brief, text) +
					parts->values_len + parts->old_len + parts->context_len);
}

void
brief_write(Brief *brief, uint32 head, const ChangeParts *parts)
{
	Size		size = brief_needs(parts);
	char	   *text = brief->text;

	/* the padding too: it may be written to a file */
	memset((char *) brief + size - MAXIMUM_ALIGNOF, 0, MAXIMUM_ALIGNOF);
	brief->size = size | BRIEF_MARK;
	brief->head = head;
	brief->flags = parts->flags;
	brief->unused = 0;
	brief->keys_len = parts->keys_len;
	brief->values_len = parts->values_len;
	brief->old_len = parts->old_len;
	brief->old_shown = parts->old_shown;
	brief->context_len = parts->context_len;
	memcpy(text, parts->values, parts->values_len);
	text += parts->values_len;
	if (parts->old_len > 0)
		memcpy(text, parts->old, parts->old_len);
	text += parts->old_len;
	if (parts->context_len > 0)
		memcpy(text, parts->context, parts->context_len);
}

void
brief_reader_init(BriefReader *reader)
{
	memset(reader, 0, sizeof(*reader));
	reader->context = CurrentMemoryContext;
}

void
brief_reader_cut(BriefReader *reader, uint32 n)
{
	while (reader->nheads > n)
		pfree(reader->heads[--reader->nheads]);
}

/* What a head has in common with its briefs comes first in it. */
static Size
common_size(const Change *head)
{
	return change_values(head) - (char *) head;
}

void
brief_add_head(BriefReader *reader, const Change *head)
{
	Change	   *copy;

	if (reader->nheads == reader->maxheads)
	{
		uint32		n = Max(8, reader->maxheads * 2);
		Size		size = n * sizeof(Change *);

		reader->heads = reader->heads ? repalloc_huge(reader->heads, size) :
			MemoryContextAllocHuge(reader->context, size);
		reader->maxheads = n;
	}
	copy = MemoryContextAlloc(reader->context, common_size(head));
	memcpy(copy, head, common_size(head));
	reader->heads[reader->nheads++] = copy;
}

static Change *
whole_of_size(BriefReader *reader, Size size)
{
	if (size > reader->room)
	{
		Size		room = Max(size, 1024);

		if (reader->whole)
			pfree(reader->whole);
		reader->whole = NULL;
		reader->room = 0;
		reader->whole = MemoryContextAlloc(reader->context, room);
		reader->room = room;
	}
	return reader->whole;
}

const Change *
brief_whole(BriefReader *reader, const void *at)
{
	const Brief *brief = at;
	const Change *head = at;
	Change	   *whole;
	Size		common;
	Size		text;
	Size		size;

	if (!is_brief(at))
	{
		if (!(head->flags & CHANGE_HEAD))
			return head;
		whole = whole_of_size(reader, head->size);
		memcpy(whole, head, head->size);
		whole->flags &= ~CHANGE_HEAD;
		return whole;
	}

	Assert(brief->head < reader->nheads);
	head = reader->heads[brief->head];
	common = common_size(head);
	text = brief->values_len + brief->old_len + brief->context_len;
	size = MAXALIGN(common + text);
	whole = whole_of_size(reader, size);
	memset((char *) whole + size - MAXIMUM_ALIGNOF, 0, MAXIMUM_ALIGNOF);
	memcpy(whole, head, common);
	whole->size = size;
	whole->flags = brief->flags;
	whole->keys_len = brief->keys_len;
	whole->values_len = brief->values_len;
	whole->old_len = brief->old_len;
	whole->old_shown = brief->old_shown;
	whole->context_len = brief->context_len;
	memcpy((char *) whole + common, brief->text, text);
	return whole;
}

const Change *
brief_next(BriefReader *reader, const void *at)
{
	if (!is_brief(at) && (((const Change *) at)->flags & CHANGE_HEAD))
		brief_add_head(reader, at);
	return brief_whole(reader, at);
}
