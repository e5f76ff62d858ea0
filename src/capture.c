/*-------------------------------------------------------------------------
 *
 * capture.c
 *	  The trigger: a row becomes changes.
 *
 * All watchers of a table share one AFTER ROW trigger per event (for TRUNCATE
 * an AFTER STATEMENT trigger), which has neither arguments nor a condition.
 * What is to be captured is looked up in plan.c's cache.
 *
 * Triggers fire at the end of their statement.  If other triggers of that
 * statement write, a version of a row may already be superseded when its
 * trigger fires, and its successor be captured.  It must not come after it.
 * Where the watcher's key is unique, pending.c sees that by the commands that
 * made the versions.  Where it is not, COPY has frozen the row, or pending.c no
 * longer remembers rows, they cannot be told apart, and a superseded version is
 * late if the watcher is certain to hear of its successor, which has come or is
 * to come: if it has the event, no trigger columns if that is an update, and no
 * condition but one that holds for this version, since a change that replaces or
 * deletes it matches then, too.  In doubt it is not late, for one change too many
 * is better than none.  A late one is told to those alone who listen to the
 * values that it replaced, for its successor does not know these.
 *
 * Beyond a watcher's bulk_threshold, and where ectowatch.mute is on, changes
 * are counted only.  Of those under mute it is not asked whether the watcher
 * would have wanted them, for that is what takes the time.
 *
 * A write must never fail here but for want of memory.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_am_d.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "account.h"
#include "capture.h"
#include "context.h"
#include "ectowatch.h"
#include "pending.h"
#include "plan.h"
#include "slot.h"
#include "watcher.h"

PG_FUNCTION_INFO_V1(ectowatch_capture);

/* This database's, once something has been captured; NULL if it has none. */
static Slot *capture_slot;

/*
 * The buffer for a row's values, from one row of a transaction to the next;
 * none while it is in use.
 */
static StringInfoData spare;
static LocalTransactionId spare_lxid;	/* whose memory it is in */

#define SPARE_MAX_BYTES		(64 * 1024)

/*
 * Whether a watcher hears what is written now: one that is not replicated
 * does not hear what replication writes, though the trigger may fire for it.
 */
static bool
is_heard(bool replicated)
{
	return replicated ||
		SessionReplicationRole != SESSION_REPLICATION_ROLE_REPLICA;
}

/* Whether this transaction has deleted or replaced a row version. */
static bool
tuple_is_superseded(HeapTuple tuple)
{
	HeapTupleHeader header = tuple->t_data;

	return (header->t_infomask & HEAP_XMAX_INVALID) == 0 &&
		!HEAP_XMAX_IS_LOCKED_ONLY(header->t_infomask) &&
		TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetUpdateXid(header));
}

/*
 * Whether the watcher is certain to hear of what has become of a superseded
 * version, which is in 'row'.
 */
static bool
successor_is_heard(const WatcherPlan *watcher, Relation relation,
				   HeapTuple tuple, TupleTableSlot *row)
{
	HeapTupleHeader header = tuple->t_data;

	if (HeapTupleHeaderIndicatesMovedPartitions(header) ||
		ItemPointerEquals(&header->t_ctid, &tuple->t_self))
	{
		if (!(watcher->def->events & EVENT_DELETED))
			return false;
	}
	else if (!(watcher->def->events & EVENT_UPDATED) ||
			 watcher->ntriggers > 0)
		return false;
	return watcher->condition == NULL ||
		condition_matches_successor(watcher->condition, relation, row);
}

/*
 * The command of this transaction that made a row version, or, for 'deleted',
 * that ended it.
 */
static CommandId
tuple_command(HeapTuple tuple, ChangeType type)
{
	HeapTupleHeader header = tuple->t_data;

	if (type == CHANGE_DELETED)
		return tuple_is_superseded(tuple) ?
			HeapTupleHeaderGetCmax(header) : InvalidCommandId;
	return TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetXmin(header)) ?
		HeapTupleHeaderGetCmin(header) : InvalidCommandId;
}

