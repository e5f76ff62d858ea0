/*-------------------------------------------------------------------------
 *
 * message.c
 *	  JSON of a change: its values, and the message for a channel.
 *
 * Values render as to_json() renders them, under fixed settings, so that
 * equal values give equal text in every session (but for type money inside
 * composite types, where a user's function may run that changes lc_monetary).
 * The commonest types are written here, all others by to_json() itself.
 *
 * to_json() calls the type's output function, or its cast to json.  Of core's
 * base types they do not fail.  Any other type's may: they run in a
 * subtransaction of their own, and where they throw, the change becomes partial
 * and the user's write goes on.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>

#include "access/detoast.h"
#include "access/htup_details.h"
#include "access/transam.h"
#include "access/tupmacs.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "commands/async.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "parser/parse_coerce.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/bytea.h"
#include "utils/datum.h"
#include "utils/float.h"
#include "utils/fmgroids.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/pg_locale.h"
#include "utils/resowner.h"
#include "utils/typcache.h"
#include "utils/uuid.h"
#include "utils/xml.h"

#include "context.h"
#include "guard.h"
#include "message.h"

/* Settings on which output depends, and what they are while we render. */
typedef struct OutputSettings
{
	int			date_style;
	int			date_order;
	int			interval_style;
	int			bytea_output;
	int			extra_float_digits;
	int			xmlbinary;
	bool		quote_all_identifiers;
	pg_tz	   *timezone;
} OutputSettings;

static OutputSettings
output_settings_get(void)
{
	OutputSettings settings;

	settings.date_style = DateStyle;
	settings.date_order = DateOrder;
	settings.interval_style = IntervalStyle;
	settings.bytea_output = bytea_output;
	settings.extra_float_digits = extra_float_digits;
	settings.xmlbinary = xmlbinary;
	settings.quote_all_identifiers = quote_all_identifiers;
	settings.timezone = session_timezone;
	return settings;
}

static void
output_settings_set(const OutputSettings *settings)
{
	DateStyle = settings->date_style;
	DateOrder = settings->date_order;
	IntervalStyle = settings->interval_style;
	bytea_output = settings->bytea_output;
	extra_float_digits = settings->extra_float_digits;
	xmlbinary = settings->xmlbinary;
	quote_all_identifiers = settings->quote_all_identifiers;
	session_timezone = settings->timezone;
}

static const OutputSettings *
output_settings_fixed(void)
{
	static OutputSettings fixed;

	if (fixed.timezone == NULL)
	{
		fixed.date_style = USE_ISO_DATES;
		fixed.date_order = DATEORDER_YMD;
		fixed.interval_style = INTSTYLE_POSTGRES;
		fixed.bytea_output = BYTEA_OUTPUT_HEX;
		fixed.extra_float_digits = 1;
		fixed.xmlbinary = XMLBINARY_BASE64;
		fixed.quote_all_identifiers = false;
		fixed.timezone = pg_tzset("UTC");
	}
	return &fixed;
}

/*
 * A half of a change is for the values, a half for the old ones, but for what
 * the rest takes: names, context, and the numbers of up to 1600 columns.
 */
static uint32
message_max_values(void)
{
	return (change_max_size() - CONTEXT_MAX_SIZE) / 2 - 2048;
}

/* Whether to_json() would use a cast, which is somebody's function. */
static bool
has_json_cast(Oid type)
{
	Oid			function;

	return find_coercion_pathway(JSONOID, type, COERCION_EXPLICIT,
								 &function) == COERCION_PATH_FUNC;
}

static MessageKind
message_kind(Oid type)
{
	Oid			base = getBaseType(type);

	switch (base)
	{
		case INT2OID:
			return MESSAGE_INT2;
		case INT4OID:
			return MESSAGE_INT4;
		case INT8OID:
			return MESSAGE_INT8;
		case BOOLOID:
			return MESSAGE_BOOL;
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
			return MESSAGE_TEXT;
		case UUIDOID:
			return MESSAGE_UUID;
	}

	/* an array of core's base types is safe if its elements are */
	if (OidIsValid(get_element_type(base)))
		base = get_element_type(base);
	if (base < FirstNormalObjectId && get_typtype(base) == TYPTYPE_BASE)
		return MESSAGE_JSON;
	if (get_typtype(base) == TYPTYPE_ENUM && !has_json_cast(base))
		return MESSAGE_JSON;
	return MESSAGE_GUARDED;
}

