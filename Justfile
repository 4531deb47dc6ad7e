# byre's recipes. `./just RECIPE` first gets what the recipe needs, then runs it from here.

set positional-arguments

export PATH := justfile_directory() / ".venv/bin:" + env("PATH")
coverage := justfile_directory() / ".cache/coverage"
export COVERAGE_FILE := coverage / ".coverage"
out := justfile_directory() / ".cache/vm/out"
bench := justfile_directory() / ".cache/vm/bench"
bench_disk := "-drive 'file=" + bench + "/disk.img,format=raw,if=none,id=disk,cache=none' -device virtio-blk-pci,drive=disk"
vm := "python -m tests.kernel.vm"
# Where tests need a kernel; to collect all the others takes the VM minutes.
kernel_tests := "tests/contract tests/examples tests/kernel tests/style/test_tutorial.py"

# List the recipes
default:
    @just --justfile "{{justfile()}}" --list --unsorted

# All checks and all tests, cheap ones first
test: lint types imports test-beside coverage

# Style and formatting
lint:
    ruff check
    ruff format --check

# Put right what ruff can put right
fmt:
    ruff check --fix
    ruff format

# Static types, strictly
types:
    mypy

# The direction of the imports
imports:
    lint-imports --cache-dir .cache/import-linter

# All tests that need no device-mapper
test-host *ARGS:
    mkdir -p "{{coverage}}"
    COVERAGE_FILE="{{coverage}}/.coverage.host" pytest --cov --cov-report= "$@"

# All tests that need one, in the VM; every one of them must have run
test-vm *ARGS:
    rm -rf "{{out}}" && mkdir -p "{{out}}" "{{coverage}}"
    python -m tests.kernel.microvm
    COVERAGE_FILE="{{out}}/.coverage.vm" {{vm}} --timeout 4500 --out "{{out}}" -- pytest -m kernel \
        -o cache_dir=/tmp/pytest --junitxml "{{out}}/junit.xml" \
        --cov --cov-report= --cov-config=tests/kernel/coverage.ini \
        $([ $# -gt 0 ] || echo {{kernel_tests}}) "$@"
    rm -f "{{coverage}}"/.coverage.vm* && cp "{{out}}"/.coverage.vm* "{{coverage}}"
    if [ $# -eq 0 ]; then python -m tests.kernel.completeness "{{out}}/junit.xml"; fi

# A power cut under load, twice over, in VMs of its own
test-powercut:
    python -m tests.torture.powercut --cuts 2 --seed 20261121

# The tests in the VM and, beside them, those that need none; the latter are told after it
test-beside:
    #!/bin/bash
    set -um # -m: each half is a process group of its own, and can be ended as a whole
    told="{{justfile_directory()}}/.cache/beside.log"
    mkdir -p "${told%/*}"
    { just test-host && just test-powercut; } >"$told" 2>&1 </dev/null &
    host=$!
    just test-vm </dev/null &
    vm=$!
    trap 'kill -- "-$host" "-$vm" 2>/dev/null; wait; cat "$told"; exit 1' INT TERM HUP
    wait "$vm" || failed='test-vm'
    wait "$host" || failed="${failed:+$failed and }test-host or test-powercut"
    cat "$told"
    [ -z "${failed:-}" ] || { echo "failed: $failed" >&2; exit 1; }

# Kills, then power cuts, for as long as it takes (half an hour and more):  just torture SEED
torture SEED="1" KILLS="100" CUTS="20":
    {{vm}} --timeout 7200 --out "{{out}}/../storm" -- python -m tests.torture.storm --kills "$2" --seed "$1"
    python -m tests.torture.powercut --cuts "$3" --seed "$1"

# Combine what the host and the VM covered, and report
coverage:
    rm -f "$COVERAGE_FILE" && coverage report --keep-combined

# Fuzz every reader for a while each, one after the other:  just fuzz 300 store events
fuzz SECONDS="60" *TARGETS:
    python -m tests.fuzz --seconds "$@"

# Measure what docs/explanation/performance.md tells: devices in the VM, the rest on this host
bench *ARGS:
    just bench-rows "" "$@"

# The same for some rows, the others stay as they are:  just bench-rows "create remove" --rounds 50
bench-rows ROWS *ARGS:
    #!/bin/bash
    set -eu
    shift
    page=docs/explanation/performance failed=0
    python -c 'import sys; from reconciler.bench.runner import chosen; chosen(sys.argv[1].split())' "{{ROWS}}"
    rm -rf "{{bench}}" && mkdir -p "{{bench}}"
    cp "$page.json" "{{bench}}/performance.json"
    truncate -s 16G "{{bench}}/disk.img"
    trap 'rm -f "{{bench}}/disk.img"' EXIT
    {{vm}} --timeout 14400 --out "{{bench}}" --opt="{{bench_disk}}" -- \
        sh tests/kernel/bench.sh "{{ROWS}}" "$@" || failed=1
    rows=$(sh tests/kernel/wanted.sh "{{ROWS}}" appends sim versus get fork)
    [ -z "$rows" ] || byre bench $rows --where "on the host" --into "{{bench}}/performance.json" "$@" || failed=1
    cp "{{bench}}/performance.json" "$page.json"
    [ ! -d "{{bench}}/plots" ] || cp -r "{{bench}}/plots/." "$page/"
    python docs/generate.py
    [ "$failed" = 0 ] || { echo "some rows could not be measured, and are as they were" >&2; exit 1; }

# What a log of ten million events costs, in figures; takes an hour and 10 GB:  just bench-log 1000000
bench-log EVENTS="10000000" *ARGS:
    shift; byre bench log versus --events "{{EVENTS}}" --where "on the host" "$@"

# Write the generated pages anew
docs:
    python docs/generate.py

# byre shown at work, on this machine
demo *ARGS:
    byre demo "$@"

# The same on a real device-mapper, in the VM
demo-vm *ARGS:
    {{vm}} -- byre demo "$@"

# Run one shell command as root in the VM:  just shell-vm 'dmsetup targets'
shell-vm COMMAND:
    {{vm}} -- sh -c "$1"
