/*-------------------------------------------------------------------------
 *
 * plan.c
 *	  What a trigger has to do: this backend's cache.
 *
 * It holds, by trigger, the watchers of the relation for which the trigger was
 * made, with their columns looked up in the relation that fires it.  A
 * partition's trigger is a clone; the relation for which it was made is found
 * through its parents in pg_trigger, and columns go by name, for a partition
 * may have them in another order.
 *
 * Who changes the registry invalidates the watched relation, as DDL on it
 * does by itself.  The callback only marks; the plan is made anew when the
 * trigger next fires.  Making one takes no lock on the watched relation beyond
 * what the writer has, and none on its parents, and must not fail because a
 * column has gone.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_index.h"
#include "catalog/pg_trigger.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "ectowatch.h"
#include "plan.h"

/* Who attaches the trigger by hand may make one for several events. */
typedef struct CachedPlanKey
{
	Oid			trigger;
	int			event;
} CachedPlanKey;

typedef struct CachedPlan
{
	CachedPlanKey key;
	bool		valid;
	MemoryContext context;		/* of the plan, or NULL */
	TriggerPlan *plan;
} CachedPlan;

static HTAB *plans;

/* The one that was asked for last. */
static CachedPlan *last_plan;

/* See plan_generation(). */
static uint64 generation = 1;

/* How many plans there may be before those of dropped triggers are freed. */
static long plans_limit = 256;

/* --- invalidation --- */

static void
plans_invalidate(Oid relation)
{
	HASH_SEQ_STATUS scan;
	CachedPlan *entry;

	if (plans == NULL)
		return;
	hash_seq_init(&scan, plans);
	while ((entry = hash_seq_search(&scan)) != NULL)
	{
		if (!OidIsValid(relation) || entry->plan == NULL ||
			entry->plan->relation == relation ||
			entry->plan->origin == relation)
			entry->valid = false;
	}
}

static void
relcache_callback(Datum arg pg_attribute_unused(), Oid relation)
{
	generation++;
	plans_invalidate(relation);
}

/* a schema may have another name, a type may render in another way */
static void
syscache_callback(Datum arg pg_attribute_unused(),
				  int cacheid pg_attribute_unused(),
				  uint32 hashvalue pg_attribute_unused())
{
	plans_invalidate(InvalidOid);
}

/* a condition may call a function that is another now, or gone, or refused */
static void
function_callback(Datum arg pg_attribute_unused(),
				  int cacheid pg_attribute_unused(),
				  uint32 hashvalue pg_attribute_unused())
{
	HASH_SEQ_STATUS scan;
	CachedPlan *entry;

	hash_seq_init(&scan, plans);
	while ((entry = hash_seq_search(&scan)) != NULL)
	{
		for (int i = 0; entry->plan != NULL && i < entry->plan->nwatchers; i++)
		{
			if (entry->plan->watchers[i].condition != NULL)
				entry->valid = false;
		}
	}
}

