"""What may be said of accuracy without labels: estimates beside the truth, and the severity that follows.

    python -m loadtest.bench_accuracy MODELS/NAME/VERSION STREAM.csv... [--rows 700] [--window 200]

Each stream is labelled; the bundle answers it, and windows are judged against the bundle's own reference. Beside the
estimate that the monitor makes (``cbpe``) are average thresholded confidence (``atc``, Garg et al. 2022), the same
calibration with reference rows weighted by a domain classifier's odds on their embeddings (``weighted``), a temperature
(``temp.``, Guo et al. 2017) and plain confidence; ``w/c`` counts windows that are a warning, and critical.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.optimize import isotonic_regression, minimize_scalar

from export.inference.predict import answer, load_engine
from export.inference.reference import reference_table
from monitoring.judging.accuracy import expected_accuracy
from monitoring.judging.decision import decide
from monitoring.judging.thresholds import Thresholds
from monitoring.signals.columns import Columns, columns_of
from monitoring.windows.references import load_reference
from service.contract.bundle import Bundle, read_bundle
from service.contract.dataset import read_dataset
from service.tasks.classification import correct
from service.tasks.of_bundle import task_of, tokenizer_of

Doubles = npt.NDArray[np.float64]


def answered(bundle: Bundle, file: Path, rows: int) -> pa.Table:
    """At most so many rows of a labelled file, drawn at random, as the bundle answers them."""
    made = bundle.manifest
    data = read_dataset(file)
    taken = np.random.default_rng(0).permutation(len(data))[:rows]
    graph = bundle.file(made.variants["cpu"].file)
    engine = load_engine(graph, device="cpu", threads=2, max_length=made.max_length, pad_id=made.pad_id)
    tokenizer = tokenizer_of(bundle)
    texts = [data.texts[row] for row in taken]
    answers = answer(engine, tokenizer, texts, made.labels, task_of(made))
    return reference_table(answers, [data.targets[row] for row in taken])


def right_of(side: Columns) -> Doubles:
    """(n,) 1 for a right answer; every row has a label."""
    return correct([str(one) for one in side.labels or ()], [str(one) for one in side.targets or ()]).astype(float)


def thresholded(confidence: Doubles, right: Doubles, seen: Doubles) -> float:
    """Share over the confidence that as many reference rows pass as are right."""
    return float((seen >= np.quantile(confidence, 1 - right.mean())).mean())


def temperature(confidence: Doubles, right: Doubles, seen: Doubles) -> float:
    """Mean confidence after one scale of the log odds, fitted by likelihood."""

    def scaled(values: Doubles, scale: float) -> Doubles:
        odds = np.clip(values, 1e-6, 1 - 1e-6)
        return np.asarray(1 / (1 + ((1 - odds) / odds) ** scale), dtype=np.float64)

    def loss(scale: float) -> float:
        sure = np.clip(scaled(confidence, scale), 1e-9, 1 - 1e-9)
        return -float((right * np.log(sure) + (1 - right) * np.log(1 - sure)).mean())

    return float(scaled(seen, minimize_scalar(loss, bounds=(0.1, 5.0), method="bounded").x).mean())


def weighted(confidence: Doubles, right: Doubles, seen: Doubles, odds: Doubles) -> float:
    """Isotonic calibration in which a reference row counts as much as it looks like the window."""
    points, place = np.unique(confidence, return_inverse=True)
    weights = np.bincount(place, odds)
    fitted = isotonic_regression(np.bincount(place, odds * right) / weights, weights=weights).x
    return float(np.interp(seen, points, fitted).mean())


def odds_of(reference: Doubles, window: Doubles) -> Doubles:
    """(n,) odds of each reference row to be of the window: logistic regression by Newton's method, cut at 100."""
    rows = np.vstack([reference, window])
    member = np.repeat([0.0, 1.0], [len(reference), len(window)])
    features = np.column_stack([np.ones(len(rows)), (rows - rows.mean(axis=0)) / (rows.std(axis=0) + 1e-9)])
    balance = np.where(member == 1, len(rows) / 2 / len(window), len(rows) / 2 / len(reference))
    coefficients = np.zeros(features.shape[1])
    for _ in range(50):
        chance = 1 / (1 + np.exp(-np.clip(features @ coefficients, -30, 30)))
        gradient = features.T @ (balance * (chance - member)) + coefficients
        hessian = (features * (balance * chance * (1 - chance))[:, None]).T @ features + np.eye(len(coefficients))
        coefficients -= np.linalg.solve(hessian, gradient)
    odds = np.exp(np.clip(features[: len(reference)] @ coefficients, -30, 30))
    return np.clip(odds, 0.01, 100.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("streams", type=Path, nargs="+")
    parser.add_argument("--rows", type=int, default=700)
    parser.add_argument("--window", type=int, default=200)
    options = parser.parse_args()
    reference = load_reference(read_bundle(options.bundle))
    known = reference.columns
    assert known.confidence is not None
    assert known.embedding is not None
    right = right_of(known)
    print(f"{'stream':20} truth  cbpe   atc weighted temp. plain trusted  w/c of windows; reference {right.mean():.3f}")
    for stream in options.streams:
        table = answered(reference.bundle, stream, options.rows)
        side = columns_of(table)
        assert side.confidence is not None
        assert side.embedding is not None
        seen = side.confidence
        windows = [table.slice(start, options.window) for start in range(0, table.num_rows, options.window)]
        judged = [decide(known, columns_of(one), Thresholds()) for one in windows if one.num_rows == options.window]
        trusted = sum(one.estimate is not None and one.estimate.trusted for one in judged)
        severities = [one.severity for one in judged]
        print(
            f"{stream.stem:20} {right_of(side).mean():.3f} {expected_accuracy(known.confidence, right, seen):.3f} "
            f"{thresholded(known.confidence, right, seen):.3f} "
            f"{weighted(known.confidence, right, seen, odds_of(known.embedding, side.embedding)):8.3f} "
            f"{temperature(known.confidence, right, seen):.3f} {seen.mean():.3f} {trusted:4}/{len(judged)}  "
            f"{severities.count('warning')}/{severities.count('critical')}",
            flush=True,
        )


if __name__ == "__main__":
    main()
