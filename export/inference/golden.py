"""Golden cases: texts and the logits that each variant must give wherever it is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from service.contract.bundle import Golden, VariantName
from service.engine import Engine
from service.tasks.tokenizer import TextTokenizer

ODD = ("", "?", "🙂🚀 emoji and 日本語", "שלום עולם, مرحبا", "line\nbreak\tand\u200bzero width", "word " * 600)
_CASES = 16

# Allowed difference as a share of the largest golden logit. Another processor rounds activations to other int8
# steps here and there, which moves a logit by a few percent at most; a wrong tokenizer or graph moves it far more.
_TOLERANCE = {"int8": 0.05, "fp16": 0.02, "bf16": 0.05, "fp32": 0.001}
_LEAST = 1e-3


def golden_texts(texts: Sequence[str]) -> list[str]:
    """Odd texts that real traffic brings, and others from the shortest to the longest of ``texts``."""
    ordered = sorted(set(texts) - set(ODD), key=lambda text: (len(text), text))
    places = np.linspace(0, len(ordered) - 1, min(_CASES - len(ODD), len(ordered)))
    return [*ODD, *(ordered[int(place)] for place in places)]


def golden_cases(engines: Mapping[VariantName, Engine], tokenizer: TextTokenizer, texts: Sequence[str]) -> list[Golden]:
    """Run each text by itself through each variant."""
    cases = []
    for text in texts:
        tokens = tokenizer([text])
        logits = {name: tuple(map(float, engine.run(tokens).logits[0])) for name, engine in engines.items()}
        cases.append(Golden(text=text, logits=logits))
    return cases


def golden_atol(cases: Sequence[Golden], variant: VariantName, precision: str) -> float:
    """Largest allowed difference of a logit: a share of the largest golden one, at least 0.001."""
    largest = max(abs(logit) for case in cases for logit in case.logits[variant])
    as_coarse_as = "fp16" if variant == "cuda" and precision == "fp32" else precision  # some GPUs multiply in TF32
    return max(_LEAST, _TOLERANCE[as_coarse_as] * largest)


def write_golden(path: Path, cases: Sequence[Golden]) -> None:
    path.write_text("".join(case.model_dump_json() + "\n" for case in cases), encoding="utf-8")
