/*-------------------------------------------------------------------------
 *
 * subscribe.c
 *	  Functions that name channels, and subscribe to them.
 *
 * A narrowed channel has its value in its name, so a subscriber has to write
 * it as the worker will.  What he gives, of whatever type, becomes text by its
 * own output function, then a value of the column's type by that one's input
 * function, and then JSON as in messages.  So '007' for an integer is 7, and
 * a timestamp is in UTC.  Its domain's conditions and its length apply: what
 * could not be in the column is an error.  The table is not locked.
 *
 * The code of the column's type (constraints of domains, casts to json) is not
 * the caller's, who has not chosen it, but of him who has made the table.
 * Where the caller has the rights of the table's owner, above all as a
 * superuser, it runs with those of the owner, as a restricted operation: no
 * more than it could do anyway.  It is not run as an owner whose rights the
 * caller lacks: its names are looked up in the session, so that the caller
 * could put his own functions in their place.  There it has the caller's
 * rights, as in any query.  What the caller gives is made text before, with
 * his rights.
 *
 * ectowatch_subscribe() executes LISTEN, and so is subject to all that core
 * has against that (in a standby, in a background process, in a prepared
 * transaction), and listen.c follows it as it follows any LISTEN.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_type.h"
#include "common/jsonapi.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/syscache.h"

#include "channel.h"
#include "ectowatch.h"
#include "message.h"
#include "rights.h"
#include "slot.h"
#include "watcher.h"

PG_FUNCTION_INFO_V1(ectowatch_channel);
PG_FUNCTION_INFO_V1(ectowatch_subscribe);
PG_FUNCTION_INFO_V1(ectowatch_unsubscribe);

/* --- values --- */

/* A value of any type as text that its column's input function takes. */
static char *
value_as_text(Datum value, Oid type)
{
	Oid			output;
	bool		is_varlena;
	int			level;
	char	   *result;

	if (type == TEXTOID)
		return TextDatumGetCString(value);

	/* with all digits, and dates that mean the same in all styles */
	level = NewGUCNestLevel();
	(void) set_config_option("datestyle", "ISO", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	(void) set_config_option("intervalstyle", "postgres",
							 PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	(void) set_config_option("extra_float_digits", "3",
							 PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	getTypeOutputInfo(type, &output, &is_varlena);
	result = OidOutputFunctionCall(output, value);
	AtEOXact_GUC(true, level);
	return result;
}

/* Makes a column of a descriptor for the values that a subscriber gives. */
static void
describe_member(TupleDesc desc, int n, const WatcherDef *def,
				const WatcherMember *member)
{
	HeapTuple	tuple = SearchSysCacheAttNum(def->relation, member->attnum);
	Form_pg_attribute att;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" has just been dropped", member->column)));
	att = (Form_pg_attribute) GETSTRUCT(tuple);
	TupleDescInitEntry(desc, n, NameStr(att->attname), att->atttypid,
					   att->atttypmod, att->attndims);
	ReleaseSysCache(tuple);
}

/* Whether a value is one of the column as it is. */
static bool
is_column_value(Form_pg_attribute att, Oid type)
{
	/* without a length that it would have to be brought to */
	return type == att->atttypid && att->atttypmod == -1;
}

/* What a subscriber gives, as a value of the column. */
static Datum
column_value(Form_pg_attribute att, char *text)
{
	Oid			input;
	Oid			param;

	getTypeInputInfo(att->atttypid, &input, &param);
	return OidInputFunctionCall(input, text, param, att->atttypmod);
}

/* The JSON object of some members, as in messages. */
static StringInfo
render_members(const WatcherDef *def, List *members, Datum *values, Oid type)
{
	StringInfo	out = makeStringInfo();
	int			n = list_length(members);
	TupleDesc	desc = CreateTemplateTupleDesc(n);
	MessageColumn *columns = palloc0(n * sizeof(MessageColumn));
	char	  **texts = palloc0(n * sizeof(char *));
	TupleTableSlot *row;
	uint32		keys_len;
	Oid			owner = rights_owner(def->relation);
	Oid			user;
	int			security;
	int			level;
	bool		complete;

	for (int i = 0; i < n; i++)
	{
		describe_member(desc, i + 1, def, list_nth(members, i));
		if (!is_column_value(TupleDescAttr(desc, i), type))
			texts[i] = value_as_text(values[i], type);
	}

	/* an error gives the user back as well */
	GetUserIdAndSecContext(&user, &security);
	if (owner != user && has_privs_of_role(user, owner))
		SetUserIdAndSecContext(owner, security | SECURITY_RESTRICTED_OPERATION);
	level = NewGUCNestLevel();
	row = MakeSingleTupleTableSlot(desc, &TTSOpsVirtual);
	for (int i = 0; i < n; i++)
	{
		const WatcherMember *member = list_nth(members, i);

		message_column_init(&columns[i], desc, i + 1, member->name);
		row->tts_values[i] = texts[i] == NULL ? values[i] :
			column_value(TupleDescAttr(desc, i), texts[i]);
		row->tts_isnull[i] = false;
	}
	ExecStoreVirtualTuple(row);
	complete = message_append_values(out, row, columns, n, true, NULL,
										 n, &keys_len);
	AtEOXact_GUC(false, level);
	SetUserIdAndSecContext(user, security);

	if (!complete)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("value has no channel of watcher \"%s\"", def->name),
				 errdetail("It is too long, or cannot be rendered, and so is left out of messages.")));
	ExecDropSingleTupleTableSlot(row);
	return out;
}

