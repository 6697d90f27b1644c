"""The names of a checkpoint's labels, in the order of its head's rows: from its config.json, or given beside it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from export.errors import CheckpointError
from service.contract.labels import SEPARATOR

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
            raise CheckpointError(f"{source} names no labels (id2label). Is it a classification checkpoint?")
        names = {str(row): f"LABEL_{row}" for row in range(rows or 2)}  # transformers does not write these two
        logger.warning(
            "%s names no labels: they are called %s. Other names can be given with --labels.",
            source,
            ", ".join(names.values()),
        )
    if not isinstance(names, dict) or names.keys() != {str(row) for row in range(len(names))}:
        keys = ", ".join(map(str, names)) if isinstance(names, dict) else type(names).__name__
        raise CheckpointError(f"id2label in {source} must name 0, 1, 2 … without a gap and has {keys}. {_MEND}")
    return check_label_names([names[str(row)] for row in range(len(names))], f"id2label in {source}")


def check_classifies(config: Mapping[str, Any], source: Path) -> None:
    """:raises CheckpointError: if the head that ``config``, read from ``source``, describes is one for regression."""
    names = config.get("id2label")
    rows = config.get("num_labels", len(names) if isinstance(names, dict) else None)
    if rows == 1 or config.get("problem_type") == "regression":
        raise CheckpointError(
            f"{source} is of a regression head, whose output is a number, and only classes are served. Fine-tune it "
            "with labels, or if its outputs are classes, remove problem_type and name them in id2label."
        )


def check_label_names(names: Sequence[object], source: str) -> tuple[str, ...]:
    """``names``, if each can be the name of one label. :raises CheckpointError: otherwise."""
    if len(names) < 2:
        raise CheckpointError(f"{source} names {len(names)} label(s), and a classifier has at least two. {_MEND}")
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
