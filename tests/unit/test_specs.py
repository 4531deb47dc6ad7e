"""Reading specs from files, folders and standard input, and the check of their bases."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler import specs
from reconciler.kernel.sim import SimKernel
from reconciler.specs import BASE_BYTES_MAX, SPEC_BYTES_MAX, Sourced, check_base, read
from statemachine.errors import SpecError
from statemachine.names import disk_name
from statemachine.spec import DiskSpec

TOML = '[[disk]]\nname = "{0}"\nbase = "/srv/b.img"\n'
YAML = 'disk:\n  - name: "{0}"\n    base: /srv/b.img\n'
JSON = '{{"disk": [{{"name": "{0}", "base": "/srv/b.img"}}]}}'
FORMS = {".toml": TOML, ".yaml": YAML, ".yml": YAML, ".json": JSON}


def names(found: list[Sourced]) -> list[str]:
    return [each.spec.name for each in found]


def faults_of(where: Path | str) -> str:
    with pytest.raises(SpecError) as caught:
        read(str(where))
    assert caught.value.exit_code == 2
    return "\n".join(caught.value.faults)


def given_text(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


# --- forms ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", FORMS)
def test_each_form_gives_the_same_spec(tmp_path: Path, ending: str) -> None:
    path = given_text(tmp_path, f"a{ending}", FORMS[ending].format("sb-1"))
    [each] = read(str(path))
    assert (str(path), "sb-1", Path("/srv/b.img")) == (each.source, each.spec.name, each.spec.base)


@pytest.mark.parametrize("text", [TOML, YAML, JSON], ids=["toml", "yaml", "json"])
def test_standard_input_may_be_any_form(text: str) -> None:
    assert names(read("-", stdin=lambda: text.format("sb-1"))) == ["sb-1"]


def test_a_folder_gives_its_spec_files_in_order_and_leaves_the_rest_alone(tmp_path: Path) -> None:
    for number, (ending, text) in enumerate(FORMS.items()):
        given_text(tmp_path, f"{9 - number}{ending}", text.format(f"sb-{number}"))
    given_text(tmp_path, ".hidden.toml", "broken [")
    given_text(tmp_path, "README.md", "broken [")
    given_text(tmp_path, "a.toml~", "broken [")
    (tmp_path / "deeper.toml").mkdir()
    assert names(read(str(tmp_path))) == ["sb-3", "sb-2", "sb-1", "sb-0"]


def test_an_empty_folder_and_empty_files_give_no_specs(tmp_path: Path) -> None:
    assert read(str(tmp_path)) == []
    for name in ("a.toml", "b.yaml"):
        assert read(str(given_text(tmp_path, name, ""))) == []


def test_relative_paths_are_beside_their_file(tmp_path: Path) -> None:
    path = given_text(tmp_path, "a.toml", '[[disk]]\nname="a"\nbase="b.img"\nlink="l/x"')
    [each] = read(str(path))
    assert (tmp_path / "b.img", tmp_path / "l/x") == (each.spec.base, each.spec.link)


# --- faults ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [
        ("a.toml", "[[disk", "valid TOML"),
        ("a.toml", TOML.format("a") + 'name = "b"\n', "valid TOML"),
        ("a.toml", '[[disk]]\nname = "a"\nbase = 0x' + "f" * 5000, "'base'"),
        ("a.toml", '[[disk]]\nname = "a"\nbase = ' + "9" * 5000, "valid TOML"),
        ("a.toml", '[[disk]]\nname = "a"\nbase = ' + "[" * 5000, "valid TOML"),
        ("a.toml", '[[disk]]\nname = "a"\nbase = 2026-01-01', "'base'"),
        ("a.json", "{", "valid JSON"),
        ("a.json", '{"disk": [], "disk": []}', "stands twice"),
        ("a.json", '{"disk": [{"name": "a", "name": "b"}]}', "'name' stands twice"),
        ("a.json", "[" * 100_000, "valid JSON"),
        ("a.json", '{"disk": [{"name": "a", "base": "/\\ud800"}]}', "'base'"),
        ("a.json", '{"disk": NaN}', "'disk'"),
        ("a.yaml", "disk: [", "valid YAML"),
        ("a.yaml", "disk: []\ndisk: []\n", "valid YAML"),
        ("a.yaml", "disk:\n- name: a\n  name: b\n", "valid YAML"),
        ("a.yaml", "a: 1\n---\nb: 2\n", "valid YAML"),
        ("a.yaml", "disk: !!python/object/apply:os.system [true]", "valid YAML"),
        ("a.yaml", "disk: &a [*a]", "a table of fields"),
        ("a.yaml", "a: &a {x: 1}\nb: {<<: *a}", "merge keys"),
        ("a.yaml", "%YAML 1.1\n---\ndisk: [1e3]\n", "YAML 1.1 is not supported, 1.2 is"),
        ("a.yaml", 'a: "\\Uffffffff"', "valid YAML"),
        ("a.yaml", "%YAML 1.4\n---\ndisk: []\n", "got (1, 4)"),
        ("a.yaml", "a: &a 1\nb: &a 2\n", "only 'disk' at the top"),
        ("a.yaml", "? [a, b]\n: 1\n", "only 'disk'"),
        ("a.yaml", "disk: 2026-13-45", "valid YAML"),
        ("a.yaml", "just text", "a table"),
        ("a.txt", TOML.format("a"), "ending '.txt'"),
        ("a", TOML.format("a"), "ending ''"),
        ("a.toml", b"\xff\xfe", "UTF-8"),
        ("a.toml", "\0", "valid TOML"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, name: str, text: str | bytes, word: str
) -> None:
    path = given_text(tmp_path, name, text)
    faults = faults_of(path)
    assert faults.startswith(str(path))
    assert word in faults
    assert len(faults) < 2000


@pytest.mark.parametrize(
    "head", ["disk", "disk:\n- name", "disk:\n- {name: a, base: b}\n- state", "x"]
)
def test_a_bomb_of_anchors_is_a_fault_and_not_the_end(tmp_path: Path, head: str) -> None:
    lines = ["a0: &a0 [lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 40)]
    lines.append(f"{head}: *a39")
    assert "allowed" in faults_of(given_text(tmp_path, "a.yaml", "\n".join(lines)))


def test_a_bomb_of_merged_keys_is_a_fault_and_not_the_end(tmp_path: Path) -> None:
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 40)]
    assert "merge keys" in faults_of(given_text(tmp_path, "a.yaml", "\n".join(lines)))


def test_a_missing_file_a_folder_in_its_place_and_too_large_a_file(tmp_path: Path) -> None:
    assert "No such file" in faults_of(tmp_path / "missing.toml")
    assert "Not a directory" in faults_of(given_text(tmp_path, "a.toml", "") / "b.toml")
    large = tmp_path / "large.toml"
    with large.open("wb") as file:
        file.truncate(SPEC_BYTES_MAX + 1)
    assert f"at most {SPEC_BYTES_MAX} bytes" in faults_of(large)


def test_standard_input_has_the_same_bound() -> None:
    with pytest.raises(SpecError, match="at most"):
        read("-", stdin=lambda: "#" * (SPEC_BYTES_MAX + 1))


def test_standard_input_that_is_no_text_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(b"disk = '\xff'"), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", stream)
    with pytest.raises(SpecError, match="UTF-8"):
        read("-")


def test_duplicates_in_one_file_and_across_files_are_named_with_every_other_fault(
    tmp_path: Path,
) -> None:
    first = given_text(tmp_path, "a.toml", TOML.format("sb-1") * 2 + TOML.format("Bad"))
    second = given_text(tmp_path, "b.yaml", YAML.format("sb-1"))
    third = given_text(tmp_path, "c.json", "{")
    faults = faults_of(tmp_path).splitlines()
    assert len(faults) == 4
    for source, word in ((first, "Bad"), (first, "each name once"), (second, "each name once"),
                         (third, "valid JSON")):  # fmt: skip
        assert [f.startswith(f"{source}:") and word in f for f in faults
                          if f.startswith(f"{source}:") and word in f] == [True]  # fmt: skip


def test_an_unreadable_file_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = given_text(tmp_path, "a.toml", TOML.format("a"))

    def denied(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", denied)
    assert "Permission denied" in faults_of(path)


@given(st.text(alphabet="disknamebo:=-[]{}\"'#&*!|>%@\\ \n\t0<,.?", max_size=60))
def test_whatever_the_text_it_is_read_or_a_fault(text: str) -> None:
    for kind in ("toml", "yaml", "json"):
        with contextlib.suppress(SpecError):
            specs._parsed("a", kind, text)  # noqa: SLF001 - the readers alone, many times


@given(st.text(max_size=40))
def test_json_and_yaml_agree(text: str) -> None:
    document = {"disk": [{"name": "a", "base": "/" + text}]}
    assert document == specs._parsed("a", "json", json.dumps(document))  # noqa: SLF001
    if text.isprintable():
        assert document == specs._parsed("a", "yaml", json.dumps(document, ensure_ascii=False))  # noqa: SLF001


# --- bases ----------------------------------------------------------------------------------------


def spec_on(base: str) -> DiskSpec:
    return DiskSpec(name=disk_name("sb-1"), base=Path(base))


def base_fault(kernel: SimKernel, base: str) -> str:
    with pytest.raises(SpecError) as caught:
        check_base("a.toml", spec_on(base), kernel)
    [fault] = caught.value.faults
    assert fault.startswith(f"a.toml: disk 'sb-1': field 'base': found '{base}: ")
    return fault


@pytest.fixture
def kernel() -> SimKernel:
    return SimKernel()


@pytest.mark.parametrize("size", [512, 513 * 512, 2**20, BASE_BYTES_MAX])
def test_a_file_of_whole_sectors_is_a_base(kernel: SimKernel, size: int) -> None:
    kernel.make_file("/srv/b.img", size)
    assert size == check_base("a.toml", spec_on("/srv/b.img"), kernel).size.count


@pytest.mark.parametrize(
    ("size", "word"),
    [(0, "0 bytes"), (1, "multiple of 512"), (511, "511 bytes"), (2**20 + 1, "multiple of 512"),
     (BASE_BYTES_MAX + 512, "at most"), (2**63 - 512, "at most")],
)  # fmt: skip
def test_a_file_of_another_size_is_no_base(kernel: SimKernel, size: int, word: str) -> None:
    kernel.make_file("/srv/b.img", size)
    assert word in base_fault(kernel, "/srv/b.img")


def test_what_is_no_regular_file_is_no_base(kernel: SimKernel) -> None:
    kernel.make_file("/srv/b.img", 512)
    assert "no such file" in base_fault(kernel, "/srv/missing.img")
    assert "no such file" in base_fault(kernel, "/srv/b.img/x")
    assert "a folder" in base_fault(kernel, "/srv")
    assert "regular file" in base_fault(kernel, "/dev/mapper/control")


def test_a_base_that_cannot_be_opened_is_told(kernel: SimKernel) -> None:
    kernel.make_file("/srv/b.img", 512)
    kernel.set_readable("/srv/b.img", readable=False)
    assert "no privilege" in base_fault(kernel, "/srv/b.img")


def test_a_base_that_cannot_be_looked_at_is_told(kernel: SimKernel) -> None:
    kernel.faults.fail("identify", 13)
    assert "Permission denied" in base_fault(kernel, "/srv/b.img")


def test_a_base_may_be_a_link(kernel: SimKernel) -> None:
    kernel.make_file("/srv/v2.img", 512)
    kernel.put_link(Path("/srv/b.img"), "v2.img", replaces=None)
    assert check_base("a.toml", spec_on("/srv/b.img"), kernel).size.count == 512
