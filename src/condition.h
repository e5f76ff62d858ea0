/*-------------------------------------------------------------------------
 *
 * condition.h
 *	  Option "condition" of a watcher: which rows it wants to hear of.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef ECTOWATCH_CONDITION_H
#define ECTOWATCH_CONDITION_H

#include "executor/tuptable.h"
#include "utils/relcache.h"

/* A condition as one backend evaluates it for one relation and event. */
typedef struct Condition Condition;

/*
 * Prepares to evaluate a condition, which has been checked for 'origin', for
 * the rows of a relation, perhaps a partition of that.  Looks at nothing yet,
 * and throws only for want of memory.  The result is in the current context,
 * which may be reparented; 'watcher' and 'text' must live as long.
 */
extern Condition *condition_make(Oid origin, int event, const char *watcher,
								 const char *text);

/*
 * Whether a change of the relation is to be delivered.  'old' is NULL for an
 * insert, 'new' for a delete.  Where the condition cannot be told, it is, and
 * 'failed' is set.  May run functions of users, which may write, also to this
 * relation.  Throws only for want of memory or another of the server's
 * resources, or if cancelled.
 */
extern bool condition_matches(Condition *condition, Relation relation,
							  TupleTableSlot *old, TupleTableSlot *new,
							  bool *failed);

/*
 * Whether any change that replaces or deletes this version of a row is certain
 * to match: since the condition asks of nothing but a row, and holds for this
 * one.  To be asked after condition_matches(); the rest is as there.
 */
extern bool condition_matches_successor(Condition *condition,
										Relation relation,
										TupleTableSlot *row);

#endif							/* ECTOWATCH_CONDITION_H */
