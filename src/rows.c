/*-------------------------------------------------------------------------
 *
 * rows.c
 *	  The newest pending change of each row.
 *
 * Of each row that has a pending change we remember the newest: its digest,
 * to drop a change that says the same again, and the command that made it, to
 * drop one that comes late.  (Late: AFTER triggers of one statement fire at
 * its end; if one of them changes a row that this statement has changed too,
 * the newer version may reach us first.)  Rows are known by a hash of watcher
 * and key; should two of them share one, that alone drops nothing, because
 * digest or command decide.  Memory for this is bounded: when it is used up,
 * all is forgotten.  That costs a repeated message, and callers then look at
 * the row itself to see that it is late.
 *
 * While there is a mark, what a change overwrites goes to a journal, from which
 * a rollback restores it.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "utils/memutils.h"

#include "rows.h"

typedef struct Row
{
	uint64		key;			/* hash of watcher and key */
	uint64		digest;			/* of the change; 0: the row left this key */
	CommandId	command;
	char		status;			/* simplehash's */
} Row;

#define SH_PREFIX			rowhash
#define SH_ELEMENT_TYPE		Row
#define SH_KEY_TYPE			uint64
#define SH_KEY				key
#define SH_HASH_KEY(tb, k)	((uint32) (k))
#define SH_EQUAL(tb, a, b)	((a) == (b))
#define SH_SCOPE			static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

/* What a change has overwritten. */
typedef struct RowUndo
{
	Row			row;
	bool		existed;
} RowUndo;

struct Rows
{
	MemoryContext context;
	rowhash_hash *hash;
	uint32		limit;			/* of rows, and of the journal */
	uint64		epoch;			/* of rows_begin_anew() */
	uint32		losses;			/* how often all was forgotten */
	bool		marked;			/* the journal is kept */
	RowUndo    *undo;
	uint32		nundo;
	uint32		maxundo;
};

uint32
rows_room(Size memory)
{
	/* simplehash has up to twice the entries; an undo belongs to each */
	return (uint32) Min(memory / (2 * sizeof(Row) + sizeof(RowUndo)),
						PG_INT32_MAX / 2);
}

Rows *
rows_create(Size memory)
{
	Rows	   *rows = palloc0(sizeof(Rows));

	rows->limit = rows_room(memory);
	rows->context = CurrentMemoryContext;
	rows->hash = rowhash_create(rows->context, 64, NULL);
	return rows;
}

void
rows_forget(Rows *rows)
{
	rowhash_reset(rows->hash);
	rows->nundo = 0;
	rows->losses++;
}

/* Remembers the newest change of a row; its former state goes to the journal. */
static void
rows_set(Rows *rows, uint64 key, uint64 digest, CommandId command)
{
	Row		   *row;
	bool		found;

	if (rows->hash->members >= rows->limit || rows->nundo >= rows->limit)
		rows_forget(rows);

	if (rows->marked && rows->nundo == rows->maxundo)
	{
		uint32		n = Max(64, rows->maxundo * 2);
		Size		size = n * sizeof(RowUndo);

		rows->undo = rows->undo ? repalloc_huge(rows->undo, size) :
			MemoryContextAllocHuge(rows->context, size);
		rows->maxundo = n;
	}

	row = rowhash_insert(rows->hash, key, &found);
	if (rows->marked)
	{
		RowUndo    *undo = &rows->undo[rows->nundo++];

		undo->row = *row;
		undo->row.key = key;
		undo->existed = found;
	}
	row->digest = digest;
	row->command = command;
}

RowResult
rows_note(Rows *rows, uint32 watcher, const RowVersion *version, uint64 digest)
{
	uint64		key;
	Row		   *row;

	key = hash_combine64(version->key,
						 hash_combine64(hash_bytes_uint32_extended(watcher, 0),
										version->lasting ? 0 : rows->epoch));
	row = rowhash_lookup(rows->hash, key);
	if (row != NULL)
	{
		if (row->command != InvalidCommandId &&
			version->command != InvalidCommandId &&
			version->command < row->command)
			return ROW_LATE;
		if (digest != 0 && row->digest == digest)
			return ROW_REPEATED;
	}
	rows_set(rows, key, digest, version->command);
	return ROW_NEWEST;
}

void
rows_begin_anew(Rows *rows)
{
	rows->epoch++;
}

bool
rows_are_complete(const Rows *rows)
{
	return rows->losses == 0 && rows->epoch == 0;
}

/* What was forgotten since a mark is not restored: no mark is of that journal. */
uint64
rows_mark(Rows *rows)
{
	rows->marked = true;
	return ((uint64) rows->losses << 32) | rows->nundo;
}

void
rows_roll_back(Rows *rows, uint64 mark)
{
	uint32		to = (mark >> 32) == rows->losses ? (uint32) mark : 0;

	while (rows->nundo > to)
	{
		RowUndo    *undo = &rows->undo[--rows->nundo];
		Row		   *row = rowhash_lookup(rows->hash, undo->row.key);

		/* rows forgotten since stay so */
		if (row == NULL)
			continue;
		if (undo->existed)
		{
			row->digest = undo->row.digest;
			row->command = undo->row.command;
		}
		else
			rowhash_delete_item(rows->hash, row);
	}
}

void
rows_forget_marks(Rows *rows)
{
	rows->marked = false;
	rows->nundo = 0;
}
