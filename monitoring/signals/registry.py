"""The signals: what is compared, how, and from which effect on it counts. One more signal is one more line here.

With enough rows any difference is significant, so each signal has a least effect. The false-alarm rates and the power
that these values give are measured by ``loadtest/bench_drift.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from monitoring.signals.columns import Columns
from monitoring.signals.detectors import (
    Chance,
    Test,
    accuracy_test,
    constant_test,
    embedding_test,
    label_test,
    number_test,
    tokens_test,
)


@dataclass(frozen=True)
class SignalKind:
    """One signal.

    :param least: least effect that counts; what an effect is, is in the docstring of its test. None: the tolerance.
    :param test: None where it cannot be made.
    """

    name: str
    least: float | None
    test: Callable[[Columns, Columns, Chance], Test | None]


def _number(name: str) -> Callable[[Columns, Columns, Chance], Test | None]:
    return lambda reference, window, chance: number_test(name, reference, window)


def _words(reference: Columns, window: Columns, chance: Chance) -> Test | None:
    """Words stand in for the model's tokens where a file of texts alone is compared."""
    if reference.n_tokens is not None and window.n_tokens is not None:
        return None
    return number_test("n_words", reference, window)


SIGNALS: tuple[SignalKind, ...] = (
    # One answer in twenty is another one.
    SignalKind("label", 0.05, lambda reference, window, chance: label_test(reference, window)),
    SignalKind("confidence", 0.10, _number("confidence")),  # a tenth of the rows lie elsewhere
    SignalKind("score", 0.10, _number("score")),  # the same of answers that are numbers
    SignalKind("accuracy", None, lambda reference, window, chance: accuracy_test(reference, window)),
    SignalKind("n_tokens", 0.15, _number("n_tokens")),
    SignalKind("n_words", 0.15, _words),
    SignalKind("unk_share", 0.10, _number("unk_share")),
    # 2 AUC - 1: a pair of old and new row is told apart in 57.5 % of cases; three pairs in four.
    SignalKind("embedding", 0.15, embedding_test),
    SignalKind("tokens", 0.15, tokens_test),
    # Nothing said, or the same again: 15 %, so that a fifth of all requests is seen in any 200 of them.
    SignalKind("constant", 0.15, lambda reference, window, chance: constant_test(reference, window)),
)
BY_NAME = {kind.name: kind for kind in SIGNALS}


def run_tests(reference: Columns, window: Columns, chance: Chance) -> list[Test]:
    """Every test that the columns allow, in the order of the list."""
    tests = [kind.test(reference, window, chance) for kind in SIGNALS]
    return [test for test in tests if test is not None]
