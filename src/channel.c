/*-------------------------------------------------------------------------
 *
 * channel.c
 *	  Names of narrowed channels.
 *
 * A narrowed channel is named
 *
 *		<watcher>|<column>|<value>
 *
 * with the column's name in messages, and the value's text there: a JSON
 * string without its quotes and escapes, anything else as it stands.  The key
 * of several columns has their names, joined by commas, for its column, and
 * {"a":1,"b":2} for its value.
 *
 * Where that is longer than LISTEN's 63 bytes, or has a double quote in it,
 * which not every client quotes well, or where the column's name has a
 * separator in it, the name is hashed:
 *
 *		<clipped watcher>|<8 hex digits><24 hex digits>
 *
 * The watcher's name is clipped to 30 bytes, at a character's end.  The first
 * 8 digits are those with which the SHA-256 of the watcher's name begins, so
 * that a hashed channel tells whose it is even where two watchers' names
 * begin alike: a gap or an end of one must not reach channels of the other.
 * The 24 others are those with which the SHA-256 of the whole name begins that
 * would be too long.  Both are taken of the bytes in the server's encoding,
 * so that a client in any language can compute them.
 *
 * Watchers' names have no separator.  So one separator and 32 hex digits are a
 * hashed name, and any other with two separators or more is one that is not.
 *
 * Copyright (c) 2026, the ectowatch authors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/cryptohash.h"
#include "common/hashfn.h"
#include "common/sha2.h"
#include "mb/pg_wchar.h"

#include "channel.h"

#define CLIPPED_LENGTH	30
#define WATCHER_DIGITS	8
#define VALUE_DIGITS	24

StaticAssertDecl(CLIPPED_LENGTH + 1 + WATCHER_DIGITS + VALUE_DIGITS < NAMEDATALEN,
				 "hashed names must fit into an identifier");

/* Of a watcher's name: how much a hashed channel has of it. */
static int
clipped_length(const char *watcher, Size len)
{
	return pg_mbcliplen(watcher, (int) len, CLIPPED_LENGTH);
}

/* --- hashing --- */

static pg_cryptohash_ctx *
hash_start(void)
{
	pg_cryptohash_ctx *hash = pg_cryptohash_create(PG_SHA256);

	if (hash == NULL || pg_cryptohash_init(hash) < 0)
		elog(ERROR, "could not initialize SHA-256 context: %s",
			 pg_cryptohash_error(hash));
	return hash;
}

static void
hash_add(pg_cryptohash_ctx *hash, const char *data, Size len)
{
	if (pg_cryptohash_update(hash, (const uint8 *) data, len) < 0)
		elog(ERROR, "could not update SHA-256 context: %s",
			 pg_cryptohash_error(hash));
}

/* Writes the first hex digits, terminated. */
static void
hash_finish(pg_cryptohash_ctx *hash, char *out, int digits)
{
	static const char hex[] = "0123456789abcdef";
	uint8		digest[PG_SHA256_DIGEST_LENGTH];

	if (pg_cryptohash_final(hash, digest, sizeof(digest)) < 0)
		elog(ERROR, "could not finalize SHA-256 context: %s",
			 pg_cryptohash_error(hash));
	pg_cryptohash_free(hash);
	for (int i = 0; i < digits; i++)
		out[i] = hex[i % 2 == 0 ? digest[i / 2] >> 4 : digest[i / 2] & 0xF];
	out[digits] = '\0';
}

/* --- making names --- */

void
channel_hashed_prefix(char *out, const char *watcher)
{
	pg_cryptohash_ctx *hash = hash_start();
	int			len = clipped_length(watcher, strlen(watcher));

	hash_add(hash, watcher, strlen(watcher));
	memcpy(out, watcher, len);
	out[len++] = CHANNEL_SEPARATOR;
	hash_finish(hash, out + len, WATCHER_DIGITS);
}

