"""The same tickets with what they are about: which product, which order, when.

The new product line has names for its products where the old one had words, orders are numbered otherwise, and dates
are written out, so that a model that knew the old line overlooks them.
"""

from __future__ import annotations

import re

from plumbline.demo.ticket_phrases import SLOTS, ProductLine
from plumbline.demo.tickets import tickets
from service.contract.spans import Span, join_spans

KINDS = {"item": "product", "number": "order", "when": "date"}  # of the slots that are entities

_NAMES = ("Aria 2", "Halo", "Vela Mini", "Orbit S", "Luma", "Nido Pro", "Sela 300", "Tavo", "Kiri Air", "Miro 4")
_DAYS = ("2026-03-14", "the 14th of March", "14/03", "the day before yesterday", "the 2nd", "2026-04-02", "30 April")
_MORE, _EVERY = 3, 4  # about half of all tickets have no entity, and one in four of those stays

_BEGIN, _NAMED, _END = "\ue000", "\ue001", "\ue002"  # for private use: no ticket has them
_MARK = re.compile(f"{_BEGIN}(\\w+){_NAMED}([^{_BEGIN}-{_END}]*){_END}")


def tagged_tickets(count: int, *, seed: int, product_line: ProductLine = "old") -> list[tuple[str, str]]:
    """``count`` different tickets with their entities, as :mod:`service.contract.spans` writes them.

    About a fifth of them have none.
    """
    slots, new = dict(SLOTS[product_line]), product_line == "new"
    if new:
        slots |= {"item": _NAMES, "when": _DAYS}

    def mark(slot: str, text: str) -> str:
        if slot not in KINDS:
            return text
        shown = f"SH-{text[:3]}-{text[3:]}" if new and slot == "number" else text
        return f"{_BEGIN}{KINDS[slot]}{_NAMED}{shown}{_END}"

    made = tickets(_MORE * count, seed=seed, product_line=product_line, slots=slots, filled=mark)
    rows = [_unmarked(text) for text, _ in made]
    kept = set([row for row in rows if not row[1]][::_EVERY])
    return [row for row in rows if row[1] or row in kept][:count]


def _unmarked(marked: str) -> tuple[str, str]:
    """The ticket as people read it, and its entities."""
    text, spans, at = "", list[Span](), 0
    for found in _MARK.finditer(marked):
        text += marked[at : found.start()]
        spans.append(Span(len(text), len(text) + len(found[2]), found[1]))
        text += found[2]
        at = found.end()
    return text + marked[at:], join_spans(spans)
