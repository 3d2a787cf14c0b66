#!/bin/bash
# conformance.sh DIR RUNTIME [SETTING [FILE...]] - runs runc's integration suite, of which
# conformance-parts.sh has put all into DIR, against the program RUNTIME or against
# DIR/runc ("runc"). SETTING is a cgroup layout: hybrid (as the machine has it), v1 or
# v2; and, after a "-", the mode if not root is to run it: rootless, which may be
# followed by the features that its user has: -idmap (more ids than its own) and
# -cgroup (a cgroup where it may make others).
# Prints what passed in each file and in all of them, and what failed; fails if
# anything did that tests/support/conformance/*.tsv does not list, or if what they
# list for this runtime passes. FILEs are names like "kill.bats".
set -euo pipefail
scripts=$(realpath "$(dirname "$0")")
tables=$scripts/../tests/support/conformance

dir=$(realpath "${1:?usage: conformance.sh DIR RUNTIME [SETTING [FILE...]]}")
name=$(basename "${2:?usage: conformance.sh DIR RUNTIME [SETTING [FILE...]]}")
setting=${3:-hybrid}
mode=${setting#"${setting%%-*}"}
case $setting in
hybrid"$mode" | v1"$mode" | v2"$mode") ;;
*) echo "conformance.sh: no such layout: ${setting%%-*}" >&2 && exit 1 ;;
esac
case $mode in
"" | -rootless | -rootless-idmap | -rootless-cgroup | -rootless-idmap-cgroup) ;;
*) echo "conformance.sh: no such mode: ${mode#-}" >&2 && exit 1 ;;
esac
program=$2
[ "$program" != runc ] || program=$dir/runc/usr/sbin/runc
suite=$dir/suite/tests/integration
results=$dir/results/$name-$setting
# Whom the rootless modes run as: nobody's number. Who may make cgroups is another one, since runs beside each other share them.
export CONFORMANCE_USER=2000
[[ $mode != *-cgroup ]] || CONFORMANCE_USER=2001
files=("${@:4}")
[ ${#files[@]} -gt 0 ] || mapfile -t files < <(cd "$suite" && ls -- *.bats)

# Several tests look for the name "runc" in what is printed.
mkdir -p "$dir/bin/$name" "$results"
install "$program" "$dir/bin/$name/runc"
scratch=$(mktemp -d /tmp/stasis-conformance-XXXXXX)
chmod 755 "$scratch"
trap 'rm -rf --one-file-system "$scratch"' EXIT

# A user that may make cgroups makes them where the suite wants them, and moves processes there from here.
cgroup=${scratch##*/}
[[ $mode != *-cgroup ]] || cgroup=runc-cgroups-integration-test/$cgroup

# Runs a file among processes and mounts that end with it, whatever it leaves.
run_file() {
    local limit=60
    rm -f "$results/$1.tap"
    # The limit of a test is a job of its shell's, which a wait for all jobs waits for.
    ! grep -q '^\s*wait\s*\(#\|$\)' "$suite/$1" || limit=
    (
        enter_cgroups
        # runc leaves logs where it is.
        cd "$scratch"
        TMPDIR=$scratch RUNC=$dir/bin/$name/runc BATS_TEST_TIMEOUT=$limit timeout --kill-after=10 600 \
            unshare --mount --pid --fork --mount-proc --kill-child \
            "$scripts/conformance-file.sh" "$setting" "$suite/$1" "$results/$1.tap" </dev/null >"$results/$1.log" 2>&1
    ) || true
    remove_cgroups
    find "$scratch" -mindepth 1 -delete
}

# Puts this process into a cgroup of its own in every hierarchy, as the containers are
# put below their runtime's: on v2 beside it.
enter_cgroups() {
    local hierarchy file
    for hierarchy in /sys/fs/cgroup/*/; do
        # Not a directory that somebody has made beside them.
        [ -e "$hierarchy/cgroup.procs" ] || continue
        mkdir -p "$hierarchy$cgroup/self"
        # Those of v1 are empty at first.
        for file in cpuset.cpus cpuset.mems; do
            [ ! -e "$hierarchy$file" ] || (cd "$hierarchy" && tee {"${cgroup%%/*}","$cgroup","$cgroup/self"}/$file <$file >/dev/null)
        done
        [[ $mode != *-cgroup ]] || delegate "$hierarchy${cgroup%%/*}"
        echo $BASHPID >"$hierarchy$cgroup/self/cgroup.procs"
    done
}

# Lets the group of the suite's user make cgroups in one, and move its processes there: as
# tests/rootless.sh of the suite does.
delegate() {
    local files=(. cgroup.procs tasks)
    [ ! -e "$1/cgroup.subtree_control" ] || files=(. cgroup.procs cgroup.subtree_control)
    (
        cd "$1"
        chgrp "$CONFORMANCE_USER" "${files[@]}"
        chmod g+rwx "${files[@]}"
        for file in cpuset.cpus cpuset.mems cpu.rt_period_us cpu.rt_runtime_us; do
            [ -e cgroup.subtree_control ] || [ ! -e "$file" ] || chown "$CONFORMANCE_USER" "$file"
        done
    )
}

# Removes what a test that was ended has left below them, and the suite's own ones.
remove_cgroups() {
    find /sys/fs/cgroup/*/{"$cgroup",runc-cgroups-integration-test} -depth -type d -exec rmdir {} + 2>/dev/null || true
}

# Prints a line for each test of a file: the file, the test, ok, skip or FAIL. A test
# that was planned and says nothing has failed.
verdicts() {
    sed -n 's/^@test "\(.*\)" {$/\1/p' "$suite/$1" | gawk -v OFS='\t' -v file="$1" '
        FNR == NR && match($0, /^(not ok|ok) [0-9]+ (.*)$/, found) {
            split(found[2], parts, / # skip/)
            verdict[parts[1]] = found[1] != "ok" ? "FAIL" : found[2] ~ / # skip/ ? "skip" : "ok"
        }
        FNR != NR { gsub(/\\"/, "\""); print file, $0, ($0 in verdict) ? verdict[$0] : "FAIL" }
    ' "$results/$1.tap" -
}

# Runs files, and prints how many of each one's tests passed.
run_files() {
    local file
    for file in "$@"; do
        run_file "$file"
        verdicts "$file" >"$results/$file.tsv"
        gawk -F'\t' -v file="$file" '{ count[$3]++ } END {
            printf "%-28s %3d passed %3d skipped %3d failed\n", file, count["ok"], count["skip"], count["FAIL"]
        }' "$results/$file.tsv"
    done
}

# Compares the verdicts with the tables; fails if they differ.
judge() {
    (cd "$results" && cat "${files[@]/%/.tsv}") | gawk -F'\t' -v runtime="$name" -v setting="$setting" -v mode="${mode#-}" '
        # Says whether a setting is in a list: "hybrid" for all modes, "all-root" for all layouts, "v1-rootless*".
        function is_in(list, items, count, i) {
            count = split(list, items, ",")
            for (i = 1; i <= count; i++) {
                if (items[i] !~ /-/) items[i] = items[i] "-*"
                sub(/^all/, "*", items[i]); gsub(/\*/, ".*", items[i])
                if ((mode == "" ? setting "-root" : setting) ~ "^" items[i] "$") return 1
            }
            return 0
        }
        # The tables: settings, file, test, reason.
        FILENAME != "-" {
            if (is_in($1)) kind[$2 "\t" $3] = FILENAME ~ /limits/ ? "limit" : "gap"
            next
        }
        {
            count[$3]++
            listed = kind[$1 "\t" $2]
            if ($3 == "FAIL" && listed != "limit" && (listed != "gap" || runtime == "runc")) unexpected[$1 ": " $2] = "fails"
            if ($3 == "FAIL") failed[$1 ": " $2] = listed
            if ($3 == "ok" && listed == (runtime == "runc" ? "limit" : "gap")) unexpected[$1 ": " $2] = "passes, but is listed as a " listed
        }
        END {
            PROCINFO["sorted_in"] = "@ind_str_asc"
            printf "%s, %s: %d passed, %d skipped, %d failed\n", runtime, setting, count["ok"], count["skip"], count["FAIL"]
            for (test in failed) printf "  failed: %s%s\n", test, failed[test] == "" ? "" : " (" failed[test] ")"
            for (test in unexpected) printf "  UNEXPECTED: %s %s\n", test, unexpected[test]
            exit length(unexpected) > 0
        }
    ' "$tables/limits.tsv" "$tables/gaps.tsv" -
}

run_files "${files[@]}"
# A test of the suite that waits for something may wait too short on a machine that has more to do.
mapfile -t again < <(judge | sed -n 's/^  UNEXPECTED: \([^:]*\): .* fails$/\1/p' | sort -u)
if [ ${#again[@]} -gt 0 ]; then
    echo "once more, since a test failed that should pass:"
    run_files "${again[@]}"
fi
judge
