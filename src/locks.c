/*-------------------------------------------------------------------------
 *
 * locks.c
 *	  Locks on several tables, without a deadlock.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "storage/lmgr.h"

#include "locks.h"

TableLock *
locks_on(const List *relations, LOCKMODE mode)
{
	TableLock  *locks = palloc(list_length(relations) * sizeof(TableLock));
	ListCell   *lc;

	foreach(lc, relations)
	{
		TableLock	lock = {lfirst_oid(lc), mode};

		locks[foreach_current_index(lc)] = lock;
	}
	return locks;
}

/*
 * Takes all locks but the one that we had, if any, and waits for none.  Returns
 * n; or the number of one that is in use, and then has taken none.
 */
static int
take_others(const TableLock *locks, int n, int had)
{
	int			i;
	int			busy;

	for (i = 0; i < n; i++)
	{
		if (i != had &&
			!ConditionalLockRelationOid(locks[i].relation, locks[i].mode))
			break;
	}
	if (i == n)
		return n;
	busy = i;
	while (--i >= 0)
	{
		if (i != had)
			UnlockRelationOid(locks[i].relation, locks[i].mode);
	}
	return busy;
}

void
locks_take(const TableLock *locks, int n)
{
	int			first = 0;

	while (n > 0)
	{
		int			busy;

		LockRelationOid(locks[first].relation, locks[first].mode);
		busy = take_others(locks, n, first);
		if (busy == n)
			break;
		UnlockRelationOid(locks[first].relation, locks[first].mode);
		first = busy;
	}
}

bool
locks_take_at_once(const TableLock *locks, int n)
{
	return take_others(locks, n, -1) == n;
}

void
locks_release(const TableLock *locks, int n)
{
	for (int i = 0; i < n; i++)
		UnlockRelationOid(locks[i].relation, locks[i].mode);
}
