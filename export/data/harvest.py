"""What production taught: logged inputs joined with the labels that came back for them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from service.contract.dataset import Dataset
from service.contract.feedback import read_feedback, read_predictions
from service.contract.inputs import Input, input_of, joined
from service.contract.redact import MARK
from service.contract.segments import seal_orphans


@dataclass(frozen=True)
class Harvest:
    """Labelled rows, recent texts nobody labelled (newest first, no text twice), and what could not be used."""

    labelled: Dataset
    unlabelled: list[Input]
    counts: dict[str, int]


def harvest(log: Path, name: str, extra: Dataset | None, *, unlabelled: int, placed: bool = False) -> Harvest:
    """Join the sealed predictions of a model with its feedback by id, and add the rows of a labels file.

    Segments of dead writers are sealed first. The last feedback for an id wins. Rows logged without text cannot be
    trained on and are counted, as is feedback whose prediction is not there, or whose label is none.

    :param placed: whether labels say where in a text something is. Then a text that was redacted cannot be used: its
        characters are not where they were.
    """
    seal_orphans(log)
    found = read_feedback(log, name)
    answers = found.labels
    counts = Counter(feedback=found.pieces, unusable_feedback=found.unusable)
    waiting = dict(answers)
    texts: list[Input] = []
    labels: list[str] = []
    others: dict[Input, None] = {}
    for given, text, second in read_predictions(log, name, "id", "text", "text_pair"):
        identifier = str(given)
        counts["predictions"] += 1
        label = waiting.pop(identifier, None)
        if not isinstance(text, str):
            counts["without_text"] += 1
            continue
        read = input_of(text, None if second is None else str(second))
        if label is not None and placed and MARK.search(joined(read)):
            counts["redacted"] += 1
        elif label is not None:
            texts.append(read)
            labels.append(label)
        elif identifier not in answers and len(others) < unlabelled:
            others[read] = None
    counts["feedback_without_prediction"] = len(waiting)
    counts["from_feedback"] = len(texts)
    if extra is not None:
        texts += extra.texts
        labels += extra.targets
        counts["from_file"] = len(extra)
    wanted = (
        "predictions",
        "without_text",
        "redacted",
        "feedback",
        "unusable_feedback",
        "feedback_without_prediction",
        "from_feedback",
        "from_file",
    )
    spans = extra is not None and extra.spans
    return Harvest(Dataset(texts, labels, spans=spans), list(others), {key: counts[key] for key in wanted})
