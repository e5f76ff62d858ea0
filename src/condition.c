/*-------------------------------------------------------------------------
 *
 * condition.c
 *	  Option "condition" of a watcher: which rows it wants to hear of.
 *
 * The registry has a condition as text; condition_sql.c reads it.  From that it
 * goes through two more forms in each backend:
 *
 * 1. The tree, made when the first row comes, for the relation that fires the
 *	  trigger: columns are found by name.  It lives as long as the plan, which is
 *	  made anew when the relation or any function changes: see plan.c.
 * 2. The state: planned, with functions looked up and the rights to call
 *	  them checked, for one user.  That is the writer, as in a trigger.
 *
 * None of this may fail a write.  What can throw (both of these, and the
 * evaluation of anything but the plainest expressions) runs in a
 * subtransaction; if it throws, the change is delivered, and a WARNING is
 * given once per plan.  A subtransaction for each row costs, and so is saved
 * where all functions are core's own and leakproof: these throw for no value.
 * Changes that a function captures belong to the subtransaction, and with it
 * come or go; pending.c follows it as any other.
 *
 * Functions may write to the same table, and so come here again, while a
 * state is in use.  Each state is used by one evaluation at a time; an inner
 * one takes another.  A function that always does so would never end, were it
 * not that at a certain depth changes are delivered unseen.
 *
 * A state with functions of all kinds lives in one transaction only, as do
 * those of core and PL/pgSQL: what functions keep from call to call may not
 * last longer.  A plain one is used again and again.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "storage/proc.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"

#include "condition.h"
#include "condition_sql.h"
#include "guard.h"

/* How many evaluations there may be within each other. */
#define MAX_DEPTH		16

/* How many states are kept, but for those in use. */
#define MAX_STATES		4

typedef struct ConditionState
{
	MemoryContext context;		/* of all below; a child of the condition's */
	Oid			user;			/* whose rights were checked */
	LocalTransactionId lxid;	/* of the transaction of its last use */
	bool		busy;			/* an evaluation in that one uses it */
	bool		plain;			/* cannot throw, and outlives transactions */
	ExprState  *expr;			/* NULL: it could not be prepared */
	ExprContext *econtext;
} ConditionState;

struct Condition
{
	MemoryContext context;
	Oid			origin;
	int			event;
	const char *watcher;
	const char *text;
	enum
	{
		CONDITION_NEW,
		CONDITION_IN_WORK,
		CONDITION_READY,
		CONDITION_BROKEN
	}			status;
	Node	   *tree;
	bool		uses_this;		/* the row that is the old one or the new one */
	bool		of_row;			/* says the same of a row, whatever the change */
	bool		warned;
	List	   *states;
};

/* Evaluations in subtransactions that are going on, of all conditions. */
static int	depth = 0;

/* --- compiling and preparing --- */

Condition *
condition_make(Oid origin, int event, const char *watcher, const char *text)
{
	Condition  *condition = palloc0(sizeof(Condition));

	condition->context = AllocSetContextCreate(CurrentMemoryContext,
											   "ectowatch condition",
											   ALLOCSET_SMALL_SIZES);
	condition->origin = origin;
	condition->event = event;
	condition->watcher = watcher;
	condition->text = text;
	condition->status = CONDITION_NEW;
	return condition;
}

typedef struct RowsUsed
{
	bool		this;
	bool		old_or_new;
} RowsUsed;

static bool
rows_used_walker(Node *node, RowsUsed *used)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var))
	{
		if (((Var *) node)->varno == INNER_VAR ||
			((Var *) node)->varno == OUTER_VAR)
			used->old_or_new = true;
		else
			used->this = true;
		return false;
	}
	return expression_tree_walker(node, rows_used_walker, (void *) used);
}

/* In a subtransaction. */
static void
condition_compile(Condition *condition, Relation relation)
{
	MemoryContext old = MemoryContextSwitchTo(condition->context);
	RowsUsed	used = {0};

	condition->tree = condition_read(relation, condition->origin,
									 condition->event, condition->text);
	(void) rows_used_walker(condition->tree, &used);
	condition->uses_this = used.this;
	condition->of_row = !used.old_or_new &&
		!contain_mutable_functions(condition->tree);
	MemoryContextSwitchTo(old);
}