static void
cache_start(void)
{
	HASHCTL		ctl;

	ctl.keysize = sizeof(CachedPlanKey);
	ctl.entrysize = sizeof(CachedPlan);
	ctl.hcxt = CacheMemoryContext;
	plans = hash_create("ectowatch plans", 64, &ctl,
						HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	CacheRegisterRelcacheCallback(relcache_callback, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, syscache_callback, (Datum) 0);
	CacheRegisterSyscacheCallback(CASTSOURCETARGET, syscache_callback, (Datum) 0);
	CacheRegisterSyscacheCallback(PROCOID, function_callback, (Datum) 0);
}

/* --- the cache --- */

/* The relation for which a trigger, perhaps a clone of it, was made. */
static Oid
trigger_origin(Oid trigger)
{
	Oid			origin = InvalidOid;
	Relation	pg_trigger = table_open(TriggerRelationId, AccessShareLock);

	while (OidIsValid(trigger))
	{
		ScanKeyData key;
		SysScanDesc scan;
		HeapTuple	tuple;

		ScanKeyInit(&key, Anum_pg_trigger_oid, BTEqualStrategyNumber, F_OIDEQ,
					ObjectIdGetDatum(trigger));
		scan = systable_beginscan(pg_trigger, TriggerOidIndexId, true, NULL,
								  1, &key);
		trigger = InvalidOid;
		tuple = systable_getnext(scan);
		if (HeapTupleIsValid(tuple))
		{
			origin = ((Form_pg_trigger) GETSTRUCT(tuple))->tgrelid;
			trigger = ((Form_pg_trigger) GETSTRUCT(tuple))->tgparentid;
		}
		systable_endscan(scan);
	}
	table_close(pg_trigger, AccessShareLock);
	return origin;
}

static AttrNumber
column_number(TupleDesc desc, const char *name)
{
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (!att->attisdropped && strcmp(NameStr(att->attname), name) == 0)
			return att->attnum;
	}
	return InvalidAttrNumber;
}

static bool
plan_has_column(const WatcherPlan *plan, AttrNumber attnum)
{
	for (int i = 0; i < plan->parts.ncolumns; i++)
	{
		if (plan->columns[i].attnum == attnum)
			return true;
	}
	return false;
}

/*
 * Adds a column, unless it is there already.  One that has come by its name
 * since the watcher was made, which column_map gives to another, is left out.
 */
static void
plan_add_column(WatcherPlan *plan, TupleDesc desc, AttrNumber attnum)
{
	const char *column = NameStr(TupleDescAttr(desc, attnum - 1)->attname);
	const char *name = watcher_member_name(plan->def, column);

	if (plan_has_column(plan, attnum))
		return;
	for (int i = 0; plan->def->column_map != NIL && i < plan->parts.ncolumns; i++)
	{
		Form_pg_attribute other = TupleDescAttr(desc, plan->columns[i].attnum - 1);

		if (strcmp(watcher_member_name(plan->def, NameStr(other->attname)),
				   name) == 0)
		{
			plan->parts.flags |= CHANGE_PARTIAL;
			ereport(WARNING,
					(errcode(ERRCODE_DUPLICATE_COLUMN),
					 errmsg("watcher \"%s\" cannot deliver column \"%s\", for column \"%s\" has the name \"%s\"",
							plan->def->name, column, NameStr(other->attname), name),
					 errdetail("Its messages come without that column, marked as partial."),
					 errhint("Give each column a name of its own: ectowatch_alter(..., column_map => ...).")));
			return;
		}
	}
	message_column_init(&plan->columns[plan->parts.ncolumns++], desc, attnum, name);
}

/* The names of columns that are gone are no one's. */
static void
warn_of_column_map(const WatcherDef *def, Relation relation)
{
	ListCell   *lc;

	foreach(lc, def->column_map)
	{
		ColumnName *pair = lfirst(lc);

		if (column_number(RelationGetDescr(relation), pair->column) == InvalidAttrNumber)
			ereport(WARNING,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("column_map of watcher \"%s\" names column \"%s\" that relation \"%s\" no longer has",
							def->name, pair->column, RelationGetRelationName(relation)),
					 errdetail("A column that was renamed is delivered under its new name."),
					 errhint("Give the map anew: ectowatch_alter(..., column_map => ...).")));
	}
}

/* Adds the columns that there are; false if some of them are not. */
static bool
plan_add_columns(WatcherPlan *plan, TupleDesc desc, List *names)
{
	bool		complete = true;
	ListCell   *lc;

	if (watcher_wants_all(names))
	{
		for (int i = 0; i < desc->natts; i++)
		{
			if (!TupleDescAttr(desc, i)->attisdropped)
				plan_add_column(plan, desc, i + 1);
		}
		return true;
	}
	foreach(lc, names)
	{
		AttrNumber	attnum = column_number(desc, lfirst(lc));

		if (attnum == InvalidAttrNumber)
			complete = false;
		else
			plan_add_column(plan, desc, attnum);
	}
	return complete;
}

