#!/bin/bash
# conformance-parts.sh DIR HELPERS - puts what conformance.sh runs into DIR, unless it
# is there: DIR/suite, the source of Debian sid's runc with the images that its
# integration suite wants, and DIR/runc, the same runc. HELPERS is the file that
# stands for all of the suite's own programs.
set -euo pipefail
# shellcheck source=scripts/debian.sh
. "$(dirname "$0")/debian.sh"

dir=${1:?usage: conformance-parts.sh DIR HELPERS}
helpers=${2:?usage: conformance-parts.sh DIR HELPERS}
mapfile -t packages < <(lacking newuidmap=uidmap)
install_packages bats jq gawk gcc libc6-dev libcap2-bin busybox-static mmdebstrap xz-utils debian-archive-keyring "${packages[@]}"
mkdir -p "$dir"
work=$(mktemp -d "$dir/new.XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT

# Its images come from Debian's packages: a script that downloads others is replaced.
make_suite() {
    local tests=$work/suite/tests release
    say "fetching runc's integration suite, and making its images"
    unpack_source_from_sid "$work/suite" runc
    "$(dirname "$0")/rootfs.sh" "$work/busybox"
    # Tests put symbolic links there.
    rmdir "$work"/busybox/{dev,proc,sys}
    tar -C "$work/busybox" -cf "$tests/integration/testdata/busybox.tar" .
    release=$(. /etc/os-release && echo "$VERSION_CODENAME")
    # Small, since it is unpacked for most of its tests.
    mmdebstrap --quiet --mode=root --variant=extract --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
        --include=base-files,bash,coreutils,dash,findutils,gawk,grep,libc-bin,mount,sed,util-linux \
        --dpkgopt='path-exclude=/usr/share/*' "$release" "$tests/integration/testdata/debian.tar"
    cat >"$tests/integration/get-images.sh" <<'IMAGES'
#!/bin/sh
for name in BUSYBOX DEBIAN; do
    echo "${name}_IMAGE=$(dirname "$0")/testdata/$(echo $name | tr A-Z a-z).tar"
done
IMAGES
    # The test of filter flags names all that there are: one that came later counts for nothing without SCMP_ACT_NOTIFY.
    sed -i "s/^.*XXX: add new values above.*/[\'\"SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV\"\']=0/" "$tests/integration/seccomp.bats"
    mv -T "$work/suite" "$dir/suite"
}

if [ ! -e "$dir/runc" ]; then
    say "fetching Debian sid's runc"
    program_from_sid "$dir/runc" usr/sbin/runc runc
fi
[ -e "$dir/suite" ] || make_suite
mkdir -p "$dir/suite/tests/cmd/_bin"
for name in recvtty pidfd-kill seccompagent remap-rootfs fs-idmap; do
    install -m 755 "$helpers" "$dir/suite/tests/cmd/_bin/$name"
done
