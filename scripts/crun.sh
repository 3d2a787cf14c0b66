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
mkdir "$work/apt" "$work/debs"
update_lists
use_sid "$work/apt" deb
mapfile -t libraries < <(apt-cache depends crun libcriu2 | sed -n 's/^  Depends: \(lib.*\)/\1/p' | sort -u)
(cd "$work/debs" && apt-get -qq download crun libcriu2 "${libraries[@]}")
unset APT_CONFIG

root=$work/root
mkdir "$root"
for package in "$work"/debs/*.deb; do
    dpkg-deb --extract "$package" "$root"
done
# The program names the machine's loader, whose C library is too old for it.
cat >"$root/crun" <<'RUN'
#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
for loader in "$here"/usr/lib/*/ld-linux*; do
    exec "$loader" --library-path "${loader%/*}" "$here/usr/bin/crun" "$@"
done
RUN
chmod 755 "$root" "$root/crun"
"$root/crun" --version | grep -q '+CRIU' || die "this crun makes no checkpoints"
mv -T "$root" "$place"
