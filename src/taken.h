/*-------------------------------------------------------------------------
 *
 * taken.h
 *	  Whether a channel belongs to a watcher.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef ECTOWATCH_TAKEN_H
#define ECTOWATCH_TAKEN_H

/*
 * Whether a channel is a watcher's, or narrowed from it, as of now; in a
 * transaction.  With 'wait' false it does not wait while somebody has the
 * registry locked, and then says no.
 */
extern bool channel_is_taken(const char *channel, bool wait);

#endif							/* ECTOWATCH_TAKEN_H */