/*
 * Whether a type, or one inside it, shows names, which come with a schema where
 * search_path does not lead to them.
 */
static bool
type_by_search_path(Oid type)
{
	Oid			base = getBaseType(type);
	TupleDesc	desc;
	bool		found = false;

	check_stack_depth();
	switch (base)
	{
		case REGPROCOID:
		case REGPROCEDUREOID:
		case REGOPEROID:
		case REGOPERATOROID:
		case REGCLASSOID:
		case REGCOLLATIONOID:
		case REGTYPEOID:
		case REGCONFIGOID:
		case REGDICTIONARYOID:
			return true;
	}
	if (OidIsValid(get_element_type(base)))
		return type_by_search_path(get_element_type(base));
	if (get_typtype(base) == TYPTYPE_RANGE)
		return type_by_search_path(get_range_subtype(base));
	if (get_typtype(base) == TYPTYPE_MULTIRANGE)
		return type_by_search_path(get_multirange_range(base));
	if (get_typtype(base) != TYPTYPE_COMPOSITE)
		return false;

	desc = lookup_rowtype_tupdesc(base, -1);
	for (int i = 0; i < desc->natts && !found; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		found = !att->attisdropped && type_by_search_path(att->atttypid);
	}
	ReleaseTupleDesc(desc);
	return found;
}

/* Whether it is type money, or an array of that. */
static bool
type_by_lc_monetary(Oid type)
{
	Oid			base = getBaseType(type);

	return base == MONEYOID || get_element_type(base) == MONEYOID;
}

/*
 * Where a column's value begins in each row that has no null; -1 if that
 * differs from row to row.
 */
static int
fixed_offset(TupleDesc desc, AttrNumber attnum)
{
	Form_pg_attribute att = TupleDescAttr(desc, attnum - 1);
	int			offset = 0;

	for (int i = 0; i < attnum - 1; i++)
	{
		Form_pg_attribute before = TupleDescAttr(desc, i);

		if (before->attlen < 0)
			return -1;
		offset = att_align_nominal(offset, before->attalign) + before->attlen;
	}

	/* a short varlena is not aligned */
	if (att->attlen < 0 &&
		(int) att_align_nominal(offset, att->attalign) != offset)
		return -1;
	return att_align_nominal(offset, att->attalign);
}

void
message_column_init(MessageColumn *column, TupleDesc desc, AttrNumber attnum,
					const char *name)
{
	Form_pg_attribute att = TupleDescAttr(desc, attnum - 1);
	StringInfoData label;

	initStringInfo(&label);
	escape_json(&label, name);
	appendStringInfoChar(&label, ':');

	column->attnum = attnum;
	column->offset = fixed_offset(desc, attnum);
	column->typlen = att->attlen;
	column->typbyval = att->attbyval;
	column->label = label.data;
	column->label_len = label.len;
	column->kind = message_kind(att->atttypid);
	column->by_search_path = type_by_search_path(att->atttypid);
	column->by_lc_monetary = type_by_lc_monetary(att->atttypid);
	column->foreign_json = column->kind == MESSAGE_GUARDED ||
		getBaseType(att->atttypid) == JSONOID ||
		getBaseType(att->atttypid) == JSONARRAYOID;
	if (column->kind == MESSAGE_JSON || column->kind == MESSAGE_GUARDED)
	{
		/* to_json() learns the type of its argument from its call */
		Const	   *arg = makeNullConst(att->atttypid, -1, InvalidOid);

		fmgr_info_cxt(F_TO_JSON, &column->to_json, CurrentMemoryContext);
		fmgr_info_set_expr((Node *) makeFuncExpr(F_TO_JSON, JSONOID,
												 list_make1(arg),
												 InvalidOid, InvalidOid,
												 COERCE_EXPLICIT_CALL),
						   &column->to_json);
	}
}

/*
 * A value of a row; where its place is known, without looking at what lies
 * before it.
 */
static inline Datum
column_value(const MessageColumn *column, TupleTableSlot *row, bool *isnull)
{
	if (column->offset >= 0 &&
		(TTS_IS_BUFFERTUPLE(row) || TTS_IS_HEAPTUPLE(row)))
	{
		HeapTuple	tuple = ((HeapTupleTableSlot *) row)->tuple;

		if (tuple != NULL && !HeapTupleHasNulls(tuple) &&
			HeapTupleHeaderGetNatts(tuple->t_data) >= column->attnum)
		{
			*isnull = false;
			return fetch_att((char *) GETSTRUCT(tuple) + column->offset,
							 column->typbyval, column->typlen);
		}
	}
	return slot_getattr(row, column->attnum, isnull);
}

