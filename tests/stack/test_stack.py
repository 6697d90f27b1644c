"""A real Prometheus and Alertmanager beside a server and a monitor: dashboards have data, and an alert arrives."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.stack.render import draw
from tests.stack.scenario import NAME, Recorded, recorded

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "helm" / "plumbline" / "dashboards"
NEEDED = ("prometheus", "prometheus-alertmanager", "chromium")

pytestmark = [
    pytest.mark.platform,
    pytest.mark.timeout(600),
    pytest.mark.skipif(any(shutil.which(one) is None for one in NEEDED), reason=f"needs Debian's {', '.join(NEEDED)}"),
]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    with recorded(tmp_path_factory.mktemp("stack")) as found:
        yield found


def filled(query: str, model: str = ".*") -> str:
    """A panel's query with its variables filled in."""
    for variable, value in (("$__rate_interval", "15s"), ("$model", model), ("$version", ".*")):
        query = query.replace(variable, value)
    assert "$" not in query, query
    return query


def board(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return found


@pytest.mark.parametrize("name", ["serving", "drift"])
def test_every_query_of_every_panel_has_data(recording: Recorded, name: str) -> None:
    empty = []
    for panel in board(name)["panels"]:
        for target in panel.get("targets", []):
            query = filled(target["expr"])
            series = recording.instant(query) if target.get("instant") else recording.over_time(query)
            values = [value for one in series for _, value in one.get("values", [one.get("value")])]
            if not any(value != "NaN" for value in values):
                empty.append((panel["title"], query))
    assert empty == []


@pytest.mark.parametrize("name", ["serving", "drift"])
def test_what_happened_is_marked(recording: Recorded, name: str) -> None:
    for annotation in board(name)["annotations"]["list"]:
        assert recording.over_time(filled(annotation["expr"])), annotation["name"]


def test_the_alert_arrives_with_its_words(recording: Recorded) -> None:
    alert = next(one for one in recording.notified if one["labels"]["alertname"] == "PlumblineDrift")
    assert alert["labels"]["model"] == NAME
    assert alert["labels"]["severity"] == "warning"
    assert alert["annotations"]["summary"] == f"Requests to {NAME} have drifted"
    texts = [text for one in recording.notified for text in one["annotations"].values()]
    assert not [text for text in texts if "error" in text and "template" in text]


@pytest.mark.parametrize("name", ["serving", "drift"])
def test_it_can_be_drawn(recording: Recorded, name: str, tmp_path: Path) -> None:
    picture = draw(board(name), recording, tmp_path / f"{name}.png", fill=lambda query: filled(query, NAME))
    assert picture.stat().st_size > 50_000
    if os.environ.get("PLUMBLINE_WRITE_DOCS"):
        shutil.copyfile(picture, ROOT / "docs" / f"dashboard-{name}.png")
