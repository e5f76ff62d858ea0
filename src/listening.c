/*-------------------------------------------------------------------------
 *
 * listening.c
 *	  What this session listens to.
 *
 * Core tells nobody what a session listens to, so we follow its LISTEN and
 * UNLISTEN, of channels of any name: whatever it is, ectowatch_notify() may send
 * to it, and a watcher may still come that has it.  Others see of it
 *
 *	a filter	(listener.c), by which the worker wakes those for whom it has
 *				something;
 *	entries		(subscription.c) for channels of watchers and narrowed ones,
 *				which say exactly who listens to what.
 *
 * The session's own state, from LISTEN to the end of the transaction:
 *
 *	actions		LISTEN and UNLISTEN of this transaction, in order, with the
 *				nesting level at which they were executed.  Levels never fall
 *				along the list.  At release of a savepoint its actions get the
 *				level below, at rollback to it they are cut off: as async.c
 *				does with its own.
 *	listening	the channels, with their entries
 *
 * At XACT_EVENT_PRE_COMMIT, where an error is still legal, the actions are
 * played: what is new gets into the filter and gets an entry, active at once,
 * or the commit fails; what is to go is only marked.  At COMMIT, where nothing
 * may fail, what is marked is taken out of both; at ABORT what is new is, and
 * marks are taken off.  Neither allocates: locks, of which core itself takes
 * some there, links, and removal from a hash table.  PRE_COMMIT comes behind
 * deferred triggers, so no LISTEN comes later; were another library's callback
 * to execute one, it would not be followed.  PREPARE: core refuses LISTEN and
 * UNLISTEN there, what is left are UNLISTENs of nothing.
 *
 * Why the worker misses nobody.  L listens, W writes, the worker sends W's
 * changes.  What is owed to L are the changes of those W that commit after L.
 *
 *	L is in filter and entry, then L commits, then W: the worker looks later
 *		than W's commit, of which it learned from the queue; W's commit comes
 *		after L's by whatever makes it "after" (a lock of core, a message to a
 *		client), L's commit after its entry in program order.  So the worker
 *		sees both, with the barriers that are in either's locks.
 *	The worker looks before L's entry is made: then it knew of W's commit
 *		before L's, and W's changes are not owed.
 *	Between PRE_COMMIT and COMMIT of L, however long that is (L waits for a
 *		standby), or where L aborts in the end: the session is told of messages
 *		early, and woken.  It reads none before its transaction has ended, and
 *		then sends to its client what it listens to by then.
 *	UNLISTEN: what is on the board for the channel when the session comes to
 *		read is passed over.
 *	UNLISTEN and LISTEN of one channel in a transaction: the entry stays
 *		all the time, in whatever order and at whatever level.
 *	Two sessions with one channel have two entries, the channel is there while
 *		one of them is.  A session with one channel twice has one.
 *	The worker dies and comes back: what is here belongs to sessions and stays.
 *	The session ends, in a transaction or not: before_shmem_exit, registered
 *		before its first entry is made, frees all of them; the ABORT that may
 *		follow finds none.  Killed without that, the server starts over.
 *		DROP DATABASE finds no session, so no entry is left when the slot gets
 *		another database.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "storage/ipc.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "ectowatch.h"
#include "listener.h"
#include "listening.h"
#include "subscription.h"

typedef enum ActionKind
{
	ACTION_ADD,
	ACTION_REMOVE,
	ACTION_REMOVE_ALL
} ActionKind;

typedef struct Action
{
	int			level;
	ActionKind	kind;
	bool		subscription;
	bool		required;
	char		channel[NAMEDATALEN];
	char		log_watcher[NAMEDATALEN];	/* "": it is not logged */
} Action;

typedef struct Listening
{
	char		channel[NAMEDATALEN];	/* the hash key */
	uint32		entry;			/* of its subscription; 0: none */
	bool		subscription;	/* is to have one */
	bool		required;
	bool		added;			/* by this transaction */
	bool		claimed;		/* 'entry' was, by this transaction */
	bool		removed;		/* by this transaction */
	char		log_watcher[NAMEDATALEN];
} Listening;

