/*-------------------------------------------------------------------------
 *
 * change.h
 *	  A change as bytes: one layout in pending, spill file, queue and ring.
 *
 * A change names its watcher and relation itself, so that whoever reads it
 * needs no catalog.  It has the numbers of the columns that it shows, in the
 * watched relation, because rights to read them are rights to read it.  Its
 * values are finished JSON, in which the key's columns come first: the part up
 * to 'keys_len', closed by a brace, is what is sent where the whole does not
 * fit.
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
	CHANGE_GAP,					/* others are missing */
	CHANGE_ENDED				/* the watcher was removed */
} ChangeType;

/*
 * Values are missing, because they were too long, could not be rendered, or
 * their columns are gone.
 */
#define CHANGE_PARTIAL		0x01

/* The watcher was made since the server started, so it missed no restart. */
#define CHANGE_FRESH		0x02

/* The values hold JSON that others wrote, which jsonb may not take. */
#define CHANGE_FOREIGN_JSON	0x04

typedef struct Change
{
	uint32		size;			/* of the whole, a multiple of 8 */
	uint32		watcher;		/* id */
	Oid			relation;
	uint8		type;			/* ChangeType */
	uint8		flags;
	uint16		ncolumns;
	uint16		name_len;
	uint16		relation_len;
	uint32		keys_len;
	uint32		values_len;
	uint32		old_len;		/* 0: no old values */
	AttrNumber	columns[FLEXIBLE_ARRAY_MEMBER];	/* then, as text, name,
												 * relation, values, old */
} Change;

/* The parts, none of which is terminated. */
#define change_name(c)		((char *) &(c)->columns[(c)->ncolumns])
#define change_relation(c)	(change_name(c) + (c)->name_len)
#define change_values(c)	(change_relation(c) + (c)->relation_len)
#define change_old(c)		(change_values(c) + (c)->values_len)

/* About the longest change that is carried; beyond it one becomes partial. */
extern uint32 change_max_size(void);

/* A change in parts. */
typedef struct ChangeParts
{
	uint32		watcher;
	Oid			relation;
	ChangeType	type;
	int			flags;
	const char *name;
	const char *relation_name;	/* NULL: the relation is gone */
	int			ncolumns;
	const AttrNumber *columns;
	const char *values;			/* NULL: {} */
	uint32		values_len;
	uint32		keys_len;
	const char *old;			/* NULL: none */
	uint32		old_len;
} ChangeParts;

/*
 * Builds a change in memory of the current context.  Fails only for want of
 * memory.
 */
extern Change *change_make(const ChangeParts *parts);

/* "inserted" and so on. */
extern const char *change_type_name(ChangeType type);

#endif							/* ECTOWATCH_CHANGE_H */
