"""The short form of the storm: some twenty kills under load, and nothing lost, leaked or untold."""

from __future__ import annotations

import pytest

from tests.kernel.host import Host
from tests.torture.storm import Storm

pytestmark = pytest.mark.kernel

KILLS = 15
SEED = 20261121


@pytest.mark.timeout(600)
def test_a_reconciler_killed_at_random_under_load_loses_and_leaks_nothing(host: Host) -> None:
    figures = Storm(host, SEED).run(KILLS)
    assert figures.kills >= KILLS
    assert figures.intents_resumed > 0
    assert figures.promises > 0
