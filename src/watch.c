/*-------------------------------------------------------------------------
 *
 * watch.c
 *	  SQL functions that create, replace and remove watchers.
 *
 * ectowatch_watch() first looks, without any lock, whether the watcher exists
 * as asked for; then there is nothing to do, whoever asks.  Else it takes, in
 * this order,
 *
 *	1. ShareUpdateExclusiveLock on the registry, which lets in one such call
 *	   at a time, but no reader and not the removal of a dropped table's
 *	   watchers has to wait,
 *	2. a lock on the table: ShareRowExclusiveLock, as CREATE TRIGGER does, if
 *	   a trigger is missing, else AccessShareLock,
 *
 * and looks again.  Everything is checked before anything is changed.
 *
 * A trigger that no watcher needs any longer is dropped if its table, with all
 * partitions, can be locked at once.  If not, it stays, and does nothing: DROP
 * TRIGGER needs an AccessExclusiveLock, and while that waits, so do all
 * writers.
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
#include "access/xact.h"
#include "catalog/catalog.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "commands/sequence.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "storage/lmgr.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "capture.h"
#include "ectowatch.h"
#include "pending.h"
#include "registry.h"
#include "slot.h"
#include "watcher.h"

PG_FUNCTION_INFO_V1(ectowatch_watch);
PG_FUNCTION_INFO_V1(ectowatch_unwatch);
PG_FUNCTION_INFO_V1(ectowatch_unwatch_event);

/* Events in the order of their bits, with their triggers' type. */
static const int event_trigger_type[] = {
	TRIGGER_TYPE_INSERT,
	TRIGGER_TYPE_UPDATE,
	TRIGGER_TYPE_DELETE,
	TRIGGER_TYPE_TRUNCATE
};

#define NEVENTS		((int) lengthof(event_trigger_type))

#define hint_events \
	errhint("Events are inserted, updated, deleted, truncated and changed.")

/* --- arguments --- */

static Oid
own_function(const char *name)
{
	Oid			schema = get_extension_schema(get_extension_oid(ECTOWATCH_NAME, false));
	oidvector  *no_arguments = buildoidvector(NULL, 0);

	return GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid,
						   CStringGetDatum(name),
						   PointerGetDatum(no_arguments),
						   ObjectIdGetDatum(schema));
}

/* A list of column names; NIL for NULL. */
static List *
columns_argument(FunctionCallInfo fcinfo, int n, const char *argument)
{
	ArrayType  *array;
	Datum	   *elements;
	bool	   *nulls;
	int			nelements;
	List	   *names = NIL;

	if (PG_ARGISNULL(n))
		return NIL;
	array = PG_GETARG_ARRAYTYPE_P(n);
	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be a one-dimensional array", argument),
				 errhint("Write it as '{one,two}'.")));
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT,
					  &elements, &nulls, &nelements);
	for (int i = 0; i < nelements; i++)
	{
		char	   *name;
		ListCell   *lc;

		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("%s must not contain nulls", argument),
					 errhint("Name columns of the table.")));
		name = TextDatumGetCString(elements[i]);
		foreach(lc, names)
		{
			if (strcmp(lfirst(lc), name) == 0)
				ereport(ERROR,
						(errcode(ERRCODE_DUPLICATE_COLUMN),
						 errmsg("column \"%s\" appears twice in %s",
								name, argument),
						 errhint("Name each column once.")));
		}
		names = lappend(names, name);
	}
	return names;
}

