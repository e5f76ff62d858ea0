/*-------------------------------------------------------------------------
 *
 * registry.c
 *	  The table in which watchers are kept: its columns, reading and writing it.
 *
 * It is written as core writes catalogs: no SPI, no triggers, no rights but
 * those that the calling function checked.
 *
 * It is read as core reads catalogs, by the newest snapshot.  But it is none, so
 * for core a SERIALIZABLE transaction that read it would depend on what it
 * says: a write whose trigger looks for watchers could fail because somebody
 * alters one.  Which watchers there are is no part of what users' transactions
 * read.  So rows are scanned with SnapshotAny, which takes no predicate locks,
 * and each is checked against that snapshot here.
 *
 * It belongs to this database and must not be carried to another by logical
 * replication: ids and names of tables mean something else there.  But a
 * publication FOR ALL TABLES contains it, and core offers no way to keep an
 * ordinary table out.  So
 *
 *	- rows are inserted with HEAP_INSERT_NO_LOGICAL, which leaves nothing to be
 *	  decoded; and since an update has no such option, it is a deletion and an
 *	  insertion.  The table has REPLICA IDENTITY NOTHING: a deletion is decoded
 *	  without a row, and pgoutput sends nothing.
 *	- A subscriber's initial copy reads the table as it is.  There, a BEFORE
 *	  trigger that fires for such workers too takes the rows away.  It also
 *	  protects against what a COPY into the publisher's registry (restoring
 *	  a dump, by its owner or a superuser) sends.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/relscan.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/index.h"
#include "catalog/indexing.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "replication/logicalworker.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "registry.h"

PG_FUNCTION_INFO_V1(ectowatch_registry_filter);

int
registry_event(const char *event)
{
	if (strcmp(event, "inserted") == 0)
		return EVENT_INSERTED;
	if (strcmp(event, "updated") == 0)
		return EVENT_UPDATED;
	if (strcmp(event, "deleted") == 0)
		return EVENT_DELETED;
	if (strcmp(event, "truncated") == 0)
		return EVENT_TRUNCATED;
	if (strcmp(event, "changed") == 0)
		return EVENT_CHANGED;
	return 0;
}

static const char *const delivery_names[] = {
	[DELIVERY_EACH] = "each",
	[DELIVERY_PACKED] = "packed",
	[DELIVERY_DOORBELL] = "doorbell",
	[DELIVERY_NONE] = "none"
};

bool
registry_delivery(const char *name, ChangeDelivery *delivery)
{
	for (int i = 0; i < (int) lengthof(delivery_names); i++)
	{
		if (strcmp(delivery_names[i], name) == 0)
		{
			*delivery = (ChangeDelivery) i;
			return true;
		}
	}
	return false;
}

const char *
registry_delivery_name(ChangeDelivery delivery)
{
	return delivery_names[delivery];
}

int
registry_compare(const ListCell *a, const ListCell *b)
{
	uint32		ida = ((const WatcherDef *) lfirst(a))->id;
	uint32		idb = ((const WatcherDef *) lfirst(b))->id;

	return ida < idb ? -1 : ida > idb;
}

static List *
names_from_array(Datum array)
{
	Datum	   *elements;
	int			n;
	List	   *names = NIL;

	deconstruct_array(DatumGetArrayTypeP(array), TEXTOID, -1, false,
					  TYPALIGN_INT, &elements, NULL, &n);
	for (int i = 0; i < n; i++)
		names = lappend(names, TextDatumGetCString(elements[i]));
	return names;
}

static Datum
names_to_array(List *names)
{
	Datum	   *elements = palloc((list_length(names) + 1) * sizeof(Datum));
	int			n = 0;
	ListCell   *lc;

	foreach(lc, names)
		elements[n++] = CStringGetTextDatum(lfirst(lc));
	return PointerGetDatum(construct_array(elements, n, TEXTOID, -1, false,
										   TYPALIGN_INT));
}

/* column_map, kept as {column, name, column, name, ...} */
static List *
map_from_array(Datum array)
{
	List	   *names = names_from_array(array);
	List	   *map = NIL;

	for (int i = 0; i + 1 < list_length(names); i += 2)
	{
		ColumnName *pair = palloc(sizeof(ColumnName));

		pair->column = list_nth(names, i);
		pair->name = list_nth(names, i + 1);
		map = lappend(map, pair);
	}
	return map;
}

static Datum
map_to_array(List *map)
{
	List	   *names = NIL;
	ListCell   *lc;

	foreach(lc, map)
	{
		ColumnName *pair = lfirst(lc);

		names = lappend(lappend(names, pair->column), pair->name);
	}
	return names_to_array(names);
}

struct RegistryScan
{
	Relation	registry;
	SysScanDesc scan;
	Snapshot	snapshot;
};

RegistryScan *
registry_scan_begin(Relation registry, Oid index, int nkeys, ScanKey keys)
{
	RegistryScan *scan = palloc(sizeof(RegistryScan));

	scan->registry = registry;
	/* one for all rows: of each, exactly one version is visible */
	scan->snapshot = RegisterSnapshot(GetCatalogSnapshot(RelationGetRelid(registry)));
	scan->scan = systable_beginscan(registry, index, OidIsValid(index),
									SnapshotAny, nkeys, keys);
	return scan;
}

