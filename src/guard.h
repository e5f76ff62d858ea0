/*-------------------------------------------------------------------------
 *
 * guard.h
 *	  Subtransactions for what may throw.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef ECTOWATCH_GUARD_H
#define ECTOWATCH_GUARD_H

/*
 * Begins an internal subtransaction.  False if this transaction has had so many
 * that it may need the rest itself.
 */
extern bool guard_begin(void);

#endif							/* ECTOWATCH_GUARD_H */
