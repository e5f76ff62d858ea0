/*-------------------------------------------------------------------------
 *
 * condition_sql.c
 *	  A condition as SQL: checking what a user wrote, keeping it, reading it.
 *
 * What the user wrote is read in the user's session, in which
 * ectowatch_watch() is called: names mean there what they mean to the user.
 * It is kept as text that means the same in every session: names are
 * qualified unless they are pg_catalog's, constants are written under fixed
 * settings, columns have OLD, NEW or THIS before them, where THIS is the row of
 * the message.  It is read under the same settings.
 *
 * It is SQL and no stored tree, because a tree holds OIDs and column numbers,
 * which neither pg_dump nor a partition has the same, and because nothing may
 * depend on a column: DROP COLUMN would be refused, or would take ours along.
 * The price is that a name can lead to something else later, as in the body of
 * a function.
 *
 * The text is what "the same condition" is compared by.  Writing a tree and
 * reading it again may give another tree once (IN lists of varchar do), so that
 * is repeated until the text stays.  It is a condition that a user could have
 * written, so what a view shows can be given back.
 *
 * Some expressions have an operator that SQL does not let one qualify, as the
 * "=" of IS DISTINCT FROM.  Where reading the text would find another operator
 * than the user's session has found, the condition is refused.
 *
 * Reading needs the relation, and so a lock on it.  For a condition that is
 * given once more as it was, that would be a lock for nothing.  So the registry
 * also has what the user wrote, and on what the meaning of that rests besides:
 * the settings, and names and types of the columns that it uses.  While all
 * that is the same, the condition is the same.  What else it names (functions,
 * operators, types) is not looked up again.
 *
 * Backends read it on behalf of the table's owner, whose text it is: who
 * writes needs no USAGE on the schemas that it names, as for the WHEN of a
 * trigger.  Reading constants can run code (constraints of domains in composite
 * values), so that is a restricted operation, as where core evaluates the
 * expressions of an owner's indexes.  When it is checked it is read with the
 * caller's rights, who need not be the owner.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "access/table.h"
#include "catalog/heap.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_operator.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_clause.h"
#include "parser/parse_collate.h"
#include "parser/parse_oper.h"
#include "parser/parse_relation.h"
#include "parser/parser.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"
#include "utils/syscache.h"

#include "condition_sql.h"
#include "rights.h"
#include "watcher.h"

/*
 * What a column may be one of; as varno, in the order of the range table.
 * The row is there twice: by THIS, and by the table's name and by none.
 */
#define VARNO_OLD		1
#define VARNO_NEW		2
#define VARNO_THIS		3
#define VARNO_TABLE		4

#define NAME_OLD		"old"
#define NAME_NEW		"new"
#define NAME_THIS		"this"

/* How often writing and reading again may change the text. */
#define MAX_ROUNDS		8

/* --- reading and writing SQL --- */

static const char *
event_name(int events)
{
	switch (events)
	{
		case EVENT_INSERTED:
			return "inserted";
		case EVENT_UPDATED:
			return "updated";
		case EVENT_DELETED:
			return "deleted";
		case EVENT_TRUNCATED:
			return "truncated";
	}
	return "changed";
}

/*
 * Settings under which the registry's text is written and read.  To be undone
 * by settings_restore(), or by the end of the (sub)transaction.
 */
static const char *const settings[][2] = {
	{"array_nulls", "on"},
	{"bytea_output", "hex"},
	{"DateStyle", "ISO, YMD"},
	{"extra_float_digits", "1"},
	{"IntervalStyle", "postgres"},
	{"lc_monetary", "C"},
	{"quote_all_identifiers", "off"},
	{"standard_conforming_strings", "on"},
	{"TimeZone", "UTC"},
	{"transform_null_equals", "off"},
	{"xmloption", "content"},
};

