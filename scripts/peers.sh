#!/bin/bash
# peers.sh DIR - puts those that stasis is measured against into DIR, unless they are
# there: crun, runc and youki, in their newest versions that Debian sid and crates.io
# have. None of them is installed.
set -euo pipefail
# shellcheck source=scripts/debian.sh
. "$(dirname "$0")/debian.sh"

dir=$(realpath -m "${1:?usage: peers.sh DIR}")
install_packages strace busybox-static libseccomp-dev pkg-config
mkdir -p "$dir"
for peer in crun:usr/bin/crun runc:usr/sbin/runc; do
    name=${peer%%:*}
    [ -e "$dir/sid-$name/${peer#*:}" ] || program_from_sid "$dir/sid-$name" "${peer#*:}" "$name"
    ln -sfn "sid-$name/${peer#*:}" "$dir/$name"
done
if [ ! -e "$dir/youki" ]; then
    say "building youki"
    # As its authors build it, and not as the tree here is.
    RUSTFLAGS='' cargo install --quiet --locked --root "$dir/cargo" --target-dir "$dir/build" youki --version 0.7.0 --features v1,v2,systemd,seccomp
    rm -rf "$dir/build"
    ln -sfn cargo/bin/youki "$dir/youki"
fi
