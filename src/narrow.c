/*-------------------------------------------------------------------------
 *
 * narrow.c
 *	  From a change to its narrowed channels.
 *
 * The worker has a change as the writer rendered it, and names channels by the
 * texts that it finds in there: those which ectowatch_channel() renders in the
 * same way from what a subscriber gives it.
 *
 * The JSON is read by a scanner of its own that looks at the outermost object's
 * members only, in one pass and without recursion.  Core's parser would do,
 * but it throws where values are nested too deeply for its stack, and where
 * an escape has no character in the database's encoding; and values may be
 * what others wrote, even, by a cast to json, what is no JSON at all.  The
 * worker would meet the same change again after each error.  What the scanner
 * cannot read it says.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "nodes/pg_list.h"
#include "utils/memutils.h"

#include "channel.h"
#include "narrow.h"

/* A member of an object, as it stands there. */
typedef struct Member
{
	const char *name;			/* without its quotes, with escapes */
	Size		name_len;
	const char *value;
	Size		value_len;
} Member;

typedef struct Narrow
{
	char		watcher[NAMEDATALEN];
	bool		hashed;
	NarrowCallback callback;
	void	   *arg;
	MemoryContext caller;
	StringInfoData column;
	StringInfoData value;
} Narrow;

/* --- scanning --- */

/* From a quote to behind the one that closes it; NULL if none does. */
static const char *
skip_string(const char *p, const char *end)
{
	for (p++; p < end; p++)
	{
		if (*p == '"')
			return p + 1;
		if (*p == '\\')
			p++;
	}
	return NULL;
}

/* To the comma or brace behind a value; NULL if there is none. */
static const char *
skip_value(const char *p, const char *end)
{
	int			depth = 0;

	while (p != NULL && p < end)
	{
		switch (*p)
		{
			case '"':
				p = skip_string(p, end);
				continue;
			case '{':
			case '[':
				depth++;
				break;
			case ',':
				if (depth == 0)
					return p;
				break;
			case '}':
			case ']':
				if (depth == 0)
					return p;
				depth--;
				break;
		}
		p++;
	}
	return NULL;
}

/*
 * The members of an object, in order.  False, and those that it came to, if it
 * cannot be read to its end.
 */
static bool
read_members(const char *json, Size len, List **members)
{
	const char *p = json;
	const char *end = json + len;

	*members = NIL;
	if (len < 2 || *p++ != '{')
		return false;
	if (*p == '}')
		return p + 1 == end;
	for (;;)
	{
		Member	   *member = palloc(sizeof(Member));
		const char *behind;

		if (p >= end || *p != '"' ||
			(behind = skip_string(p, end)) == NULL ||
			behind >= end || *behind != ':')
			return false;
		member->name = p + 1;
		member->name_len = behind - 1 - member->name;
		member->value = behind + 1;
		p = skip_value(member->value, end);
		if (p == NULL || p == member->value || *p == ']')
			return false;
		member->value_len = p - member->value;
		*members = lappend(*members, member);
		if (*p == '}')
			return p + 1 == end;
		p++;
	}
}

static const Member *
find_member(List *members, const Member *named)
{
	ListCell   *lc;

	foreach(lc, members)
	{
		const Member *member = lfirst(lc);

		if (member->name_len == named->name_len &&
			memcmp(member->name, named->name, named->name_len) == 0)
			return member;
	}
	return NULL;
}

static bool
same_value(const Member *a, const Member *b)
{
	return a->value_len == b->value_len &&
		memcmp(a->value, b->value, a->value_len) == 0;
}

/* --- channels --- */

/* Appends a member's name without its escapes. */
static void
append_name(StringInfo out, const Member *member)
{
	/* with its quotes it is a JSON string */
	(void) channel_value(out, member->name - 1, member->name_len + 2);
}

static void
call_back(Narrow *narrow)
{
	char		channel[NAMEDATALEN];

	(void) channel_narrowed(channel, narrow->watcher,
							narrow->column.data, narrow->column.len,
							narrow->value.data, narrow->value.len,
							narrow->hashed);
	if (channel[0] != '\0')
	{
		MemoryContext context = MemoryContextSwitchTo(narrow->caller);

		narrow->callback(channel, narrow->arg);
		MemoryContextSwitchTo(context);
	}
}