/*
 * What StringInfo's functions do, in line and without a terminator: this is
 * done for each row.
 */
static inline char *
room_for(StringInfo out, int len)
{
	if (out->len + len >= out->maxlen)
		enlargeStringInfo(out, len);
	return out->data + out->len;
}

static inline void
put_bytes(StringInfo out, const char *bytes, int len)
{
	memcpy(room_for(out, len), bytes, len);
	out->len += len;
}

static inline void
put_char(StringInfo out, char c)
{
	*room_for(out, 1) = c;
	out->len++;
}

#define put_constant(out, text)		put_bytes(out, text, sizeof(text) - 1)

/* What has to be escaped in JSON, as escape_json() does it. */
static void
put_escaped(StringInfo out, char c)
{
	static const char characters[] = "\b\f\n\r\t\"\\";
	static const char letters[] = "bfnrt\"\\";
	const char *found = c != '\0' ? strchr(characters, c) : NULL;
	char		code[8];

	if (found != NULL)
	{
		put_char(out, '\\');
		put_char(out, letters[found - characters]);
	}
	else
		put_bytes(out, code, snprintf(code, sizeof(code), "\\u%04x", c));
}

void
message_append_text(StringInfo out, const char *string, int len)
{
	const char *end = string + len;
	const char *run = string;

	put_char(out, '"');
	for (const char *p = string; p < end; p++)
	{
		if (likely((unsigned char) *p >= ' ' && *p != '"' && *p != '\\'))
			continue;
		put_bytes(out, run, p - run);
		put_escaped(out, *p);
		run = p + 1;
	}
	put_bytes(out, run, end - run);
	put_char(out, '"');
}

/* The longest number, its sign and a terminator. */
#define DIGITS_ROOM			24

static void
append_plainly(StringInfo out, MessageColumn *column, Datum value)
{
	text	   *json = DatumGetTextPP(FunctionCall1Coll(&column->to_json,
														DEFAULT_COLLATION_OID,
														value));

	appendBinaryStringInfo(out, VARDATA_ANY(json), VARSIZE_ANY_EXHDR(json));
}

/* The same with the schema of whatever is not in pg_catalog. */
static void
append_by_search_path(StringInfo out, MessageColumn *column, Datum value)
{
	OverrideSearchPath path = {0};

	path.addCatalog = true;
	PushOverrideSearchPath(&path);
	PG_TRY();
	{
		append_plainly(out, column, value);
	}
	PG_FINALLY();
	{
		PopOverrideSearchPath();
	}
	PG_END_TRY();
}

/*
 * The same with amounts of money as in locale C.  Only for what calls no
 * function of a user's, which might change the setting meanwhile.
 */
static void
append_by_lc_monetary(StringInfo out, MessageColumn *column, Datum value)
{
	static char fixed[] = "C";
	char	   *former = locale_monetary;

	locale_monetary = fixed;
	assign_locale_monetary(NULL, NULL); /* forgets what is cached */
	PG_TRY();
	{
		append_plainly(out, column, value);
	}
	PG_FINALLY();
	{
		locale_monetary = former;
		assign_locale_monetary(NULL, NULL);
	}
	PG_END_TRY();
}

static void
append_by_to_json(StringInfo out, MessageColumn *column, Datum value)
{
	if (column->by_search_path)
		append_by_search_path(out, column, value);
	else if (column->by_lc_monetary)
		append_by_lc_monetary(out, column, value);
	else
		append_plainly(out, column, value);
}

/* The same where the type's code may throw; false if it did or was not tried. */
static bool
append_guarded(StringInfo out, MessageColumn *column, Datum value)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	int			start = out->len;
	volatile bool done = false;

	if (!guard_begin())
		return false;
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		append_by_to_json(out, column, value);
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		done = true;
	}
	PG_CATCH();
	{
		static bool warned = false;
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;

		/* a cancelled statement is to end, and an exhausted server is news */
		if (error->sqlerrcode == ERRCODE_QUERY_CANCELED ||
			ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_INSUFFICIENT_RESOURCES)
			ReThrowError(error);

		out->len = start;
		out->data[start] = '\0';
		if (!warned)
			ereport(WARNING,
					(errcode(error->sqlerrcode),
					 errmsg("value of column %s could not be rendered for ectowatch: %s",
							column->label, error->message),
					 errdetail("The change is delivered without it.")));
		warned = true;
	}
	PG_END_TRY();

	/* a function with settings of its own leaves the session's behind */
	output_settings_set(output_settings_fixed());
	return done;
}

