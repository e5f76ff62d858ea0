/*-------------------------------------------------------------------------
 *
 * outbox.h
 *	  What the worker sends to channels at once.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef ECTOWATCH_OUTBOX_H
#define ECTOWATCH_OUTBOX_H

#include "change.h"
#include "message.h"
#include "slot.h"

/* The longest message that goes into {"type":"packed",...}, all alone. */
#define OUTBOX_MAX_PACKED	(MESSAGE_MAX_LENGTH - 64)

/* A message for one channel. */
typedef struct Message
{
	const char *channel;
	const char *payload;		/* empty for one that only rings a bell */
	uint32		len;
	uint32		watcher;		/* id */
	uint64		position;
	ChangeType	type;
	ChangeDelivery delivery;
	bool		own;			/* the channel is the watcher's own */
	bool		debug;
} Message;

/* How it ended. */
typedef enum OutboxResult
{
	OUTBOX_EMPTY,				/* nothing to send */
	OUTBOX_SENT,
	OUTBOX_FULL					/* the board takes no more; errno tells why */
} OutboxResult;

/*
 * Begins anew, whatever became of the last time.  The caller is the worker, in
 * no transaction; one may begin with the first message that is sent, so all but
 * this function may be called in one or not.
 */
extern void outbox_begin(Slot *slot);

/* Begins a transaction, unless there is one; outbox_commit() ends it. */
extern void outbox_open_transaction(void);

/* Memory that lasts until the next outbox_begin(). */
extern MemoryContext outbox_context(void);

/*
 * Puts a message for a channel behind those that it has got, in the form of
 * its delivery.  The message is copied.
 */
extern void outbox_put(const Message *message);

/* Whether it takes no more, having enough, or because nothing can be sent. */
extern bool outbox_is_full(void);

/*
 * Whether an outbox's worth of messages would go to a file, for there are
 * sessions that have not read, and these have read something since the last
 * call.
 */
extern bool outbox_is_worth_waiting(void);

/*
 * Sends what is still here, and lets listeners see all.  Unless the result is
 * OUTBOX_SENT, nothing was sent.  It is for the caller to see to it that nothing
 * throws between that and his noting what was sent.
 */
extern OutboxResult outbox_commit(void);

/* How many sessions were woken for it. */
extern int	outbox_woken(void);

/*
 * Whether there is a file of messages that were not read in time; removes it if
 * they have been now.
 */
extern bool outbox_keeps_file(Slot *slot);

/* After OUTBOX_SENT: counts it; logs what is to be logged. */
extern void outbox_count_sent(void);
extern void outbox_log_sent(void);

#endif							/* ECTOWATCH_OUTBOX_H */
