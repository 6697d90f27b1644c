"""A detector that looks at every request, without waiting for a window: classifier two-sample testing by betting.

Podkopaev and Ramdas 2023, "Sequential predictive two-sample and independence testing", as a Shiryaev-Roberts
e-detector (Shin, Ramdas and Rinaldo 2022). An online logistic regression on hashed words learns to tell requests from
reference rows. Before it learns from a pair (request x, fresh reference row r) it bets
``h = (tanh f(x) - tanh f(r)) / 2``, whose mean is 0 without drift; ``R = (R + 1)(1 + lambda h)``, averaged over four
lambdas, then exceeds c at most once in c requests on average, however often one looks.

A reference row is fresh only once. When all have been used a new epoch starts from nothing, so every epoch is a run
of its own and the rate of false alarms stays at most 1 / c. The guarantee is for exchangeable requests; real
traffic has bursts, so a crossing is a notice, and a window decides. Inputs repeated within an epoch are skipped.
"""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from monitoring.signals.columns import Columns, columns_of
from monitoring.state import StateStore
from service.contract.features import TOKEN_BUCKETS

Doubles = npt.NDArray[np.float64]

BETS = np.array([0.1, 0.25, 0.5, 0.9])
BATCH = 8
LEARNING_RATE = 4.0
DECAY = 1e-3
_CEILING = 1e12  # of R; far above any threshold and far below overflow


@dataclass(frozen=True)
class Evidence:
    """The detector's state after some rows; ``crossed`` if the threshold was crossed upwards within them."""

    log_evidence: float
    log_threshold: float
    crossed: bool


@dataclass(frozen=True)
class Detector:
    """Weights (2^14,), R for each bet (4,), hashes of inputs seen in this epoch, its number and rows used."""

    weights: Doubles
    statistic: Doubles
    seen: npt.NDArray[np.int64]
    epoch: int
    used: int

    @classmethod
    def start(cls, epoch: int = 0) -> Detector:
        """Nothing learnt, nothing seen."""
        return cls(np.zeros(TOKEN_BUCKETS), np.zeros(len(BETS)), np.empty(0, np.int64), epoch, 0)

    @property
    def evidence(self) -> float:
        """R averaged over the bets."""
        return float(self.statistic.mean())


def step(detector: Detector, requests: Any, fresh: Any) -> tuple[Detector, float]:
    """Bet on, then learn from, k pairs of rows (both sparse (k, 2^14)); also returns the highest evidence."""
    weights = detector.weights
    f_request, f_fresh = requests @ weights, fresh @ weights
    payoffs = (np.tanh(f_request) - np.tanh(f_fresh)) / 2
    statistic = detector.statistic
    peak = 0.0
    for payoff in payoffs:
        statistic = np.minimum((statistic + 1) * (1 + BETS * payoff), _CEILING)
        peak = max(peak, float(statistic.mean()))
    up, down = 1 / (1 + np.exp(np.clip(f_request, -30, 30))), 1 / (1 + np.exp(-np.clip(f_fresh, -30, 30)))
    gradient = requests.T @ up - fresh.T @ down
    learnt = (1 - DECAY) * weights + LEARNING_RATE * gradient / len(payoffs)
    return replace(detector, weights=learnt, statistic=statistic, used=detector.used + len(payoffs)), peak


def feed(detector: Detector, reference: Columns, rows: Columns, seed: int) -> tuple[Detector, float]:
    """Feed rows in order; returns the detector after them and the highest evidence on the way."""
    pool = np.flatnonzero(reference.known_bags)
    peak = 0.0
    keys = [_key(rows.bags, index) for index in range(rows.rows)]
    waiting = [index for index in range(rows.rows) if rows.known_bags[index]]
    if len(pool) < BATCH:
        return detector, peak
    order = _order(pool, seed, detector.epoch)
    known = set(detector.seen.tolist())
    batch: list[int] = []
    for position, index in enumerate(waiting):
        if keys[index] not in known:
            known.add(keys[index])
            batch.append(index)
        if len(batch) == BATCH or (position == len(waiting) - 1 and batch):
            if detector.used + len(batch) > len(pool):
                detector = Detector.start(detector.epoch + 1)
                order = _order(pool, seed, detector.epoch)
                known = {keys[one] for one in batch}
            fresh = order[detector.used : detector.used + len(batch)]
            detector, highest = step(detector, rows.bags[batch], reference.bags[fresh])
            peak = max(peak, highest)
            batch = []
    return replace(detector, seen=np.array(sorted(known), dtype=np.int64)), peak


def observe(
    store: StateStore, model: str, digest: str, reference: Columns, rows: pa.Table, threshold: float
) -> Evidence:
    """Continue the stored detector of a version with new rows; call inside the transaction that records them."""
    found = store.row("SELECT arrays FROM evidence WHERE model = ? AND digest = ?", (model, digest))
    detector = deserialize(found["arrays"]) if found else Detector.start()
    before = detector.evidence
    detector, peak = feed(detector, reference, columns_of(rows), zlib.crc32(digest.encode()))
    store.execute("INSERT OR REPLACE INTO evidence VALUES (?, ?, ?)", (model, digest, serialize(detector)))
    crossed = before < threshold <= peak
    return Evidence(float(np.log(max(detector.evidence, 1.0))), float(np.log(threshold)), crossed)


def serialize(detector: Detector) -> bytes:
    """The detector as .npz bytes; plain arrays, nothing pickled."""
    buffer = io.BytesIO()
    np.savez(
        buffer,
        weights=detector.weights.astype(np.float32),
        statistic=detector.statistic,
        seen=detector.seen,
        place=np.array([detector.epoch, detector.used], dtype=np.int64),
    )
    return buffer.getvalue()


def deserialize(data: bytes) -> Detector:
    """The inverse of :func:`serialize`, with weights rounded to single precision."""
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        epoch, used = (int(value) for value in arrays["place"])
        return Detector(
            arrays["weights"].astype(np.float64), arrays["statistic"], arrays["seen"].astype(np.int64), epoch, used
        )


def _order(pool: npt.NDArray[np.intp], seed: int, epoch: int) -> npt.NDArray[np.intp]:
    return np.random.default_rng([seed, epoch]).permutation(pool)


def _key(bags: Any, index: int) -> int:
    start, stop = bags.indptr[index], bags.indptr[index + 1]
    return zlib.crc32(bags.indices[start:stop].tobytes() + bags.data[start:stop].tobytes())
