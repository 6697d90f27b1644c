"""One stage measured: run it, with the server's own metrics around it, and say whether the generator was the limit."""

from __future__ import annotations

import math
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from loadtest.load.generator import Generator, Target
from loadtest.load.histogram import BUCKETS, Estimate, Round, answered, estimates, quantile, round_of, totals
from loadtest.load.result import SHARES, Calibration, Failure, GeneratorReport, StageResult
from loadtest.load.samples import OK, TOO_MANY_FILES, Samples
from loadtest.load.server_side import read_counters, report
from loadtest.load.stage import Stage
from service.contract.errors import PlumblineError

BUSY = 0.8  # share of a core from which the generator's own queue matters
MOST_SHARE = 0.5  # of what the generator makes at most
LATE_SHARE, LATE_MS = 0.1, 1.0  # lateness that is much: a tenth of the p99, and more than a millisecond
_CALIBRATION = Stage(clients=32, seconds=2.0, warm_up=0.5)


@dataclass(frozen=True)
class Measured:
    """One run of a stage."""

    round: Round
    samples: Samples


class Meter:
    """Measures stages of one target with one generator."""

    def __init__(self, generator: Generator, target: Target, calibration: Calibration | None, seed: int) -> None:
        self._generator, self._target, self._calibration = generator, target, calibration
        self._seeds = np.random.SeedSequence(seed)

    def measure(
        self, stage: Stage, rounds: int = 1, before: Callable[[Stage], None] = lambda stage: None
    ) -> StageResult:
        """:param before: called before each round."""
        counters = read_counters(self._target.host)
        found: list[Measured] = []
        for _ in range(rounds):
            before(stage)
            (seed,) = self._seeds.spawn(1)
            samples = self._generator.run(self._target, stage, int(seed.generate_state(1)[0]))
            if not len(samples.intended):
                raise PlumblineError(
                    f"in the {stage.seconds:g} s of {stage.name} no request was due. Give a higher --rate or a longer "
                    "--duration; clients that wait for a server that has stalled send none either."
                )
            found.append(Measured(round_of(samples, stage.seconds), samples))
        server = report(counters, read_counters(self._target.host))
        return summarise(stage, found, self._calibration).model_copy(update={"server": server})


def pooled(one: StageResult, other: StageResult) -> StageResult:
    """Two measurements of the same stage as one; what is said of generator and server is the latter's."""
    rounds = [*one.rounds, *other.rounds]
    counted = Counter({kind: failure.count for kind, failure in one.failures.items()})
    counted.update({kind: failure.count for kind, failure in other.failures.items()})
    examples = {**one.failures, **other.failures}
    failures = {kind: Failure(count=count, example=examples[kind].example) for kind, count in counted.items()}
    return other.model_copy(update={**_figures(rounds), "failures": failures})


def summarise(stage: Stage, found: Sequence[Measured], calibration: Calibration | None) -> StageResult:
    """What the rounds of a stage say."""
    failures: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for one in found:
        for place, kind in enumerate(one.samples.kinds):
            if kind != OK and (count := int((one.samples.kind == place).sum())):
                failures[kind] += count
        examples.update(one.samples.examples)
    figures = _figures([one.round for one in found])
    return StageResult(
        stage=stage,
        **figures,
        failures={kind: Failure(count=count, example=examples.get(kind, "")) for kind, count in failures.most_common()},
        generator=_generator_report(found, figures["offered"], _p99(figures["latency_ms"]), calibration),
        server=None,
    )


def _figures(rounds: Sequence[Round]) -> dict[str, Any]:
    """What of a result follows from the histograms."""
    total = totals(rounds)
    latencies = {name: partial(quantile, share=share) for name, share in SHARES.items()}
    figures = estimates(
        rounds,
        {
            **latencies,
            "answered": answered(rounds),
            "objective": partial(quantile, share=0.99, with_failures=True),
        },
    )
    objective = figures["objective"]
    return {
        "requests": int(total.sum()),
        "offered": float(total.sum() / sum(one.seconds for one in rounds)),
        "answered": figures["answered"],
        "latency_ms": {name: figures[name] for name in SHARES} if total[:BUCKETS].any() else {},
        "objective_ms": tuple(
            value if math.isfinite(value) else None for value in (objective.value, objective.low, objective.high)
        ),
        "rounds": list(rounds),
    }


def _p99(latency_ms: Mapping[str, Estimate]) -> float:
    return latency_ms["p99"].value if latency_ms else 0.0


def _generator_report(
    found: Sequence[Measured], offered: float, p99: float, calibration: Calibration | None
) -> GeneratorReport:
    late_p50, late_p99 = np.percentile(1000 * np.concatenate([one.samples.late for one in found]), [50, 99])
    cpu = max(share for one in found for share in one.samples.cpu)
    share = offered / calibration.rate if calibration is not None else None
    limits = []
    if cpu > BUSY:
        limits.append(f"its processor was busy {cpu:.0%} of the time")
    if late_p99 > max(LATE_MS, LATE_SHARE * p99):
        limits.append(f"it came {late_p99:.1f} ms too late (p99)")
    if share is not None and share > MOST_SHARE:
        limits.append(f"it made {share:.0%} of the requests that it can make at most")
    if any(TOO_MANY_FILES in one.samples.kinds for one in found):
        limits.append("it may open no more connections (ulimit -n)")
    return GeneratorReport(
        late_p50_ms=float(late_p50), late_p99_ms=float(late_p99), cpu=cpu, share=share, limits=limits
    )


def calibrate(generator: Generator, target: Target, seed: int) -> Calibration:
    """The generator's own limit: the same requests to a server that does nothing, as fast as they go."""
    with subprocess.Popen(
        [sys.executable, "-m", "loadtest.load.responder"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as responder:
        assert responder.stdin is not None
        assert responder.stdout is not None
        port = int(responder.stdout.readline())
        nothing = Target(f"http://127.0.0.1:{port}", target.path, target.requests, target.headers, target.timeout)
        stage = _CALIBRATION.model_copy(update={"clients": max(_CALIBRATION.clients or 0, generator.workers)})
        samples = generator.run(nothing, stage, seed)
        responder.stdin.close()
    return Calibration(rate=len(samples.intended) / stage.seconds, cpu=max(samples.cpu))
