"""Classification metrics: accuracy, macro F1, and each class by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sklearn.metrics import precision_recall_fscore_support
from sklearn.preprocessing import MultiLabelBinarizer

from service.contract.classify import correct
from service.contract.labels import split_labels


@dataclass(frozen=True)
class ClassScore:
    """Precision, recall and F1 of one label over ``support`` rows that have it."""

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Scores:
    """``accuracy`` is the share of rows right; for several labels per row the whole set must match."""

    rows: int
    accuracy: float
    macro_f1: float
    classes: dict[str, ClassScore]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def score(predicted: Sequence[str], targets: Sequence[str], labels: Sequence[str]) -> Scores:
    """Compare predicted with true labels (several joined by ``|``), row by row."""
    binarizer = MultiLabelBinarizer(classes=list(labels))
    truth = binarizer.fit_transform([split_labels(target) for target in targets])
    guess = binarizer.transform([split_labels(labels) for labels in predicted])
    columns = precision_recall_fscore_support(truth, guess, average=None, zero_division=0.0)
    classes = {
        label: ClassScore(float(precision), float(recall), float(f1), int(support))
        for label, precision, recall, f1, support in zip(labels, *columns, strict=True)
    }
    accuracy = float(correct(predicted, targets).mean())
    return Scores(len(targets), accuracy, sum(one.f1 for one in classes.values()) / len(classes), classes)
