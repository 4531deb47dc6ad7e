# What `just bench` measures in the VM: one disk at a time as udev is, then everything with byre's
# udev rules, then what needs a disk, on an ext4 of its own. Arguments go to all; the figures go to
# the out folder.
set -eu
mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing
byre bench create pause restore heal remove udev --where "in the VM, without byre's udev rules" \
    "$@" -o json >"$BYRE_VM_OUT/plain.json"
mkdir -p /run/udev/rules.d
byre udev-rules >/run/udev/rules.d/05-byre.rules
udevadm control --reload
byre bench create pause restore heal remove apply scale resync idle calls udev \
    --where "in the VM, with byre's udev rules" "$@" \
    --with "$BYRE_VM_OUT/plain.json" -o json >"$BYRE_VM_OUT/memory.json"
mke2fs -q -t ext4 -m 0 /dev/vda
mkdir -p /tmp/disk
mount /dev/vda /tmp/disk
byre bench flush io --where "in the VM, on ext4 on a virtio disk" --folder /tmp/disk "$@" \
    --with "$BYRE_VM_OUT/memory.json" -o json >"$BYRE_VM_OUT/vm.json"
