/*-------------------------------------------------------------------------
 *
 * options.c
 *	  What can be asked of a watcher: reading it, comparing it.
 *
 * ectowatch_watch() and ectowatch_alter() take options as arguments,
 * ectowatch_declare() as members of JSON objects.  The table below says what
 * there is, for all of them: its order is that of the arguments.
 *
 * An option that is empty ('' or '{}', 0, false) is none; one that is NULL
 * is not given, which is the same where a watcher is created, and leaves the
 * option as it is where one is altered.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "ectowatch.h"
#include "options.h"

/* The longest interval of throttle, which keeps it in 32 bits. */
#define THROTTLE_MAX_MS		(24 * 60 * 60 * 1000)

#define hint_events \
	errhint("Events are inserted, updated, deleted, truncated and changed.")

typedef enum OptionType
{
	OPTION_TEXT,
	OPTION_COLUMNS,
	OPTION_MAP,
	OPTION_BOOL,
	OPTION_INT,
	OPTION_INTERVAL
} OptionType;

typedef struct Option
{
	const char *name;
	OptionType	type;
	const char *example;		/* of its form in JSON */
	void		(*set) (WatcherDef *def, const char *name, Datum value);
} Option;

/* --- setting one --- */

/* A list of column names. */
static List *
columns_value(Datum value, const char *option)
{
	ArrayType  *array = DatumGetArrayTypeP(value);
	Datum	   *elements;
	bool	   *nulls;
	int			nelements;
	List	   *names = NIL;

	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be a one-dimensional array", option),
				 errhint("Write it as '{one,two}'.")));
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT,
					  &elements, &nulls, &nelements);
	if (nelements > MaxHeapAttributeNumber)
		ereport(ERROR,
				(errcode(ERRCODE_TOO_MANY_COLUMNS),
				 errmsg("%s names too many columns", option),
				 errdetail("It names %d; a table has at most %d.",
						   nelements, MaxHeapAttributeNumber),
				 errhint("Name each column once, or all of them by '{*}'.")));
	for (int i = 0; i < nelements; i++)
	{
		char	   *name;
		ListCell   *lc;

		CHECK_FOR_INTERRUPTS();
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("%s must not contain nulls", option),
					 errhint("Name columns of the table.")));
		name = TextDatumGetCString(elements[i]);
		foreach(lc, names)
		{
			if (strcmp(lfirst(lc), name) == 0)
				ereport(ERROR,
						(errcode(ERRCODE_DUPLICATE_COLUMN),
						 errmsg("column \"%s\" appears twice in %s",
								name, option),
						 errhint("Name each column once.")));
		}
		names = lappend(names, name);
	}
	return names;
}

static void
set_label(WatcherDef *def, const char *name pg_attribute_unused(), Datum value)
{
	def->label = TextDatumGetCString(value);
}

static void
set_trigger_columns(WatcherDef *def, const char *name, Datum value)
{
	def->trigger_columns = columns_value(value, name);
	def->given |= GIVEN_TRIGGER_COLUMNS;
}

static void
set_extra_columns(WatcherDef *def, const char *name, Datum value)
{
	def->extra_columns = columns_value(value, name);
	def->given |= GIVEN_EXTRA_COLUMNS;
}

static void
set_condition(WatcherDef *def, const char *name pg_attribute_unused(), Datum value)
{
	char	   *condition = TextDatumGetCString(value);

	def->condition = NULL;
	def->condition_given = condition[0] != '\0' ? condition : NULL;
	def->condition_basis = NIL;
	def->given |= GIVEN_CONDITION;
}

static void
set_key_columns(WatcherDef *def, const char *name, Datum value)
{
	def->key_columns = columns_value(value, name);
	def->key_given = def->key_columns != NIL;
	def->given |= GIVEN_KEY_COLUMNS;
}

static void
set_column_map(WatcherDef *def, const char *name, Datum value)
{
	Jsonb	   *map = DatumGetJsonbP(value);
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	item;
	ColumnName *pair = NULL;

	if (!JB_ROOT_IS_OBJECT(map))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be a JSON object", name),
				 errhint("Write it as '{\"column\": \"name\"}'.")));
	def->column_map = NIL;
	def->given |= GIVEN_COLUMN_MAP;
	iterator = JsonbIteratorInit(&map->root);
	while ((token = JsonbIteratorNext(&iterator, &item, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
		{
			pair = palloc(sizeof(ColumnName));
			pair->column = pnstrdup(item.val.string.val, item.val.string.len);
		}
		else if (token == WJB_VALUE)
		{
			if (item.type != jbvString || item.val.string.len == 0)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("%s gives column \"%s\" no name",
								name, pair->column),
						 errdetail("Names are strings, and not empty."),
						 errhint("Write it as '{\"column\": \"name\"}'.")));
			pair->name = pnstrdup(item.val.string.val, item.val.string.len);
			def->column_map = lappend(def->column_map, pair);
		}
	}
}

static void
set_old_values(WatcherDef *def, const char *name pg_attribute_unused(), Datum value)
{
	def->old_values = DatumGetBool(value);
}

