"""The dashboards as files: they are what their builder makes, and name only what exists."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from tests.stack.test_rules import declared_series

ROOT = Path(__file__).parents[2]
BUILDER = runpy.run_path(str(ROOT / "helm" / "build_dashboards.py"))
FILES = {name: ROOT / "helm" / "plumbline" / "dashboards" / f"{name}.json" for name in ("serving", "drift")}


def panels(name: str) -> list[dict[str, Any]]:
    return [panel for panel in json.loads(FILES[name].read_text())["panels"] if panel["type"] != "row"]


def queries(name: str) -> str:
    board = json.loads(FILES[name].read_text())
    found = [target["expr"] for panel in panels(name) for target in panel["targets"]]
    return "\n".join([*found, *(one["expr"] for one in board["annotations"]["list"])])


@pytest.mark.parametrize("name", FILES)
def test_a_dashboard_is_what_its_builder_makes(name: str) -> None:
    assert FILES[name].read_text() == BUILDER["as_json"](BUILDER[name]()), "run python helm/build_dashboards.py"


@pytest.mark.parametrize("name", FILES)
def test_every_metric_that_a_dashboard_names_exists(name: str) -> None:
    for metric in re.findall(r"\bplumbline_\w+", queries(name)):
        assert metric in declared_series(), metric


def test_every_metric_is_on_a_dashboard_or_it_is_said_why_not() -> None:
    shown = queries("serving") + queries("drift")
    families = {re.sub(r"_(total|bucket|count|sum)$", "", series) for series in declared_series()}
    hidden = {family for family in families if not re.search(rf"\b{family}(_total|_bucket|_count|_sum)?\b", shown)}
    assert hidden == set(BUILDER["LEFT_OUT"])


@pytest.mark.parametrize("name", FILES)
def test_every_panel_says_what_it_shows_in_which_unit_and_where_to_read_on(name: str) -> None:
    for panel in panels(name):
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["fieldConfig"]["defaults"]["noValue"] == "no data"
        assert [link["url"] for link in panel["links"]] == [BUILDER["RUNBOOK"]]
    assert (ROOT / BUILDER["RUNBOOK"]).exists()


@pytest.mark.parametrize("name", FILES)
def test_rates_are_taken_over_the_interval_that_is_drawn(name: str) -> None:
    for panel in panels(name):
        for target in panel["targets"]:
            if panel["type"] == "timeseries":
                assert re.findall(r"\brate\([^[]*\[([^]]+)\]", target["expr"]) in (
                    [],
                    *[["$__rate_interval"] * n for n in (1, 2)],
                )
            assert not re.search(r"_sum\b.*/.*_count\b", target["expr"]), "a mean over the lifetime hides what is new"


@pytest.mark.parametrize("name", FILES)
def test_panels_do_not_overlap(name: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(FILES[name].read_text())["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
