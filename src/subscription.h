/*-------------------------------------------------------------------------
 *
 * subscription.h
 *	  Who listens to what.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef ECTOWATCH_SUBSCRIPTION_H
#define ECTOWATCH_SUBSCRIPTION_H

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"

#include "slot.h"

/* Its tranche of LWLocks, one for each slot. */
#define SUBSCRIPTION_TRANCHE	"ectowatch_subscription"

/* --- start of the server (ectowatch.c, slot.c) --- */

extern Size subscription_shmem_size(void);

extern void subscription_shmem_startup(void);

/* A database claims the slot of this number; 'used': another one had it. */
extern void subscription_shmem_claim(Subscriptions *subscriptions, int number,
									 bool used);

/* --- who delivers (notify.c); any process --- */

/*
 * Whether some session listens to a narrowed channel of a watcher; to one
 * with a hashed name.  Takes no lock and is cheap enough to be asked for each
 * change.  May be true where there is none, never false where there is one.
 */
extern bool subscription_any_narrowed(Slot *slot, const char *watcher);
extern bool subscription_any_hashed(Slot *slot, const char *watcher);

/*
 * Whether some session listens to this channel, of those that are tracked:
 * a shared lock and a look into a hash table.
 */
extern bool subscription_exists(Slot *slot, const char *channel);

/*
 * The narrowed channels of a watcher to which some session listens, each once,
 * in order: a list of char * in the current context.  Looks through all
 * subscriptions.
 */
extern List *subscription_narrowed(Slot *slot, const char *watcher);

/* --- who looks (stat.c, checks) --- */

typedef struct Subscription
{
	int			pid;
	Oid			role;			/* the session's user */
	TimestampTz since;
	char		channel[NAMEDATALEN];
} Subscription;

/* All of them, in no order; memory of the current context. */
extern Subscription *subscription_list(Slot *slot, int *n);

/* --- this session (listening.c) --- */

/* Makes an entry; 0 if there is no room. */
extern uint32 subscription_make(Subscriptions *subscriptions,
								const Subscription *what);

/* Legal where nothing may fail. */
extern void subscription_free(Subscriptions *subscriptions, uint32 index);

#endif							/* ECTOWATCH_SUBSCRIPTION_H */
