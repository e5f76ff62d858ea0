/*-------------------------------------------------------------------------
 *
 * repair.c
 *	  Finding what is wrong with triggers, and putting it right.
 *
 * What is wrong is found by comparing two lists: what watchers need, from the
 * registry, and all triggers that call the capture function, from pg_trigger.
 *
 *	missing		a watcher's event has no trigger
 *	disabled	it has one of ours that does not fire, or not for changes that
 *				are replicated where the watcher wants those
 *	changed		a trigger has a name of ours, but not our shape
 *	left over	one with a name of ours has no watcher
 *	gone		a watcher's table is not there any longer
 *
 * A trigger with another name is never touched, whatever it calls.  If it has
 * our shape and fires, then it serves its event, as for ectowatch_watch().
 * Clones on partitions are their parent's, with one exception: each can be
 * disabled by itself, and then is found by itself.
 *
 * ectowatch_check() shows what is found.  ectowatch_repair() looks first
 * without a lock; if there is nothing that the caller may do, that is all.  Else
 * it takes locks in the order of watch.c: the registry, then the tables where a
 * trigger is to be made, enabled or replaced, in the order of their OIDs; and
 * looks again.
 * To drop a trigger it waits for no one, as trigger.c explains; so a changed
 * one may stay for the time being, with a good one beside it.  That the change
 * is then captured twice does no harm: a change that equals the newest one of
 * its row is dropped (pending.c).
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"

#include "ectowatch.h"
#include "trigger.h"
#include "watch.h"
#include "watcher.h"

PG_FUNCTION_INFO_V1(ectowatch_trigger_problems);
PG_FUNCTION_INFO_V1(ectowatch_repair);

typedef enum ProblemKind
{
	PROBLEM_MISSING,
	PROBLEM_DISABLED,
	PROBLEM_CHANGED,
	PROBLEM_LEFT_OVER,
	PROBLEM_GONE
} ProblemKind;

static const char *const problem_names[] = {
	[PROBLEM_MISSING] = "missing",
	[PROBLEM_DISABLED] = "disabled",
	[PROBLEM_CHANGED] = "changed",
	[PROBLEM_LEFT_OVER] = "left over",
	[PROBLEM_GONE] = "gone"
};

static const char *const event_names[NEVENTS] = {
	"inserted", "updated", "deleted", "truncated"
};

typedef struct Problem
{
	ProblemKind kind;
	Oid			relation;		/* where it is */
	Oid			origin;			/* that is watched; differs for partitions */
	const TriggerInfo *trigger; /* NULL: missing, gone */
	int			events;			/* that it is about */
	int			create;			/* of these, to be created */
	bool		always;			/* the trigger must be enabled so */
	const WatcherDef *watcher;	/* that is gone, or NULL */
} Problem;

/* What a table's watchers need, and have. */
typedef struct TableNeed
{
	Oid			relation;		/* hash key */
	int			needed;			/* events */
	int			always;			/* of these, under any replication role */
	int			served;			/* by some trigger */
} TableNeed;

/* A trigger by its OID. */
typedef struct TriggerEntry
{
	Oid			oid;			/* hash key */
	const TriggerInfo *trigger;
} TriggerEntry;

/* --- finding --- */

static TableNeed *
need_of(HTAB *needs, Oid relation)
{
	bool		found;
	TableNeed  *need = hash_search(needs, &relation, HASH_ENTER, &found);

	if (!found)
		need->needed = need->always = need->served = 0;
	return need;
}

static Problem *
add_problem(List **problems, ProblemKind kind, Oid relation,
			const TriggerInfo *trigger, int events)
{
	Problem    *problem = palloc0(sizeof(Problem));

	problem->kind = kind;
	problem->relation = problem->origin = relation;
	problem->trigger = trigger;
	problem->events = events;
	*problems = lappend(*problems, problem);
	return problem;
}

/* By relation, in order of OIDs; then triggers by name; for list_sort(). */
static int
problem_compare(const ListCell *a, const ListCell *b)
{
	const Problem *pa = lfirst(a);
	const Problem *pb = lfirst(b);

	if (pa->relation != pb->relation)
		return pa->relation < pb->relation ? -1 : 1;
	if (pa->trigger != NULL && pb->trigger != NULL)
		return strcmp(pa->trigger->name, pb->trigger->name);
	if (pa->trigger != NULL || pb->trigger != NULL)
		return pa->trigger != NULL ? -1 : 1;
	if (pa->watcher != NULL && pb->watcher != NULL)
		return strcmp(pa->watcher->name, pb->watcher->name);
	return pa->events - pb->events;
}

/* The trigger of which this is a clone, or itself; NULL if that is not ours. */
static const TriggerInfo *
root_trigger(HTAB *triggers, const TriggerInfo *trigger)
{
	while (OidIsValid(trigger->parent))
	{
		const TriggerEntry *parent = hash_search(triggers, &trigger->parent,
												 HASH_FIND, NULL);

		if (parent == NULL)
			return NULL;
		trigger = parent->trigger;
	}
	return trigger;
}

