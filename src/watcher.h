/*-------------------------------------------------------------------------
 *
 * watcher.h
 *	  What is watched: the registry of watchers and this backend's cache.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef ECTOWATCH_WATCHER_H
#define ECTOWATCH_WATCHER_H

#include "nodes/pg_list.h"
#include "utils/relcache.h"

#include "message.h"

/* Events as bits; 'changed' is all of them. */
#define EVENT_INSERTED		0x01
#define EVENT_UPDATED		0x02
#define EVENT_DELETED		0x04
#define EVENT_TRUNCATED		0x08
#define EVENT_CHANGED		0x0F

/* A row of the registry. */
typedef struct WatcherDef
{
	uint32		id;
	char	   *name;
	Oid			relation;		/* may be gone */
	char	   *relation_name;	/* not set here, for the caller's use */
	int			events;
	char	   *event;			/* as the user calls them */
	char	   *label;			/* or NULL */
	List	   *trigger_columns;	/* of char *, as all columns */
	List	   *extra_columns;
	List	   *key_columns;	/* resolved: never empty, but for truncated */
	bool		key_given;		/* by the user, not found */
	uint64		run;			/* of the server when it was made */
} WatcherDef;

/* How one watcher renders rows of one relation. */
typedef struct WatcherPlan
{
	uint32		id;
	char	   *name;
	bool		fresh;			/* CHANGE_FRESH */
	bool		key_unique;
	int			nkeys;			/* of columns[], the first ones */
	int			ncolumns;
	MessageColumn *columns;
	AttrNumber *origin_columns; /* their numbers in the watched relation */
	int			ntriggers;
	MessageColumn *triggers;	/* columns of which one must differ */
	bool		foreign_json;	/* CHANGE_FOREIGN_JSON */
	bool		incomplete;		/* a column that it names is gone */
} WatcherPlan;

/* What one trigger has to do. */
typedef struct TriggerPlan
{
	Oid			trigger;
	Oid			relation;		/* that fires it, perhaps a partition */
	Oid			origin;			/* that is watched */
	char	   *origin_name;	/* schema-qualified */
	int			nwatchers;
	WatcherPlan *watchers;
} TriggerPlan;

/*
 * What a trigger has to do for an event; valid until the transaction ends,
 * even if it is changed meanwhile.
 */
extern const TriggerPlan *watcher_trigger_plan(Relation relation, Oid trigger,
											   int event);

/*
 * OIDs of ectowatch's own objects in this database; InvalidOid where the
 * extension is not there.
 */
extern Oid	watcher_registry_oid(void);
extern Oid	watcher_positions_oid(void);

/*
 * All watchers (relation is InvalidOid) or those of one relation, in the order
 * of their ids, as of now and not of a snapshot.  In the current context.
 */
extern List *watcher_list(Oid relation);

/* Of one name, or NULL. */
extern WatcherDef *watcher_find(const char *name);

/* The numbers of the columns that a watcher delivers, if they are there. */
extern AttrNumber *watcher_columns(const WatcherDef *def, int *n);

/*
 * Removes watchers of a relation that is being dropped, and tells their
 * listeners.
 */
extern void watcher_relation_dropped(Oid relation);

/* "schema.table", quoted as needed; NULL if the relation is gone. */
extern char *watcher_relation_name(Oid relation);

#endif							/* ECTOWATCH_WATCHER_H */
