/*-------------------------------------------------------------------------
 *
 * validate.c
 *	  Whether a table can be watched as asked for.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/transam.h"
#include "catalog/catalog.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_namespace.h"
#include "commands/extension.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "condition_sql.h"
#include "ectowatch.h"
#include "options.h"
#include "validate.h"

/* A column that a list names must be an ordinary one of the table. */
static void
check_columns(Oid relation, List *names, const char *argument)
{
	ListCell   *lc;

	if (watcher_wants_all(names))
		return;
	foreach(lc, names)
	{
		AttrNumber	attnum = get_attnum(relation, lfirst(lc));

		if (attnum == InvalidAttrNumber)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("column \"%s\" of relation \"%s\" does not exist",
							(char *) lfirst(lc), get_rel_name(relation)),
					 errdetail("It is named in %s.", argument),
					 errhint("Write column names as they are in the table, without quotes.")));
		if (attnum < 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_COLUMN_REFERENCE),
					 errmsg("cannot watch system column \"%s\"",
							(char *) lfirst(lc)),
					 errdetail("It is named in %s.", argument),
					 errhint("Name columns of the table.")));
	}
}

static void
check_relation(Oid relation)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relation));
	Form_pg_class class;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", relation),
				 errhint("It may have been dropped just now.")));
	class = (Form_pg_class) GETSTRUCT(tuple);

	if (IsCatalogRelationOid(relation) || IsToastNamespace(class->relnamespace) ||
		class->relnamespace == get_namespace_oid("information_schema", true) ||
		getExtensionOfObject(RelationRelationId, relation) ==
		get_extension_oid(ECTOWATCH_NAME, false))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("cannot watch system table \"%s\"",
						NameStr(class->relname)),
				 errhint("Watch an ordinary or a partitioned table.")));
	if (class->relkind != RELKIND_RELATION &&
		class->relkind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a table", NameStr(class->relname)),
				 errdetail_relkind_not_supported(class->relkind),
				 errhint("Watch an ordinary or a partitioned table.")));
	if (class->relpersistence == RELPERSISTENCE_TEMP)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("cannot watch temporary table \"%s\"",
						NameStr(class->relname)),
				 errdetail("No other session sees its rows."),
				 errhint("Watch an ordinary or a partitioned table.")));
	ReleaseSysCache(tuple);
}

/*
 * Names of the primary key's columns, in its order.  Looked up in pg_index,
 * and not through the relation, which is not locked.
 */
static List *
primary_key_columns(Oid relation)
{
	Relation	pg_index = table_open(IndexRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	List	   *names = NIL;

	ScanKeyInit(&key, Anum_pg_index_indrelid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relation));
	scan = systable_beginscan(pg_index, IndexIndrelidIndexId, true, NULL,
							  1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_index form = (Form_pg_index) GETSTRUCT(tuple);

		if (!form->indisprimary)
			continue;
		for (int i = 0; i < form->indnkeyatts; i++)
			names = lappend(names, get_attname(relation,
											   form->indkey.values[i], false));
	}
	systable_endscan(scan);
	table_close(pg_index, AccessShareLock);
	return names;
}

/* The name of a watcher, which is its channel's. */
static char *
watcher_name(Oid relation, const char *event, const char *label)
{
	char	   *name;
	size_t		len;
	int			excess;

	if (label != NULL)
		name = pstrdup(label);
	else if (get_rel_namespace(relation) == PG_PUBLIC_NAMESPACE)
		name = psprintf("%s_%s", get_rel_name(relation), event);
	else
		name = psprintf("%s.%s_%s",
						get_namespace_name(get_rel_namespace(relation)),
						get_rel_name(relation), event);

	len = strlen(name);
	if (len == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("label must not be empty"),
				 errhint("Leave it out for a name made of table and event.")));
	excess = pg_mbstrlen(name) -
		pg_mbstrlen_with_len(name, pg_mbcliplen(name, len, NAMEDATALEN - 1));
	if (excess > 0)
		ereport(ERROR,
				(errcode(ERRCODE_NAME_TOO_LONG),
				 errmsg_plural("watcher name \"%s\" is too long by %d character",
							   "watcher name \"%s\" is too long by %d characters",
							   excess, name, excess),
				 errdetail("It has %zu bytes; %d are possible.",
						   len, NAMEDATALEN - 1),
				 errhint("Give the watcher a shorter name with label.")));
	if (strpbrk(name, "|\"") != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("watcher name \"%s\" contains \"%c\"",
						name, *strpbrk(name, "|\"")),
				 errdetail("A watcher's name is the name of a channel too."),
				 errhint("Give the watcher another name with label.")));
	return name;
}

/*
 * Two members of a message must not have one name.  A map may name columns
 * that are not delivered, so that one map does for all watchers of a table.
 */