HeapTuple
registry_scan_next(RegistryScan *scan)
{
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan->scan)))
	{
		if (table_tuple_satisfies_snapshot(scan->registry, scan->scan->slot,
										   scan->snapshot))
			break;
	}
	return tuple;
}

void
registry_scan_end(RegistryScan *scan)
{
	systable_endscan(scan->scan);
	UnregisterSnapshot(scan->snapshot);
	pfree(scan);
}

WatcherDef *
registry_read(Relation registry, HeapTuple tuple)
{
	WatcherDef *def = palloc0(sizeof(WatcherDef));
	Datum		values[Natts_registry];
	bool		nulls[Natts_registry];

#define VALUE(column)	(values[Anum_registry_##column - 1])
#define IS_NULL(column)	(nulls[Anum_registry_##column - 1])
	heap_deform_tuple(tuple, RelationGetDescr(registry), values, nulls);
	def->id = DatumGetUInt32(VALUE(id));
	def->name = TextDatumGetCString(VALUE(name));
	def->relation = DatumGetObjectId(VALUE(relation));
	def->event = TextDatumGetCString(VALUE(event));
	def->events = registry_event(def->event);
	if (!IS_NULL(label))
		def->label = TextDatumGetCString(VALUE(label));
	if (!IS_NULL(application))
		def->application = TextDatumGetCString(VALUE(application));
	def->trigger_columns = names_from_array(VALUE(trigger_columns));
	def->extra_columns = names_from_array(VALUE(extra_columns));
	if (!IS_NULL(condition))
		def->condition = TextDatumGetCString(VALUE(condition));
	def->key_columns = names_from_array(VALUE(key_columns));
	def->key_given = DatumGetBool(VALUE(key_given));
	def->column_map = map_from_array(VALUE(column_map));
	def->old_values = DatumGetBool(VALUE(old_values));
	(void) registry_delivery(TextDatumGetCString(VALUE(delivery)),
							 &def->delivery);
	if (!IS_NULL(bulk_threshold))
		def->bulk_threshold = DatumGetInt32(VALUE(bulk_threshold));
	if (!IS_NULL(throttle))
		def->throttle = DatumGetInt32(VALUE(throttle));
	def->envelope = DatumGetBool(VALUE(envelope));
	def->replicated = DatumGetBool(VALUE(replicated));
	def->debug = DatumGetBool(VALUE(debug));
	def->run = DatumGetInt64(VALUE(run));
	if (!IS_NULL(condition_given))
		def->condition_given = TextDatumGetCString(VALUE(condition_given));
	def->condition_basis = names_from_array(VALUE(condition_basis));
#undef IS_NULL
#undef VALUE
	return def;
}

static HeapTuple
registry_form(Relation registry, const WatcherDef *def)
{
	Datum		values[Natts_registry];
	bool		nulls[Natts_registry] = {false};

#define VALUE(column)	(values[Anum_registry_##column - 1])
#define SET_UNLESS(is_null, column, value) \
	do { \
		nulls[Anum_registry_##column - 1] = (is_null); \
		VALUE(column) = (is_null) ? (Datum) 0 : (value); \
	} while (0)
	VALUE(id) = UInt32GetDatum(def->id);
	VALUE(name) = CStringGetTextDatum(def->name);
	VALUE(relation) = ObjectIdGetDatum(def->relation);
	VALUE(event) = CStringGetTextDatum(def->event);
	SET_UNLESS(def->label == NULL, label, CStringGetTextDatum(def->label));
	SET_UNLESS(def->application == NULL, application,
			   CStringGetTextDatum(def->application));
	VALUE(trigger_columns) = names_to_array(def->trigger_columns);
	VALUE(extra_columns) = names_to_array(def->extra_columns);
	SET_UNLESS(def->condition == NULL, condition,
			   CStringGetTextDatum(def->condition));
	VALUE(key_columns) = names_to_array(def->key_columns);
	VALUE(key_given) = BoolGetDatum(def->key_given);
	VALUE(column_map) = map_to_array(def->column_map);
	VALUE(old_values) = BoolGetDatum(def->old_values);
	VALUE(delivery) = CStringGetTextDatum(registry_delivery_name(def->delivery));
	SET_UNLESS(def->bulk_threshold == 0, bulk_threshold,
			   Int32GetDatum(def->bulk_threshold));
	SET_UNLESS(def->throttle == 0, throttle, Int32GetDatum(def->throttle));
	VALUE(envelope) = BoolGetDatum(def->envelope);
	VALUE(replicated) = BoolGetDatum(def->replicated);
	VALUE(debug) = BoolGetDatum(def->debug);
	VALUE(run) = Int64GetDatum(def->run);
	SET_UNLESS(def->condition_given == NULL, condition_given,
			   CStringGetTextDatum(def->condition_given));
	VALUE(condition_basis) = names_to_array(def->condition_basis);
#undef SET_UNLESS
#undef VALUE
	return heap_form_tuple(RelationGetDescr(registry), values, nulls);
}

/* The relation may be gone, and with it all plans. */
static void
registry_invalidate(Oid relation)
{
	if (SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relation)))
		CacheInvalidateRelcacheByRelid(relation);
	CommandCounterIncrement();
}