/* Whether an update changed something that the watcher wants to hear of. */
static bool
update_matches(const WatcherPlan *watcher, TriggerData *trigdata)
{
	for (int i = 0; i < watcher->ntriggers; i++)
	{
		if (message_column_differs(&watcher->triggers[i],
								   trigdata->tg_trigslot, trigdata->tg_newslot))
			return true;
	}
	return watcher->ntriggers == 0;
}

/*
 * A row as it is rendered for a watcher, and for the next ones if they want the
 * same.
 */
typedef struct RenderedRow
{
	int			group;			/* of watchers; 0: none yet */
	int			flags;
	StringInfoData values;
	uint32		keys_len;
	StringInfoData old;			/* len 0: none */
	uint32		old_shown;
	uint32		moved_len;		/* of the key in old, if that changed */
} RenderedRow;

/*
 * The old values that go along with an update: all, if the watcher asks for
 * them; else those of a changed key, and of other columns that changed, which
 * are not shown, but say which narrowed channels the row has left.
 */
static void
render_old_values(RenderedRow *rendered, const WatcherPlan *watcher,
				  TriggerData *trigdata)
{
	bool		all = watcher->def->old_values;
	bool		wanted[MaxHeapAttributeNumber];
	bool		key_differs = false;
	bool		any = all;
	uint32		keys_len = 0;

	for (int i = 0; i < watcher->parts.ncolumns; i++)
	{
		wanted[i] = message_column_differs(&watcher->columns[i],
										   trigdata->tg_trigslot,
										   trigdata->tg_newslot);
		any = any || wanted[i];
		key_differs = key_differs || (wanted[i] && i < watcher->parts.nkeys);
	}
	if (!any)
		return;
	for (int i = 0; i < watcher->parts.ncolumns; i++)
	{
		/* a key is told as a whole */
		if (all || (key_differs && i < watcher->parts.nkeys))
			wanted[i] = true;
	}

	initStringInfo(&rendered->old);
	if (!message_append_values(&rendered->old, trigdata->tg_trigslot,
							   watcher->columns, watcher->parts.ncolumns,
							   watcher->by_settings, wanted,
							   watcher->parts.nkeys, &keys_len))
		rendered->flags |= CHANGE_OLD_CUT | (all ? CHANGE_PARTIAL : 0);
	if (key_differs)
		rendered->moved_len = keys_len;
	if (all)
		rendered->old_shown = rendered->old.len;
	else if (key_differs)
		rendered->old_shown = keys_len;

	/* the brace belongs to it where there is nothing else */
	if ((int) rendered->old_shown + 1 == rendered->old.len)
		rendered->old_shown = rendered->old.len;
}

/*
 * Lends the buffer of the transaction's former row; a new one to calls from
 * within rendering, which may run anybody's code.
 */
static void
borrow_spare(StringInfo buffer)
{
	if (spare.data != NULL && spare_lxid == MyProc->lxid)
		*buffer = spare;
	else
	{
		MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);

		initStringInfo(buffer);
		MemoryContextSwitchTo(old);
	}
	spare.data = NULL;
}

static void
return_spare(StringInfo buffer)
{
	/* a call from within has left one already, or it is too much to keep */
	if (spare.data != NULL || buffer->maxlen > SPARE_MAX_BYTES)
	{
		pfree(buffer->data);
		return;
	}
	spare = *buffer;
	spare_lxid = MyProc->lxid;
}

static void
render_row(RenderedRow *rendered, const WatcherPlan *watcher, ChangeType type,
		   TriggerData *trigdata)
{
	if (rendered->values.data == NULL)
		borrow_spare(&rendered->values);
	rendered->values.len = 0;
	rendered->flags = 0;
	rendered->old.data = NULL;
	rendered->old.len = 0;
	rendered->old_shown = 0;
	rendered->moved_len = 0;
	if (!message_append_values(&rendered->values,
							   type == CHANGE_UPDATED ?
							   trigdata->tg_newslot : trigdata->tg_trigslot,
							   watcher->columns, watcher->parts.ncolumns,
							   watcher->by_settings, NULL,
							   watcher->parts.nkeys, &rendered->keys_len))
		rendered->flags |= CHANGE_PARTIAL;
	if (type == CHANGE_UPDATED)
		render_old_values(rendered, watcher, trigdata);
	rendered->group = watcher->group;
}