/* Appends one value; false if it is too long or fails. */
static bool
append_value(StringInfo out, MessageColumn *column, Datum value)
{
	if (column->typlen == -1 &&
		toast_raw_datum_size(value) > message_max_values())
		return false;

	switch (column->kind)
	{
		case MESSAGE_INT2:
			out->len += pg_itoa(DatumGetInt16(value), room_for(out, DIGITS_ROOM));
			return true;
		case MESSAGE_INT4:
			out->len += pg_ltoa(DatumGetInt32(value), room_for(out, DIGITS_ROOM));
			return true;
		case MESSAGE_INT8:
			out->len += pg_lltoa(DatumGetInt64(value), room_for(out, DIGITS_ROOM));
			return true;
		case MESSAGE_BOOL:
			if (DatumGetBool(value))
				put_constant(out, "true");
			else
				put_constant(out, "false");
			return true;
		case MESSAGE_TEXT:
			{
				text	   *string = DatumGetTextPP(value);

				message_append_text(out, VARDATA_ANY(string),
									VARSIZE_ANY_EXHDR(string));
				return true;
			}
		case MESSAGE_UUID:
			appendStringInfoChar(out, '"');
			appendStringInfoString(out,
								   DatumGetCString(DirectFunctionCall1(uuid_out, value)));
			appendStringInfoChar(out, '"');
			return true;
		case MESSAGE_JSON:
			/* digits of a numeric may be a thousandfold of what is stored */
			if (column->typlen == -1 && toast_raw_datum_size(value) > 8192)
				return append_guarded(out, column, value);
			append_by_to_json(out, column, value);
			return true;
		case MESSAGE_GUARDED:
			return append_guarded(out, column, value);
	}
	return false;				/* keep the compiler quiet */
}

/* All of them, or those which 'wanted' is true of. */
static pg_attribute_hot bool
append_columns(StringInfo out, TupleTableSlot *row,
			   MessageColumn *columns, int ncolumns, const bool *wanted,
			   int nkeys, uint32 *keys_len)
{
	int			start = out->len;
	int			max = (int) message_max_values();

	put_char(out, '{');
	*keys_len = 1;
	for (int i = 0; i < ncolumns; i++)
	{
		bool		isnull;
		Datum		value;
		bool		fits = true;

		if (wanted != NULL && !wanted[i])
			continue;
		value = column_value(&columns[i], row, &isnull);
		if (out->len > start + 1)
			put_char(out, ',');
		put_bytes(out, columns[i].label, columns[i].label_len);
		if (isnull)
			put_constant(out, "null");
		else
			fits = append_value(out, &columns[i], value);

		if (!fits || out->len - start > max)
		{
			/* back to the keys, or to nothing if it is one of them */
			if (i < nkeys)
				*keys_len = 1;
			out->len = start + *keys_len;
			put_char(out, '}');
			return false;
		}
		if (i < nkeys)
			*keys_len = out->len - start;
	}
	put_char(out, '}');
	return true;
}

bool
message_column_by_settings(const MessageColumn *column)
{
	return column->kind == MESSAGE_JSON || column->kind == MESSAGE_GUARDED;
}

/* The same under fixed settings. */
static bool
append_columns_by_settings(StringInfo out, TupleTableSlot *row,
						   MessageColumn *columns, int ncolumns,
						   const bool *wanted, int nkeys, uint32 *keys_len)
{
	OutputSettings saved = output_settings_get();
	volatile bool complete = false;

	output_settings_set(output_settings_fixed());
	PG_TRY();
	{
		complete = append_columns(out, row, columns, ncolumns, wanted, nkeys,
								  keys_len);
	}
	PG_FINALLY();
	{
		output_settings_set(&saved);
	}
	PG_END_TRY();
	return complete;
}

