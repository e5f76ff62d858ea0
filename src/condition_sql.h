/*-------------------------------------------------------------------------
 *
 * condition_sql.h
 *	  A condition as SQL: checking what a user wrote, keeping it, reading it.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef ECTOWATCH_CONDITION_SQL_H
#define ECTOWATCH_CONDITION_SQL_H

#include "nodes/nodes.h"
#include "nodes/pg_list.h"
#include "utils/relcache.h"

/*
 * Checks what a user wrote against a relation and the events of a watcher, and
 * returns the same condition in the form that the registry keeps: the same
 * text for the same meaning, whatever the session's settings, and a condition
 * that a user might have written.  Names are looked up with the caller's
 * search_path and rights.  Holds AccessShareLock on the relation while it
 * works.  '*basis' is set to what the result depends on besides the text.
 */
extern char *condition_check(Oid relation, int events, const char *condition,
							 List **basis);

/*
 * Whether all is as it was when condition_check() set a basis, so that the
 * same condition would be read as the same: the caller's settings, as far as
 * they matter, and the columns that it names.  Takes no lock on the relation.
 */
extern bool condition_basis_holds(Oid relation, List *basis);

/*
 * Reads the registry's text, which was checked for 'origin', for the rows of a
 * relation, perhaps a partition of that, on which the caller has a lock.  In
 * the result, which is in the current context, OLD is INNER_VAR, NEW is
 * OUTER_VAR, and the row of the message is 1.  Throws if names are gone, and
 * then leaves settings and user to the end of the caller's (sub)transaction.
 */
extern Node *condition_read(Relation relation, Oid origin, int event,
							const char *text);

#endif							/* ECTOWATCH_CONDITION_SQL_H */
