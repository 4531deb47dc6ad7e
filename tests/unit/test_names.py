"""Names of disks, and identities that only byre's own things have."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statemachine.names import (
    HOST,
    DmUuid,
    base_marker,
    cow_marker,
    disk_name,
    is_base_marker,
)

BAD_NAMES = [
    "", "a" * 64, "Sb-1", "-a", ".a", "_a", "a/b", "..", "a..b", "a b", "a\n", "\na", "a\0", "ä",
    "a:b", "a\\b", "@host", "²", "٣", "a\u200b", " a", "a ",
]  # fmt: skip


@pytest.mark.parametrize("text", ["a", "0", "a" * 63, "sb-1", "sb_1.a-b", "0.0", "a."])
def test_a_name_is_taken(text: str) -> None:
    assert text == disk_name(text)


@pytest.mark.parametrize("text", [*BAD_NAMES, None, 1, True, b"a", ["a"]])
def test_a_bad_name_is_refused_with_the_rule(text: object) -> None:
    with pytest.raises(ValueError, match="1 to 63 characters"):
        disk_name(text)


@given(st.text(max_size=70))
def test_no_name_can_leave_its_folder_or_be_the_host(text: str) -> None:
    try:
        name = disk_name(text)
    except ValueError:
        return
    assert name != HOST
    assert name.isascii()
    assert name.isprintable()
    assert not {"/", " ", "\n"} & set(name)
    assert ".." not in name


@given(st.text("0123456789abcdef", min_size=32, max_size=32), st.integers(1, 9_999_999_999))
def test_a_uuid_is_printed_and_read(disk_id: str, generation: int) -> None:
    uuid = DmUuid(disk_id, generation)
    assert uuid == DmUuid.parse(str(uuid))
    assert len(str(uuid)) < 128  # DM_UUID_LEN 129, with the final NUL


ID = "0123456789abcdef" * 2


@pytest.mark.parametrize(
    "text",
    ["", "BYRE-", f"BYRE-{ID}", f"BYRE-{ID}-0", f"BYRE-{ID}-01", f"byre-{ID}-1", f"BYRE-{ID}-1 ",
     f"XBYRE-{ID}-1", f"BYRE-{ID.upper()}-1", f"BYRE-{ID}a-1", f"BYRE-{ID}-1\n", f"LVM-{ID}-1"],
)  # fmt: skip
def test_what_only_looks_like_ours_is_not(text: str) -> None:
    assert DmUuid.parse(text) is None


def test_markers_fit_into_the_loop_device_and_tell_bases_from_files() -> None:
    # LO_NAME_SIZE of linux/loop.h is 64, with the final NUL.
    base, cow = base_marker("0123456789abcdef"), cow_marker(ID, 9_999_999_999)
    assert (len(base) < 64, len(cow) < 64) == (True, True)
    assert (is_base_marker(base), is_base_marker(cow)) == (True, False)