bool
channel_narrowed(char *out, const char *watcher,
				 const char *column, Size column_len,
				 const char *value, Size value_len, bool hashed)
{
	static const char separator = CHANNEL_SEPARATOR;
	Size		watcher_len = strlen(watcher);
	Size		len = watcher_len + 1 + column_len + 1 + value_len;
	pg_cryptohash_ctx *hash;

	if (len < NAMEDATALEN &&
		memchr(column, '"', column_len) == NULL &&
		memchr(column, CHANNEL_SEPARATOR, column_len) == NULL &&
		memchr(value, '"', value_len) == NULL)
	{
		memcpy(out, watcher, watcher_len);
		out[watcher_len] = separator;
		memcpy(out + watcher_len + 1, column, column_len);
		out[watcher_len + 1 + column_len] = separator;
		memcpy(out + watcher_len + 1 + column_len + 1, value, value_len);
		out[len] = '\0';
		return false;
	}

	out[0] = '\0';
	if (!hashed)
		return true;
	channel_hashed_prefix(out, watcher);
	hash = hash_start();
	hash_add(hash, watcher, watcher_len);
	hash_add(hash, &separator, 1);
	hash_add(hash, column, column_len);
	hash_add(hash, &separator, 1);
	hash_add(hash, value, value_len);
	hash_finish(hash, out + strlen(out), VALUE_DIGITS);
	return true;
}

/* --- values --- */

static int
hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* The four hex digits of a \u; -1 if they are none. */
static int
unicode_escape(const char *p, const char *end)
{
	int			code = 0;

	if (end - p < 4)
		return -1;
	for (int i = 0; i < 4; i++)
	{
		int			digit = hex_digit(p[i]);

		if (digit < 0)
			return -1;
		code = code * 16 + digit;
	}
	return code;
}

/*
 * Appends what an escape stands for; 'p' is behind the backslash.  An escape
 * of a character that cannot be told in every encoding stays as it is:
 * to_json() makes none, and a user's cast to json makes the same one each time.
 */
static const char *
append_unescaped(StringInfo out, const char *p, const char *end)
{
	static const char escapes[] = "bfnrt\"\\/";
	static const char stand_for[] = "\b\f\n\r\t\"\\/";
	const char *found = p < end && *p != '\0' ? strchr(escapes, *p) : NULL;
	int			code = p < end && *p == 'u' ? unicode_escape(p + 1, end) : -1;

	if (found != NULL)
	{
		appendStringInfoChar(out, stand_for[found - escapes]);
		return p + 1;
	}
	if (code > 0 && code < 0x80)
	{
		appendStringInfoChar(out, (char) code);
		return p + 5;
	}
	appendStringInfoChar(out, '\\');
	return p;
}

bool
channel_value(StringInfo out, const char *json, Size len)
{
	const char *end = json + len - 1;

	if (len == 4 && memcmp(json, "null", 4) == 0)
		return false;
	if (len < 2 || json[0] != '"' || *end != '"')
	{
		appendBinaryStringInfo(out, json, len);
		return true;
	}
	for (const char *p = json + 1; p < end;)
	{
		const char *next = memchr(p, '\\', end - p);

		if (next == NULL)
			next = end;
		appendBinaryStringInfo(out, p, next - p);
		p = next < end ? append_unescaped(out, next + 1, end) : end;
	}
	return true;
}

/* --- reading names --- */

bool
channel_is_hashed(const char *channel)
{
	const char *separator = strchr(channel, CHANNEL_SEPARATOR);

	if (separator == NULL || separator == channel)
		return false;
	return strspn(separator + 1, "0123456789abcdef") == WATCHER_DIGITS + VALUE_DIGITS &&
		separator[1 + WATCHER_DIGITS + VALUE_DIGITS] == '\0';
}

bool
channel_is_narrowed(const char *channel)
{
	const char *separator = strchr(channel, CHANNEL_SEPARATOR);

	return separator != NULL && separator != channel &&
		(strchr(separator + 1, CHANNEL_SEPARATOR) != NULL ||
		 channel_is_hashed(channel));
}

void
channel_prefix_of_hashed(char *out, const char *channel)
{
	Assert(channel_is_hashed(channel));
	strlcpy(out, channel, strlen(channel) - VALUE_DIGITS + 1);
}

bool
channel_is_of(const char *channel, const char *watcher)
{
	Size		len = strlen(watcher);
	char		prefix[NAMEDATALEN];

	if (!channel_is_narrowed(channel))
		return false;
	if (!channel_is_hashed(channel))
		return strncmp(channel, watcher, len) == 0 &&
			channel[len] == CHANNEL_SEPARATOR;
	if (channel_watcher_hash(channel) != channel_watcher_hash(watcher))
		return false;
	channel_hashed_prefix(prefix, watcher);
	return strncmp(channel, prefix, strlen(prefix)) == 0;
}

uint32
channel_watcher_hash(const char *name)
{
	const char *separator = strchr(name, CHANNEL_SEPARATOR);
	Size		len = separator ? (Size) (separator - name) : strlen(name);

	return hash_bytes((const unsigned char *) name, clipped_length(name, len));
}