/* --- errors --- */

static void pg_attribute_noreturn()
error_null(const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
			 errmsg("%s must not be null", what),
			 errhint("There is no channel for null; give a value, or leave the argument out to hear of all rows.")));
}

static char *
member_names(List *members, int n)
{
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < n; i++)
		appendStringInfo(&names, "%s%s", i > 0 ? ", " : "",
						 ((WatcherMember *) list_nth(members, i))->name);
	return names.data;
}

static void
require_columns(const WatcherDef *def, List *members)
{
	if (def->events == EVENT_TRUNCATED)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("watcher \"%s\" has no narrowed channels", def->name),
				 errdetail("It is one of truncated, which delivers no columns."),
				 errhint("Leave out the key, or column and value, to hear of it.")));
	if (members == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("watcher \"%s\" delivers no columns any longer", def->name),
				 errdetail("The columns that it names, or the table, have been dropped."),
				 errhint("Call ectowatch_watch() again with the columns that there are.")));
}

static void
refuse_key_of_inserted(const WatcherDef *def)
{
	if (def->events == EVENT_INSERTED)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the key of watcher \"%s\" has no channel", def->name),
				 errdetail("It is one of inserted, and nobody knows the key of a row before that is inserted."),
				 errhint("Subscribe to the watcher without a key, or to a value of another column.")));
}

static const WatcherMember *
find_member(const WatcherDef *def, List *members, const char *column)
{
	const WatcherMember *mapped = NULL;
	ListCell   *lc;

	foreach(lc, members)
	{
		const WatcherMember *member = lfirst(lc);

		if (strcmp(member->name, column) == 0)
			return member;
		if (strcmp(member->column, column) == 0)
			mapped = member;
	}
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_COLUMN),
			 errmsg("watcher \"%s\" delivers no column \"%s\"",
					def->name, column),
			 errdetail("It delivers: %s.",
					   member_names(members, list_length(members))),
			 mapped ?
			 errhint("In its messages that column is called \"%s\".", mapped->name) :
			 errhint("Add the column to the watcher's extra_columns.")));
	return NULL;				/* keep the compiler quiet */
}

/* --- names of channels --- */

static WatcherDef *
require_watcher(const char *name)
{
	WatcherDef *def = watcher_find(name);

	if (def == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("watcher \"%s\" does not exist", name),
				 errhint("View ectowatch_watchers shows those that do.")));
	return def;
}

/* The channel of one column. */
static void
channel_of_member(char *channel, const WatcherDef *def,
				  const WatcherMember *member, Datum value, Oid type)
{
	StringInfo	object = render_members(def,
										list_make1(unconstify(WatcherMember *, member)),
										&value, type);
	StringInfoData label;
	StringInfoData content;

	/* the value is what is left of {"name":value} */
	initStringInfo(&label);
	escape_json(&label, member->name);
	initStringInfo(&content);
	if (!channel_value(&content, object->data + label.len + 2,
					   object->len - label.len - 3))
		error_null("value");
	(void) channel_narrowed(channel, def->name,
							member->name, strlen(member->name),
							content.data, content.len, true);
}

/* The members of a key of several columns, as texts. */
static Datum *
key_values(const WatcherDef *def, List *members, int nkeys, char *key)
{
	Datum	   *values = palloc(nkeys * sizeof(Datum));
	Jsonb	   *object = NULL;
	JsonLexContext *lex;
	bool		fits;

	lex = makeJsonLexContextCstringLen(key, strlen(key), GetDatabaseEncoding(),
									   false);
	if (pg_parse_json(lex, &nullSemAction) == JSON_SUCCESS)
		object = DatumGetJsonbP(DirectFunctionCall1(jsonb_in,
													CStringGetDatum(key)));
	fits = object != NULL && JB_ROOT_IS_OBJECT(object) &&
		JB_ROOT_COUNT(object) == (uint32) nkeys;
	for (int i = 0; fits && i < nkeys; i++)
	{
		const char *name = ((WatcherMember *) list_nth(members, i))->name;
		JsonbValue *value = getKeyJsonValueFromContainer(&object->root, name,
														 strlen(name), NULL);
		char	   *string = NULL;

		if (value == NULL)
		{
			fits = false;
			break;
		}
		switch (value->type)
		{
			case jbvNull:
				error_null("a member of the key");
				break;
			case jbvString:
				string = pnstrdup(value->val.string.val, value->val.string.len);
				break;
			case jbvNumeric:
				string = DatumGetCString(DirectFunctionCall1(numeric_out,
															 NumericGetDatum(value->val.numeric)));
				break;
			case jbvBool:
				string = pstrdup(value->val.boolean ? "true" : "false");
				break;
			case jbvBinary:
				string = JsonbToCString(NULL, value->val.binary.data,
										value->val.binary.len);
				break;
			default:
				elog(ERROR, "unexpected type of JSON value");
		}
		values[i] = CStringGetTextDatum(string);
	}
	if (!fits)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid key of watcher \"%s\"", def->name),
				 errdetail("Its key has several columns: %s.",
						   member_names(members, nkeys)),
				 errhint("Give a JSON object with exactly these members, as in the values of a message.")));
	return values;
}

