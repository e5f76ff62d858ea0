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

#include "watcher.h"

typedef enum WatchResult
{
	WATCH_CREATED,
	WATCH_REPLACED,
	WATCH_UNCHANGED
} WatchResult;

/*
 * Sees to it that a watcher is there as wanted, with its triggers; fills in
 * id, name and key.  Keeps no lock if there is nothing to do.  Throws if it
 * cannot be, or if the caller may not; 'caller' is the function's name.
 */
extern WatchResult watch_put(WatcherDef *wanted, const char *caller);

/* Removes one, if it is still there; an error if the caller may not. */
extern void watch_remove(const WatcherDef *def);

/* Asks for a worker; an error if this database can have none. */
extern void watch_require_slot(void);

#endif							/* ECTOWATCH_WATCH_H */
