/*-------------------------------------------------------------------------
 *
 * listening.h
 *	  What this session listens to.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef ECTOWATCH_LISTENING_H
#define ECTOWATCH_LISTENING_H

#include "slot.h"

/* Registers the transaction callbacks; in _PG_init() only. */
extern void listening_init(void);

/* What there is to know of a LISTEN, besides its channel. */
typedef struct ListeningOptions
{
	Slot	   *slot;			/* NULL: it is no subscription */
	bool		required;		/* without room for that the commit fails; else
								 * it is none then */
	const char *log_watcher;	/* whose debugging is on, or NULL */
} ListeningOptions;

/*
 * From the commit of this (sub)transaction on, after core has accepted the
 * LISTEN, or UNLISTEN; of all channels if it is NULL.  May throw.
 */
extern void listening_add(const char *channel, const ListeningOptions *options);
extern void listening_remove(const char *channel);

/* Whether it does, as of its last commit. */
extern bool listening_has(const char *channel);

#endif							/* ECTOWATCH_LISTENING_H */
