#!/bin/sh
# Bring the disks of a spec folder to where they should be, look at them, and take all away again.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
work=$(mktemp -d)
export BYRE_ROOT="$work/root" BYRE_DEVICE_PREFIX=byre-example-specs-
export PATH="$PATH:/usr/sbin:/sbin"

finish() {
    names=$(byre get -o json | python3 -c 'import json, sys; print(*[d["name"] for d in json.load(sys.stdin)])')
    # shellcheck disable=SC2086 # a list of words
    [ -z "$names" ] || byre remove $names --wait --reason "the example is over"
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

cp -R "$here/disks.d" "$work/disks.d"
truncate -s 16M "$work/base.ext4"
mke2fs -q -F -t ext4 "$work/base.ext4"

byre run --once --specs "$work/disks.d"
byre get
before=$(byre history -o jsonl | wc -l)

echo "once more: nothing is left to do" >&2
byre run --once --specs "$work/disks.d"
after=$(byre history -o jsonl | wc -l)
if [ "$before" -ne "$after" ]; then
    echo "the second run wrote $((after - before)) events" >&2
    exit 1
fi
