/*-------------------------------------------------------------------------
 *
 * worker.h
 *	  The background worker of one database.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef ECTOWATCH_WORKER_H
#define ECTOWATCH_WORKER_H

#include "fmgr.h"

/* The argument is the number of the slot. */
extern PGDLLEXPORT void ectowatch_worker_main(Datum arg);

#endif							/* ECTOWATCH_WORKER_H */