static void
channel_of_key(char *channel, const WatcherDef *def, Datum key, Oid type)
{
	int			nkeys;
	List	   *members = watcher_members(def, &nkeys);
	List	   *key_members;
	StringInfoData column;
	StringInfo	object;

	require_columns(def, members);
	refuse_key_of_inserted(def);
	if (nkeys < list_length(def->key_columns))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("the key of watcher \"%s\" is no longer whole", def->name),
				 errdetail("A column of it has been dropped."),
				 errhint("Call ectowatch_watch() again with the columns that there are.")));
	if (nkeys == 1)
	{
		channel_of_member(channel, def, linitial(members), key, type);
		return;
	}

	key_members = list_truncate(list_copy(members), nkeys);
	object = render_members(def, key_members,
							key_values(def, members, nkeys,
									   value_as_text(key, type)), TEXTOID);
	initStringInfo(&column);
	for (int i = 0; i < nkeys; i++)
		appendStringInfo(&column, "%s%s", i > 0 ? "," : "",
						 ((WatcherMember *) list_nth(members, i))->name);
	(void) channel_narrowed(channel, def->name, column.data, column.len,
							object->data, object->len, true);
}

static void
channel_of_column(char *channel, const WatcherDef *def, const char *column,
				  Datum value, Oid type)
{
	int			nkeys;
	List	   *members = watcher_members(def, &nkeys);
	const WatcherMember *member;

	require_columns(def, members);
	member = find_member(def, members, column);
	if (nkeys == 1 && member == linitial(members))
		refuse_key_of_inserted(def);
	channel_of_member(channel, def, member, value, type);
}

/*
 * The channel that the arguments of a function name: (watcher), (watcher, key)
 * or (watcher, column_name, value).  That of a whole watcher needs none if it
 * is to be left.
 */
static char *
channel_of_arguments(FunctionCallInfo fcinfo, bool to_leave)
{
	char	   *channel = palloc(NAMEDATALEN);
	char	   *name;
	int			last = PG_NARGS() - 1;
	WatcherDef *def;
	Oid			type;

	ectowatch_require_preload();
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("watcher must not be null")));
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	if (last == 0 && to_leave)
		return name;
	def = require_watcher(name);
	if (last == 0)
		return name;

	if (PG_ARGISNULL(last))
		error_null(last == 1 ? "key" : "value");
	type = get_fn_expr_argtype(fcinfo->flinfo, last);
	if (!OidIsValid(type))
		elog(ERROR, "could not determine the type of a value");
	if (last == 1)
		channel_of_key(channel, def, PG_GETARG_DATUM(1), type);
	else
	{
		if (PG_ARGISNULL(1))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("column_name must not be null")));
		channel_of_column(channel, def, text_to_cstring(PG_GETARG_TEXT_PP(1)),
						  PG_GETARG_DATUM(2), type);
	}
	return channel;
}

Datum
ectowatch_channel(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(channel_of_arguments(fcinfo, false)));
}

static void
execute_listen(const char *command, const char *channel)
{
	StringInfoData sql;
	int			result;

	initStringInfo(&sql);
	appendStringInfo(&sql, "%s %s", command, quote_identifier(channel));
	SPI_connect();
	result = SPI_execute(sql.data, false, 0);
	if (result != SPI_OK_UTILITY)
		elog(ERROR, "%s failed: %s", command, SPI_result_code_string(result));
	SPI_finish();
}

Datum
ectowatch_subscribe(PG_FUNCTION_ARGS)
{
	char	   *channel = channel_of_arguments(fcinfo, false);

	if (slot_attach() == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many databases use ectowatch"),
				 errdetail("%d others do already.", ectowatch_max_databases),
				 errhint("Increase ectowatch.max_databases and restart the server.")));
	execute_listen("LISTEN", channel);
	PG_RETURN_TEXT_P(cstring_to_text(channel));
}

Datum
ectowatch_unsubscribe(PG_FUNCTION_ARGS)
{
	char	   *channel = channel_of_arguments(fcinfo, true);

	execute_listen("UNLISTEN", channel);
	PG_RETURN_TEXT_P(cstring_to_text(channel));
}
