"""What a generator saw of one stage, request by request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from loadtest.load.stage import Floats

OK = "ok"
TOO_MANY_FILES = "generator: too many open files"


@dataclass(frozen=True)
class Samples:
    """Columns over the requests that were meant to start within the stage's seconds, in the order of their ends.

    ``intended`` and ``latency`` are in seconds, the latter counted from the former to the last byte of the answer;
    ``kind`` points into ``kinds``, of which :data:`OK` is an answer with status 200. ``late`` is by how much the
    generator itself woke up too late: at each arrival, or every 10 ms where there are none. ``cpu`` is the share of
    one core that each generator process used; ``examples`` are bodies of failures, by kind.
    """

    intended: Floats
    latency: Floats
    kind: np.ndarray[Any, np.dtype[np.uint16]]
    kinds: Sequence[str]
    late: Floats
    cpu: Sequence[float]
    examples: Mapping[str, str]

    @property
    def ok(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        places = [index for index, kind in enumerate(self.kinds) if kind == OK]
        return np.isin(self.kind, places)


def joined(reports: Sequence[Mapping[str, Any]], seconds: float) -> Samples:
    """The reports of all workers as one, see ``locust_process``, without what was not meant for the stage's seconds."""
    kinds = sorted({kind for report in reports for kind in report["kinds"]})
    columns: dict[str, list[Any]] = {"intended": [], "latency": [], "kind": [], "late": []}
    for report in reports:
        intended = np.frombuffer(report["intended"])
        counted = (intended >= 0) & (intended < seconds)
        places = np.array([kinds.index(kind) for kind in report["kinds"]], dtype=np.uint16)
        columns["intended"].append(intended[counted])
        columns["latency"].append(np.frombuffer(report["latency"])[counted])
        columns["kind"].append(places[np.frombuffer(report["kind"], dtype=np.uint16)[counted]])
        columns["late"].append(np.frombuffer(report["late"]))
    stacked = {name: np.concatenate(parts) for name, parts in columns.items()}
    return Samples(
        **stacked,
        kinds=kinds,
        cpu=[report["cpu"] for report in reports],
        examples={kind: example for report in reports for kind, example in report["examples"].items()},
    )