/* The columns of which one must differ; false if some of them are gone. */
static bool
plan_add_triggers(WatcherPlan *plan, TupleDesc desc, List *names)
{
	bool		complete = true;
	bool		all = watcher_wants_all(names);
	ListCell   *lc;

	plan->triggers = palloc0((all ? desc->natts : list_length(names) + 1) *
							 sizeof(MessageColumn));
	for (int i = 0; all && i < desc->natts; i++)
	{
		if (!TupleDescAttr(desc, i)->attisdropped)
			message_column_init(&plan->triggers[plan->ntriggers++], desc, i + 1,
								NameStr(TupleDescAttr(desc, i)->attname));
	}
	foreach(lc, names)
	{
		AttrNumber	attnum = all ? InvalidAttrNumber :
		column_number(desc, lfirst(lc));

		/* if all of them have gone, every update is a change again */
		if (attnum != InvalidAttrNumber)
			message_column_init(&plan->triggers[plan->ntriggers++], desc, attnum,
								lfirst(lc));
		else if (!all)
			complete = false;
	}
	return complete;
}

/*
 * Whether no two rows of a watched relation can have the same key: it has
 * all columns of a unique index, none of which can be null.  Of a partition
 * only indexes count that belong to one of the whole.
 */
static bool
plan_key_is_unique(const WatcherPlan *plan, Relation relation, Oid origin)
{
	List	   *indexes = RelationGetIndexList(relation);
	bool		unique = false;
	ListCell   *lc;

	foreach(lc, indexes)
	{
		Oid			oid = lfirst_oid(lc);
		HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(oid));
		Form_pg_index index;
		bool		covered;

		if (!HeapTupleIsValid(tuple))
			continue;
		index = (Form_pg_index) GETSTRUCT(tuple);
		covered = index->indisunique && index->indimmediate &&
			index->indisvalid &&
			heap_attisnull(tuple, Anum_pg_index_indpred, NULL) &&
			(RelationGetRelid(relation) == origin || get_rel_relispartition(oid));
		for (int i = 0; covered && i < index->indnkeyatts; i++)
		{
			AttrNumber	attnum = index->indkey.values[i];

			covered = attnum > 0 &&
				TupleDescAttr(RelationGetDescr(relation), attnum - 1)->attnotnull;
			if (covered)
			{
				covered = false;
				for (int k = 0; k < plan->parts.nkeys; k++)
				{
					if (plan->columns[k].attnum == attnum)
						covered = true;
				}
			}
		}
		ReleaseSysCache(tuple);
		unique = unique || covered;
	}
	list_free(indexes);
	return unique;
}

static void
plan_needs(WatcherPlan *plan, const MessageColumn *column)
{
	plan->last_attnum = Max(plan->last_attnum, column->attnum);
	if (column->offset < 0)
		plan->last_varying = Max(plan->last_varying, column->attnum);
}

