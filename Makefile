# Makefile of ectowatch
#
# make, make install	the ordinary way, by PGXS
# make test		all tests, on throwaway servers: see test/run
# make demo		a real client beside a real load: see demo/run
# make bench		what watching costs, beside its peers: see bench/run
#
# WERROR=1 makes warnings errors; WAIT_POINTS=1 builds in the wait points of
# tests (make clean in between).  VPATH builds work from paths without a space.

EXTENSION = ectowatch
MODULE_big = ectowatch

home := $(or $(VPATH:%=%/),$(dir $(firstword $(MAKEFILE_LIST))))
EXTVERSION := $(shell sed -n "s/^default_version *= *'\(.*\)'/\1/p" '$(home)ectowatch.control')

sources = $(patsubst $(home)%,%,$(wildcard $(home)$(1)))
OBJS = $(patsubst %.c,%.o,$(call sources,src/*.c))
DATA = $(EXTENSION)--$(EXTVERSION).sql $(call sources,$(EXTENSION)--*--*.sql)
REGRESS = $(patsubst sql/%.sql,%,$(call sources,sql/*.sql))

# The server must be started with the library, and some tests need wait points.
NO_INSTALLCHECK = 1

# As system headers, for the server's do not pass -Wextra themselves.
PG_CPPFLAGS = -I$(home)src -isystem $(includedir_server) \
	$(if $(WAIT_POINTS),-DECTOWATCH_WAIT_POINTS)
# Who calls core touches no jump table on his way: see doc/design.md, "Choices".
PG_CFLAGS = -fno-plt -Wall -Wextra $(if $(WERROR),-Werror) $(if $(is_clang),$(clang_flags))
SHLIB_LINK += -Wl,--version-script=$(home)exports.map

# PGXS passes the flags of the compiler that built the server, which is gcc.
is_clang = $(findstring clang,$(shell $(CC) --version 2>/dev/null))
clang_flags = -Wno-unknown-warning-option -Wno-ignored-optimization-argument

# These need no PGXS, which they install themselves where it is missing.
scripts = test demo bench
ifneq ($(filter-out $(scripts),$(or $(MAKECMDGOALS),all)),)
PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

$(OBJS) $(OBJS:.o=.bc): $(call sources,src/*.h) $(shell mkdir -p src)
$(shlib): exports.map
endif

.PHONY: $(scripts)
$(scripts):
	@'$(home)$@/run'
