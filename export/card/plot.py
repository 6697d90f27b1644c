"""The Pareto plot of a search as inline SVG: time across, accuracy upwards, both with their intervals.

Colours come from the page's style sheet, so that the plot follows it into the dark. Points bear their number in the
table of candidates rather than their names, which would not fit on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from service.card.facts import ranked
from service.contract.bundle import Candidate, Search

WIDTH, HEIGHT = 480, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 14, 48
_DEEPEST = 6.0  # in tolerances: what lost more is drawn at the lower edge, or it would flatten all others
_LEAST_DEPTH = 3.0
_CHARACTER, _LINE = 7.5, 13.0  # about what a digit takes at 13 px


@dataclass(frozen=True)
class Axis:
    """A linear axis: values from ``low`` to ``high`` lie between the pixels ``start`` and ``end``."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self, most: int = 6) -> list[float]:
        """Round values within the axis: steps of 1, 2 or 5 times a power of ten."""
        rough = (self.high - self.low) / most
        power = 10 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(count * step, 10) for count in range(first, last + 1)]


@dataclass(frozen=True)
class Box:
    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        """The area that both cover."""
        wide = min(self.right, other.right) - max(self.left, other.left)
        high = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(wide, 0.0) * max(high, 0.0)


def pareto_plot(search: Search) -> str:
    """A ``figure`` with the plot and how to read it."""
    order = ranked(search)
    across, upwards = axes(search)
    points = [(across(one.p50_ms), upwards(one.difference)) for one in order]
    parts = [
        _frame(across, upwards, search.metric),
        _levels(search, across, upwards),
        _front(order, across, upwards),
        *(_whiskers(one, across, upwards) for one in order),
        *(_point(rank, one, across, upwards) for rank, one in sorted(enumerate(order, 1), key=lambda it: it[1].chosen)),
        *(
            f'<text class="{"chosen-rank" if one.chosen else "rank"}" x="{box.left:.1f}" y="{box.bottom - 3:.1f}">'
            f"{rank}</text>"
            for rank, (one, box) in enumerate(zip(order, place_labels(points), strict=True), 1)
        ),
    ]
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="plot-title plot-text">\n'
        f'<title id="plot-title">Time and accuracy of {len(order)} candidates</title>\n'
        f'<desc id="plot-text">{escape(_in_words(search, order))}</desc>\n'
        + "\n".join(parts)
        + "\n</svg>\n<figcaption>Each point is a candidate with its number in the table below. Filled: on the front; "
        "ringed: chosen; a triangle lost more than the plot shows. Whiskers reach down to the one-sided 95 % bound and "
        "across the 95 % interval of the median.</figcaption></figure>"
    )


def axes(search: Search) -> tuple[Axis, Axis]:
    """Milliseconds from 0 to the slowest, and points down to the lowest bound or what is the deepest shown."""
    slowest = max(max(one.p50_ms, one.p50_range_ms[1]) for one in search.candidates)
    deepest = -max(_LEAST_DEPTH, _DEEPEST * search.max_drop)
    low = max(deepest, min(-1.2 * search.max_drop, *(one.lower_bound for one in search.candidates)))
    high = max(0.0, *(one.difference for one in search.candidates))
    room = 0.06 * (high - low) or 0.1
    return (
        Axis(0.0, 1.05 * slowest or 1.0, _LEFT, WIDTH - _RIGHT),
        Axis(low - room, high + room, HEIGHT - _BOTTOM, _TOP),
    )


def place_labels(points: Sequence[tuple[float, float]]) -> list[Box]:
    """A box for the number of each point, from 1, where it covers other points and numbers least."""
    taken = [Box(x - 6, y - 6, x + 6, y + 6) for x, y in points]
    placed = []
    for rank, (x, y) in enumerate(points, 1):
        wide = _CHARACTER * len(str(rank))
        right, left, above, below = x + 8, x - 8 - wide, y - 7 - _LINE, y + 7
        middle = (x - wide / 2, y - _LINE / 2)
        corners = (
            (right, above + 3),
            (left, above + 3),
            (right, below - 3),
            (left, below - 3),
            (middle[0], above),
            (middle[0], below),
            (right, middle[1]),
            (left, middle[1]),
        )
        boxes = [Box(one, top, one + wide, top + _LINE) for one, top in corners]
        inside = Box(_LEFT, 0, WIDTH, HEIGHT - _BOTTOM)
        best = min(boxes, key=lambda box: sum(map(box.overlap, taken)) + wide * _LINE - box.overlap(inside))
        taken.append(best)
        placed.append(best)
    return placed


