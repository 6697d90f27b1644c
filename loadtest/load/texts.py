"""Texts to send: rows of a file, or made-up ones with the lengths of a usual mixture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from service.contract.dataset import read_dataset

MOST = 10_000  # rows of a file that are sent, drawn by chance
MADE = 2_000
BUILT_IN = "built-in: nine in ten as short as review sentences (median 18 words), one in ten of 150 to 220 words"
_WORDS = (
    "the of and to in is that it was for on are with as his they at be this from have or by one had not but what "
    "all were when we there can an your which their said if do will each about how up out them then she many some "
    "so these would other into has more her two like him see time could no make than first been its who now people "
    "my made over did down only way find use may water long little very after words called just where most know "
    "film story good bad great plot acting funny boring script director characters scene ending music slow fine "
    "moving"
)


def texts_of(file: Path | None, column: str, seed: int) -> list[str]:
    """The texts of a data file, or made-up ones; at most ``MOST``, in an order of chance.

    :raises DatasetError: if the file is missing, empty, not UTF-8, or has no such column, or pairs of texts.
    """
    rng = np.random.default_rng(seed)
    if file is None:
        return _made_up(rng)
    texts = read_dataset(file, text_column=column, label_column=None).single_texts
    return [texts[index] for index in rng.permutation(len(texts))[:MOST]]


def _made_up(rng: np.random.Generator) -> list[str]:
    short = np.clip(rng.lognormal(np.log(18), 0.55, MADE), 2, 60)
    counts = np.where(rng.random(MADE) < 0.1, rng.integers(150, 221, MADE), short).astype(int)
    words = _WORDS.split()
    return [" ".join(rng.choice(words, count)) for count in counts]


def batches(texts: Sequence[str], size: int) -> list[list[str]]:
    """Lists of ``size`` texts each, all of them in turn; a last one is filled up from the beginning."""
    count = -(-len(texts) // size)
    return [[texts[(place * size + offset) % len(texts)] for offset in range(size)] for place in range(count)]
