/*-------------------------------------------------------------------------
 *
 * validate.h
 *	  Whether a table can be watched as asked for.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef ECTOWATCH_VALIDATE_H
#define ECTOWATCH_VALIDATE_H

#include "registry.h"

/*
 * Checks a wanted watcher against its table, with an error for what cannot
 * be, and fills in name, key and condition.  Reads catalogs only, and locks
 * nothing, but for AccessShareLock on the table while it looks at a condition:
 * what it finds is certain only if the caller has the table locked.
 */
extern void validate_watcher(WatcherDef *wanted);

#endif							/* ECTOWATCH_VALIDATE_H */