static bool
fires_as_needed(const TriggerInfo *trigger, bool always)
{
	return trigger->enabled == TRIGGER_FIRES_ALWAYS ||
		(trigger->enabled == TRIGGER_FIRES_ON_ORIGIN && !always);
}

/* Looks at one trigger, and notes which events it serves. */
static void
check_trigger(List **problems, HTAB *needs, HTAB *triggers,
			  const TriggerInfo *trigger)
{
	const TriggerInfo *root = root_trigger(triggers, trigger);
	TableNeed  *need;
	int			needed;
	bool		always;
	Problem    *problem;

	if (root == NULL)
		return;
	need = need_of(needs, root->relation);
	needed = need->needed & root->events;
	always = (need->always & root->events) != 0;

	if (root != trigger)
	{
		if (root->ours && root->well_formed && needed != 0 &&
			!fires_as_needed(trigger, always))
		{
			problem = add_problem(problems, PROBLEM_DISABLED,
								  trigger->relation, trigger, needed);
			problem->origin = root->relation;
			problem->always = always;
		}
		return;
	}
	if (trigger->well_formed && needed != 0)
	{
		if (fires_as_needed(trigger, always))
			need->served |= trigger->events;
		else if (trigger->ours)
		{
			problem = add_problem(problems, PROBLEM_DISABLED,
								  trigger->relation, trigger, needed);
			problem->always = always;
			need->served |= trigger->events;
		}
	}
	else if (trigger->ours)
		add_problem(problems, needed != 0 ? PROBLEM_CHANGED : PROBLEM_LEFT_OVER,
					trigger->relation, trigger, trigger->events);
}

/* What no trigger serves is missing, or comes with the replacement of one. */
static void
check_served(List **problems, HTAB *needs)
{
	HASH_SEQ_STATUS scan;
	TableNeed  *need;
	ListCell   *lc;

	foreach(lc, *problems)
	{
		Problem    *problem = lfirst(lc);

		if (problem->kind == PROBLEM_CHANGED)
		{
			need = need_of(needs, problem->relation);
			problem->create = need->needed & problem->events & ~need->served;
			problem->always = (need->always & problem->create) != 0;
			need->served |= problem->create;
		}
	}
	hash_seq_init(&scan, needs);
	while ((need = hash_seq_search(&scan)) != NULL)
	{
		for (int i = 0; i < NEVENTS; i++)
		{
			int			event = 1 << i;

			if (need->needed & ~need->served & event)
			{
				Problem    *problem = add_problem(problems, PROBLEM_MISSING,
												  need->relation, NULL, event);

				problem->create = event;
				problem->always = (need->always & event) != 0;
			}
		}
	}
}