static List *actions;			/* in TopTransactionContext */
static HTAB *listening;
static bool played;				/* 'listening' has marks */
static Subscriptions *mine;		/* NULL: there was none to make */

static Listening *
listening_find(const char *channel)
{
	return listening ? hash_search(listening, channel, HASH_FIND, NULL) : NULL;
}

bool
listening_has(const char *channel)
{
	return listening_find(channel) != NULL;
}

/* --- LISTEN and UNLISTEN --- */

static Action *
action_append(ActionKind kind, const char *channel)
{
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);
	Action	   *action = palloc0(sizeof(Action));

	action->level = GetCurrentTransactionNestLevel();
	action->kind = kind;
	if (channel)
		strlcpy(action->channel, channel, NAMEDATALEN);
	actions = lappend(actions, action);
	MemoryContextSwitchTo(old);
	return action;
}

void
listening_add(const char *channel, const ListeningOptions *options)
{
	Listening  *known = listening_find(channel);
	Action	   *action;

	if (options->slot)
		mine = slot_subscriptions(options->slot);
	if (actions == NIL && known != NULL &&
		(options->slot == NULL || known->entry != 0))
		return;
	action = action_append(ACTION_ADD, channel);
	action->subscription = options->slot != NULL;
	action->required = options->required;
	if (options->log_watcher)
		strlcpy(action->log_watcher, options->log_watcher, NAMEDATALEN);
}

void
listening_remove(const char *channel)
{
	if (actions == NIL &&
		(listening == NULL || hash_get_num_entries(listening) == 0))
		return;
	(void) action_append(channel ? ACTION_REMOVE : ACTION_REMOVE_ALL, channel);
}

/* --- the end of the transaction --- */

/* before_shmem_exit callback */
static void
listening_exit(int code pg_attribute_unused(), Datum arg pg_attribute_unused())
{
	HASH_SEQ_STATUS scan;
	Listening  *one;

	hash_seq_init(&scan, listening);
	while ((one = hash_seq_search(&scan)) != NULL)
	{
		if (one->entry != 0)
			subscription_free(mine, one->entry);
		one->entry = 0;
	}
	listening = NULL;
	actions = NIL;
	played = false;
}

static void
listening_start(void)
{
	HASHCTL		ctl;

	if (listening != NULL)
		return;
	ctl.keysize = NAMEDATALEN;
	ctl.entrysize = sizeof(Listening);
	ctl.hcxt = TopMemoryContext;
	listening = hash_create("ectowatch channels listened to", 16, &ctl,
							HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	before_shmem_exit(listening_exit, (Datum) 0);
}

/* Marks what an action makes of the channels. */
static void
action_play(const Action *action)
{
	HASH_SEQ_STATUS scan;
	Listening  *one;
	bool		found;

	switch (action->kind)
	{
		case ACTION_ADD:
			one = hash_search(listening, action->channel, HASH_ENTER, &found);
			if (!found)
			{
				memset(one, 0, sizeof(*one));
				strlcpy(one->channel, action->channel, NAMEDATALEN);
				one->added = true;
			}
			one->subscription = one->subscription || action->subscription;
			one->required = one->required || action->required;
			one->removed = false;
			strlcpy(one->log_watcher, action->log_watcher, NAMEDATALEN);
			break;
		case ACTION_REMOVE:
			one = listening_find(action->channel);
			if (one != NULL)
				one->removed = true;
			break;
		case ACTION_REMOVE_ALL:
			hash_seq_init(&scan, listening);
			while ((one = hash_seq_search(&scan)) != NULL)
				one->removed = true;
			break;
	}
}

/* Says to what this session listens; nothing in it may fail. */
static void
set_filter(void)
{
	ListenerFilter filter = {0};
	HASH_SEQ_STATUS scan;
	Listening  *one;

	hash_seq_init(&scan, listening);
	while ((one = hash_seq_search(&scan)) != NULL)
		listener_filter_add(&filter, listener_hash(one->channel));
	listener_set(hash_get_num_entries(listening) > 0 ? &filter : NULL);
}

/* Gets entries for what is new; ERROR if one is required and there is none. */
static void
claim_entries(void)
{
	Subscription what;
	HASH_SEQ_STATUS scan;
	Listening  *one;

	memset(&what, 0, sizeof(what));
	what.pid = MyProcPid;
	what.role = GetSessionUserId();
	what.since = GetCurrentTimestamp();

	hash_seq_init(&scan, listening);
	while ((one = hash_seq_search(&scan)) != NULL)
	{
		if (!one->subscription || one->entry != 0 || one->removed)
			continue;
		strlcpy(what.channel, one->channel, NAMEDATALEN);
		one->entry = subscription_make(mine, &what);
		one->claimed = one->entry != 0;
		if (one->entry == 0 && one->required)
		{
			hash_seq_term(&scan);
			ereport(ERROR,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("cannot listen to channel \"%s\": too many subscriptions",
							what.channel),
					 errdetail("The sessions of this database have %d, and nothing would be sent to another one.",
							   ectowatch_max_subscriptions),
					 errhint("Increase ectowatch.max_subscriptions and restart the server.")));
		}
	}
}

