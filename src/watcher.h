/*-------------------------------------------------------------------------
 *
 * watcher.h
 *	  What is watched: the watchers in the registry.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef ECTOWATCH_WATCHER_H
#define ECTOWATCH_WATCHER_H

#include "nodes/pg_list.h"

#include "change.h"


/* Events as bits; 'changed' is all of them. */
#define EVENT_INSERTED		0x01
#define EVENT_UPDATED		0x02
#define EVENT_DELETED		0x04
#define EVENT_TRUNCATED		0x08
#define EVENT_CHANGED		0x0F

/* A column's name in messages. */
typedef struct ColumnName
{
	char	   *column;
	char	   *name;
} ColumnName;

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
	char	   *application;	/* that has declared it, or NULL */
	List	   *trigger_columns;	/* of char *, as all columns; may be "*" */
	List	   *extra_columns;	/* the same */
	char	   *condition;		/* qualified; or NULL */
	char	   *condition_given;	/* as the user wrote it; or NULL */
	List	   *condition_basis;	/* of char *: see condition_sql.h */
	List	   *key_columns;	/* resolved: never empty, but for truncated */
	bool		key_given;		/* by the user, not found */
	List	   *column_map;		/* of ColumnName */
	bool		old_values;
	ChangeDelivery delivery;
	int			bulk_threshold; /* 0: none */
	uint32		throttle;		/* ms; 0: none */
	bool		envelope;
	bool		replicated;
	bool		debug;
	uint64		run;			/* of the server when it was made */
	int			given;			/* GIVEN_...: what a caller asks for, and what
								 * has to be checked; none in the registry */
} WatcherDef;

#define GIVEN_TRIGGER_COLUMNS	0x01
#define GIVEN_EXTRA_COLUMNS		0x02
#define GIVEN_CONDITION			0x04
#define GIVEN_KEY_COLUMNS		0x08
#define GIVEN_COLUMN_MAP		0x10
#define GIVEN_ALL				0x1F

/* A member of the values of a watcher's messages. */
typedef struct WatcherMember
{
	AttrNumber	attnum;			/* in the watched relation */
	char	   *column;
	char	   *name;
} WatcherMember;

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

/* The watcher to whose channel, or narrowed channel, a name belongs, or NULL. */
extern WatcherDef *watcher_of_channel(const char *channel);

/* Whether a list of columns is '{*}': all, whatever they are by now. */
extern bool watcher_wants_all(List *columns);

/* What a column is called in a watcher's messages. */
extern const char *watcher_member_name(const WatcherDef *def,
									   const char *column);

/*
 * What a watcher delivers by now, in order, the key first: a list of
 * WatcherMember, of columns that are there.
 */
extern List *watcher_members(const WatcherDef *def, int *nkeys);

/* Their numbers alone. */
extern AttrNumber *watcher_columns(const WatcherDef *def, int *n);

/* What all of its changes have in common; the rest of 'parts' becomes none. */
extern void watcher_change_parts(const WatcherDef *def, Oid origin,
								 const char *origin_name, ChangeParts *parts);

/*
 * Removes watchers of a relation that is being dropped, and tells their
 * listeners.
 */
extern void watcher_relation_dropped(Oid relation);

/* "schema.table", quoted as needed; NULL if the relation is gone. */
extern char *watcher_relation_name(Oid relation);

#endif							/* ECTOWATCH_WATCHER_H */
