"""``report.html``: one page that needs nothing else, no script, no font, no network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from string import Template

from export.card.plot import pareto_plot
from service.contract.bundle import Search
from service.contract.card.content import Card
from service.contract.card.tables import Table

_PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title: export report</title>
<style>
:root { --page: #fff; --ink: #1c1f23; --soft: #5c6570; --line: #d9dee4; --band: #f4f6f8; --mark: #e7f0fb;
  --accent: #1560bd; --limit: #b3261e; --warn: #fff6e0; --edge: #d39e00 }
@media (prefers-color-scheme: dark) {
  :root { --page: #14171a; --ink: #e4e7ea; --soft: #9aa4af; --line: #343b43; --band: #1d2226; --mark: #18304d;
    --accent: #6db0ff; --limit: #ff8a80; --warn: #2f2710; --edge: #b88a00 } }
* { box-sizing: border-box }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 68rem; margin: 0 auto; padding: 2rem 1rem 4rem;
  background: var(--page); color: var(--ink); overflow-wrap: break-word }
h1 { margin: 0 0 1rem; line-height: 1.2 } h2 { margin: 2.5rem 0 .5rem; font-size: 1.25rem }
p { margin: 0 0 .75rem; max-width: 46rem } .note, figcaption { color: var(--soft); font-size: .875rem }
.figures { display: flex; flex-wrap: wrap; gap: .75rem; margin: 0 0 1.5rem; padding: 0 }
.figures div { background: var(--band); border-radius: .5rem; padding: .6rem 1rem; flex: 1 1 9rem }
.figures dt { color: var(--soft); font-size: .8125rem; line-height: 1.35 }
.figures dd { margin: 0; font-size: 1.6rem; font-weight: 600; font-variant-numeric: tabular-nums }
.warnings { background: var(--warn); border-left: 4px solid var(--edge); border-radius: .25rem; margin: 1.5rem 0;
  padding: .75rem 1rem .25rem } .warnings h2 { margin: 0; font-size: 1rem } .warnings ul { margin: .25rem 0 .5rem;
  padding-left: 1.2rem }
.wide { overflow-x: auto; margin: 0 0 1rem }
table { border-collapse: collapse; font-size: .9375rem; font-variant-numeric: tabular-nums }
th, td { padding: .35rem .55rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top }
td.name { min-width: 11rem }
th { color: var(--soft); font-weight: 600; vertical-align: bottom } .r { text-align: right }
td.r { white-space: nowrap }
tr.marked td { background: var(--mark); font-weight: 600 }
figure { margin: 0 0 1rem; max-width: 40rem } svg { display: block; width: 100%; height: auto }
svg text { font: 13px system-ui, sans-serif; fill: var(--soft) } svg .place { fill: var(--ink) }
svg .chosen-place { fill: var(--accent); font-weight: 700 }
svg .axis, svg .grid { stroke: var(--line) } svg .grid { stroke-dasharray: 2 4 } svg .range { stroke: var(--soft) }
svg .even { stroke: var(--soft) } svg .limit { stroke: var(--limit); stroke-dasharray: 6 4 }
svg .limit-text { fill: var(--limit) } svg .front-line { fill: none; stroke: var(--accent); stroke-width: 1.5 }
svg .point { fill: var(--page); stroke: var(--soft); stroke-width: 1.5 }
svg .on-front { fill: var(--accent); stroke: var(--accent) }
svg .ring { fill: none; stroke: var(--accent); stroke-width: 2 }
</style></head><body>
<h1>$title</h1>
$body
</body></html>
""")


def as_html(card: Card, search: Search | None) -> str:
    """The page; with a search its candidates are also plotted."""
    parts = [_figures(card.headline), *(f"<p>{escape(sentence)}</p>" for sentence in card.sentences)]
    if card.warnings:
        parts.append(_warnings(card.warnings))
    if search is not None and search.candidates:
        parts.append(pareto_plot(search))
    parts += [_table(table) for table in card.tables]
    return _PAGE.substitute(title=escape(card.title), body="\n".join(parts))


def _figures(headline: Sequence[tuple[str, str]]) -> str:
    figures = "".join(f"<div><dd>{escape(figure)}</dd><dt>{escape(what)}</dt></div>" for figure, what in headline)
    return f'<dl class="figures">{figures}</dl>'


def _warnings(warnings: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(warning)}</li>" for warning in warnings)
    return f'<section class="warnings"><h2>Be careful</h2><ul>{items}</ul></section>'


def _table(table: Table) -> str:
    sides = [
        ' class="r"' if one == "r" else ' class="name"' if place < 2 else "" for place, one in enumerate(table.align)
    ]
    head = "".join(f"<th{side}>{escape(name)}</th>" for side, name in zip(sides, table.columns, strict=True))
    rows = []
    for place, row in enumerate(table.rows):
        cells = "".join(f"<td{side}>{escape(cell)}</td>" for side, cell in zip(sides, row, strict=True))
        mark = ' class="marked"' if place in table.marked else ""
        rows.append(f"<tr{mark}>{cells}</tr>")
    note = f'<p class="note">{escape(table.note)}</p>\n' if table.note else ""
    body = "\n".join(rows)
    return f'<h2>{escape(table.title)}</h2>\n{note}<div class="wide"><table><tr>{head}</tr>\n{body}\n</table></div>'
