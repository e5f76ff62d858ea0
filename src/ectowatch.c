/*-------------------------------------------------------------------------
 *
 * ectowatch.c
 *	  Loading of the library: settings, shared memory, hooks, launcher.
 *
 * ectowatch tells applications that rows have changed, without NOTIFY in
 * their writers' transactions.  The path of a change, file by file:
 *
 *		capture.c	 a row trigger fires; plan.c says who asked for it,
 *		condition.c	 which rows they want,
 *		message.c	 columns become JSON; context.c says who wrote them,
 *		pending.c	 it waits in store.c, in brief (brief.c), for the end of its
 *					 transaction; rows.c knows the newest of each row, counts.c
 *					 how many there are,
 *		queue.c		 then goes to the worker, long batches by spill.c,
 *		worker.c	 whose feed.c puts it, with a position of positions.c, into
 *		ring.c		 where readers find it,
 *		reader.c	 with the SQL of read.c and snapshot.c, if rights.c lets them;
 *		notify.c	 and sends it to LISTEN channels, as
 *		throttle.c	 lets it pass, and
 *		outbox.c	 gives it a form.
 *
 * change.c has the layout that it has in the ring.  send.c makes one of a
 * payload of ectowatch_notify(), unless taken.c says that the channel is a
 * watcher's; wait_for.c waits until those of a transaction are in the ring.
 *
 * Watchers are listed by watcher.c, and made, changed and removed in watch.c,
 * an application's list of them in declare.c.  options.c reads what is asked
 * for, validate.c and condition_sql.c check it, registry.c keeps it, trigger.c
 * sees to triggers.
 *
 * Of narrowed channels, channel.c says what they are called, narrow.c to which
 * a change goes, subscription.c to which somebody listens, as listen.c has
 * seen; subscribe.c has the functions for those who want to.
 *
 * Shared memory is laid out in slot.c, and shown by stat.c.  launcher.c starts
 * workers.  ddl.c follows commands that concern watchers, drop.c those that drop
 * the extension.
 *
 * When something is wrong, repair.c finds it in triggers and puts it right, and
 * self_test.c sends a probe through all of this.
 *
 * Words, each used for one thing only:
 *
 *	watcher		a named standing request: tell me when rows of this table are
 *				inserted, updated, deleted or truncated.  Its name is also its
 *				channel.
 *	change		one message of one watcher: about one row, or a truncate, a bulk,
 *				a gap, an end
 *	batch		all changes of one transaction
 *	pending		the batch that a transaction is still collecting
 *	queue		where committing backends hand their batches to the worker
 *	ticket		a batch's place in the queue
 *	ring		where the worker keeps the newest changes for readers
 *	position	the bigint that orders changes and resumes readers
 *	worker		the background worker of one database
 *	launcher	the background worker that starts them
 *	slot		the shared memory of one database
 *	channel		what clients LISTEN to; a narrowed one carries one key or one
 *				column value of a watcher
 *	subscription	a session that listens to a channel of a watcher
 *	gap			a change that says that others are missing
 *	bulk		a change that stands for many of one transaction
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fmgr.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/guc.h"
#include "utils/wait_event.h"

#include "context.h"
#include "ddl.h"
#include "deliver.h"
#include "ectowatch.h"
#include "launcher.h"
#include "listener.h"
#include "listening.h"
#include "pending.h"
#include "slot.h"
#include "spill.h"
#include "subscription.h"

PG_MODULE_MAGIC;

/* How many databases of the cluster may use ectowatch at once. */
int			ectowatch_max_databases = 4;

/* Room for batches on their way to the worker, per database. */
int			ectowatch_queue_size = 8 * 1024;

/* How long a commit may wait for room there. */
int			ectowatch_queue_timeout = 5;

/* Room for the newest changes, per database. */
int			ectowatch_ring_size = 32 * 1024;

/* How many subscriptions a database's sessions may have. */
int			ectowatch_max_subscriptions = 8192;

/* Memory for a transaction's changes, and for what is known of its rows. */
int			ectowatch_pending_memory = 16 * 1024;

/* Disk for messages that listening sessions have not read, per database. */
int			ectowatch_backlog_size = 1024 * 1024;

/* How long a call may wait for changes while it holds a snapshot. */
int			ectowatch_max_wait = 10 * 1000;

/* Whether this session's writes are kept from being captured. */
bool		ectowatch_mute = false;

/* Whether what happens to changes goes to the server log. */
bool		ectowatch_debug = false;

static shmem_request_hook_type prev_shmem_request_hook;
static shmem_startup_hook_type prev_shmem_startup_hook;
static bool preloaded;

static void
ectowatch_shmem_request(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();

	RequestAddinShmemSpace(slot_shmem_size());
	RequestAddinShmemSpace(listener_shmem_size());
	RequestNamedLWLockTranche(ECTOWATCH_NAME, 1);
	RequestNamedLWLockTranche(SUBSCRIPTION_TRANCHE, ectowatch_max_databases);
}