static void
set_delivery(WatcherDef *def, const char *name, Datum value)
{
	char	   *delivery = TextDatumGetCString(value);

	if (!registry_delivery(delivery, &def->delivery))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unrecognized %s: \"%s\"", name, delivery),
				 errhint("It is one of each, packed, doorbell and none.")));
}

static void
set_bulk_threshold(WatcherDef *def, const char *name, Datum value)
{
	def->bulk_threshold = DatumGetInt32(value);
	if (def->bulk_threshold < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be negative", name),
				 errhint("Use 0 for none.")));
}

static void
set_throttle(WatcherDef *def, const char *name, Datum value)
{
	Interval   *interval = DatumGetIntervalP(value);
	int64		days = interval->day + (int64) interval->month * DAYS_PER_MONTH;

	if (interval->time < 0 || days < 0 || days > 1 ||
		interval->time > THROTTLE_MAX_MS * INT64CONST(1000) ||
		interval->time + days * USECS_PER_DAY > THROTTLE_MAX_MS * INT64CONST(1000))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be between 0 and 1 day", name),
				 errhint("Use 0 for none.")));
	def->throttle = (uint32) ((interval->time + days * USECS_PER_DAY + 999) / 1000);
}

static void
set_envelope(WatcherDef *def, const char *name pg_attribute_unused(), Datum value)
{
	def->envelope = DatumGetBool(value);
}

static void
set_replicated(WatcherDef *def, const char *name pg_attribute_unused(), Datum value)
{
	def->replicated = DatumGetBool(value);
}

static void
set_debug(WatcherDef *def, const char *name pg_attribute_unused(), Datum value)
{
	def->debug = DatumGetBool(value);
}

static const Option options[] = {
	{"label", OPTION_TEXT, "\"name\"", set_label},
	{"trigger_columns", OPTION_COLUMNS, "[\"column\"]", set_trigger_columns},
	{"extra_columns", OPTION_COLUMNS, "[\"column\"]", set_extra_columns},
	{"condition", OPTION_TEXT, "\"role_id > 1\"", set_condition},
	{"key_columns", OPTION_COLUMNS, "[\"column\"]", set_key_columns},
	{"column_map", OPTION_MAP, "{\"column\": \"name\"}", set_column_map},
	{"old_values", OPTION_BOOL, "true", set_old_values},
	{"delivery", OPTION_TEXT, "\"packed\"", set_delivery},
	{"bulk_threshold", OPTION_INT, "1000", set_bulk_threshold},
	{"throttle", OPTION_INTERVAL, "\"1 second\"", set_throttle},
	{"envelope", OPTION_BOOL, "true", set_envelope},
	{"replicated", OPTION_BOOL, "true", set_replicated},
	{"debug", OPTION_BOOL, "true", set_debug}
};

#define NOPTIONS	((int) lengthof(options))

/* --- reading them --- */

void
options_set_event(WatcherDef *def, const char *event)
{
	def->event = pstrdup(event);
	def->events = registry_event(event);
	if (def->events == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unrecognized event: \"%s\"", event),
				 hint_events));
}

void
options_from_arguments(WatcherDef *def, FunctionCallInfo fcinfo,
					   int first_argument, bool with_label)
{
	int			n = first_argument;

	/* a new watcher is to have no more than what is given */
	if (with_label)
		def->given = GIVEN_ALL;
	for (int i = with_label ? 0 : 1; i < NOPTIONS; i++, n++)
	{
		if (!PG_ARGISNULL(n))
			options[i].set(def, options[i].name, PG_GETARG_DATUM(n));
	}
}

/* A value of JSON as the type that an option has as an argument. */
static bool
option_from_json(const Option *option, JsonbValue *item, Datum *value)
{
	char	   *string = NULL;

	if (item->type == jbvString)
		string = pnstrdup(item->val.string.val, item->val.string.len);
	switch (option->type)
	{
		case OPTION_TEXT:
			if (string == NULL)
				return false;
			*value = CStringGetTextDatum(string);
			return true;
		case OPTION_INTERVAL:
			if (string == NULL)
				return false;
			*value = DirectFunctionCall3(interval_in, CStringGetDatum(string),
										 ObjectIdGetDatum(InvalidOid),
										 Int32GetDatum(-1));
			return true;
		case OPTION_BOOL:
			if (item->type != jbvBool)
				return false;
			*value = BoolGetDatum(item->val.boolean);
			return true;
		case OPTION_INT:
			if (item->type != jbvNumeric)
				return false;
			*value = DirectFunctionCall1(numeric_int4,
										 NumericGetDatum(item->val.numeric));
			return true;
		case OPTION_MAP:
			if (item->type != jbvBinary)
				return false;
			*value = JsonbPGetDatum(JsonbValueToJsonb(item));
			return JB_ROOT_IS_OBJECT(DatumGetJsonbP(*value));
		case OPTION_COLUMNS:
			{
				ArrayBuildState *array = initArrayResult(TEXTOID, CurrentMemoryContext, false);
				JsonbIterator *iterator;
				JsonbIteratorToken token;
				JsonbValue	element;

				if (item->type != jbvBinary ||
					!JsonContainerIsArray(item->val.binary.data))
					return false;
				iterator = JsonbIteratorInit(item->val.binary.data);
				while ((token = JsonbIteratorNext(&iterator, &element, true)) != WJB_DONE)
				{
					if (token != WJB_ELEM)
						continue;
					if (element.type != jbvString)
						return false;
					array = accumArrayResult(array,
											 PointerGetDatum(cstring_to_text_with_len(element.val.string.val,
																					  element.val.string.len)),
											 false, TEXTOID, CurrentMemoryContext);
				}
				*value = makeArrayResult(array, CurrentMemoryContext);
				return true;
			}
	}
	return false;				/* keep the compiler quiet */
}

