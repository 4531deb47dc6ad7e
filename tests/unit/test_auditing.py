"""Heads that are noted elsewhere, signed and checked again: what an auditor does with the log."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sqlite3
import stat
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.unit.builders import BASE
from tests.unit.cliworld import Answer, World


@pytest.fixture
def world(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> World:
    made = World(folder, monkeypatch, capsys)
    assert made.create().code == 0
    return made


def head_of(world: World, *more: str | Path) -> dict[str, Any]:
    found: dict[str, Any] = world.byre("log", "head", "-o", "json", *more).json
    return found


def go_on(world: World, name: str = "sb-2") -> None:
    assert world.byre("create", name, "--base", BASE).code == 0


def rewrite(log: Path, *statements: str) -> None:
    """Change rows as somebody with a text editor for databases would."""
    with closing(sqlite3.connect(log)) as raw, raw:
        for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'"):
            raw.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            raw.execute(statement)


# --- the head -------------------------------------------------------------------------------------


def test_the_head_is_given_as_a_line_as_json_and_as_a_table(world: World) -> None:
    data = head_of(world)
    assert (data["seq"], data["head"]) == (world.seq(), f"{data['seq']}:{data['hash']}")
    assert (len(data["root_id"]), data["at"][-1]) == (16, "Z")
    line = world.byre("log", "head")
    assert (line.out, line.err) == (f"{data['head']}\n", "")
    table = world.byre("log", "head", "-o", "table")
    assert (table.out, data["hash"] in table.err) == ("", True)


@pytest.mark.parametrize("form", ["line", "hash", "json", "file", "root"])
def test_a_noted_head_proves_that_nothing_before_it_changed(world: World, form: str) -> None:
    data = head_of(world)
    noted = world.folder / "noted"
    shutil.copy(world.root / "head", world.folder / "head-of-root")
    assert world.byre("log", "head", "--out", noted).code == 0
    go_on(world)
    given: dict[str, str | Path] = {
        "line": data["head"],
        "hash": data["hash"],
        "json": json.dumps(data),
        "file": noted,
        "root": world.folder / "head-of-root",
    }
    answer = world.byre("log", "verify", "--head", given[form], "-o", "json")
    assert (answer.code, answer.json["ok"]) == (0, True)
    assert answer.json["seq"] > data["seq"]
    assert [each["hash"] for each in answer.json["heads"]] == [data["hash"]]
    assert "nothing before it changed" in answer.err


def test_a_head_file_is_never_overwritten(world: World) -> None:
    noted = world.folder / "noted"
    noted.write_text("mine")
    answer = world.byre("log", "head", "--out", noted)
    assert (answer.code, "a head is never overwritten" in answer.err) == (4, True)
    assert noted.read_text() == "mine"


@pytest.mark.parametrize(
    "given", ["", "812", "812:abc", "nowhere.json", "{}", '{"hash": 7}', "[1]"]
)
def test_what_is_no_head_is_refused_with_what_is_allowed(world: World, given: str) -> None:
    answer = world.byre("log", "verify", "--head", given, "-o", "json")
    assert answer.code == 2
    assert "allowed is SEQ:HASH" in answer.err
    assert answer.json["ok"] is False


# --- not what was noted ---------------------------------------------------------------------------


def refused(answer: Answer) -> tuple[int, int, str]:
    """Return the code, the seq and the word of a refusal; both outputs must tell it."""
    assert answer.json["message"] in answer.err
    assert answer.json["ok"] is False
    return answer.code, answer.json["seq"], answer.json["what"]


def test_damage_is_told_to_scripts_too(world: World) -> None:
    rewrite(world.root / "byre.db", "UPDATE events SET actor = 'nobody' WHERE seq = 3")
    answer = world.byre("log", "verify", "-o", "json")
    assert refused(answer) == (6, 3, "edited")
    assert answer.json["events"] == 2
    assert "byre log salvage" in answer.json["hint"]


def test_a_file_that_is_no_log_is_told_to_scripts_too(world: World) -> None:
    (world.folder / "other.db").write_text("no database" * 1000)
    answer = world.byre("log", "verify", "--log", world.folder / "other.db", "-o", "json")
    assert (answer.code, answer.json["ok"], answer.json["seq"]) == (6, False, None)


def test_a_log_that_is_shorter_than_a_noted_head(world: World) -> None:
    older = world.folder / "older.db"
    with closing(sqlite3.connect(world.root / "byre.db")) as raw:
        raw.execute("VACUUM INTO ?", (str(older),))
    before = head_of(world)
    go_on(world)
    noted = head_of(world)["head"]
    answer = world.byre("log", "verify", "--log", older, "--head", noted, "-o", "json")
    assert refused(answer) == (6, before["seq"] + 1, "truncated")
    assert f"the log ends at {before['seq']}" in answer.err
    assert world.byre("log", "verify", "--log", older, "--head", before["head"]).code == 0


def test_a_log_with_another_event_in_the_place_of_a_noted_head(world: World) -> None:
    data = head_of(world)
    go_on(world)
    other = head_of(world)
    answer = world.byre("log", "verify", "--head", f"{data['seq']}:{other['hash']}", "-o", "json")
    assert refused(answer) == (6, data["seq"], "replaced")


def test_a_head_of_another_root_is_refused(world: World) -> None:
    noted = world.folder / "noted"
    world.byre("log", "head", "--out", noted)
    world.root = world.folder / "another"
    world.create("sb-9")
    answer = world.byre("log", "verify", "--head", noted, "-o", "json")
    assert (answer.code, answer.json["what"]) == (4, "identity-mismatch")
    assert "is of root" in answer.err


# --- signed ---------------------------------------------------------------------------------------


@pytest.fixture
def key(world: World) -> Path:
    path = world.folder / "audit.key"
    assert world.byre("log", "keygen", path).code == 0
    return path


@pytest.fixture
def signed(world: World, key: Path) -> Path:
    path = world.folder / "head.json"
    assert world.byre("log", "head", "--sign", key, "--out", path).code == 0
    return path


def public(key: Path) -> Path:
    return key.with_name(f"{key.name}.pub")


def test_a_key_is_private_and_never_overwritten(world: World, key: Path) -> None:
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = key.read_bytes()
    for taken in (key, public(key)):
        answer = world.byre("log", "keygen", key)
        assert (answer.code, f"{taken} exists" in answer.err) == (4, True)
        assert key.with_name("audit.key").exists() == (taken == key)
        key.unlink(missing_ok=True)
    assert b"PRIVATE KEY" in before


def test_a_copy_is_checked_elsewhere_with_the_public_key_alone(
    world: World, key: Path, signed: Path
) -> None:
    elsewhere = world.folder / "auditor"
    elsewhere.mkdir()
    go_on(world)
    with closing(sqlite3.connect(world.root / "byre.db")) as raw:
        raw.execute("VACUUM INTO ?", (str(elsewhere / "copy.db"),))
    for file in (public(key), signed):
        shutil.copy(file, elsewhere)
    shutil.rmtree(world.root)
    key.unlink()
    copy = ("--log", elsewhere / "copy.db")
    named = ("--head", elsewhere / "head.json", "--public-key", elsewhere / "audit.key.pub")
    answer = world.byre("log", "verify", *copy, *named, "-o", "json")
    assert (answer.code, answer.json["heads"][0]["signature"]) == (0, "good")
    assert sorted(path.name for path in elsewhere.iterdir() if path.stat().st_size) == [
        "audit.key.pub", "copy.db", "head.json"
    ]  # fmt: skip
    rewrite(elsewhere / "copy.db", "UPDATE events SET at = at + 1 WHERE seq = 2")
    answer = world.byre("log", "verify", *copy, *named, "-o", "json")
    assert refused(answer) == (6, 2, "edited")


@pytest.mark.parametrize("field", ["seq", "hash", "root_id", "at", "signed_at", "signature"])
def test_a_signed_head_that_was_changed_is_refused(
    world: World, key: Path, signed: Path, field: str
) -> None:
    data = json.loads(signed.read_text())
    value = data[field]
    data[field] = value - 1 if isinstance(value, int) else f"{value[:-1]}{'01'[value[-1] == '0']}"
    signed.write_text(json.dumps(data))
    answer = world.byre(
        "log", "verify", "--head", signed, "--public-key", public(key), "-o", "json"
    )
    assert (answer.code, answer.json["what"]) == (4, "bad-signature")
    assert "was changed after it was signed" in answer.err


def test_a_head_that_another_key_signed_is_refused(world: World, signed: Path) -> None:
    other = world.folder / "other.key"
    world.byre("log", "keygen", other)
    answer = world.byre("log", "verify", "--head", signed, "--public-key", public(other))
    assert (answer.code, "was signed with another key" in answer.err) == (4, True)
    # Naming the other key in the statement does not help.
    data = json.loads(signed.read_text())
    data["public_key"] = head_of(world, "--sign", other)["public_key"]
    signed.write_text(json.dumps(data))
    assert world.byre("log", "verify", "--head", signed, "--public-key", public(other)).code == 4


def test_a_head_that_is_not_signed_is_refused_where_a_key_is_named(world: World, key: Path) -> None:
    answer = world.byre(
        "log", "verify", "--head", head_of(world)["head"], "--public-key", public(key)
    )
    assert (answer.code, "is not signed" in answer.err) == (4, True)
    answer = world.byre("log", "verify", "--public-key", public(key))
    assert (answer.code, "needs a --head" in answer.err) == (2, True)


def test_a_signature_that_is_not_checked_is_said_to_be_so(world: World, signed: Path) -> None:
    answer = world.byre("log", "verify", "--head", signed, "-o", "json")
    assert (answer.code, answer.json["heads"][0]["signature"]) == (0, "not checked")
    assert "its signature was not checked" in answer.err


def test_a_head_of_a_damaged_log_is_not_signed(world: World, key: Path) -> None:
    rewrite(world.root / "byre.db", "UPDATE events SET actor = 'nobody' WHERE seq = 3")
    assert world.byre("log", "head").code == 0, "the end is whole"
    answer = world.byre("log", "head", "--sign", key)
    assert (answer.code, answer.out) == (6, "")


def test_a_key_that_others_can_read_signs_nothing(world: World, key: Path) -> None:
    key.chmod(0o640)
    answer = world.byre("log", "head", "--sign", key)
    assert (answer.code, "can be read by others (mode 0640)" in answer.err) == (4, True)


@pytest.mark.parametrize("text", ["", "no key", "-----BEGIN PRIVATE KEY-----\nAAAA\n"])
def test_what_is_no_key_is_refused(world: World, key: Path, signed: Path, text: str) -> None:
    for path, words in ((key, "private key in PEM"), (public(key), "public key in PEM")):
        path.write_text(text)
        sign = ("head", "--sign", key)
        check = ("verify", "--head", signed, "--public-key", public(key))
        answer = world.byre("log", *(sign if path == key else check))
        assert (answer.code, words in answer.err) == (2, True)


def test_without_the_package_it_says_what_to_install(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    answer = world.byre("log", "keygen", world.folder / "audit.key")
    assert (answer.code, "pip install 'byre[sign]'" in answer.err) == (1, True)
    assert not (world.folder / "audit.key").exists()


def test_a_signature_can_be_checked_without_byre(world: World, key: Path, signed: Path) -> None:
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl is missing: Debian package openssl")
    data = json.loads(signed.read_text())
    names = ("root_id", "seq", "hash", "at", "signed_at")
    text = "byre log head v1\n" + "".join(f"{name}: {data[name]}\n" for name in names)
    (world.folder / "text").write_text(text)
    (world.folder / "signature").write_bytes(bytes.fromhex(data["signature"]))
    done = subprocess.run(
        [
            *(program, "pkeyutl", "-verify", "-pubin", "-inkey", public(key), "-rawin"),
            *("-in", "text", "-sigfile", "signature"),
        ],
        cwd=world.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "Verified Successfully" in done.stdout) == (0, True), done.stderr


def test_a_copy_in_a_folder_that_cannot_be_written_is_verified(world: World) -> None:
    folder = world.folder / "media"
    folder.mkdir()
    shutil.copy(world.root / "byre.db", folder / "copy.db")
    folder.chmod(0o555)
    try:
        answer = world.byre("log", "verify", "--log", folder / "copy.db")
    finally:
        folder.chmod(0o755)
    assert (answer.code, "are what was written" in answer.err) == (0, True)