static void
ectowatch_shmem_startup(void)
{
	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	slot_shmem_init();
	listener_shmem_init();
	LWLockRelease(AddinShmemInitLock);

	if (!IsUnderPostmaster)
		spill_remove_all();
}

static void
ectowatch_define_settings(void)
{
	DefineCustomIntVariable("ectowatch.max_databases",
							"Sets how many databases can use ectowatch at once.",
							"Each takes one of max_worker_processes.",
							&ectowatch_max_databases,
							4, 1, 1000, PGC_POSTMASTER, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable("ectowatch.queue_size",
							"Sets the shared memory, per database, for changes on their way to the worker.",
							NULL,
							&ectowatch_queue_size,
							8 * 1024, 64, MAX_KILOBYTES / 2, PGC_POSTMASTER,
							GUC_UNIT_KB,
							NULL, NULL, NULL);
	DefineCustomIntVariable("ectowatch.queue_timeout",
							"Sets how long a commit may wait for room in the queue.",
							"Then its changes are dropped, and a gap says so.",
							&ectowatch_queue_timeout,
							5, 0, 1000, PGC_SUSET, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomIntVariable("ectowatch.ring_size",
							"Sets the shared memory, per database, for the newest changes.",
							"What no longer fits can no longer be read.",
							&ectowatch_ring_size,
							32 * 1024, 1024, MAX_KILOBYTES / 2, PGC_POSTMASTER,
							GUC_UNIT_KB,
							NULL, NULL, NULL);
	DefineCustomIntVariable("ectowatch.max_subscriptions",
							"Sets how many subscriptions the sessions of a database may have.",
							"A session has one for each channel of a watcher to which it listens.",
							&ectowatch_max_subscriptions,
							8192, 1, 1024 * 1024, PGC_POSTMASTER, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable("ectowatch.pending_memory",
							"Sets the memory for the changes of a transaction.",
							"What does not fit goes to a temporary file.",
							&ectowatch_pending_memory,
							16 * 1024, 64, MAX_KILOBYTES, PGC_USERSET,
							GUC_UNIT_KB,
							NULL, NULL, NULL);
	DefineCustomIntVariable("ectowatch.backlog_size",
							"Sets the disk space, per database, for messages that listening sessions have not read.",
							"When it is used up, nothing is sent to channels until they have.",
							&ectowatch_backlog_size,
							1024 * 1024, 0, INT_MAX, PGC_SIGHUP,
							GUC_UNIT_KB,
							NULL, NULL, NULL);
	DefineCustomIntVariable("ectowatch.max_wait",
							"Sets how long a call may wait for changes while it holds a snapshot.",
							"That is ectowatch_changes(), and in a transaction block ectowatch_wait().",
							&ectowatch_max_wait,
							10 * 1000, 0, INT_MAX, PGC_SUSET, GUC_UNIT_MS,
							NULL, NULL, NULL);
	context_init();
	DefineCustomBoolVariable("ectowatch.mute",
							 "Captures no changes of this session, or transaction.",
							 "Watchers of the tables that it writes get a gap with their number.",
							 &ectowatch_mute,
							 false, PGC_SUSET, 0,
							 NULL, NULL, NULL);
	DefineCustomBoolVariable("ectowatch.debug",
							 "Logs what happens to watchers, changes and subscriptions.",
							 "Option debug of a watcher does so for that one.",
							 &ectowatch_debug,
							 false, PGC_SUSET, 0,
							 NULL, NULL, NULL);
	MarkGUCPrefixReserved(ECTOWATCH_NAME);
}

/*
 * Runs in the postmaster, or, where the library is not preloaded, in a session
 * that first calls one of its functions: then it must not fail, since that
 * may be a trigger on a user's table, and does nothing.
 */
void
_PG_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;

	ectowatch_define_settings();
	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = ectowatch_shmem_request;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = ectowatch_shmem_startup;
	pending_init();
	ddl_init();
	listening_init();
	deliver_init();
	launcher_init();
	preloaded = true;
}

pg_attribute_hot bool
ectowatch_is_preloaded(void)
{
	return preloaded;
}

void
ectowatch_require_preload(void)
{
	if (!preloaded)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("ectowatch is not loaded at server start"),
				 errhint("Add this to postgresql.conf and restart the server: shared_preload_libraries = 'ectowatch'")));
}

#ifdef ECTOWATCH_WAIT_POINTS
void
ectowatch_wait_point(const char *name, bool interruptible)
{
	char		held[MAXPGPATH];
	char		reached[MAXPGPATH];
	struct stat st;
	FILE	   *file;

	snprintf(held, sizeof(held), "%s/ectowatch_wait.%s", DataDir, name);
	if (stat(held, &st) != 0)
		return;
	snprintf(reached, sizeof(reached), "%s.reached", held);
	file = fopen(reached, "w");
	if (file)
		fclose(file);
	while (stat(held, &st) == 0)
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 10, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		if (interruptible)
			CHECK_FOR_INTERRUPTS();
	}
	unlink(reached);
	SetLatch(MyLatch);			/* may have been reset here */
}
#endif
