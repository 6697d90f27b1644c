"""Where batches run: on the event loop if it has no core to itself and they are short, else on a thread."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service.batching.packing import BatchCost
from service.engine import Engine
from service.engine.session import Outputs
from service.models.loaded import Resources, load
from service.tasks.tokenizer import Tokens
from service.telemetry.metrics import Metrics


@pytest.fixture
def ran_by(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The threads that ran batches."""
    threads: list[int] = []
    real = Engine.run

    def noted(self: Engine, batch: Sequence[Tokens]) -> Outputs:
        threads.append(threading.get_ident())
        return real(self, batch)

    monkeypatch.setattr(Engine, "run", noted)
    return threads


@pytest.mark.parametrize(
    ("shares_core", "low_priority", "per_second", "in_place"),
    [
        (True, False, 100_000, True),
        (False, False, 100_000, False),
        (True, True, 100_000, False),
        (True, False, 9_000, False),
    ],
    ids=["one core", "several cores", "for a shadow", "slow"],
)
async def test_batches_run_on_the_event_loop_where_that_is_best(
    repo: Path,
    ran_by: list[int],
    monkeypatch: pytest.MonkeyPatch,
    shares_core: bool,
    low_priority: bool,
    per_second: float,
    in_place: bool,
) -> None:
    monkeypatch.setattr(
        "service.models.loaded.measure", lambda *_: BatchCost(overhead=4, budget=512, per_second=per_second)
    )
    monkeypatch.setattr("service.models.loaded.lower_priority", lambda: None)
    resources = Resources("cpu", 1, 0, 0, shares_core=shares_core, cuda_graphs=False, low_priority=low_priority)
    model = await asyncio.to_thread(load, repo / "reviews" / "1", resources, Metrics())
    ran_by.clear()
    _, (answer,) = await model.answer(["good film"], math.inf)
    assert answer.answer.label in ("negative", "positive")
    assert [thread == threading.get_ident() for thread in ran_by] == [in_place]
    await model.retire()


@pytest.mark.parametrize(("cores", "in_place"), [(1, True), (2, False)])
def test_a_process_for_each_core_runs_them_on_the_event_loop(
    start: Callable[..., TestClient], ran_by: list[int], monkeypatch: pytest.MonkeyPatch, cores: int, in_place: bool
) -> None:
    monkeypatch.setattr("service.engine.threads.usable_cores", lambda: cores)
    client = start()
    ran_by.clear()
    assert client.post("/predict", json={"inputs": "good film"}).status_code == 200
    assert client.portal is not None
    assert [thread == client.portal.call(threading.get_ident) for thread in ran_by] == [in_place]
