"""The model without a server, and the texts that both are given."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Sequence

from service.contract.bundle import Bundle
from service.engine import Engine
from service.tasks.of_bundle import tokenizer_of

WINDOW, BATCH_TOKENS = 64, 512


class BareLoops:
    """Tokenizer and engine in a loop, on one thread."""

    def __init__(self, bundle: Bundle) -> None:
        manifest = bundle.manifest
        self._tokenizer = tokenizer_of(bundle)
        file = bundle.file(manifest.variants["cpu"].file)
        self._engine = Engine(file, device="cpu", threads=1, max_length=manifest.max_length, pad_id=manifest.pad_id)
        self._engine.warm_up()

    def one_by_one(self, texts: Sequence[str]) -> None:
        for text in texts:
            self._engine.run(self._tokenizer([text]))

    def bucketed(self, texts: Sequence[str]) -> None:
        """Sorted by length and cut into batches of at most 512 padded tokens."""
        ordered = sorted(self._tokenizer(texts), key=len)
        start = 0
        while start < len(ordered):
            stop = start + 1
            while (
                stop < len(ordered)
                and self._engine.padded_length(len(ordered[stop])) * (stop + 1 - start) <= BATCH_TOKENS
            ):
                stop += 1
            self._engine.run(ordered[start:stop])
            start = stop

    def single_calls(self, texts: Sequence[str]) -> list[float]:
        """Milliseconds of each text by itself."""
        moments = [time.perf_counter()]
        for text in texts:
            self.one_by_one([text])
            moments.append(time.perf_counter())
        return [1000 * (after - before) for before, after in itertools.pairwise(moments)]


def per_second(loop: Callable[[Sequence[str]], None], texts: Sequence[str], seconds: float) -> float:
    """Texts a second, fed in windows of 64."""
    done, started = 0, time.perf_counter()
    while (spent := time.perf_counter() - started) < seconds:
        place = done % len(texts)
        window = texts[place : place + WINDOW]
        loop(window)
        done += len(window)
    return done / spent


def mix(short: Sequence[str], long: Sequence[str]) -> list[str]:
    """Nine short texts to one of 150 to 220 words, in a fixed random order."""
    chosen = random.Random(0)  # noqa: S311  an order, no secret
    found = [text for text in long if 150 <= len(text.split()) <= 220]
    mixed = [*short, *(chosen.choice(found) for _ in range(len(short) // 9))]
    chosen.shuffle(mixed)
    return mixed
