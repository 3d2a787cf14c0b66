#!/bin/bash
# The first and only program that the machine of machine.sh starts: it mounts what
# every Linux has, runs the job on the second disk, tells its exit code, and turns
# the machine off.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mountpoint -q /dev || mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm /dev/mqueue
mount -t devpts -o ptmxmode=666 devpts /dev/pts
mount -t mqueue mqueue /dev/mqueue
for dir in /dev/shm /run /tmp; do mount -t tmpfs -o mode=1777 tmpfs $dir; done
mount -t securityfs securityfs /sys/kernel/security
mount -t cgroup2 cgroup2 /sys/fs/cgroup
read -ra controllers </sys/fs/cgroup/cgroup.controllers
for controller in "${controllers[@]}"; do
    echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control
done
modprobe -a virtio_blk inet_diag tcp_diag udp_diag unix_diag netlink_diag af_packet_diag veth overlay
ip link set lo up

tar -C / -xf /dev/vda && bash /job
echo "machine: exit code $?"
sync
echo o >/proc/sysrq-trigger
sleep 60
