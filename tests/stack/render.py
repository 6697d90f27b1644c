"""Draws a dashboard's JSON with a Prometheus's answers: a picture of what Grafana shows, where there is no Grafana.

Layout, titles, units, thresholds, stacking, dashes and annotations are the file's; how lines and letters look is not.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from playwright.sync_api import sync_playwright

COLUMN, LINE, GAP = 66, 38, 6
COLOURS = ["#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#f2495c", "#b877d9", "#8ab8ff", "#37872d", "#fade2a", "#c4162a"]
NAMED = {
    "green": "#299c46",
    "yellow": "#c58b00",
    "red": "#d44a3a",
    "blue": "#3274d9",
    "purple": "#a352cc",
    "orange": "#ff780a",
}

_STYLE = """
body { margin: 0; background: #111217; color: #d8d9da; font: 13px 'DejaVu Sans', sans-serif }
header { padding: 14px 12px 8px; font-size: 20px } header small { color: #9a9ba0; font-size: 13px; margin-left: 14px }
main { position: relative; width: 1596px; margin: 0 6px }
section { position: absolute; background: #181b1f; border: 1px solid #2c2f36; border-radius: 3px;
  box-sizing: border-box; overflow: hidden }
section > h2 { font-size: 13px; font-weight: 600; margin: 0; padding: 7px 10px 3px; white-space: nowrap }
h1 { position: absolute; margin: 0; font-size: 15px; line-height: 38px; color: #b7b8bd }
.number { position: absolute; inset: 0; display: flex; align-items: center; justify-content: center; font-size: 34px;
  font-weight: 600; color: #fff; padding-top: 20px } .number + h2 { position: relative; color: #fff }
.legend { position: absolute; left: 10px; right: 10px; bottom: 5px; font-size: 11px; color: #b7b8bd; line-height: 17px;
  max-height: 34px; overflow: hidden }
.legend i { display: inline-block; width: 13px; height: 3px; margin: 0 5px 3px 0; vertical-align: middle }
.legend span { margin-right: 13px; white-space: nowrap } .none { text-align: center; color: #8e9096; padding-top: 70px }
svg { position: absolute; left: 0; top: 28px } text { fill: #9a9ba0; font-size: 11px }
"""


class Recording(Protocol):
    start: float
    end: float

    def instant(self, query: str) -> list[dict[str, Any]]: ...
    def over_time(self, query: str) -> list[dict[str, Any]]: ...


@dataclass
class Line:
    name: str
    points: list[tuple[float, float]]
    dashed: bool
    colour: str = ""


def draw(board: dict[str, Any], recording: Any, target: Path, fill: Callable[[str], str]) -> Path:
    """Write a PNG of the whole dashboard to ``target``; ``fill`` puts values for the variables of a query."""
    marks = [
        (when, NAMED[one["iconColor"]])
        for one in board["annotations"]["list"]
        for series in recording.over_time(fill(one["expr"]))
        for when in [series["values"][0][0]]
    ]
    panels = [_panel(panel, recording, fill, marks) for panel in board["panels"]]
    bottom = max(one["gridPos"]["y"] + one["gridPos"]["h"] for one in board["panels"])
    span = " to ".join(
        datetime.fromtimestamp(one, UTC).strftime("%H:%M:%S") for one in (recording.start, recording.end)
    )
    legend = "".join(
        f"<small><span style='color:{NAMED[one['iconColor']]}'>┊</span> {html.escape(one['name'])}</small>"
        for one in board["annotations"]["list"]
    )
    page = (
        f"<!doctype html><meta charset=utf-8><style>{_STYLE}</style>"
        f"<header>{html.escape(board['title'])}<small>{span}</small>{legend}</header>"
        f"<main style='height:{bottom * LINE + 10}px'>{''.join(panels)}</main>"
    )
    with sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path="/usr/bin/chromium",
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        view = browser.new_page(viewport={"width": 1608, "height": 1000})
        view.set_content(page)
        view.screenshot(path=target, full_page=True)
        browser.close()
    return target


def _panel(
    panel: dict[str, Any], recording: Any, fill: Callable[[str], str], marks: Sequence[tuple[float, str]]
) -> str:
    place = panel["gridPos"]
    left, top = place["x"] * COLUMN, place["y"] * LINE
    if panel["type"] == "row":
        return f"<h1 style='left:4px;top:{top}px'>▾ {html.escape(panel['title'])}</h1>"
    width, height = place["w"] * COLUMN - GAP, place["h"] * LINE - GAP
    title = html.escape(panel["title"])
    body = (
        _number(panel, recording, fill) + f"<h2>{title}</h2>"
        if panel["type"] == "stat"
        else f"<h2>{title}</h2>" + _chart(panel, recording, fill, marks, width, height)
    )
    return f"<section style='left:{left}px;top:{top}px;width:{width}px;height:{height}px'>{body}</section>"


def _number(panel: dict[str, Any], recording: Any, fill: Callable[[str], str]) -> str:
    target = panel["targets"][0]
    found = recording.instant(fill(target["expr"]))
    defaults = panel["fieldConfig"]["defaults"]
    if not found:
        return f"<div class=number style='background:#3a3d44'>{html.escape(defaults['noValue'])}</div>"
    value = float(found[0]["value"][1])
    colour = next(
        one["color"]
        for one in reversed(defaults["thresholds"]["steps"])
        if one["value"] is None or value >= one["value"]
    )
    words = show(value, defaults["unit"])
    for mapping in defaults.get("mappings", []):
        if mapped := mapping["options"].get(f"{value:g}"):
            words, colour = mapped["text"], mapped["color"]
    if panel["options"]["textMode"] == "name":
        words = ", ".join(_name(target["legendFormat"], one["metric"]) for one in found)
    return f"<div class=number style='background:{NAMED[colour]}'>{html.escape(words)}</div>"


def _chart(
    panel: dict[str, Any],
    recording: Any,
    fill: Callable[[str], str],
    marks: Sequence[tuple[float, str]],
    width: int,
    height: int,
) -> str:
    defaults = panel["fieldConfig"]["defaults"]
    dashed = {
        one["matcher"]["options"]
        for one in panel["fieldConfig"].get("overrides", [])
        if any(part["id"] == "custom.lineStyle" for part in one["properties"])
    }
    lines = [
        Line(
            _name(target["legendFormat"], series["metric"]),
            [(float(when), float(value)) for when, value in series["values"] if value not in ("NaN", "+Inf", "-Inf")],
            target["refId"] in dashed,
        )
        for target in panel["targets"]
        for series in recording.over_time(fill(target["expr"]))
    ]
    lines = [line for line in lines if line.points]
    if not lines:
        return f"<div class=none>{html.escape(defaults['noValue'])}</div>"
    for place, line in enumerate(lines):
        line.colour = COLOURS[place % len(COLOURS)]
    stacked = defaults.get("custom", {}).get("stacking", {}).get("mode") == "normal"
    drawn = _stacked(lines) if stacked else [(line, line.points, None) for line in lines]
    values = [value for _, points, _ in drawn for _, value in points]
    low = min(defaults.get("min", min(values)), *values)
    high = min(max(values), defaults.get("max", math.inf))
    if low >= high:  # all the same
        low, high = (low, low + 1) if "max" not in defaults or low == 0 else (high - 1, high)
    low, high, step = _axis(low, high)
    right, bottom = width - 12, height - 28 - 62
    unit = defaults["unit"]

    def x(when: float) -> float:
        return 62 + (when - recording.start) / (recording.end - recording.start) * (right - 62)

    def y(value: float) -> float:
        return bottom - (value - low) / (high - low) * (bottom - 8)

    parts = []
    for number in range(round((high - low) / step) + 1):
        value = low + number * step
        parts.append(f"<line x1='62' x2='{right}' y1='{y(value):.1f}' y2='{y(value):.1f}' stroke='#2c2f36'/>")
        parts.append(f"<text x='56' y='{y(value) + 4:.1f}' text-anchor='end'>{show(value, unit)}</text>")
    for number in range(5):
        when = recording.start + (recording.end - recording.start) * number / 4
        clock = datetime.fromtimestamp(when, UTC).strftime("%H:%M:%S")
        anchor = "start" if number == 0 else "end" if number == 4 else "middle"
        parts.append(f"<text x='{x(when):.1f}' y='{bottom + 16}' text-anchor='{anchor}'>{clock}</text>")
    for when, colour in marks:
        ends = f"x1='{x(when):.1f}' x2='{x(when):.1f}' y1='4' y2='{bottom}'"
        parts.append(f"<line {ends} stroke='{colour}' stroke-dasharray='2 4'/>")
    for line, points, floor in drawn:
        path = " ".join(f"{x(when):.1f},{y(value):.1f}" for when, value in points)
        if floor is not None:
            back = " ".join(f"{x(when):.1f},{y(value):.1f}" for when, value in reversed(floor))
            parts.append(f"<polygon points='{path} {back}' fill='{line.colour}' fill-opacity='.25'/>")
        style = "stroke-width='1.3' stroke-dasharray='8 6'" if line.dashed else "stroke-width='2'"
        parts.append(f"<polyline points='{path}' fill='none' stroke='{line.colour}' {style}/>")
    legend = "".join(f"<span><i style='background:{line.colour}'></i>{html.escape(line.name)}</span>" for line in lines)
    return f"<svg width='{width}' height='{height - 28}'>{''.join(parts)}</svg><div class=legend>{legend}</div>"


def _stacked(lines: Sequence[Line]) -> list[tuple[Line, list[tuple[float, float]], list[tuple[float, float]] | None]]:
    """Each line on top of those before it, with the floor that it stands on; top first, so that none is hidden."""
    times = sorted({when for line in lines for when, _ in line.points})
    floor = dict.fromkeys(times, 0.0)
    drawn = []
    for line in lines:
        known = dict(line.points)
        top = {when: floor[when] + known.get(when, 0.0) for when in times}
        drawn.append((line, list(top.items()), list(floor.items())))
        floor = top
    return drawn[::-1]  # type: ignore[return-value]


def _axis(low: float, high: float) -> tuple[float, float, float]:
    """Round ends and step of an axis with about five lines."""
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    return math.floor(low / step) * step, math.ceil(high / step - 1e-6) * step, step


def _name(template: str, labels: dict[str, str]) -> str:
    if template == "__auto":
        return ", ".join(labels.values()) or "value"
    for key, value in labels.items():
        template = template.replace("{{" + key + "}}", value)
    return template.replace("{{", "").replace("}}", "")


def show(value: float, unit: str) -> str:
    """A value as Grafana writes it in this unit."""
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "s":
        if abs(value) >= 3600:
            return f"{value / 3600:.3g} h"
        if abs(value) >= 60:
            return f"{value / 60:.3g} min"
        return f"{value:.3g} s" if abs(value) >= 1 or value == 0 else f"{value * 1000:.3g} ms"
    large = next(
        ((size, letter) for size, letter in ((1e9, " B"), (1e6, " M"), (1e3, " K")) if abs(value) >= size), (1, "")
    )
    words = f"{value / large[0]:.3g}{large[1]}"
    return words + {"reqps": " req/s", "ops": " /s"}.get(unit, "")
