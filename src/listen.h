/*-------------------------------------------------------------------------
 *
 * listen.h
 *	  Following LISTEN and UNLISTEN.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#ifndef ECTOWATCH_LISTEN_H
#define ECTOWATCH_LISTEN_H

#include "nodes/nodes.h"

/* What a statement does to what this session listens to. */
typedef enum ListenKind
{
	LISTEN_NOTHING,
	LISTEN_ADD,
	LISTEN_REMOVE,
	LISTEN_REMOVE_ALL
} ListenKind;

typedef struct ListenCommand
{
	ListenKind	kind;
	char		channel[NAMEDATALEN];
} ListenCommand;

/* Before it is executed, whereupon it may be gone. */
extern void listen_read(ListenCommand *command, Node *statement);

/* After it was; may throw. */
extern void listen_follow(const ListenCommand *command);

#endif							/* ECTOWATCH_LISTEN_H */
