"""The result of a load test: what is printed, drawn, compared and kept as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from loadtest.load.histogram import Estimate, Round
from loadtest.load.server_side import ServerReport
from loadtest.load.stage import Stage
from service.contract.errors import InvalidInput

Verdict = Literal["none", "kept", "missed", "generator"]
SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class Failure(_Model):
    """How often it happened, and the beginning of one answer."""

    count: int
    example: str


class GeneratorReport(_Model):
    """What the generator says of itself; with ``limits`` it was what was measured, and the stage does not count."""

    late_p50_ms: float
    late_p99_ms: float
    cpu: float  # of one core, of its busiest process
    share: float | None  # of the requests a second that it makes at most
    limits: list[str]


class StageResult(_Model):
    """Latencies are of answers, in milliseconds from the intended start.

    ``objective_ms`` is the p99 of all requests with its interval, those that failed taken as never answered; None is
    never.
    """

    stage: Stage
    requests: int
    offered: float
    answered: Estimate
    latency_ms: dict[str, Estimate]
    objective_ms: tuple[float | None, float | None, float | None]
    failures: dict[str, Failure]
    generator: GeneratorReport
    server: ServerReport | None
    rounds: list[Round]

    @property
    def failed(self) -> int:
        return sum(failure.count for failure in self.failures.values())

    @property
    def counts(self) -> bool:
        """Whether its figures are the server's; with a limit they are the generator's."""
        return not self.generator.limits

    def keeps(self, objective: float) -> bool | None:
        """Whether the p99 of all requests is within it (milliseconds); None if the generator was the limit.

        Two things hold whatever limited the generator: what an open stage kept, as coming late only adds to latencies,
        and a miss because the server answered more than 1 % of the requests with errors.
        """
        value = self.objective_ms[0]
        kept = value is not None and value <= objective
        refused = sum(failure.count for kind, failure in self.failures.items() if kind.startswith("HTTP "))
        sure = (kept and self.stage.open) or refused > 0.01 * self.requests
        return kept if self.counts or sure else None


class Maximum(_Model):
    """The highest rate that kept the objective; ``low`` surely did, ``high`` surely did not (None: none was found)."""

    rate: float
    low: float
    high: float | None


class Calibration(_Model):
    """Against a server that does nothing: requests a second, and the share of a core that they took."""

    rate: float
    cpu: float


class Result(_Model):
    """``verdict`` is of the objective, or of the generator, if that was what was measured."""

    schema_version: Literal[1] = 1
    created: datetime
    plumbline: str
    url: str
    protocol: str
    model: str
    batch: int
    texts: str
    words_median: float
    words_p95: float
    seed: int
    machine: str
    workers: int
    calibration: Calibration | None
    p99_objective_ms: float | None
    verdict: Verdict
    maximum: Maximum | None
    stages: list[StageResult]


def read_result(path: Path) -> Result:
    """:raises InvalidInput: if the file is not there or no result of a load test."""
    try:
        return Result.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror or error}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise InvalidInput(
            f"{path} is no result of `plumbline loadtest --json`: {where}: {first['msg'].lower()}."
        ) from error


def verdict_on(stages: Sequence[StageResult], objective: float | None) -> Verdict:
    """Whether all kept the objective (milliseconds): see :meth:`StageResult.keeps`."""
    if objective is None:
        return "none" if all(one.counts for one in stages) else "generator"
    kept = [one.keeps(objective) for one in stages]
    return "missed" if False in kept else "generator" if None in kept else "kept"