static void
plan_watcher(WatcherPlan *plan, const WatcherDef *def, Relation relation,
			 Oid origin, const char *origin_name, int event)
{
	TupleDesc	desc = RelationGetDescr(relation);
	int			n = list_length(def->key_columns) +
		Max(list_length(def->extra_columns), desc->natts);
	bool		complete;
	bool		triggers_complete;
	AttrNumber *origin_columns;

	memset(plan, 0, sizeof(*plan));
	plan->def = def;
	watcher_change_parts(def, origin, origin_name, &plan->parts);
	plan->columns = palloc0((n + 1) * sizeof(MessageColumn));
	complete = plan_add_columns(plan, desc, def->key_columns);
	plan->parts.nkeys = plan->parts.ncolumns;
	complete = plan_add_columns(plan, desc, def->extra_columns) && complete;
	plan->head = palloc0(sizeof(StoreHead));
	origin_columns = palloc((n + 1) * sizeof(AttrNumber));
	for (int i = 0; i < plan->parts.ncolumns; i++)
	{
		int			attnum = plan->columns[i].attnum;

		/* a partition's column may have another number there */
		origin_columns[i] = RelationGetRelid(relation) == origin ? attnum :
			get_attnum(origin, NameStr(TupleDescAttr(desc, attnum - 1)->attname));
	}
	triggers_complete = plan_add_triggers(plan, desc, def->trigger_columns);
	plan->key_unique = plan_key_is_unique(plan, relation, origin);
	if (def->condition != NULL && event != EVENT_TRUNCATED)
		plan->condition = condition_make(origin, event, def->name,
										 def->condition);

	plan->parts.columns = origin_columns;
	if (!complete)
		plan->parts.flags |= CHANGE_PARTIAL;
	for (int i = 0; i < plan->parts.ncolumns; i++)
	{
		plan_needs(plan, &plan->columns[i]);
		if (message_column_by_settings(&plan->columns[i]))
			plan->by_settings = true;
		if (plan->columns[i].foreign_json)
			plan->parts.flags |= CHANGE_FOREIGN_JSON;
	}

	for (int i = 0; i < plan->ntriggers; i++)
		plan_needs(plan, &plan->triggers[i]);

	if (!complete)
		ereport(WARNING,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("watcher \"%s\" names a column that relation \"%s\" no longer has",
						def->name, RelationGetRelationName(relation)),
				 errdetail("Its messages come without that column, marked as partial."),
				 errhint("Call ectowatch_watch() again with the columns that there are.")));
	warn_of_column_map(def, relation);
	if (!triggers_complete)
		ereport(WARNING,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("watcher \"%s\" names a trigger column that relation \"%s\" no longer has",
						def->name, RelationGetRelationName(relation)),
				 errdetail("%s", plan->ntriggers > 0 ?
						   "Changes of the other trigger columns are delivered." :
						   "All updates are delivered."),
				 errhint("Call ectowatch_watch() again with the columns that there are.")));
}

/* Whether no other trigger captures this event as well. */
static bool
plan_is_alone(const TriggerDesc *triggers, Oid trigger, int event)
{
	Oid			function = InvalidOid;

	for (int i = 0; i < triggers->numtriggers; i++)
	{
		if (triggers->triggers[i].tgoid == trigger)
			function = triggers->triggers[i].tgfoid;
	}
	for (int i = 0; i < triggers->numtriggers; i++)
	{
		const Trigger *other = &triggers->triggers[i];

		if (other->tgoid != trigger && other->tgfoid == function &&
			((event == EVENT_INSERTED && TRIGGER_FOR_INSERT(other->tgtype)) ||
			 (event == EVENT_UPDATED && TRIGGER_FOR_UPDATE(other->tgtype)) ||
			 (event == EVENT_DELETED && TRIGGER_FOR_DELETE(other->tgtype))))
			return false;
	}
	return true;
}

static bool
renders_alike(const WatcherPlan *a, const WatcherPlan *b)
{
	if (a->parts.nkeys != b->parts.nkeys ||
		a->parts.ncolumns != b->parts.ncolumns ||
		a->def->old_values != b->def->old_values)
		return false;
	for (int i = 0; i < a->parts.ncolumns; i++)
	{
		if (a->columns[i].attnum != b->columns[i].attnum ||
			strcmp(a->columns[i].label, b->columns[i].label) != 0)
			return false;
	}
	return true;
}

/* The group of a trigger's last watcher: an earlier one's, or one of its own. */
static int
plan_group(const TriggerPlan *plan)
{
	int			last = plan->nwatchers - 1;

	for (int i = 0; i < last; i++)
	{
		if (renders_alike(&plan->watchers[i], &plan->watchers[last]))
			return plan->watchers[i].group;
	}
	return plan->nwatchers;
}