/* A column that a list names must be an ordinary one of the table. */
static void
check_columns(Oid relation, List *names, const char *argument)
{
	ListCell   *lc;

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

static void
check_owner(Oid relation)
{
	if (!pg_class_ownercheck(relation, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER,
					   get_relkind_objtype(get_rel_relkind(relation)),
					   get_rel_name(relation));
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

/* --- comparing --- */

static bool
same_text(const char *a, const char *b)
{
	return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

static bool
same_names(List *a, List *b)
{
	ListCell   *la;
	ListCell   *lb;

	if (list_length(a) != list_length(b))
		return false;
	forboth(la, a, lb, b)
	{
		if (strcmp(lfirst(la), lfirst(lb)) != 0)
			return false;
	}
	return true;
}

/* The watcher of the same relation, event and label. */
static WatcherDef *
find_identity(const WatcherDef *wanted)
{
	ListCell   *lc;

	foreach(lc, watcher_list(wanted->relation))
	{
		WatcherDef *def = lfirst(lc);

		if (strcmp(def->event, wanted->event) == 0 &&
			same_text(def->label, wanted->label))
			return def;
	}
	return NULL;
}

static bool
same_options(const WatcherDef *a, const WatcherDef *b)
{
	return same_names(a->trigger_columns, b->trigger_columns) &&
		same_names(a->extra_columns, b->extra_columns) &&
		same_names(a->key_columns, b->key_columns) &&
		a->key_given == b->key_given;
}

/* --- triggers --- */

/* AFTER and, but for TRUNCATE, FOR EACH ROW. */
static int16
trigger_type(int event)
{
	return event_trigger_type[event] | TRIGGER_TYPE_AFTER |
		(event_trigger_type[event] == TRIGGER_TYPE_TRUNCATE ?
		 TRIGGER_TYPE_STATEMENT : TRIGGER_TYPE_ROW);
}

/*
 * The events, of those given, for which a relation has a trigger of ours.
 * Clones of a parent's trigger are the parent's.
 */
static int
relation_triggers(Oid relation, int events, Oid *triggers)
{
	Oid			function = own_function(CAPTURE_FUNCTION);
	Relation	pg_trigger = table_open(TriggerRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	int			found = 0;

	ScanKeyInit(&key, Anum_pg_trigger_tgrelid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relation));
	scan = systable_beginscan(pg_trigger, TriggerRelidNameIndexId, true, NULL,
							  1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_trigger form = (Form_pg_trigger) GETSTRUCT(tuple);

		/* none that somebody made otherwise: fewer columns, a condition */
		if (form->tgfoid != function || OidIsValid(form->tgparentid) ||
			form->tgattr.dim1 > 0 ||
			!heap_attisnull(tuple, Anum_pg_trigger_tgqual, NULL))
			continue;
		for (int i = 0; i < NEVENTS; i++)
		{
			if ((events & (1 << i)) && form->tgtype == trigger_type(i))
			{
				found |= 1 << i;
				if (triggers)
					triggers[i] = form->oid;
			}
		}
	}
	systable_endscan(scan);
	table_close(pg_trigger, AccessShareLock);
	return found;
}

/*
 * Creates the trigger for one event.  Its name sorts before others, so that
 * what other triggers write comes later, and is unique in the database, so
 * that a partition that has it can be attached anywhere.
 */
static void
create_trigger(Oid relation, int event)
{
	Oid			sequence = get_relname_relid("ectowatch_trigger_ids",
											 get_extension_schema(get_extension_oid(ECTOWATCH_NAME, false)));
	char	   *schema = get_namespace_name(get_func_namespace(own_function(CAPTURE_FUNCTION)));
	CreateTrigStmt *stmt = makeNode(CreateTrigStmt);

	stmt->trigname = psprintf("0_ectowatch_" INT64_FORMAT,
							  nextval_internal(sequence, false));
	stmt->relation = makeRangeVar(get_namespace_name(get_rel_namespace(relation)),
								  get_rel_name(relation), -1);
	stmt->funcname = list_make2(makeString(schema),
								makeString(CAPTURE_FUNCTION));
	stmt->row = TRIGGER_FOR_ROW(trigger_type(event));
	stmt->timing = TRIGGER_TYPE_AFTER;
	stmt->events = event_trigger_type[event];

	(void) CreateTrigger(stmt, NULL, relation, InvalidOid, InvalidOid,
						 InvalidOid, own_function(CAPTURE_FUNCTION),
						 InvalidOid, NULL, false, false);
	CommandCounterIncrement();
}

static void
create_missing_triggers(Oid relation, int events)
{
	int			missing = events & ~relation_triggers(relation, events, NULL);

	for (int i = 0; i < NEVENTS; i++)
	{
		if (missing & (1 << i))
			create_trigger(relation, i);
	}
}

/*
 * Locks a relation and its partitions as DROP TRIGGER does, but waits for no
 * one: if one of them is in use, none is locked.
 */
static bool
lock_all_at_once(Oid relation)
{
	List	   *locked = NIL;
	ListCell   *lc;

	foreach(lc, find_all_inheritors(relation, NoLock, NULL))
	{
		if (!ConditionalLockRelationOid(lfirst_oid(lc), AccessExclusiveLock))
		{
			foreach(lc, locked)
				UnlockRelationOid(lfirst_oid(lc), AccessExclusiveLock);
			return false;
		}
		locked = lappend_oid(locked, lfirst_oid(lc));
	}
	return true;
}

/* Drops the triggers for which there is no watcher any longer. */
static void
drop_idle_triggers(Oid relation)
{
	int			needed = 0;
	Oid			triggers[NEVENTS];
	int			idle;
	ListCell   *lc;

	foreach(lc, watcher_list(relation))
		needed |= ((WatcherDef *) lfirst(lc))->events;
	idle = relation_triggers(relation, EVENT_CHANGED & ~needed, triggers);
	if (idle == 0)
		return;

	if (!lock_all_at_once(relation))
	{
		ereport(NOTICE,
				(errmsg("triggers of ectowatch stay on relation \"%s\"",
						get_rel_name(relation)),
				 errdetail("The table is in use. The triggers do nothing.")));
		return;
	}
	for (int i = 0; i < NEVENTS; i++)
	{
		if (idle & (1 << i))
		{
			ObjectAddress address;

			ObjectAddressSet(address, TriggerRelationId, triggers[i]);
			performDeletion(&address, DROP_RESTRICT, 0);
		}
	}
}

/* --- watch --- */

/*
 * An id that no living watcher has, nor shares a place in the slot with.
 */
static uint32
allocate_id(List *watchers)
{
	Oid			sequence = get_relname_relid("ectowatch_watcher_ids",
											 get_extension_schema(get_extension_oid(ECTOWATCH_NAME, false)));

	if (list_length(watchers) >= SLOT_MAX_WATCHERS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("cannot have more than %d watchers in a database",
						SLOT_MAX_WATCHERS),
				 errhint("Remove some with ectowatch_unwatch().")));
	for (;;)
	{
		uint32		id = (uint32) nextval_internal(sequence, false);
		bool		taken = false;
		ListCell   *lc;

		foreach(lc, watchers)
		{
			if (((WatcherDef *) lfirst(lc))->id % SLOT_MAX_WATCHERS ==
				id % SLOT_MAX_WATCHERS)
				taken = true;
		}
		if (!taken)
			return id;
	}
}

/* Another watcher may not have the name, unless its table is gone. */
static void
check_name_is_free(const WatcherDef *wanted)
{
	WatcherDef *other = watcher_find(wanted->name);

	if (other == NULL)
		return;
	if (get_rel_name(other->relation) == NULL)
	{
		registry_remove(other);
		return;
	}
	ereport(ERROR,
			(errcode(ERRCODE_DUPLICATE_OBJECT),
			 errmsg("watcher \"%s\" already exists", wanted->name),
			 errdetail("It watches relation %s for event %s.",
					   watcher_relation_name(other->relation), other->event),
			 errhint("Give the watcher another name with label.")));
}

/*
 * Checks a wanted watcher against its table, and fills in name and key.
 * Reads catalogs only, and locks nothing: what it finds is certain only if
 * the caller has the table locked.
 */
static void
check_wanted(WatcherDef *wanted)
{
	check_relation(wanted->relation);
	wanted->name = watcher_name(wanted->relation, wanted->event, wanted->label);

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

	check_columns(wanted->relation, wanted->trigger_columns, "trigger_columns");
	check_columns(wanted->relation, wanted->extra_columns, "extra_columns");
	check_columns(wanted->relation, wanted->key_columns, "key_columns");
	if (wanted->key_given || wanted->events == EVENT_TRUNCATED)
		return;
	wanted->key_columns = primary_key_columns(wanted->relation);
	if (wanted->key_columns == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
				 errmsg("relation \"%s\" has no primary key",
						get_rel_name(wanted->relation)),
				 errdetail("Without one, messages could not say which row they are about."),
				 errhint("Name the columns that identify a row with key_columns.")));
}

/* Whether the relation has its watcher, as wanted, with its triggers. */
static bool
is_in_place(const WatcherDef *wanted, const WatcherDef *existing)
{
	return existing != NULL && same_options(existing, wanted) &&
		relation_triggers(wanted->relation, wanted->events, NULL) == wanted->events;
}

static void
notice_quoted_channel(const char *name)
{
	if (strcmp(quote_identifier(name), name) != 0)
		ereport(NOTICE,
				(errmsg("the channel's name needs quotes: LISTEN %s",
						quote_identifier(name))));
}

Datum
ectowatch_watch(PG_FUNCTION_ARGS)
{
	WatcherDef	wanted = {0};
	WatcherDef *existing;
	Slot	   *slot;

	ectowatch_require_preload();
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null",
						PG_ARGISNULL(0) ? "relation" : "event"),
				 errhint("Name the table to be watched, and one of inserted, updated, deleted, truncated and changed.")));
	wanted.relation = PG_GETARG_OID(0);
	wanted.event = text_to_cstring(PG_GETARG_TEXT_PP(1));
	wanted.events = registry_event(wanted.event);
	wanted.label = PG_ARGISNULL(2) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(2));
	wanted.trigger_columns = columns_argument(fcinfo, 3, "trigger_columns");
	wanted.extra_columns = columns_argument(fcinfo, 4, "extra_columns");
	wanted.key_columns = columns_argument(fcinfo, 5, "key_columns");
	wanted.key_given = wanted.key_columns != NIL;
	wanted.run = slot_run();

	if (wanted.events == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unrecognized event: \"%s\"", wanted.event),
				 hint_events));

	check_wanted(&wanted);

	/* the common case at an application's start: it has all been done */
	existing = find_identity(&wanted);
	if (!is_in_place(&wanted, existing))
	{
		check_owner(wanted.relation);
		PreventCommandIfReadOnly("ectowatch_watch()");
		PreventCommandIfParallelMode("ectowatch_watch()");
		PreventCommandDuringRecovery("ectowatch_watch()");

		LockRelationOid(watcher_registry_oid(), ShareUpdateExclusiveLock);
		LockRelationOid(wanted.relation,
						relation_triggers(wanted.relation, wanted.events, NULL) ==
						wanted.events ? AccessShareLock : ShareRowExclusiveLock);
		check_wanted(&wanted);
		check_owner(wanted.relation);
		existing = find_identity(&wanted);
	}
	if (!is_in_place(&wanted, existing))
	{
		if (existing != NULL)
		{
			/* the name was chosen once, whatever the table is called now */
			wanted.id = existing->id;
			wanted.name = existing->name;
			wanted.run = existing->run;
			registry_update(&wanted);
		}
		else
		{
			check_name_is_free(&wanted);
			wanted.id = allocate_id(watcher_list(InvalidOid));
			registry_insert(&wanted);
		}
		create_missing_triggers(wanted.relation, wanted.events);
	}
	else
		wanted.name = existing->name;

	notice_quoted_channel(wanted.name);
	slot = slot_attach();
	if (slot == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no more databases can use ectowatch"),
				 errdetail("%d others do already.", ectowatch_max_databases),
				 errhint("Increase ectowatch.max_databases and restart the server.")));
	slot_request_worker(slot);
	PG_RETURN_TEXT_P(cstring_to_text(wanted.name));
}

