#!/bin/sh
# enclosure.sh DIR PROGRAM [ARG...] - runs an engine whose files are in DIR until standard input ends, then removes all
# that is left of it: processes, mounts, DIR itself, and the cgroups of DIR's name.
#
# Standard input is a pipe whose other end the tests' process holds: it ends with that process, however that ends.
# The engine, its shims and monitors and the containers live in a pid and a mount namespace, so that ending the first
# process there ends everything, and no mount is ever seen by the host.
set -u
dir=$1
cgroup=${dir##*/}
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

# What an engine has in /run and /etc (sockets, a key) is its own and not the machine's: one that the machine runs is
# not seen from here. `/` is shared as systemd makes it: volumes with propagation depend on it.
# The shell stays, as the first process, to reap what the shims leave.
# shellcheck disable=SC2016
unshare --mount --pid --fork --mount-proc --kill-child sh -euc '
    mount -t tmpfs -o mode=755 tmpfs /run
    mkdir /run/upper /run/work
    mount -t overlay -o lowerdir=/etc,upperdir=/run/upper,workdir=/run/work overlay /etc
    mount --make-rshared /
    export TMPDIR="$1"
    : >"$1/enclosed"
    shift
    "$@" &
    wait $!' sh "$@" </dev/null >"$dir/log" 2>&1 &
outer=$!

cat >/dev/null

# Its one child is the first process of the pid namespace, which is not reaped before all others there are gone.
first=$(cat /proc/$outer/task/$outer/children)
# shellcheck disable=SC2086 # a number and a space, or nothing if the engine has ended by itself
[ -z "$first" ] || kill -KILL $first
wait $outer

for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/*/; do
    top=$hierarchy/$cgroup
    [ -d "$top" ] || continue
    # A directory beside the hierarchies, where an engine takes it for one, has plain files.
    mountpoint -q "$hierarchy" || rm -rf --one-file-system "$top"
    # The kernel may take a moment to forget dead processes.
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        find "$top" -depth -type d -exec rmdir {} + 2>/dev/null
        [ -d "$top" ] || break
        sleep 0.1
    done
done
rm -rf --one-file-system "$dir"
