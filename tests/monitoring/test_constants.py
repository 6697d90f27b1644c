"""Outages upstream: texts that are empty, placeholders, or the same again and again."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import pytest

from monitoring.judging.decision import Decision, decide
from monitoring.judging.thresholds import Thresholds
from monitoring.signals.columns import columns_of
from service.contract.features import hash_tokens
from tests.monitoring.world import DRIFTED, Kind, rows, table

BROKEN = {
    "undefined": ["undefined"],
    "empty": [""],
    "null": ["null"],
    "whitespace": [" ", "\t\n"],
    "mixed": ["undefined", "", "null", " "],
    "one constant text": ["Please wait while we connect you"],
}
PROBE = "health check"
Rows = list[dict[str, Any]]


def broken(found: Rows, texts: list[str], share: float) -> Rows:
    """The rows, of which every so many has one of the texts, in turn."""
    every, turns = round(1 / share), cycle(texts)
    return [{**row, "text": next(turns)} if number % every == 0 else row for number, row in enumerate(found)]


def probed(found: Rows, share: float) -> Rows:
    """The rows and after them so many probes that they are this share of all."""
    return found + [{**found[0], "text": PROBE}] * round(len(found) * share / (1 - share))


def decided(reference: Rows, window: Rows) -> Decision:
    return decide(columns_of(table(reference)), columns_of(table(window)), Thresholds())


def constant(decision: Decision) -> tuple[bool, str]:
    (found,) = [(signal.drifted, signal.direction) for signal in decision.signals if signal.name == "constant"]
    return found


@pytest.mark.parametrize("probes", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("share", [1.0, 0.2])
@pytest.mark.parametrize("texts", BROKEN.values(), ids=BROKEN)
def test_an_outage_is_seen_in_two_hundred_requests(texts: list[str], share: float, probes: float) -> None:
    """Also where the reference holds health probes."""
    decision = decided(probed(rows(400, seed=1), probes), broken(rows(200, seed=2), texts, share))
    assert constant(decision)[0]
    assert decision.severity == "critical"


@pytest.mark.parametrize("texts", BROKEN.values(), ids=BROKEN)
def test_probes_in_the_window_do_not_hide_it(texts: list[str]) -> None:
    """A fifth of what people ask is broken, which is a tenth of all requests."""
    window = probed(broken(rows(200, seed=2), texts, 0.2), 0.5)
    assert constant(decided(probed(rows(400, seed=1), 0.5), window))[0]


def test_probes_in_the_window_hide_no_drift_of_the_rest() -> None:
    window = probed(rows(200, Kind(yes=0.9), seed=2), 0.5)
    assert "label" in decided(probed(rows(400, seed=1), 0.5), window).drifted
    window = probed(rows(200, DRIFTED, seed=2), 0.5)
    assert {"embedding", "tokens", "label", "confidence"} <= set(
        decided(probed(rows(400, seed=1), 0.5), window).drifted
    )


@pytest.mark.parametrize("share", [0.3, 0.4, 0.45])
def test_the_probes_of_the_reference_are_no_outage(share: float) -> None:
    assert decided(probed(rows(400, seed=1), 0.4), probed(rows(200, seed=2), share)).severity == "none"


def test_nothing_but_probes_is_an_outage() -> None:
    window = [{**row, "text": PROBE} for row in rows(200, seed=2)]
    assert constant(decided(probed(rows(400, seed=1), 0.4), window)) == (True, "more of one input")


def test_placeholders_that_the_reference_holds_as_often_are_ordinary() -> None:
    decision = decided(broken(rows(400, seed=1), ["n/a", ""], 0.2), broken(rows(200, seed=2), ["n/a", ""], 0.2))
    assert not constant(decision)[0]


def test_it_is_seen_without_texts_too() -> None:
    def hidden(found: Rows) -> Rows:
        return [{**row, "tokens": hash_tokens(row["text"]), "text": None} for row in found]

    window = broken(rows(200, seed=2), BROKEN["mixed"], 0.2)
    assert constant(decided(hidden(rows(400, seed=1)), hidden(window))) == (True, "more empty or placeholders")