/* For debugging; after COMMIT it would be exact, but nothing may fail there. */
static void
log_claimed(void)
{
	HASH_SEQ_STATUS scan;
	Listening  *one;

	hash_seq_init(&scan, listening);
	while ((one = hash_seq_search(&scan)) != NULL)
	{
		if (one->claimed && one->log_watcher[0] != '\0')
			ereport(LOG,
					(errmsg("ectowatch: process %d listens to channel \"%s\" of watcher \"%s\"",
							MyProcPid, one->channel, one->log_watcher)));
	}
}

static void
listening_pre_commit(void)
{
	ListCell   *lc;

	if (actions == NIL)
		return;
	listening_start();
	played = true;
	foreach(lc, actions)
		action_play(lfirst(lc));
	set_filter();
	claim_entries();
	log_claimed();
}

/* Nothing in it may fail. */
static void
listening_end(bool committed)
{
	HASH_SEQ_STATUS scan;
	Listening  *one;

	actions = NIL;				/* its memory goes with the transaction */
	if (!played)
		return;
	played = false;
	hash_seq_init(&scan, listening);
	while ((one = hash_seq_search(&scan)) != NULL)
	{
		bool		gone = committed ? one->removed : one->added;

		if (one->entry != 0 && (gone || (one->claimed && !committed)))
		{
			subscription_free(mine, one->entry);
			one->entry = 0;
		}
		one->subscription = one->entry != 0;
		one->added = false;
		one->claimed = false;
		one->removed = false;
		if (gone)
			(void) hash_search(listening, one->channel, HASH_REMOVE, NULL);
	}
	set_filter();
}

static pg_attribute_hot void
listening_xact_callback(XactEvent event, void *arg pg_attribute_unused())
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			listening_pre_commit();
			break;
		case XACT_EVENT_COMMIT:
			listening_end(true);
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			listening_end(false);
			break;
		default:
			break;
	}
}

static void
listening_subxact_callback(SubXactEvent event,
						   SubTransactionId subid pg_attribute_unused(),
						   SubTransactionId parent pg_attribute_unused(),
						   void *arg pg_attribute_unused())
{
	int			level = GetCurrentTransactionNestLevel();

	if (event != SUBXACT_EVENT_COMMIT_SUB && event != SUBXACT_EVENT_ABORT_SUB)
		return;
	for (int i = list_length(actions) - 1; i >= 0; i--)
	{
		Action	   *action = list_nth(actions, i);

		if (action->level < level)
			break;
		if (event == SUBXACT_EVENT_COMMIT_SUB)
			action->level = level - 1;
		else
			actions = list_truncate(actions, i);
	}
}

void
listening_init(void)
{
	RegisterXactCallback(listening_xact_callback, NULL);
	RegisterSubXactCallback(listening_subxact_callback, NULL);
}
