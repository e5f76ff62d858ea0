/*-------------------------------------------------------------------------
 *
 * options.h
 *	  What can be asked of a watcher: reading it, comparing it.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef ECTOWATCH_OPTIONS_H
#define ECTOWATCH_OPTIONS_H

#include "fmgr.h"
#include "utils/jsonb.h"

#include "registry.h"

/* All of these throw on bad input. */

/* Sets event and events. */
extern void options_set_event(WatcherDef *def, const char *event);

/*
 * Sets the options that are given: as arguments of a function, from that
 * number on, in the order of the table in options.c (label first, or not among
 * them), or as members of a JSON object, which has relation and event too.
 */
extern void options_from_arguments(WatcherDef *def, FunctionCallInfo fcinfo,
								   int first_argument, bool with_label);
extern void options_from_json(WatcherDef *def, JsonbContainer *object);

/* Whether two checked watchers of one identity ask for the same. */
extern bool options_same(const WatcherDef *a, const WatcherDef *b);

/* Whether they are of the same relation, event and label. */
extern bool options_same_identity(const WatcherDef *a, const WatcherDef *b);

/* The watcher of the same relation, event and label, or NULL. */
extern WatcherDef *options_find_identity(const WatcherDef *wanted);

#endif							/* ECTOWATCH_OPTIONS_H */