static int
settings_fix(void)
{
	int			nest = NewGUCNestLevel();
	OverrideSearchPath path = {0};

	for (int i = 0; i < (int) lengthof(settings); i++)
		(void) set_config_option(settings[i][0], settings[i][1],
								 PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	path.addCatalog = true;
	PushOverrideSearchPath(&path);
	return nest;
}

static void
settings_restore(int nest)
{
	PopOverrideSearchPath();
	AtEOXact_GUC(true, nest);
}

/* The text as an expression, before names are looked up. */
static Node *
parse_expression(const char *text)
{
	SelectStmt *stmt = castNode(SelectStmt,
								linitial_node(RawStmt,
											  raw_parser(text, RAW_PARSE_PLPGSQL_EXPR))->stmt);
	SelectStmt *plain = makeNode(SelectStmt);
	ResTarget  *target;

	/* it is what may follow SELECT, and must not have more than a value */
	plain->targetList = stmt->targetList;
	if (list_length(stmt->targetList) == 1 && equal(stmt, plain))
	{
		target = linitial_node(ResTarget, stmt->targetList);
		if (target->name == NULL &&
			!(IsA(target->val, ColumnRef) &&
			  IsA(llast(castNode(ColumnRef, target->val)->fields), A_Star)))
			return target->val;
	}
	ereport(ERROR,
			(errcode(ERRCODE_SYNTAX_ERROR),
			 errmsg("condition is not one expression"),
			 errhint("Write it as what stands behind WHERE.")));
	return NULL;
}

/* Called with each column reference; 'found' is what it means. */
static Node *
column_hook(ParseState *pstate, ColumnRef *ref, Node *found)
{
	Relation	relation = pstate->p_ref_hook_state;

	/* core's own hint would name OLD and NEW */
	if (found == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 list_length(ref->fields) == 1 ?
				 errmsg("column \"%s\" of relation \"%s\" does not exist",
						strVal(linitial(ref->fields)),
						RelationGetRelationName(relation)) :
				 errmsg("column %s does not exist",
						NameListToString(ref->fields)),
				 errdetail("It is named in condition."),
				 errhint("Name columns of relation \"%s\" as in SQL; those of an update may have OLD or NEW before them.",
						 RelationGetRelationName(relation)),
				 parser_errposition(pstate, ref->location)));
	return NULL;
}

/* Adds the next of the rows above; the table itself has no alias. */
static void
add_row(ParseState *pstate, Relation relation, const char *alias)
{
	const char *name = RelationGetRelationName(relation);
	ParseNamespaceItem *item =
	addRangeTableEntryForRelation(pstate, relation, AccessShareLock,
								  alias ? makeAlias(alias, NIL) : NULL,
								  false, false);
	bool		by_name = alias != NULL ||
	(strcmp(name, NAME_OLD) != 0 && strcmp(name, NAME_NEW) != 0 &&
	 strcmp(name, NAME_THIS) != 0);

	addNSItemToQuery(pstate, item, false, by_name, alias == NULL);
}

typedef struct ReferencesContext
{
	ParseState *pstate;
	int			events;
} ReferencesContext;

static bool
check_references_walker(Node *node, void *arg)
{
	ReferencesContext *context = arg;
	int			allowed = EVENT_CHANGED;
	Var		   *var;

	if (node == NULL)
		return false;
	if (!IsA(node, Var))
		return expression_tree_walker(node, check_references_walker, arg);

	var = (Var *) node;
	if (var->varattno < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_COLUMN_REFERENCE),
				 errmsg("condition cannot use system column \"%s\"",
						NameStr(SystemAttributeDefinition(var->varattno)->attname)),
				 errhint("Name columns of the table."),
				 parser_errposition(context->pstate, var->location)));

	if (var->varno == VARNO_OLD)
		allowed = EVENT_UPDATED | EVENT_DELETED;
	else if (var->varno == VARNO_NEW)
		allowed = EVENT_INSERTED | EVENT_UPDATED;
	if (context->events & ~allowed)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_COLUMN_REFERENCE),
				 errmsg("condition cannot use %s with event %s",
						var->varno == VARNO_OLD ? "OLD" : "NEW",
						event_name(context->events)),
				 context->events == EVENT_CHANGED ?
				 errdetail("Not every event has both an old and a new row.") : 0,
				 context->events == EVENT_CHANGED ?
				 errhint("Use columns without OLD and NEW, or a watcher of event updated.") :
				 errhint("Columns without OLD and NEW are those of the %s row.",
						 event_name(context->events)),
				 parser_errposition(context->pstate, var->location)));
	return false;
}

