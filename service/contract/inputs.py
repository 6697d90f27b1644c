"""What a model reads to give one answer: a text, or a pair of texts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class TextPair:
    """Two texts that are read together, as a premise and a hypothesis, or a query and a document."""

    text: str
    text_pair: str


Input = str | TextPair


def input_of(text: str, text_pair: str | None) -> Input:
    return text if text_pair is None else TextPair(text, text_pair)


def parts(given: Input) -> tuple[str, ...]:
    """Its texts, in order."""
    return (given,) if isinstance(given, str) else (given.text, given.text_pair)


def characters(given: Input) -> int:
    """Of all its texts."""
    return sum(map(len, parts(given)))


def joined(given: Input) -> str:
    """Its texts as one, a line each: what it is about, not what the model reads."""
    return "\n".join(parts(given))


def split(given: Input) -> tuple[str, str | None]:
    """A text and the second one, if there is one; the inverse of :func:`input_of`."""
    return (given, None) if isinstance(given, str) else (given.text, given.text_pair)
