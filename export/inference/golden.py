"""Golden cases: texts and the logits that each variant must give wherever it is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from service.contract.bundle import Golden, VariantName
from service.contract.inputs import Input, TextPair, characters, parts, split
from service.engine import Engine
from service.tasks.tokenizer import TextTokenizer

ODD = ("", "?", "🙂🚀 emoji and 日本語", "שלום עולם, مرحبا", "line\nbreak\tand\u200bzero width", "word " * 600)
_CASES = 16

# Allowed difference as a share of the largest golden logit. Another processor rounds activations to other int8
# steps here and there, which moves a logit by a few percent at most; a wrong tokenizer or graph moves it far more.
_TOLERANCE = {"int8": 0.05, "fp16": 0.02, "bf16": 0.05, "fp32": 0.001}
_LEAST = 1e-3


def odd_inputs(like: Input) -> list[Input]:
    """Odd texts that real traffic brings; pairs of them, if what is read are pairs."""
    return list(map(TextPair, ODD, reversed(ODD))) if isinstance(like, TextPair) else list(ODD)


def golden_texts(texts: Sequence[Input]) -> list[Input]:
    """Odd texts, or pairs, and others from the shortest to the longest of ``texts``, of which there is one at least."""
    odd = odd_inputs(texts[0])
    ordered = sorted(set(texts) - set(odd), key=lambda one: (characters(one), parts(one)))
    spread = np.linspace(0, len(ordered) - 1, min(_CASES - len(odd), len(ordered)))
    return [*odd, *(ordered[int(index)] for index in spread)]


def golden_cases(
    engines: Mapping[VariantName, Engine], tokenizer: TextTokenizer, texts: Sequence[Input]
) -> list[Golden]:
    """Run each text by itself through each variant."""
    cases = []
    for text in texts:
        tokens = tokenizer([text])
        logits = {name: tuple(map(float, engine.run(tokens).logits.ravel())) for name, engine in engines.items()}
        first, second = split(text)
        cases.append(Golden(text=first, text_pair=second, logits=logits))
    return cases


def golden_atol(cases: Sequence[Golden], variant: VariantName, precision: str) -> float:
    """Largest allowed difference of a logit: a share of the largest golden one, at least 0.001."""
    largest = max(abs(logit) for case in cases for logit in case.logits[variant])
    as_coarse_as = "fp16" if variant == "cuda" and precision == "fp32" else precision  # some GPUs multiply in TF32
    return max(_LEAST, _TOLERANCE[as_coarse_as] * largest)


def write_golden(path: Path, cases: Sequence[Golden]) -> None:
    path.write_text("".join(case.model_dump_json() + "\n" for case in cases), encoding="utf-8")
