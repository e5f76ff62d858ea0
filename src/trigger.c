/*-------------------------------------------------------------------------
 *
 * trigger.c
 *	  Creating, finding and dropping the triggers of watched tables.
 *
 * All watchers of a table share one trigger per event.  It says nothing but
 * the name of the capture function, so nothing depends on columns, and what
 * watchers ask for can change without it.
 *
 * A trigger that a replicated watcher needs fires ALWAYS; that others do not
 * hear what replication writes is up to capture.c, so it may stay so.
 *
 * A trigger that no watcher needs any longer is dropped if its table, with all
 * partitions, can be locked at once, and this session does not use it.  If not,
 * it stays, and does nothing: DROP TRIGGER needs an AccessExclusiveLock, and
 * while that waits, so do all writers.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "commands/extension.h"
#include "commands/sequence.h"
#include "commands/trigger.h"
#include "nodes/makefuncs.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "capture.h"
#include "ectowatch.h"
#include "locks.h"
#include "trigger.h"
#include "watcher.h"

/* What the names of our triggers begin with; a number follows. */
#define TRIGGER_PREFIX	"0_ectowatch_"

/* Events in the order of their bits, with their triggers' type. */
static const int event_trigger_type[] = {
	TRIGGER_TYPE_INSERT,
	TRIGGER_TYPE_UPDATE,
	TRIGGER_TYPE_DELETE,
	TRIGGER_TYPE_TRUNCATE
};

StaticAssertDecl(lengthof(event_trigger_type) == NEVENTS,
				 "each event needs a trigger type");


static Oid
capture_function(void)
{
	Oid			schema = get_extension_schema(get_extension_oid(ECTOWATCH_NAME, false));
	oidvector  *no_arguments = buildoidvector(NULL, 0);

	return GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid,
						   CStringGetDatum(CAPTURE_FUNCTION),
						   PointerGetDatum(no_arguments),
						   ObjectIdGetDatum(schema));
}

/* AFTER and, but for TRUNCATE, FOR EACH ROW. */
static int16
trigger_type(int event)
{
	return event_trigger_type[event] | TRIGGER_TYPE_AFTER |
		(event_trigger_type[event] == TRIGGER_TYPE_TRUNCATE ?
		 TRIGGER_TYPE_STATEMENT : TRIGGER_TYPE_ROW);
}

/*
 * Whether a trigger is as trigger_create() makes it, for one of the events; not
 * one that somebody made otherwise: for fewer columns, with a condition or
 * arguments, deferred.
 */
static bool
trigger_is_well_formed(HeapTuple tuple)
{
	Form_pg_trigger form = (Form_pg_trigger) GETSTRUCT(tuple);

	if (form->tgattr.dim1 > 0 || form->tgnargs > 0 ||
		OidIsValid(form->tgconstraint) ||
		!heap_attisnull(tuple, Anum_pg_trigger_tgqual, NULL) ||
		!heap_attisnull(tuple, Anum_pg_trigger_tgoldtable, NULL) ||
		!heap_attisnull(tuple, Anum_pg_trigger_tgnewtable, NULL))
		return false;
	for (int i = 0; i < NEVENTS; i++)
	{
		if (form->tgtype == trigger_type(i))
			return true;
	}
	return false;
}

/*
 * Clones of a parent's trigger are the parent's.  'always' is set to the
 * events that have one that fires ALWAYS; of several for one event, the result
 * is that.
 */
static int
find_triggers(Oid relation, int events, Oid *triggers, int *always)
{
	Oid			function = capture_function();
	Relation	pg_trigger = table_open(TriggerRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	int			found = 0;

	*always = 0;
	ScanKeyInit(&key, Anum_pg_trigger_tgrelid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relation));
	scan = systable_beginscan(pg_trigger, TriggerRelidNameIndexId, true, NULL,
							  1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_trigger form = (Form_pg_trigger) GETSTRUCT(tuple);

		if (form->tgfoid != function || OidIsValid(form->tgparentid) ||
			!trigger_is_well_formed(tuple))
			continue;
		for (int i = 0; i < NEVENTS; i++)
		{
			if ((events & (1 << i)) && form->tgtype == trigger_type(i))
			{
				found |= 1 << i;
				if (triggers && !(*always & (1 << i)))
					triggers[i] = form->oid;
				if (form->tgenabled == TRIGGER_FIRES_ALWAYS)
					*always |= 1 << i;
			}
		}
	}
	systable_endscan(scan);
	table_close(pg_trigger, AccessShareLock);
	return found;
}

