#!/bin/bash
# Makes CRIU 4.2 or newer available: the one that is there, else Debian's
# package, else a build of Debian sid's source package, installed as
# /usr/local/sbin/criu. The build has its own apt lists; the machine's own apt
# configuration is not changed, and signatures are checked as always.
set -euo pipefail
# shellcheck source=scripts/debian.sh
. "$(dirname "$0")/debian.sh"

wanted=4.2

found() { { criu --version 2>/dev/null || true; } | sed -n 's/^Version: //p'; }

build_from_sid() {
    # Not local: the trap runs after this function has returned.
    dir=$(mktemp -d)
    trap 'rm -rf "$dir"' EXIT
    install_packages gcc libc6-dev make pkg-config xz-utils bzip2 debian-archive-keyring \
        libprotobuf-dev libprotobuf-c-dev protobuf-c-compiler protobuf-compiler libnl-3-dev \
        libnl-route-3-dev libcap-dev libnet1-dev libbsd-dev uuid-dev libnftables-dev \
        libgnutls28-dev libaio-dev

    unpack_source_from_sid "$dir/source" criu
    say "building CRIU from Debian sid's source"
    make -C "$dir/source" -j"$(nproc)" criu >"$dir/build.log" 2>&1 || {
        tail -n 40 "$dir/build.log" >&2
        die "the build of CRIU failed"
    }
    install -D -m 755 "$dir/source/criu/criu" /usr/local/sbin/criu
}

if ! at_least "$(found)" "$wanted"; then
    update_lists
    if at_least "$(candidate criu)" "$wanted"; then
        install_packages criu
    else
        build_from_sid
    fi
    hash -r
    at_least "$(found)" "$wanted" || die "CRIU is $(found), $wanted is needed"
fi
# CRIU locks a container's network with iptables while it is dumped.
install_packages iptables
if [ "$(id -u)" = 0 ]; then
    report=$(criu check 2>&1) || die "CRIU $(found) does not work on this kernel: $report"
fi
say "CRIU $(found): $(command -v criu)"
