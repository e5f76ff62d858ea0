/*-------------------------------------------------------------------------
 *
 * listen.c
 *	  Following LISTEN and UNLISTEN.
 *
 * The hook of ddl.c sees every LISTEN, UNLISTEN and DISCARD ALL, those of
 * functions too, and tells us when core has accepted it.  All are followed
 * (listening.c); subscriptions are those to channels with a separator in their
 * name, whose watcher may still come, and to watchers' own.  Not seen is what
 * another library does by calling core's C function.
 *
 * LISTEN starts the database's worker, if the extension is there.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_authid.h"
#include "commands/extension.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/timestamp.h"

#include "board.h"
#include "channel.h"
#include "ectowatch.h"
#include "listen.h"
#include "listener.h"
#include "listening.h"
#include "subscription.h"
#include "watcher.h"

PG_FUNCTION_INFO_V1(ectowatch_stat_subscriptions_get);

pg_attribute_hot void
listen_read(ListenCommand *command, Node *statement)
{
	const char *channel = NULL;

	command->kind = LISTEN_NOTHING;
	if (IsA(statement, ListenStmt))
	{
		command->kind = LISTEN_ADD;
		channel = ((ListenStmt *) statement)->conditionname;
	}
	else if (IsA(statement, UnlistenStmt))
	{
		channel = ((UnlistenStmt *) statement)->conditionname;
		command->kind = channel ? LISTEN_REMOVE : LISTEN_REMOVE_ALL;
	}
	else if (IsA(statement, DiscardStmt) &&
			 ((DiscardStmt *) statement)->target == DISCARD_ALL)
		command->kind = LISTEN_REMOVE_ALL;
	if (channel)
		strlcpy(command->channel, channel, NAMEDATALEN);
}

/* A LISTEN that hears of no row is most likely a mistake. */
static void
warn_of_column(const char *channel, const WatcherDef *def)
{
	const char *column = strchr(channel, CHANNEL_SEPARATOR) + 1;
	const char *end = strchr(column, CHANNEL_SEPARATOR);
	int			nkeys;
	List	   *members = watcher_members(def, &nkeys);
	ListCell   *lc;

	if (channel_is_hashed(channel))
		return;
	foreach(lc, members)
	{
		const WatcherMember *member = lfirst(lc);

		if (strncmp(member->name, column, end - column) == 0 &&
			member->name[end - column] == '\0')
			return;
	}
	ereport(WARNING,
			(errcode(ERRCODE_UNDEFINED_COLUMN),
			 errmsg("channel \"%s\" will hear of no row", channel),
			 errdetail("Watcher \"%s\" delivers no column \"%.*s\".",
					   def->name, (int) (end - column), column),
			 errhint("Function ectowatch_channel() names channels that do.")));
}

static void
follow_listen(const char *channel)
{
	bool		separated = strchr(channel, CHANNEL_SEPARATOR) != NULL;
	ListeningOptions options = {0};
	WatcherDef *def = NULL;
	Slot	   *slot = NULL;

	if (!RecoveryInProgress() &&
		OidIsValid(get_extension_oid(ECTOWATCH_NAME, true)))
		slot = slot_attach();
	if (slot != NULL)
	{
		slot_request_worker(slot);
		def = watcher_of_channel(channel);
	}
	if (def != NULL && separated)
		warn_of_column(channel, def);
	if (slot != NULL && (def != NULL || separated))
	{
		options.slot = slot;
		options.required = def != NULL && separated;
	}
	if (def != NULL && (def->debug || ectowatch_debug))
		options.log_watcher = def->name;
	listening_add(channel, &options);
}

pg_attribute_hot void
listen_follow(const ListenCommand *command)
{
	switch (command->kind)
	{
		case LISTEN_NOTHING:
			break;
		case LISTEN_ADD:
			follow_listen(command->channel);
			break;
		case LISTEN_REMOVE:
			listening_remove(command->channel);
			break;
		case LISTEN_REMOVE_ALL:
			listening_remove(NULL);
			break;
	}
}

/* --- the view --- */

/* A watcher by its name, or by what its hashed channels begin with. */
typedef struct WatcherByName
{
	char		name[NAMEDATALEN];	/* the hash key */
	char	   *watcher;
} WatcherByName;

