/*-------------------------------------------------------------------------
 *
 * context.h
 *	  Who makes a change: what an envelope carries.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef ECTOWATCH_CONTEXT_H
#define ECTOWATCH_CONTEXT_H

/* The most that a context takes in a change. */
#define CONTEXT_MAX_SIZE	8192

/* Defines setting ectowatch.context; in _PG_init() only. */
extern void context_init(void);

/*
 * The context as JSON, valid until the next call.  *foreign says whether it
 * holds JSON that others wrote.  Throws only for want of memory.
 */
extern const char *context_json(bool *foreign);

#endif							/* ECTOWATCH_CONTEXT_H */