/* The current row of a watcher; the result has to be freed. */
static HeapTuple
registry_lookup(Relation registry, uint32 id)
{
	ScanKeyData key;
	RegistryScan *scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_registry_id, BTEqualStrategyNumber, F_INT4EQ,
				UInt32GetDatum(id));
	scan = registry_scan_begin(registry, InvalidOid, 1, &key);
	tuple = registry_scan_next(scan);
	if (HeapTupleIsValid(tuple))
		tuple = heap_copytuple(tuple);
	registry_scan_end(scan);
	return tuple;
}

/* As CatalogTupleInsert(), but not for logical decoding. */
static void
registry_put(Relation registry, HeapTuple tuple)
{
	CatalogIndexState indexes = CatalogOpenIndexes(registry);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(RelationGetDescr(registry),
													&TTSOpsHeapTuple);

	heap_insert(registry, tuple, GetCurrentCommandId(true),
				HEAP_INSERT_NO_LOGICAL, NULL);
	ExecStoreHeapTuple(tuple, slot, false);
	for (int i = 0; i < indexes->ri_NumIndices; i++)
	{
		IndexInfo  *info = indexes->ri_IndexRelationInfo[i];
		Relation	index = indexes->ri_IndexRelationDescs[i];
		Datum		values[INDEX_MAX_KEYS];
		bool		nulls[INDEX_MAX_KEYS];

		/* those of CREATE EXTENSION, and plain ones of an administrator */
		if (!info->ii_ReadyForInserts)
			continue;
		if (info->ii_Expressions != NIL || info->ii_Predicate != NIL ||
			info->ii_ExclusionOps != NULL)
			elog(ERROR, "index \"%s\" cannot be on table \"%s\"",
				 RelationGetRelationName(index), REGISTRY_NAME);
		FormIndexDatum(info, slot, NULL, values, nulls);
		index_insert(index, values, nulls, &tuple->t_self, registry,
					 index->rd_index->indisunique ?
					 UNIQUE_CHECK_YES : UNIQUE_CHECK_NO,
					 false, info);
	}
	ExecDropSingleTupleTableSlot(slot);
	CatalogCloseIndexes(indexes);
}

void
registry_insert(const WatcherDef *def)
{
	Relation	registry = table_open(watcher_registry_oid(), RowExclusiveLock);

	registry_put(registry, registry_form(registry, def));
	table_close(registry, NoLock);
	registry_invalidate(def->relation);
}

void
registry_update(const WatcherDef *def)
{
	Relation	registry = table_open(watcher_registry_oid(), RowExclusiveLock);

	/* the table need not be locked, so DROP TABLE may be faster */
	if (!registry_remove(def))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation of watcher \"%s\" does not exist", def->name),
				 errhint("It has been dropped just now.")));
	registry_put(registry, registry_form(registry, def));
	table_close(registry, NoLock);
	registry_invalidate(def->relation);
}

bool
registry_remove(const WatcherDef *def)
{
	Relation	registry = table_open(watcher_registry_oid(), RowExclusiveLock);
	HeapTuple	current;
	bool		removed = false;

	/*
	 * DROP TABLE and ectowatch_unwatch() may be after the same row.  The
	 * second waits for the first to end, and then looks again.
	 */
	while (!removed &&
		   HeapTupleIsValid(current = registry_lookup(registry, def->id)))
	{
		TM_FailureData failure;
		TM_Result	result = heap_delete(registry, &current->t_self,
										 GetCurrentCommandId(true),
										 InvalidSnapshot, true, &failure, false);

		if (result == TM_SelfModified)
			elog(ERROR, "watcher %u was already changed by this command", def->id);
		removed = result == TM_Ok;
		CHECK_FOR_INTERRUPTS();
	}
	table_close(registry, NoLock);
	if (removed)
		registry_invalidate(def->relation);
	return removed;
}

/*
 * The trigger of the registry: takes away what comes from a publisher, and
 * refuses what others than the owner write, whatever has been granted to them: a
 * condition in it runs with the rights of every writer.  It works in the same way
 * where the library was not loaded at server start.
 */
Datum
ectowatch_registry_filter(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_BEFORE(trigdata->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigdata->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" is the trigger of table \"%s\" only",
						"ectowatch_registry_filter", REGISTRY_NAME)));
	if (IsLogicalWorker())
		return PointerGetDatum(NULL);
	if (!pg_class_ownercheck(RelationGetRelid(trigdata->tg_relation), GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of table \"%s\" to write to it", REGISTRY_NAME),
				 errhint("Use ectowatch_watch(), ectowatch_alter() and ectowatch_unwatch().")));
	return PointerGetDatum(TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event) ?
						   trigdata->tg_newtuple : trigdata->tg_trigtuple);
}