/* --- unwatch --- */

/* Tells a watcher's listeners that there will be no more. */
static void
add_ended(const WatcherDef *def)
{
	ChangeParts parts = {0};

	parts.watcher = def->id;
	parts.relation = def->relation;
	parts.type = CHANGE_ENDED;
	parts.flags = def->run == slot_run() ? CHANGE_FRESH : 0;
	parts.name = def->name;
	parts.relation_name = watcher_relation_name(def->relation);
	pending_add(change_make(&parts), NULL);
}

static void
remove_watcher(const WatcherDef *def)
{
	bool		gone = get_rel_name(def->relation) == NULL;

	if (!gone)
		check_owner(def->relation);
	PreventCommandIfReadOnly("ectowatch_unwatch()");
	PreventCommandDuringRecovery("ectowatch_unwatch()");

	LockRelationOid(watcher_registry_oid(), ShareUpdateExclusiveLock);
	if (!registry_remove(def))
		return;					/* someone else was faster */
	add_ended(def);
	if (!gone)
		drop_idle_triggers(def->relation);
}

Datum
ectowatch_unwatch(PG_FUNCTION_ARGS)
{
	char	   *name;
	WatcherDef *def;

	ectowatch_require_preload();
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	def = watcher_find(name);
	if (def == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("watcher \"%s\" does not exist", name),
				 errhint("View ectowatch_watchers lists those that do.")));
	remove_watcher(def);
	PG_RETURN_VOID();
}

