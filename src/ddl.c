/*-------------------------------------------------------------------------
 *
 * ddl.c
 *	  Following commands on tables and on databases.
 *
 * Tables: when one is dropped its watchers end, and their listeners hear it.
 *
 * Databases: DROP DATABASE, RENAME, SET TABLESPACE and CREATE DATABASE with a
 * template fail while anyone is connected, and core, which makes exceptions
 * for its own workers, knows nothing of ours.  So before such a command the
 * database's worker is ended and kept out; after it, whether it succeeded or
 * not, it is let in again, or, after DROP DATABASE, the slot becomes free.
 * "After" is the end of the transaction, for only then is it decided.  Who
 * has no right to the command does not disturb the worker: core refuses him.
 *
 * LISTEN starts the database's worker, if the extension is there.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/dependency.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_class.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "commands/user.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "ddl.h"
#include "ectowatch.h"
#include "slot.h"
#include "watcher.h"

static ProcessUtility_hook_type prev_process_utility;
static object_access_hook_type prev_object_access;

/* The database whose worker this transaction keeps out, and what for. */
static Oid	barred_database = InvalidOid;
static bool barred_for_drop;

/* --- databases --- */

static void
ddl_xact_callback(XactEvent event, void *arg pg_attribute_unused())
{
	if (!OidIsValid(barred_database))
		return;
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT)
		return;
	slot_unbar_worker(barred_database,
					  barred_for_drop && event == XACT_EVENT_COMMIT);
	barred_database = InvalidOid;
}

static bool
may_copy_database(Oid database)
{
	HeapTuple	tuple;
	bool		is_template;

	if (pg_database_ownercheck(database, GetUserId()))
		return true;
	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));
	if (!HeapTupleIsValid(tuple))
		return false;
	is_template = ((Form_pg_database) GETSTRUCT(tuple))->datistemplate;
	ReleaseSysCache(tuple);
	return is_template && have_createdb_privilege();
}

/* Ends the worker of a database until the end of this transaction. */
static void
bar_database(const char *name, bool for_drop, bool for_copy)
{
	Oid			database = get_database_oid(name, true);

	if (!OidIsValid(database) || OidIsValid(barred_database))
		return;
	if (for_copy ? !may_copy_database(database) :
		!pg_database_ownercheck(database, GetUserId()))
		return;
	if (!slot_bar_worker(database))
		return;
	barred_database = database;
	barred_for_drop = for_drop;
	slot_end_worker(database);
}

static const char *
template_of(const CreatedbStmt *stmt)
{
	ListCell   *lc;

	foreach(lc, stmt->options)
	{
		DefElem    *option = lfirst(lc);

		if (strcmp(option->defname, "template") == 0 && option->arg)
			return defGetString(option);
	}
	return "template1";
}

static bool
moves_tablespace(const AlterDatabaseStmt *stmt)
{
	ListCell   *lc;

	foreach(lc, stmt->options)
	{
		if (strcmp(((DefElem *) lfirst(lc))->defname, "tablespace") == 0)
			return true;
	}
	return false;
}

static void
before_utility(Node *statement)
{
	switch (nodeTag(statement))
	{
		case T_DropdbStmt:
			bar_database(((DropdbStmt *) statement)->dbname, true, false);
			break;
		case T_CreatedbStmt:
			bar_database(template_of((CreatedbStmt *) statement), false, true);
			break;
		case T_RenameStmt:
			if (((RenameStmt *) statement)->renameType == OBJECT_DATABASE)
				bar_database(((RenameStmt *) statement)->subname, false, false);
			break;
		case T_AlterDatabaseStmt:
			if (moves_tablespace((AlterDatabaseStmt *) statement))
				bar_database(((AlterDatabaseStmt *) statement)->dbname,
							 false, false);
			break;
		default:
			break;
	}
}

static void
after_utility(Node *statement)
{
	if (IsA(statement, ListenStmt) && !RecoveryInProgress() &&
		OidIsValid(get_extension_oid(ECTOWATCH_NAME, true)))
	{
		Slot	   *slot = slot_attach();

		if (slot != NULL)
			slot_request_worker(slot);
	}
}

static void
ddl_process_utility(PlannedStmt *pstmt, const char *queryString,
					bool readOnlyTree, ProcessUtilityContext context,
					ParamListInfo params, QueryEnvironment *queryEnv,
					DestReceiver *dest, QueryCompletion *qc)
{
	before_utility(pstmt->utilityStmt);
	if (prev_process_utility)
		prev_process_utility(pstmt, queryString, readOnlyTree, context,
							 params, queryEnv, dest, qc);
	else
		standard_ProcessUtility(pstmt, queryString, readOnlyTree, context,
								params, queryEnv, dest, qc);
	after_utility(pstmt->utilityStmt);
}

/* --- tables --- */

static void
ddl_object_access(ObjectAccessType access, Oid class, Oid object,
				  int subid, void *arg)
{
	if (prev_object_access)
		prev_object_access(access, class, object, subid, arg);

	if (access == OAT_DROP && class == RelationRelationId && subid == 0 &&
		(get_rel_relkind(object) == RELKIND_RELATION ||
		 get_rel_relkind(object) == RELKIND_PARTITIONED_TABLE) &&
		object != watcher_registry_oid())
		watcher_relation_dropped(object);
}

void
ddl_init(void)
{
	prev_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = ddl_process_utility;
	prev_object_access = object_access_hook;
	object_access_hook = ddl_object_access;
	RegisterXactCallback(ddl_xact_callback, NULL);
}
