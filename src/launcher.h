/*-------------------------------------------------------------------------
 *
 * launcher.h
 *	  The background worker that starts the workers of databases.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef ECTOWATCH_LAUNCHER_H
#define ECTOWATCH_LAUNCHER_H

#include "fmgr.h"

/* Registers the launcher with the postmaster; in _PG_init() only. */
extern void launcher_init(void);

extern PGDLLEXPORT void ectowatch_launcher_main(Datum arg);

#endif							/* ECTOWATCH_LAUNCHER_H */
