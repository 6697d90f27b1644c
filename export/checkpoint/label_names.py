"""The names of a checkpoint's labels, in the order of its head's rows: from its config.json, or given beside it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from export.errors import CheckpointError
from service.contract.labels import SEPARATOR
from service.tasks.configured import gives_number

logger = logging.getLogger(__name__)

_MEND = "Name every label once, in the order of the head's rows: in id2label, or with --labels negative,positive."


def label_names(config: Mapping[str, Any], source: Path) -> tuple[str, ...]:
    """The labels that ``config``, read from ``source``, names. What transformers leaves out is filled in as it does.

    :raises CheckpointError: if it is not that of a classifier, or a name is missing or cannot be used.
    """
    names = config.get("id2label")
    rows = config.get("num_labels")
    if names is None:
        classifies = any(str(name).endswith("ForSequenceClassification") for name in config.get("architectures") or [])
        if not classifies:
            raise CheckpointError(
                f"{source} names no labels (id2label). Is it a classification checkpoint? One for embeddings has "
                "modules.json beside it, as sentence-transformers saves it."
            )
        names = {str(row): f"LABEL_{row}" for row in range(rows or 2)}  # transformers does not write these two
        logger.warning(
            "%s names no labels: they are called %s. Other names can be given with --labels.",
            source,
            ", ".join(names.values()),
        )
    if not isinstance(names, dict) or names.keys() != {str(row) for row in range(len(names))}:
        keys = ", ".join(map(str, names)) if isinstance(names, dict) else type(names).__name__
        raise CheckpointError(f"id2label in {source} must name 0, 1, 2 … without a gap and has {keys}. {_MEND}")
    listed = [names[str(row)] for row in range(len(names))]
    return check_label_names(listed, f"id2label in {source}", least=1 if gives_number(config) else 2)


def check_label_names(names: Sequence[object], source: str, *, least: int = 2) -> tuple[str, ...]:
    """``names``, if each can be the name of one label. :raises CheckpointError: otherwise."""
    if len(names) < least or (least == 1 and len(names) != 1):
        wanted = "a classifier has at least two" if least > 1 else "a regression head gives one number"
        raise CheckpointError(f"{source} names {len(names)} label(s), and {wanted}. {_MEND}")
    for row, name in enumerate(names):
        wrong = _wrong(name)
        if wrong is None and name in names[:row]:
            wrong = "is there twice"
        if wrong is not None:
            raise CheckpointError(f"{source}: label {row}, {name!r}, {wrong}. {_MEND}")
    return tuple(map(str, names))


def _wrong(name: object) -> str | None:
    if not isinstance(name, str):
        return "is not a string"
    if not name.strip():
        return "is empty"
    if name != name.strip():
        return "begins or ends with a space, which data files do not keep"
    if SEPARATOR in name:
        return f"has a {SEPARATOR!r}, which separates several labels of a row"
    return None
