/*-------------------------------------------------------------------------
 *
 * rights.c
 *	  Who may read which changes.
 *
 * A change may be read by who may SELECT the columns that it shows, and is not
 * subject to row level security on the table.  What it shows was decided when
 * it was captured; its watcher may show other columns by now, and they may
 * have other names.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_class.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/rls.h"
#include "utils/syscache.h"

#include "rights.h"

PG_FUNCTION_INFO_V1(ectowatch_may_read);

/* Whether this role may read some columns of a relation; asked once a call. */
typedef struct ReaderRightKey
{
	Oid			relation;
	uint64		columns;		/* hash of their numbers */
} ReaderRightKey;

typedef struct ReaderRight
{
	ReaderRightKey key;
	bool		allowed;
} ReaderRight;

static bool
columns_allowed(Oid relation, const AttrNumber *columns, int ncolumns)
{
	for (int i = 0; i < ncolumns; i++)
	{
		bool		missing = false;

		if (columns[i] == InvalidAttrNumber ||
			pg_attribute_aclcheck_ext(relation, columns[i], GetUserId(),
									  ACL_SELECT, &missing) != ACLCHECK_OK ||
			missing)
			return false;
	}
	return ncolumns > 0;
}

/*
 * Whether this role may read what a relation's columns held; if there are
 * none, the relation as a whole.
 */
static bool
relation_allowed(Oid relation, const AttrNumber *columns, int ncolumns)
{
	if (get_rel_name(relation) == NULL)
		return has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_DATA);
	if (check_enable_rls(relation, InvalidOid, true) == RLS_ENABLED)
		return false;
	return pg_class_aclcheck(relation, GetUserId(), ACL_SELECT) == ACLCHECK_OK ||
		columns_allowed(relation, columns, ncolumns);
}

bool
rights_allow_watcher(const WatcherDef *def)
{
	int			n;
	AttrNumber *columns = watcher_columns(def, &n);

	return relation_allowed(def->relation, columns, n);
}

/*
 * ectowatch_may_read(watcher); works without preload
 */
Datum
ectowatch_may_read(PG_FUNCTION_ARGS)
{
	WatcherDef *def = watcher_find(text_to_cstring(PG_GETARG_TEXT_PP(0)));

	if (def == NULL)
		PG_RETURN_NULL();
	PG_RETURN_BOOL(rights_allow_watcher(def));
}

HTAB *
rights_create(void)
{
	HASHCTL		ctl;

	ctl.keysize = sizeof(ReaderRightKey);
	ctl.entrysize = sizeof(ReaderRight);
	ctl.hcxt = CurrentMemoryContext;
	return hash_create("ectowatch rights", 16, &ctl,
					   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

bool
rights_allow(HTAB *rights, const Change *change)
{
	ReaderRightKey key;
	ReaderRight *right;
	bool		found;

	/* these say nothing of any row, and no reader may go without them */
	if (change->type == CHANGE_ENDED || change->type == CHANGE_GAP)
		return true;

	/* channels are public */
	if (change->type == CHANGE_NOTIFY)
		return true;

	memset(&key, 0, sizeof(key));
	key.relation = change->relation;
	key.columns = hash_bytes_extended((const unsigned char *) change->columns,
									  change->ncolumns * sizeof(AttrNumber),
									  change->ncolumns);
	right = hash_search(rights, &key, HASH_ENTER, &found);
	if (!found)
		right->allowed = relation_allowed(change->relation, change->columns,
										  change->ncolumns);
	return right->allowed;
}

Oid
rights_owner(Oid relation)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relation));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relation);
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}
