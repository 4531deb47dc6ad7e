#!/bin/sh
# A Firecracker machine on a byre disk: it boots, is put to sleep, and wakes on another device.
#
#     KERNEL=vmlinux IMAGE=rootfs.ext4 sh examples/firecracker/run.sh
#
# Needs firecracker and curl on PATH, and KVM. See docs/how-to/firecracker.md.
set -eu

: "${KERNEL:?an uncompressed kernel, for Firecracker to boot}" "${IMAGE:?an image with a root file system}"
work=$(mktemp -d)
export BYRE_ROOT="$work/root" BYRE_DEVICE_PREFIX=byre-example-fc-
socket=$work/api.sock link=$work/vm/rootfs.link vmm=''

finish() {
    end_vmm
    byre remove vm --wait --reason "the example is over" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

# A fresh process for each life: a snapshot can be loaded into no other.
start_vmm() {
    rm -f "$socket"
    firecracker --api-sock "$socket" &
    vmm=$!
    tries=0
    while [ ! -S "$socket" ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 600 ] || exit 1
        sleep 0.1
    done
}

# Wait for its end, so that it has let go of the disk when byre is asked to pause it.
end_vmm() {
    [ -n "$vmm" ] || return 0
    kill "$vmm" 2>/dev/null || true
    wait "$vmm" || true
    vmm=''
}

# One request: METHOD PATH JSON
api() {
    curl --fail-with-body --silent --show-error --unix-socket "$socket" \
        --request "$1" --header "Content-Type: application/json" --data "$3" "http://localhost$2"
}

byre create vm --base "$IMAGE" --link "$link" --wait

start_vmm
api PUT /machine-config '{"vcpu_count": 1, "mem_size_mib": 128}'
api PUT /boot-source '{"kernel_image_path": "'"$KERNEL"'", "boot_args": "console=ttyS0 reboot=k panic=1"}'
api PUT /drives/rootfs '{"drive_id": "rootfs", "path_on_host": "'"$link"'", "is_root_device": true,
    "is_read_only": false, "cache_type": "Writeback"}'
api PUT /actions '{"action_type": "InstanceStart"}'
echo "the machine runs on $(readlink "$link")"

# To sleep: first the memory, then the disk.
api PATCH /vm '{"state": "Paused"}'
api PUT /snapshot/create '{"snapshot_type": "Full", "snapshot_path": "'"$work/state"'",
    "mem_file_path": "'"$work/memory"'"}'
end_vmm
byre pause vm --wait

# It wakes: first the disk, then the memory. The state has the link's path in it, and so it leads to
# the disk whatever its device is called now.
byre restore vm --wait
start_vmm
api PUT /snapshot/load '{"snapshot_path": "'"$work/state"'", "resume_vm": true,
    "mem_backend": {"backend_type": "File", "backend_path": "'"$work/memory"'"}}'
echo "the machine goes on, on $(readlink "$link")"

# Have the device looked at anew: for a disk that has grown.
api PATCH /drives/rootfs '{"drive_id": "rootfs", "path_on_host": "'"$link"'"}'
