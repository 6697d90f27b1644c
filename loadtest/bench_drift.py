"""False-alarm rate and power of the drift decision, by simulation on real texts and made-up model outputs.

    python -m loadtest.bench_drift --data FOLDER [--repetitions 200] [--models MODELS/NAME/VERSION]

FOLDER holds ``sst2/train.csv``, ``sst2/dev.csv``, ``drift/amazon_cells.csv`` and ``drift/finance_tweets.csv``. Without
a bundle the texts are real and the outputs are drawn: two labels, a confidence that piles up near 1, and an
embedding that is a fixed projection of the text's words. Prints one row for each reference size and window size.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from loadtest.machine import machine
from monitoring.judging.decision import decide
from monitoring.judging.severity import LEVEL
from monitoring.judging.thresholds import Thresholds
from monitoring.signals.columns import Columns, bag_matrix, columns_of
from service.contract.dataset import read_dataset
from service.contract.features import TOKEN_BUCKETS, hash_tokens, words

REFERENCES = (436, 872, 5000)
WINDOWS = (100, 200, 500)


@dataclass(frozen=True)
class Rates:
    """Shares of windows with a severity, and the mean seconds of one decision."""

    any: float
    warning: float
    seconds: float
    per_signal: dict[str, float]


def synthetic_table(
    texts: list[str], random: np.random.Generator, *, positive: float = 0.5, sharpness: float = 12.0
) -> pa.Table:
    """Texts with drawn model outputs: P(label "1") = ``positive``, confidence 0.5 + Beta(sharpness, 1) / 2."""
    rows = len(texts)
    directions = np.random.default_rng(7).standard_normal((TOKEN_BUCKETS, 32)).astype(np.float32)
    embedding = np.asarray(bag_matrix([hash_tokens(text) for text in texts]) @ directions, dtype=np.float32)
    confidence = 0.5 + random.beta(sharpness, 1.0, rows) / 2
    labels = np.where(random.random(rows) < positive, "1", "0")
    right = random.random(rows) < confidence
    return pa.table(
        {
            "text": texts,
            "n_tokens": pa.array([len(words(text)) + 2 for text in texts], pa.int32()),
            "unk_share": pa.array(np.where(random.random(rows) < 0.05, 0.1, 0.0), pa.float32()),
            "label": labels,
            "confidence": pa.array(confidence, pa.float32()),
            "embedding": pa.array(list(embedding), pa.list_(pa.float32(), 32)),
            "target": np.where(right, labels, np.where(labels == "1", "0", "1")),
        }
    )


def rates(
    draw: Callable[[np.random.Generator], tuple[Columns, Columns]],
    *,
    repetitions: int,
    thresholds: Thresholds = Thresholds(),  # noqa: B008  frozen
    seed: int = 0,
) -> Rates:
    """Judge ``repetitions`` drawn pairs of reference and window."""
    severities = []
    signals: dict[str, int] = {}
    spent = 0.0
    for repetition in range(repetitions):
        reference, window = draw(np.random.default_rng([seed, repetition]))
        started = time.perf_counter()
        decision = decide(reference, window, thresholds, seed=repetition)
        spent += time.perf_counter() - started
        severities.append(decision.severity)
        for name in decision.drifted:
            signals[name] = signals.get(name, 0) + 1
    return Rates(
        any=float(np.mean([severity != "none" for severity in severities])),
        warning=float(np.mean([LEVEL[severity] >= LEVEL["warning"] for severity in severities])),
        seconds=spent / repetitions,
        per_signal={name: count / repetitions for name, count in sorted(signals.items())},
    )


def drawer(
    home: list[str],
    away: list[str],
    reference_rows: int,
    window_rows: int,
    *,
    share: float = 0.0,
    positive: float = 0.5,
    sharpness: float = 12.0,
) -> Callable[[np.random.Generator], tuple[Columns, Columns]]:
    """Pairs from ``home`` without replacement, of whose window a ``share`` of the rows comes from ``away``."""

    def draw(random: np.random.Generator) -> tuple[Columns, Columns]:
        foreign = round(window_rows * share)
        picked = random.permutation(len(home))[: reference_rows + window_rows - foreign]
        texts = [home[index] for index in picked]
        window = texts[reference_rows:] + [away[i] for i in random.permutation(len(away))[:foreign]]
        return (
            columns_of(synthetic_table(texts[:reference_rows], random)),
            columns_of(synthetic_table(window, random, positive=positive, sharpness=sharpness)),
        )

    return draw


def confidence_interval(rate: float, repetitions: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    z = 1.96
    centre = (rate + z * z / (2 * repetitions)) / (1 + z * z / repetitions)
    half = z / (1 + z * z / repetitions) * np.sqrt(rate * (1 - rate) / repetitions + z * z / (4 * repetitions**2))
    return max(0.0, centre - float(half)), min(1.0, centre + float(half))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--only", default="", help="run only the scenarios whose name contains this")
    options = parser.parse_args()

    def texts(name: str) -> list[str]:
        return list(dict.fromkeys(read_dataset(options.data / name, label_column=None).single_texts))

    home = texts("sst2/train.csv") + texts("sst2/dev.csv")
    amazon, tweets = texts("drift/amazon_cells.csv"), texts("drift/finance_tweets.csv")
    scenarios: dict[str, tuple[list[str], dict[str, float]]] = {
        "no drift": (home, {}),
        "amazon_cells": (amazon, {"share": 1.0}),
        "finance_tweets": (tweets, {"share": 1.0}),
        "a quarter tweets": (tweets, {"share": 0.25}),
        "a tenth tweets": (tweets, {"share": 0.1}),
        "labels 50 to 65 %": (home, {"positive": 0.65}),
        "less confident": (home, {"sharpness": 6.0}),
    }
    print(machine())
    print(
        f"{'scenario':20} {'reference':>9} {'window':>6} {'any':>6} {'95 % interval':>15} {'warns':>6} {'s':>4} signals"
    )
    for name, (away, shift) in scenarios.items():
        if options.only not in name:
            continue
        for reference_rows in REFERENCES:
            for window_rows in WINDOWS:
                found = rates(drawer(home, away, reference_rows, window_rows, **shift), repetitions=options.repetitions)
                low, high = confidence_interval(found.any, options.repetitions)
                signals = " ".join(f"{key}={value:.2f}" for key, value in found.per_signal.items())
                print(
                    f"{name:20} {reference_rows:9} {window_rows:6} {found.any:6.3f} {low:7.3f}-{high:.3f} "
                    f"{found.warning:6.3f} {found.seconds:5.2f}  {signals}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
