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
#include "spill.h"

static bool
is_brief(const void *at)
{
	return (*(const uint32 *) at & BRIEF_MARK) != 0;
}

static bool
needs_more(const ChangeParts *parts)
{
	return parts->old_len > 0 || parts->context_len > 0;
}

/* Without what it takes to be a multiple of 8. */
static Size
brief_bytes(const ChangeParts *parts)
{
	return offsetof(Brief, rest) + (needs_more(parts) ? sizeof(BriefMore) : 0) +
		parts->values_len + parts->old_len + parts->context_len;
}

Size
brief_needs(const ChangeParts *parts)
{
	return MAXALIGN(brief_bytes(parts));
}

void
brief_write(Brief *brief, Size size, uint32 head, const ChangeParts *parts)
{
	char	   *rest = brief->rest;

	/* the padding too: it may be written to a file */
	memset((char *) brief + size - MAXIMUM_ALIGNOF, 0, MAXIMUM_ALIGNOF);
	brief->size = size | BRIEF_MARK;
	brief->head = head;
	brief->flags = parts->flags;
	brief->padding = size - brief_bytes(parts);
	brief->more = needs_more(parts);
	brief->keys_len = parts->keys_len;
	if (brief->more)
	{
		BriefMore	more = {parts->old_len, parts->old_shown, parts->context_len};

		memcpy(rest, &more, sizeof(more));
		rest += sizeof(more);
	}
	memcpy(rest, parts->values, parts->values_len);
	rest += parts->values_len;
	if (parts->old_len > 0)
		memcpy(rest, parts->old, parts->old_len);
	rest += parts->old_len;
	if (parts->context_len > 0)
		memcpy(rest, parts->context, parts->context_len);
}

/* --- places --- */

void
brief_places_in_memory(BriefPlaces *places, const char *batch, Size len)
{
	memset(places, 0, sizeof(*places));
	places->file = -1;
	places->piece = unconstify(char *, batch);
	places->have = len;
}

void
brief_places_in_file(BriefPlaces *places, File file, uint64 len)
{
	memset(places, 0, sizeof(*places));
	places->file = file;
	places->left = len;
	places->room = Min(BRIEF_PIECE_BYTES, len);
	places->piece = palloc(places->room);
}

/* Reads on, so that the next change is there as a whole. */
static bool
read_piece(BriefPlaces *places)
{
	Size		rest = places->have - places->at;
	Size		need = rest < sizeof(uint32) ? 0 :
		brief_size(places->piece + places->at);
	Size		want;

	if (places->left == 0 && rest == 0)
		return false;
	if (places->left == 0 || need > rest + places->left)
	{
		errno = EIO;
		places->failed = true;
		return false;
	}
	memmove(places->piece, places->piece + places->at, rest);
	places->have = rest;
	places->at = 0;
	if (need > places->room)
	{
		places->piece = repalloc_huge(places->piece, need);
		places->room = need;
	}

	want = Min(places->room - rest, places->left);
	if (!spill_read(places->file, places->read, places->piece + rest, want))
	{
		places->failed = true;
		return false;
	}
	places->read += want;
	places->left -= want;
	places->have += want;
	return true;
}

const void *
brief_next_place(BriefPlaces *places)
{
	const char *place;

	do
	{
		Size		rest = places->have - places->at;

		place = places->piece + places->at;
		if (rest >= sizeof(uint32) && rest >= brief_size(place))
		{
			places->at += brief_size(place);
			return place;
		}
	} while (read_piece(places));
	return NULL;
}

/* --- changes --- */

pg_attribute_hot void
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

pg_attribute_hot void
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
	BriefMore	more = {0};
	const char *text;
	Size		text_len;
	Change	   *whole;
	Size		common;
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
	text = brief->rest;
	if (brief->more)
	{
		memcpy(&more, text, sizeof(more));
		text += sizeof(more);
	}
	text_len = (const char *) at + brief_size(at) - brief->padding - text;
	size = MAXALIGN(common + text_len);
	whole = whole_of_size(reader, size);
	memset((char *) whole + size - MAXIMUM_ALIGNOF, 0, MAXIMUM_ALIGNOF);
	memcpy(whole, head, common);
	whole->size = size;
	whole->flags = brief->flags;
	whole->keys_len = brief->keys_len;
	whole->values_len = text_len - more.old_len - more.context_len;
	whole->old_len = more.old_len;
	whole->old_shown = more.old_shown;
	whole->context_len = more.context_len;
	memcpy((char *) whole + common, text, text_len);
	return whole;
}

const Change *
brief_next(BriefReader *reader, const void *at)
{
	if (!is_brief(at) && (((const Change *) at)->flags & CHANGE_HEAD))
		brief_add_head(reader, at);
	return brief_whole(reader, at);
}
