/*-------------------------------------------------------------------------
 *
 * rights.h
 *	  Who may read which changes.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef ECTOWATCH_RIGHTS_H
#define ECTOWATCH_RIGHTS_H

#include "utils/hsearch.h"

#include "change.h"
#include "watcher.h"

/*
 * What the current role was found to be allowed, for the length of a call; in
 * the current memory context.
 */
extern HTAB *rights_create(void);

/* Whether the current role may read a change.  May look into catalogs. */
extern bool rights_allow(HTAB *rights, const Change *change);

/* Whether it may read what a watcher would show now. */
extern bool rights_allow_watcher(const WatcherDef *def);

/* The owner of a relation; throws if that is gone. */
extern Oid	rights_owner(Oid relation);

#endif							/* ECTOWATCH_RIGHTS_H */
