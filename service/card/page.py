"""One face for every page: a small style sheet, light and dark, from 390 px up; no script, no font, no network."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from string import Template
from typing import Literal

Tone = Literal["good", "warn", "bad", "plain"]

_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Cpath d='M8 0v8' stroke='%231560bd' stroke-width='1.5'/%3E"
    "%3Cpath d='M5 8h6l-3 8z' fill='%231560bd'/%3E%3C/svg%3E"
)
STYLE = """\
:root { --page: #fff; --ink: #1c1f23; --soft: #56606b; --line: #d9dee4; --band: #f4f6f8; --mark: #e7f0fb;
  --accent: #1560bd; --limit: #b3261e; --warn: #fff6e0; --edge: #d39e00; --good: #1b6e3c; --on: #fff }
@media (prefers-color-scheme: dark) {
  :root { --page: #14171a; --ink: #e4e7ea; --soft: #a3adb8; --line: #343b43; --band: #1d2226; --mark: #18304d;
    --accent: #6db0ff; --limit: #ff8a80; --warn: #2f2710; --edge: #b88a00; --good: #6fce91; --on: #14171a } }
* { box-sizing: border-box }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 68rem; margin: 0 auto; padding: 1.5rem 1rem 4rem;
  background: var(--page); color: var(--ink); overflow-wrap: break-word }
header { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; align-items: baseline; margin: 0 0 1.5rem;
  border-bottom: 1px solid var(--line); padding-bottom: .75rem }
header strong { margin-right: auto } nav { display: flex; flex-wrap: wrap; gap: .25rem 1rem }
a { color: var(--accent) } :focus-visible { outline: 2px solid var(--accent); outline-offset: 2px }
h1 { margin: 0 0 1rem; line-height: 1.2; font-size: 1.75rem } h2 { margin: 2.5rem 0 .5rem; font-size: 1.25rem }
h3 { margin: 1.5rem 0 .5rem; font-size: 1rem }
p { margin: 0 0 .75rem; max-width: 46rem } .note, figcaption { color: var(--soft); font-size: .875rem }
code, pre { font: .875em/1.45 ui-monospace, monospace } pre { overflow-x: auto; background: var(--band);
  border-radius: .5rem; padding: .75rem 1rem }
.figures { display: flex; flex-wrap: wrap; gap: .75rem; margin: 0 0 1.5rem; padding: 0 }
.figures div { background: var(--band); border-radius: .5rem; padding: .6rem 1rem; flex: 1 1 9rem }
.figures dt { color: var(--soft); font-size: .8125rem; line-height: 1.35 }
.figures dd { margin: 0; font-size: 1.6rem; font-weight: 600; font-variant-numeric: tabular-nums }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: 0 0 1rem }
.facts dt { color: var(--soft) } .facts dd { margin: 0; overflow-wrap: anywhere }
.badge { display: inline-block; border: 1px solid currentColor; border-radius: 1rem; padding: 0 .6rem;
  font-size: .8125rem; font-weight: 600; white-space: nowrap; color: var(--soft) }
.badge.good { color: var(--good) } .badge.warn { color: var(--ink); background: var(--warn); border-color: var(--edge) }
.badge.bad { color: var(--on); background: var(--limit); border-color: var(--limit) }
.bad-text { color: var(--limit); font-weight: 600 }
.mix { display: grid; grid-template-columns: minmax(4rem, max-content) 1fr 3.5rem; gap: .3rem 1rem;
  align-items: center; margin: .5rem 0 1rem } .mix div { background: var(--accent); height: .8rem; min-width: 1px;
  border-radius: .2rem } .mix span:nth-child(3n) { text-align: right; font-variant-numeric: tabular-nums }
.warnings { background: var(--warn); border-left: 4px solid var(--edge); border-radius: .25rem; margin: 1.5rem 0;
  padding: .75rem 1rem .25rem } .warnings h2 { margin: 0; font-size: 1rem } .warnings ul { margin: .25rem 0 .5rem;
  padding-left: 1.2rem }
.wide { overflow-x: auto; margin: 0 0 1rem }
table { border-collapse: collapse; font-size: .9375rem; font-variant-numeric: tabular-nums }
th, td { padding: .35rem .55rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top }
td.name { min-width: 11rem }
th { color: var(--soft); font-weight: 600; vertical-align: bottom } .r { text-align: right }
td.r { white-space: nowrap } tr.marked td { background: var(--mark); font-weight: 600 }
form { display: flex; flex-wrap: wrap; gap: .5rem; margin: 0 0 1rem; max-width: 46rem }
form label { flex: 1 1 100%; color: var(--soft); font-size: .875rem }
input, button { font: inherit; padding: .4rem .7rem; border-radius: .4rem; border: 1px solid var(--line);
  color: var(--ink); background: var(--page); min-width: 0 } input { flex: 1 1 12rem }
button { background: var(--accent); color: var(--on); border-color: var(--accent); cursor: pointer }
blockquote { margin: 0 0 .5rem; padding: .4rem .8rem; border-left: 3px solid var(--line); max-width: 46rem;
  overflow-wrap: anywhere }
iframe { width: 100%; border: 1px solid var(--line); border-radius: .5rem; background: #fff }
time { white-space: nowrap }
details { margin: 0 0 .5rem } summary { cursor: pointer }
"""
_PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">$refresh
<title>$title</title>
<link rel="icon" href="$icon">
<style>
$style</style></head><body>
$header<main>
<h1>$heading</h1>
$body
</main></body></html>
""")


def page(
    title: str,
    body: Iterable[str],
    *,
    heading: str | None = None,
    links: Sequence[tuple[str, str]] = (),
    style: str = "",
    refresh: int | None = None,
) -> str:
    """A whole page. ``title`` and the words of ``links`` are text, ``heading`` and ``body`` are HTML.

    :param refresh: seconds after which a browser loads it again.
    """
    anchors = "".join(f'<a href="{escape(href)}">{escape(said)}</a>' for said, href in links)
    header = f"<header><strong>Plumbline</strong><nav>{anchors}</nav></header>\n" if links else ""
    return _PAGE.substitute(
        title=escape(title),
        heading=heading if heading is not None else escape(title),
        header=header,
        body="\n".join(body),
        style=STYLE + style,
        icon=_ICON,
        refresh=f'\n<meta http-equiv="refresh" content="{refresh}">' if refresh is not None else "",
    )


def words(text: str) -> str:
    """Text as HTML, with what stands between backquotes as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def badge(said: str, tone: Tone = "plain") -> str:
    """A word or two that must be seen; it says in words what its colour means."""
    return f'<span class="badge {tone}">{escape(said)}</span>'


_VERDICTS: dict[str, tuple[str, Tone]] = {
    "none": ("no drift", "good"),
    "notice": ("moved, accuracy seems to hold", "plain"),
    "warning": ("accuracy may suffer", "warn"),
    "critical": ("critical", "bad"),
}


def verdict(severity: str) -> str:
    """The badge of a judged window: none, notice, warning or critical."""
    return badge(*_VERDICTS[severity])


def figures(shown: Iterable[tuple[str, str]]) -> str:
    """(figure, what it is), large; both are text."""
    cells = "".join(f"<div><dd>{escape(figure)}</dd><dt>{escape(what)}</dt></div>" for figure, what in shown)
    return f'<dl class="figures">{cells}</dl>'


def facts(shown: Iterable[tuple[str, str]]) -> str:
    """(name, HTML) in two columns."""
    return '<dl class="facts">' + "".join(f"<dt>{escape(name)}</dt><dd>{value}</dd>" for name, value in shown) + "</dl>"


def shares(shown: Iterable[tuple[str, float]]) -> str:
    """(name, share) as bars."""
    rows = "".join(
        f'<span>{escape(name)}</span><div style="width:{100 * share:.1f}%"></div><span>{share:.0%}</span>'
        for name, share in shown
    )
    return f'<div class="mix">{rows}</div>'


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> str:
    """``columns`` are text, cells are HTML; those whose indices are in ``right`` are numbers."""
    sides = [' class="r"' if index in set(right) else "" for index in range(len(columns))]
    head = "".join(f'<th scope="col"{side}>{escape(name)}</th>' for side, name in zip(sides, columns, strict=True))
    body = "\n".join(
        "<tr>" + "".join(f"<td{side}>{cell}</td>" for side, cell in zip(sides, row, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<div class="wide" tabindex="0"><table><tr>{head}</tr>\n{body}\n</table></div>'
