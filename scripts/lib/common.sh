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
PATCHES=$TOP/patches
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
joined() { printf '%s; ' "$@" | sed 's/; $/\n/'; }

# verdict: what was skipped, and how often; what did not run at all; the last line.
verdict() {
	local names
	if [ ${#skipped[@]} -gt 0 ]; then
		mapfile -t names < <(printf '%s\n' "${skipped[@]}" | sort | uniq -c |
			sed -E 's/^ *([0-9]+) (.*)/\2 (\1 times)/; s/ \(1 times\)$//')
		say "SKIPPED: $(joined "${names[@]}")"
	fi
	[ ${#not_run[@]} -eq 0 ] || say "NOT RUN: $(joined "${not_run[@]}")"
	say "$passed passed, $failed failed, ${#skipped[@]} skipped"
	[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
}

# heartbeat LOG: a line a minute, since long work must not look dead.
heartbeat() {
	local seconds=0
	while sleep 1 && kill -0 $$ 2>/dev/null; do
		((++seconds % 60)) || step "    $((seconds / 60)) min: $(tail -n 1 "$1" | cut -c 1-60)"
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
	{ kill "$beat" && wait "$beat"; } 2>/dev/null || true
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

# identity name|email: of who commits here, or a neutral one; git am wants it.
identity() { git -C "$TOP" config "user.$1" 2>/dev/null || say memmap_async@localhost; }

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
		rm -rf "$dir"
		cp -a --reflink=auto "$linux" "$dir"
		rm -rf "$dir/.git"
		import_tree "$dir" "The kernel in $linux"
		return
	fi
	[ -z "$(kgit --no-optional-locks -C "$linux" status --porcelain -uno)" ] ||
		warn "$linux has uncommitted changes: only its HEAD is used"
	head=$(kgit -C "$linux" rev-parse --verify -q 'HEAD^{commit}') ||
		die "$linux has no commit"
	lend_tree "$dir" "$linux"
	switch_tree "$dir" "$head"
	kgit -C "$dir" checkout -q -B pristine
	kgit -C "$dir" clean -q -f -d -x
}

# import_tree DIR MESSAGE [-f]: makes a plain source tree a git tree of one commit;
# with -f what it ignores is part of the source, too.
import_tree() {
	# Debian's .gitignore ends with a pattern that hides every new file.
	if [ -e "$1/.gitignore" ]; then sed -i '/^\/\*$/d' "$1/.gitignore"; fi
	kgit init -q -b pristine "$1"
	kgit -C "$1" add -A ${3:+"$3"}
	kgit -C "$1" -c user.name=linux -c user.email=linux@localhost commit -q -m "$2"
	# What a build left behind, which an O= build would stumble over.
	kgit -C "$1" clean -q -f -d -X
}

# apply_series TREE: one commit a patch onto what TREE has checked out, and a
# branch of its name at the end of each part.  On failure: says which hunk of which
# patch it was, and TREE is what it was.
apply_series() {
	local tree=$1 start part list out
	start=$(kgit -C "$tree" rev-parse HEAD)
	for part in $(part_branches "$tree"); do kgit -C "$tree" branch -q -D "$part"; done
	for part in $(part_list); do
		mapfile -t list < <(patch_list "$PATCHES/$part")
		if ! out=$(GIT_COMMITTER_NAME=$(identity name) GIT_COMMITTER_EMAIL=$(identity email) \
				kgit -C "$tree" am -q --committer-date-is-author-date \
				"${list[@]}" 2>&1 </dev/null); then
			warn "$part does not apply:"
			grep -v '^hint:' <<<"$out" >&2
			kgit -C "$tree" am --abort >/dev/null 2>&1 || true
			kgit -C "$tree" reset -q --hard "$start"
			return 1
		fi
		kgit -C "$tree" branch -q "$part"
	done
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

# scripts/export writes a cover letter from here on; scripts/submit drops it.
COVER_MARKER='--- export writes what follows ---'

# Where the files are that the series adds, each at its path in the kernel tree.
OVERLAY_ROOTS=(mm include rust drivers Documentation kernel lib tools)

# exported_files DIR: what export_series writes, and is in DIR now.
exported_files() {
	(cd "$1" && find patches "${OVERLAY_ROOTS[@]}" MAINTAINERS -type f \( ! -path 'patches/*' \
		-o -name '[0-9]*.patch' -o -name 0000-cover-letter.txt \) 2>/dev/null || true) | sort
}

# overlay_files TREE: paths of the files that the series adds.
overlay_files() { kgit -C "$1" diff --no-renames --diff-filter=A --name-only pristine..HEAD; }

# export_series TREE DIR: the commits of TREE as this repository shows them: patches
# and cover letters, the files that the series adds as they are at the end, its lines
# of MAINTAINERS.  The same bytes for the same commits on any machine, with any
# recent git.
export_series() {
	local tree=$1 dest=$2 part range path n roots added
	for part in $(part_branches "$tree"); do
		range=$(part_range "$tree" "$part")
		mkdir -p "$dest/patches/$part"
		# MAINTAINERS first, where checkpatch looks for it before new files.
		kgit -C "$tree" format-patch -q --numbered --zero-commit --no-signature \
			-O <(echo MAINTAINERS) --no-base --abbrev=12 -M \
			--diff-algorithm=histogram -o "$(realpath "$dest/patches/$part")" "$range"
		[ -e "$PATCHES/$part/0000-cover-letter.txt" ] || continue
		n=$(kgit -C "$tree" rev-list --count "$range")
		{
			sed -e "/^$COVER_MARKER\$/,\$d" -e "1,/^\$/s|^\(Subject: *\[PATCH[^]]*\) 0*/[0-9]*\]|\1 $(
				printf "%0${#n}d/%d" 0 "$n")]|" "$PATCHES/$part/0000-cover-letter.txt"
			say "$COVER_MARKER"
			say
			kgit -C "$tree" shortlog -w72,2,4 "$range" </dev/null
			kgit -C "$tree" diff -M --stat=72 --summary "$range"
		} >"$dest/patches/$part/0000-cover-letter.txt"
	done
	roots=$(IFS='|'; say "${OVERLAY_ROOTS[*]}")
	mapfile -t added < <(overlay_files "$tree")
	path=$(printf '%s\n' "${added[@]}" | grep -vE "^($roots)/") &&
		die "the series adds $path: not in ${OVERLAY_ROOTS[*]}"
	kgit -C "$tree" -c tar.umask=0022 archive HEAD -- "${added[@]}" | tar -x -m -C "$dest"
	kgit -C "$tree" diff -U0 pristine..HEAD -- MAINTAINERS |
		sed -n '/^@@/,$ { /^+/s/^+//p }' |
		sed -e '/./,$!d' -e :a -e '/^\n*$/{$d;N;ba' -e '}' >"$dest/MAINTAINERS"
	[ -s "$dest/MAINTAINERS" ] || rm "$dest/MAINTAINERS"
}

# --- kernels of ours ------------------------------------------------------------

# kernel_make SRC OUT ARGS...: what every make of a kernel here has in common.
# Fixed stamps let an unchanged tree give an unchanged kernel; CCACHE_BASEDIR
# lets trees at other places share what ccache has.  KERNEL_TOOLS: the compiler.
KERNEL_TOOLS=("CC=ccache gcc")
# shellcheck disable=SC2034  # scripts/test takes these instead
ARM64_TOOLS=(ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu- "CC=ccache aarch64-linux-gnu-gcc")
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

# kernel_config SRC OUT FRAGMENT...: allnoconfig plus the fragments, of which
# the last word counts.  An option that this SRC does not know is passed over
# (see config_lost).  It costs three seconds, and runs each time since SRC's
# Kconfig files may have changed; Kconfig leaves an equal .config untouched, so
# nothing is rebuilt for it.
kernel_config() {
	local src=$1 out=$2
	shift 2
	mkdir -p "$out"
	awk 1 "$@" >"$out/.fragments"
	logged kernel-config kernel_make "$src" "$out" -s \
		KCONFIG_ALLCONFIG="$(realpath "$out")/.fragments" allnoconfig || return
	if config_lost "$out/.config" "$@" | grep -x CONFIG_RUST=y >/dev/null; then
		logged kernel-config kernel_make "$src" "$out" -s rustavailable || true
		die "$src cannot be built with Rust here (see $out/.config)"
	fi
}

# config_lost CONFIG FRAGMENT...: the settings that did not make it into CONFIG.
config_lost() {
	local config=$1
	shift
	awk '
	!/^(CONFIG_|# CONFIG_.* is not set$)/ { next }
	{ name = $0; sub(/^# /, "", name); sub(/[ =].*/, "", name) }
	FILENAME == ARGV[ARGC - 1] { got[name] = $0; next }
	{ want[name] = $0 }
	END {
		for (name in want)
			if (want[name] ~ /^#/ ? got[name] !~ /^(#|$)/ : got[name] != want[name])
				print want[name]
	}' "$@" "$config" | sort
}

# kernel_build SRC OUT ARGS...: makes them; the log is build/log/$KERNEL_LOG.log.
kernel_build() { logged "${KERNEL_LOG:-kernel-build}" kernel_make "$@"; }

# --- kernels that are kept ------------------------------------------------------

# One source tree and one output directory for all of them, so that each is an
# incremental build of the one before, and sources have one path.  Two scripts that
# build can't run side by side.
KERNELS=$BUILD/test
TREE=$KERNELS/tree
SERIES=$BUILD/check/tree

# series_for_kernels [LINUX]: the series, as git objects that $TREE can check out.
series_for_kernels() {
	series_tree "$SERIES" "$1" || return
	mkdir -p "$KERNELS/images"
	lend_tree "$TREE" "$SERIES"
	# For sparse to look at after each build; those that are there.
	mapfile -t sparse_files < <(kgit -C "$SERIES" diff --name-only pristine..series -- '*.c')
}

# image_of COMMIT FRAGMENT...: where a build is kept; its name tells what it depends on.
image_of() {
	say "$KERNELS/images/$({
		kgit -C "$TREE" rev-parse "$1^{tree}"
		cat "${@:2}"
		declare -p KERNEL_TOOLS; declare -f kernel_make
		gcc --version; rustc --version; bindgen --version
		case ${KERNEL_TOOLS[*]} in
		*LLVM*) "clang-$LLVM_VERSION" --version ;;
		*arm64*) aarch64-linux-gnu-gcc --version ;;
		esac
	} | sha256sum | cut -c 1-20)"
}

# warnings LOG...: one a line, without line numbers, for comparison.  Those of
# make itself are about the machine, not the source; so is the one of jobserver-exec, which
# LTO links by.
warnings() {
	grep -haiE '(^|[^[:alnum:]_])(warning|error):' "$@" |
		grep -avE '^(make(\[[0-9]+\])?:|WARNING: Unable to reopen jobserver)' |
		sed -E -e 's/\x1b\[[0-9;]*[mK]//g' -e "s|$TREE/||g" -e 's|(\.\./)+tree/||g' \
			-e 's/:[0-9]+(:[0-9]+)?//g' -e 's/ at line [0-9]+//g' |
		sort -u || true
}

# Debian's sparse is older than a keyword that the kernel uses, and takes no strlen()
# for a constant.  Its first error in a file would hide all that comes after.
SPARSE="sparse -D__typeof_unqual__=__typeof__ '-D_Static_assert(...)='"

# run_sparse OUT LOG ARGS...: what is in $sparse_files and has been built.
run_sparse() {
	local out=$1 log=$2 file objects=()
	shift 2
	for file in "${sparse_files[@]}"; do
		if [ -e "$TREE/$file" ] && [ -e "$out/${file%.c}.o" ]; then
			objects+=("${file%.c}.o")
		fi
	done
	[ ${#objects[@]} -eq 0 ] ||
		logged "$log" kernel_make "$TREE" "$out" "$@" C=2 CHECK="$SPARSE" "${objects[@]}"
}

# keep_kernel COMMIT OUT NAME FRAGMENT...: sets $image to the directory that holds
# bzImage (whatever its architecture calls it), config and warnings of COMMIT, built now
# or by an earlier run ($built says which).  Logs: build/log/NAME-build.log,
# NAME-sparse.log.
keep_kernel() {
	# Without kernel-doc for each file, which takes as long as the compiler:
	# scripts/check does it, for those that the series touches.
	local commit=$1 out=$2 name=$3 start=$SECONDS args=(W=1 KERNELDOC="-c pass")
	local boot=arch/x86/boot/bzImage
	[[ ${KERNEL_TOOLS[*]} != *ARCH=arm64* ]] || boot=arch/arm64/boot/Image
	shift 3
	image=$(image_of "$commit" "$@")
	if [ -e "$image/bzImage" ] && [ -z "${full:-}" ]; then
		touch "$image"
		built="built earlier"
		return 0
	fi
	switch_tree "$TREE" "$commit" || return
	# What an earlier build compiled that did not get to its end would now be silent.
	[ ! -e "$out/unfinished" ] || rm -rf "$out"
	mkdir -p "$out"
	: >"$out/unfinished"
	(kernel_config "$TREE" "$out" "$@") || return
	KERNEL_LOG=$name-build kernel_build "$TREE" "$out" "${args[@]}" "${boot##*/}" || return
	rm "$out/unfinished"
	rm -f "$BUILD/log/$name-sparse.log"
	run_sparse "$out" "$name-sparse" "${args[@]}" || return
	rm -rf "$image"
	mkdir "$image"
	warnings "$BUILD/log/$name"-{build,sparse}.log >"$image/warnings" 2>/dev/null
	cp "$out/.config" "$image/config"
	# Last, since it says that the rest is there.
	cp "$out/$boot" "$image/bzImage"
	# shellcheck disable=SC2034  # scripts/test says it
	built="built in $((SECONDS - start)) s"
	# Those that no run asked for in a month.
	find "$KERNELS/images" -mindepth 1 -maxdepth 1 -mtime +30 -exec rm -rf {} +
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
# $PAIR/base or $PAIR/series.  Both have the same configuration, and no suites of the
# series', which only one of them could have: a larger image boots later.
pair_kernel() {
	local image commit=series
	step "building the $1 kernel${2:+ from $2}, unless it is there"
	[ "$1" = series ] || commit=pristine
	series_for_kernels "${2:-}" || exit 1
	grep -v KUNIT "$TOP/tests/guest/series.config" >"$KERNELS/pair.config"
	keep_kernel "$(kgit -C "$SERIES" rev-parse "$commit")" "$KERNELS/out" "demo-$1" \
		"$TOP/tests/guest/kernel.config" "$KERNELS/pair.config" || die "cannot build the $1 kernel"
	mkdir -p "$PAIR"
	cp "$image/bzImage" "$PAIR/$1"
}
