#!/bin/bash
# machine-image.sh DIR - makes DIR/root.img and DIR/vmlinuz, from which machine.sh
# starts a machine: Debian sid's kernel, which has built in what it needs to start
# without an initrd, CRIU, a compiler for the tests' programs, a systemd that is for the
# tests to start, and no service at all.
set -euo pipefail
# shellcheck source=scripts/debian.sh
. "$(dirname "$0")/debian.sh"

dir=${1:?usage: machine-image.sh DIR}
init=$(dirname "$0")/machine-init.sh
packages=apparmor,busybox-static,criu,dbus,gcc,iproute2,iptables,kmod,libc6-dev,nftables,procps,runc,systemd
install_packages mmdebstrap e2fsprogs xz-utils

# Unpacks the kernel's packages, whose own scripts would make an initrd.
add_kernel() {
    local version kind package kernel=$work/kernel
    version=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: linux-image-\([0-9].*\)/\1/p' | head -n 1)
    [ -n "$version" ] || die "Debian sid has no linux-image-cloud-amd64"
    mkdir "$kernel"
    for kind in image binary modules base; do
        package=linux-$kind-$version
        [ -z "$(candidate "$package")" ] || (cd "$kernel" && apt-get -qq download "$package")
    done
    for package in "$kernel"/*.deb; do dpkg-deb --extract "$package" "$kernel/unpacked"; done
    mkdir -p "$work/root/usr/lib/modules"
    cp -a "$(find "$kernel/unpacked" -path "*/lib/modules/$version" -type d | head -n 1)" "$work/root/usr/lib/modules/"
    find "$work/root/usr/lib/modules" -name '*.ko.xz' -exec xz --decompress {} +
    chroot "$work/root" depmod "$version"
    cp "$(find "$kernel/unpacked" -name 'vmlinuz*' -type f | head -n 1)" "$work/vmlinuz"
}

mkdir -p "$dir"
# apt takes a relative path for one below /etc/apt.
work=$(realpath "$(mktemp -d "$dir/new.XXXXXX")")
trap 'rm -rf --one-file-system "$work"' EXIT
mkdir "$work/apt"
use_sid "$work/apt" deb
mirror=$(sed -n 's/^deb \[.*\] \([^ ]*\) .*/\1/p' "$work/apt/sources.list")
say "making a machine of Debian sid"
# mmdebstrap has an apt configuration of its own.
env -u APT_CONFIG mmdebstrap --quiet --mode=root --variant=minbase --include="$packages" --format=directory \
    --aptopt='Acquire::Languages "none"' --aptopt='Acquire::Check-Valid-Until "false"' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    sid "$work/root" "$mirror"
add_kernel
install -m 755 "$init" "$work/root/init"
truncate -s 3G "$work/root.img"
mke2fs -q -t ext4 -d "$work/root" "$work/root.img"
mv "$work/vmlinuz" "$work/root.img" "$dir/"
