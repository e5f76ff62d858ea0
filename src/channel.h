/*-------------------------------------------------------------------------
 *
 * channel.h
 *	  Names of narrowed channels.
 *
 * Knows no catalog and no shared memory; the encoding is the database's.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef ECTOWATCH_CHANNEL_H
#define ECTOWATCH_CHANNEL_H

#include "lib/stringinfo.h"

#define CHANNEL_SEPARATOR	'|'

/*
 * The narrowed channel of a column, by its name in messages, and a value as
 * text: <watcher>|<column>|<value>, or what stands for it.  'out' has
 * NAMEDATALEN bytes.  Returns whether it is hashed; if 'hashed' is false such
 * a name is not made, and 'out' becomes empty.
 */
extern bool channel_narrowed(char *out, const char *watcher,
							 const char *column, Size column_len,
							 const char *value, Size value_len, bool hashed);

/*
 * Appends the text that a value has in a channel's name: that of its JSON, a
 * string without its quotes and escapes.  False for null, which has none.
 */
extern bool channel_value(StringInfo out, const char *json, Size len);

/* Whether a channel has the form of a narrowed or of a hashed one. */
extern bool channel_is_narrowed(const char *channel);
extern bool channel_is_hashed(const char *channel);

/* Whether it is a narrowed channel of this watcher, hashed or not. */
extern bool channel_is_of(const char *channel, const char *watcher);

/*
 * What all hashed channels of a watcher begin with; 'out' has NAMEDATALEN
 * bytes.  The same of a hashed channel.
 */
extern void channel_hashed_prefix(char *out, const char *watcher);
extern void channel_prefix_of_hashed(char *out, const char *channel);

/* Equal for a watcher's name and for all of its narrowed channels. */
extern uint32 channel_watcher_hash(const char *name);

#endif							/* ECTOWATCH_CHANNEL_H */
