/*-------------------------------------------------------------------------
 *
 * guard.c
 *	  Subtransactions for what may throw.
 *
 * A transaction has 2^32 - 1 subtransactions; beginning one more throws.  Where
 * each row takes one, a write may come to that, and it must not fail for us.  So
 * we leave half of them to it.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "storage/proc.h"

#include "guard.h"

bool
guard_begin(void)
{
	static LocalTransactionId lxid;
	static SubTransactionId newest; /* they are numbered from 1 on */

	if (lxid == MyProc->lxid && newest > PG_UINT32_MAX / 2)
		return false;
	BeginInternalSubTransaction(NULL);
	lxid = MyProc->lxid;
	newest = GetCurrentSubTransactionId();
	return true;
}
