/*-------------------------------------------------------------------------
 *
 * context.c
 *	  Who makes a change: what an envelope carries.
 *
 * {"user":..,"application_name":..,"context":..}: the role that the session
 * has by login or SET ROLE (and not the owner of a function that is being
 * executed, or of a table whose foreign key cascades), the session's
 * application_name, and what the application has put into
 * ectowatch.context, as JSON if it is that, and not so deep that core's parser,
 * which recurses, might throw, else as a string.
 *
 * It is the same for all changes of a transaction but where one of these is
 * changed, so it is made once and kept.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/jsonapi.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/memutils.h"

#include "context.h"

/*
 * The longest value of ectowatch.context.  Escaped it may take six times as
 * much, and names of 63 bytes as well: CONTEXT_MAX_SIZE.
 */
#define CONTEXT_MAX_SETTING		1024

StaticAssertDecl(6 * (CONTEXT_MAX_SETTING + 2 * NAMEDATALEN) + 64 <= CONTEXT_MAX_SIZE,
				 "the longest context has to fit");

/* How deep it may be nested. */
#define CONTEXT_MAX_DEPTH		64

/* What the application says of its changes. */
static char *context_setting;

/* What was made, and what it was made of. */
static StringInfoData made;
static Oid	made_role;
static LocalTransactionId made_lxid;	/* invalid: it is not whole */
static bool made_foreign;
static char made_setting[CONTEXT_MAX_SETTING + 1];
static char made_application[NAMEDATALEN];

static bool
context_check(char **newval, void **extra pg_attribute_unused(),
			  GucSource source pg_attribute_unused())
{
	if (strlen(*newval) <= CONTEXT_MAX_SETTING)
		return true;
	GUC_check_errdetail("It has %zu bytes; %d are possible.",
						strlen(*newval), CONTEXT_MAX_SETTING);
	GUC_check_errhint("Say which request it is, and keep the rest elsewhere.");
	return false;
}

/* Whether JSON is nested too deep; of other text no matter what. */
static bool
is_deep(const char *string)
{
	int			depth = 0;
	bool		quoted = false;

	for (const char *p = string; *p != '\0'; p++)
	{
		if (*p == '"')
			quoted = !quoted;
		else if (quoted && *p == '\\' && p[1] != '\0')
			p++;
		else if (!quoted && (*p == '[' || *p == '{'))
			depth++;
		else if (!quoted && (*p == ']' || *p == '}'))
			depth--;
		if (depth > CONTEXT_MAX_DEPTH)
			return true;
	}
	return false;
}

/* Throws only for want of memory. */
static bool
is_json(char *string)
{
	JsonLexContext *lex = makeJsonLexContextCstringLen(string, strlen(string),
													   GetDatabaseEncoding(),
													   false);

	return pg_parse_json(lex, &nullSemAction) == JSON_SUCCESS;
}

static void
context_make(void)
{
	MemoryContext old;
	char	   *user;

	made_lxid = InvalidLocalTransactionId;
	user = GetUserNameFromId(made_role, true);
	if (made.data == NULL)
	{
		old = MemoryContextSwitchTo(TopMemoryContext);
		initStringInfo(&made);
		MemoryContextSwitchTo(old);
	}
	resetStringInfo(&made);
	appendStringInfoString(&made, "{\"user\":");
	if (user)
		escape_json(&made, user);
	else
		appendStringInfoString(&made, "null");
	appendStringInfoString(&made, ",\"application_name\":");
	escape_json(&made, made_application);
	made_foreign = false;
	if (made_setting[0] != '\0')
	{
		appendStringInfoString(&made, ",\"context\":");
		made_foreign = !is_deep(made_setting) && is_json(made_setting);
		if (made_foreign)
			appendStringInfoString(&made, made_setting);
		else
			escape_json(&made, made_setting);
	}
	appendStringInfoChar(&made, '}');
	made_lxid = MyProc->lxid;
}

const char *
context_json(bool *foreign)
{
	const char *application = application_name ? application_name : "";
	const char *setting = context_setting ? context_setting : "";

	if (made_lxid != MyProc->lxid || made_role != GetOuterUserId() ||
		strcmp(made_setting, setting) != 0 ||
		strcmp(made_application, application) != 0)
	{
		made_role = GetOuterUserId();
		strlcpy(made_setting, setting, sizeof(made_setting));
		strlcpy(made_application, application, sizeof(made_application));
		context_make();
	}
	*foreign = made_foreign;
	return made.data;
}

void
context_init(void)
{
	DefineCustomStringVariable("ectowatch.context",
							   "Sets what the changes of watchers with option envelope carry along.",
							   "JSON, or any other text, of up to 1024 bytes.",
							   &context_setting,
							   "", PGC_USERSET, 0,
							   context_check, NULL, NULL);
}
