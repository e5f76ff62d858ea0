/*-------------------------------------------------------------------------
 *
 * ddl.h
 *	  Following commands on tables and on databases.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef ECTOWATCH_DDL_H
#define ECTOWATCH_DDL_H

/* Installs the hooks; in _PG_init() only. */
extern void ddl_init(void);

#endif							/* ECTOWATCH_DDL_H */
