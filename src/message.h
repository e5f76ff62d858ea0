/*-------------------------------------------------------------------------
 *
 * message.h
 *	  JSON of a change: its values, and the message for a channel.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef ECTOWATCH_MESSAGE_H
#define ECTOWATCH_MESSAGE_H

#include "executor/tuptable.h"
#include "fmgr.h"
#include "lib/stringinfo.h"

#include "change.h"

/* How a column's values are rendered. */
typedef enum MessageKind
{
	MESSAGE_INT2,
	MESSAGE_INT4,
	MESSAGE_INT8,
	MESSAGE_BOOL,
	MESSAGE_TEXT,
	MESSAGE_UUID,
	MESSAGE_JSON,				/* by to_json */
	MESSAGE_GUARDED				/* by to_json, which runs others' code */
} MessageKind;

typedef struct MessageColumn
{
	AttrNumber	attnum;
	int			offset;			/* in rows without nulls; -1: not always there */
	int16		typlen;
	bool		typbyval;
	MessageKind kind;
	bool		by_search_path; /* its output depends on that */
	bool		by_lc_monetary; /* or on that */
	bool		foreign_json;	/* renders what others wrote as JSON */
	char	   *label;			/* "name": as JSON */
	int			label_len;
	FmgrInfo	to_json;		/* for MESSAGE_JSON and MESSAGE_GUARDED */
} MessageColumn;

/*
 * Prepares a column of a tuple descriptor, which has that name in messages;
 * memory of the current context.
 */
extern void message_column_init(MessageColumn *column, TupleDesc desc,
								AttrNumber attnum, const char *name);

/* Whether its output depends on settings, which have to be fixed meanwhile. */
extern bool message_column_by_settings(const MessageColumn *column);

/*
 * Appends {"a":1,...} of a row: all columns, or, unless it is NULL, those that
 * 'wanted' says; 'by_settings' if that is true of one of them.  Returns false if values had to be left out,
 * being too long or failing: then only the first nkeys columns are there, or,
 * if that is impossible too, nothing but {}.  *keys_len becomes the length up
 * to the last key.  Throws only for want of memory, or if cancelled.
 */
extern bool message_append_values(StringInfo out, TupleTableSlot *row,
								  MessageColumn *columns, int ncolumns,
								  bool by_settings, const bool *wanted,
								  int nkeys, uint32 *keys_len);

/* Appends a text as a JSON string, without a terminator behind it. */
extern void message_append_text(StringInfo out, const char *string, int len);

/* Whether a column's values differ, bit by bit. */
extern bool message_column_differs(const MessageColumn *column,
								   TupleTableSlot *a, TupleTableSlot *b);

/*
 * NOTIFY takes payloads of less than 8000 bytes: async.c's
 * NOTIFY_PAYLOAD_MAX_LENGTH, which is private there.
 */
#define MESSAGE_MAX_LENGTH		(BLCKSZ - NAMEDATALEN - 128 - 1)

/*
 * The message for a channel: {"type":..,"values":{..},"position":N}.  'of' is
 * how many changes its transaction has.  Left short of what does not fit into
 * 'max' bytes.  Replaces what is in 'out'.
 */
extern void message_for_channel(StringInfo out, const Change *change,
								uint64 position, uint32 of, int max);

/* Appends what is shown of the old values; there must be something. */
extern void message_append_old(StringInfo out, const Change *change);

/*
 * Appends the context, with how many changes its transaction has as its first
 * member, unless that is 0.  'brief': nothing but that.
 */
extern void message_append_context(StringInfo out, const Change *change,
								   uint32 of, bool brief);

/* The values of a gap.  An unknown from or count is 0 and becomes null. */
extern void message_gap_values(StringInfo out, uint64 from, uint64 to,
							   uint64 changes, const char *reason);

#endif							/* ECTOWATCH_MESSAGE_H */
