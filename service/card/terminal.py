"""A bundle's card for a person at a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table as Grid
from rich.text import Text

from service.card.content import card_of
from service.card.tables import Table
from service.contract.bundle import Bundle

_WIDTH = 120  # where nobody says how wide it may be, as in a pipe


def show(bundle: Bundle, here: str, console: Console) -> None:
    """Print what the bundle is, how good, how fast, how it was made, and what to be careful with on this machine.

    ``here`` is the instruction set of this machine's processor.
    """
    if not console.is_terminal:
        console.width = max(console.width, _WIDTH)
    for part in _parts(bundle, here):
        console.print(part)


def _parts(bundle: Bundle, here: str) -> Iterator[RenderableType]:
    manifest, card = bundle.manifest, card_of(bundle.manifest, here)
    yield Text(f"{manifest.name} version {manifest.version}, {manifest.created:%Y-%m-%d %H:%M} UTC", style="bold")
    yield Text(f"digest {bundle.digest}", no_wrap=True, overflow="ignore")
    yield Text(
        f"at most {manifest.max_length} tokens; reference of {manifest.reference.rows:,} rows, feature version "
        f"{manifest.reference.feature_version}\n"
    )
    for sentence in card.sentences:
        yield Text(sentence)
    for warning in card.warnings:
        yield Text.assemble(("\ncareful  ", "bold yellow"), warning)
    for table in card.tables:
        yield Text(f"\n{table.title}", style="bold")
        if table.note:
            yield Text(table.note, style="dim")
        yield _grid(table)
        if table.brief and len(table.rows) > table.brief:
            yield Text(f"… and {len(table.rows) - table.brief} more in report.html", style="dim")


def _grid(table: Table) -> Grid:
    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    shown = [column for column in range(len(table.columns)) if column not in table.spare]
    for column in shown:
        right = table.align[column] == "r"
        grid.add_column(Text(table.columns[column]), justify="right" if right else "left", no_wrap=right)
    for number, row in enumerate(table.rows[: table.brief]):
        grid.add_row(*(Text(row[column]) for column in shown), style="bold" if number in table.marked else None)
    return grid
