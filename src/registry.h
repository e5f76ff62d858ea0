/*-------------------------------------------------------------------------
 *
 * registry.h
 *	  The table in which watchers are kept: its columns, reading and writing it.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef ECTOWATCH_REGISTRY_H
#define ECTOWATCH_REGISTRY_H

#include "access/htup.h"
#include "access/skey.h"
#include "utils/relcache.h"

#include "watcher.h"

#define REGISTRY_NAME				"ectowatch_registry"
#define REGISTRY_RELATION_INDEX		"ectowatch_registry_relation_idx"
#define REGISTRY_NAME_INDEX			"ectowatch_registry_name_key"

#define Anum_registry_id				1
#define Anum_registry_name				2
#define Anum_registry_relation			3
#define Anum_registry_event				4
#define Anum_registry_label				5
#define Anum_registry_application		6
#define Anum_registry_trigger_columns	7
#define Anum_registry_extra_columns		8
#define Anum_registry_condition			9
#define Anum_registry_key_columns		10
#define Anum_registry_key_given			11
#define Anum_registry_column_map		12
#define Anum_registry_old_values		13
#define Anum_registry_delivery			14
#define Anum_registry_bulk_threshold	15
#define Anum_registry_throttle			16
#define Anum_registry_envelope			17
#define Anum_registry_replicated		18
#define Anum_registry_debug				19
#define Anum_registry_run				20
#define Anum_registry_condition_given	21
#define Anum_registry_condition_basis	22
#define Natts_registry					22

/*
 * The rows as of now, whatever the transaction's isolation level, by an index
 * or (InvalidOid) all of them.  A row is good until the next one is asked for;
 * NULL: there is none.
 */
typedef struct RegistryScan RegistryScan;

extern RegistryScan *registry_scan_begin(Relation registry, Oid index,
										 int nkeys, ScanKey keys);
extern HeapTuple registry_scan_next(RegistryScan *scan);
extern void registry_scan_end(RegistryScan *scan);

/* A row of the registry, in the current memory context. */
extern WatcherDef *registry_read(Relation registry, HeapTuple tuple);

/* By id; for list_sort(). */
extern int	registry_compare(const ListCell *a, const ListCell *b);

/*
 * The events that a name stands for; 0 if it stands for none.
 */
extern int	registry_event(const char *event);

/* "each" and so on; false if there is no such. */
extern bool registry_delivery(const char *name, ChangeDelivery *delivery);
extern const char *registry_delivery_name(ChangeDelivery delivery);

/*
 * Add, replace (by id), or remove (by id) a row, and invalidate the watched
 * relation's plans.  The caller holds a lock on the registry that keeps out
 * other writers of that row.  registry_remove() says whether it was there.
 */
extern void registry_insert(const WatcherDef *def);
extern void registry_update(const WatcherDef *def);
extern bool registry_remove(const WatcherDef *def);

#endif							/* ECTOWATCH_REGISTRY_H */
