# What `just bench` measures in the VM: one disk at a time as udev is, then everything with byre's
# udev rules, then what needs a disk, on an ext4 of its own. The first argument names the rows that
# are wanted, "" for all; what follows goes to each `byre bench`. The figures go into
# performance.json in the out folder, the pictures beside it.
set -eu
wanted=$1 failed=0
shift

# Measure some rows:  measure WHERE FOLDER "ROW..." [OPTION...]
measure() {
    where=$1 folder=$2 rows=$3
    shift 3
    # shellcheck disable=SC2086 # a list of words
    [ -z "$rows" ] || byre bench $rows --where "$where" --folder "$folder" \
        --into "$BYRE_VM_OUT/performance.json" --plots "$BYRE_VM_OUT/plots" "$@" || failed=1
}

among() { sh tests/kernel/wanted.sh "$wanted" "$@"; }

mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing
measure "in the VM, without byre's udev rules" /dev/shm \
    "$(among create pause restore heal remove udev)" "$@"
mkdir -p /run/udev/rules.d
byre udev-rules >/run/udev/rules.d/05-byre.rules
udevadm control --reload
measure "in the VM, with byre's udev rules" /dev/shm \
    "$(among create pause restore heal remove apply scale resync idle calls udev)" "$@"
mke2fs -q -t ext4 -m 0 /dev/vda
mkdir -p /tmp/disk
mount /dev/vda /tmp/disk
measure "in the VM, on ext4 on a virtio disk" /tmp/disk "$(among flush io)" "$@"
exit "$failed"
