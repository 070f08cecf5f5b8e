# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# Sourced by every script here: where things live, how they speak, how the
# series gets onto a kernel tree, and how a kernel of ours is built.  Nothing
# in this file runs by itself.

set -euo pipefail

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/memmap_async
BUILD=$TOP/build
PATCHES=${PATCHES:-$TOP/patches}
JOBS=${JOBS:-$(nproc)}
LLVM_VERSION=19

# The release that the series is made for, and Debian's name for it.
# shellcheck disable=SC2034  # setup reads these
{
	KERNEL_SERIES=7.3
	KERNEL_PACKAGE=linux-source-$KERNEL_SERIES
	KERNEL_VERSION=7.3.4-1~bpo13+1
	BINDGEN_VERSION=0.72.1
	# Older ones now and then execute an int3 that is not there any more, where
	# one CPU patches code that another runs (CONFIG_JUMP_LABEL).
	QEMU_MAJOR=10
	QEMU_VERSION=1:10.0.2+ds-2+deb13u1~bpo12+1
	SEABIOS_VERSION=1.16.3-2~bpo12+1
}

export PATH="$CACHE/venv/bin:$CACHE/bin:$PATH"
export CCACHE_DIR=$CACHE/ccache
export LIBCLANG_PATH=/usr/lib/llvm-$LLVM_VERSION/lib
export RUST_LIB_SRC=$CACHE/rust-src/library
# Messages are parsed here and there.
export LC_ALL=C.UTF-8

say()  { printf '%s\n' "$*"; }
step() { printf '[%s] %s\n' "$(date +%H:%M:%S)" "$*"; }
warn() { printf 'warning: %s\n' "$*" >&2; }
die()  { printf 'error: %s\n' "$*" >&2; exit 1; }

# usage: prints the comment block on top of the calling script.
usage() { sed -n '/^#/!q; /^#!/d; /^# SPDX/d; s/^#\( \|$\)//; p' "$0" | sed '/./,$!d'; }

# options "NAME= NAME ..." ARGS...: the arguments of a script.  --NAME VALUE, where the
# list has "NAME=", goes into $NAME; --NAME, where it has "NAME", makes that 1; for
# "NAME+" each VALUE is appended as a word.
options() {
	local _known=" $1 " _name _var
	shift
	while [ $# -gt 0 ]; do
		case $1 in
		-h|--help) usage; exit 0 ;;
		--?*) _name=${1#--} ;;
		*) die "unknown argument $1 (see --help)" ;;
		esac
		_var=${_name//-/_}
		case $_known in
		*" $_name= "*) printf -v "$_var" %s "${2:?$1 needs a value}"; shift ;;
		*" $_name+ "*) printf -v "$_var" '%s%s ' "${!_var}" "${2:?$1 needs a value}"; shift ;;
		*" $_name "*) printf -v "$_var" 1 ;;
		*) die "unknown argument $1 (see --help)" ;;
		esac
		shift
	done
}

# --- results ----------------------------------------------------------------

passed=0
failed=0
skipped=()
not_run=()
pass() { passed=$((passed + ${2:-1})); say "  ok    $1"; }
fail() { failed=$((failed + ${2:-1})); say "  FAIL  $1"; }
skip() { skipped+=("$1"); say "  skip  $1"; }

# joined WORD...: "a; b; c".
joined() {
	local text
	text=$(printf '%s; ' "$@")
	say "${text%; }"
}

