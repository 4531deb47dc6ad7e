#!/bin/sh
# byre from a shell script: create a disk, write to it, pause, restore, check, remove.
#
# Scripts read `-o json` from stdout; what people read goes to stderr. Exit codes are in the manual:
# 0 done, 1 failed, 2 usage, 3 no such disk, 4 refused, 5 deadline passed, 6 the log is damaged.
set -eu

work=$(mktemp -d)
export BYRE_ROOT="$work/root" BYRE_DEVICE_PREFIX=byre-example-shell-

finish() {
    byre remove sb-1 --wait --reason "the example was ended early" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

# One field of one disk: field sb-1 device
field() {
    byre get "$1" -o json | python3 -c 'import json, sys; print(json.load(sys.stdin)[0][sys.argv[1]])' "$2"
}

truncate -s 8M "$work/base.img"

byre create sb-1 --base "$work/base.img" --link "$work/sb-1.link" --wait
echo "sb-1 is $(field sb-1 state) at $(field sb-1 device), driver $(field sb-1 driver)"

# The link leads to the device whatever that is called today.
printf 'written by a sandbox' | dd of="$work/sb-1.link" conv=notrunc,fsync status=none

byre pause sb-1 --wait
[ ! -e "$work/sb-1.link" ]
echo "sb-1 is $(field sb-1 state); its data is in $(byre get sb-1 -o json |
    python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["cow"]["path"])')"

byre restore sb-1 --wait
found=$(dd if="$work/sb-1.link" bs=20 count=1 status=none)
[ "$found" = "written by a sandbox" ]
echo "sb-1 is $(field sb-1 state), and the data is there: $found"

byre remove sb-1 --wait --reason "the example is over"
[ "$(field sb-1 state)" = removed ]

code=0
byre pause sb-1 2>/dev/null || code=$?
[ "$code" -eq 4 ]
echo "a removed disk cannot be paused: exit code $code"
trap - EXIT
rm -rf "$work"
