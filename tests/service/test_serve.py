"""How the process is set up for a long life."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from service.serve import _spare_the_collector


@pytest.fixture
def collector() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


@pytest.mark.usefixtures("collector")
def test_the_collector_passes_over_what_is_there_at_start_and_still_finds_cycles_made_later() -> None:
    _spare_the_collector()
    assert gc.get_freeze_count() > 10_000
    found = gc.collect()
    cycle: list[object] = []
    cycle.append(cycle)
    del cycle
    assert gc.collect() >= 1
    assert found < 10_000