int
triggers_of(Oid relation, int events, Oid *triggers)
{
	int			always;

	return find_triggers(relation, events, triggers, &always);
}

int
triggers_missing(Oid relation, int events, bool replicated)
{
	int			always;
	int			found = find_triggers(relation, events, NULL, &always);

	return events & ~(replicated ? always : found);
}

static char *
trigger_name(Oid trigger)
{
	Relation	pg_trigger = table_open(TriggerRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	char	   *name;

	ScanKeyInit(&key, Anum_pg_trigger_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(trigger));
	scan = systable_beginscan(pg_trigger, TriggerOidIndexId, true, NULL,
							  1, &key);
	tuple = systable_getnext(scan);
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "trigger %u does not exist", trigger);
	name = pstrdup(NameStr(((Form_pg_trigger) GETSTRUCT(tuple))->tgname));
	systable_endscan(scan);
	table_close(pg_trigger, AccessShareLock);
	return name;
}

static bool
name_is_ours(const char *name)
{
	size_t		prefix = strlen(TRIGGER_PREFIX);

	return strncmp(name, TRIGGER_PREFIX, prefix) == 0 &&
		name[prefix] != '\0' &&
		strspn(name + prefix, "0123456789") == strlen(name + prefix);
}

static int
events_of_type(int16 type)
{
	int			events = 0;

	for (int i = 0; i < NEVENTS; i++)
	{
		if (type & event_trigger_type[i])
			events |= 1 << i;
	}
	return events;
}

List *
triggers_list(void)
{
	Oid			function = capture_function();
	Relation	pg_trigger = table_open(TriggerRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(pg_trigger, InvalidOid, false, NULL,
										  0, NULL);
	HeapTuple	tuple;
	List	   *list = NIL;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_trigger form = (Form_pg_trigger) GETSTRUCT(tuple);
		TriggerInfo *info;

		if (form->tgfoid != function ||
			get_rel_persistence(form->tgrelid) == RELPERSISTENCE_TEMP)
			continue;
		info = palloc(sizeof(TriggerInfo));
		info->oid = form->oid;
		info->relation = form->tgrelid;
		info->parent = form->tgparentid;
		info->name = pstrdup(NameStr(form->tgname));
		info->events = events_of_type(form->tgtype);
		info->well_formed = trigger_is_well_formed(tuple);
		info->ours = name_is_ours(info->name);
		info->enabled = form->tgenabled;
		list = lappend(list, info);
	}
	systable_endscan(scan);
	table_close(pg_trigger, AccessShareLock);
	return list;
}

List *
triggers_relations(void)
{
	Oid			function = capture_function();
	Relation	pg_trigger = table_open(TriggerRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(pg_trigger, InvalidOid, false, NULL,
										  0, NULL);
	HeapTuple	tuple;
	List	   *relations = NIL;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_trigger form = (Form_pg_trigger) GETSTRUCT(tuple);

		if (form->tgfoid == function)
			relations = lappend_oid(relations, form->tgrelid);
	}
	systable_endscan(scan);
	table_close(pg_trigger, AccessShareLock);
	return relations;
}

/*
 * Creates the trigger for one event.  Its name sorts before others, so that
 * what other triggers write comes later, and is unique in the database, so
 * that a partition that has it can be attached anywhere.
 */