static TriggerPlan *
plan_make(Relation relation, Oid trigger, int event)
{
	TriggerPlan *plan = palloc0(sizeof(TriggerPlan));
	List	   *defs;
	ListCell   *lc;

	plan->trigger = trigger;
	plan->relation = RelationGetRelid(relation);
	plan->origin = trigger_origin(trigger);
	plan->origin_name = watcher_relation_name(plan->origin);
	plan->alone = plan_is_alone(relation->trigdesc, trigger, event);
	defs = OidIsValid(plan->origin) && plan->origin_name ?
		watcher_list(plan->origin) : NIL;
	plan->watchers = palloc((list_length(defs) + 1) * sizeof(WatcherPlan));
	foreach(lc, defs)
	{
		WatcherDef *def = lfirst(lc);

		if (!(def->events & event))
			continue;
		plan_watcher(&plan->watchers[plan->nwatchers++], def, relation,
					 plan->origin, plan->origin_name, event);
		plan->watchers[plan->nwatchers - 1].group = plan_group(plan);
	}
	return plan;
}

/*
 * Frees the plans that are no longer valid, at the end of the transaction:
 * outer calls may still use them.
 */
static void
plans_purge(void)
{
	HASH_SEQ_STATUS scan;
	CachedPlan *entry;

	hash_seq_init(&scan, plans);
	while ((entry = hash_seq_search(&scan)) != NULL)
	{
		if (entry->valid)
			continue;
		if (entry->context)
			MemoryContextSetParent(entry->context, TopTransactionContext);
		(void) hash_search(plans, &entry->key, HASH_REMOVE, NULL);
	}
	last_plan = NULL;
	plans_limit = Max(256, 2 * hash_get_num_entries(plans));
}

/* The one that was asked for before the last, or never yet, or is outdated. */
static const TriggerPlan *
plan_look_up(Relation relation, Oid trigger, int event)
{
	CachedPlanKey key = {trigger, event};
	CachedPlan *entry;
	MemoryContext context;
	MemoryContext old;
	TriggerPlan *plan;
	bool		found;

	if (plans == NULL)
		cache_start();
	if (hash_get_num_entries(plans) >= plans_limit)
		plans_purge();
	entry = hash_search(plans, &key, HASH_ENTER, &found);
	if (!found)
	{
		entry->valid = false;
		entry->context = NULL;
		entry->plan = NULL;
	}
	last_plan = entry;
	if (entry->valid)
		return entry->plan;

	/*
	 * Marked as valid before it is made, so that an invalidation meanwhile is
	 * not forgotten.  Made aside, so that an error leaves no half of it.
	 */
	entry->valid = true;
	context = AllocSetContextCreate(CurTransactionContext, "ectowatch plan",
									ALLOCSET_SMALL_SIZES);
	PG_TRY();
	{
		old = MemoryContextSwitchTo(context);
		plan = plan_make(relation, trigger, event);
		MemoryContextSwitchTo(old);
	}
	PG_CATCH();
	{
		entry->valid = false;
		PG_RE_THROW();
	}
	PG_END_TRY();

	/* an outer call may still use the former plan */
	if (entry->context)
		MemoryContextSetParent(entry->context, TopTransactionContext);
	MemoryContextSetParent(context, CacheMemoryContext);
	entry->context = context;
	entry->plan = plan;
	return plan;
}

pg_attribute_hot const TriggerPlan *
plan_of_trigger(Relation relation, Oid trigger, int event)
{
	if (likely(last_plan != NULL && last_plan->valid &&
			   last_plan->key.trigger == trigger &&
			   last_plan->key.event == event))
		return last_plan->plan;
	return plan_look_up(relation, trigger, event);
}

/* Who changes the registry invalidates the watched relation. */
uint64
plan_generation(void)
{
	if (plans == NULL)
		cache_start();
	AcceptInvalidationMessages();
	return generation;
}
