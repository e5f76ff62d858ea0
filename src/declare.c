/*-------------------------------------------------------------------------
 *
 * declare.c
 *	  An application's whole list of watchers at once.
 *
 * ectowatch_declare() is what an application calls when it starts, on each of
 * its nodes.  The list is read and checked as a whole before anything is
 * changed.  Each watcher then goes the way of watch_put(), which locks nothing
 * for one that is there as wanted; so only the first node of a new release has
 * something to lock, and the registry's lock, which comes before those of
 * tables, lets in one of them at a time.
 *
 * A watcher belongs to the application that has declared it.  Others may not
 * declare it, and it is not removed on behalf of any other; one that was made
 * by ectowatch_watch() belongs to none, and to the first that declares it.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "ectowatch.h"
#include "options.h"
#include "trigger.h"
#include "validate.h"
#include "watch.h"

PG_FUNCTION_INFO_V1(ectowatch_declare);

/* For errors: which definition is in hand. */
typedef struct DeclareContext
{
	const char *application;
	int			number;
} DeclareContext;

static void
declare_error_callback(void *arg)
{
	DeclareContext *context = arg;

	if (context->number > 0)
		errcontext("definition %d of application \"%s\"",
				   context->number, context->application);
}

static void
check_arguments(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null",
						PG_ARGISNULL(0) ? "application" :
						PG_ARGISNULL(1) ? "definitions" : "cleanup"),
				 errhint("Use '[]' for an application without watchers.")));
	if (VARSIZE_ANY_EXHDR(PG_GETARG_TEXT_PP(0)) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("application must not be empty"),
				 errhint("Name the application, the same on all of its nodes.")));
	if (!JB_ROOT_IS_ARRAY(PG_GETARG_JSONB_P(1)) ||
		JB_ROOT_IS_SCALAR(PG_GETARG_JSONB_P(1)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("definitions must be a JSON array"),
				 errhint("Write it as '[{\"relation\": \"users\", \"event\": \"updated\"}]'.")));
}

/* The watchers that a list defines, each checked by itself. */
static List *
read_definitions(Jsonb *definitions, DeclareContext *context)
{
	JsonbIterator *iterator = JsonbIteratorInit(&definitions->root);
	JsonbIteratorToken token;
	JsonbValue	item;
	List	   *list = NIL;

	while ((token = JsonbIteratorNext(&iterator, &item, true)) != WJB_DONE)
	{
		WatcherDef *def;

		if (token != WJB_ELEM)
			continue;
		context->number++;
		if (item.type != jbvBinary || !JsonContainerIsObject(item.val.binary.data))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("a definition must be a JSON object"),
					 errhint("Write it as {\"relation\": \"users\", \"event\": \"updated\"}.")));
		def = palloc0(sizeof(WatcherDef));
		options_from_json(def, item.val.binary.data);
		def->application = pstrdup(context->application);
		validate_watcher(def);
		list = lappend(list, def);
	}
	context->number = 0;
	return list;
}

static void
check_duplicates(List *list, DeclareContext *context)
{
	ListCell   *lc;

	foreach(lc, list)
	{
		WatcherDef *def = lfirst(lc);

		context->number = foreach_current_index(lc) + 1;
		for (int i = 0; i < foreach_current_index(lc); i++)
		{
			WatcherDef *other = list_nth(list, i);

			if (strcmp(def->name, other->name) == 0)
				ereport(ERROR,
						(errcode(ERRCODE_DUPLICATE_OBJECT),
						 errmsg("watcher \"%s\" is defined twice", def->name),
						 errdetail("Definition %d is of the same name.", i + 1),
						 errhint("Leave one out, or give it a label.")));
		}
	}
	context->number = 0;
}

