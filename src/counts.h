/*-------------------------------------------------------------------------
 *
 * counts.h
 *	  How many changes of each watcher a transaction has, and summaries.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef ECTOWATCH_COUNTS_H
#define ECTOWATCH_COUNTS_H

#include "store.h"

/* How many there are of one watcher. */
typedef struct Count
{
	uint32		watcher;
	uint64		stored;
	uint64		apart;			/* of these: what no bulk_threshold counts */
	uint64		over[CHANGE_DELETED + 1];	/* beyond its bulk_threshold, by
											 * type */
	uint64		muted;
	Change	   *template;		/* for what stands for them, or NULL */
} Count;

typedef struct Counts
{
	MemoryContext context;
	Count	   *counts;
	int			n;
	int			max;
} Counts;

/* A former state. */
typedef struct CountsMark
{
	Count	   *counts;			/* for the caller to free */
	int			n;
} CountsMark;

/* Memory of the current context, as of all below. */
extern void counts_init(Counts *counts);

/* The count of a watcher; valid until that of another is asked for. */
extern Count *counts_of(Counts *counts, uint32 watcher);

/* The same, with a template that is made of these parts if there is none. */
extern Count *counts_with_template(Counts *counts, const ChangeParts *parts);

/* How many the transaction has made, were they stored or not. */
extern uint64 count_total(const Count *count);
extern unsigned long counts_total(const Counts *counts);

/* From now on they count anew. */
extern void counts_clear(Counts *counts);

/* Whether something was counted that is not stored. */
extern bool counts_need_summary(const Counts *counts);

/*
 * Calls back for each change that is to be delivered of what is in the store,
 * in order, and for summaries of what is not.  False on an I/O error.
 */
extern bool counts_walk(Counts *counts, Store *store,
						ChangeCallback callback, void *arg);

extern CountsMark counts_mark(const Counts *counts);
extern void counts_cut(Counts *counts, const CountsMark *mark);

#endif							/* ECTOWATCH_COUNTS_H */
