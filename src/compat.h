/*-------------------------------------------------------------------------
 *
 * compat.h
 *	  All differences between server versions.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef ECTOWATCH_COMPAT_H
#define ECTOWATCH_COMPAT_H

#if PG_VERSION_NUM < 150000 || PG_VERSION_NUM >= 160000
#error "ectowatch needs PostgreSQL 15"
#endif

#include "access/genam.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_extension.h"
#include "utils/fmgroids.h"

/* Declared in fmgr.h since 16. */
extern void _PG_init(void);

/* Exported by extension.c since 16.  InvalidOid if it does not exist. */
static inline Oid
get_extension_schema(Oid extension)
{
	Relation	relation = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			schema = InvalidOid;

	ScanKeyInit(&key, Anum_pg_extension_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(extension));
	scan = systable_beginscan(relation, ExtensionOidIndexId, true, NULL,
							  1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		schema = ((Form_pg_extension) GETSTRUCT(tuple))->extnamespace;
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
	return schema;
}

#endif							/* ECTOWATCH_COMPAT_H */