/* A tree whose Vars have the numbers above. */
static Node *
read_condition(Relation relation, int events, const char *text)
{
	ParseState *pstate = make_parsestate(NULL);
	ReferencesContext context;
	Node	   *tree;

	pstate->p_sourcetext = text;
	pstate->p_post_columnref_hook = column_hook;
	pstate->p_ref_hook_state = relation;
	add_row(pstate, relation, NAME_OLD);	/* VARNO_OLD */
	add_row(pstate, relation, NAME_NEW);	/* VARNO_NEW */
	add_row(pstate, relation, NAME_THIS);	/* VARNO_THIS */
	add_row(pstate, relation, NULL);	/* VARNO_TABLE */

	tree = transformWhereClause(pstate, parse_expression(text),
								EXPR_KIND_TRIGGER_WHEN, "condition");
	assign_expr_collations(pstate, tree);
	context.pstate = pstate;
	context.events = events;
	(void) check_references_walker(tree, &context);
	free_parsestate(pstate);
	return tree;
}

/* Where OLD, NEW and THIS are found, as callers of vars_renumber() want it. */
typedef struct VarNumbers
{
	int			varno[VARNO_TABLE + 1];
	Index		varlevelsup[VARNO_TABLE + 1];
} VarNumbers;

static Node *
vars_renumber(Node *node, void *arg)
{
	const VarNumbers *numbers = arg;

	if (node == NULL)
		return NULL;
	if (IsA(node, Var))
	{
		Var		   *var = copyObject((Var *) node);
		int			row = var->varno;

		Assert(row >= VARNO_OLD && row <= VARNO_TABLE && var->varlevelsup == 0);
		var->varno = numbers->varno[row];
		var->varlevelsup = numbers->varlevelsup[row];
		var->varnosyn = 0;
		var->varattnosyn = 0;
		var->location = -1;
		return (Node *) var;
	}
	return expression_tree_mutator(node, vars_renumber, arg);
}

/* Needs fixed settings. */
static char *
write_condition(Oid relation, Node *tree)
{
	/* ruleutils knows several relations as levels of a query, one of each */
	static const VarNumbers numbers = {{0, 1, 1, 1, 1}, {0, 0, 1, 2, 2}};
	List	   *levels;

	levels = list_concat(deparse_context_for(NAME_OLD, relation),
						 list_concat(deparse_context_for(NAME_NEW, relation),
									 deparse_context_for(NAME_THIS, relation)));
	return deparse_expression(vars_renumber(tree, (void *) &numbers), levels,
							  true, false);
}

/* --- operators that the text does not qualify --- */

/*
 * Raises an error unless a name leads to the operator between expressions of
 * such types.
 */
static void
check_operator(ParseState *pstate, Oid operator, List *name,
			   Oid left, Oid right, const char *construct, int location)
{
	Operator	tuple = oper(NULL, name, left, right, true, -1);
	Oid			found = tuple != NULL ? oprid(tuple) : InvalidOid;
	Form_pg_operator form;
	char	   *qualified;

	if (tuple != NULL)
		ReleaseSysCache(tuple);
	if (found == operator)
		return;

	tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(operator));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for operator %u", operator);
	form = (Form_pg_operator) GETSTRUCT(tuple);
	qualified = psprintf("%s.%s",
						 quote_identifier(get_namespace_name(form->oprnamespace)),
						 NameStr(form->oprname));
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("condition cannot use %s with types %s and %s", construct,
					format_type_be(form->oprleft),
					format_type_be(form->oprright)),
			 errdetail("It compares by operator %s, which cannot be named there; other sessions would find another one, or none.",
					   qualified),
			 errhint("Write the operator out, as in \"a OPERATOR(%s) b\".",
					 qualified),
			 parser_errposition(pstate, location)));
}

/* ruleutils writes WHEN without the operator, and without implicit casts. */
static void
check_when(ParseState *pstate, OpExpr *when)
{
	Node	   *tested;
	Node	   *value;

	if (list_length(when->args) != 2)
		return;
	tested = strip_implicit_coercions(linitial(when->args));
	value = strip_implicit_coercions(lsecond(when->args));
	if (IsA(tested, CaseTestExpr))
		check_operator(pstate, when->opno,
					   list_make1(makeString(get_opname(when->opno))),
					   exprType(tested), exprType(value),
					   "CASE x WHEN y", exprLocation((Node *) when));
}

