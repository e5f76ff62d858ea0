# scratch.sh
#	A private place in which test/run, demo/run and bench/run work.
#
# Sourced by them.  enter_scratch copies the source tree into a new directory
# and runs the calling script again there, as an ordinary user: root hands over
# to "postgres", since the server refuses to run as root.  So the checkout is
# never written to, whoever owns it and whatever its path.  The outer process
# waits, ends whatever is left of what was started, and removes the directory.
#
# In it the script finds $scratch, the copy of the tree as its directory, and:
#
#	private_install NAME [MAKE ARGUMENTS]
#		copies the machine's PostgreSQL installation to $scratch/NAME, as core's
#		temporary installations do, installs ectowatch into the copy, and puts
#		its programs first in PATH.  The server finds its files relative to its
#		own path, so the machine's installation is not touched.
#	start_cluster NAME [SETTING...], stop_cluster NAME
#		a throwaway cluster, which the PG* variables then point to
#
# What it writes to $scratch/output, a file or a directory, is copied to $OUT, if
# that is set.  A script that needs more programs than tests do names them before,
# with their packages, in wanted_programs: PROGRAM:PACKAGE.
#
# Copyright (c) 2026, the ectowatch authors

server_version=15
server_user=postgres

die()
{
	echo "$(basename "$(dirname "$0")")/$(basename "$0"): $*" >&2
	exit 1
}

# ----- what is needed -----

# Prints the Debian packages that are missing.
missing_packages()
{
	command -v make >/dev/null || echo make
	command -v gcc >/dev/null || echo gcc
	command -v clang >/dev/null || echo clang
	[ -e /usr/include/stdlib.h ] || echo libc6-dev
	command -v prove >/dev/null || echo perl
	perl -MIPC::Run -e 1 2>/dev/null || echo libipc-run-perl
	local pgxs
	pgxs=$("$PG_CONFIG" --pgxs 2>/dev/null) && [ -e "$pgxs" ] ||
		echo "postgresql-server-dev-$server_version libpq-dev"
	[ -x "$("$PG_CONFIG" --bindir 2>/dev/null)/postgres" ] ||
		echo "postgresql-$server_version"

	local wanted
	for wanted in ${wanted_programs[@]+"${wanted_programs[@]}"}; do
		command -v "${wanted%%:*}" >/dev/null || echo "${wanted#*:}"
	done
}

# The caller's choice, else that of our version, else the one in PATH; absolute,
# for a private installation puts its own first in PATH.
find_pg_config()
{
	local versioned=/usr/lib/postgresql/$server_version/bin/pg_config

	[ -x "$versioned" ] || versioned=pg_config
	PG_CONFIG=$(command -v "${PG_CONFIG:-$versioned}") || PG_CONFIG=
	export PG_CONFIG
}

as_root()
{
	if [ "$(id -u)" = 0 ]; then
		"$@"
	else
		sudo "$@"
	fi
}

install_packages()
{
	local packages no_cluster=/etc/postgresql-common/createcluster.d/ectowatch.conf

	find_pg_config
	packages=$(missing_packages | tr '\n' ' ')
	[ -n "$packages" ] || return 0
	echo "== installing $packages"
	command -v apt-get >/dev/null ||
		die "please install what Debian calls: $packages"
	[ "$(id -u)" = 0 ] || command -v sudo >/dev/null ||
		die "please install as root: apt-get install $packages"

	# the package of the server would start a cluster, which nobody asked for
	as_root mkdir -p "$(dirname $no_cluster)"
	echo "create_main_cluster = false" | as_root tee $no_cluster >/dev/null
	as_root apt-get -q update >/dev/null
	# shellcheck disable=SC2086
	as_root env DEBIAN_FRONTEND=noninteractive \
		apt-get -q -y install --no-install-recommends $packages >/dev/null
	as_root rm -f $no_cluster

	find_pg_config
	packages=$(missing_packages | tr '\n' ' ')
	[ -z "$packages" ] || die "still missing after installation: $packages"
}

# ----- the outer process -----

