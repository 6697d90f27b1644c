"""A result as one page that needs nothing else: no script, no font, no network."""

from __future__ import annotations

from html import escape

from loadtest.load import tables
from loadtest.load.charts import charts, focus
from loadtest.load.plot import STYLE
from loadtest.load.result import Result
from service.card.page import Tone, badge, facts, figures, page, table

_VERDICTS: dict[str, tuple[str, Tone]] = {
    "none": ("no objective", "plain"),
    "kept": ("objective kept", "good"),
    "missed": ("objective missed", "bad"),
    "generator": ("does not count: the generator was the limit", "warn"),
}


def as_html(result: Result) -> str:
    """The page."""
    parts = [f"<p>{badge(*_VERDICTS[result.verdict])}</p>"]
    if sentence := tables.verdict_sentence(result):
        parts.append(f"<p>{escape(sentence)}</p>")
    parts.append(figures(_headline(result)))
    parts.append(_warnings(result))
    parts.append('<div class="charts">' + "\n".join(charts(result)) + "</div>")
    for shown in (
        tables.latency_table(result),
        tables.failure_table(result),
        tables.server_table(result),
        tables.generator_table(result),
    ):
        parts.append(f"<h2>{escape(shown.title)}</h2>")
        if not shown.rows:
            parts.append(f'<p class="note">{_EMPTY[shown.title]}</p>')
            continue
        rows = [[escape(cell) for cell in row] for row in shown.rows]
        numbers = [] if shown.title.startswith("Failures") else range(1, len(shown.columns) - 1)
        parts.append(table(shown.columns, rows, right=numbers))
        if shown.note:
            parts.append(f'<p class="note">{escape(shown.note)}</p>')
    parts.append(f"<p>{escape(tables.generator_sentence(result))}</p>")
    parts.append("<h2>What was measured</h2>" + facts(_facts(result)))
    return page(f"Load test of {result.url}", parts, heading="Load test", style=STYLE)


_EMPTY = {
    "Latency in ms": "Nothing was measured.",
    "Failures by kind": "None.",
    "The server's own metrics": "The server has no /metrics that Plumbline knows, or was too busy to tell.",
    "The generator": "",
}


def _headline(result: Result) -> list[tuple[str, str]]:
    shown = []
    if result.maximum is not None:
        shown.append((f"{tables.per_second(result.maximum.rate)}/s", "highest rate that keeps the objective"))
    closest = focus(result)
    shown.append((f"{tables.per_second(closest.answered.value)}/s", f"answered at {closest.stage.name}"))
    if "p99" in closest.latency_ms:
        shown += [(f"{tables.ms(closest.latency_ms[name].value)} ms", f"{name} there") for name in ("p50", "p99")]
    shown.append((f"{closest.failed / max(closest.requests, 1):.2%}" if closest.failed else "0", "failed there"))
    return shown


def _warnings(result: Result) -> str:
    said = tables.warnings(result)
    if not said:
        return ""
    items = "".join(f"<li>{escape(one)}</li>" for one in said)
    return f'<section class="warnings"><h2>Be careful</h2><ul>{items}</ul></section>'


def _facts(result: Result) -> list[tuple[str, str]]:
    texts = f"{result.texts}; median {result.words_median:.0f} words, 95 % up to {result.words_p95:.0f}"
    seconds = max(sum(round_.seconds for round_ in one.rounds) for one in result.stages)
    shown = [
        ("server", result.url),
        ("asked", f"{result.protocol}{', model ' + result.model if result.model else ''}"),
        ("texts a request", str(result.batch)),
        ("texts", texts),
        ("when", f"{result.created:%Y-%m-%d %H:%M} UTC, up to {seconds:.0f} s a load"),
        ("generator", f"{result.machine}; {result.workers} process{'es' if result.workers > 1 else ''}"),
        ("seed", str(result.seed)),
        ("plumbline", result.plumbline),
    ]
    return [(name, escape(value)) for name, value in shown]
