/*-------------------------------------------------------------------------
 *
 * drop.c
 *	  Dropping the extension without a deadlock.
 *
 * Core locks the extension's tables and views first.  It comes to the tables
 * that have our triggers only when it removes these, and waits there for those
 * who write.  But a writer whose session has no plan yet reads the registry when
 * his trigger fires, so one of the two would be the victim of a deadlock, and
 * that may be the writer.  So all of them are locked before core begins, and
 * none is waited for while another is held (locks.c).
 *
 * Meanwhile other tables may have got triggers.  Whoever makes a watcher locks
 * the registry, and partitions come to a table that is locked; so when all are
 * locked, another look tells whether these are all.  Left is a trigger that
 * somebody makes by hand, on another table, after that look.
 *
 * Who may not drop the extension locks nothing here.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_class.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_namespace.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/acl.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "drop.h"
#include "ectowatch.h"
#include "locks.h"
#include "trigger.h"

/* --- which statements --- */

static Oid
owner_of(Oid class, Oid object)
{
	Relation	catalog = table_open(class, AccessShareLock);
	HeapTuple	tuple = get_catalog_object_by_oid(catalog,
												  get_object_attnum_oid(class),
												  object);
	Oid			owner = InvalidOid;
	bool		isnull;

	if (HeapTupleIsValid(tuple))
		owner = DatumGetObjectId(heap_getattr(tuple,
											  get_object_attnum_owner(class),
											  RelationGetDescr(catalog),
											  &isnull));
	table_close(catalog, AccessShareLock);
	return owner;
}

static bool
may_drop(Oid class, Oid object)
{
	Oid			owner = owner_of(class, object);

	return OidIsValid(owner) && has_privs_of_role(GetUserId(), owner);
}

static bool
has_name(const List *names, const char *name)
{
	ListCell   *lc;

	foreach(lc, names)
	{
		if (strcmp(strVal(lfirst(lc)), name) == 0)
			return true;
	}
	return false;
}

/* Whether it is a role's with whose rights the caller may act. */
static bool
is_owned_by(Oid class, Oid object, const List *roles)
{
	Oid			owner = owner_of(class, object);
	ListCell   *lc;

	foreach(lc, roles)
	{
		RoleSpec   *role = lfirst(lc);

		if (role->roletype != ROLESPEC_PUBLIC && OidIsValid(owner) &&
			get_rolespec_oid(role, true) == owner)
			return has_privs_of_role(GetUserId(), owner);
	}
	return false;
}

/*
 * Whether a statement may drop the extension, and the caller may do that.
 * 'triggers' is set to whether the triggers could go, too.
 */
static bool
drops_extension(Node *statement, Oid extension, bool *triggers)
{
	Oid			schema = get_extension_schema(extension);
	char	   *schema_name = get_namespace_name(schema);

	if (IsA(statement, DropStmt))
	{
		DropStmt   *drop = (DropStmt *) statement;

		*triggers = drop->behavior == DROP_CASCADE;
		if (drop->removeType == OBJECT_EXTENSION)
			return has_name(drop->objects, ECTOWATCH_NAME) &&
				may_drop(ExtensionRelationId, extension);
		return drop->removeType == OBJECT_SCHEMA &&
			schema_name != NULL && has_name(drop->objects, schema_name) &&
			may_drop(NamespaceRelationId, schema);
	}
	else
	{
		DropOwnedStmt *drop = (DropOwnedStmt *) statement;

		/* with the tables that these roles own, also without CASCADE */
		*triggers = true;
		return is_owned_by(ExtensionRelationId, extension, drop->roles) ||
			is_owned_by(NamespaceRelationId, schema, drop->roles);
	}
}

/* --- what core will lock --- */

/* The tables, sequences and views of the extension. */
static List *
own_relations(Oid extension)
{
	Relation	pg_depend = table_open(DependRelationId, AccessShareLock);
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;
	List	   *relations = NIL;

	ScanKeyInit(&keys[0], Anum_pg_depend_refclassid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(ExtensionRelationId));
	ScanKeyInit(&keys[1], Anum_pg_depend_refobjid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(extension));
	scan = systable_beginscan(pg_depend, DependReferenceIndexId, true, NULL,
							  2, keys);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_depend form = (Form_pg_depend) GETSTRUCT(tuple);

		if (form->classid == RelationRelationId &&
			form->deptype == DEPENDENCY_EXTENSION)
			relations = lappend_oid(relations, form->objid);
	}
	systable_endscan(scan);
	table_close(pg_depend, AccessShareLock);
	return relations;
}

/* None if the extension is gone. */
static List *
relations_to_lock(bool triggers)
{
	Oid			extension = get_extension_oid(ECTOWATCH_NAME, true);
	List	   *relations;

	if (!OidIsValid(extension))
		return NIL;
	relations = own_relations(extension);
	if (triggers)
		relations = list_concat(relations, triggers_relations());
	list_sort(relations, list_oid_cmp);
	list_deduplicate_oid(relations);
	return relations;
}

void
drop_lock_first(Node *statement)
{
	Oid			extension;
	List	   *locked = NIL;
	List	   *wanted;
	bool		triggers;

	/* others fail, and core says why */
	if ((!IsA(statement, DropStmt) && !IsA(statement, DropOwnedStmt)) ||
		XactReadOnly || RecoveryInProgress())
		return;
	extension = get_extension_oid(ECTOWATCH_NAME, true);
	if (!OidIsValid(extension) ||
		!drops_extension(statement, extension, &triggers))
		return;

	wanted = relations_to_lock(triggers);
	while (!equal(wanted, locked))
	{
		locks_release(locks_on(locked, AccessExclusiveLock),
					  list_length(locked));
		locks_take(locks_on(wanted, AccessExclusiveLock),
				   list_length(wanted));
		locked = wanted;
		wanted = relations_to_lock(triggers);
	}
}
