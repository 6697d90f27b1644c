"""Values of one window after another as inline SVG: with a threshold, intervals, and what happened in between.

Colours come from the page's style sheet, so that a chart follows it into the dark. Windows are as far apart as each
other, however long they took: how much was answered counts, not how fast.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 480, 132
_LEFT, _RIGHT, _TOP, _BOTTOM = 42, 8, 24, 20
_RADIUS = 3.2

STYLE = """\
.track { margin: 0 0 1.25rem; max-width: 56rem } .track svg { width: 100%; height: auto; display: block }
.track text { font: 13px system-ui, sans-serif; fill: var(--soft) } .track .title { fill: var(--ink); font-weight: 600 }
.track .axis { stroke: var(--line) } .track .limit { stroke: var(--soft); stroke-dasharray: 4 3 }
.track .mark { stroke: var(--edge); stroke-dasharray: 2 2 } .track .range { stroke: var(--accent); opacity: .45 }
.track .point { fill: var(--accent); stroke: var(--accent); stroke-width: 1.4 } .track .bad { fill: var(--limit);
  stroke: var(--limit) } .track .hollow { fill: var(--page) } .track a:focus-visible .point { stroke-width: 4 }
"""


@dataclass(frozen=True)
class Point:
    """A value of the window ``index``, with what a pointer shows of it and where it leads."""

    index: int
    value: float
    said: str
    href: str | None = None
    low: float | None = None
    high: float | None = None
    bad: bool = False
    hollow: bool = False
    square: bool = False


@dataclass(frozen=True)
class Mark:
    """Something that happened at a place among the windows, in a word."""

    at: float
    said: str


@dataclass(frozen=True)
class Track:
    """What one chart shows: ``count`` windows, a threshold if there is one, and how the first and last are called.

    :param floor: the lowest value in sight, if not the lowest there is. :param least: how much is in sight at least.
    """

    title: str
    count: int
    points: tuple[Point, ...]
    limit: float | None
    ends: tuple[str, str]
    floor: float | None = None
    least: float = 0.05


def chart(track: Track, marks: Sequence[Mark] = ()) -> str:
    """A ``figure``; of one that has no point, nothing."""
    if not track.points:
        return ""
    low, high = _range(track)

    def across(index: float) -> float:
        return round(_LEFT + (index + 0.5) * (WIDTH - _LEFT - _RIGHT) / track.count, 1)

    def upwards(value: float) -> float:
        share = (min(max(value, low), high) - low) / (high - low)
        return round(HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM), 1)

    parts = [
        f'<text class="title" x="{_LEFT}" y="12">{escape(track.title)}</text>',
        *(_level(value, upwards(value)) for value in (low, (low + high) / 2, high)),
        *_marks(marks, across),
    ]
    if track.limit is not None:
        at = upwards(track.limit)
        parts.append(f'<line class="limit" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at}" y2="{at}"/>')
    for one in track.points:
        if one.low is not None and one.high is not None:
            ends = f'y1="{upwards(one.low)}" y2="{upwards(one.high)}"'
            parts.append(f'<line class="range" x1="{across(one.index)}" x2="{across(one.index)}" {ends}/>')
        parts.append(_point(one, across(one.index), upwards(one.value)))
    first, last = (escape(end.partition(",")[0]) for end in track.ends)
    parts.append(f'<text x="{_LEFT}" y="{HEIGHT - 4}">{first}</text>')
    if track.count > 1:
        parts.append(f'<text x="{WIDTH - _RIGHT}" y="{HEIGHT - 4}" text-anchor="end">{last}</text>')
    label = escape(f"{track.title}, {track.count} windows from {track.ends[0]} to {track.ends[1]}")
    return (
        f'<figure class="track"><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="group" aria-label="{label}">\n'
        + "\n".join(parts)
        + "\n</svg></figure>"
    )


def _range(track: Track) -> tuple[float, float]:
    values = [value for one in track.points for value in (one.value, one.low, one.high) if value is not None]
    values += [] if track.limit is None else [track.limit]
    low, high = min(values) if track.floor is None else track.floor, max(values)
    lacking = max(0.0, track.least - (high - low))
    return (low - lacking / 2, high + lacking / 2) if track.floor is None else (low, high + lacking)


def _level(value: float, at: float) -> str:
    line = f'<line class="axis" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at}" y2="{at}"/>'
    return f'{line}<text x="{_LEFT - 5}" y="{at + 4}" text-anchor="end">{value:.2f}</text>'


def _marks(marks: Sequence[Mark], across: Callable[[float], float]) -> list[str]:
    """A line for each place with the words there, unless they would lie on others."""
    words: dict[float, list[str]] = {}
    for mark in sorted(marks, key=lambda one: one.said):
        words.setdefault(across(mark.at), []).append(mark.said)
    found, last = [], -WIDTH * 1.0
    for at, together in sorted(words.items()):
        said = ", ".join(dict.fromkeys(together))
        found.append(f'<line class="mark" x1="{at}" x2="{at}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}"/>')
        if at - last > 8.0 * len(said) and at > _LEFT + 100:  # beside the title and the word before it
            anchor = "end" if at + 4.0 * len(said) > WIDTH else "middle"
            found.append(f'<text x="{at}" y="{_TOP - 4}" text-anchor="{anchor}">{escape(said)}</text>')
            last = at
    return found


def _point(one: Point, x: float, y: float) -> str:
    kind = " ".join(["point", *(["bad"] if one.bad else []), *(["hollow"] if one.hollow else [])])
    size = round(1.8 * _RADIUS, 1)
    shape = (
        f'<rect class="{kind}" x="{x - size / 2:.1f}" y="{y - size / 2:.1f}" width="{size}" height="{size}">'
        if one.square
        else f'<circle class="{kind}" cx="{x}" cy="{y}" r="{_RADIUS}">'
    )
    drawn = f"{shape}<title>{escape(one.said)}</title></{'rect' if one.square else 'circle'}>"
    return drawn if one.href is None else f'<a href="{escape(one.href)}" aria-label="{escape(one.said)}">{drawn}</a>'