char *
trigger_create(Oid relation, int event)
{
	Oid			sequence = get_relname_relid("ectowatch_trigger_ids",
											 get_extension_schema(get_extension_oid(ECTOWATCH_NAME, false)));
	char	   *schema = get_namespace_name(get_func_namespace(capture_function()));
	CreateTrigStmt *stmt = makeNode(CreateTrigStmt);

	stmt->trigname = psprintf(TRIGGER_PREFIX INT64_FORMAT,
							  nextval_internal(sequence, false));
	stmt->relation = makeRangeVar(get_namespace_name(get_rel_namespace(relation)),
								  get_rel_name(relation), -1);
	stmt->funcname = list_make2(makeString(schema),
								makeString(CAPTURE_FUNCTION));
	stmt->row = TRIGGER_FOR_ROW(trigger_type(event));
	stmt->timing = TRIGGER_TYPE_AFTER;
	stmt->events = event_trigger_type[event];

	(void) CreateTrigger(stmt, NULL, relation, InvalidOid, InvalidOid,
						 InvalidOid, capture_function(),
						 InvalidOid, NULL, false, false);
	CommandCounterIncrement();
	return stmt->trigname;
}

/* As ALTER TABLE ... ENABLE TRIGGER, with the clones on partitions. */
void
trigger_enable(Oid relation, const char *name, bool always)
{
	Relation	rel = table_open(relation, NoLock);

	EnableDisableTriggerNew(rel, name,
							always ? TRIGGER_FIRES_ALWAYS : TRIGGER_FIRES_ON_ORIGIN,
							true, true, ShareRowExclusiveLock);
	table_close(rel, NoLock);
	CommandCounterIncrement();
}

static void
set_always(Oid relation, int events)
{
	Oid			triggers[NEVENTS];
	int			found = triggers_of(relation, events, triggers);

	for (int i = 0; i < NEVENTS; i++)
	{
		if (found & (1 << i))
			trigger_enable(relation, trigger_name(triggers[i]), true);
	}
}

void
triggers_create_missing(Oid relation, int events, bool replicated)
{
	int			missing = triggers_missing(relation, events, false);

	for (int i = 0; i < NEVENTS; i++)
	{
		if (missing & (1 << i))
			(void) trigger_create(relation, i);
	}
	if (replicated)
		set_always(relation, triggers_missing(relation, events, true));
}

/*
 * Whether this session itself, whom locks do not stop, uses a locked relation,
 * as CheckTableNotInUse() has it: by a query, a cursor, or changes whose
 * triggers have still to fire.
 */
static bool
used_by_session(Oid relation)
{
	Relation	rel = try_relation_open(relation, NoLock);
	bool		used;

	if (rel == NULL)
		return false;
	used = rel->rd_refcnt > 1 || AfterTriggerPendingOnRel(relation);
	relation_close(rel, NoLock);
	return used;
}

/*
 * Locks a relation and its partitions as DROP TRIGGER does, but waits for no
 * one: if one of them is in use, none is locked.
 */
static bool
lock_all_at_once(Oid relation)
{
	List	   *relations = find_all_inheritors(relation, NoLock, NULL);
	TableLock  *locks = locks_on(relations, AccessExclusiveLock);
	ListCell   *lc;

	if (!locks_take_at_once(locks, list_length(relations)))
		return false;
	foreach(lc, relations)
	{
		if (used_by_session(lfirst_oid(lc)))
		{
			locks_release(locks, list_length(relations));
			return false;
		}
	}
	return true;
}

static void
drop_trigger(Oid trigger)
{
	ObjectAddress address;

	ObjectAddressSet(address, TriggerRelationId, trigger);
	performDeletion(&address, DROP_RESTRICT, 0);
}

bool
trigger_drop_at_once(Oid relation, Oid trigger)
{
	if (!lock_all_at_once(relation))
		return false;
	drop_trigger(trigger);
	return true;
}

void
triggers_drop_idle(Oid relation)
{
	int			needed = 0;
	Oid			triggers[NEVENTS];
	int			idle;
	ListCell   *lc;

	foreach(lc, watcher_list(relation))
		needed |= ((WatcherDef *) lfirst(lc))->events;
	idle = triggers_of(relation, EVENT_CHANGED & ~needed, triggers);
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
			drop_trigger(triggers[i]);
	}
}
