"""The task that a checkpoint's config.json describes, as transformers and sentence-transformers read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.tasks.multi_label import MultiLabel
from service.tasks.regression import Regression
from service.tasks.single_label import SingleLabel
from service.tasks.task import Task
from service.tasks.token_classification import TokenClassification

_CLASSIFIES: tuple[Task, ...] = (SingleLabel(), MultiLabel())


def gives_number(config: Mapping[str, Any]) -> bool:
    """Whether the head gives a number, and no classes: it has one row, or is for regression by name."""
    names = config.get("id2label")
    rows = config.get("num_labels", len(names) if isinstance(names, dict) else None)
    return rows == 1 or config.get("problem_type") == Regression().problem_type


def task_of_config(config: Mapping[str, Any]) -> Task:
    """What the head is for; one label for each text where nothing says otherwise.

    One output is a cross-encoder's: its sigmoid is the answer, unless the file calls it regression or names the
    identity as its activation.
    """
    kind = config.get("problem_type")
    if any(str(one).endswith("ForTokenClassification") for one in config.get("architectures") or ()):
        return TokenClassification()
    if gives_number(config):
        own = config.get("sentence_transformers")
        named = (
            own.get("activation_fn") if isinstance(own, dict) else config.get("sbert_ce_default_activation_function")
        )
        identity = kind == Regression().problem_type or str(named).endswith("Identity")
        return Regression(squashed=not identity)
    return next((one for one in _CLASSIFIES if one.problem_type == kind), _CLASSIFIES[0])