# The processes that run a program of the scratch directory.
scratch_processes()
{
	local proc exe

	for proc in /proc/[0-9]*; do
		exe=$(readlink "$proc/exe" 2>/dev/null) || continue
		case $exe in
			"$scratch"/*) echo "${proc#/proc/}" ;;
		esac
	done
}

wait_until_gone()
{
	local i pid

	for ((i = 0; i < 100; i++)); do
		for pid in "$@"; do
			[ ! -d "/proc/$pid" ] || { sleep 0.1; continue 2; }
		done
		return 0
	done
	return 1
}

leave_scratch()
{
	local pid pids=()

	# a server is ended by its postmaster; it removes what it shares
	while read -r pid; do
		if [[ $(readlink "/proc/$pid/exe") == "$scratch"/* ]]; then
			kill -QUIT "$pid" 2>/dev/null && pids+=("$pid")
		fi
	done < <(find "$scratch" -name postmaster.pid -exec head -qn 1 {} \; 2>/dev/null)
	wait_until_gone ${pids[@]+"${pids[@]}"} || true
	mapfile -t pids < <(scratch_processes)
	[ ${#pids[@]} = 0 ] || kill -KILL "${pids[@]}" 2>/dev/null || true

	if [ "${KEEP:-0}" = 1 ]; then
		echo "== kept: $scratch"
	else
		rm -rf "$scratch"
	fi
}

# Does nothing but return in the inner process.
enter_scratch()
{
	local script root base output status=0 hand_over=()

	if [ -n "${ECTOWATCH_SCRATCH:-}" ]; then
		scratch=$ECTOWATCH_SCRATCH
		return 0
	fi

	script=$(basename "$(dirname "$0")")/$(basename "$0")
	root=$(cd "$(dirname "$0")/.." && pwd)
	output=${OUT:+$(realpath "$OUT")}
	install_packages

	# make and libpq's socket paths want no space and not much length
	base=${TMPDIR:-/tmp}
	if [[ $base == *[[:space:]]* ]] || [ ${#base} -gt 40 ] || [ "$(id -u)" = 0 ]; then
		base=/tmp
	fi
	scratch=$(mktemp -d "$base/ectowatch.XXXXXX")
	trap leave_scratch EXIT
	mkdir "$scratch/src" "$scratch/tmp"
	tar -C "$root" --exclude-vcs --exclude-vcs-ignores -cf - . |
		tar -C "$scratch/src" -xf -
	if [ "$(id -u)" = 0 ]; then
		id "$server_user" >/dev/null 2>&1 ||
			die "there is no user \"$server_user\" to run the server as"
		chown -R "$server_user:" "$scratch"
		hand_over=(setpriv --reuid="$server_user" --regid="$(id -g "$server_user")" --init-groups)
	fi

	# No setting of the caller's may lead to another server or another result;
	# a session of its own lets us end all of it.
	local unset=() name
	while read -r name; do
		unset+=(-u "$name")
	done < <(compgen -e | grep -E '^(PG|LC_|MAKE|MFLAGS|LANG|PERL|PROVE|CDPATH)' |
			 grep -vx PG_CONFIG)
	cd "$scratch/src"
	setsid ${hand_over[@]+"${hand_over[@]}"} env "${unset[@]}" \
		HOME="$scratch" TMPDIR="$scratch/tmp" LANG=C.UTF-8 \
		ECTOWATCH_SCRATCH="$scratch" bash "$script" "$@" </dev/null 2>&1 &
	local inner=$!
	trap 'kill -TERM -- "-$inner" 2>/dev/null; wait "$inner"; exit 130' INT TERM HUP
	wait "$inner" || status=$?
	if [ -n "$output" ] && [ -d "$scratch/output" ]; then
		mkdir -p "$output"
		cp "$scratch/output"/* "$output"
	elif [ -n "$output" ] && [ -e "$scratch/output" ]; then
		cp "$scratch/output" "$output"
	fi
	exit "$status"
}

# ----- the inner process -----

# Functions here return what fails, so that they work in conditions too, where
# bash ignores "set -e".

# A command whose output is wanted only if it fails.
quietly()
{
	local log=$scratch/tmp/quietly.$BASHPID

	if ! "$@" >"$log" 2>&1; then
		echo "failed: $*" >&2
		tail -n 40 "$log" >&2
		return 1
	fi
}

private_install()
{
	local name=$1 dir
	shift

	for dir in --bindir --pkglibdir --sharedir; do
		dir=$("$PG_CONFIG" $dir)
		mkdir -p "$scratch/$name$dir"
		cp -a "$dir/." "$scratch/$name$dir"
	done
	# what the machine has of ectowatch is not under test
	find "$scratch/$name" -name 'ectowatch*' -prune -exec rm -rf {} +
	quietly make -s "$@" install DESTDIR="$scratch/$name" || return 1

	bindir=$scratch/$name$("$PG_CONFIG" --bindir)
	pgxsdir=$scratch/$name$(dirname "$("$PG_CONFIG" --pgxs)")/../..
	export PATH=$bindir:$PATH
}

start_cluster()
{
	local name=$1 data=$scratch/$1.data setting
	shift

	quietly initdb -D "$data" -A trust -N -U postgres --no-locale -E UTF8 || return 1
	mkdir "$scratch/$name.socket"
	{
		echo "listen_addresses = ''"
		echo "unix_socket_directories = '$scratch/$name.socket'"
		echo "shared_preload_libraries = 'ectowatch'"
		for setting in "$@"; do
			echo "$setting"
		done
	} >>"$data/postgresql.conf"
	quietly pg_ctl -D "$data" -l "$scratch/$name.log" -w start ||
		{ tail -n 20 "$scratch/$name.log" >&2; return 1; }
	export PGHOST=$scratch/$name.socket PGUSER=postgres PGDATABASE=postgres
}

stop_cluster()
{
	quietly pg_ctl -D "$scratch/$1.data" -m fast -w stop
}
