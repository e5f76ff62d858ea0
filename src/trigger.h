/*-------------------------------------------------------------------------
 *
 * trigger.h
 *	  Creating, finding and dropping the triggers of watched tables.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef ECTOWATCH_TRIGGER_H
#define ECTOWATCH_TRIGGER_H

#include "nodes/pg_list.h"

/* Events that can have a trigger: the bits of EVENT_CHANGED, by number. */
#define NEVENTS		4

/* A trigger that calls the capture function, whoever made it. */
typedef struct TriggerInfo
{
	Oid			oid;
	Oid			relation;
	Oid			parent;			/* of which it is a clone, or InvalidOid */
	const char *name;
	int			events;			/* as bits */
	bool		well_formed;	/* as ectowatch makes them */
	bool		ours;			/* by its name */
	char		enabled;		/* tgenabled */
} TriggerInfo;

/*
 * The events, of those given, for which a relation has a trigger of ours, as
 * it has to be; with their OIDs, by number of the event, unless triggers is
 * NULL.  Takes no lock on the relation.
 */
extern int	triggers_of(Oid relation, int events, Oid *triggers);

/*
 * Those of the events whose trigger is not there, or, for a replicated watcher,
 * does not fire for what replication writes.  Takes no lock either.
 */
extern int	triggers_missing(Oid relation, int events, bool replicated);

/*
 * Creates those that are missing, or makes them fire ALWAYS.  The caller holds
 * ShareRowExclusiveLock on the relation if there are any, and has checked its
 * ownership.
 */
extern void triggers_create_missing(Oid relation, int events, bool replicated);

/* All of them in this database, but for those of temporary tables. */
extern List *triggers_list(void);

/*
 * The relations that have one, temporary tables and partitions, whose triggers
 * are clones, included; as often as they have one.
 */
extern List *triggers_relations(void);

/*
 * Creates the trigger for an event, by number, as triggers_create_missing()
 * does; its name.
 */
extern char *trigger_create(Oid relation, int event);

/*
 * Enables a trigger, and its clones on partitions: always, or for ordinary
 * sessions only.  The caller holds ShareRowExclusiveLock on the relation.
 */
extern void trigger_enable(Oid relation, const char *name, bool always);

/*
 * Drops a trigger if its relation with all partitions can be locked at once,
 * else returns false.
 */
extern bool trigger_drop_at_once(Oid relation, Oid trigger);

/*
 * Drops those for which there is no watcher any longer, if the relation and
 * all of its partitions can be locked at once; else says that they stay.
 */
extern void triggers_drop_idle(Oid relation);

#endif							/* ECTOWATCH_TRIGGER_H */
