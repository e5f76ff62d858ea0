/*-------------------------------------------------------------------------
 *
 * narrow.h
 *	  From a change to its narrowed channels.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef ECTOWATCH_NARROW_H
#define ECTOWATCH_NARROW_H

#include "change.h"

/* The channel is valid during the call only. */
typedef void (*NarrowCallback) (const char *channel, void *arg);

/*
 * Calls back with each narrowed channel of an inserted, updated or deleted
 * row, each once, whether anyone listens or not: one for each value, one for
 * each old value that differs, one for a whole key of several columns.  Those
 * with hashed names only if 'hashed': ask subscription_any_hashed().
 *
 * Returns false if that may not be all of them, because the change lacks
 * values or they cannot be read: then it has to go to all narrowed channels of
 * its watcher, for nobody can tell which ones it concerns; those that it was
 * called back with are among them.  So it has for
 * changes that are not about one row, of which this function must not be
 * asked.
 *
 * Throws only for want of memory.
 */
extern bool narrow_change(const Change *change, bool hashed,
						  NarrowCallback callback, void *arg);

#endif							/* ECTOWATCH_NARROW_H */
