"""Line charts as inline SVG. Colours come from the page's style sheet, so that they follow it into the dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 400, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 22, 24, 44
MOST_SERIES = 4
STYLE = """\
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1rem 2rem }
figure { margin: 0 } figure h3 { margin: .5rem 0 } figure svg { display: block; width: 100%; height: auto }
svg text { font: 12px system-ui, sans-serif; fill: var(--soft) } svg .axis { stroke: var(--soft) }
svg .grid { stroke: var(--line) } svg .limit { stroke: var(--limit); stroke-width: 1.5; stroke-dasharray: 6 4 }
svg .limit-text { fill: var(--limit) } svg path { fill: none; stroke-width: 2; stroke-linejoin: round }
:root { --s0: #1560bd; --s1: #b3541e; --s2: #1b6e3c; --s3: #7a3e9d }
@media (prefers-color-scheme: dark) { :root { --s0: #6db0ff; --s1: #f0a35e; --s2: #6fce91; --s3: #c99be8 } }
path.s0 { stroke: var(--s0) } path.s1 { stroke: var(--s1) } path.s2 { stroke: var(--s2) } path.s3 { stroke: var(--s3) }
circle.s0 { fill: var(--s0) } circle.s1 { fill: var(--s1) } circle.s2 { fill: var(--s2) } circle.s3 { fill: var(--s3) }
path.s1 { stroke-dasharray: 7 3 } path.s2 { stroke-dasharray: 2 3 } path.s3 { stroke-dasharray: 9 3 2 3 }
.key { list-style: none; display: flex; flex-wrap: wrap; gap: .1rem 1rem; margin: .25rem 0 0; padding: 0;
  font-size: .875rem } .key svg { display: inline-block; width: 1.75rem; height: .75rem; margin-right: .35rem }
"""


@dataclass(frozen=True)
class Series:
    """``points`` are (x, y), or (x, y, low, high) where there is an interval."""

    name: str
    points: Sequence[tuple[float, ...]]
    marked: bool = False


@dataclass(frozen=True)
class Scale:
    """From values to pixels; ``at`` are the ticks, with their words."""

    of: Callable[[float], float]
    low: float
    high: float
    start: float
    end: float
    at: Sequence[tuple[float, str]]

    def __call__(self, value: float) -> float:
        low, high = self.of(self.low), self.of(self.high)
        share = (self.of(min(max(value, self.low), self.high)) - low) / (high - low)
        return round(self.start + share * (self.end - self.start), 1)


def linear(highest: float, start: float, end: float) -> Scale:
    """From 0 to a round value."""
    highest = highest or 1.0
    power = 10 ** math.floor(math.log10(highest / 4))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor * 5 >= highest * (1 - 1e-9))
    count = math.ceil(highest / step - 1e-9)
    return Scale(
        lambda value: value, 0, count * step, start, end, [(i * step, f"{i * step:,.6g}") for i in range(count + 1)]
    )


def logarithmic(lowest: float, highest: float, start: float, end: float) -> Scale:
    """Ticks at 1, 2 and 5 times the powers of ten, or at these alone where they are many."""
    low = _round_down(lowest)
    high = max(_round_up(highest), low * 10)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if high / low <= 1000 else (1,)
    ticks = [factor * 10.0**power for power in powers for factor in factors]
    at = [(tick, f"{tick:,.6g}") for tick in ticks if low * 0.999 <= tick <= high * 1.001]
    return Scale(math.log10, low, high, start, end, at)


def percentiles(highest: float, start: float, end: float) -> Scale:
    """Each nine as wide as the one before it, from the median on."""
    at = [(0.5, "50"), (0.9, "90"), (0.99, "99"), (0.999, "99.9"), (0.9999, "99.99")]
    return Scale(
        lambda share: -math.log10(1 - share), 0.5, highest, start, end, [one for one in at if one[0] <= highest + 1e-9]
    )


def across(scale: Callable[..., Scale], *values: float) -> Scale:
    """A scale of the horizontal axis."""
    return scale(*values, _LEFT, WIDTH - _RIGHT)


def upwards(scale: Callable[..., Scale], *values: float) -> Scale:
    """A scale of the vertical axis."""
    return scale(*values, HEIGHT - _BOTTOM, _TOP)


def chart(
    title: str,
    units: tuple[str, str],
    scales: tuple[Scale, Scale],
    series: Sequence[Series],
    note: str = "",
    limit: float | None = None,
) -> str:
    """A ``figure`` of at most ``MOST_SERIES`` lines, with a key.

    :param units: what is across and what is upwards. :param limit: a line across, at this height.
    """
    x, y = scales
    parts = [*_frame(x, y, units)]
    if limit is not None and y.low <= limit <= y.high:
        parts.append(f'<line class="limit" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y(limit)}" y2="{y(limit)}"/>')
        parts.append(f'<text class="limit-text" x="{_LEFT + 5}" y="{y(limit) - 5}">objective</text>')
    for number, one in enumerate(series):
        parts += _line(number, one, x, y)
    keys = "".join(
        f'<li><svg viewBox="0 0 28 12" aria-hidden="true"><path class="s{number}" d="M0 6H28"/></svg>'
        f"{escape(one.name)}</li>"
        for number, one in enumerate(series)
    )
    words = (
        f"{title}: {units[1]} against {units[0]}, of {', '.join(one.name for one in series)}. Tables have the figures."
    )
    return (
        f'<figure><h3>{escape(title)}</h3><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(words)}">\n'
        + "\n".join(parts)
        + f'\n</svg><ul class="key">{keys}</ul>'
        + (f"<figcaption>{escape(note)}</figcaption>" if note else "")
        + "</figure>"
    )


def _frame(x: Scale, y: Scale, units: tuple[str, str]) -> list[str]:
    parts = [f'<text x="2" y="12">{escape(units[1])}</text>']
    for value, said in y.at:
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y(value)}" y2="{y(value)}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y(value) + 4}" text-anchor="end">{said}</text>')
    for value, said in x.at:
        parts.append(f'<text x="{x(value)}" y="{HEIGHT - _BOTTOM + 17}" text-anchor="middle">{said}</text>')
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y.start}" y2="{y.start}"/>')
    parts.append(
        f'<text x="{(_LEFT + WIDTH - _RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(units[0])}</text>'
    )
    return parts


def _line(number: int, one: Series, x: Scale, y: Scale) -> list[str]:
    known = [point for point in one.points if all(map(math.isfinite, point[:2]))]
    path = "".join(f"{'L' if place else 'M'}{x(point[0])} {y(point[1])}" for place, point in enumerate(known))
    parts = [f'<path class="s{number}" d="{path}"/>'] if len(known) > 1 else []
    for point in known:
        if len(point) == 4:
            low, high = (y(end) if math.isfinite(end) else y.end for end in point[2:])
            parts.append(
                f'<path class="s{number}" style="stroke-dasharray:none;stroke-width:1" '
                f'd="M{x(point[0])} {low}V{high}"/>'
            )
        if one.marked or len(known) == 1:
            parts.append(f'<circle class="s{number}" cx="{x(point[0])}" cy="{y(point[1])}" r="3.5"/>')
    return parts


def _round_down(value: float) -> float:
    power: float = 10.0 ** math.floor(math.log10(value))
    return max(factor * power for factor in (1, 2, 5) if factor * power <= value * 1.0001)


def _round_up(value: float) -> float:
    power: float = 10.0 ** math.floor(math.log10(value))
    return min(factor * power for factor in (1, 2, 5, 10) if factor * power >= value * 0.9999)
