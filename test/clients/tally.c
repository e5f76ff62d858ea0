/*-------------------------------------------------------------------------
 *
 * tally.c
 *	  Counts changes by watcher and type, and checks their order.
 *
 * Order is checked twice: positions have to grow from change to change,
 * whatever the watcher, and where the rows carry a counter, each change of a row has to
 * show the next value of it.  A value that is not above the last one is an
 * order violation; one that passes over others means that changes are missing
 * and is counted as skipped.  The last value of each row is kept in one hash
 * table.  Rows are known by 64 bits of hash alone: among a million rows the
 * odds that two meet are one in forty million.
 *
 * The parser knows JSON as the server writes it, compact or with the spaces
 * of jsonb, and trusts it to be well-formed.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "tally.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_COUNTS	256

/* How often a type of change came from a watcher. */
typedef struct Count
{
	char		watcher[64];
	char		type[32];
	uint64_t	changes;
} Count;

/* The last value of a row's counter. */
typedef struct Row
{
	uint64_t	hash;			/* 0: entry is free */
	long long	value;
} Row;

static Count counts[MAX_COUNTS];
static int	ncounts;

static Row *rows;
static uint64_t nrows;
static uint64_t rows_size;		/* a power of two */

static long long last_position;

static const char *counter;
static size_t counter_len;

static uint64_t order_violations;
static uint64_t position_violations;
static uint64_t skipped;
static uint64_t unknown;

void
tally_init(const char *counter_name)
{
	counter = counter_name;
	counter_len = counter ? strlen(counter) : 0;
	rows_size = 1024 * 1024;
	rows = calloc(rows_size, sizeof(Row));
	if (rows == NULL)
		abort();
}

static uint64_t
hash_bytes(uint64_t hash, const char *bytes, size_t len)
{
	/* FNV-1a */
	for (size_t i = 0; i < len; i++)
		hash = (hash ^ (unsigned char) bytes[i]) * UINT64_C(0x100000001b3);
	return hash;
}

static Row *
row_find(uint64_t hash)
{
	uint64_t	i = (hash ^ hash >> 32) & (rows_size - 1);

	while (rows[i].hash != 0 && rows[i].hash != hash)
		i = (i + 1) & (rows_size - 1);
	return &rows[i];
}

static void
rows_grow(void)
{
	Row		   *old = rows;
	uint64_t	old_size = rows_size;

	rows_size *= 4;
	rows = calloc(rows_size, sizeof(Row));
	if (rows == NULL)
		abort();
	for (uint64_t i = 0; i < old_size; i++)
	{
		if (old[i].hash != 0)
			*row_find(old[i].hash) = old[i];
	}
	free(old);
}

static const char *
skip_space(const char *p)
{
	while (*p == ' ')
		p++;
	return p;
}

/* From the first character of a JSON value to behind its last one. */
static const char *
skip_value(const char *p)
{
	int			depth = 0;

	do
	{
		switch (*p)
		{
			case '\0':
				return p;
			case '"':
				for (p++; *p != '"' && *p != '\0'; p++)
				{
					if (*p == '\\' && p[1] != '\0')
						p++;
				}
				break;
			case '{':
			case '[':
				depth++;
				break;
			case '}':
			case ']':
				depth--;
				break;
			default:
				/* a number or word ends before what follows it */
				if (depth == 0 && strchr(",}] ", p[1]))
					return p + 1;
				if (depth == 0)
				{
					p++;
					continue;
				}
				break;
		}
		p++;
		if (depth == 0)
			return p;
	} while (true);
}

/* One member of an object. */
typedef struct Member
{
	const char *name;
	size_t		name_len;
	const char *value;
	size_t		value_len;
} Member;

/*
 * Takes the next member; *p is behind the opening brace, or where the last
 * call left it.  False at the end, or if this is not an object.
 */
static bool
next_member(const char **p, Member *member)
{
	const char *q = skip_space(*p);

	if (*q == ',')
		q = skip_space(q + 1);
	if (*q != '"')
		return false;
	member->name = q + 1;
	q = skip_value(q);
	member->name_len = q - 1 - member->name;
	q = skip_space(q);
	if (*q != ':')
		return false;
	member->value = skip_space(q + 1);
	q = skip_value(member->value);
	member->value_len = q - member->value;
	*p = q;
	return true;
}

