/*-------------------------------------------------------------------------
 *
 * pending.h
 *	  The changes of this transaction, and their hand-over at its end.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef ECTOWATCH_PENDING_H
#define ECTOWATCH_PENDING_H

#include "rows.h"
#include "store.h"

/* Registers the transaction callbacks; in _PG_init() only. */
extern void pending_init(void);

/*
 * Adds a change that is not one of a row to the current (sub)transaction, unless
 * the newest one of its version's key says the same.  The version is NULL where
 * that may be.  Throws only for want of memory.
 */
extern void pending_add(const ChangeParts *parts, const RowVersion *version);

/*
 * The same for a change of a row; if one of a later version is there, it is
 * added as a late one.  'command' has made the version; InvalidCommandId where
 * that is not known, or the watcher's key is not unique.  'head' belongs to
 * changes that differ from this one in flags, values, old values and context at
 * most (store.h).
 */
extern void pending_add_row(const ChangeParts *parts, CommandId command,
							StoreHead *head);

/*
 * Adds the change of a version that has a successor, which may be there
 * already: for those alone who listen to the values that it replaced, and
 * without its own but the key (CHANGE_LEFT).
 */
extern void pending_add_late(const ChangeParts *parts, StoreHead *head);

/* Notes that a later version of a watcher's row has left that key. */
extern void pending_moved(uint32 watcher, const char *old, uint32 keys_len,
						  CommandId command);

/* From now on one command may bring a change of a row more than once. */
extern void pending_expect_repeats(void);

/* After a TRUNCATE rows with the same keys are others. */
extern void pending_forget_rows(void);

/*
 * False where a change of a version that 'command' has made could slip through
 * late: there are too many rows to remember.  'command' has to be known.
 */
extern bool pending_remembers_rows(CommandId command);

/*
 * Whether so many changes of a watcher are pending that the next one need not
 * be made, only counted.
 */
extern bool pending_is_over(uint32 watcher, uint32 threshold);

/*
 * Count a change instead of adding it: for a summary of its type, or for the
 * gap that ectowatch.mute leaves.  Of the parts, those count that all changes
 * of the watcher have in common, the columns, the context and the type.
 */
extern void pending_add_over(const ChangeParts *parts);
extern void pending_add_muted(const ChangeParts *parts);

/*
 * Calls back for each change that a commit would deliver, in order.  False on
 * an I/O error.
 */
extern bool pending_walk(ChangeCallback callback, void *arg);

#endif							/* ECTOWATCH_PENDING_H */
