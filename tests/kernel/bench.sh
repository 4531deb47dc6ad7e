# What `just bench` measures in the VM: one disk at a time as udev is, then everything with byre's
# udev rules. Arguments go to both; the figures go to the out folder.
set -eu
byre bench create pause restore heal remove --where "in the VM, without byre's udev rules" \
    "$@" -o json >"$BYRE_VM_OUT/plain.json"
mkdir -p /run/udev/rules.d
byre udev-rules >/run/udev/rules.d/05-byre.rules
udevadm control --reload
byre bench create pause restore heal remove apply scale resync idle calls \
    --where "in the VM, with byre's udev rules" "$@" \
    --with "$BYRE_VM_OUT/plain.json" -o json >"$BYRE_VM_OUT/vm.json"
