/*-------------------------------------------------------------------------
 *
 * watch.h
 *	  Creating, replacing and removing a watcher.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef ECTOWATCH_WATCH_H
#define ECTOWATCH_WATCH_H

#include "locks.h"
#include "watcher.h"

typedef enum WatchResult
{
	WATCH_CREATED,
	WATCH_REPLACED,
	WATCH_UNCHANGED
} WatchResult;

/*
 * Sees to it that a watcher is there as wanted, with its triggers; fills in
 * id, name and key.  Takes no lock if that is so at once.  Throws if it
 * cannot be, or if the caller may not; 'caller' is the function's name.
 */
extern WatchResult watch_put(WatcherDef *wanted, const char *caller);

/*
 * Its parts, for who puts several.  Whether the watcher is there as wanted, as
 * of now, and if not, an error if the caller may not put it; the lock that lets
 * in one at a time who changes watchers; and under that, which lock is needed on
 * the table: NoLock if none.
 */
extern bool watch_is_in_place(WatcherDef *wanted);
extern void watch_lock_registry(const char *caller);
extern TableLock watch_table_lock(const WatcherDef *wanted);

/* Removes one, if it is still there; an error if the caller may not. */
extern void watch_remove(const WatcherDef *def);

/*
 * The same but for triggers that no watcher needs now; dropping these takes
 * locks on tables, which is for the end (triggers_drop_idle()).
 */
extern void watch_end(const WatcherDef *def);

/* Asks for a worker; an error if this database can have none. */
extern void watch_require_slot(void);

#endif							/* ECTOWATCH_WATCH_H */
