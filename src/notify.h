/*-------------------------------------------------------------------------
 *
 * notify.h
 *	  From the ring to channels.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef ECTOWATCH_NOTIFY_H
#define ECTOWATCH_NOTIFY_H

#include "slot.h"

/*
 * For a new worker, before it writes to the ring: takes over what the last one
 * has left.  Throws only for want of memory.
 */
extern void notify_start(Slot *slot);

/*
 * Sends what there is, up to a bound.  The caller is the worker, in no
 * transaction.  Unless it is urgent, that may wait a few times for those who
 * have not read yet.  Returns whether there is more to send; if so, *pause is
 * how many milliseconds to wait first, 0 for none.  May throw, whereupon
 * nothing was sent.
 */
extern bool notify_send(Slot *slot, bool urgent, long *pause);

/* Whether there is something to send. */
extern bool notify_has_work(Slot *slot);

/* In how many milliseconds there will be, whatever comes; -1: it is not known. */
extern long notify_wait(Slot *slot);

/*
 * Tells that the ring drops a record.  If it was not sent yet, listeners get
 * a gap.
 */
extern void notify_evicted(Slot *slot, const RingRecord *record, uint64 offset);

#endif							/* ECTOWATCH_NOTIFY_H */