/* Not before the last of what may run code of others: that makes it anew. */
static void
capture_context(ChangeParts *parts, const WatcherDef *def)
{
	bool		foreign;

	if (!def->envelope)
		return;
	parts->context = context_json(&foreign);
	parts->context_len = strlen(parts->context);
	if (foreign)
		parts->flags |= CHANGE_FOREIGN_JSON;
}

static inline void
log_captured(const ChangeParts *parts)
{
	if (likely(!ectowatch_debug && !(parts->flags & CHANGE_DEBUG)))
		return;
	ereport(LOG_SERVER_ONLY,
			(errmsg("ectowatch: process %d captured for watcher \"%s\": %s %.*s",
					MyProcPid, parts->name, change_type_name(parts->type),
					parts->values ? (int) parts->values_len : 2,
					parts->values ? parts->values : "{}")));
}

/* Whether the change of a row is to be delivered; statistics are told. */
static bool
capture_condition_holds(const WatcherPlan *watcher, TriggerData *trigdata,
						TupleTableSlot *old, TupleTableSlot *new)
{
	bool		failed;
	bool		holds = condition_matches(watcher->condition,
										  trigdata->tg_relation,
										  old, new, &failed);

	if (capture_slot != NULL)
		account_note_condition(capture_slot, watcher->def->id, holds && !failed,
							   failed);
	return holds;
}

/*
 * Takes apart what is needed of a row whose columns are not all at fixed
 * places: all at once is cheaper than one by one.
 */
static inline void
prepare_columns(const WatcherPlan *watcher, TupleTableSlot *row,
				HeapTuple tuple)
{
	slot_getsomeattrs(row, HeapTupleHasNulls(tuple) ?
					  watcher->last_attnum : watcher->last_varying);
}

/* Adds the change of one row for one watcher. */
static void
capture_row(const WatcherPlan *watcher, ChangeType type,
			TriggerData *trigdata, RenderedRow *rendered)
{
	bool		is_heap = trigdata->tg_relation->rd_rel->relam == HEAP_TABLE_AM_OID;
	HeapTuple	tuple = trigdata->tg_trigtuple;
	TupleTableSlot *row = trigdata->tg_trigslot;
	ChangeParts parts;
	CommandId	command;
	bool		late;

	prepare_columns(watcher, trigdata->tg_trigslot, tuple);
	if (type == CHANGE_UPDATED)
	{
		prepare_columns(watcher, trigdata->tg_newslot, trigdata->tg_newtuple);
		if (!update_matches(watcher, trigdata))
			return;
		tuple = trigdata->tg_newtuple;
		row = trigdata->tg_newslot;
	}
	if (watcher->condition != NULL &&
		!capture_condition_holds(watcher, trigdata,
								 type == CHANGE_INSERTED ? NULL : trigdata->tg_trigslot,
								 type == CHANGE_DELETED ? NULL : row))
		return;
	command = is_heap && watcher->key_unique ?
		tuple_command(tuple, type) : InvalidCommandId;
	late = is_heap && type != CHANGE_DELETED &&
		!(command != InvalidCommandId && pending_remembers_rows(command)) &&
		tuple_is_superseded(tuple) &&
		successor_is_heard(watcher, trigdata->tg_relation, tuple, row);
	if (late && type == CHANGE_INSERTED)
		return;

	parts = watcher->parts;
	parts.type = type;
	if (watcher->def->bulk_threshold > 0 &&
		pending_is_over(watcher->def->id, watcher->def->bulk_threshold))
	{
		capture_context(&parts, watcher->def);
		if (!late)
			pending_add_over(&parts);
		return;
	}

	if (rendered->group != watcher->group)
		render_row(rendered, watcher, type, trigdata);
	parts.flags |= rendered->flags;
	parts.values = rendered->values.data;
	parts.values_len = rendered->values.len;
	parts.keys_len = rendered->keys_len;
	parts.old = rendered->old.data;
	parts.old_len = rendered->old.len;
	parts.old_shown = rendered->old_shown;

	if (!late && rendered->moved_len > 0)
		pending_moved(watcher->def->id, parts.old, rendered->moved_len, command);

	capture_context(&parts, watcher->def);
	if (late)
		pending_add_late(&parts, watcher->head);
	else
		pending_add_row(&parts, command, watcher->head);
	log_captured(&parts);
}