static void
put_row(ReturnSetInfo *rsinfo, const WatcherDef *def, const char *status)
{
	Datum		values[4];
	bool		nulls[4] = {false};

	values[0] = CStringGetTextDatum(def->name);
	values[1] = ObjectIdGetDatum(def->relation);
	values[2] = CStringGetTextDatum(def->event);
	values[3] = CStringGetTextDatum(status);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* The application's watchers that are not in its list. */
static List *
find_extra(List *list, const char *application)
{
	List	   *extra = NIL;
	ListCell   *la;
	ListCell   *lb;

	foreach(la, watcher_list(InvalidOid))
	{
		WatcherDef *def = lfirst(la);
		bool		wanted = false;

		if (def->application == NULL ||
			strcmp(def->application, application) != 0)
			continue;
		foreach(lb, list)
			wanted = wanted || options_same_identity(lfirst(lb), def);
		if (!wanted)
			extra = lappend(extra, def);
	}
	return extra;
}

/*
 * Whether a watcher of the list has taken the name of an extra one.  It does so
 * without cleanup, too, if the table of that one is gone: see watch_put().
 */
static bool
is_superseded(const WatcherDef *def, List *list)
{
	ListCell   *lc;

	foreach(lc, list)
	{
		if (strcmp(((WatcherDef *) lfirst(lc))->name, def->name) == 0)
			return true;
	}
	return false;
}

/*
 * Somebody else may have declared a watcher under the application's name, of a
 * table of his own.
 */
static bool
caller_may(const WatcherDef *def)
{
	return get_rel_name(def->relation) == NULL ||
		pg_class_ownercheck(def->relation, GetUserId());
}

/*
 * Takes the locks of all tables that lack a trigger, waiting for none while it
 * has another: a transaction that writes to one of them, and then to another
 * that we had, could be the victim of the deadlock.  The registry's lock
 * comes first, as ever.
 */
static void
lock_tables(List *list)
{
	List	   *tables = NIL;
	ListCell   *lc;

	foreach(lc, list)
	{
		WatcherDef *def = lfirst(lc);

		if (caller_may(def) &&
			triggers_missing(def->relation, def->events, def->replicated) != 0)
			tables = list_append_unique_oid(tables, def->relation);
	}
	if (list_length(tables) < 2)
		return;

	LockRelationOid(watcher_registry_oid(), ShareUpdateExclusiveLock);
	for (;;)
	{
		List	   *locked = NIL;
		Oid			busy = InvalidOid;

		foreach(lc, tables)
		{
			if (!ConditionalLockRelationOid(lfirst_oid(lc), ShareRowExclusiveLock))
			{
				busy = lfirst_oid(lc);
				break;
			}
			locked = lappend_oid(locked, lfirst_oid(lc));
		}
		if (!OidIsValid(busy))
			return;
		foreach(lc, locked)
			UnlockRelationOid(lfirst_oid(lc), ShareRowExclusiveLock);
		LockRelationOid(busy, ShareRowExclusiveLock);
		UnlockRelationOid(busy, ShareRowExclusiveLock);
	}
}

Datum
ectowatch_declare(PG_FUNCTION_ARGS)
{
	static const char *const statuses[] = {
		[WATCH_CREATED] = "created",
		[WATCH_REPLACED] = "replaced",
		[WATCH_UNCHANGED] = "unchanged"
	};
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ErrorContextCallback callback;
	DeclareContext context;
	bool		cleanup;
	List	   *list;
	List	   *extra;
	List	   *removed = NIL;
	ListCell   *lc;

	ectowatch_require_preload();
	InitMaterializedSRF(fcinfo, 0);
	check_arguments(fcinfo);
	context.application = text_to_cstring(PG_GETARG_TEXT_PP(0));
	context.number = 0;
	cleanup = PG_GETARG_BOOL(2);

	callback.callback = declare_error_callback;
	callback.arg = &context;
	callback.previous = error_context_stack;
	error_context_stack = &callback;

	list = read_definitions(PG_GETARG_JSONB_P(1), &context);
	check_duplicates(list, &context);

	/* first, for a new one may have the name of an old one */
	extra = find_extra(list, context.application);
	foreach(lc, extra)
	{
		if (cleanup && caller_may(lfirst(lc)))
		{
			watch_remove(lfirst(lc));
			removed = lappend(removed, lfirst(lc));
		}
	}
	lock_tables(list);
	foreach(lc, list)
	{
		WatcherDef *def = lfirst(lc);

		context.number = foreach_current_index(lc) + 1;
		put_row(rsinfo, def, statuses[watch_put(def, "ectowatch_declare()")]);
	}
	context.number = 0;

	foreach(lc, extra)
		put_row(rsinfo, lfirst(lc),
				list_member_ptr(removed, lfirst(lc)) ||
				is_superseded(lfirst(lc), list) ? "removed" : "extra");
	error_context_stack = callback.previous;

	watch_require_slot();
	return (Datum) 0;
}