static void
check_column_map(const WatcherDef *wanted)
{
	List	   *members;
	int			nkeys;
	ListCell   *lc;

	foreach(lc, wanted->column_map)
	{
		ColumnName *pair = lfirst(lc);

		if ((wanted->given & GIVEN_COLUMN_MAP) &&
			get_attnum(wanted->relation, pair->column) <= 0)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("column \"%s\" of relation \"%s\" does not exist",
							pair->column, get_rel_name(wanted->relation)),
					 errdetail("It is named in column_map."),
					 get_attnum(wanted->relation, pair->name) > 0 ?
					 errhint("column_map goes from columns to names: perhaps '{\"%s\": \"%s\"}' was meant.",
							 pair->name, pair->column) :
					 errhint("Write column names as they are in the table, without quotes.")));
		for (int i = 0; i < foreach_current_index(lc); i++)
		{
			ColumnName *other = list_nth(wanted->column_map, i);

			if (strcmp(other->name, pair->name) == 0)
				ereport(ERROR,
						(errcode(ERRCODE_DUPLICATE_COLUMN),
						 errmsg("column_map gives columns \"%s\" and \"%s\" the name \"%s\"",
								other->column, pair->column, pair->name),
						 errhint("Give each column a name of its own.")));
		}
	}

	members = watcher_members(wanted, &nkeys);
	foreach(lc, members)
	{
		WatcherMember *member = lfirst(lc);

		for (int i = 0; i < foreach_current_index(lc); i++)
		{
			WatcherMember *other = list_nth(members, i);

			if (strcmp(other->name, member->name) == 0)
				ereport(ERROR,
						(errcode(ERRCODE_DUPLICATE_COLUMN),
						 errmsg("columns \"%s\" and \"%s\" would both have the name \"%s\"",
								other->column, member->column, member->name),
						 errdetail("One of them gets it from column_map."),
						 errhint("Give each column a name of its own.")));
		}
	}
}

/* One that is given as it was before needs no look at the table. */
static void
check_condition(WatcherDef *wanted, const WatcherDef *existing)
{
	wanted->condition = NULL;
	wanted->condition_basis = NIL;
	if (wanted->condition_given == NULL)
		return;
	if (existing != NULL && existing->condition_given != NULL &&
		strcmp(existing->condition_given, wanted->condition_given) == 0 &&
		condition_basis_holds(wanted->relation, existing->condition_basis))
	{
		wanted->condition = existing->condition;
		wanted->condition_basis = existing->condition_basis;
		return;
	}
	wanted->condition = condition_check(wanted->relation, wanted->events,
										wanted->condition_given,
										&wanted->condition_basis);
}

void
validate_watcher(WatcherDef *wanted)
{
	WatcherDef *existing;

	check_relation(wanted->relation);

	/* a name was chosen once, whatever the table is called now */
	existing = options_find_identity(wanted);
	wanted->name = existing != NULL ? existing->name :
		watcher_name(wanted->relation, wanted->event, wanted->label);

	if (wanted->trigger_columns != NIL && !(wanted->events & EVENT_UPDATED))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("trigger_columns cannot be used with event %s",
						wanted->event),
				 errdetail("Only an update can change some columns and not others."),
				 errhint("Use event updated, or leave out trigger_columns.")));
	if (wanted->trigger_columns != NIL && wanted->label == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("trigger_columns needs a label"),
				 errdetail("The name \"%s\" is for a watcher of all updates.",
						   wanted->name),
				 errhint("Name the watcher with label.")));
	if (wanted->events == EVENT_TRUNCATED &&
		(wanted->extra_columns != NIL || wanted->key_given))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s cannot be used with event truncated",
						wanted->key_given ? "key_columns" : "extra_columns"),
				 errdetail("A TRUNCATE has no row whose values could be delivered."),
				 errhint("Leave it out, or use event changed.")));

	/* of what is left as it is, columns may have been dropped */
	if (wanted->given & GIVEN_TRIGGER_COLUMNS)
		check_columns(wanted->relation, wanted->trigger_columns, "trigger_columns");
	if (wanted->given & GIVEN_EXTRA_COLUMNS)
		check_columns(wanted->relation, wanted->extra_columns, "extra_columns");
	if (!(wanted->given & GIVEN_KEY_COLUMNS))
		 /* it stays, too */ ;
	else if (wanted->key_given)
	{
		if (watcher_wants_all(wanted->key_columns))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("key_columns must not be '{*}'"),
					 errhint("Name the columns that identify a row.")));
		check_columns(wanted->relation, wanted->key_columns, "key_columns");
	}
	else if (wanted->events != EVENT_TRUNCATED)
		wanted->key_columns = primary_key_columns(wanted->relation);
	if (wanted->key_columns == NIL && wanted->events != EVENT_TRUNCATED)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
				 errmsg("relation \"%s\" has no primary key",
						get_rel_name(wanted->relation)),
				 errdetail("Without one, messages could not say which row they are about."),
				 errhint("Name the columns that identify a row with key_columns.")));
	if (wanted->given & (GIVEN_EXTRA_COLUMNS | GIVEN_KEY_COLUMNS | GIVEN_COLUMN_MAP))
		check_column_map(wanted);
	if (wanted->given & GIVEN_CONDITION)
		check_condition(wanted, existing);
}
