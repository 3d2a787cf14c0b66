#!/bin/sh
# host.sh NAME LAYOUT - runs a systemd as the first process of namespaces of its own, on the hierarchies of cgroups
# that LAYOUT says (v2, or hybrid for those of v1 too), in which it has the cgroup NAME/host for its root.
# Standard input and output are nobody's; it is for an enclosure, which ends it.
set -eu
name=$1
export LAYOUT="$2"

hierarchies=
for place in /sys/fs/cgroup /sys/fs/cgroup/*; do
    # Not what is a link, or a directory of somebody's.
    [ -L "$place" ] || [ ! -e "$place/cgroup.procs" ] || hierarchies="$hierarchies $place"
    [ ! -e /sys/fs/cgroup/cgroup.procs ] || break
done
export HIERARCHIES="$hierarchies"
fill() { # CGROUP FILE... - as its parent: nobody can join a cpuset that is empty
    cgroup=$1
    shift
    for file in "$@"; do
        [ ! -e "$cgroup/cgroup.clone_children" ] || [ ! -e "$cgroup/$file" ] || cat "$cgroup/../$file" >"$cgroup/$file"
    done
}

export UNIFIED=
for hierarchy in $hierarchies; do
    top=$hierarchy/$name
    for cgroup in "$top" "$top/host"; do
        mkdir "$cgroup"
        fill "$cgroup" cpuset.cpus cpuset.mems
    done
    if [ -e "$top/cgroup.controllers" ]; then
        UNIFIED=$top
        mkdir "$top/outside"
        controllers=$(cat "$top/cgroup.controllers")
        for controller in $controllers; do
            echo "+$controller" >"$top/cgroup.subtree_control"
        done
    fi
    echo $$ >"$top/host/cgroup.procs"
done

# shellcheck disable=SC2016
inside='
    echo 0 >"$UNIFIED/host/cgroup.procs"
    if [ "$LAYOUT" = v2 ]; then
        mount -t cgroup2 cgroup2 /sys/fs/cgroup
    else
        mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
        for place in $HIERARCHIES; do
            mkdir "$place"
            case $place in
            */unified) mount -t cgroup2 cgroup2 "$place" ;;
            */systemd) mount -t cgroup -o none,name=systemd cgroup "$place" ;;
            *) mount -t cgroup -o "${place##*/}" cgroup "$place" ;;
            esac
        done
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
        --log-level=warning --show-status=0'
# The parent of the first process has to be elsewhere: a cgroup of v2 that has a process gives no controllers to others.
# shellcheck disable=SC2016
exec unshare --cgroup sh -euc '
    echo 0 >"$UNIFIED/outside/cgroup.procs"
    exec unshare --mount --pid --ipc --uts --fork --kill-child --mount-proc sh -euc "$1"' sh "$inside"