static bool
member_is(const Member *member, const char *name, size_t len)
{
	return member->name_len == len && memcmp(member->name, name, len) == 0;
}

static void
check_counter(const char *watcher, const char *values)
{
	uint64_t	hash = hash_bytes(UINT64_C(0xcbf29ce484222325),
								  watcher, strlen(watcher) + 1);
	long long	value = 0;
	bool		found = false;
	Member		member;
	Row		   *row;

	if (*values++ != '{')
		return;
	while (next_member(&values, &member))
	{
		if (member_is(&member, counter, counter_len))
		{
			value = strtoll(member.value, NULL, 10);
			found = true;
		}
		else
		{
			hash = hash_bytes(hash, member.name, member.name_len);
			hash = hash_bytes(hash, ":", 1);
			hash = hash_bytes(hash, member.value, member.value_len);
			hash = hash_bytes(hash, ",", 1);
		}
	}
	if (!found)
		return;

	row = row_find(hash | 1);
	if (row->hash == 0)
	{
		if (2 * ++nrows > rows_size)
		{
			rows_grow();
			row = row_find(hash | 1);
		}
		row->hash = hash | 1;
		row->value = 0;			/* rows start with it */
	}
	if (value <= row->value)
		order_violations++;
	else
	{
		skipped += value - row->value - 1;
		row->value = value;
	}
}

static Count *
count_find(const char *watcher, const char *type, size_t type_len)
{
	Count	   *count;

	for (int i = 0; i < ncounts; i++)
	{
		count = &counts[i];
		if (strncmp(count->type, type, type_len) == 0 &&
			count->type[type_len] == '\0' &&
			strcmp(count->watcher, watcher) == 0)
			return count;
	}
	if (ncounts == MAX_COUNTS)
		abort();
	count = &counts[ncounts++];
	snprintf(count->watcher, sizeof(count->watcher), "%s", watcher);
	snprintf(count->type, sizeof(count->type), "%.*s", (int) type_len, type);
	return count;
}

void
tally_add(const char *watcher, const char *type, size_t type_len,
		  const char *values, long long position)
{
	Count	   *count;

	if (type_len >= sizeof(count->type))
		type_len = sizeof(count->type) - 1;
	count = count_find(watcher, type, type_len);
	count->changes++;
	if (position <= last_position)
		position_violations++;
	last_position = position;
	if (counter)
		check_counter(watcher, values);
}

bool
tally_add_message(const char *channel, const char *message)
{
	const char *p = message;
	const char *values = NULL;
	Member		type = {0};
	long long	position = 0;
	Member		member;

	if (*p++ == '{')
	{
		while (next_member(&p, &member))
		{
			if (member_is(&member, "type", 4) && member.value_len >= 2)
				type = member;
			else if (member_is(&member, "values", 6))
				values = member.value;
			else if (member_is(&member, "position", 8))
				position = strtoll(member.value, NULL, 10);
		}
	}
	if (type.value == NULL || values == NULL || position <= 0)
	{
		unknown++;
		return false;
	}
	tally_add(channel, type.value + 1, type.value_len - 2, values, position);
	return true;
}

static int
compare_counts(const void *a, const void *b)
{
	const Count *x = a;
	const Count *y = b;
	int			result = strcmp(x->watcher, y->watcher);

	return result ? result : strcmp(x->type, y->type);
}

void
tally_print(void)
{
	qsort(counts, ncounts, sizeof(Count), compare_counts);
	for (int i = 0; i < ncounts; i++)
		printf("%s\t%s\t%llu\n", counts[i].watcher, counts[i].type,
			   (unsigned long long) counts[i].changes);
	printf("order_violations\t%llu\n", (unsigned long long) order_violations);
	printf("position_violations\t%llu\n",
		   (unsigned long long) position_violations);
	printf("skipped\t%llu\n", (unsigned long long) skipped);
	printf("unknown\t%llu\n", (unsigned long long) unknown);
	fflush(stdout);
}
