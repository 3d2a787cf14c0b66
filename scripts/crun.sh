#!/bin/bash
# Puts a crun that makes checkpoints where tests/criu looks for it, unless it is
# there: /var/cache/stasis/crun/crun. Debian 12's is built without CRIU, so it is
# Debian sid's, with the libraries that it was built with; both are unpacked, not
# installed. It can be removed at any time.
set -euo pipefail
# shellcheck source=scripts/debian.sh
. "$(dirname "$0")/debian.sh"

place=/var/cache/stasis/crun
# It is moved there when it is whole.
[ ! -e "$place" ] || exit 0

install_packages debian-archive-keyring
mkdir -p "${place%/*}"
work=$(mktemp -d "$place.XXXX")
trap 'rm -rf "$work"' EXIT
say "fetching Debian sid's crun"
root=$work/root
unpack_from_sid "$root" crun libcriu2
# The program names the machine's loader, whose C library is too old for it.
cat >"$root/crun" <<'RUN'
#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
for loader in "$here"/usr/lib/*/ld-linux*; do
    exec "$loader" --library-path "${loader%/*}" "$here/usr/bin/crun" "$@"
done
RUN
chmod 755 "$root/crun"
"$root/crun" --version | grep -q '+CRIU' || die "this crun makes no checkpoints"
mv -T "$root" "$place"
