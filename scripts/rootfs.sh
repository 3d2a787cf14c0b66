#!/bin/bash
# rootfs.sh DIR - makes DIR a root filesystem for a container: Debian's static
# busybox under the names of all its commands, and the directories that a
# container's default mounts need.
set -euo pipefail

dir=${1:?usage: rootfs.sh DIR}
busybox=$(command -v busybox)

mkdir -p "$dir"/{bin,dev,etc,proc,root,run,sys,tmp,usr}
ln -s ../bin "$dir/usr/bin"
ln -s bin "$dir/sbin"
chmod 1777 "$dir/tmp"
install -m 755 "$busybox" "$dir/bin/busybox"
for applet in $(busybox --list); do
    [ -e "$dir/bin/$applet" ] || ln -s busybox "$dir/bin/$applet"
done
echo root:x:0:0:root:/root:/bin/sh >"$dir/etc/passwd"
echo root:x:0: >"$dir/etc/group"
