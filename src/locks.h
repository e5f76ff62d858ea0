/*-------------------------------------------------------------------------
 *
 * locks.h
 *	  Locks on several tables, without a deadlock.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef ECTOWATCH_LOCKS_H
#define ECTOWATCH_LOCKS_H

#include "nodes/pg_list.h"
#include "storage/lockdefs.h"

typedef struct TableLock
{
	Oid			relation;
	LOCKMODE	mode;
} TableLock;

/* The same lock on each of a list of relations. */
extern TableLock *locks_on(const List *relations, LOCKMODE mode);

/*
 * Takes all of them, until the transaction ends.  Waits for one, interruptibly,
 * only while it holds none of the others: a transaction that writes to that
 * one, and then to another, is not made the victim of a deadlock.
 */
extern void locks_take(const TableLock *locks, int n);

/* Takes all of them if none is in use; else false, and none is taken. */
extern bool locks_take_at_once(const TableLock *locks, int n);

/* Gives them back before that. */
extern void locks_release(const TableLock *locks, int n);

#endif							/* ECTOWATCH_LOCKS_H */
