/*-------------------------------------------------------------------------
 *
 * rows.h
 *	  The newest pending change of each row.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef ECTOWATCH_ROWS_H
#define ECTOWATCH_ROWS_H

typedef struct Rows Rows;

/*
 * Which row version a change is about: 'key' is a hash of the watcher's key,
 * 'command' the command that made the version.  A change is dropped when a
 * later version of the same key is pending already; for that the key has to
 * be unique, else 'command' is InvalidCommandId.
 */
typedef struct RowVersion
{
	uint64		key;
	CommandId	command;
	bool		lasting;		/* no row: rows_begin_anew() leaves it alone */
} RowVersion;

/* How many rows are remembered in so many bytes. */
extern uint32 rows_room(Size memory);

/* In the current memory context, which it fills with about so many bytes. */
extern Rows *rows_create(Size memory);

typedef enum RowResult
{
	ROW_NEWEST,
	ROW_REPEATED,				/* it says the same as the newest */
	ROW_LATE					/* the newest is of a later version */
} RowResult;

/*
 * Notes a change as the newest of its row, unless it repeats the newest, or
 * comes late.  A digest of 0 is no change: the row has left that key.  Throws
 * only for want of memory.
 */
extern RowResult rows_note(Rows *rows, uint32 watcher, const RowVersion *version,
					  uint64 digest);

/* There are more of them than can be remembered. */
extern void rows_forget(Rows *rows);

/* From here on, rows with the same keys are others. */
extern void rows_begin_anew(Rows *rows);

/* False where a late change could slip through: too many to remember. */
extern bool rows_are_complete(const Rows *rows);

/*
 * Marks the state, to which rows_roll_back() can go back until
 * rows_forget_marks(); marks nest.
 */
extern uint64 rows_mark(Rows *rows);
extern void rows_roll_back(Rows *rows, uint64 mark);
extern void rows_forget_marks(Rows *rows);

#endif							/* ECTOWATCH_ROWS_H */
