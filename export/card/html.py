"""``report.html``: one page that needs nothing else, no script, no font, no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import pyarrow as pa

from export.card.plot import pareto_plot
from service.card.content import Card
from service.card.page import figures, page, table
from service.card.tables import Table
from service.contract.bundle import Manifest
from service.contract.inputs import input_of, joined
from service.tasks import Task

_STYLE = """\
figure { margin: 0 0 1rem; max-width: 40rem } svg { display: block; width: 100%; height: auto }
svg text { font: 13px system-ui, sans-serif; fill: var(--soft) } svg .rank { fill: var(--ink) }
svg .chosen-rank { fill: var(--accent); font-weight: 700 }
svg .axis, svg .grid { stroke: var(--line) } svg .grid { stroke-dasharray: 2 4 } svg .range { stroke: var(--soft) }
svg .even { stroke: var(--soft) } svg .limit { stroke: var(--limit); stroke-dasharray: 6 4 }
svg .limit-text { fill: var(--limit) } svg .front-line { fill: none; stroke: var(--accent); stroke-width: 1.5 }
svg .point { fill: var(--page); stroke: var(--soft); stroke-width: 1.5 }
svg .on-front { fill: var(--accent); stroke: var(--accent) }
svg .ring { fill: none; stroke: var(--accent); stroke-width: 2 }
"""
_EXAMPLES = 12
_LONGEST = 300  # characters of an example


@dataclass(frozen=True)
class Mistake:
    """A row of the reference that the model got wrong; its text is redacted."""

    text: str
    answered: str
    true: str
    confidence: float


def mistakes(reference: pa.Table, task: Task) -> list[Mistake]:
    """The rows of a reference table that were answered wrongly, the surest first."""
    columns = (reference.column(name).to_pylist() for name in ("text", "text_pair", "label", "target", "confidence"))
    found = [
        Mistake(joined(input_of(text or "", second)), label, target, confidence)
        for text, second, label, target, confidence in zip(*columns, strict=True)
        if target is not None and not task.correct([label], [target])[0]
    ]
    return sorted(found, key=lambda one: -one.confidence)


def as_html(card: Card, manifest: Manifest, wrong: Sequence[Mistake] = ()) -> str:
    """The page; with a search its candidates are also plotted."""
    parts = [f'<p class="note">Made {manifest.created:%Y-%m-%d %H:%M} UTC.</p>', figures(card.headline)]
    parts += [f"<p>{escape(sentence)}</p>" for sentence in card.sentences]
    if card.warnings:
        parts.append(_warnings(card.warnings))
    if manifest.search is not None and manifest.search.candidates:
        parts.append(pareto_plot(manifest.search))
    *judged, stages, sources = card.tables
    parts += [_table(table) for table in judged]
    if wrong:
        parts.append(_mistakes(wrong, manifest.reference.rows))
    parts += [_table(stages), _table(sources)]
    return page(f"{card.title}: export report", parts, heading=escape(card.title), style=_STYLE)


def _mistakes(wrong: Sequence[Mistake], rows: int) -> str:
    shown = [
        (
            escape(shortened(one.text)),
            escape(one.answered or "(none)"),
            escape(one.true or "(none)"),
            f"{one.confidence:.2f}",
        )
        for one in wrong[:_EXAMPLES]
    ]
    return (
        f'<h2>Where it is wrong</h2>\n<p class="note">{len(wrong)} of the {rows} reference rows; these are the surest '
        f"of them. Texts are redacted.</p>\n{table(('text', 'answered', 'true', 'confidence'), shown, right=[3])}"
    )


def shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _warnings(warnings: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(warning)}</li>" for warning in warnings)
    return f'<section class="warnings"><h2>Be careful</h2><ul>{items}</ul></section>'


def _table(shown: Table) -> str:
    sides = [
        ' class="r"' if one == "r" else ' class="name"' if column < 2 else "" for column, one in enumerate(shown.align)
    ]
    head = "".join(f"<th{side}>{escape(name)}</th>" for side, name in zip(sides, shown.columns, strict=True))
    rows = []
    for index, row in enumerate(shown.rows):
        cells = "".join(f"<td{side}>{escape(cell)}</td>" for side, cell in zip(sides, row, strict=True))
        mark = ' class="marked"' if index in shown.marked else ""
        rows.append(f"<tr{mark}>{cells}</tr>")
    note = f'<p class="note">{escape(shown.note)}</p>\n' if shown.note else ""
    body = "\n".join(rows)
    return f'<h2>{escape(shown.title)}</h2>\n{note}<div class="wide"><table><tr>{head}</tr>\n{body}\n</table></div>'
