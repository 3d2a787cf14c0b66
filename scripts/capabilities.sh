#!/bin/bash
# capabilities.sh README - reads what `cargo test` prints, and puts the table of tests/capabilities.tsv between its
# markers in README: a capability is there if every test of it passed. What is read is printed too. Exits 1 if one is not.
set -euo pipefail
readme=$1
rows=$(dirname "$0")/../tests/capabilities.tsv
begin='<!-- capabilities: written by make capabilities -->'
end='<!-- end of capabilities -->'

results=$(mktemp)
trap 'rm -f "$results"' EXIT
tee "$results" >&2

table=$(awk -F '\t' -v results="$results" '
    BEGIN {
        while ((getline line <results) > 0) {
            split(line, word, " ")
            if (word[1] == "Running" && word[2] ~ /^tests\//) { suite = word[2]; gsub(/^tests\/|\/main\.rs$/, "", suite) }
            if (word[1] == "test" && word[3] == "..." && word[4] == "ok") passed[suite "/" word[2]] = 1
        }
        print "| capability | runc | crun | youki | stasis | tests |"
        print "| --- | --- | --- | --- | --- | --- |"
    }
    /^#/ { next }
    {
        mark = "✓"; files = ""; split("", named)
        count = split($5, test, " ")
        for (i = 1; i <= count; i++) {
            if (!(test[i] in passed)) { mark = "–"; printf "capabilities: %s did not pass\n", test[i] >"/dev/stderr" }
            file = test[i]; sub(/::.*/, "", file)
            if (!(file in named)) { named[file] = 1; files = files (files ? ", " : "") "`" file "`" }
        }
        printf "| %s | %s | %s | %s | %s | %s |\n", $1, $2, $3, $4, mark, files
    }' "$rows")

BEGIN=$begin END=$end TABLE=$table awk '
    $0 == ENVIRON["END"] { inside = 0 }
    !inside { print }
    $0 == ENVIRON["BEGIN"] { print ENVIRON["TABLE"]; inside = 1 }' "$readme" >"$results.new"
cat "$results.new" >"$readme"
rm "$results.new"
! grep -q '| – | `' <<<"$table"
