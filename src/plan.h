/*-------------------------------------------------------------------------
 *
 * plan.h
 *	  What a trigger has to do: this backend's cache.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef ECTOWATCH_PLAN_H
#define ECTOWATCH_PLAN_H

#include "utils/relcache.h"

#include "condition.h"
#include "message.h"
#include "store.h"
#include "watcher.h"

/* How one watcher renders rows of one relation. */
typedef struct WatcherPlan
{
	const WatcherDef *def;
	ChangeParts parts;			/* what is known of its changes, but for type */
	bool		key_unique;
	MessageColumn *columns;		/* as many as parts says, the key first */
	bool		by_settings;	/* some of them are */
	int			group;			/* the same for those that render rows alike;
								 * not 0 */
	int			ntriggers;
	MessageColumn *triggers;	/* columns of which one must differ */
	AttrNumber	last_attnum;	/* the highest of all these columns */
	AttrNumber	last_varying;	/* of those that have no fixed place */
	Condition  *condition;		/* or NULL */
	StoreHead  *head;			/* of this transaction's changes by this plan */
} WatcherPlan;

/* What one trigger has to do. */
typedef struct TriggerPlan
{
	Oid			trigger;
	Oid			relation;		/* that fires it, perhaps a partition */
	Oid			origin;			/* that is watched */
	char	   *origin_name;	/* schema-qualified */
	bool		alone;			/* no other trigger captures that event */
	int			nwatchers;
	WatcherPlan *watchers;
} TriggerPlan;

/*
 * What a trigger has to do for an event; valid until the transaction ends,
 * even if it is changed meanwhile.
 */
extern const TriggerPlan *plan_of_trigger(Relation relation, Oid trigger, int event);

/*
 * A number that grows when watchers may have changed: what was looked up at
 * another one has to be looked up again.
 */
extern uint64 plan_generation(void);

#endif							/* ECTOWATCH_PLAN_H */
