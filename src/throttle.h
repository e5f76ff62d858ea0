/*-------------------------------------------------------------------------
 *
 * throttle.h
 *	  At most one message per channel, key and interval.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef ECTOWATCH_THROTTLE_H
#define ECTOWATCH_THROTTLE_H

#include "outbox.h"

/*
 * What is decided between throttle_begin() and throttle_commit() holds from
 * the latter on; if throttle_begin() comes again instead, it has never been.
 * The caller is the worker.
 */
extern void throttle_begin(Slot *slot);
extern void throttle_commit(void);

/* The message that throttling is about. */
typedef struct ThrottleItem
{
	Message		message;
	uint64		offset;			/* of its record in the ring */
	uint32		interval;		/* ms, not 0 */
	const char *key;			/* what the row is known by */
	uint32		key_len;
} ThrottleItem;

/*
 * Whether a message may be sent now.  If not, a copy of it is held back, in
 * place of an older one of its channel and key.
 */
extern bool throttle_admit(const ThrottleItem *item);

/*
 * For a new worker: holds back what a former one may have held back, until
 * now.  throttle_refused() says, after throttle_commit() and once, of how many
 * changes of a watcher there were messages for which there was no room, and
 * where these changes are.
 */
extern void throttle_restore(const ThrottleItem *item);
extern uint64 throttle_refused(uint32 watcher, uint64 *from, uint64 *to);

/*
 * Hands over what is held back of a watcher, in order, for something comes at
 * that position that must not overtake it.  Without a callback it is forgotten.
 */
typedef void (*ThrottleSend) (const Message *message);

extern void throttle_flush(uint32 watcher, uint64 before,
						   ThrottleSend send);

/*
 * The next message whose time has come, or NULL; valid until the next call of
 * any of these.
 */
extern const Message *throttle_next_due(void);

/* Milliseconds until there is one, 0: there is, -1: nothing is held back. */
extern long throttle_wait(void);

/*
 * The ring drops the record at that offset.  What is held back of it will be
 * sent all the same, if this process lives; if not, Account tells.
 */
extern void throttle_evicted(const RingRecord *record, uint64 offset);

#endif							/* ECTOWATCH_THROTTLE_H */