/* "a, b and c" would be nicer, but one has to find one's own in it. */
static char *
option_names(void)
{
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < NOPTIONS; i++)
		appendStringInfo(&names, ", %s", options[i].name);
	return names.data;
}

static void
option_from_member(WatcherDef *def, const char *key, JsonbValue *item)
{
	for (int i = 0; i < NOPTIONS; i++)
	{
		Datum		value;

		if (strcmp(options[i].name, key) != 0)
			continue;
		if (item->type == jbvNull)
			return;
		if (!option_from_json(&options[i], item, &value))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("%s has the wrong type", key),
					 errhint("Write it as \"%s\": %s.", key, options[i].example)));
		options[i].set(def, key, value);
		return;
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unrecognized option: \"%s\"", key),
			 errdetail("A definition can have relation, event%s.", option_names()),
			 errhint("Correct the name, or leave it out.")));
}

void
options_from_json(WatcherDef *def, JsonbContainer *object)
{
	JsonbIterator *iterator = JsonbIteratorInit(object);
	JsonbIteratorToken token;
	JsonbValue	item;
	char	   *key = NULL;

	def->given = GIVEN_ALL;
	while ((token = JsonbIteratorNext(&iterator, &item, true)) != WJB_DONE)
	{
		char	   *string = NULL;

		if (token == WJB_KEY)
			key = pnstrdup(item.val.string.val, item.val.string.len);
		if (token != WJB_VALUE)
			continue;
		if (item.type == jbvString)
			string = pnstrdup(item.val.string.val, item.val.string.len);
		if (strcmp(key, "relation") == 0 && string != NULL)
			def->relation = DatumGetObjectId(DirectFunctionCall1(regclassin,
																 CStringGetDatum(string)));
		else if (strcmp(key, "event") == 0 && string != NULL)
			options_set_event(def, string);
		else if (strcmp(key, "relation") == 0 || strcmp(key, "event") == 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("%s must be a string", key),
					 errhint("Write it as {\"relation\": \"users\", \"event\": \"updated\"}.")));
		else
			option_from_member(def, key, &item);
	}
	if (!OidIsValid(def->relation) || def->event == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a definition needs a relation and an event"),
				 errhint("Write it as {\"relation\": \"users\", \"event\": \"updated\"}.")));
}

/* --- comparing --- */

static bool
same_text(const char *a, const char *b)
{
	return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

static bool
same_names(List *a, List *b)
{
	ListCell   *la;
	ListCell   *lb;

	if (list_length(a) != list_length(b))
		return false;
	forboth(la, a, lb, b)
	{
		if (strcmp(lfirst(la), lfirst(lb)) != 0)
			return false;
	}
	return true;
}

static bool
same_map(List *a, List *b)
{
	ListCell   *la;
	ListCell   *lb;

	if (list_length(a) != list_length(b))
		return false;
	forboth(la, a, lb, b)
	{
		if (strcmp(((ColumnName *) lfirst(la))->column,
				   ((ColumnName *) lfirst(lb))->column) != 0 ||
			strcmp(((ColumnName *) lfirst(la))->name,
				   ((ColumnName *) lfirst(lb))->name) != 0)
			return false;
	}
	return true;
}

bool
options_same(const WatcherDef *a, const WatcherDef *b)
{
	return same_names(a->trigger_columns, b->trigger_columns) &&
		same_names(a->extra_columns, b->extra_columns) &&
		same_text(a->condition, b->condition) &&
		same_names(a->key_columns, b->key_columns) &&
		a->key_given == b->key_given &&
		same_map(a->column_map, b->column_map) &&
		a->old_values == b->old_values &&
		a->delivery == b->delivery &&
		a->bulk_threshold == b->bulk_threshold &&
		a->throttle == b->throttle &&
		a->envelope == b->envelope &&
		a->replicated == b->replicated &&
		a->debug == b->debug;
}

bool
options_same_identity(const WatcherDef *a, const WatcherDef *b)
{
	return a->relation == b->relation && strcmp(a->event, b->event) == 0 &&
		same_text(a->label, b->label);
}

WatcherDef *
options_find_identity(const WatcherDef *wanted)
{
	ListCell   *lc;

	foreach(lc, watcher_list(wanted->relation))
	{
		if (options_same_identity(lfirst(lc), wanted))
			return lfirst(lc);
	}
	return NULL;
}