static HTAB *
create_hash(const char *name, Size entrysize)
{
	HASHCTL		ctl;

	ctl.keysize = sizeof(Oid);
	ctl.entrysize = entrysize;
	ctl.hcxt = CurrentMemoryContext;
	return hash_create(name, 256, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/*
 * All that is wrong now, in order; in the current context.  Takes no lock on
 * tables, and asks for no rights: pg_trigger and the registry are public.
 */
static List *
find_problems(void)
{
	List	   *problems = NIL;
	List	   *list = triggers_list();
	HTAB	   *needs = create_hash("ectowatch needs", sizeof(TableNeed));
	HTAB	   *triggers = create_hash("ectowatch triggers", sizeof(TriggerEntry));
	ListCell   *lc;

	foreach(lc, watcher_list(InvalidOid))
	{
		WatcherDef *def = lfirst(lc);
		TableNeed  *need;

		if (get_rel_name(def->relation) == NULL)
		{
			add_problem(&problems, PROBLEM_GONE, def->relation, NULL,
						def->events)->watcher = def;
			continue;
		}
		need = need_of(needs, def->relation);
		need->needed |= def->events;
		if (def->replicated)
			need->always |= def->events;
	}
	foreach(lc, list)
	{
		TriggerInfo *trigger = lfirst(lc);
		TriggerEntry *entry = hash_search(triggers, &trigger->oid,
										  HASH_ENTER, NULL);

		entry->trigger = trigger;
	}
	foreach(lc, list)
		check_trigger(&problems, needs, triggers, lfirst(lc));
	check_served(&problems, needs);
	list_sort(problems, problem_compare);
	return problems;
}

/* --- showing --- */

static Datum
events_array(int events)
{
	Datum		names[NEVENTS];
	int			n = 0;

	for (int i = 0; i < NEVENTS; i++)
	{
		if (events & (1 << i))
			names[n++] = CStringGetTextDatum(event_names[i]);
	}
	return PointerGetDatum(construct_array(names, n, TEXTOID, -1, false,
										   TYPALIGN_INT));
}

/*
 * ectowatch_trigger_problems(), for ectowatch_check(); works without preload
 */
Datum
ectowatch_trigger_problems(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ListCell   *lc;

	InitMaterializedSRF(fcinfo, 0);
	foreach(lc, find_problems())
	{
		Problem    *problem = lfirst(lc);
		Datum		values[6] = {0};
		bool		nulls[6] = {false};

		values[0] = ObjectIdGetDatum(problem->relation);
		values[1] = ObjectIdGetDatum(problem->origin);
		nulls[2] = problem->trigger == NULL;
		if (!nulls[2])
			values[2] = CStringGetTextDatum(problem->trigger->name);
		values[3] = events_array(problem->events);
		values[4] = CStringGetTextDatum(problem_names[problem->kind]);
		nulls[5] = problem->watcher == NULL;
		if (!nulls[5])
			values[5] = CStringGetTextDatum(problem->watcher->name);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* --- repairing --- */

static bool
needs_table_lock(const Problem *problem)
{
	return problem->kind == PROBLEM_MISSING ||
		problem->kind == PROBLEM_DISABLED ||
		problem->kind == PROBLEM_CHANGED;
}

static bool
is_owner(Oid relation)
{
	return get_rel_name(relation) != NULL &&
		pg_class_ownercheck(relation, GetUserId());
}

/* The watcher of a table that is gone is nobody's. */
static bool
caller_may(const Problem *problem)
{
	return problem->kind == PROBLEM_GONE || is_owner(problem->relation);
}

static bool
caller_may_any(List *problems)
{
	ListCell   *lc;

	foreach(lc, problems)
	{
		if (caller_may(lfirst(lc)))
			return true;
	}
	return false;
}

/*
 * Locks the tables where a trigger is to be made, enabled or replaced, of
 * those that the caller owns.  Returns them.
 */
static List *
lock_tables(List *problems)
{
	TableLock  *locks = palloc(list_length(problems) * sizeof(TableLock));
	List	   *locked = NIL;
	ListCell   *lc;

	foreach(lc, problems)
	{
		Problem    *problem = lfirst(lc);

		if (needs_table_lock(problem) && is_owner(problem->relation) &&
			!list_member_oid(locked, problem->relation))
		{
			locks[list_length(locked)].relation = problem->relation;
			locks[list_length(locked)].mode = ShareRowExclusiveLock;
			locked = lappend_oid(locked, problem->relation);
		}
	}
	locks_take(locks, list_length(locked));
	return locked;
}

static void
put_action(ReturnSetInfo *rsinfo, const Problem *problem, const char *trigger,
		   const char *action)
{
	Datum		values[3] = {0};
	bool		nulls[3] = {false};

	values[0] = ObjectIdGetDatum(problem->relation);
	nulls[1] = trigger == NULL;
	if (trigger)
		values[1] = CStringGetTextDatum(trigger);
	values[2] = CStringGetTextDatum(action);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* The name of the last one. */
static const char *
create_triggers(const Problem *problem)
{
	const char *name = NULL;

	for (int i = 0; i < NEVENTS; i++)
	{
		if (problem->create & (1 << i))
		{
			name = trigger_create(problem->relation, i);
			if (problem->always)
				trigger_enable(problem->relation, name, true);
		}
	}
	return name;
}

static void
repair_problem(ReturnSetInfo *rsinfo, const Problem *problem)
{
	const char *name = problem->trigger ? problem->trigger->name : NULL;
	bool		done;

	switch (problem->kind)
	{
		case PROBLEM_MISSING:
			put_action(rsinfo, problem, create_triggers(problem), "created");
			break;
		case PROBLEM_DISABLED:
			trigger_enable(problem->relation, name, problem->always);
			put_action(rsinfo, problem, name, "enabled");
			break;
		case PROBLEM_CHANGED:
			done = trigger_drop_at_once(problem->relation, problem->trigger->oid);
			(void) create_triggers(problem);
			put_action(rsinfo, problem, name, done ? "replaced" : "in use");
			break;
		case PROBLEM_LEFT_OVER:
			done = trigger_drop_at_once(problem->relation, problem->trigger->oid);
			put_action(rsinfo, problem, name, done ? "dropped" : "in use");
			break;
		case PROBLEM_GONE:
			watch_remove(problem->watcher);
			put_action(rsinfo, problem, NULL,
					   psprintf("removed watcher \"%s\"", problem->watcher->name));
			break;
	}
}

/*
 * ectowatch_repair()
 */
Datum
ectowatch_repair(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	List	   *problems;
	List	   *locked = NIL;
	ListCell   *lc;

	ectowatch_require_preload();
	InitMaterializedSRF(fcinfo, 0);
	problems = find_problems();
	if (caller_may_any(problems))
	{
		watch_lock_registry("ectowatch_repair()");
		locked = lock_tables(find_problems());
		problems = find_problems();
	}
	foreach(lc, problems)
	{
		Problem    *problem = lfirst(lc);

		if (!caller_may(problem))
			put_action(rsinfo, problem,
					   problem->trigger ? problem->trigger->name : NULL,
					   "not owner");
		else if (!needs_table_lock(problem) ||
				 list_member_oid(locked, problem->relation))
			repair_problem(rsinfo, problem);
	}
	return (Datum) 0;
}