static HTAB *
watchers_by_name(void)
{
	HASHCTL		ctl;
	HTAB	   *watchers;
	ListCell   *lc;

	ctl.keysize = NAMEDATALEN;
	ctl.entrysize = sizeof(WatcherByName);
	ctl.hcxt = CurrentMemoryContext;
	watchers = hash_create("ectowatch watchers by name", 64, &ctl,
						   HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	foreach(lc, watcher_list(InvalidOid))
	{
		WatcherDef *def = lfirst(lc);
		char		prefix[NAMEDATALEN];
		WatcherByName *entry;

		entry = hash_search(watchers, def->name, HASH_ENTER, NULL);
		entry->watcher = def->name;

		/* no watcher's name has a separator, and the prefix has one */
		channel_hashed_prefix(prefix, def->name);
		entry = hash_search(watchers, prefix, HASH_ENTER, NULL);
		entry->watcher = def->name;
	}
	return watchers;
}

/* The watcher of a channel, or NULL if it cannot be told. */
static const char *
find_by_channel(HTAB *watchers, const char *channel)
{
	char		name[NAMEDATALEN];
	const char *separator = strchr(channel, CHANNEL_SEPARATOR);
	WatcherByName *entry;

	if (separator == NULL)
		strlcpy(name, channel, NAMEDATALEN);
	else if (channel_is_hashed(channel))
		channel_prefix_of_hashed(name, channel);
	else if (channel_is_narrowed(channel))
		strlcpy(name, channel, separator - channel + 1);
	else
		return NULL;
	entry = hash_search(watchers, name, HASH_FIND, NULL);
	return entry ? entry->watcher : NULL;
}

/* How much a session has not read. */
static int64
unread_bytes(const ListenerUnread *unread, int n, int pid, uint64 head)
{
	for (int i = 0; i < n; i++)
	{
		if (unread[i].pid == pid)
			return (int64) (head - unread[i].from);
	}
	return 0;
}

static bool
is_subscribed(const Subscription *all, int n, int pid)
{
	for (int i = 0; i < n; i++)
	{
		if (all[i].pid == pid)
			return true;
	}
	return false;
}

Datum
ectowatch_stat_subscriptions_get(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Slot	   *slot;
	HTAB	   *watchers;
	Subscription *all;
	ListenerUnread *unread;
	int			n;
	int			nunread;
	uint64		head;

	ectowatch_require_preload();
	InitMaterializedSRF(fcinfo, 0);
	slot = slot_attach();
	if (slot == NULL)
		return (Datum) 0;
	watchers = watchers_by_name();
	all = subscription_list(slot, &n);
	unread = listener_unread_list(&nunread);
	head = board_head(slot_board(slot));
	for (int i = 0; i < n; i++)
	{
		const Subscription *one = &all[i];
		const char *watcher = find_by_channel(watchers, one->channel);
		bool		narrowed = strchr(one->channel, CHANNEL_SEPARATOR) != NULL;
		Datum		values[6];
		bool		nulls[6] = {false};

		values[0] = Int32GetDatum(one->pid);
		nulls[1] = watcher == NULL;
		values[1] = watcher ? CStringGetTextDatum(watcher) : (Datum) 0;

		/* values are in it; as pg_stat_activity with others' statements */
		if (narrowed &&
			!has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS) &&
			!has_privs_of_role(GetUserId(), one->role))
			values[2] = CStringGetTextDatum("<insufficient privilege>");
		else
			values[2] = CStringGetTextDatum(one->channel);
		values[3] = BoolGetDatum(narrowed);
		values[4] = TimestampTzGetDatum(one->since);
		values[5] = Int64GetDatum(unread_bytes(unread, nunread, one->pid, head));
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}

	/* who listens to other channels alone may keep messages from going, too */
	for (int i = 0; i < nunread; i++)
	{
		Datum		values[6] = {0};
		bool		nulls[6] = {false, true, true, true, true, false};

		if (is_subscribed(all, n, unread[i].pid))
			continue;
		values[0] = Int32GetDatum(unread[i].pid);
		values[5] = Int64GetDatum((int64) (head - unread[i].from));
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
