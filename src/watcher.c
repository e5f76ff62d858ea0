/*-------------------------------------------------------------------------
 *
 * watcher.c
 *	  What is watched: the watchers in the registry.
 *
 * The registry is a table of the extension, a row per watcher.  It is read
 * with a catalog snapshot, which is always the newest: a transaction under
 * REPEATABLE READ captures for the watchers that there are, not for those that
 * there were; and one under SERIALIZABLE does not depend on them (registry.c).
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_collation.h"
#include "commands/extension.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "channel.h"
#include "ectowatch.h"
#include "registry.h"
#include "slot.h"
#include "watcher.h"

static Oid
own_relation(const char *name)
{
	Oid			extension = get_extension_oid(ECTOWATCH_NAME, true);

	return OidIsValid(extension) ?
		get_relname_relid(name, get_extension_schema(extension)) : InvalidOid;
}

Oid
watcher_registry_oid(void)
{
	return own_relation(REGISTRY_NAME);
}

Oid
watcher_positions_oid(void)
{
	return own_relation("ectowatch_positions");
}

char *
watcher_relation_name(Oid relation)
{
	char	   *name = get_rel_name(relation);
	char	   *schema = name ? get_namespace_name(get_rel_namespace(relation)) : NULL;
	bool		saved = quote_all_identifiers;
	char	   *result;

	if (schema == NULL)
		return NULL;

	/* the same in every session */
	quote_all_identifiers = false;
	result = quote_qualified_identifier(schema, name);
	quote_all_identifiers = saved;
	return result;
}

List *
watcher_list(Oid relation)
{
	Oid			registry_oid = watcher_registry_oid();
	Relation	registry = OidIsValid(registry_oid) ?
	try_table_open(registry_oid, AccessShareLock) : NULL;
	ScanKeyData key;
	RegistryScan *scan;
	HeapTuple	tuple;
	List	   *list = NIL;

	if (registry == NULL)
		return NIL;
	ScanKeyInit(&key, Anum_registry_relation, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relation));
	if (OidIsValid(relation))
		scan = registry_scan_begin(registry,
								   own_relation(REGISTRY_RELATION_INDEX),
								   1, &key);
	else
		scan = registry_scan_begin(registry, InvalidOid, 0, NULL);
	while (HeapTupleIsValid(tuple = registry_scan_next(scan)))
		list = lappend(list, registry_read(registry, tuple));
	registry_scan_end(scan);
	table_close(registry, AccessShareLock);
	list_sort(list, registry_compare);
	return list;
}

WatcherDef *
watcher_find(const char *name)
{
	Oid			registry_oid = watcher_registry_oid();
	Relation	registry = OidIsValid(registry_oid) ?
	try_table_open(registry_oid, AccessShareLock) : NULL;
	ScanKeyData key;
	RegistryScan *scan;
	HeapTuple	tuple;
	WatcherDef *def = NULL;

	if (registry == NULL)
		return NULL;
	ScanKeyEntryInitialize(&key, 0, Anum_registry_name, BTEqualStrategyNumber,
						   InvalidOid, DEFAULT_COLLATION_OID, F_TEXTEQ,
						   CStringGetTextDatum(name));
	scan = registry_scan_begin(registry, own_relation(REGISTRY_NAME_INDEX),
							   1, &key);
	tuple = registry_scan_next(scan);
	if (HeapTupleIsValid(tuple))
		def = registry_read(registry, tuple);
	registry_scan_end(scan);
	table_close(registry, AccessShareLock);
	return def;
}

WatcherDef *
watcher_of_channel(const char *channel)
{
	const char *separator = strchr(channel, CHANNEL_SEPARATOR);
	ListCell   *lc;

	if (separator == NULL)
		return watcher_find(channel);
	if (!channel_is_narrowed(channel))
		return NULL;
	if (!channel_is_hashed(channel))
		return watcher_find(pnstrdup(channel, separator - channel));
	foreach(lc, watcher_list(InvalidOid))
	{
		WatcherDef *def = lfirst(lc);

		if (channel_is_of(channel, def->name))
			return def;
	}
	return NULL;
}

bool
watcher_wants_all(List *columns)
{
	return list_length(columns) == 1 && strcmp(linitial(columns), "*") == 0;
}

const char *
watcher_member_name(const WatcherDef *def, const char *column)
{
	ListCell   *lc;

	foreach(lc, def->column_map)
	{
		ColumnName *pair = lfirst(lc);

		if (strcmp(pair->column, column) == 0)
			return pair->name;
	}
	return column;
}

static bool
has_member(List *members, AttrNumber attnum)
{
	ListCell   *lc;

	foreach(lc, members)
	{
		if (((WatcherMember *) lfirst(lc))->attnum == attnum)
			return true;
	}
	return false;
}

/* Appends the member for a column, if that is there, and not a member yet. */
static List *
add_member(List *members, const WatcherDef *def, AttrNumber attnum)
{
	HeapTuple	tuple = SearchSysCacheAttNum(def->relation, attnum);

	if (HeapTupleIsValid(tuple))
	{
		if (!has_member(members, attnum))
		{
			WatcherMember *member = palloc(sizeof(WatcherMember));
			Form_pg_attribute att = (Form_pg_attribute) GETSTRUCT(tuple);

			member->attnum = attnum;
			member->column = pstrdup(NameStr(att->attname));
			member->name = pstrdup(watcher_member_name(def, member->column));
			members = lappend(members, member);
		}
		ReleaseSysCache(tuple);
	}
	return members;
}

static int
relation_natts(Oid relation)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relation));
	int			natts = 0;

	if (HeapTupleIsValid(tuple))
	{
		natts = ((Form_pg_class) GETSTRUCT(tuple))->relnatts;
		ReleaseSysCache(tuple);
	}
	return natts;
}

static List *
add_members(List *members, const WatcherDef *def, List *columns)
{
	ListCell   *lc;

	if (watcher_wants_all(columns))
	{
		int			natts = relation_natts(def->relation);

		for (int i = 1; i <= natts; i++)
			members = add_member(members, def, i);
		return members;
	}
	foreach(lc, columns)
	{
		AttrNumber	attnum = get_attnum(def->relation, lfirst(lc));

		if (attnum != InvalidAttrNumber)
			members = add_member(members, def, attnum);
	}
	return members;
}

List *
watcher_members(const WatcherDef *def, int *nkeys)
{
	List	   *members = add_members(NIL, def, def->key_columns);

	*nkeys = list_length(members);
	return add_members(members, def, def->extra_columns);
}

AttrNumber *
watcher_columns(const WatcherDef *def, int *n)
{
	int			nkeys;
	List	   *members = watcher_members(def, &nkeys);
	AttrNumber *columns = palloc((list_length(members) + 1) *
								 sizeof(AttrNumber));
	ListCell   *lc;

	*n = 0;
	foreach(lc, members)
		columns[(*n)++] = ((WatcherMember *) lfirst(lc))->attnum;
	return columns;
}

void
watcher_change_parts(const WatcherDef *def, Oid origin, const char *origin_name,
					 ChangeParts *parts)
{
	memset(parts, 0, sizeof(*parts));
	parts->watcher = def->id;
	parts->relation = origin;
	parts->delivery = def->delivery;
	parts->flags = (def->run == slot_run() ? CHANGE_FRESH : 0) |
		(def->debug ? CHANGE_DEBUG : 0);
	parts->name = def->name;
	parts->relation_name = origin_name;
	parts->throttle = def->throttle;
}
