"""A card's content in the order of reading."""

from __future__ import annotations

from dataclasses import dataclass

from service.card.sentences import headline, sentences
from service.card.tables import (
    Table,
    candidate_table,
    challenge_table,
    class_tables,
    latency_table,
    quality_table,
    source_table,
    stage_table,
)
from service.card.warnings import warnings_of
from service.contract.bundle import Manifest


@dataclass(frozen=True)
class Card:
    """What to say of a bundle, before it is given a form."""

    title: str
    headline: tuple[tuple[str, str], ...]
    sentences: tuple[str, ...]
    warnings: tuple[str, ...]
    tables: tuple[Table, ...]


def card_of(manifest: Manifest, here: str | None = None) -> Card:
    """``here`` is as for ``warnings_of``."""
    tables = [latency_table(manifest), quality_table(manifest), *class_tables(manifest)]
    if manifest.search is not None:
        tables.insert(0, candidate_table(manifest.search))
    if manifest.challenge is not None:
        tables.insert(0, challenge_table(manifest.challenge))
    tables += [stage_table(manifest), source_table(manifest)]
    return Card(
        f"{manifest.name}, version {manifest.version}",
        tuple(headline(manifest)),
        tuple(sentences(manifest)),
        tuple(warnings_of(manifest, here)),
        tuple(tables),
    )