static void
capture_truncate(ChangeParts *parts)
{
	if (ectowatch_mute)
	{
		pending_add_muted(parts);
		return;
	}
	pending_add(parts, NULL);
	log_captured(parts);
}

void
capture_partition_truncated(Oid origin)
{
	ListCell   *lc;

	foreach(lc, watcher_list(origin))
	{
		WatcherDef *def = lfirst(lc);
		ChangeParts parts;

		if (!(def->events & EVENT_TRUNCATED) || !is_heard(def->replicated))
			continue;
		pending_forget_rows();
		watcher_change_parts(def, origin, watcher_relation_name(origin), &parts);
		parts.type = CHANGE_TRUNCATED;
		parts.columns = watcher_columns(def, &parts.ncolumns);
		capture_context(&parts, def);
		capture_truncate(&parts);
	}
}

/* A database's first change brings its worker up, well before the commit. */
static void
capture_request_worker(void)
{
	static bool requested = false;

	if (requested)
		return;
	requested = true;
	capture_slot = slot_attach();
	if (capture_slot != NULL)
		slot_request_worker(capture_slot);
}

/* All there is to do where the library was not loaded at server start. */
static void
capture_warn_not_preloaded(void)
{
	static bool warned = false;

	if (warned)
		return;
	warned = true;
	ereport(WARNING,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("changes of watched tables are not captured: ectowatch is not loaded at server start"),
			 errhint("Add this to postgresql.conf and restart the server: shared_preload_libraries = 'ectowatch'")));
}

pg_attribute_hot Datum
ectowatch_capture(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	const TriggerPlan *plan;
	ChangeType	type;
	int			event;
	bool		per_row;
	RenderedRow rendered;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" must be called as a trigger",
						CAPTURE_FUNCTION),
				 errhint("Use ectowatch_watch() to watch a table.")));
	per_row = TRIGGER_FIRED_FOR_ROW(trigdata->tg_event);
	if (!TRIGGER_FIRED_AFTER(trigdata->tg_event) ||
		per_row == TRIGGER_FIRED_BY_TRUNCATE(trigdata->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("trigger \"%s\" must be AFTER ... FOR EACH ROW, or AFTER TRUNCATE",
						trigdata->tg_trigger->tgname),
				 errhint("Use ectowatch_watch() to watch a table.")));

	if (!ectowatch_is_preloaded())
	{
		capture_warn_not_preloaded();
		return PointerGetDatum(NULL);
	}

	if (TRIGGER_FIRED_BY_INSERT(trigdata->tg_event))
	{
		type = CHANGE_INSERTED;
		event = EVENT_INSERTED;
	}
	else if (TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event))
	{
		type = CHANGE_UPDATED;
		event = EVENT_UPDATED;
	}
	else if (TRIGGER_FIRED_BY_DELETE(trigdata->tg_event))
	{
		type = CHANGE_DELETED;
		event = EVENT_DELETED;
	}
	else
	{
		type = CHANGE_TRUNCATED;
		event = EVENT_TRUNCATED;
	}

	plan = plan_of_trigger(trigdata->tg_relation,
						   trigdata->tg_trigger->tgoid, event);
	if (type == CHANGE_TRUNCATED)
		pending_forget_rows();
	if (plan->nwatchers == 0)
		return PointerGetDatum(NULL);
	capture_request_worker();
	if (!plan->alone)
		pending_expect_repeats();

	/* but for a row's values, memory is the caller's, who empties it then */
	rendered.group = 0;
	rendered.values.data = NULL;
	for (int i = 0; i < plan->nwatchers; i++)
	{
		const WatcherPlan *watcher = &plan->watchers[i];
		ChangeParts parts;

		if (!is_heard(watcher->def->replicated))
			continue;
		if (per_row && !ectowatch_mute)
		{
			capture_row(watcher, type, trigdata, &rendered);
			continue;
		}
		parts = watcher->parts;
		parts.type = type;
		capture_context(&parts, watcher->def);
		if (per_row)
			pending_add_muted(&parts);
		else
			capture_truncate(&parts);
	}
	if (rendered.values.data != NULL)
		return_spare(&rendered.values);
	return PointerGetDatum(NULL);
}
