"""A result and a comparison in words and numbers, for terminal and page alike."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from loadtest.load.compare import Compared
from loadtest.load.result import Result, StageResult

FEW = 500  # requests; five of them are above the p99


@dataclass(frozen=True)
class Table:
    """Cells are text; those of the first column are names, those of the last words, the others numbers."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def ms(value: float | None) -> str:
    """Milliseconds in three digits."""
    if value is None or not math.isfinite(value):
        return "never"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def per_second(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def latency_table(result: Result) -> Table:
    """One row a stage. Latencies are of answers; p99 has its 95 % interval."""
    columns = ["load", "answers/s", "p50", "p99", "95 %", "p99.9", "failed", ""]
    rows = [[*_latency_row(one), _remark(one, result)] for one in result.stages]
    return Table(
        "Latency in ms",
        columns,
        rows,
        "Of answers, from the moment at which each request was meant to start to its last byte. Whether an objective "
        "was kept is judged by all requests, those that failed taken as never answered.",
    )


def _latency_row(one: StageResult) -> Iterator[str]:
    yield one.stage.name
    yield per_second(one.answered.value)
    for name in ("p50", "p99", "p99.9"):
        figure = one.latency_ms.get(name)
        yield "" if figure is None else ms(figure.value)
        if name == "p99":
            yield "" if figure is None else f"{ms(figure.low)} to {ms(figure.high)}"
    yield f"{one.failed / one.requests:.2%}" if one.failed else "0"


def _remark(one: StageResult, result: Result) -> str:
    late = "" if one.counts else "does not count"
    if result.p99_objective_ms is None:
        return late
    return {True: "kept", False: "missed", None: late}[one.keeps(result.p99_objective_ms)]


def failure_table(result: Result) -> Table:
    rows = [
        (one.stage.name, kind, f"{failure.count:,}", " ".join(failure.example.split()))
        for one in result.stages
        for kind, failure in one.failures.items()
    ]
    return Table("Failures by kind", ["load", "kind", "requests", "one of the answers"], rows)


_SERVER = {
    "queue_ms": "queue",
    "tokenization_ms": "tokenize",
    "inference_ms": "infer",
    "batch_size": "inputs",
    "batch_tokens": "tokens",
    "padding": "padding",
}


def server_table(result: Result) -> Table:
    """Means of the server's own histograms, milliseconds and figures of a batch; the queue also by its p99."""
    rows = []
    for one in result.stages:
        if one.server is None:
            continue
        cells = [one.stage.name]
        for name in _SERVER:
            spread = one.server.spreads.get(name)
            if spread is None:
                cells.append("")
            elif name == "padding":
                cells.append(f"{spread.mean:.1%}")
            else:
                cells.append(ms(spread.mean))
        queue = one.server.spreads.get("queue_ms")
        cells.insert(2, ms(queue.p99) if queue is not None else "")
        refused = ", ".join(f"{count:,} {reason}" for reason, count in one.server.rejected.items())
        rows.append([*cells, refused or "0"])
    first, *others = _SERVER.values()
    columns = ["load", first, "p99", *others, "refused"]
    return Table(
        "The server's own metrics",
        columns,
        rows,
        "Means, of /metrics before and after each load, with its warm-up and all who asked: milliseconds in the queue "
        "(and their p99), of tokenizing and inference; inputs and tokens of a batch, and its share of padding.",
    )


def generator_table(result: Result) -> Table:
    rows = [
        (
            one.stage.name,
            f"{ms(one.generator.late_p50_ms)} / {ms(one.generator.late_p99_ms)}",
            f"{one.generator.cpu:.0%}",
            "" if one.generator.share is None else f"{one.generator.share:.0%}",
            "; ".join(one.generator.limits),
        )
        for one in result.stages
    ]
    return Table(
        "The generator",
        ["load", "late p50 / p99 ms", "of a core", "of its most", "limits"],
        rows,
        "How late it woke up for its requests, and what it used.",
    )


def generator_sentence(result: Result) -> str:
    """What the generator can do, and whether that is enough to believe the rest."""
    if result.calibration is None:
        return "The generator was not calibrated, as its workers are on other machines."
    most, highest = result.calibration.rate, max(one.offered for one in result.stages)
    times = most / highest if highest else math.inf
    enough = "" if times >= 5 else " That is less than the five times that leave no doubt."
    return (
        f"Against a server that does nothing the generator makes {per_second(most)} requests a second, "
        f"{times:.3g} times what it sent here.{enough}"
    )


def warnings(result: Result) -> list[str]:
    """Where the generator was the limit, and what holds in spite of it; where requests are few."""
    said = []
    for one in result.stages:
        if one.requests < FEW:
            said.append(f"{one.stage.name}: {one.requests} requests are few for a p99; run longer.")
        if one.counts:
            continue
        kept = one.keeps(result.p99_objective_ms) if result.p99_objective_ms is not None else None
        limits = "; ".join(one.generator.limits)
        if kept is None:
            said.append(f"{one.stage.name} does not count, the generator was the limit: {limits}.")
        else:
            holds = "kept" if kept else "missed"
            said.append(f"{one.stage.name}: its times are partly the generator's: {limits}. The objective was {holds}.")
    return said


def verdict_sentence(result: Result) -> str:
    """The answer, if there was a question."""
    limited = [one for one in result.stages if not one.counts]
    objective = f"p99 within {result.p99_objective_ms:g} ms" if result.p99_objective_ms is not None else ""
    if result.maximum is not None and result.verdict != "generator":
        if not result.maximum.rate:
            return f"No rate that was tried keeps the {objective}."
        return f"The highest rate that keeps the {objective} is {_maximum(result)}."
    if result.verdict == "generator":
        rate = result.maximum.rate if result.maximum is not None else 0.0
        below = f" Up to {per_second(rate)}/s the server keeps the {objective}." if rate else ""
        return f"The generator was the limit in {limited[0].stage.name}: {limited[0].generator.limits[0]}.{below}"
    if result.verdict in ("kept", "missed"):
        return f"The objective, {objective} of all requests, was {result.verdict}."
    return ""


def _maximum(result: Result) -> str:
    assert result.maximum is not None
    above = f"{per_second(result.maximum.high)}/s surely misses it" if result.maximum.high else "none surely misses it"
    return f"{per_second(result.maximum.rate)}/s ({per_second(result.maximum.low)}/s surely keeps it, {above})"


def comparison_table(found: Sequence[Compared]) -> Table:
    rows = [
        (
            one.stage,
            one.figure,
            per_second(one.before) if "rate" in one.figure or "second" in one.figure else _plain(one, one.before),
            per_second(one.after) if "rate" in one.figure or "second" in one.figure else _plain(one, one.after),
            f"{one.ratio.value:.3f} ({one.ratio.low:.3f} to {one.ratio.high:.3f})",
            one.verdict,
        )
        for one in found
    ]
    return Table("Comparison", ["load", "figure", "before", "after", "after / before (95 %)", ""], rows)


def _plain(one: Compared, value: float) -> str:
    return f"{value:.2%}" if one.figure.startswith("share") else f"{ms(value)} ms"
