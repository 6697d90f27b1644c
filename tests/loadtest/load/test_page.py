"""Page and tables: whole, without anything from elsewhere, and true to the figures."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from loadtest.load import tables
from loadtest.load.measure import summarise
from loadtest.load.page import as_html
from loadtest.load.result import Maximum, Result
from loadtest.load.server_side import ServerReport, Spread
from loadtest.load.stage import Stage
from tests.loadtest.load.results import CALIBRATION, latencies, measured, result, stage_result

SERVER = ServerReport(
    requests=4000,
    spreads={"queue_ms": Spread(mean=1.5, p99=9), "padding": Spread(mean=0.07, p99=0.3)},
    rejected={"overloaded": 12},
)
VOID = {"meta", "link", "br"}


def results() -> dict[str, Result]:
    open_stages = [
        stage_result(latencies(8 + rate / 100, 20 * rate), rate=float(rate)).model_copy(update={"server": SERVER})
        for rate in (100, 200, 300, 400, 500, 600)
    ]
    stage = Stage(rate=10, ramp_to=500, seconds=20, warm_up=1)
    ramp = summarise(stage, [measured(latencies(9), 20)], CALIBRATION)
    nothing = stage_result(latencies(10, 200), failed=200)
    return {
        "open": result(open_stages, p99_objective_ms=50, verdict="kept"),
        "maximum": result(
            open_stages, p99_objective_ms=40, verdict="kept", maximum=Maximum(rate=400, low=300, high=500)
        ),
        "closed": result([stage_result(latencies(5), clients=clients) for clients in (1, 16)]),
        "failing": result([stage_result(latencies(9), failed=300)], p99_objective_ms=50, verdict="missed"),
        "nothing answered": result([nothing], p99_objective_ms=50, verdict="missed"),
        "late": result([stage_result(latencies(9), late_ms=40)], verdict="generator", calibration=None),
        "ramp": result([ramp]),
        "one request": result([stage_result(np.array([0.01]))]),
    }


class Whole(HTMLParser):
    """Counts what is opened and closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        """Closed at once."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("name", results())
def test_a_page_is_whole_and_asks_no_other_host(name: str) -> None:
    page = as_html(results()[name])
    reader = Whole()
    reader.feed(page)
    assert reader.open == []
    assert all(link.startswith("data:") for link in reader.links)
    assert not re.search(r"<script|@import|url\(|\bnan\b|\bNone\b(?!\.)|\binf\b", page.partition("</style>")[2])
    assert page.count("<h2>") >= 5


def test_what_a_server_answered_is_no_html() -> None:
    page = as_html(results()["failing"])
    assert "the &lt;queue&gt; is full" in page
    assert "HTTP 429 overloaded" in page


def test_charts_have_the_objective_the_loads_and_the_servers_own_queue() -> None:
    page = as_html(results()["maximum"])
    assert page.count("<figure>") == 7
    assert ">objective</text>" in page
    assert "highest rate that keeps the objective" in page
    assert "The server&#x27;s queue and inference" in page
    assert "The 4 loads around" in page
    assert "clients" not in page


def test_a_ramp_shows_latency_against_its_rate() -> None:
    page = as_html(results()["ramp"])
    assert "Latency against offered rate, 10 to 500/s" in page
    assert page.count("<figure>") == 4


def test_one_load_alone_is_no_curve_against_loads() -> None:
    assert as_html(results()["failing"]).count("<figure>") == 3


def test_without_answers_there_is_no_chart() -> None:
    assert "<figure>" not in as_html(results()["nothing answered"])


def test_few_requests_are_said_to_be_few() -> None:
    assert tables.warnings(results()["nothing answered"]) == ["200/s: 200 requests are few for a p99; run longer."]


def test_verdicts_in_words() -> None:
    found = {name: tables.verdict_sentence(one) for name, one in results().items()}
    assert found["open"] == "The objective, p99 within 50 ms of all requests, was kept."
    assert found["maximum"] == (
        "The highest rate that keeps the p99 within 40 ms is 400/s (300/s surely keeps it, 500/s surely misses it)."
    )
    assert found["late"].startswith("The generator was the limit in 200/s: it came 40.0 ms too late (p99)")
    assert found["closed"] == ""


def test_the_generators_own_limit_is_said_beside_what_it_sent() -> None:
    found = results()
    assert tables.generator_sentence(found["open"]).endswith("10,000 requests a second, 16.7 times what it sent here.")
    busy = result([stage_result(latencies(1, 80_000), clients=64)])
    assert busy.stages[0].generator.share == pytest.approx(0.4)
    assert "less than the five times" in tables.generator_sentence(busy)


@pytest.mark.parametrize(
    ("given", "limit"),
    [
        ({"late_ms": 30}, "it came 30.0 ms too late"),
        ({"cpu": 0.95}, "its processor was busy 95% of the time"),
        ({"late_ms": 0.9, "cpu": 0.5}, None),
    ],
)
def test_a_generator_that_was_the_limit_says_so(given: dict[str, float], limit: str | None) -> None:
    found = stage_result(latencies(5), clients=4, **given)
    assert found.counts == (limit is None)
    assert limit is None or found.generator.limits[0].startswith(limit)
    assert found.keeps(1000) is (True if limit is None else None)


def test_a_late_generator_in_an_open_stage_can_keep_an_objective_but_not_miss_it() -> None:
    found = stage_result(latencies(5), late_ms=30)
    assert not found.counts
    assert found.keeps(1000) is True
    assert found.keeps(1) is None


def test_more_requests_than_half_of_what_it_can_make_measure_the_generator() -> None:
    found = stage_result(latencies(1, 120_000), clients=64)
    assert found.generator.limits == ["it made 60% of the requests that it can make at most"]


def test_failures_are_a_share_and_counted_by_kind() -> None:
    shown = tables.latency_table(results()["failing"])
    assert shown.rows[0][-2:] == ["7.50%", "missed"]
    assert tables.failure_table(results()["failing"]).rows[0][1:3] == ("HTTP 429 overloaded", "300")
