"""The charts of a result's page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from loadtest.load.histogram import quantile, timeline, totals
from loadtest.load.plot import MOST_SERIES, Series, across, chart, linear, logarithmic, percentiles, upwards
from loadtest.load.result import Result, StageResult

_SHARES = 1 - np.logspace(math.log10(0.5), -4, 60)
_FEWEST = 10  # requests beyond a percentile, for it to be drawn


def charts(result: Result) -> Iterator[str]:
    """Each as a ``figure``."""
    answered = [one for one in result.stages if one.latency_ms]
    if not answered:
        return
    yield _latency_curve(result, answered)
    yield from _against_load(result, answered)
    for one in answered:
        if one.stage.ramp_to is not None and one.stage.burst is None:
            yield _up_a_ramp(result, one)
    closest = focus(result)
    yield _over_time(result, closest if closest.latency_ms else answered[0])
    yield from _server_charts(result)


def focus(result: Result) -> StageResult:
    """The stage that is looked at most closely: at the maximum, or the one with the most answers."""
    if result.maximum is not None:
        for one in result.stages:
            if one.stage.rate == result.maximum.rate:
                return one
    return max(result.stages, key=lambda one: one.answered.value)


def _curve(one: StageResult) -> Series:
    counts = totals(one.rounds)
    enough = [share for share in _SHARES if (1 - share) * one.requests >= _FEWEST] or [0.5]
    return Series(one.stage.name, [(share, float(quantile(counts, share))) for share in enough])


def _latency_curve(result: Result, stages: list[StageResult]) -> str:
    closest = focus(result)
    nearest = sorted(
        stages, key=lambda one: abs(stages.index(one) - (stages.index(closest) if closest in stages else 0))
    )
    chosen = [one for one in stages if one in nearest[:MOST_SERIES]]
    series = [_curve(one) for one in chosen]
    values = [point for one in series for point in one.points]
    highest = max(max(point[0] for point in values), 0.99)
    scales = across(percentiles, highest), upwards(logarithmic, *_range([point[1] for point in values]))
    note = f"The {MOST_SERIES} loads around the one of the figures above." if len(stages) > MOST_SERIES else ""
    return chart("Latency by percentile", ("percentile", "ms"), scales, series, note, result.p99_objective_ms)


def _range(values: Sequence[float]) -> tuple[float, float]:
    known = [value for value in values if math.isfinite(value) and value > 0] or [1.0]
    return min(known), max(known)


def _against_load(result: Result, stages: list[StageResult]) -> Iterator[str]:
    """Latency and answers against the offered rate, or against the number of clients."""
    for is_open, what in ((True, "offered requests a second"), (False, "clients")):
        of = sorted((one for one in stages if one.stage.open == is_open and _steady(one)), key=_load)
        if len(of) < 2:
            continue
        places = [_load(one) for one in of]
        series = [
            Series(
                name,
                [
                    (x, figure.value, figure.low, figure.high)
                    for x, one in zip(places, of, strict=True)
                    if (figure := one.latency_ms[name])
                ],
                marked=True,
            )
            for name in ("p50", "p99")
        ]
        values = [value for one in series for point in one.points for value in point[1:]]
        scale = across(linear, max(places))
        yield chart(
            f"Latency against {'offered rate' if is_open else 'clients'}",
            (what, "ms"),
            (scale, upwards(logarithmic, *_range(values))),
            series,
            "Whiskers are 95 % intervals.",
            result.p99_objective_ms,
        )
        offered = [Series("offered", [(0, 0), (max(places), max(places))])] if is_open else []
        rates = [
            (x, one.answered.value, one.answered.low, one.answered.high) for x, one in zip(places, of, strict=True)
        ]
        yield chart(
            "Answers a second",
            (what, "answers/s"),
            (scale, upwards(linear, max([point[3] for point in rates] + (places if is_open else [])))),
            [Series("answered", rates, marked=True), *offered],
        )


def _load(one: StageResult) -> float:
    return float(one.stage.clients or one.stage.rate or 0)


def _steady(one: StageResult) -> bool:
    return one.stage.ramp_to is None and one.stage.burst is None


def _up_a_ramp(result: Result, one: StageResult) -> str:
    """Latency against the rate as a ramp passes it, block by block."""
    points = timeline(one.rounds[-1])
    length = one.rounds[-1].seconds / len(points)
    rates = one.stage.rates(np.array([point["second"] + length / 2 for point in points]))
    series = [
        Series(name, sorted((float(rate), point[f"{name}_ms"]) for rate, point in zip(rates, points, strict=True)))
        for name in ("p50", "p99")
    ]
    values = [value for part in series for _, value in part.points]
    return chart(
        f"Latency against offered rate, {one.stage.name}",
        ("offered requests a second", "ms"),
        (across(linear, float(rates.max())), upwards(logarithmic, *_range(values))),
        series,
        "As the ramp passes each rate; what piled up before is in it.",
        result.p99_objective_ms,
    )


def _over_time(result: Result, one: StageResult) -> str:
    points = timeline(one.rounds[-1])
    length = one.rounds[-1].seconds
    latencies = [Series(name, [(point["second"], point[f"{name}_ms"]) for point in points]) for name in ("p50", "p99")]
    values = [value for series in latencies for _, value in series.points]
    scales = across(linear, length), upwards(logarithmic, *_range(values))
    rates = [Series(name, [(point["second"], point[name]) for point in points]) for name in ("offered", "answered")]
    highest = max(value for series in rates for _, value in series.points)
    return chart(
        f"Over time, at {one.stage.name}", ("seconds", "ms"), scales, latencies, limit=result.p99_objective_ms
    ) + chart(
        f"Requests over time, at {one.stage.name}",
        ("seconds", "requests/s"),
        (across(linear, length), upwards(linear, highest)),
        rates,
    )


def _server_charts(result: Result) -> Iterator[str]:
    """The server's own queue and batches over the loads."""
    told = [one for one in result.stages if one.server is not None and "queue_ms" in one.server.spreads]
    told = sorted(filter(_steady, told), key=_load)
    if len(told) < 2:
        return
    what = "offered requests a second" if told[-1].stage.open else "clients"
    of_kind = [one for one in told if one.stage.open == told[-1].stage.open]
    places = [_load(one) for one in of_kind]
    for title, unit, names in (
        ("The server's queue and inference", "ms", {"queue_ms": "queue", "inference_ms": "inference"}),
        ("The server's batches", "inputs", {"batch_size": "inputs a batch"}),
    ):
        series = [
            Series(
                said,
                [
                    (x, one.server.spreads[name].mean)
                    for x, one in zip(places, of_kind, strict=True)
                    if one.server is not None and name in one.server.spreads
                ],
                marked=True,
            )
            for name, said in names.items()
        ]
        scale = upwards(logarithmic, *_range([point[1] for one in series for point in one.points]))
        yield chart(title, (what, unit), (across(linear, max(places)), scale), series, "Means.")
