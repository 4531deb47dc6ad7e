"""The Firecracker example asks for what Firecracker's API has, and in an order that works.

Firecracker needs KVM and is not run here. Its stand-in makes the socket and waits; the one for
curl notes each request, and what the disk's link led to at that moment. The disks are real.
"""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

HERE = Path(__file__).parent
SCRIPT = HERE.parents[1] / "examples" / "firecracker" / "run.sh"
TIMEOUT_S = 300
FIRECRACKER = """\
#!{python}
import signal, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[sys.argv.index("--api-sock") + 1])
signal.pause()
"""
CURL = """\
#!{python}
import json, os, sys
words = sys.argv[1:]
said = {{name: words[words.index(name) + 1] for name in ("--request", "--data", "--unix-socket")}}
link = os.path.join(os.path.dirname(said["--unix-socket"]), "vm", "rootfs.link")
seen = os.path.realpath(link) if os.path.exists(link) else ""
with open({log!r}, "a") as log:
    log.write(json.dumps([said["--request"], words[-1], json.loads(said["--data"]), seen]) + "\\n")
"""
TYPES = {"string": str, "boolean": bool, "integer": int}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(TIMEOUT_S + 60)]


@pytest.fixture(scope="module")
def requests(tmp_path_factory: pytest.TempPathFactory) -> list[list[Any]]:
    """Run the script; returns method, path, body and the disk at that moment, of each request."""
    folder = tmp_path_factory.mktemp("firecracker").resolve()
    tools, temporary, log = folder / "bin", folder / "tmp", folder / "requests"
    for each in (tools, temporary):
        each.mkdir()
    python = Path(sysconfig.get_path("scripts"), "python")
    for name, text in (("firecracker", FIRECRACKER), ("curl", CURL)):
        (tools / name).write_text(text.format(python=python, log=str(log)))
        (tools / name).chmod(0o755)
    image, kernel = folder / "rootfs.ext4", folder / "vmlinux"
    image.write_bytes(bytes(1 << 20))
    done = subprocess.run(
        ["sh", SCRIPT],
        env={
            **os.environ,
            "PATH": f"{tools}:{sysconfig.get_path('scripts')}:{os.environ['PATH']}",
            "TMPDIR": str(temporary),
            "IMAGE": str(image),
            "KERNEL": str(kernel),
        },
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list(temporary.iterdir()) == []
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_each_request_is_one_that_firecracker_has(requests: list[list[Any]]) -> None:
    api = YAML(typ="safe").load((HERE / "firecracker-api.yaml").read_text())
    for method, url, body, _ in requests:
        path = url.removeprefix("http://localhost")
        if path.startswith("/drives/"):
            assert path == f"/drives/{body['drive_id']}"
            path = "/drives/{drive_id}"
        assert method.lower() in api["paths"][path], (method, path)
        assert faults(api["definitions"], api["paths"][path][method.lower()], body) == []


def test_the_disk_is_there_whenever_the_machine_needs_it(requests: list[list[Any]]) -> None:
    asked = [f"{method} {url.removeprefix('http://localhost')}" for method, url, _, _ in requests]
    assert asked == [
        "PUT /machine-config",
        "PUT /boot-source",
        "PUT /drives/rootfs",
        "PUT /actions",
        "PATCH /vm",
        "PUT /snapshot/create",
        "PUT /snapshot/load",
        "PATCH /drives/rootfs",
    ]
    assert all(disk for *_, disk in requests)
    bodies = [body for _, _, body, _ in requests]
    assert bodies[2]["path_on_host"] == bodies[7]["path_on_host"]
    assert bodies[5]["snapshot_path"] == bodies[6]["snapshot_path"]
    assert bodies[5]["mem_file_path"] == bodies[6]["mem_backend"]["backend_path"]


@pytest.mark.parametrize(
    ("definition", "body", "expected"),
    [
        ("Vm", {"state": "Paused"}, []),
        ("Vm", {"state": "asleep"}, ["Vm.state: 'asleep'"]),
        ("Vm", {}, ["Vm.state: missing"]),
        ("Vm", {"state": "Paused", "x": 1}, ["Vm.x: unknown"]),
        ("Drive", {"drive_id": 1, "is_root_device": True}, ["Drive.drive_id: 1"]),
        (
            "SnapshotLoadParams",
            {"snapshot_path": "s", "mem_backend": {"backend_type": "File"}},
            ["MemoryBackend.backend_path: missing"],
        ),
    ],
)
def test_the_check_finds_what_is_wrong(
    definition: str, body: Mapping[str, object], expected: list[str]
) -> None:
    api = YAML(typ="safe").load((HERE / "firecracker-api.yaml").read_text())
    assert faults(api["definitions"], definition, body) == expected


def faults(definitions: Mapping[str, Any], name: str, body: Mapping[str, object]) -> list[str]:
    """Return what a body has that its definition does not allow, or lacks."""
    wanted = definitions[name]
    found = [f"{name}.{field}: missing" for field in wanted["required"] if field not in body]
    for field, value in body.items():
        rule = wanted["properties"].get(field)
        if rule is None:
            found.append(f"{name}.{field}: unknown")
        elif "$ref" in rule:
            assert isinstance(value, Mapping)
            found += faults(definitions, rule["$ref"], value)
        elif type(value) is not TYPES[rule["type"]] or value not in rule.get("enum", [value]):
            found.append(f"{name}.{field}: {value!r}")
    return found
