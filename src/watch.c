/*-------------------------------------------------------------------------
 *
 * watch.c
 *	  SQL functions that create, replace, alter and remove watchers.
 *
 * watch_put() is the way of all of them.  It first looks, without any lock,
 * whether the watcher exists as asked for; then there is nothing to do, whoever
 * asks.  Else it takes, in this order,
 *
 *	1. ShareUpdateExclusiveLock on the registry, which lets in one such call
 *	   at a time, but no reader and not the removal of a dropped table's
 *	   watchers has to wait,
 *	2. a lock on the table: ShareRowExclusiveLock, as CREATE TRIGGER does, if
 *	   a trigger is missing; else AccessShareLock if the watcher is a new one,
 *
 * and looks again.  Everything is checked before anything is changed.
 *
 * The second keeps DROP TABLE away, which would not find the row of a watcher
 * that is being made.  That of an existing one it finds, and waits at, if this
 * was faster; if not, this fails at the row (registry_update()).  And columns
 * that go meanwhile could as well go afterwards.  So whoever changes a watcher
 * locks no table, but for the time in which a new condition is read.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "commands/extension.h"
#include "commands/sequence.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"

#include "account.h"
#include "ectowatch.h"
#include "options.h"
#include "pending.h"
#include "registry.h"
#include "slot.h"
#include "trigger.h"
#include "validate.h"
#include "watch.h"
#include "watcher.h"

PG_FUNCTION_INFO_V1(ectowatch_watch);
PG_FUNCTION_INFO_V1(ectowatch_alter);
PG_FUNCTION_INFO_V1(ectowatch_unwatch);
PG_FUNCTION_INFO_V1(ectowatch_unwatch_event);

static void
check_owner(Oid relation)
{
	if (!pg_class_ownercheck(relation, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER,
					   get_relkind_objtype(get_rel_relkind(relation)),
					   get_rel_name(relation));
}

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
 * Whether the relation has its watcher, as wanted, with its triggers.  Who asks
 * for no application does not care whose it is.
 */
static bool
is_in_place(const WatcherDef *wanted, const WatcherDef *existing)
{
	return existing != NULL && options_same(existing, wanted) &&
		(wanted->application == NULL ||
		 (existing->application != NULL &&
		  strcmp(existing->application, wanted->application) == 0)) &&
		triggers_missing(wanted->relation, wanted->events,
						 wanted->replicated) == 0;
}

/* An application's watchers are not another's to declare. */
static void
check_application(const WatcherDef *wanted, const WatcherDef *existing)
{
	if (existing == NULL || wanted->application == NULL ||
		existing->application == NULL ||
		strcmp(existing->application, wanted->application) == 0)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_DUPLICATE_OBJECT),
			 errmsg("watcher \"%s\" belongs to application \"%s\"",
					existing->name, existing->application),
			 errhint("Give this one a label of its own.")));
}

/*
 * Looks whether there is nothing to do; 'existing' is what was found.  It is as
 * of now, unless the caller holds the locks.
 */
static bool
look_for(WatcherDef *wanted, WatcherDef **existing)
{
	validate_watcher(wanted);
	*existing = options_find_identity(wanted);
	check_application(wanted, *existing);
	if (!is_in_place(wanted, *existing))
		return false;
	wanted->id = (*existing)->id;
	wanted->name = (*existing)->name;
	return true;
}

bool
watch_is_in_place(WatcherDef *wanted)
{
	WatcherDef *existing;

	if (look_for(wanted, &existing))
		return true;
	check_owner(wanted->relation);
	return false;
}

void
watch_lock_registry(const char *caller)
{
	PreventCommandIfReadOnly(caller);
	PreventCommandIfParallelMode(caller);
	PreventCommandDuringRecovery(caller);
	LockRelationOid(watcher_registry_oid(), ShareUpdateExclusiveLock);
}

TableLock
watch_table_lock(const WatcherDef *wanted)
{
	TableLock	lock = {wanted->relation, NoLock};

	if (triggers_missing(wanted->relation, wanted->events,
						 wanted->replicated) != 0)
		lock.mode = ShareRowExclusiveLock;
	else if (options_find_identity(wanted) == NULL)
		lock.mode = AccessShareLock;
	return lock;
}