# verdict: what was skipped, and how often; what did not run at all; the last line.
verdict() {
	local names
	if [ ${#skipped[@]} -gt 0 ]; then
		mapfile -t names < <(printf '%s\n' "${skipped[@]}" | sort | uniq -c |
			sed -E 's/^ *([0-9]+) (.*)/\2 (\1 times)/; s/ \(1 times\)$//')
		say "${#skipped[@]} skipped: $(joined "${names[@]}")"
	fi
	[ ${#not_run[@]} -eq 0 ] || say "NOT RUN: $(joined "${not_run[@]}")"
	say "$passed passed, $failed failed"
	[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
}

# heartbeat LOG: a line a minute, since long work must not look dead.
heartbeat() {
	local seconds=0
	while sleep 1 && kill -0 $$ 2>/dev/null; do
		seconds=$((seconds + 1))
		if [ $((seconds % 60)) -eq 0 ]; then
			step "    $((seconds / 60)) min: $(tail -n 1 "$1" | cut -c 1-60)"
		fi
	done
}

# logged NAME COMMAND...: runs a long command with its output in
# build/log/NAME.log, and shows the end of it when the command fails.
logged() {
	local log=$BUILD/log/$1.log rc=0 beat
	shift
	mkdir -p "$BUILD/log"
	: >"$log"
	heartbeat "$log" &
	beat=$!
	"$@" >"$log" 2>&1 </dev/null || rc=$?
	kill "$beat" 2>/dev/null || true
	wait "$beat" 2>/dev/null || true
	if [ $rc -ne 0 ]; then
		tail -n 40 "$log" >&2
		warn "exit $rc from: $*"
		warn "the whole log is $log"
	fi
	return $rc
}

as_root() {
	if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

# --- git -------------------------------------------------------------------

# kgit: git without personal settings, since these would change what a
# patch looks like, sign commits, run hooks.
kgit() {
	GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null git \
		-c safe.directory='*' -c gc.auto=0 -c commit.gpgsign=false \
		-c core.hooksPath=/dev/null -c advice.detachedHead=false "$@"
}

# identity name|email: who commits here, or a neutral name; git am wants one.
identity() {
	local value
	value=$(git -C "$TOP" config "user.$1" 2>/dev/null) || value=
	case $1 in
	name) say "${value:-memmap_async}" ;;
	email) say "${value:-memmap_async@localhost}" ;;
	esac
}

# part_list: the names of the series' parts, which are folders.
part_list() {
	find "$PATCHES" -mindepth 1 -maxdepth 1 -type d -name '[0-9]-*' -printf '%f\n' \
		2>/dev/null | sort
}

# patch_list [DIR]: the patches in order, those of one part if DIR is one; the
# cover letter is no *.patch.
patch_list() {
	find "${1:-$PATCHES}" -maxdepth 2 -name '[0-9]*.patch' 2>/dev/null | sort
}

# patch_name PATCH: as people name it, with its part.
patch_name() { say "${1#"$PATCHES"/}"; }

# part_branches TREE: TREE's branches that are named like parts, in order.
part_branches() {
	kgit -C "$1" for-each-ref --format='%(refname:short)' 'refs/heads/[0-9]-*'
}

# is_git_tree DIR: DIR itself is the top of a git tree, not a mere part of one.
is_git_tree() {
	[ "$(kgit -C "$1" rev-parse --show-toplevel 2>/dev/null)" = "$(realpath "$1")" ]
}

# lend_tree DIR REPO: makes DIR a git repository that reads REPO's objects; its
# own branches and work tree are left alone, and so is all of REPO.
lend_tree() {
	local dir=$1 repo=$2 info=$1/.git/objects/info shallow
	[ -e "$dir/.git" ] || { rm -rf "$dir"; kgit init -q -b pristine "$dir"; }
	mkdir -p "$info"
	kgit -C "$repo" rev-parse --path-format=absolute --git-path objects \
		>"$info/alternates"
	# A clone of depth 1 is a usual thing to have for a kernel.
	rm -f "$dir/.git/shallow"
	shallow=$(kgit -C "$repo" rev-parse --path-format=absolute --git-path shallow)
	if [ -e "$shallow" ]; then cp "$shallow" "$dir/.git/shallow"; fi
	rm -rf "$dir/.git/rebase-apply" "$dir/.git/index.lock"
}

# switch_tree DIR COMMIT: checks out COMMIT whatever was there; unlike checkout
# it does not mind that the kernel before has gone with the tree that lent it.
# Files that stay the same keep their times, so that make leaves them alone.
switch_tree() {
	kgit -C "$1" read-tree --reset -u "$2" &&
		kgit -C "$1" update-ref --no-deref HEAD "$2"
}

# pristine_tree DIR [LINUX]: makes DIR a clean git tree on the branch
# `pristine`, which is the kernel in LINUX (default: the one that setup
# fetched).  LINUX is only read: a git tree lends its objects and its HEAD, a
# plain one is copied.  What is in DIR already is reused.
pristine_tree() {
	local dir=$1 linux=${2:-$CACHE/linux} head
	[ -d "$linux" ] || die "no directory $linux"
	[ -f "$linux/Kbuild" ] && [ -f "$linux/MAINTAINERS" ] ||
		die "$linux is not the top of a kernel tree"
	if ! is_git_tree "$linux"; then
		import_tree "$dir" "$linux"
		return
	fi
	[ -z "$(kgit --no-optional-locks -C "$linux" status --porcelain -uno)" ] ||
		warn "$linux has uncommitted changes: only its HEAD is used"
	head=$(kgit -C "$linux" rev-parse --verify -q 'HEAD^{commit}') ||
		die "$linux has no commit"
	lend_tree "$dir" "$linux"
	switch_tree "$dir" "$head"
	kgit -C "$dir" branch -q -f pristine "$head"
	kgit -C "$dir" checkout -q pristine
	kgit -C "$dir" clean -q -f -d -x
}

import_tree() {
	local dir=$1 linux=$2
	rm -rf "$dir"
	cp -a --reflink=auto "$linux" "$dir"
	rm -rf "$dir/.git"
	# Debian's .gitignore ends with a pattern that hides every file.
	if [ -e "$dir/.gitignore" ]; then sed -i '/^\/\*$/d' "$dir/.gitignore"; fi
	kgit init -q -b pristine "$dir"
	kgit -C "$dir" add -A
	kgit -C "$dir" -c user.name=linux -c user.email=linux@localhost \
		commit -q -m "The kernel in $linux"
	# What a build left behind, which an O= build would stumble over.
	kgit -C "$dir" clean -q -f -d -X
}

# apply_series TREE: one commit a patch onto what TREE has checked out, and a
# branch of its name at the end of each part.  On failure: says why, and TREE is
# what it was.
apply_series() {
	local tree=$1 start part list out n
	if [ -z "$(patch_list)" ]; then
		warn "no patches in $PATCHES"
		return 1
	fi
	start=$(kgit -C "$tree" rev-parse HEAD)
	for part in $(part_branches "$tree"); do kgit -C "$tree" branch -q -D "$part"; done
	for part in $(part_list); do
		mapfile -t list < <(patch_list "$(realpath "$PATCHES")/$part")
		if out=$(kgit_committer -C "$tree" am -q --committer-date-is-author-date \
				"${list[@]}" 2>&1 </dev/null); then
			kgit -C "$tree" branch -q "$part"
			continue
		fi
		n=$(cat "$tree/.git/rebase-apply/next" 2>/dev/null) || n=1
		{
			say "error: $(patch_name "${list[n - 1]}") does not apply ($(sed -n \
				's/^Subject: *\(\[[^]]*\] *\)\?//p' "${list[n - 1]}" | head -n 1))"
			grep -E '^error: ' <<<"$out" | sed 's/^error: /  /' || say "  $out"
			show_rejects "$tree" "${list[n - 1]}"
		} >&2
		kgit -C "$tree" reset -q --hard
		kgit -C "$tree" am --abort >/dev/null 2>&1 || true
		kgit -C "$tree" reset -q --hard "$start"
		return 1
	done
}

kgit_committer() {
	GIT_COMMITTER_NAME=$(identity name) GIT_COMMITTER_EMAIL=$(identity email) \
		kgit "$@"
}

# show_rejects TREE PATCH: the hunks that TREE does not take.
show_rejects() {
	local tree=$1 patch=$2 rej
	kgit -C "$tree" apply --reject "$(realpath "$patch")" >/dev/null 2>&1 || true
	while IFS= read -r rej; do
		say "  rejected in ${rej%.rej}:"
		sed 1d "$tree/$rej" | sed 's/^/    /'
	done < <(kgit -C "$tree" ls-files -o -- '*.rej')
	kgit -C "$tree" clean -q -f -d -x
}

# series_tree DIR [LINUX]: pristine_tree, then the series on the branch `series`.
series_tree() {
	pristine_tree "$1" "${2:-}"
	kgit -C "$1" checkout -q -B series
	apply_series "$1"
}

# part_range TREE PART: the commits of a part, for git.
part_range() {
	local before
	before=$(part_branches "$1" | sed "/^$2\$/,\$d" | tail -n 1)
	say "${before:-pristine}..$2"
}

# format_part TREE PART DIR [ARGS...]: TREE's commits of PART as patches in DIR, the
# same bytes for the same commits on any machine, with any recent git.
format_part() {
	local tree=$1 part=$2 dir=$3
	shift 3
	# MAINTAINERS first, where checkpatch looks for it before new files.
	kgit -C "$tree" format-patch -q --numbered --zero-commit --no-signature \
		-O <(echo MAINTAINERS) --no-base --abbrev=12 --diff-algorithm=histogram -M \
		-o "$(realpath "$dir")" "$@" "$(part_range "$tree" "$part")"
}

# format_series TREE DIR: all parts, each into a folder of its name in DIR.
format_series() {
	local part
	for part in $(part_branches "$1"); do
		mkdir -p "$2/$part"
		format_part "$1" "$part" "$2/$part"
	done
}

# scripts/export writes a cover letter from here on; scripts/submit drops it.
# shellcheck disable=SC2034
COVER_MARKER='--- export writes what follows ---'

# cover_statistics TREE PART: what git puts under a cover letter.
cover_statistics() {
	local range
	range=$(part_range "$1" "$2")
	kgit -C "$1" shortlog -w72,2,4 "$range" </dev/null
	kgit -C "$1" diff -M --stat=72 --summary "$range"
}

# --- the overlay: files that the series adds, at their paths in the kernel -----

OVERLAY_ROOTS=(mm include rust drivers Documentation kernel lib tools)

# overlay_files TREE: paths of the files that the series adds.
overlay_files() {
	kgit -C "$1" diff --no-renames --diff-filter=A --name-only pristine..HEAD
}

# overlay_write TREE DEST: the overlay as it stands after the last patch, and
# the lines that the series adds to MAINTAINERS.
overlay_write() {
	local tree=$1 dest=$2 path roots
	roots=$(IFS='|'; say "${OVERLAY_ROOTS[*]}")
	while IFS= read -r path; do
		[[ $path =~ ^($roots)/ ]] ||
			die "the series adds $path: no overlay root (${OVERLAY_ROOTS[*]})"
		mkdir -p "$dest/$(dirname "$path")"
		rm -f "$dest/$path"
		kgit -C "$tree" show "HEAD:$path" >"$dest/$path"
		case $(kgit -C "$tree" ls-tree HEAD -- "$path") in
		100755*) chmod 755 "$dest/$path" ;;
		esac
	done < <(overlay_files "$tree")
	kgit -C "$tree" diff -U0 pristine..HEAD -- MAINTAINERS |
		sed -n '/^@@/,$ { /^+/s/^+//p }' |
		sed -e '/./,$!d' -e :a -e '/^\n*$/{$d;N;ba' -e '}' >"$dest/MAINTAINERS"
	[ -s "$dest/MAINTAINERS" ] || rm "$dest/MAINTAINERS"
}

# overlay_present DIR: what is there now.
overlay_present() {
	(cd "$1" && find "${OVERLAY_ROOTS[@]}" MAINTAINERS -type f 2>/dev/null || true) | sort
}

# --- kernels of ours ------------------------------------------------------------

# kernel_make SRC OUT ARGS...: what every make of a kernel here has in common.
# Fixed stamps let an unchanged tree give an unchanged kernel; CCACHE_BASEDIR
# lets trees at other places share what ccache has.  KERNEL_TOOLS: the compiler.
KERNEL_TOOLS=("CC=ccache gcc")
kernel_make() {
	local src out
	src=$(realpath "$1")
	out=$(realpath -m "$2")
	shift 2
	CCACHE_BASEDIR=$BUILD CCACHE_MAXSIZE=10G \
	make -C "$src" O="$out" -j"$JOBS" "${KERNEL_TOOLS[@]}" \
		KBUILD_BUILD_TIMESTAMP="2026-01-01 00:00:00 UTC" \
		KBUILD_BUILD_USER=memmap_async KBUILD_BUILD_HOST=localhost \
		KBUILD_BUILD_VERSION=1 LOCALVERSION= "$@"
}

# log_name OUT: build/test/out logs into build/log/test-out*.log.
log_name() {
	local out
	out=$(realpath -m "$1")
	out=${out#"$BUILD"/}
	say "${out//\//-}" | sed 's/^-*//'
}

# kernel_config SRC OUT FRAGMENT...: allnoconfig plus the fragments, of which
# the last word counts.  An option that this SRC does not know is passed over
# (see config_lost).  It costs three seconds, and runs each time since SRC's
# Kconfig files may have changed; Kconfig leaves an equal .config untouched, so
# nothing is rebuilt for it.
kernel_config() {
	local src=$1 out=$2 name
	shift 2
	mkdir -p "$out"
	name=$(log_name "$out")-config
	awk 1 "$@" >"$out/.fragments"
	logged "$name" kernel_make "$src" "$out" -s \
		KCONFIG_ALLCONFIG="$(realpath "$out")/.fragments" allnoconfig || return
	if grep -qx 'CONFIG_RUST=y' "$out/.fragments" &&
	   ! grep -qx '# CONFIG_RUST is not set' "$out/.fragments" &&
	   ! grep -qx 'CONFIG_RUST=y' "$out/.config"; then
		logged "$name" kernel_make "$src" "$out" -s rustavailable ||
			die "this kernel cannot be built with Rust here (scripts/setup gets what is missing)"
		die "$src does not let CONFIG_RUST be set with these options (see $out/.config)"
	fi
}

# config_lost OUT FRAGMENT...: the settings that did not make it into .config.
config_lost() {
	local config=$1/.config
	shift
	awk '
	function name(line) {
		sub(/^# /, "", line); sub(/[ =].*/, "", line); return line
	}
	!/^(CONFIG_|# CONFIG_.* is not set$)/ { next }
	FILENAME == ARGV[ARGC - 1] { got[name($0)] = $0; next }
	{ want[name($0)] = $0 }
	END {
		for (o in want)
			if (want[o] ~ /^#/ ? got[o] !~ /^(#|$)/ : got[o] != want[o])
				print want[o]
	}' "$@" "$config" | sort
}

# kernel_image OUT: where the built kernel is.
kernel_image() { say "$1/arch/x86/boot/bzImage"; }

# kernel_build SRC OUT [ARGS...]: builds bzImage (or the targets in ARGS); the
# log is build/log/$KERNEL_LOG.log.
kernel_build() {
	local src=$1 out=$2 name=${KERNEL_LOG:-}
	shift 2
	name=${name:-$(log_name "$out")-build}
	case " $* " in
	*' '[a-z]*) ;;
	*) set -- "$@" bzImage ;;
	esac
	logged "$name" kernel_make "$src" "$out" "$@"
}

# --- Debian's own kernel and userland -------------------------------------------

# scripts/setup --distro gets both.
DISTRO=$CACHE/distro
DISTRO_SUITE=trixie
# shellcheck disable=SC2034
DISTRO_CONFIG=$DISTRO/cloud-$KERNEL_VERSION.config

# distro_disk: where the disk is; its name tells what it was made from.
distro_disk() {
	local key
	key=$({ sed -n '/^make_distro_disk/,/^}/p' "$TOP/scripts/setup"
		cat "$TOP/tests/distro/packages"; } | sha256sum | cut -c 1-16)
	say "$DISTRO/$DISTRO_SUITE-$key.ext4"
}

# --- the two kernels that are compared --------------------------------------------

# scripts/demo and scripts/bench share them.
PAIR=$BUILD/demo

# pair_options ROUNDS NAMES ARGS...: their options, and those in NAMES (see options);
# ROUNDS is how many there are without --quick.
pair_options() {
	linux="" base="" series="" quick="" rounds=""
	options "linux= base= series= quick rounds= $2" "${@:3}"
	case ${base:+b}${series:+s} in b|s) die "--base and --series go together" ;; esac
	rounds=${rounds:-$((quick ? 2 : $1))}
	"$TOP/scripts/setup" ${linux:+--linux "$linux"}
}

# pair_kernel base|series [LINUX]: the kernel without or with the series becomes
# $PAIR/base or $PAIR/series, unless that is of the same source already.  Both have
# one tree and one output directory, so that the second is an incremental build of
# the first, and the source's path is the same in both.
pair_kernel() {
	local name=$1 linux=${2:-} made config=("$TOP"/tests/guest/{kernel,series}.config)
	mkdir -p "$PAIR"
	step "checking out the $name kernel${linux:+ in $linux}"
	pristine_tree "$PAIR/tree" "$linux"
	if [ "$name" = series ]; then
		kgit -C "$PAIR/tree" checkout -q -B series
		apply_series "$PAIR/tree" || exit 1
	fi
	made=$({ kgit -C "$PAIR/tree" rev-parse 'HEAD^{tree}'; gcc --version
		rustc --version; cat "${config[@]}"; } | sha256sum)
	[ ! -e "$PAIR/$name" ] || [ "$(cat "$PAIR/$name.made" 2>/dev/null)" != "$made" ] || return 0
	step "building the $name kernel"
	kernel_config "$PAIR/tree" "$PAIR/out" "${config[@]}" ||
		die "cannot configure the $name kernel"
	kernel_build "$PAIR/tree" "$PAIR/out" || die "cannot build the $name kernel"
	rm -f "$PAIR/$name.made"
	cp "$(kernel_image "$PAIR/out")" "$PAIR/$name"
	say "$made" >"$PAIR/$name.made"
}
