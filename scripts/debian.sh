# Functions for the install-*.sh scripts, to be sourced: which Debian packages
# are there, and how to add the missing ones. Nothing is fetched when nothing
# is missing, and no service is started by an installation.
# shellcheck shell=bash

export DEBIAN_FRONTEND=noninteractive
# What a bare root shell may lack: cargo's own programs, and the system's.
PATH=$PATH:${HOME:-/root}/.cargo/bin:/usr/local/sbin:/usr/sbin:/sbin

say() { printf '== %s\n' "$*"; }

die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# Prints those of the named packages that are not installed.
missing() {
    local package
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
            printf '%s\n' "$package"
    done
}

# Prints those of the named packages whose command, written COMMAND=PACKAGE, is
# not on PATH: a machine may have its dockerd or its runc from elsewhere.
lacking() {
    local pair
    for pair in "$@"; do
        command -v "${pair%%=*}" >/dev/null || printf '%s\n' "${pair#*=}"
    done
}

# Fetches the package lists, at most once in a script's run.
lists_fetched=
update_lists() {
    [ -z "$lists_fetched" ] || return 0
    [ "$(id -u)" = 0 ] || die "must be root to install packages"
    apt-get -qq -o Acquire::Retries=3 update
    lists_fetched=yes
}

# Prints the version of a package that apt would install, or nothing.
candidate() {
    apt-cache policy "$1" | sed -n 's/^  Candidate: //p' | grep -vx '(none)' || true
}

# Whether version $1 is at least version $2; no version is less than any.
at_least() { [ -n "$1" ] && dpkg --compare-versions "$1" ge "$2"; }

# Installs those of the named packages that are missing.
install_packages() (
    mapfile -t absent < <(missing "$@")
    [ ${#absent[@]} -gt 0 ] || exit 0
    update_lists
    say "installing ${absent[*]}"
    # Exit code 101 tells the packages' scripts to leave their services alone.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        trap 'rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    apt-get -qq -o Acquire::Retries=3 -o DPkg::Lock::Timeout=600 -o Dpkg::Use-Pty=0 \
        install --yes --no-install-recommends "${absent[@]}" >/dev/null
)

# Points apt at Debian sid alone, of which it then knows packages (deb) or
# sources (deb-src), until APT_CONFIG is unset. All of that is in a directory:
# the machine's own configuration is not changed, signatures are checked as always,
# and no package counts as installed.
use_sid() {
    local dir=$1 kind=$2 mirror
    mirror=$(apt-get indextargets --format "\$(ORIGIN)|\$(LABEL)|\$(REPO_URI)" 'Created-By: Packages' |
        sed -n 's/^Debian|Debian|//p' | head -n 1)
    [ -n "$mirror" ] || die "none of apt's sources is a Debian archive, which sid's packages could come from"
    printf '%s [signed-by=%s] %s sid main\n' \
        "$kind" /usr/share/keyrings/debian-archive-keyring.gpg "$mirror" >"$dir/sources.list"
    mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial"
    : >"$dir/status"
    cat >"$dir/apt.conf" <<CONF
Dir::Etc::sourcelist "$dir/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::State::lists "$dir/lists";
Dir::State::status "$dir/status";
Dir::Cache "$dir/cache";
Acquire::Check-Valid-Until "false";
Acquire::Languages "none";
Acquire::Retries "3";
APT::Sandbox::User "root";
CONF
    export APT_CONFIG=$dir/apt.conf
    apt-get -qq update
}

# Unpacks the named packages of Debian sid, and the libraries that they depend on, into a directory. None of them is
# installed.
unpack_from_sid() (
    root=$1
    shift
    temporary=$(mktemp -d)
    trap 'rm -rf "$temporary"' EXIT
    update_lists
    use_sid "$temporary" deb
    mapfile -t libraries < <(apt-cache depends "$@" | sed -n 's/^  Depends: \(lib.*\)/\1/p' | sort -u)
    mkdir "$temporary/debs"
    (cd "$temporary/debs" && apt-get -qq download "$@" "${libraries[@]}")
    mkdir -p "$root"
    for package in "$temporary"/debs/*.deb; do dpkg-deb --extract "$package" "$root"; done
    chmod 755 "$root"
)

# Unpacks the upstream source of a package of Debian sid into a directory.
unpack_source_from_sid() (
    root=$1
    temporary=$(mktemp -d)
    trap 'rm -rf "$temporary"' EXIT
    update_lists
    use_sid "$temporary" deb-src
    mkdir "$temporary/source"
    (cd "$temporary/source" && apt-get -qq source --download-only --tar-only "$2")
    mkdir -p "$root"
    tar -xf "$temporary/source/$2"_*.orig.tar.* -C "$root" --strip-components=1
)

# Puts a program of Debian sid into a directory that is not there yet, with the
# libraries that it was built with: program_from_sid DIR PROGRAM PACKAGE..., where
# PROGRAM is its path in the packages. It names the loader and the libraries in DIR,
# since the machine's C library may be too old for it.
program_from_sid() (
    dir=$(realpath -m "$1")
    install_packages patchelf debian-archive-keyring
    mkdir -p "${dir%/*}"
    new=$(mktemp -d "$dir.XXXX")
    trap 'rm -rf "$new"' EXIT
    unpack_from_sid "$new" "${@:3}"
    loader=$(echo "$new"/usr/lib/*/ld-linux*)
    loader=$dir/${loader#"$new/"}
    # An RPATH, not a RUNPATH, which libraries that are loaded later would not know.
    patchelf --set-interpreter "$loader" --force-rpath --set-rpath "${loader%/*}" "$new/$2"
    mv -T "$new" "$dir"
)
