#!/bin/bash
# machine.sh DIR FILE... -- COMMAND... - runs a command as root in an emulated machine,
# with copies of these files at the same places there, and ends with its exit code.
# Its kernel has what a host of containers may lack: all controllers of cgroup v2,
# AppArmor, and tracking of memory. The image in DIR is made once; changes to it are lost.
set -euo pipefail
# shellcheck source=scripts/debian.sh
. "$(dirname "$0")/debian.sh"

dir=${1:?usage: machine.sh DIR FILE... -- COMMAND...}
shift
files=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    files+=("$(realpath "$1")")
    shift
done
[ $# -gt 1 ] || die "no command"
shift

here=$(dirname "$0")
# Newer also means that there is one.
for part in machine-init.sh machine-image.sh; do
    [ "$dir/root.img" -nt "$here/$part" ] || "$here/machine-image.sh" "$dir"
done
mapfile -t packages < <(lacking qemu-system-x86_64=qemu-system-x86)
install_packages "${packages[@]}"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
printf '%q ' "$@" >"$work/job"
tar -cPf "$work/job.tar" --transform 's,^/,,' "${files[@]}"
tar -C "$work" -rf "$work/job.tar" job
truncate -s %1M "$work/job.tar"

# mitigations and watchdogs are for real machines: this one is ten times slower.
timeout -k 5 "${MACHINE_SECONDS:-900}" qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot \
    -M q35 -accel tcg,thread=multi -cpu max,la57=off -smp 2 -m 2048 -kernel "$dir/vmlinuz" \
    -append "root=/dev/nvme0n1 rootfstype=ext4 rootwait rw init=/init console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off nmi_watchdog=0 nowatchdog rcupdate.rcu_cpu_stall_suppress=1 apparmor=1 security=apparmor" \
    -drive "if=none,id=root,file=$dir/root.img,format=raw,snapshot=on,cache=unsafe" -device nvme,serial=root,drive=root \
    -drive "if=none,id=job,file=$work/job.tar,format=raw,cache=unsafe" -device virtio-blk-pci,drive=job \
    -serial stdio </dev/null | tr -d '\r' | tee "$work/console" || true
code=$(sed -n 's/^machine: exit code \([0-9]*\)$/\1/p' "$work/console")
exit "${code:-125}"
