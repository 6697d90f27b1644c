"""``card.md``: the card in plain Markdown."""

from __future__ import annotations

from service.card.content import Card
from service.card.tables import Table


def as_markdown(card: Card) -> str:
    lines = [f"# {card.title}", ""]
    lines += [_escaped(sentence) + "\n" for sentence in card.sentences]
    if card.warnings:
        lines += ["## Be careful", "", *(f"- {_escaped(warning)}" for warning in card.warnings), ""]
    return "\n".join([*lines, *(line for table in card.tables for line in _table(table))])


def _table(table: Table) -> list[str]:
    rule = "|".join("---:" if one == "r" else "---" for one in table.align)
    rows = [
        _row(tuple(f"**{cell}**" if cell and index in table.marked else cell for cell in row))
        for index, row in enumerate(table.rows)
    ]
    note = [_escaped(table.note), ""] if table.note else []
    return [f"## {_escaped(table.title)}", "", *note, _row(table.columns), f"|{rule}|", *rows, ""]


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(_escaped(cell) for cell in cells) + " |"


def _escaped(text: str) -> str:
    """Text of labels and file names must not end a cell, a line, or turn into a tag."""
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())