static bool
function_may_throw(Oid function, void *context pg_attribute_unused())
{
	/* these compare numbers, though they are not marked as leakproof */
	if (function == F_ENUM_EQ || function == F_ENUM_NE)
		return false;
	return function >= FirstNormalObjectId || !get_func_leakproof(function);
}

/* Whether there is anything but what never throws, whatever the row. */
static bool
may_throw_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	switch (nodeTag(node))
	{
		case T_Var:
			if (((Var *) node)->varattno == InvalidAttrNumber)
				return true;
			break;
		case T_BoolExpr:
		case T_BooleanTest:
		case T_CaseExpr:
		case T_CaseTestExpr:
		case T_CaseWhen:
		case T_CoalesceExpr:
		case T_CollateExpr:
		case T_Const:
		case T_List:
		case T_NullTest:
		case T_RelabelType:
			break;
		case T_DistinctExpr:
		case T_FuncExpr:
		case T_NullIfExpr:
		case T_OpExpr:
		case T_ScalarArrayOpExpr:
			if (check_functions_in_node(node, function_may_throw, context))
				return true;
			/* without a collation, functions that need one throw */
			if (!OidIsValid(exprInputCollation(node)))
			{
				List	   *args;
				ListCell   *lc;

				if (IsA(node, FuncExpr))
					args = ((FuncExpr *) node)->args;
				else if (IsA(node, ScalarArrayOpExpr))
					args = ((ScalarArrayOpExpr *) node)->args;
				else
					args = ((OpExpr *) node)->args;
				foreach(lc, args)
				{
					if (type_is_collatable(exprType(lfirst(lc))))
						return true;
				}
			}
			break;
		default:
			return true;
	}
	return expression_tree_walker(node, may_throw_walker, context);
}

/* An evaluation that an error has ended may have left it busy. */
static bool
state_is_idle(const ConditionState *state)
{
	return !state->busy || state->lxid != MyProc->lxid;
}

/* One that can be used here and now, or NULL. */
static ConditionState *
state_find(const Condition *condition)
{
	ListCell   *lc;

	foreach(lc, condition->states)
	{
		ConditionState *state = lfirst(lc);

		if (state_is_idle(state) && state->user == GetUserId() &&
			(state->plain || state->lxid == MyProc->lxid))
			return state;
	}
	return NULL;
}

static void
state_free(Condition *condition, ConditionState *state)
{
	condition->states = list_delete_ptr(condition->states, state);
	MemoryContextDelete(state->context);
}

/* Makes room for a state, and adds it; 'context' has no other parent yet. */
static ConditionState *
state_add(Condition *condition, MemoryContext context)
{
	ConditionState *state = MemoryContextAllocZero(context, sizeof(*state));
	MemoryContext old;
	ListCell   *lc;

	foreach(lc, condition->states)
	{
		ConditionState *other = lfirst(lc);

		if (state_is_idle(other) &&
			(other->lxid != MyProc->lxid ||
			 list_length(condition->states) >= MAX_STATES))
		{
			condition->states = foreach_delete_current(condition->states, lc);
			MemoryContextDelete(other->context);
		}
	}

	state->context = context;
	state->user = GetUserId();
	state->lxid = MyProc->lxid;
	old = MemoryContextSwitchTo(condition->context);
	condition->states = lappend(condition->states, state);
	MemoryContextSwitchTo(old);
	MemoryContextSetParent(context, condition->context);
	return state;
}

