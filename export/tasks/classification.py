"""What training and judging of both kinds of classifiers have in common."""

from __future__ import annotations

from collections.abc import Sequence

from export.checkpoint.weights import Head
from export.data.labels import check_classes, label_set, one_hot
from export.tasks.scores import Scores, score
from export.tasks.training import Booleans


class ClassifierTraining:
    """The half of a training task that is about labels, and not about how many a row has."""

    head: Head = "ForSequenceClassification"

    def label_names(self, targets: Sequence[str]) -> tuple[str, ...]:
        labels = label_set(targets)
        check_classes(labels)
        return labels

    def has(self, targets: Sequence[str], labels: Sequence[str]) -> Booleans:
        return one_hot(targets, labels)

    def scores(self, predicted: Sequence[str], targets: Sequence[str], labels: Sequence[str]) -> Scores:
        return score(predicted, targets, labels)
