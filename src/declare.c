/*-------------------------------------------------------------------------
 *
 * declare.c
 *	  An application's whole list of watchers at once.
 *
 * ectowatch_declare() is what an application calls when it starts, on each of
 * its nodes.  The list is read and checked as a whole before anything is
 * changed.  If all watchers are there as wanted, nothing is locked; so only the
 * first node of a new release has something to lock.  The registry's lock,
 * which comes before those of tables, lets in one of them at a time, and each
 * watcher then goes the way of watch_put().
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
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "ectowatch.h"
#include "options.h"
#include "trigger.h"
#include "validate.h"
#include "watch.h"

PG_FUNCTION_INFO_V1(ectowatch_declare);

/* For errors: who calls. */
#define CALLER	"ectowatch_declare()"

/* What a call is about. */
typedef struct Declaration
{
	char	   *application;
	List	   *wanted;			/* WatcherDefs that the list defines, */
	WatchResult *results;		/* and what became of each */
	List	   *extra;			/* other WatcherDefs of the application, */
	bool		cleanup;		/* whether to remove them, */
	List	   *removed;		/* and which are */
	int			number;			/* of the definition in hand, for errors; or 0 */
} Declaration;

static void
declare_error_callback(void *arg)
{
	Declaration *declaration = arg;

	if (declaration->number > 0)
		errcontext("definition %d of application \"%s\"",
				   declaration->number, declaration->application);
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
static void
read_definitions(Declaration *declaration, Jsonb *definitions)
{
	JsonbIterator *iterator = JsonbIteratorInit(&definitions->root);
	JsonbIteratorToken token;
	JsonbValue	item;

	while ((token = JsonbIteratorNext(&iterator, &item, true)) != WJB_DONE)
	{
		WatcherDef *def;

		CHECK_FOR_INTERRUPTS();
		if (token != WJB_ELEM)
			continue;
		declaration->number++;
		if (item.type != jbvBinary || !JsonContainerIsObject(item.val.binary.data))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("a definition must be a JSON object"),
					 errhint("Write it as {\"relation\": \"users\", \"event\": \"updated\"}.")));
		def = palloc0(sizeof(WatcherDef));
		options_from_json(def, item.val.binary.data);
		def->application = declaration->application;
		validate_watcher(def);
		declaration->wanted = lappend(declaration->wanted, def);
	}
	declaration->number = 0;
}

