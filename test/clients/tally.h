/*-------------------------------------------------------------------------
 *
 * tally.h
 *	  Counts changes by watcher and type, and checks their order.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef TALLY_H
#define TALLY_H

#include <stdbool.h>
#include <stddef.h>

/*
 * 'counter' names a field of values that each change of a row increments by
 * one, or is NULL.  Then a row is known by the other fields of its values.
 */
extern void tally_init(const char *counter);

/* A change as it was received; values is the text of a JSON object. */
extern void tally_add(const char *watcher, const char *type,
					  size_t type_len, const char *values, long long position);

/* The same for a message of a channel; false if it is not what we know. */
extern bool tally_add_message(const char *channel, const char *message);

/* Prints the counts, then what was wrong, a line each, columns by tabs. */
extern void tally_print(void);

#endif							/* TALLY_H */