/* It writes the operator of the first columns for all of them. */
static void
check_row_compare(ParseState *pstate, RowCompareExpr *row)
{
	Oid			first = linitial_oid(row->opnos);
	List	   *name = list_make1(makeString(get_opname(first)));
	Operator	tuple = oper(NULL, name, exprType(linitial(row->largs)),
							 exprType(linitial(row->rargs)), true, -1);

	/* qualified where it has to be */
	if (tuple == NULL || oprid(tuple) != first)
	{
		HeapTuple	own = SearchSysCache1(OPEROID, ObjectIdGetDatum(first));
		Oid			schema;

		if (!HeapTupleIsValid(own))
			elog(ERROR, "cache lookup failed for operator %u", first);
		schema = ((Form_pg_operator) GETSTRUCT(own))->oprnamespace;
		ReleaseSysCache(own);
		name = lcons(makeString(get_namespace_name(schema)), name);
	}
	if (tuple != NULL)
		ReleaseSysCache(tuple);

	for (int i = 1; i < list_length(row->opnos); i++)
		check_operator(pstate, list_nth_oid(row->opnos, i), name,
					   exprType(list_nth(row->largs, i)),
					   exprType(list_nth(row->rargs, i)),
					   "a comparison of rows", exprLocation((Node *) row));
}

static bool
check_operators_walker(Node *node, void *arg)
{
	ParseState *pstate = arg;

	if (node == NULL)
		return false;
	if (IsA(node, DistinctExpr) || IsA(node, NullIfExpr))
	{
		OpExpr	   *expr = (OpExpr *) node; /* the same struct */

		check_operator(pstate, expr->opno,
					   list_make1(makeString(get_opname(expr->opno))),
					   exprType(linitial(expr->args)),
					   exprType(lsecond(expr->args)),
					   IsA(node, NullIfExpr) ? "NULLIF" : "IS DISTINCT FROM",
					   exprLocation(node));
	}
	else if (IsA(node, CaseExpr) && ((CaseExpr *) node)->arg != NULL)
	{
		ListCell   *lc;

		foreach(lc, ((CaseExpr *) node)->args)
		{
			Node	   *when = (Node *) lfirst_node(CaseWhen, lc)->expr;

			if (IsA(when, OpExpr))
				check_when(pstate, (OpExpr *) when);
		}
	}
	else if (IsA(node, RowCompareExpr))
		check_row_compare(pstate, (RowCompareExpr *) node);
	return expression_tree_walker(node, check_operators_walker, arg);
}

/* Needs the settings under which the text will be read. */
static void
check_operators(Node *tree, const char *condition)
{
	ParseState *pstate = make_parsestate(NULL);

	pstate->p_sourcetext = condition;
	(void) check_operators_walker(tree, pstate);
	free_parsestate(pstate);
}

/* --- what the meaning rests on --- */

/* The caller's settings, and the schemas in which names are found. */
static char *
basis_settings(void)
{
	StringInfoData out;
	List	   *path = fetch_search_path(true);
	ListCell   *lc;

	initStringInfo(&out);
	for (int i = 0; i < (int) lengthof(settings); i++)
		appendStringInfo(&out, "%s = %s; ", settings[i][0],
						 GetConfigOption(settings[i][0], false, false));
	appendStringInfoString(&out, "search_path =");
	foreach(lc, path)
	{
		char	   *name = get_namespace_name(lfirst_oid(lc));

		if (name != NULL)
			appendStringInfo(&out, " %s", quote_identifier(name));
	}
	list_free(path);
	return out.data;
}

/* A column's type; NULL if there is no such column. */
static char *
basis_type(Oid relation, const char *column)
{
	HeapTuple	tuple = SearchSysCacheAttName(relation, column);
	Form_pg_attribute att;
	char	   *type;

	if (!HeapTupleIsValid(tuple))
		return NULL;
	att = (Form_pg_attribute) GETSTRUCT(tuple);
	type = format_type_extended(att->atttypid, att->atttypmod,
								FORMAT_TYPE_TYPEMOD_GIVEN |
								FORMAT_TYPE_FORCE_QUALIFY);
	ReleaseSysCache(tuple);
	return type;
}