static void
check_duplicates(Declaration *declaration)
{
	ListCell   *lc;

	foreach(lc, declaration->wanted)
	{
		WatcherDef *def = lfirst(lc);

		CHECK_FOR_INTERRUPTS();
		declaration->number = foreach_current_index(lc) + 1;
		for (int i = 0; i < foreach_current_index(lc); i++)
		{
			WatcherDef *other = list_nth(declaration->wanted, i);

			if (strcmp(def->name, other->name) == 0)
				ereport(ERROR,
						(errcode(ERRCODE_DUPLICATE_OBJECT),
						 errmsg("watcher \"%s\" is defined twice", def->name),
						 errdetail("Definition %d is of the same name.", i + 1),
						 errhint("Leave one out, or give it a label.")));
		}
	}
	declaration->number = 0;
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
static void
find_extra(Declaration *declaration)
{
	ListCell   *la;
	ListCell   *lb;

	declaration->extra = NIL;
	foreach(la, watcher_list(InvalidOid))
	{
		WatcherDef *def = lfirst(la);
		bool		wanted = false;

		CHECK_FOR_INTERRUPTS();
		if (def->application == NULL ||
			strcmp(def->application, declaration->application) != 0)
			continue;
		foreach(lb, declaration->wanted)
			wanted = wanted || options_same_identity(lfirst(lb), def);
		if (!wanted)
			declaration->extra = lappend(declaration->extra, def);
	}
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
 * Whether all is as wanted, as of now.  Looks at each definition, for errors.
 */
static bool
is_all_in_place(Declaration *declaration)
{
	bool		all = true;
	ListCell   *lc;

	foreach(lc, declaration->wanted)
	{
		CHECK_FOR_INTERRUPTS();
		declaration->number = foreach_current_index(lc) + 1;
		if (!watch_is_in_place(lfirst(lc)))
			all = false;
	}
	declaration->number = 0;
	foreach(lc, declaration->extra)
	{
		if (declaration->cleanup && caller_may(lfirst(lc)))
			all = false;
	}
	return all;
}

static void
lock_tables(List *wanted)
{
	TableLock  *locks = palloc((list_length(wanted) + 1) * sizeof(TableLock));
	int			n = 0;
	ListCell   *lc;

	foreach(lc, wanted)
	{
		locks[n] = watch_table_lock(lfirst(lc));
		if (caller_may(lfirst(lc)) && locks[n].mode != NoLock)
			n++;
	}
	locks_take(locks, n);
}

/* Drops the triggers that watchers, which are removed, have left idle. */
static void
drop_triggers(List *removed)
{
	List	   *tables = NIL;
	ListCell   *lc;

	foreach(lc, removed)
		tables = list_append_unique_oid(tables,
										((WatcherDef *) lfirst(lc))->relation);
	foreach(lc, tables)
	{
		if (get_rel_name(lfirst_oid(lc)) != NULL)
			triggers_drop_idle(lfirst_oid(lc));
	}
}

/*
 * Changes what is not as wanted; the registry is locked.  Tables are locked
 * before anything is changed, and triggers dropped last, which takes other locks
 * but waits for none: so while a table is locked, no writer is waited for.  Old
 * watchers go before new ones come, which may have their names.
 */
static void
change_all(Declaration *declaration)
{
	ListCell   *lc;

	lock_tables(declaration->wanted);
	foreach(lc, declaration->extra)
	{
		if (declaration->cleanup && caller_may(lfirst(lc)))
		{
			watch_end(lfirst(lc));
			declaration->removed = lappend(declaration->removed, lfirst(lc));
		}
	}
	foreach(lc, declaration->wanted)
	{
		declaration->number = foreach_current_index(lc) + 1;
		declaration->results[foreach_current_index(lc)] =
			watch_put(lfirst(lc), CALLER);
	}
	declaration->number = 0;
	drop_triggers(declaration->removed);
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
	Declaration declaration = {0};
	ListCell   *lc;

	ectowatch_require_preload();
	InitMaterializedSRF(fcinfo, 0);
	check_arguments(fcinfo);
	declaration.application = text_to_cstring(PG_GETARG_TEXT_PP(0));
	declaration.cleanup = PG_GETARG_BOOL(2);

	callback.callback = declare_error_callback;
	callback.arg = &declaration;
	callback.previous = error_context_stack;
	error_context_stack = &callback;

	read_definitions(&declaration, PG_GETARG_JSONB_P(1));
	check_duplicates(&declaration);
	declaration.results = palloc(list_length(declaration.wanted) *
								 sizeof(WatchResult));
	for (int i = 0; i < list_length(declaration.wanted); i++)
		declaration.results[i] = WATCH_UNCHANGED;

	find_extra(&declaration);
	if (!is_all_in_place(&declaration))
	{
		watch_lock_registry(CALLER);
		find_extra(&declaration);
		change_all(&declaration);
	}
	error_context_stack = callback.previous;

	foreach(lc, declaration.wanted)
		put_row(rsinfo, lfirst(lc),
				statuses[declaration.results[foreach_current_index(lc)]]);
	foreach(lc, declaration.extra)
	{
		CHECK_FOR_INTERRUPTS();
		put_row(rsinfo, lfirst(lc),
				list_member_ptr(declaration.removed, lfirst(lc)) ||
				is_superseded(lfirst(lc), declaration.wanted) ?
				"removed" : "extra");
	}
	watch_require_slot();
	return (Datum) 0;
}
