#!/bin/bash
# Puts a crun that makes checkpoints where tests/criu looks for it, unless it is
# there: /var/cache/stasis/sid-crun/usr/bin/crun. Debian 12's is built without CRIU, so it
# is Debian sid's, unpacked and not installed. It can be removed at any time.
set -euo pipefail
# shellcheck source=scripts/debian.sh
. "$(dirname "$0")/debian.sh"

place=/var/cache/stasis/sid-crun
[ ! -e "$place" ] || exit 0
say "fetching Debian sid's crun"
program_from_sid "$place" usr/bin/crun crun libcriu2
"$place/usr/bin/crun" --version | grep -q '+CRIU' || {
    rm -rf "$place"
    die "this crun makes no checkpoints"
}