static void
narrow_member(Narrow *narrow, const Member *member)
{
	/* where it is too long for a name, it need not be copied */
	if (!narrow->hashed && member->value_len > 6 * NAMEDATALEN)
		return;
	resetStringInfo(&narrow->column);
	resetStringInfo(&narrow->value);
	append_name(&narrow->column, member);
	if (channel_value(&narrow->value, member->value, member->value_len))
		call_back(narrow);
}

/* The channel of a key of several columns: {"a":1,"b":2}. */
static void
narrow_key(Narrow *narrow, List *members, int nkeys)
{
	resetStringInfo(&narrow->column);
	resetStringInfo(&narrow->value);
	for (int i = 0; i < nkeys; i++)
	{
		const Member *member = list_nth(members, i);

		/* as of a single column, null has none */
		if (member->value_len == 4 && memcmp(member->value, "null", 4) == 0)
			return;
		if (i > 0)
			appendStringInfoChar(&narrow->column, ',');
		append_name(&narrow->column, member);
		appendStringInfoChar(&narrow->value, i > 0 ? ',' : '{');
		appendBinaryStringInfo(&narrow->value, member->name - 1,
							   member->name_len + 2);
		appendStringInfoChar(&narrow->value, ':');
		appendBinaryStringInfo(&narrow->value, member->value,
							   member->value_len);
	}
	appendStringInfoChar(&narrow->value, '}');
	call_back(narrow);
}

/* The members of the key as they were. */
static List *
old_key(List *values, List *old, int nkeys)
{
	List	   *key = NIL;
	bool		differs = false;

	for (int i = 0; i < nkeys; i++)
	{
		const Member *member = list_nth(values, i);
		const Member *was = find_member(old, member);

		if (was != NULL && !same_value(was, member))
			differs = true;
		key = lappend(key, unconstify(Member *, was ? was : member));
	}
	return differs ? key : NIL;
}

bool
narrow_change(const Change *change, bool hashed,
			  NarrowCallback callback, void *arg)
{
	MemoryContext context;
	Narrow		narrow;
	List	   *values;
	List	   *old = NIL;
	bool		left = (change->flags & CHANGE_LEFT) != 0;
	bool		complete;
	ListCell   *lc;

	Assert(change->type == CHANGE_INSERTED || change->type == CHANGE_UPDATED ||
		   change->type == CHANGE_DELETED);

	context = AllocSetContextCreate(CurrentMemoryContext, "ectowatch narrow",
									ALLOCSET_SMALL_SIZES);
	narrow.caller = MemoryContextSwitchTo(context);

	memcpy(narrow.watcher, change_name(change), change->name_len);
	narrow.watcher[change->name_len] = '\0';
	narrow.hashed = hashed;
	narrow.callback = callback;
	narrow.arg = arg;
	initStringInfo(&narrow.column);
	initStringInfo(&narrow.value);

	/* where members are missing, values were too long or failed */
	complete = read_members(change_values(change), change->values_len, &values);
	if ((!left && list_length(values) < change->ncolumns) ||
		(change->flags & CHANGE_OLD_CUT))
		complete = false;
	if (change->old_len > 0 &&
		!read_members(change_old(change), change->old_len, &old))
		complete = false;

	foreach(lc, left ? NIL : values)
		narrow_member(&narrow, lfirst(lc));
	foreach(lc, old)
	{
		const Member *was = lfirst(lc);
		const Member *is = find_member(values, was);

		if (is == NULL || !same_value(was, is))
			narrow_member(&narrow, was);
	}
	if (hashed && change->nkeys > 1 &&
		list_length(values) >= change->nkeys)
	{
		List	   *key = old_key(values, old, change->nkeys);

		if (!left)
			narrow_key(&narrow, values, change->nkeys);
		if (key != NIL)
			narrow_key(&narrow, key, change->nkeys);
	}

	MemoryContextSwitchTo(narrow.caller);
	MemoryContextDelete(context);
	return complete;
}
