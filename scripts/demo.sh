#!/bin/bash
# The demonstration (make demo): a container counts in its memory and in a file
# in its /dev/shm, is checkpointed to disk and restored under another name, and
# both counters go on. Exits 1 when they do not. RUNTIME is the runtime to show:
# the one that was built here, or any with runc's command line.
set -euo pipefail
cd "$(dirname "$0")"

die() { printf 'demo: %s\n' "$*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || die "must be root"
runtime=${RUNTIME:-$(find ../target/*/release -maxdepth 1 -name stasis 2>/dev/null | head -n 1)}
runtime=$(realpath "$(command -v "${runtime:-stasis}")") || die "no runtime: run make build first"
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
name=${runtime##*/}

dir=$(mktemp -d "${TMPDIR:-/tmp}/stasis-demo.XXXX")
cleanup() {
    for id in counter revived; do
        "$runtime" --root "$dir/state" delete --force "$id" >/dev/null 2>&1 || true
    done
    rm -rf --one-file-system "$dir"
}
trap cleanup EXIT

bold='' plain=''
[ ! -t 1 ] || bold=$'\033[1m' plain=$'\033[0m'
title() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }

show() { printf '  $ %s %s\n' "$name" "$*"; }
indent() { sed 's/^/    /'; }
rt() { "$runtime" --root "$dir/state" --log "$dir/log" "$@"; }

# Reads both counters of container $1 into $memory and $shm. The program may
# be between emptying a file and writing it; then it is asked again.
read_counters() {
    for _ in {1..50}; do
        read -r memory shm < <(rt exec "$1" cat /dev/shm/memory /dev/shm/counter | tr '\n' ' ') || true
        [[ "$memory $shm" =~ ^[0-9]+\ [0-9]+$ ]] && return
        sleep 0.05
    done
    die "the counters cannot be read"
}

# Prints both counters of container $1, three times.
watch_counters() {
    show "exec $1 cat /dev/shm/memory /dev/shm/counter"
    for _ in 1 2 3; do
        sleep 0.7
        read_counters "$1"
        printf '    counter in memory: %3d    counter in /dev/shm: %3d\n' "$memory" "$shm"
    done
}

# Shows and carries out a command of the runtime and prints how long it took.
# A container keeps the standard streams of the command that ran it, and CRIU
# can save the null device or a pipe among them, but no file of the host.
timed() {
    local start end
    show "$@"
    start=$(date +%s%N)
    rt "$@" </dev/null >/dev/null 2>&1 || { cat "$dir/log" >&2; die "$name $1 failed"; }
    end=$(date +%s%N)
    printf '    (%d ms)\n' $(((end - start) / 1000000))
}

mkdir "$dir/bundle"
./rootfs.sh "$dir/bundle/rootfs"
cat >"$dir/bundle/rootfs/bin/count" <<'PROGRAM'
#!/bin/sh
memory=0
echo 0 >/dev/shm/counter
while :; do
    memory=$((memory + 1));     echo $memory >/dev/shm/memory   # shows the variable
    read shm </dev/shm/counter; echo $((shm + 1)) >/dev/shm/counter
    sleep 0.1
done
PROGRAM
chmod 755 "$dir/bundle/rootfs/bin/count"
cd "$dir"
rt spec --bundle bundle
jq '.process.terminal = false | .process.args = ["count"]' bundle/config.json >config.json
mv config.json bundle/config.json

title "1. A container that counts: in a variable of its program, and in a file in its /dev/shm"
sed -n '4,$p' bundle/rootfs/bin/count | sed 's/^/  | /'
timed run --detach --bundle "$dir/bundle" counter
watch_counters counter
memory_before=$memory shm_before=$shm

title "2. Checkpoint: its processes become files, and are gone"
timed checkpoint --image-path "$dir/image" counter
show "list"
rt list | indent
printf '  %s: %d files, %s, among them\n' "$dir/image" "$(find image -type f | wc -l)" "$(du -sh image | cut -f1)"
find image -name 'pages-*.img' -printf '%7s bytes  %-26f memory of a process\n' | sort -k 3 | indent
find image -name 'core-*.img' -printf '%7s bytes  %-26f registers of a process\n' | sort -k 3 | indent
for tmpfs in image/tmpfs-*.img; do
    if tar -tzf "$tmpfs" ./counter >/dev/null 2>&1; then
        printf '    %7d bytes  %-26s what /dev/shm held\n' "$(stat -c %s "$tmpfs")" "${tmpfs#*/}"
    fi
done
echo "  Three seconds pass, in which nothing counts."
sleep 3

title "3. Restore, from the files alone and under another name"
timed restore --detach --bundle "$dir/bundle" --image-path "$dir/image" revived
read_counters revived
first_memory=$memory first_shm=$shm
show "list"
rt list | indent
watch_counters revived

echo
if [ "$first_memory" -lt "$memory_before" ] || [ "$memory" -le "$first_memory" ]; then
    die "the counter in memory did not go on: $memory_before, then $first_memory, then $memory"
fi
if [ "$first_shm" -lt "$shm_before" ] || [ "$shm" -le "$first_shm" ]; then
    die "the counter in /dev/shm did not go on: $shm_before, then $first_shm, then $shm"
fi
printf 'Both counters went on: memory %d -> %d, /dev/shm %d -> %d.\n' \
    "$memory_before" "$memory" "$shm_before" "$shm"
