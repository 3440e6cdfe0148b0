# Boots the root directory $1 with systemd as its first process. It is run as the first process of
# namespaces of its own: mounts, processes, host names, IPC and control groups. The network is
# everybody's.
set -eu

# A root that can be pivoted to is a mount point.
mount --bind "$1" "$1"
cd "$1"

mount -t tmpfs -o mode=0755 tmpfs dev
for device in null zero full random urandom tty; do
    touch "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs -o mode=1777 tmpfs dev/shm

mount -t proc proc proc
# The kernel's settings are not ours.
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs sysfs sys
mount -o remount,bind,ro sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=0755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp

pivot_root . .
umount -l .
# What is mounted later is seen by everybody, as on a real machine: credentials are.
mount --make-rshared /

# The clock, the modules, the log and the network of the machine are not ours either.
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=other \
    setpriv --bounding-set=-audit_control,-audit_read,-audit_write,-net_admin,-sys_boot,-sys_module,-sys_time,-syslog \
    /lib/systemd/systemd --unit=basic.target --show-status=no