def _in_words(search: Search, order: Sequence[Candidate]) -> str:
    best = next((one for one in order if one.chosen), None)
    said = f"From {order[0].p50_ms:.2f} to {order[-1].p50_ms:.2f} milliseconds on {search.rows} search rows."
    if best is None:
        return said
    return (
        f"{said} Chosen: {best.name}, {best.p50_ms:.2f} milliseconds, {best.difference:+.2f} points of "
        f"{search.metric}, at least {best.lower_bound:+.2f}; {search.max_drop:g} may be lost."
    )


def _frame(across: Axis, upwards: Axis, metric: str) -> str:
    lines = []
    for tick in across.ticks():
        x = across(tick)
        lines.append(f'<line class="grid" x1="{x}" y1="{_TOP}" x2="{x}" y2="{HEIGHT - _BOTTOM}"/>')
        lines.append(f'<text x="{x}" y="{HEIGHT - _BOTTOM + 18}" text-anchor="middle">{tick:g}</text>')
    for tick in upwards.ticks():
        y = upwards(tick)
        lines.append(f'<line class="grid" x1="{_LEFT}" y1="{y}" x2="{WIDTH - _RIGHT}" y2="{y}"/>')
        lines.append(f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{f"{tick:+g}" if tick else "0"}</text>')
    bottom, middle, centre = HEIGHT - _BOTTOM, (HEIGHT - _BOTTOM + _TOP) / 2, (_LEFT + WIDTH - _RIGHT) / 2
    lines += [
        f'<path class="axis" fill="none" d="M{_LEFT} {_TOP}V{bottom}H{WIDTH - _RIGHT}"/>',
        f'<text x="{centre}" y="{HEIGHT - 8}" text-anchor="middle">p50, milliseconds per text</text>',
        f'<text transform="translate(13 {middle}) rotate(-90)" text-anchor="middle">points of {escape(metric)}</text>',
    ]
    return "\n".join(lines)


def _levels(search: Search, across: Axis, upwards: Axis) -> str:
    """The checkpoint's accuracy and what may be lost of it."""
    even, limit = upwards(0.0), upwards(-search.max_drop)
    return (
        f'<line class="even" x1="{_LEFT}" y1="{even}" x2="{WIDTH - _RIGHT}" y2="{even}"/>\n'
        f'<text x="{_LEFT + 4}" y="{even - 4}">checkpoint</text>\n'
        f'<line class="limit" x1="{_LEFT}" y1="{limit}" x2="{WIDTH - _RIGHT}" y2="{limit}"/>\n'
        f'<text class="limit-text" x="{_LEFT + 4}" y="{limit + 14}">allowed: -{search.max_drop:g}</text>'
    )


def _front(order: Sequence[Candidate], across: Axis, upwards: Axis) -> str:
    """Steps: at each time the best accuracy to be had by then."""
    front = [one for one in order if one.front]
    if len(front) < 2:
        return ""
    steps = [f"M{across(front[0].p50_ms)} {upwards(front[0].difference)}"]
    steps += [f"H{across(one.p50_ms)}V{upwards(one.difference)}" for one in front[1:]]
    return f'<path class="front-line" d="{"".join(steps)}"/>'


def _whiskers(one: Candidate, across: Axis, upwards: Axis) -> str:
    x, y = across(one.p50_ms), upwards(one.difference)
    left, right = map(across, one.p50_range_ms)
    return f'<path class="range" d="M{x} {y}V{upwards(one.lower_bound)}M{left} {y}H{right}"/>'


def _point(rank: int, one: Candidate, across: Axis, upwards: Axis) -> str:
    x, y = across(one.p50_ms), upwards(one.difference)
    kind = "point on-front" if one.front else "point"
    if one.difference < upwards.low:
        shape = f'<path class="{kind}" d="M{x - 5} {y - 9}H{x + 5}L{x} {y}Z"/>'
    else:
        shape = f'<circle class="{kind}" cx="{x}" cy="{y}" r="4"/>'
    ring = f'<circle class="ring" cx="{x}" cy="{y}" r="8"/>' if one.chosen else ""
    said = (
        f"{rank}. {one.name}: {one.p50_ms:.2f} ms ({one.p50_range_ms[0]:.2f} to {one.p50_range_ms[1]:.2f}), "
        f"{one.difference:+.2f} points, at least {one.lower_bound:+.2f}"
    )
    return f"<g><title>{escape(said)}</title>{shape}{ring}</g>"
