/*-------------------------------------------------------------------------
 *
 * drop.h
 *	  Dropping the extension without a deadlock.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef ECTOWATCH_DROP_H
#define ECTOWATCH_DROP_H

#include "nodes/nodes.h"

/*
 * If a statement, which is about to be executed, drops the extension, takes the
 * locks that core will ask for.
 */
extern void drop_lock_first(Node *statement);

#endif							/* ECTOWATCH_DROP_H */
