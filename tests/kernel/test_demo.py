"""`byre demo` on the real device-mapper."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kernel.host import Host

pytestmark = pytest.mark.kernel


@pytest.mark.timeout(300)
def test_the_demonstration_uses_snapshots_and_leaves_nothing(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = host.folder / "demo"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    told = host.cli("demo").err
    assert "driver dm-snapshot" in told
    assert "took dm device" in told
    assert "Every check held" in told
    assert list(place.iterdir()) == []
    kernel = host.kernel
    assert [x.name for x in kernel.dm_names() if x.name.startswith("byre-demo-")] == []
    assert [x for x in kernel.list_folder(Path("/dev/mapper")) if x.startswith("byre-demo-")] == []
