"""Reading what somebody wants: TOML, YAML or JSON, from a file, a folder or standard input.

Everything is checked as a whole before anything is declared: every file, every field, every base.
What it does not do: it declares nothing. May be imported by declare, daemon and cli.
"""

from __future__ import annotations

import json
import os
import stat
import sys
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from reconciler.kernel import safepath
from reconciler.kernel.port import Kernel
from statemachine import lifetime, specreader
from statemachine.errors import ActionError, SpecError, UsageError
from statemachine.fileidentity import FileIdentity
from statemachine.spec import DiskSpec
from statemachine.specfault import SpecFault
from statemachine.units import LARGEST_BYTES, SECTOR_BYTES

if TYPE_CHECKING:
    from ruamel.yaml.nodes import MappingNode

SPEC_BYTES_MAX: Final = 16 * 2**20
"""The largest spec file that is read."""

BASE_BYTES_MAX: Final = LARGEST_BYTES // 258 // SECTOR_BYTES * 256 * SECTOR_BYTES
"""The largest base whose CoW file, a metadata chunk for each 256 of data, can be a file, too."""

_READERS: Final[dict[str, str]] = {
    ".toml": "toml",
    ".yaml": "yaml",
    ".yml": "yaml",
    ".json": "json",
}
_YAML_LEAKS: Final = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError)
"""What ruamel.yaml 0.19 lets out where a document is wrong: AssertionError for "%YAML 1.4",
OverflowError for "\\Uffffffff"; the others are of the same kind."""
_STDIN: Final = "standard input"
_FILE_RULE: Final = "a file that ends in .toml, .yaml, .yml or .json, or a folder of them"


@attrs.frozen
class Sourced:
    """A spec and the file it came from."""

    source: str
    spec: DiskSpec


def read(where: str, *, stdin: Callable[[], str] | None = None) -> list[Sourced]:
    """Read every spec of a file, of all spec files in a folder (not deeper), or of "-".

    Raises:
        SpecError: naming every fault of every file; nothing half read is returned.
    """
    if where == "-":
        return _gather([(_STDIN, _any_format(_from_stdin(stdin)), Path.cwd())])
    path = Path(where).absolute()
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise _unreadable(where, error.strerror or str(error), _FILE_RULE) from error
    if stat.S_ISDIR(mode):
        return read_folder(path)
    if not stat.S_ISREG(mode):
        # Opening a pipe would wait for a writer, without end.
        raise _unreadable(where, "neither a file nor a folder", _FILE_RULE)
    return _gather([_from_file(path)])


def read_folder(folder: Path) -> list[Sourced]:
    """Read every spec file directly in a folder, in the order of their names.

    Hidden files and other endings are left alone; a folder without any gives no specs.
    """
    try:
        names = sorted(entry for entry in folder.iterdir() if _is_spec_file(entry))
    except OSError as error:
        raise _unreadable(str(folder), error.strerror or str(error), "a readable folder") from error
    faults: list[str] = []
    documents = []
    for name in names:
        try:
            documents.append(_from_file(name))
        except SpecError as error:
            faults += error.faults
    try:
        specs = _gather(documents)
    except SpecError as error:
        raise SpecError([*faults, *error.faults]) from error
    if faults:
        raise SpecError(faults)
    return specs


def check_base(source: str, spec: DiskSpec, kernel: Kernel) -> FileIdentity:
    """Check that a spec's base can carry a disk, and say which file it is.

    Raises:
        SpecError: it is missing, no regular file, empty, unreadable, or no multiple of 512 bytes.
    """
    found = _image(kernel, spec.base)
    if isinstance(found, _Unfit):
        raise base_fault(source, spec, found.found, found.allowed)
    return found


def check_image(path: Path, kernel: Kernel) -> FileIdentity:
    """Check that a file can be a base, and say which it is.

    Raises:
        UsageError: see `check_base`.
    """
    found = _image(kernel, path)
    if isinstance(found, _Unfit):
        raise UsageError(f"{path}: found {found.found}; allowed: {found.allowed}")
    return found


@attrs.frozen
class _Unfit:
    """Why a file cannot be a base."""

    found: str
    allowed: str


def _image(kernel: Kernel, path: Path) -> FileIdentity | _Unfit:
    found = _identify(kernel, path)
    if isinstance(found, str):
        return _Unfit(found, "an existing file")
    if found.kind != "file":
        return _Unfit(f"a {found.kind}", "a regular file, a raw disk image")
    size = found.size.count
    if size == 0 or size % SECTOR_BYTES:
        allowed = f"a size that is a multiple of {SECTOR_BYTES} bytes, and not 0"
        return _Unfit(f"{size} bytes", allowed)
    if size > BASE_BYTES_MAX:
        return _Unfit(f"{size} bytes", f"at most {BASE_BYTES_MAX} bytes")
    if not kernel.readable(path):
        return _Unfit("no privilege to read it", "a file that byre can read")
    return found


def lifetime_fault(each: Sourced, now_ns: int) -> SpecError:
    """Return why a time that is over is no end for a new disk."""
    fault = SpecFault(
        source=each.source,
        disk=f"disk {each.spec.name!r}",
        field="expires_at",
        found=lifetime.moment_text(each.spec.lifetime.expires_at or 0),
        allowed=f"a time that is yet to come; it is {lifetime.moment_text(now_ns)}",
    )
    return SpecError([str(fault)])


