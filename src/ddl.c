/*-------------------------------------------------------------------------
 *
 * ddl.c
 *	  Following commands on tables and on databases.
 *
 * Tables: when one is dropped its watchers end, and their listeners hear it.
 * When a partition is truncated, the trigger of the table of which it is a
 * part does not fire; the watchers of that table hear it all the same.
 *
 * Databases: DROP DATABASE, RENAME, SET TABLESPACE and CREATE DATABASE with a
 * template fail while anyone is connected, and core, which makes exceptions
 * for its own workers, knows nothing of ours.  So before such a command the
 * database's worker is ended and kept out; after it, whether it succeeded or
 * not, it is let in again.  When a database has been dropped, its slot becomes
 * free.  "After" is the end of the transaction, for only then is it decided.
 * Which database was dropped core says itself: before, a name may still come
 * to mean another one.  Who has no right to the command does not disturb the
 * worker: core refuses him.
 *
 * Sessions: what LISTEN and UNLISTEN mean for us is listen.c's business; what
 * DROP EXTENSION locks is drop.c's.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/objectaccess.h"
#include "catalog/partition.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_class.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "capture.h"
#include "ddl.h"
#include "drop.h"
#include "ectowatch.h"
#include "listen.h"
#include "slot.h"
#include "watcher.h"

static ProcessUtility_hook_type prev_process_utility;
static object_access_hook_type prev_object_access;

/* The tables of the TRUNCATE that is being executed, or NULL. */
typedef struct Truncation
{
	List	   *relations;
	MemoryContext context;
} Truncation;

static Truncation *truncation;

/* The databases whose workers this transaction keeps out, and has dropped. */
static List *barred_databases;
static List *dropped_databases;

/* --- databases --- */

static pg_attribute_hot void
ddl_xact_callback(XactEvent event, void *arg pg_attribute_unused())
{
	ListCell   *lc;

	/* a prepared transaction goes on without us, and without these lists */
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT &&
		event != XACT_EVENT_PREPARE)
		return;
	if (event == XACT_EVENT_COMMIT)
	{
		foreach(lc, dropped_databases)
			slot_release(lfirst_oid(lc));
	}
	foreach(lc, barred_databases)
		slot_unbar_worker(lfirst_oid(lc));

	/* their memory goes with the transaction */
	dropped_databases = NIL;
	barred_databases = NIL;
}

/* Appends to a list that lives as long as the transaction. */
static void
remember_database(List **list, Oid database)
{
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);

	*list = lappend_oid(*list, database);
	MemoryContextSwitchTo(old);
}

/* What core's CREATE DATABASE asks for. */
static bool
may_create_databases(void)
{
	HeapTuple	tuple;
	bool		may = superuser();

	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
	if (HeapTupleIsValid(tuple))
	{
		may = may || ((Form_pg_authid) GETSTRUCT(tuple))->rolcreatedb;
		ReleaseSysCache(tuple);
	}
	return may;
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
	return is_template && may_create_databases();
}

/* Ends the worker of a database until the end of this transaction. */
static void
bar_database(const char *name, bool for_copy)
{
	Oid			database = get_database_oid(name, true);

	if (!OidIsValid(database))
		return;
	if (for_copy ? !may_copy_database(database) :
		!pg_database_ownercheck(database, GetUserId()))
		return;
	if (!list_member_oid(barred_databases, database))
	{
		/* no error can come between the two */
		remember_database(&barred_databases, database);
		if (!slot_bar_worker(database))
		{
			barred_databases = list_delete_last(barred_databases);
			return;
		}
	}
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
			bar_database(((DropdbStmt *) statement)->dbname, false);
			break;
		case T_CreatedbStmt:
			bar_database(template_of((CreatedbStmt *) statement), true);
			break;
		case T_RenameStmt:
			if (((RenameStmt *) statement)->renameType == OBJECT_DATABASE)
				bar_database(((RenameStmt *) statement)->subname, false);
			break;
		case T_AlterDatabaseStmt:
			if (moves_tablespace((AlterDatabaseStmt *) statement))
				bar_database(((AlterDatabaseStmt *) statement)->dbname, false);
			break;
		default:
			break;
	}
}

static void
next_process_utility(PlannedStmt *pstmt, const char *queryString,
					 bool readOnlyTree, ProcessUtilityContext context,
					 ParamListInfo params, QueryEnvironment *queryEnv,
					 DestReceiver *dest, QueryCompletion *qc)
{
	if (prev_process_utility)
		prev_process_utility(pstmt, queryString, readOnlyTree, context,
							 params, queryEnv, dest, qc);
	else
		standard_ProcessUtility(pstmt, queryString, readOnlyTree, context,
								params, queryEnv, dest, qc);
}

/* Of each truncated partition, tells the watchers of those that it is part of. */
static void
after_truncate(const Truncation *done)
{
	List	   *told = NIL;
	ListCell   *lc;

	foreach(lc, done->relations)
	{
		ListCell   *la;

		if (!get_rel_relispartition(lfirst_oid(lc)))
			continue;
		foreach(la, get_partition_ancestors(lfirst_oid(lc)))
		{
			/* its own trigger has fired, or another partition came first */
			if (list_member_oid(done->relations, lfirst_oid(la)) ||
				list_member_oid(told, lfirst_oid(la)))
				continue;
			capture_partition_truncated(lfirst_oid(la));
			told = lappend_oid(told, lfirst_oid(la));
		}
	}
}

static pg_attribute_hot void
ddl_process_utility(PlannedStmt *pstmt, const char *queryString,
					bool readOnlyTree, ProcessUtilityContext context,
					ParamListInfo params, QueryEnvironment *queryEnv,
					DestReceiver *dest, QueryCompletion *qc)
{
	ListenCommand listen;

	if (IsA(pstmt->utilityStmt, TruncateStmt))
	{
		Truncation	this_one = {NIL, CurrentMemoryContext};
		Truncation *outer = truncation;

		truncation = &this_one;
		PG_TRY();
		{
			next_process_utility(pstmt, queryString, readOnlyTree, context,
								 params, queryEnv, dest, qc);
		}
		PG_FINALLY();
		{
			truncation = outer;
		}
		PG_END_TRY();
		after_truncate(&this_one);
		return;
	}

	listen_read(&listen, pstmt->utilityStmt);
	drop_lock_first(pstmt->utilityStmt);
	before_utility(pstmt->utilityStmt);
	next_process_utility(pstmt, queryString, readOnlyTree, context,
						 params, queryEnv, dest, qc);
	listen_follow(&listen);
}

/* --- tables --- */

static pg_attribute_hot void
ddl_object_access(ObjectAccessType access, Oid class, Oid object,
				  int subid, void *arg)
{
	if (prev_object_access)
		prev_object_access(access, class, object, subid, arg);

	if (access == OAT_TRUNCATE && truncation != NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(truncation->context);

		truncation->relations = lappend_oid(truncation->relations, object);
		MemoryContextSwitchTo(old);
	}
	if (access == OAT_DROP && class == DatabaseRelationId)
		remember_database(&dropped_databases, object);
	if (access == OAT_DROP && class == RelationRelationId && subid == 0 &&
		get_rel_persistence(object) != RELPERSISTENCE_TEMP &&
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