typedef struct BasisContext
{
	Relation	relation;
	Bitmapset  *columns;
	List	   *basis;
} BasisContext;

static bool
basis_walker(Node *node, void *arg)
{
	BasisContext *context = arg;
	Var		   *var = (Var *) node;
	char	   *column;

	if (node == NULL)
		return false;
	if (!IsA(node, Var))
		return expression_tree_walker(node, basis_walker, arg);
	if (var->varattno == InvalidAttrNumber ||
		bms_is_member(var->varattno, context->columns))
		return false;
	context->columns = bms_add_member(context->columns, var->varattno);
	column = pstrdup(NameStr(TupleDescAttr(RelationGetDescr(context->relation),
										   var->varattno - 1)->attname));
	context->basis = lappend(context->basis, column);
	context->basis = lappend(context->basis,
							 basis_type(RelationGetRelid(context->relation),
										column));
	return false;
}

/* Settings first, then name and type of each column. */
static List *
basis_make(Relation relation, Node *tree)
{
	BasisContext context = {relation, NULL, list_make1(basis_settings())};

	(void) basis_walker(tree, &context);
	return context.basis;
}

bool
condition_basis_holds(Oid relation, List *basis)
{
	if (basis == NIL || strcmp(linitial(basis), basis_settings()) != 0)
		return false;
	for (int i = 1; i + 1 < list_length(basis); i += 2)
	{
		char	   *type = basis_type(relation, list_nth(basis, i));

		if (type == NULL || strcmp(type, list_nth(basis, i + 1)) != 0)
			return false;
	}
	return true;
}

/* --- checking --- */

/* Positions in errors are those in the condition, not in the query. */
static void
error_callback(void *arg)
{
	const char *text = *(const char **) arg;
	int			position = geterrposition();

	if (position > 0)
	{
		errposition(0);
		internalerrposition(position);
		internalerrquery(text);
	}
	else
		errcontext("condition \"%s\"", text);
}

char *
condition_check(Oid relation_oid, int events, const char *condition,
				List **basis)
{
	const char *reading = condition;
	ErrorContextCallback callback;
	Relation	relation;
	Node	   *tree;
	char	   *text;
	int			nest;

	if (events == EVENT_TRUNCATED)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("condition cannot be used with event truncated"),
				 errdetail("A TRUNCATE has no row for which it could hold."),
				 errhint("Leave it out, or use event changed.")));

	relation = try_table_open(relation_oid, AccessShareLock);
	if (relation == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", relation_oid),
				 errhint("It may have been dropped just now.")));

	callback.callback = error_callback;
	callback.arg = (void *) &reading;
	callback.previous = error_context_stack;
	error_context_stack = &callback;

	tree = read_condition(relation, events, condition);
	*basis = basis_make(relation, tree);
	nest = settings_fix();
	check_operators(tree, condition);
	text = write_condition(relation_oid, tree);
	for (int i = 0; i < MAX_ROUNDS; i++)
	{
		reading = text;
		tree = read_condition(relation, events, text);
		text = write_condition(relation_oid, tree);
		if (strcmp(text, reading) == 0)
			break;
	}
	settings_restore(nest);

	error_context_stack = callback.previous;
	table_close(relation, AccessShareLock);
	return text;
}

/* --- reading what is kept --- */

Node *
condition_read(Relation relation, Oid origin, int event, const char *text)
{
	/* as an ExprContext has them: THIS is what is scanned */
	static const VarNumbers numbers = {{0, INNER_VAR, OUTER_VAR, 1, 1}, {0}};
	MemoryContext work = AllocSetContextCreate(CurrentMemoryContext,
											   "ectowatch condition work",
											   ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(work);
	Oid			user;
	int			security;
	int			nest;
	Node	   *tree;

	GetUserIdAndSecContext(&user, &security);
	SetUserIdAndSecContext(rights_owner(origin),
						   security | SECURITY_RESTRICTED_OPERATION);
	nest = settings_fix();
	tree = read_condition(relation, event, text);
	settings_restore(nest);
	SetUserIdAndSecContext(user, security);

	tree = vars_renumber(tree, (void *) &numbers);
	MemoryContextSwitchTo(old);
	tree = copyObject(tree);
	MemoryContextDelete(work);
	return tree;
}
