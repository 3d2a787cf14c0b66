#!/bin/bash
# conformance-file.sh SETTING FILE TAP - runs one FILE of runc's integration suite in the
# mount and pid namespaces that conformance.sh has made for it, with what SETTING says,
# and writes into TAP what bats tells.
set -euo pipefail

setting=$1 file=$2 tap=$3
mode=${setting#"${setting%%-*}"}
suite=${file%/*}
as=()

mount -t tmpfs -o mode=755 tmpfs /run

mount_cgroups() {
    case $1 in
    v2) mount -t cgroup2 cgroup2 /sys/fs/cgroup ;;
    v1)
        mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
        # shellcheck disable=SC2013 # Words without spaces.
        for controllers in $(awk -F: '$2 != "" { print $2 }' /proc/self/cgroup); do
            mkdir "/sys/fs/cgroup/${controllers#name=}"
            mount -t cgroup -o "$controllers" cgroup "/sys/fs/cgroup/${controllers#name=}"
        done
        ;;
    esac
}

# Makes the user that tests/rootless.sh of the suite makes, and what it has beside.
make_user() {
    local id=$CONFORMANCE_USER program
    cp -a /etc /run/etc
    mount --bind /run/etc /etc
    echo "rootless:x:$id:$id::/run/rootless:/bin/bash" >>/etc/passwd
    echo "rootless:x:$id:" >>/etc/group
    install -d -o "$id" -g "$id" /run/rootless
    chown "$id:$id" "$TMPDIR"
    install -o "$id" /dev/null "$tap"
    export HOME=/run/rootless USER=rootless LOGNAME=rootless ROOTLESS_FEATURES=
    unset XDG_RUNTIME_DIR
    case $mode in
    *-cgroup) ROOTLESS_FEATURES+=cgroup ;;
    esac
    case $mode in
    *-idmap*) give_ids ;;
    *)
        for program in newuidmap newgidmap; do
            mount --bind /dev/null "$(command -v $program)"
        done
        ;;
    esac
    as=(setpriv --reuid "$id" --regid "$id" --clear-groups)
}

give_ids() {
    export ROOTLESS_FEATURES+=+idmap ROOTLESS_AUX_UID=1024 ROOTLESS_AUX_DIR=$TMPDIR/aux
    export ROOTLESS_UIDMAP_START=100000 ROOTLESS_UIDMAP_LENGTH=65536
    export ROOTLESS_GIDMAP_START=200000 ROOTLESS_GIDMAP_LENGTH=65536
    echo "rootless:$ROOTLESS_UIDMAP_START:$ROOTLESS_UIDMAP_LENGTH" >/etc/subuid
    echo "rootless:$ROOTLESS_GIDMAP_START:$ROOTLESS_GIDMAP_LENGTH" >/etc/subgid
    # For a container whose map begins at 1000.
    install -d -m 700 -o $((ROOTLESS_UIDMAP_START - 1000 + ROOTLESS_AUX_UID)) "$ROOTLESS_AUX_DIR"
}

# Lets the user reach the suite below directories that are closed to it, as root's home is.
open_way() {
    local parts=${suite%/suite/tests/integration} closed=/ name names
    mkdir /run/parts
    mount --bind "$parts" /run/parts
    IFS=/ read -ra names <<<"${parts#/}"
    for name in "${names[@]}"; do
        closed=${closed%/}/$name
        "${as[@]}" test -x "$closed" || break
    done
    if ! "${as[@]}" test -x "$closed"; then
        mount -t tmpfs -o mode=755 tmpfs "$closed"
        mkdir -p "$parts"
        mount --bind /run/parts "$parts"
    fi
}

mount_cgroups "${setting%%-*}"
if [ -n "$mode" ]; then
    make_user
    open_way
fi

# Returns some time after all tests of the file have been told of. What one that failed has left may keep bats waiting.
all_told() {
    until [ -s "$tap" ] && [ "$(grep -c '^\(not \)\?ok ' "$tap")" = "$(sed -n 's/^1\.\.//p' "$tap")" ]; do sleep 1; done
    sleep 10
}

# Many tests need a terminal, on which nobody types.
mkfifo /run/nobody
"${as[@]}" script --quiet --command "bats --formatter tap $file >$tap" /dev/null <>/run/nobody &
all_told &
wait -n
