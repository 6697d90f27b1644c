"""Tickets with the entities in them."""

from __future__ import annotations

import pytest

from plumbline.demo.tagged_tickets import KINDS, tagged_tickets
from plumbline.demo.ticket_phrases import SLOTS, ProductLine
from service.contract.spans import problem, split_spans

LINES: list[ProductLine] = ["old", "new"]


@pytest.mark.parametrize("line", LINES)
def test_entities_stand_where_they_are_said_to(line: ProductLine) -> None:
    rows = tagged_tickets(500, seed=1, product_line=line)
    assert rows == tagged_tickets(500, seed=1, product_line=line)
    assert len({text for text, _ in rows}) == 500
    without = [row for row, (_, target) in enumerate(rows) if not target]
    assert 60 < len(without) < 140
    assert 0.3 < sum(row < 250 for row in without) / len(without) < 0.7  # anywhere, not at one end
    found: dict[str, set[str]] = {kind: set() for kind in KINDS.values()}
    for text, target in rows:
        spans = split_spans(target)
        assert problem(spans, text) is None
        assert text.isprintable()
        for one in spans:
            found[one.kind].add(text[one.start : one.end].lower())
    known = {item.lower() for item in SLOTS["old"]["item"]}
    assert bool(found["product"] & known) == (line == "old")
    assert all(one.removeprefix("sh-").replace("-", "").isdigit() for one in found["order"])
    assert all(found.values())
