#!/bin/bash
# Installs what the tests need beside a build and CRIU: a busybox to fill root
# filesystems with, dockerd, containerd and Podman to be driven by, databases to
# be run, a systemd that makes cgroups, shells that complete, and other runtimes to be compared with. With the argument "demo", only
# what the demonstration needs. No daemon is started: the tests run their own.
set -euo pipefail
# shellcheck source=scripts/debian.sh
. "$(dirname "$0")/debian.sh"

install_packages busybox-static jq
[ "${1:-}" != demo ] || exit 0

mapfile -t packages < <(lacking dockerd=docker.io containerd=containerd podman=podman conmon=conmon \
    runc=runc crun=crun iptables=iptables nft=nftables ip=iproute2 ps=procps systemctl=systemd dbus-daemon=dbus newuidmap=uidmap zsh=zsh fish=fish)
install_packages "${packages[@]}"
# Since Debian 13 the docker command has a package of its own.
mapfile -t packages < <(lacking docker=docker-cli)
install_packages "${packages[@]}"
"$(dirname "$0")/databases.sh"
"$(dirname "$0")/crun.sh"