/* In a subtransaction, whose memory has what an error leaves. */
static ConditionState *
condition_prepare(Condition *condition)
{
	MemoryContext context = AllocSetContextCreate(CurTransactionContext,
												  "ectowatch condition state",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Expr	   *planned = expression_planner((Expr *) condition->tree);
	ExprState  *expr = ExecInitExpr(planned, NULL);
	ExprContext *econtext = CreateStandaloneExprContext();
	bool		plain = !may_throw_walker((Node *) planned, NULL);
	ConditionState *state;

	MemoryContextSwitchTo(old);
	state = state_add(condition, context);
	state->expr = expr;
	state->econtext = econtext;
	state->plain = plain;
	return state;
}

/* --- evaluating --- */

static bool
state_holds(ConditionState *state, TupleTableSlot *row)
{
	Datum		value;
	bool		null;

	state->econtext->ecxt_scantuple = row;
	value = ExecEvalExprSwitchContext(state->expr, state->econtext, &null);
	return !null && DatumGetBool(value);
}

static bool
state_matches(const Condition *condition, ConditionState *state,
			  TupleTableSlot *old, TupleTableSlot *new)
{
	bool		result;

	state->busy = true;
	state->lxid = MyProc->lxid;
	state->econtext->ecxt_innertuple = old;
	state->econtext->ecxt_outertuple = new;
	result = state_holds(state, new ? new : old);
	if (!result && condition->uses_this && new != NULL && old != NULL)
		result = state_holds(state, old);
	ResetExprContext(state->econtext);
	state->busy = false;
	return result;
}

static void
condition_warn(Condition *condition, Relation relation, const ErrorData *error)
{
	if (condition->warned)
		return;
	condition->warned = true;
	if (condition->status == CONDITION_BROKEN)
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("condition of watcher \"%s\" cannot be used for relation \"%s\": %s",
						condition->watcher, RelationGetRelationName(relation),
						error->message),
				 errdetail("Changes are delivered whether it holds or not."),
				 errhint("Call ectowatch_watch() again with a condition that fits what there is.")));
	else
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("condition of watcher \"%s\" failed: %s",
						condition->watcher, error->message),
				 errdetail("Changes for which it fails are delivered."),
				 errhint("Call ectowatch_watch() again with a condition that fails for no row and no user.")));
}

/* Does all that is to be done, in a subtransaction. */
static bool
matches_guarded(Condition *condition, Relation relation,
				TupleTableSlot *old, TupleTableSlot *new, bool *failed)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ConditionState *volatile state = NULL;
	volatile bool result = true;

	if (!guard_begin())
	{
		*failed = true;
		return true;
	}
	MemoryContextSwitchTo(context);
	depth++;
	PG_TRY();
	{
		if (condition->status == CONDITION_NEW)
		{
			condition->status = CONDITION_IN_WORK;
			condition_compile(condition, relation);
			condition->status = CONDITION_READY;
		}
		state = state_find(condition);
		if (state == NULL)
			state = condition_prepare(condition);
		if (state->expr != NULL)
			result = state_matches(condition, state, old, new);
		else
			*failed = true;
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		depth--;
	}
	PG_CATCH();
	{
		ErrorData  *error;
		bool		passes;

		depth--;
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;

		/* a cancelled statement is to end, and an exhausted server is news */
		passes = error->sqlerrcode == ERRCODE_QUERY_CANCELED ||
			ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_INSUFFICIENT_RESOURCES;

		if (state != NULL)
			state_free(condition, state);
		else if (condition->status == CONDITION_IN_WORK)
			condition->status = passes ? CONDITION_NEW : CONDITION_BROKEN;
		else if (!passes)
			/* not again for this user in this transaction */
			(void) state_add(condition,
							 AllocSetContextCreate(CurrentMemoryContext,
												   "ectowatch condition state",
												   ALLOCSET_SMALL_SIZES));
		if (passes)
			ReThrowError(error);
		condition_warn(condition, relation, error);
		FreeErrorData(error);
		result = true;
		*failed = true;
	}
	PG_END_TRY();
	return result;
}

bool
condition_matches(Condition *condition, Relation relation,
				  TupleTableSlot *old, TupleTableSlot *new, bool *failed)
{
	*failed = false;
	if (condition->status == CONDITION_READY)
	{
		ConditionState *state = state_find(condition);

		if (state != NULL && state->expr == NULL)
		{
			*failed = true;
			return true;
		}
		if (state != NULL && state->plain)
			return state_matches(condition, state, old, new);
	}
	else if (condition->status != CONDITION_NEW)
	{
		*failed = true;
		return true;
	}

	if (depth >= MAX_DEPTH)
	{
		if (!condition->warned)
			ereport(WARNING,
					(errcode(ERRCODE_STATEMENT_TOO_COMPLEX),
					 errmsg("condition of watcher \"%s\" is evaluated within conditions, %d deep",
							condition->watcher, MAX_DEPTH),
					 errdetail("A function that it calls writes to a watched table. At this depth changes are delivered whether it holds or not."),
					 errhint("Call ectowatch_watch() again with a condition that does not write.")));
		condition->warned = true;
		*failed = true;
		return true;
	}
	return matches_guarded(condition, relation, old, new, failed);
}

bool
condition_matches_successor(Condition *condition, Relation relation,
							TupleTableSlot *row)
{
	bool		failed;

	return condition->status == CONDITION_READY && condition->of_row &&
		condition_matches(condition, relation, row, NULL, &failed) && !failed;
}
