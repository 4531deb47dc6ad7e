"""What the tests on the real device-mapper share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kernel.host import Host, tool


@pytest.fixture
def host() -> Iterator[Host]:
    """A root, a folder and a device prefix of the test's own, with udev at rest.

    Late events of an earlier device with the same number make udev take the new one's name for
    the old one's, and its /dev/mapper symlink is away for some 10 ms.
    """
    tool("udevadm", "settle")
    made = Host()
    yield made
    made.cleanup()
