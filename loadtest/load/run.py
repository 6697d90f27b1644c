"""A whole load test: checks, calibration, stages or a search, verdict."""

from __future__ import annotations

import logging
import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from loadtest.load.generator import Target, generating
from loadtest.load.measure import Meter, calibrate
from loadtest.load.preflight import ask_once, key_of, server_url
from loadtest.load.protocols import BY_NAME
from loadtest.load.result import Maximum, Result, StageResult, Verdict, verdict_on
from loadtest.load.search import search
from loadtest.load.stage import Stage
from loadtest.load.texts import BUILT_IN, batches, texts_of
from service import __version__
from service.contract.hardware import CPUINFO, cpuinfo_field, instruction_set

logger = logging.getLogger(__name__)

_REACH_CLIENTS = 32


@dataclass(frozen=True)
class Plan:
    """What is to be measured; with ``find_max`` the stages' seconds are those of each rate tried."""

    url: str
    protocol: str
    stages: Sequence[Stage]
    model: str | None = None
    texts: Path | None = None
    text_column: str = "text"
    batch: int = 1
    key_file: Path | None = None
    timeout: float = 10.0
    p99_ms: float | None = None
    find_max: bool = False
    rounds: int = 1
    workers: int = 1
    listen: str | None = None
    seed: int = 0


def run(plan: Plan) -> Result:
    """:raises InvalidInput: if something given cannot be used. :raises PlumblineError: if the server is not there."""
    url, protocol = server_url(plan.url), BY_NAME[plan.protocol]
    texts = texts_of(plan.texts, plan.text_column, plan.seed)
    key = key_of(plan.key_file, os.environ)
    headers = {"authorization": f"Bearer {key}"} if key else {}
    groups = batches(texts, plan.batch)
    asked = ask_once(url, protocol, plan.model, groups[0], headers, plan.timeout)
    requests = [protocol.request(group, asked) for group in groups]
    target = Target(url, protocol.path(asked), requests, headers, plan.timeout)
    with _telling() as tell, generating(plan.workers, plan.listen, lambda: tell(_waiting(plan))) as generator:
        calibration = None
        if plan.listen is None:
            tell("what the generator itself can do")
            calibration = calibrate(generator, target, plan.seed)
        meter = Meter(generator, target, calibration, plan.seed)
        stages, maximum = _measure(meter, plan, tell)
    words = [len(text.split()) for text in texts]
    return Result(
        created=datetime.now(UTC),
        plumbline=__version__,
        url=url,
        protocol=protocol.name,
        model=asked.model,
        batch=plan.batch,
        texts=BUILT_IN if plan.texts is None else f"{plan.texts.name}, {len(texts):,} rows",
        words_median=float(np.median(words)),
        words_p95=float(np.percentile(words, 95)),
        seed=plan.seed,
        machine=_machine(),
        workers=generator.workers,
        calibration=calibration,
        p99_objective_ms=plan.p99_ms,
        verdict=_verdict(plan, stages, maximum),
        maximum=maximum,
        stages=stages,
    )


def _measure(meter: Meter, plan: Plan, tell: Callable[[str], None]) -> tuple[list[StageResult], Maximum | None]:
    if not plan.find_max:
        return [meter.measure(one, plan.rounds, lambda stage: tell(stage.name)) for one in plan.stages], None
    assert plan.p99_ms is not None
    first = plan.stages[0]
    clients = Stage(
        clients=max(_REACH_CLIENTS, plan.workers), seconds=max(2.0, first.seconds / 3), warm_up=first.warm_up
    )
    tell(clients.name)
    reached = meter.measure(clients)
    maximum, tried = search(
        lambda stage: meter.measure(stage, before=lambda one: tell(one.name)),
        plan.p99_ms,
        max(reached.answered.value, 1.0),
        first.seconds,
        first.warm_up,
    )
    return tried, maximum


def _verdict(plan: Plan, stages: Sequence[StageResult], maximum: Maximum | None) -> Verdict:
    if maximum is None:
        return verdict_on(stages, plan.p99_ms)
    assert plan.p99_ms is not None
    above = [one.keeps(plan.p99_ms) for one in stages if (one.stage.rate or 0.0) > maximum.rate]
    if None in above and False not in above:
        return "generator"
    return "kept" if maximum.rate else "missed"


def _machine() -> str:
    """What the generator ran on; onnxruntime, which counts cores elsewhere, would take a second to import."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = cpuinfo_field(CPUINFO, "model name") or platform.machine()
    return f"{instruction_set()}: {name}, {cores} core{'' if cores == 1 else 's'}"


def _waiting(plan: Plan) -> str:
    if plan.listen is None:
        return "for the workers"
    port = plan.listen.rpartition(":")[2]
    return f"for {plan.workers} workers; start each with: plumbline loadtest worker THIS-MACHINE:{port}"


@contextmanager
def _telling() -> Iterator[Callable[[str], None]]:
    """What is being measured: a line that moves on a terminal, log lines elsewhere."""
    if not sys.stderr.isatty():
        yield lambda what: logger.info("load test: %s", what)
        return
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("starting")
        yield lambda what: progress.update(task, description=what)
