"""A table of records or reference rows as the columns that detectors compare."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import sparse

from service.contract.features import PROJECTED, TOKEN_BUCKETS, hash_tokens
from service.contract.inputs import input_of, joined
from service.tasks import SINGLE_LABEL, Task

Doubles = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Columns:
    """n rows, each column None if the table does not have it.

    ``labels`` are the classes in the ``answers``, which may say more, as where an entity is.
    ``confidence``, ``n_tokens``, ``unk_share``, ``n_words`` are (n,) with NaN for missing values;
    ``embedding`` is (n, 32); ``bags`` is a sparse (n, 2^14) matrix of L2-normalised token counts; ``known_bags`` tells
    which rows had a text or tokens at all. ``inputs`` has for each row what it has in common with others of the same
    input, its bag; ``distinct`` are the indices of the first row of each. ``outcomes`` (k,) is whether answers were
    right, oldest first, of those whose true label is known, and ``recent_outcomes`` the same of those that were given
    since inputs were last like the reference; None if nobody keeps account of that. ``score`` (n,)
    is the answer itself of a model that gives numbers.
    """

    rows: int
    texts: list[str | None]
    labels: list[str | None] | None
    answers: list[str | None] | None
    targets: list[str | None] | None
    confidence: Doubles | None
    n_tokens: Doubles | None
    unk_share: Doubles | None
    n_words: Doubles
    embedding: Doubles | None
    bags: Any
    known_bags: npt.NDArray[np.bool_]
    distinct: npt.NDArray[np.intp]
    inputs: list[Hashable]
    outcomes: Booleans | None = None
    recent_outcomes: Booleans | None = None
    score: Doubles | None = None


def columns_of(table: pa.Table, task: Task = SINGLE_LABEL) -> Columns:
    """Read whichever of the record's columns ``table`` has; an absent column is not an error.

    :param task: what the answers are. Of numbers there are no labels to count.
    """
    answers: list[str | None] | None = _values(table, "label") if task.categorical else None
    rows = table.num_rows
    texts = texts_of(table)
    tokens: list[list[int] | None] = _values(table, "tokens") or [None] * rows
    bags = [
        hash_tokens(text) if text is not None else list(bucket or ())
        for text, bucket in zip(texts, tokens, strict=True)
    ]
    known = np.array(
        [text is not None or bucket is not None for text, bucket in zip(texts, tokens, strict=True)], dtype=np.bool_
    )
    keys: list[Hashable] = [
        tuple(bag) if there else ("row", index) for index, (bag, there) in enumerate(zip(bags, known, strict=True))
    ]
    first: dict[Hashable, int] = {}
    for index, key in enumerate(keys):
        first.setdefault(key, index)
    return Columns(
        rows=rows,
        texts=texts,
        labels=None if answers is None else [None if one is None else task.as_labels(one) for one in answers],
        answers=answers,
        targets=_values(table, "target") if task.categorical else None,
        score=None if task.categorical or task.vector else _scores(table),
        confidence=_numbers(table, "confidence"),
        n_tokens=_numbers(table, "n_tokens"),
        unk_share=_numbers(table, "unk_share"),
        n_words=np.array(
            [len(bag) if there else np.nan for bag, there in zip(bags, known, strict=True)], dtype=np.float64
        ),
        embedding=_embedding(table),
        bags=bag_matrix(bags),
        known_bags=known,
        distinct=np.fromiter(first.values(), dtype=np.intp, count=len(first)),
        inputs=keys,
    )


def bag_matrix(bags: Sequence[Sequence[int]]) -> Any:
    """Bags of bucket numbers as a sparse (n, 2^14) matrix of counts with rows of length 1 (0 for an empty bag)."""
    indptr = np.concatenate([[0], np.cumsum([len(bag) for bag in bags], dtype=np.int64)])
    indices = np.fromiter((bucket for bag in bags for bucket in bag), dtype=np.int64, count=int(indptr[-1]))
    data = np.ones(len(indices), dtype=np.float64)
    matrix = sparse.csr_matrix((data, indices % TOKEN_BUCKETS, indptr), shape=(len(bags), TOKEN_BUCKETS))
    matrix.sum_duplicates()
    lengths = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    scale = np.divide(1.0, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    return sparse.diags(scale) @ matrix


def _values(table: pa.Table, name: str) -> list[Any] | None:
    return table.column(name).to_pylist() if name in table.column_names else None


def texts_of(table: pa.Table) -> list[str | None]:
    """Each row's text, or both of its pair as one."""
    firsts: list[str | None] = _values(table, "text") or [None] * table.num_rows
    seconds: list[str | None] = _values(table, "text_pair") or [None] * table.num_rows
    return [
        None if first is None else joined(input_of(first, second))
        for first, second in zip(firsts, seconds, strict=True)
    ]


def _scores(table: pa.Table) -> Doubles | None:
    """The first, and only, output of each row."""
    rows = _values(table, "probs")
    return None if rows is None else np.array([row[0] if row else np.nan for row in rows], dtype=np.float64)


def _numbers(table: pa.Table, name: str) -> Doubles | None:
    if name not in table.column_names:
        return None
    values = table.column(name).cast(pa.float64()).to_numpy(zero_copy_only=False)
    return np.where(np.isfinite(values), values, np.nan)


def _embedding(table: pa.Table) -> Doubles | None:
    rows = _values(table, "embedding")
    if rows is None:
        return None
    missing = [float("nan")] * PROJECTED
    matrix = np.array([missing if row is None else row for row in rows], dtype=np.float64).reshape(-1, PROJECTED)
    matrix[~np.isfinite(matrix)] = np.nan
    return matrix
