/*-------------------------------------------------------------------------
 *
 * late.c
 *	  A library for a test: it writes late in a commit.
 *
 * Where the transaction is about to be committed or prepared, it executes the
 * statement that setting late.statement names.  Core calls those first who have
 * registered last; so if this is loaded before ectowatch, it is called after
 * that.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

static char *late_statement;

static void
late_xact_callback(XactEvent event, void *arg pg_attribute_unused())
{
	if ((event != XACT_EVENT_PRE_COMMIT && event != XACT_EVENT_PRE_PREPARE) ||
		late_statement[0] == '\0')
		return;
	PushActiveSnapshot(GetTransactionSnapshot());
	if (SPI_connect() != SPI_OK_CONNECT ||
		SPI_execute(late_statement, false, 0) < 0)
		elog(ERROR, "could not execute late.statement");
	SPI_finish();
	PopActiveSnapshot();
}

void
_PG_init(void)
{
	DefineCustomStringVariable("late.statement",
							   "Sets what is executed late in a commit.",
							   NULL,
							   &late_statement,
							   "", PGC_USERSET, 0,
							   NULL, NULL, NULL);
	RegisterXactCallback(late_xact_callback, NULL);
}
