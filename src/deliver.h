/*-------------------------------------------------------------------------
 *
 * deliver.h
 *	  From the board to this session's client.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef ECTOWATCH_DELIVER_H
#define ECTOWATCH_DELIVER_H

/* Registers the transaction callback; in _PG_init() only. */
extern void deliver_init(void);

#endif							/* ECTOWATCH_DELIVER_H */
