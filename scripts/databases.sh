#!/bin/bash
# Makes a root filesystem with Debian's PostgreSQL and Redis, unless it is there:
# /var/cache/stasis/databases, where tests/databases looks for it. The packages
# are fetched and unpacked, not installed, so that the machine gets no service, no
# user and no cluster of theirs. It can be removed at any time.
set -euo pipefail
# shellcheck source=scripts/debian.sh
. "$(dirname "$0")/debian.sh"

place=/var/cache/stasis/databases
# It is moved there when it is whole.
[ ! -e "$place" ] || exit 0

# Prints the packages that these programs are made of, without what only their
# installation needs: no status file means that nothing is installed. LLVM is
# loaded when queries are compiled, which the tests do without.
packages() {
    : >"$work/status"
    apt-get -s -o Dir::State::status="$work/status" install --no-install-recommends postgresql redis-tools |
        sed -n 's/^Inst \([^ ]*\) .*/\1/p' |
        grep -E '^(lib|zlib|postgresql-[0-9]|postgresql-client-[0-9]|redis-tools$|tzdata$)' |
        grep -Ev '^lib(llvm|perl|pam-|db|gdbm|sem|c-l10n)|-common$'
}

update_lists
mkdir -p "${place%/*}"
work=$(mktemp -d "$place.XXXX")
trap 'rm -rf "$work"' EXIT
mapfile -t wanted < <(packages)
say "fetching PostgreSQL and Redis"
(cd "$work" && apt-get -qq -o Acquire::Retries=3 -o APT::Sandbox::User=root download "${wanted[@]}")

root=$work/root
scripts=$(cd "$(dirname "$0")" && pwd)
"$scripts/rootfs.sh" "$root"
mkdir "$root/data" "$root/usr/"{lib,lib64}
ln -s usr/lib "$root/lib"
ln -s usr/lib64 "$root/lib64"
for package in "$work"/*.deb; do
    dpkg-deb --fsys-tarfile "$package" | tar -x -C "$root" --keep-directory-symlink \
        --exclude='./usr/share/doc' --exclude='./usr/share/man' --exclude='./usr/share/locale'
done
for program in "$root"/usr/lib/postgresql/*/bin/*; do
    ln -sf "${program#"$root"}" "$root/bin/"
done
# The two are one program, which looks at its name; the other package has but a link.
ln -s redis-check-rdb "$root/bin/redis-server"
echo postgres:x:1000:1000::/data:/bin/sh >>"$root/etc/passwd"
echo postgres:x:1000: >>"$root/etc/group"
for program in postgres initdb psql redis-server redis-cli; do
    chroot "$root" "$program" --version >/dev/null || die "$program lacks something"
done
chmod 755 "$root"
mv -T "$root" "$place"
