"""The page of a model: its windows one after the other, and what happened in between."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from xml.etree import ElementTree

import httpx
import pytest

from monitoring.metrics import Metrics
from monitoring.pages.chart import HEIGHT, WIDTH, Mark, Point, Track, chart
from monitoring.pages.overview import overview
from monitoring.pages.server import serve_pages
from monitoring.pages.timeline import timeline
from monitoring.rounds import Rounds
from monitoring.state import StateStore
from tests.monitoring.world import DRIFTED, START, World


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state of a monitor that has seen three quiet windows of 100 rows, and two drifted ones."""
    world = World(tmp_path_factory.mktemp("timeline"))
    bundle = world.publish()
    world.write_log(bundle, 300)
    settings = world.settings(reports_kept=5, webhook_urls=("http://127.0.0.1:9/",))
    store = StateStore(settings.state_folder)
    rounds = Rounds(settings, store, Metrics(), clock=lambda: START.timestamp() + 600)
    rounds.run()
    world.write_log(bundle, 200, DRIFTED, sequence=2, at=START + timedelta(minutes=6))
    rounds.run()
    store.close()
    return settings.state_folder


def svg(figure: str) -> ElementTree.Element:
    found = re.search(r"<svg.*</svg>", figure, re.S)
    assert found is not None
    return ElementTree.fromstring(found[0])


def test_every_signal_is_there_with_its_threshold_and_its_windows(watched: Path) -> None:
    page = timeline(watched, watched / "reports", "tickets")
    assert page is not None
    figures = re.findall(r"<figure.*?</figure>", page, re.S)
    titles = [svg(one).findtext("{*}text") or svg(one).findtext("text") for one in figures]
    assert {"label", "confidence", "tokens", "embedding"} <= set(titles)
    tokens = svg(figures[titles.index("tokens")])
    points = [one for one in tokens.iter() if "point" in one.get("class", "")]
    assert [one.get("class") for one in points] == ["point"] * 3 + ["point bad"] * 2
    assert len([one for one in tokens.iter() if one.get("class") == "limit"]) == 1
    reports = re.findall(r'href="(/reports/tickets/[^"]+\.html)"', figures[0])
    assert [link.get("href") for link in tokens.iter("a")] == reports
    assert len(set(reports)) == 5


def test_what_happened_is_told_beside_the_windows(watched: Path) -> None:
    page = timeline(watched, watched / "reports", "tickets")
    assert page is not None
    assert "What happened" in page
    assert ">alert, retrain</text>" in page
    assert "accuracy" in page


def test_a_model_that_was_never_seen_has_no_page(watched: Path) -> None:
    assert timeline(watched, watched / "reports", "other") is None


def test_it_is_served_and_the_first_page_leads_to_it(watched: Path) -> None:
    reports = watched / "reports"
    with serve_pages(
        "127.0.0.1",
        0,
        Metrics(),
        reports,
        lambda: True,
        models=lambda: overview(watched, reports),
        timeline=lambda model: timeline(watched, reports, model),
    ) as address:
        first = httpx.get(address).text
        (link,) = set(re.findall(r'href="(/models/[^"]+)"', first))
        assert httpx.get(address + link).text.count("<h1>") == 1
        missing = httpx.get(f"{address}/models/%3Cscript%3E")
    assert (missing.status_code, "script" in missing.text) == (404, False)


def test_a_state_that_cannot_be_read_is_said_on_the_page(tmp_path: Path) -> None:
    def fails(model: str) -> str:
        raise OSError("the disk is <gone>")

    with serve_pages("127.0.0.1", 0, Metrics(), tmp_path, lambda: True, timeline=fails) as address:
        page = httpx.get(f"{address}/models/a").text
    assert "the disk is &lt;gone&gt;" in page


class TestChart:
    ENDS = ("2026-01-31 07:00, version 1", "2026-01-31 08:00, version 1")

    def test_everything_lies_within_it_whatever_the_values(self) -> None:
        for values in ([0.0], [1e-9, 1e-9], [-3.0, 1e6, 0.5], [0.2] * 120):
            points = tuple(Point(index, one, "x", low=one - 1, high=one + 1) for index, one in enumerate(values))
            marks = [Mark(-0.5, "alert"), Mark(len(values) - 0.5, "v2")]
            for one in svg(chart(Track("a < b", len(values), points, 0.1, self.ENDS), marks)).iter():
                assert all(0 <= float(one.get(name, 0)) <= WIDTH for name in ("x", "x1", "x2", "cx"))
                assert all(0 <= float(one.get(name, 0)) <= HEIGHT for name in ("y", "y1", "y2", "cy"))

    def test_nothing_is_drawn_of_nothing(self) -> None:
        assert chart(Track("label", 3, (), 0.1, self.ENDS)) == ""

    def test_higher_values_are_higher_up_and_above_the_threshold_is_above_its_line(self) -> None:
        points = (Point(0, 0.05, "low"), Point(1, 0.3, "high", bad=True))
        drawn = svg(chart(Track("label", 2, points, 0.1, self.ENDS, floor=0.0)))
        low, high = (float(one.get("cy", 0)) for one in drawn.iter() if "point" in one.get("class", ""))
        (limit,) = (float(one.get("y1", 0)) for one in drawn.iter() if one.get("class") == "limit")
        assert high < limit < low

    def test_words_of_marks_do_not_lie_on_each_other(self) -> None:
        points = tuple(Point(index, 0.1, "x") for index in range(40))
        drawn = svg(chart(Track("a", 40, points, None, self.ENDS), [Mark(20.5, "retrain"), Mark(21.5, "v2")]))
        words = [one.text for one in drawn.iter() if one.get("text-anchor") == "middle"]
        assert words == ["retrain"]