pg_attribute_hot bool
message_append_values(StringInfo out, TupleTableSlot *row,
					  MessageColumn *columns, int ncolumns, bool by_settings,
					  const bool *wanted, int nkeys, uint32 *keys_len)
{
	return (by_settings ? append_columns_by_settings : append_columns)
		(out, row, columns, ncolumns, wanted, nkeys, keys_len);
}

pg_attribute_hot bool
message_column_differs(const MessageColumn *column,
					   TupleTableSlot *a, TupleTableSlot *b)
{
	bool		anull;
	bool		bnull;
	Datum		avalue = column_value(column, a, &anull);
	Datum		bvalue = column_value(column, b, &bnull);

	if (anull || bnull)
		return anull != bnull;
	if (column->typbyval)
		return avalue != bvalue;

	/* an unchanged long value need not be fetched to be known as such */
	if (column->typlen == -1 &&
		VARATT_IS_EXTERNAL_ONDISK(DatumGetPointer(avalue)) &&
		VARATT_IS_EXTERNAL_ONDISK(DatumGetPointer(bvalue)) &&
		memcmp(DatumGetPointer(avalue), DatumGetPointer(bvalue),
			   VARSIZE_EXTERNAL(DatumGetPointer(avalue))) == 0)
		return false;
	return !datum_image_eq(avalue, bvalue, column->typbyval, column->typlen);
}

/* The part of a JSON object that is shown. */
static void
append_shown(StringInfo out, const char *json, uint32 shown, uint32 len)
{
	put_bytes(out, json, shown);
	if (shown < len)
		put_char(out, '}');
}

void
message_append_old(StringInfo out, const Change *change)
{
	append_shown(out, change_old(change), change->old_shown, change->old_len);
	out->data[out->len] = '\0';
}

void
message_append_context(StringInfo out, const Change *change, uint32 of,
					   bool brief)
{
	const char *context = change_context(change);
	uint32		start = 1;

	Assert(change->context_len >= 2 && context[0] == '{');
	if (brief)
		start = change->context_len - 1;
	while (start < change->context_len - 1 &&
		   isspace((unsigned char) context[start]))
		start++;

	appendStringInfoChar(out, '{');
	if (of > 0)
	{
		appendStringInfo(out, "\"changes\":%u", of);
		if (start < change->context_len - 1)
			appendStringInfoChar(out, ',');
	}
	appendBinaryStringInfo(out, context + start, change->context_len - start);
}

void
message_for_channel(StringInfo out, const Change *change, uint64 position,
					uint32 of, int max)
{
	bool		partial = (change->flags & CHANGE_PARTIAL) != 0;
	bool		context = change->context_len > 0;
	bool		old = change->old_shown > 0;
	uint32		values_len = change->values_len;
	const char *type = change_type_name(change->type);

	for (;;)
	{
		resetStringInfo(out);
		put_constant(out, "{\"type\":\"");
		put_bytes(out, type, strlen(type));
		put_constant(out, "\",\"values\":");
		append_shown(out, change_values(change), values_len, change->values_len);
		if (old)
		{
			put_constant(out, ",\"old\":");
			message_append_old(out, change);
		}
		if (context)
		{
			appendStringInfoString(out, ",\"context\":");
			message_append_context(out, change, of, false);
		}
		if (partial)
			put_constant(out, ",\"partial\":true");
		put_constant(out, ",\"position\":");
		out->len += pg_ulltoa_n(position, room_for(out, DIGITS_ROOM));
		appendStringInfoChar(out, '}');

		if (out->len <= max)
			return;

		/*
		 * Without context; then keys and old, keys alone, nothing: the first
		 * that fits.
		 */
		partial = true;
		if (context)
			context = false;
		else if (values_len == change->values_len)
			values_len = change->keys_len;
		else if (old)
			old = false;
		else
			values_len = 1;
	}
}

void
message_gap_values(StringInfo out, uint64 from, uint64 to,
				   uint64 changes, const char *reason)
{
	appendStringInfoString(out, "{\"from\":");
	if (from > 0)
		appendStringInfo(out, UINT64_FORMAT, from);
	else
		appendStringInfoString(out, "null");
	appendStringInfo(out, ",\"to\":" UINT64_FORMAT ",\"changes\":", to);
	if (changes > 0)
		appendStringInfo(out, UINT64_FORMAT, changes);
	else
		appendStringInfoString(out, "null");
	appendStringInfo(out, ",\"reason\":\"%s\"}", reason);
}
