"""What a bundle says to people: ``card.md`` and a self-contained ``report.html`` from the same tables."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Template

from pydantic import JsonValue

from service.contract.bundle import Challenge, Latency, Quality, Source, Stage, Task, VariantName

_PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>$title</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 0 0 1.5rem } td, th { border: 1px solid #bbb; padding: .25rem .6rem }
th { background: #f2f2f2; text-align: left } td { overflow-wrap: break-word }
@media (prefers-color-scheme: dark) { body { background: #161616; color: #ddd } th { background: #2a2a2a } }
</style></head><body>
<h1>$title</h1>
<p>$summary</p>
$sections
</body></html>
""")


@dataclass(frozen=True)
class Table:
    """A titled table; the first row is its header."""

    title: str
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Card:
    title: str
    summary: str
    tables: tuple[Table, ...]


def make_card(
    name: str,
    task: Task,
    labels: Sequence[str],
    *,
    source: Source,
    quality: Mapping[VariantName, Quality],
    latency: Sequence[Latency],
    stages: Sequence[Stage],
    challenge: Challenge | None,
) -> Card:
    """Gather what the manifest holds into tables."""
    shown = ", ".join(labels[:20]) + (f" and {len(labels) - 20} more" if len(labels) > 20 else "")
    summary = (
        f"A {task} text classifier for {len(labels)} labels ({shown}), fine-tuned from {source.base_model}; "
        f"checkpoint {source.checkpoint_sha256[:16]}."
    )
    tables = [_quality(quality), _latency(latency), _stages(stages), _libraries(source)]
    if challenge is not None:
        tables.insert(0, _challenge(challenge))
    return Card(name, summary, tuple(tables))


def as_markdown(card: Card) -> str:
    lines = [f"# {card.title}", "", card.summary]
    for table in card.tables:
        header, *rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table.rows]
        lines += ["", f"## {table.title}", "", header, "|" + "---|" * len(table.rows[0]), *rows]
    return "\n".join(lines) + "\n"


def as_html(card: Card) -> str:
    sections = []
    for table in card.tables:
        header, *rows = table.rows
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>\n" for row in rows)
        sections.append(f"<h2>{html.escape(table.title)}</h2>\n<table><tr>{head}</tr>\n{body}</table>")
    title, summary = html.escape(card.title), html.escape(card.summary)
    return _PAGE.substitute(title=title, summary=summary, sections="\n".join(sections))


def _quality(quality: Mapping[VariantName, Quality]) -> Table:
    header = ("variant", "metric", "checkpoint", "exported", "difference", "95 % bound", "allowed", "rows", "flips",
              "flips in batches", "verdict")  # fmt: skip
    rows = [
        (name, one.metric, f"{one.baseline:.4f}", f"{one.exported:.4f}", f"{one.difference:+.2f} points",
         f"{one.lower_bound:+.2f}", f"-{one.max_drop:g}", str(one.rows), str(one.flips), f"{one.batch_flip_rate:.2%}",
         one.verdict + (" (allowed)" if one.allowed_inconclusive else ""))
        for name, one in quality.items()
    ]  # fmt: skip
    return Table("Quality: exported variant against its checkpoint", [header, *rows])


def _latency(latency: Sequence[Latency]) -> Table:
    header = ("model", "p50, ms", "p95, ms", "size, MB", "threads", "batch", "tokens", "on")
    rows = [
        (one.name, f"{one.p50_ms:.2f}", f"{one.p95_ms:.2f}", f"{one.bytes / 1e6:.1f}", str(one.threads),
         str(one.batch), str(one.tokens), one.hardware)
        for one in latency
    ]  # fmt: skip
    return Table("Latency", [header, *rows])


def _stages(stages: Sequence[Stage]) -> Table:
    rows = [
        (one.name, f"{one.seconds:.1f}" if one.applied else "not applied",
         "; ".join(f"{key.replace('_', ' ')}: {_plain(value)}" for key, value in one.details.items()))
        for one in stages
    ]  # fmt: skip
    return Table("How it was made", [("stage", "seconds", "details"), *rows])


def _libraries(source: Source) -> Table:
    rows = [(name, version) for name, version in source.libraries.items()]
    arguments = [(name, str(value)) for name, value in source.arguments.items()]
    return Table("With what", [("name", "value"), ("seed", str(source.seed)), *arguments, *rows])


def _challenge(challenge: Challenge) -> Table:
    figures = [(name.replace("_", " "), _plain(value)) for name, value in challenge.figures.items()]
    reasons = [("reason", reason) for reason in challenge.reasons]
    answer = "accepted" if challenge.accepted else "rejected"
    title = f"Against version {challenge.champion.version}: {answer}"
    return Table(title, [("judgement", "figures"), *reasons, *figures])


def _plain(value: JsonValue) -> str:
    """A detail as people write it, one level of nesting deep."""
    if isinstance(value, dict):
        return ", ".join(f"{key.replace('_', ' ')} {_plain(one)}" for key, one in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)