def _identify(kernel: Kernel, base: Path) -> FileIdentity | str:
    try:
        return kernel.identify(base, follow=True) or "no such file"
    except ActionError as error:
        return error.message


def base_fault(source: str, spec: DiskSpec, found: str, allowed: str) -> SpecError:
    """Return why a base is not accepted, as an error of its spec."""
    fault = SpecFault(
        source=source,
        disk=f"disk {spec.name!r}",
        field="base",
        found=f"{spec.base}: {found}",
        allowed=allowed,
    )
    return SpecError([str(fault)])


def _gather(documents: Iterable[tuple[str, object, Path]]) -> list[Sourced]:
    faults: list[str] = []
    found: list[Sourced] = []
    for source, document, folder in documents:
        specs, wrong = specreader.read(document, source=source, folder=folder)
        found += [Sourced(source, spec) for spec in specs]
        faults += wrong
    try:
        specreader.check_unique([(each.source, each.spec) for each in found])
    except SpecError as error:
        faults += error.faults
    if faults:
        raise SpecError(faults)
    return found


def _is_spec_file(path: Path) -> bool:
    return path.suffix in _READERS and not path.name.startswith(".") and path.is_file()


def _from_file(path: Path) -> tuple[str, object, Path]:
    kind = _READERS.get(path.suffix)
    if kind is None:
        raise _unreadable(str(path), f"ending {path.suffix!r}", _FILE_RULE)
    text = _text_of(path)
    # Resolved, so that `..` in a relative path means what it means to the file system.
    return str(path), _parsed(str(path), kind, text), path.parent.resolve()


def _text_of(path: Path) -> str:
    """Read a regular file of bounded size, also if it becomes a pipe or grows just now."""
    try:
        with safepath.regular(path.absolute(), os.O_RDONLY, follow=True) as descriptor:
            if (size := os.fstat(descriptor).st_size) > SPEC_BYTES_MAX:
                raise _unreadable(str(path), f"{size} bytes", f"at most {SPEC_BYTES_MAX} bytes")
            with os.fdopen(os.dup(descriptor), "rb") as file:
                raw = file.read(SPEC_BYTES_MAX + 1)
        if len(raw) > SPEC_BYTES_MAX:
            raise _unreadable(str(path), "more text", f"at most {SPEC_BYTES_MAX} bytes")
        return raw.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(str(path), str(error), "readable UTF-8 text") from error


def _from_stdin(stdin: Callable[[], str] | None) -> str:
    try:
        text = stdin() if stdin else sys.stdin.read(SPEC_BYTES_MAX + 1)
    except UnicodeDecodeError as error:
        raise _unreadable(_STDIN, str(error), "readable UTF-8 text") from error
    if len(text) > SPEC_BYTES_MAX:
        raise _unreadable(_STDIN, "more text", f"at most {SPEC_BYTES_MAX} bytes")
    return text


def _any_format(text: str) -> object:
    """Read standard input: JSON and TOML have little in common; what is neither may be YAML."""
    if text.lstrip().startswith("{"):
        return _parsed(_STDIN, "json", text)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        document = _parsed(_STDIN, "yaml", text)
        if not isinstance(document, dict):
            raise _unreadable(_STDIN, str(error), "TOML, YAML or JSON") from error
        return document


def _parsed(source: str, kind: str, text: str) -> object:
    try:
        if kind == "toml":
            return tomllib.loads(text)
        if kind == "json":
            return json.loads(text, object_pairs_hook=_no_repeats)
        return _yaml(text)
    except (ValueError, RecursionError) as error:
        raise _unreadable(source, " ".join(str(error).split()), f"valid {kind.upper()}") from error


def _yaml(text: str) -> object:
    from ruamel.yaml import YAML  # noqa: PLC0415 - only who uses YAML pays for it
    from ruamel.yaml.constructor import ConstructorError, SafeConstructor  # noqa: PLC0415
    from ruamel.yaml.error import YAMLError  # noqa: PLC0415

    class Constructor(SafeConstructor):
        """Without merge keys: nested, a few lines of them take hours and all memory.

        And without YAML 1.1, in which `no` is no word and warnings are given about numbers.
        """

        def construct_document(self, node: MappingNode) -> object:
            major, minor = self.resolver.processing_version
            if (major, minor) != (1, 2):
                problem = f"YAML {major}.{minor} is not supported, 1.2 is"
                raise ConstructorError(problem=problem, problem_mark=node.start_mark)
            return super().construct_document(node)

        def flatten_mapping(self, node: MappingNode) -> None:
            for key, _ in node.value:
                if key.tag == "tag:yaml.org,2002:merge":
                    raise ConstructorError(
                        problem="merge keys (<<) are not supported", problem_mark=key.start_mark
                    )

    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = Constructor
    # YAML allows it, and a warning in the middle of a reader helps nobody.
    yaml.composer.warn_double_anchors = False
    try:
        return yaml.load(text)
    except (*_YAML_LEAKS, YAMLError) as error:
        raise ValueError(str(error)) from error


def _no_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Refuse a key that stands twice in one JSON object, as TOML and YAML do by themselves."""
    document = dict(pairs)
    if len(document) != len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key {repeated!r} stands twice in one object")
    return document


def _unreadable(source: str, found: str, allowed: str) -> SpecError:
    fault = SpecFault(source=source, disk="", field="", found=found, allowed=allowed)
    return SpecError([str(fault)])
