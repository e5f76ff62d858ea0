/*-------------------------------------------------------------------------
 *
 * send.c
 *	  ectowatch_notify(): any payload, on the way of changes.
 *
 * For who has a trigger or a job queue with pg_notify(): the payload becomes a
 * change of no watcher, with the channel as its name, and goes through
 * pending, queue, worker and ring as all others do.  On the channel it is the
 * payload as it is, if NOTIFY carries it, else a partial message with the
 * position; the ring has it whole, as {"payload": "..."}.
 *
 * What pg_notify() documents holds: order, transactions, savepoints, and that
 * a payload for a channel is sent once per transaction however often it is
 * given.  The latter is seen by rows.c, as a row that has not changed; beyond
 * the memory that it has, a repetition is sent again.
 *
 * There may be any number of channels; how it is told on them that something
 * is lost, is written in account.c.  Channels are public, as in core;
 * but those of watchers are theirs (taken.c).
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "account.h"
#include "ectowatch.h"
#include "message.h"
#include "pending.h"
#include "slot.h"
#include "taken.h"
#include "watch.h"
#include "watcher.h"

PG_FUNCTION_INFO_V1(ectowatch_notify);

/* What else there is in a change: its name, and alignment. */
#define SEND_OVERHEAD	1024

static void
check_channel(const char *channel)
{
	size_t		len = strlen(channel);

	if (len == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("channel name cannot be empty"),
				 errhint("Name the channel to which clients LISTEN.")));
	if (len >= NAMEDATALEN)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("channel name too long"),
				 errdetail("It has %zu bytes; %d are possible.",
						   len, NAMEDATALEN - 1),
				 errhint("Use a shorter name.")));
}

static void
check_is_no_watchers(const char *channel)
{
	const WatcherDef *def;

	if (!channel_is_taken(channel, true))
		return;
	def = watcher_of_channel(channel);
	if (def != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("channel \"%s\" belongs to watcher \"%s\"",
						channel, def->name),
				 errdetail("What comes from the worker on that channel are changes of its table."),
				 errhint("Use another channel.")));
}

Datum
ectowatch_notify(PG_FUNCTION_ARGS)
{
	char	   *channel = PG_ARGISNULL(0) ? "" :
	text_to_cstring(PG_GETARG_TEXT_PP(0));
	char	   *payload = PG_ARGISNULL(1) ? "" :
	text_to_cstring(PG_GETARG_TEXT_PP(1));
	size_t		len = strlen(payload);
	ChangeParts parts = {0};
	RowVersion	version;
	StringInfoData values;

	ectowatch_require_preload();
	check_channel(channel);
	PreventCommandDuringRecovery("ectowatch_notify()");
	PreventCommandIfParallelMode("ectowatch_notify()");
	watch_require_slot();
	check_is_no_watchers(channel);

	account_use_channels(slot_attach());

	parts.watcher = SLOT_CHANNELS;
	parts.type = CHANGE_NOTIFY;
	parts.flags = CHANGE_FRESH;
	parts.name = channel;
	parts.count = (uint32) len;
	parts.keys_len = 1;
	initStringInfo(&values);
	if (len < change_max_size() - SEND_OVERHEAD)
	{
		appendStringInfoString(&values, "{\"payload\":");
		message_append_text(&values, payload, (int) len);
		appendStringInfoChar(&values, '}');
	}
	if (values.len == 0 || values.len > (int) (change_max_size() - SEND_OVERHEAD))
	{
		ereport(WARNING,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("payload of %zu bytes for channel \"%s\" is sent without its text",
						len, channel),
				 errdetail("As JSON it is longer than the %u bytes that a change can have.",
						   change_max_size() - SEND_OVERHEAD),
				 errhint("Send a key with which the text can be found.")));
		parts.flags |= CHANGE_PARTIAL;
	}
	else
	{
		parts.values = values.data;
		parts.values_len = values.len;
	}

	/* beside its JSON, the payload as it goes to the channel */
	if (len <= MESSAGE_MAX_LENGTH)
	{
		parts.old = payload;
		parts.old_len = len;
	}

	version.key = hash_bytes_extended((unsigned char *) channel, strlen(channel), 0);
	version.key = hash_bytes_extended((unsigned char *) payload, len, version.key);
	version.command = InvalidCommandId;
	version.lasting = true;
	pending_add(&parts, &version);
	PG_RETURN_VOID();
}