Datum
ectowatch_unwatch_event(PG_FUNCTION_ARGS)
{
	WatcherDef	wanted = {0};
	WatcherDef *def;

	ectowatch_require_preload();
	wanted.relation = PG_GETARG_OID(0);
	wanted.event = text_to_cstring(PG_GETARG_TEXT_PP(1));
	if (registry_event(wanted.event) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unrecognized event: \"%s\"", wanted.event),
				 hint_events));
	def = find_identity(&wanted);
	if (def == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("relation \"%s\" has no watcher without a label for event %s",
						DatumGetCString(DirectFunctionCall1(regclassout,
															ObjectIdGetDatum(wanted.relation))),
						wanted.event),
				 errhint("View ectowatch_watchers lists those that there are; one with a label is removed by its name.")));
	remove_watcher(def);
	PG_RETURN_VOID();
}

/*
 * The table's own triggers go with it, by dependency.
 */
void
watcher_relation_dropped(Oid relation)
{
	ListCell   *lc;

	foreach(lc, watcher_list(relation))
	{
		WatcherDef *def = lfirst(lc);

		if (!registry_remove(def))
			continue;
		add_ended(def);
		ereport(NOTICE,
				(errmsg("watcher \"%s\" ends with relation \"%s\"",
						def->name, get_rel_name(relation))));
	}
}
