"""How a checkpoint does on rows: the figures of its task, and of classification each class by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sklearn.metrics import precision_recall_fscore_support
from sklearn.preprocessing import MultiLabelBinarizer

from service.contract.labels import split_labels
from service.tasks.classification import correct

_MOST_SHOWN = 10


@dataclass(frozen=True)
class ClassScore:
    """Precision, recall and F1 of one label over ``support`` rows that have it; ``predicted`` rows were given it."""

    precision: float
    recall: float
    f1: float
    support: int
    predicted: int


@dataclass(frozen=True)
class Scores:
    """``figures`` by their names, the one that models are chosen by first; ``classes`` by label, if there are any.

    ``accuracy`` is the share of rows right; for several labels per row the whole set must match.
    """

    rows: int
    figures: dict[str, float]
    classes: dict[str, ClassScore]

    def to_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, **self.figures, "classes": {name: asdict(one) for name, one in self.classes.items()}}

    def __str__(self) -> str:
        return ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in self.figures.items())


def score(predicted: Sequence[str], targets: Sequence[str], labels: Sequence[str]) -> Scores:
    """Compare predicted with true labels (several joined by ``|``), row by row."""
    binarizer = MultiLabelBinarizer(classes=list(labels))
    truth = binarizer.fit_transform([split_labels(target) for target in targets])
    guess = binarizer.transform([split_labels(labels) for labels in predicted])
    columns = precision_recall_fscore_support(truth, guess, average=None, zero_division=0.0)
    classes = {
        label: ClassScore(float(precision), float(recall), float(f1), int(support), int(given))
        for label, precision, recall, f1, support, given in zip(labels, *columns, guess.sum(axis=0), strict=True)
    }
    figures = {
        "accuracy": float(correct(predicted, targets).mean()),
        "macro_f1": sum(one.f1 for one in classes.values()) / len(classes),
    }
    return Scores(len(targets), figures, classes)


def doubts(scores: Scores, train: Sequence[str]) -> tuple[str, ...]:
    """Sentences about labels that a model did not learn, or of which that is not known.

    ``train`` are the labels of its training rows, joined where there are several.
    """
    rows = Counter(one for label in train for one in split_labels(label))
    judged = {label: one for label, one in scores.classes.items() if one.support}
    kinds = {
        "never predicted, not for one eval row": [label for label, one in judged.items() if not one.predicted],
        "never right, recall 0.000": [label for label, one in judged.items() if one.predicted and not one.recall],
        "without an eval row, so that nothing is known of them": [one for one in scores.classes if one not in judged],
    }
    return tuple(
        f"labels {what}: {_with_rows(found, rows, scores)}"
        + (". More rows of them, more --epochs or a higher --learning-rate may help." if "never" in what else ".")
        for what, found in kinds.items()
        if found
    )


def _with_rows(labels: Sequence[str], train: Counter[str], scores: Scores) -> str:
    shown = [
        f"{label!r} ({train[label]} training and {scores.classes[label].support} eval rows)"
        for label in labels[:_MOST_SHOWN]
    ]
    more = [f"and {len(labels) - _MOST_SHOWN} more"] if len(labels) > _MOST_SHOWN else []
    return ", ".join([*shown, *more])
