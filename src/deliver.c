/*-------------------------------------------------------------------------
 *
 * deliver.c
 *	  From the board to this session's client.
 *
 * The worker has put a message on the board and signalled us (listener.c) as
 * core does for NOTIFY.  When the session is idle, or becomes so, core then
 * starts a transaction of its own to read NOTIFY's queue, ends it, and flushes
 * what goes to the client:
 *
 *		ProcessNotifyInterrupt()		commands/async.c
 *			ProcessIncomingNotify()
 *				StartTransactionCommand()
 *				asyncQueueReadAllNotifications()
 *				CommitTransactionCommand()
 *					XACT_EVENT_PRE_COMMIT	<- here we send ours
 *				pq_flush()
 *
 * So a message arrives exactly where one of NOTIFY would: never within a
 * transaction or a statement's result, at once if the session is idle, else
 * before it says that it is ready for the next statement.
 *
 * That it is that transaction we know because no statement is under way
 * (debug_query_string); because no message from the client has come since the
 * last transaction ended, for each sets the statement's start time, and core's
 * transaction does not; because it began with that time, which one does not that
 * a procedure began behind its COMMIT; and because it has no xid.  Should we not
 * know it, core is asked to look again.
 *
 * If the client does not read, sending waits here, as core's does: in a
 * transaction that has neither a snapshot nor a lock.  What the session has not
 * read is kept for it (board.c).  What cannot be sent ends the session, as in
 * core, for its client would take the error for that of its last statement.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/async.h"
#include "miscadmin.h"
#include "tcop/tcopprot.h"
#include "utils/timestamp.h"

#include "board.h"
#include "deliver.h"
#include "listener.h"
#include "listening.h"
#include "slot.h"

/* What is taken off the board at once. */
#define PIECE_SIZE		(64 * 1024)

StaticAssertDecl(PIECE_SIZE >= BOARD_MAX_MESSAGE,
				 "a piece must have room for any message");

static TimestampTz last_statement;	/* when that began which ended last */
static bool delivering;			/* in this transaction */

static bool
is_notify_transaction(void)
{
	return debug_query_string == NULL &&
		GetCurrentStatementStartTimestamp() == last_statement &&
		GetCurrentTransactionStartTimestamp() == last_statement &&
		!TransactionIdIsValid(GetTopTransactionIdIfAny());
}

/* Sends what this session listens to; returns how much of a piece that is. */
static Size
send_messages(const char *piece, Size len)
{
	const char *channel = NULL; /* of the message before */
	bool		heard = false;	/* whether it is listened to */
	Size		done = 0;

	while (done + offsetof(BoardMessage, text) <= len)
	{
		const BoardMessage *message = (const BoardMessage *) (piece + done);

		if (done + message->size > len)
			break;
		if (channel == NULL || strcmp(message->text, channel) != 0)
			heard = listening_has(message->text);
		channel = message->text;
		if (heard)
			NotifyMyFrontEnd(message->text, message->text + message->payload,
							 message->pid);
		done += message->size;
	}
	return done;
}

static void
deliver(uint64 from, uint64 until)
{
	char	   *piece = palloc(Min(PIECE_SIZE, until - from));
	Slot	   *slot = slot_attach();
	Board	   *board = slot_board(slot);

	while (from < until)
	{
		Size		len = Min(PIECE_SIZE, until - from);
		Size		done = 0;

		if (board_read(board, from, piece, len))
			done = send_messages(piece, len);
		if (done == 0)
			ereport(ERROR,
					(errcode(ERRCODE_IO_ERROR),
					 errmsg("could not read messages of ectowatch for this session"),
					 errdetail("Some of %llu bytes would have been for it.",
							   (unsigned long long) (until - from)),
					 errhint("Read the changes from the last position that you have.")));
		from += done;
		listener_advance(from);

		/* not for what would be an error of no statement */
		if (ProcDiePending || ClientConnectionLost)
			CHECK_FOR_INTERRUPTS();
	}

	/* perhaps nobody needs them any more */
	if (board_has_file(board))
		slot_wake_worker(slot);
}

/* Sends what there is when it is called. */
static void
deliver_unread(void)
{
	bool		former = ExitOnAnyError;
	uint64		from;
	uint64		until;

	if (!listener_unread(&from, &until))
		return;
	ExitOnAnyError = true;
	deliver(from, until);
	ExitOnAnyError = former;
}

/* A transaction has ended, of a client's or core's own. */
static void
note_end(void)
{
	TimestampTz statement = GetCurrentStatementStartTimestamp();

	/*
	 * Something may have come late: core looks again, and lets the client have
	 * what there is first.  Not for ever, should we not know its transaction.
	 */
	if (listener_has_unread() && (delivering || statement != last_statement))
		notifyInterruptPending = true;
	last_statement = statement;
	delivering = false;
}

static pg_attribute_hot void
deliver_xact_callback(XactEvent event, void *arg pg_attribute_unused())
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			if (listener_has_unread() && is_notify_transaction())
			{
				delivering = true;
				deliver_unread();
			}
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			note_end();
			break;
		default:
			break;
	}
}

void
deliver_init(void)
{
	RegisterXactCallback(deliver_xact_callback, NULL);
}
