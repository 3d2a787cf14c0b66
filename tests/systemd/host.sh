#!/bin/sh
# host.sh NAME LAYOUT - runs a systemd as the first process of namespaces of its own, on the hierarchies of cgroups
# that LAYOUT says (v2, or hybrid for those of v1 too), in which it has the cgroup NAME for its root.
# Standard input and output are nobody's; it is for an enclosure, which ends it.
set -eu
name=$1
export LAYOUT="$2"

if [ -e /sys/fs/cgroup/cgroup.procs ]; then
    hierarchies=/sys/fs/cgroup
else
    hierarchies=$(find /sys/fs/cgroup -mindepth 1 -maxdepth 1 -type d)
fi
for hierarchy in $hierarchies; do
    mkdir "$hierarchy/$name"
    # Nobody can join a cpuset that is empty.
    for file in cpuset.cpus cpuset.mems; do
        [ ! -e "$hierarchy/cgroup.clone_children" ] || [ ! -e "$hierarchy/$file" ] ||
            cat "$hierarchy/$file" >"$hierarchy/$name/$file"
    done
    echo $$ >"$hierarchy/$name/cgroup.procs"
done

# shellcheck disable=SC2016
exec unshare --mount --pid --cgroup --ipc --uts --fork --kill-child --mount-proc sh -euc '
    controllers=$(find /sys/fs/cgroup -mindepth 1 -maxdepth 1 -type d ! -name unified ! -name systemd)
    if [ "$LAYOUT" = v2 ]; then
        mount -t cgroup2 cgroup2 /sys/fs/cgroup
    else
        mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
        for place in $controllers; do
            mkdir "$place"
            mount -t cgroup -o "${place##*/}" cgroup "$place"
        done
        mkdir /sys/fs/cgroup/systemd /sys/fs/cgroup/unified
        mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
        mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
    fi
    mount -t tmpfs -o mode=755 tmpfs /run
    units=/run/systemd/system
    mkdir -p $units
    # Files of this machine are seen here: none of its own units may run, such as the one that empties /tmp when a
    # machine starts, whose program is not to be had either. A service needs the first two of these by default.
    ! place=$(command -v systemd-tmpfiles) || mount --bind /dev/null "$place"
    for target in sysinit basic bus; do
        printf "[Unit]\nDefaultDependencies=no\n" >$units/$target.target
    done
    printf "Wants=dbus.socket\n" >>$units/bus.target
    printf "[Unit]\nDefaultDependencies=no\n[Socket]\nListenStream=/run/dbus/system_bus_socket\n" >$units/dbus.socket
    printf "[Unit]\nDefaultDependencies=no\n[Service]\nExecStart=/usr/bin/dbus-daemon --system --address=systemd: --nofork --nopidfile\n" \
        >$units/dbus.service
    path=$units:/run/systemd/transient
    exec env -i container=other PATH="$PATH" SYSTEMD_UNIT_PATH="$path" SYSTEMD_GENERATOR_PATH=/none \
        "$(command -v systemd || echo /lib/systemd/systemd)" --system --unit=bus.target --log-target=console \
        --log-level=warning --show-status=0' sh