WatchResult
watch_put(WatcherDef *wanted, const char *caller)
{
	WatcherDef *existing;
	TableLock	lock;

	if (watch_is_in_place(wanted))
		return WATCH_UNCHANGED;
	watch_lock_registry(caller);
	lock = watch_table_lock(wanted);
	if (lock.mode != NoLock)
		locks_take(&lock, 1);
	if (look_for(wanted, &existing))
		return WATCH_UNCHANGED;
	check_owner(wanted->relation);

	if (existing != NULL)
	{
		/* the name was chosen once, whatever the table is called now */
		wanted->id = existing->id;
		wanted->name = existing->name;
		wanted->run = existing->run;
		if (wanted->application == NULL)
			wanted->application = existing->application;
		registry_update(wanted);
	}
	else
	{
		check_name_is_free(wanted);
		wanted->id = allocate_id(watcher_list(InvalidOid));
		wanted->run = slot_run();
		registry_insert(wanted);
	}
	if (lock.mode == ShareRowExclusiveLock)
		triggers_create_missing(wanted->relation, wanted->events,
								wanted->replicated);
	if (ectowatch_debug || wanted->debug)
		ereport(LOG,
				(errmsg("ectowatch: %s watcher \"%s\" for event %s of relation %s",
						existing != NULL ? "replaced" : "created",
						wanted->name, wanted->event,
						watcher_relation_name(wanted->relation))));
	return existing != NULL ? WATCH_REPLACED : WATCH_CREATED;
}

void
watch_require_slot(void)
{
	Slot	   *slot = slot_attach();

	if (slot == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no more databases can use ectowatch"),
				 errdetail("%d others do already.", ectowatch_max_databases),
				 errhint("Increase ectowatch.max_databases and restart the server.")));
	slot_request_worker(slot);
}

/* --- watch and alter --- */

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
	char	   *event;

	ectowatch_require_preload();
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null",
						PG_ARGISNULL(0) ? "relation" : "event"),
				 errhint("Name the table to be watched, and one of inserted, updated, deleted, truncated and changed.")));
	wanted.relation = PG_GETARG_OID(0);
	event = text_to_cstring(PG_GETARG_TEXT_PP(1));
	options_from_arguments(&wanted, fcinfo, 2, true);
	options_set_event(&wanted, event);

	(void) watch_put(&wanted, "ectowatch_watch()");
	notice_quoted_channel(wanted.name);
	watch_require_slot();
	PG_RETURN_TEXT_P(cstring_to_text(wanted.name));
}

static WatcherDef *
find_by_name(const char *name)
{
	WatcherDef *def = watcher_find(name);

	if (def == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("watcher \"%s\" does not exist", name),
				 errhint("View ectowatch_watchers lists those that do.")));
	return def;
}

/*
 * What is not named stays as it is, as of when no one else can change it.
 */
Datum
ectowatch_alter(PG_FUNCTION_ARGS)
{
	char	   *name;
	WatcherDef *def;

	ectowatch_require_preload();
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("watcher must not be null"),
				 errhint("View ectowatch_watchers lists those that there are.")));
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	def = find_by_name(name);
	check_owner(def->relation);
	watch_lock_registry("ectowatch_alter()");
	def = find_by_name(name);
	options_from_arguments(def, fcinfo, 1, false);
	(void) watch_put(def, "ectowatch_alter()");
	watch_require_slot();
	PG_RETURN_VOID();
}

/* --- unwatch --- */

/* Tells a watcher's listeners that there will be no more. */
static void
add_ended(const WatcherDef *def)
{
	ChangeParts parts;

	watcher_change_parts(def, def->relation,
						 watcher_relation_name(def->relation), &parts);
	parts.type = CHANGE_ENDED;
	pending_add(&parts, NULL);
}

void
watch_end(const WatcherDef *def)
{
	if (get_rel_name(def->relation) != NULL)
		check_owner(def->relation);
	watch_lock_registry("ectowatch_unwatch()");
	if (registry_remove(def))
		add_ended(def);			/* else someone else was faster */
}

void
watch_remove(const WatcherDef *def)
{
	watch_end(def);
	if (get_rel_name(def->relation) != NULL)
		triggers_drop_idle(def->relation);
}

Datum
ectowatch_unwatch(PG_FUNCTION_ARGS)
{
	ectowatch_require_preload();
	watch_remove(find_by_name(text_to_cstring(PG_GETARG_TEXT_PP(0))));
	PG_RETURN_VOID();
}

Datum
ectowatch_unwatch_event(PG_FUNCTION_ARGS)
{
	WatcherDef	wanted = {0};
	WatcherDef *def;

	ectowatch_require_preload();
	wanted.relation = PG_GETARG_OID(0);
	options_set_event(&wanted, text_to_cstring(PG_GETARG_TEXT_PP(1)));
	def = options_find_identity(&wanted);
	if (def == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("relation \"%s\" has no watcher without a label for event %s",
						DatumGetCString(DirectFunctionCall1(regclassout,
															ObjectIdGetDatum(wanted.relation))),
						wanted.event),
				 errhint("View ectowatch_watchers lists those that there are; one with a label is removed by its name.")));
	watch_remove(def);
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
