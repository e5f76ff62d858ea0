/*-------------------------------------------------------------------------
 *
 * change.h
 *	  A change as bytes: one layout in pending, spill file, queue and ring.
 *
 * A change names its watcher and relation itself, so that whoever reads it
 * needs no catalog.  It has the numbers of the columns that it shows, in the
 * watched relation, because rights to read them are rights to read it.  How it
 * is to be sent it says itself, too.  Its values are finished JSON, in which
 * the key's columns come first: the part up to 'keys_len', closed by a brace,
 * is what is sent where the whole does not fit.
 *
 * The old values of an update are those of the key, if that changed, and then
 * those of other columns that changed, so that channels which are narrowed to
 * them can be found.  Readers are shown the part up to 'old_shown', closed by a
 * brace.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef ECTOWATCH_CHANGE_H
#define ECTOWATCH_CHANGE_H

#include "access/attnum.h"

typedef enum ChangeType
{
	CHANGE_INSERTED,
	CHANGE_UPDATED,
	CHANGE_DELETED,
	CHANGE_TRUNCATED,
	CHANGE_BULK,				/* stands for many of one transaction */
	CHANGE_GAP,					/* others are missing */
	CHANGE_ENDED,				/* the watcher was removed */
	CHANGE_NOTIFY				/* a payload for a channel, of no watcher */
} ChangeType;

/* How the changes of a watcher go to channels. */
typedef enum ChangeDelivery
{
	DELIVERY_EACH,				/* a message for each */
	DELIVERY_PACKED,			/* as many in a message as fit */
	DELIVERY_DOORBELL,			/* a message that there are some */
	DELIVERY_NONE				/* not at all: to the ring only */
} ChangeDelivery;

/*
 * Values are missing, because they were too long, could not be rendered, or
 * their columns are gone.
 */
#define CHANGE_PARTIAL		0x01

/* The watcher was made since the server started, so it missed no restart. */
#define CHANGE_FRESH		0x02

/* The values hold JSON that others wrote, which jsonb may not take. */
#define CHANGE_FOREIGN_JSON	0x04

/* What happens to it goes to the server log. */
#define CHANGE_DEBUG		0x08

/* Of the old values that changed some are missing. */
#define CHANGE_OLD_CUT		0x10

/* Others of its batch are told in brief, by reference to it (brief.h). */
#define CHANGE_HEAD			0x20

/*
 * It is about a version of a row that has a successor, and only for the
 * narrowed channels of the old values: others hear of the successor alone.
 */
#define CHANGE_LEFT			0x40

typedef struct Change
{
	uint32		size;			/* of the whole, a multiple of 8 */
	uint32		watcher;		/* id */
	Oid			relation;
	uint8		type;			/* ChangeType */
	uint8		delivery;		/* ChangeDelivery */
	uint16		flags;
	uint16		ncolumns;
	uint16		nkeys;			/* the first members of values are the key */
	uint16		name_len;
	uint16		relation_len;
	uint32		keys_len;
	uint32		values_len;
	uint32		old_len;		/* 0: no old values */
	uint32		old_shown;		/* 0: none is shown */
	uint32		context_len;	/* 0: no context */
	uint32		throttle;		/* ms between messages of a key; 0: none */
	uint32		count;			/* of a bulk, or a gap that a backend made:
								 * changes that it stands for */
	AttrNumber	columns[FLEXIBLE_ARRAY_MEMBER];	/* then, as text, name,
												 * relation, values, old,
												 * context */
} Change;

/* The parts, none of which is terminated. */
#define change_name(c)		((char *) &(c)->columns[(c)->ncolumns])
#define change_relation(c)	(change_name(c) + (c)->name_len)
#define change_values(c)	(change_relation(c) + (c)->relation_len)
#define change_old(c)		(change_values(c) + (c)->values_len)
#define change_context(c)	(change_old(c) + (c)->old_len)

/* About the longest change that is carried; beyond it one becomes partial. */
extern uint32 change_max_size(void);

/* A change in parts; what is zero is not there. */
typedef struct ChangeParts
{
	uint32		watcher;
	Oid			relation;
	ChangeType	type;
	ChangeDelivery delivery;
	int			flags;
	const char *name;
	const char *relation_name;	/* NULL: the relation is gone */
	int			ncolumns;
	const AttrNumber *columns;
	const char *values;			/* NULL: {} */
	uint32		values_len;
	uint32		keys_len;
	int			nkeys;
	const char *old;
	uint32		old_len;
	uint32		old_shown;
	const char *context;
	uint32		context_len;
	uint32		throttle;
	uint32		count;
} ChangeParts;

/* The bytes that a change takes, and writing it there. */
extern Size change_needs(const ChangeParts *parts);
extern void change_write(Change *change, Size size, const ChangeParts *parts);

/*
 * Builds a change in memory of the current context.  Fails only for want of
 * memory.
 */
extern Change *change_make(const ChangeParts *parts);

/*
 * A digest of what readers are shown of a change; never 0.  Of parts that have
 * values, it is that of the change which is made of them.
 */
extern uint64 change_digest(const Change *change);
extern uint64 change_parts_digest(const ChangeParts *parts);

/* A hash of its key. */
extern uint64 change_key_hash(const char *values, uint32 keys_len);

/* Copies its name, terminated; 'name' has room for NAMEDATALEN bytes. */
extern void change_copy_name(const Change *change, char *name);

/* "inserted" and so on. */
extern const char *change_type_name(ChangeType type);

#endif							/* ECTOWATCH_CHANGE_H */
