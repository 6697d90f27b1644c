"""Tickets to a shop's customer support, made by a small grammar, for a demonstration that needs no download.

    python -m plumbline.demo.tickets --out DIR

writes ``train.csv`` and ``eval.csv`` (the old product line) and ``new.csv`` (the new one) with the columns ``text`` and
``label``. What is asked for often depends on word order and negation ("I would rather know where my parcel is than
get my money back"), other intents are mentioned in passing, and openings, closings, urgency and typing errors carry no
signal. The new product line has new words and gives old words new meanings.
"""

from __future__ import annotations

import argparse
import csv
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from plumbline.demo.ticket_phrases import OLD, PHRASES, SLOTS, Phrases, ProductLine

INTENTS: tuple[str, ...] = tuple(sorted(OLD))
MIN_WORDS, MAX_WORDS = 5, 45

# How often a ticket mentions a second intent, has a typing error, or (in the new line) is about the new devices in the
# old words.
_MENTIONS = 0.45
_TYPING_ERROR = 0.2
_OLD_WORDS = 0.4

# ``thing``, ``wish``, ``trouble`` are the intent's own; those with ``other_`` belong to the intent that is only
# mentioned.
_PLAIN = (
    "{trouble}.",
    "{trouble}.",
    "I am writing about {thing}.",
    "I have a question about {thing}.",
    "I want to {wish}.",
    "How do I {wish}?",
    "Please help me to {wish}.",
)
# Each frame has a mirror image with the same words in another order.
_MENTIONING = (
    "I do not want to {other_wish}, I want to {wish}.",
    "I want to {wish}, I do not want to {other_wish}.",
    "This is not about {other_thing} but about {thing}.",
    "This is about {thing}, not about {other_thing}.",
    "I would rather {wish} than {other_wish}.",
    "Rather than {other_wish} I would {wish}.",
    "I asked how to {wish} and was told how to {other_wish}.",
    "I was told how to {other_wish} and asked how to {wish}.",
    "{other_settled}, but {trouble}.",
    "{trouble}, but {other_settled}.",
    "Last week I wrote about {other_thing}, and that is solved. Now it is about {thing}.",
    "Now it is about {thing}. Last week I wrote about {other_thing}, and that is solved.",
)
_OPENINGS = (
    "Hi.",
    "Hello,",
    "Good morning.",
    "Dear team,",
    "Hello again.",
    "Hey,",
    "To whom it may concern:",
    "Good afternoon.",
    "Hi there,",
    "Dear support,",
)
_ASIDES = (
    "I have been a customer for years.",
    "I looked at my account, my card and my last invoice first.",
    "The app told me to write to you.",
    "I have the order number and the parcel slip here.",
    "I could not find this on your page.",
    "A friend said that you answer fast.",
    "I am writing from my phone, sorry for the errors.",
    "The person on the phone sent me here.",
    "I paid by card and my address is right.",
)
_CLOSINGS = (
    "Thanks.",
    "Thank you for your help.",
    "Kind regards",
    "Please answer today.",
    "This is urgent!",
    "No hurry.",
    "I am waiting for your answer.",
    "Please call me back.",
    "Best wishes",
    "It cannot wait any longer.",
    "Thanks in advance!",
    "Many thanks.",
    "I hope to hear from you soon.",
    "Write to me at any time.",
)

_SLOT = re.compile(r"\{(\w+)\}")

Slots = dict[str, tuple[str, ...]]
Filled = Callable[[str, str], str]


@dataclass(frozen=True)
class _Grammar:
    line: ProductLine
    slots: Slots
    filled: Filled


def tickets(
    count: int,
    *,
    seed: int,
    product_line: ProductLine = "old",
    slots: Slots | None = None,
    filled: Filled = lambda slot, text: text,
) -> list[tuple[str, str]]:
    """``count`` different tickets as (text, intent), the intents in equal shares and in random order.

    The same arguments give the same tickets; another seed gives other ones, hardly any of which are the same.

    :param slots: what may stand in a slot, if not what the product line has.
    :param filled: called with each slot and what was put there; returns what stands in the text.
    """
    grammar = _Grammar(product_line, slots or SLOTS[product_line], filled)
    rng = random.Random(f"{product_line} {seed}")  # noqa: S311  not for secrets
    intents = [INTENTS[index % len(INTENTS)] for index in range(count)]
    rng.shuffle(intents)
    seen: set[str] = set()
    rows = []
    for intent in intents:
        text = _ticket(rng, intent, grammar)
        while text in seen:
            text = _ticket(rng, intent, grammar)
        seen.add(text)
        rows.append((text, intent))
    return rows


def write_csv(path: Path, rows: Sequence[tuple[str, str]]) -> None:
    """Write tickets as a data file with the columns ``text`` and ``label``."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "label"))
        writer.writerows(rows)


def _ticket(rng: random.Random, intent: str, grammar: _Grammar) -> str:
    while True:
        parts = [
            rng.choice(_OPENINGS) if rng.random() < 0.4 else "",
            rng.choice(_ASIDES) if rng.random() < 0.15 else "",
            _request(rng, intent, grammar),
            rng.choice(_ASIDES) if rng.random() < 0.05 else "",
            rng.choice(_CLOSINGS) if rng.random() < 0.5 else "",
        ]
        text = " ".join(part for part in parts if part)
        if MIN_WORDS <= len(text.split()) <= MAX_WORDS:
            break
    if rng.random() < _TYPING_ERROR:
        text = _mistype(rng, text)
    return text.lower() if rng.random() < 0.15 else text


def _request(rng: random.Random, intent: str, grammar: _Grammar) -> str:
    """The sentence or two that say what is wanted, maybe with what is not."""
    both = (intent, rng.choice([i for i in INTENTS if i != intent]))
    own, other = (_phrases(rng, name, grammar.line) for name in both)
    choices = grammar.slots | {
        "thing": own.things,
        "wish": own.wishes,
        "trouble": own.troubles,
        "other_thing": other.things,
        "other_wish": other.wishes,
        "other_settled": other.settled,
    }
    frame = rng.choice(_MENTIONING if rng.random() < _MENTIONS else _PLAIN)
    text = _expand(rng, frame, choices, grammar.filled)
    return text[0].upper() + text[1:]


def _phrases(rng: random.Random, intent: str, line: ProductLine) -> Phrases:
    return PHRASES["old" if line == "new" and rng.random() < _OLD_WORDS else line][intent]


def _expand(rng: random.Random, text: str, choices: Slots, filled: Filled) -> str:
    """Replace each slot by one of its choices, which may have slots themselves."""

    def fill(slot: re.Match[str]) -> str:
        if slot[1] == "number":
            return filled(slot[1], str(rng.randrange(10_000, 100_000)))
        return filled(slot[1], _expand(rng, rng.choice(choices[slot[1]]), choices, filled))

    return _SLOT.sub(fill, text)


def _mistype(rng: random.Random, text: str) -> str:
    """Swap, drop or double a letter inside one of the longer words."""
    words = text.split(" ")
    longer = [index for index, word in enumerate(words) if len(word) >= 5 and word.isalpha()]
    if not longer:
        return text
    index = rng.choice(longer)
    word = words[index]
    at = rng.randrange(1, len(word) - 1)
    words[index] = rng.choice(
        (
            word[:at] + word[at : at + 2][::-1] + word[at + 2 :],
            word[:at] + word[at + 1 :],
            word[: at + 1] + word[at:],
        )
    )
    return " ".join(words)


def _main() -> None:
    parser = argparse.ArgumentParser(description="Write generated support tickets as train.csv, eval.csv and new.csv.")
    parser.add_argument("--out", type=Path, required=True, help="folder, made if it is missing")
    parser.add_argument("--train", type=int, default=1200, help="rows of train.csv (default: %(default)s)")
    parser.add_argument("--eval", type=int, default=600, help="rows of eval.csv (default: %(default)s)")
    parser.add_argument("--new", type=int, default=1200, help="rows of new.csv (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    train = tickets(options.train, seed=3 * options.seed)
    known = {text for text, _ in train}
    held_out = [row for row in tickets(options.eval, seed=3 * options.seed + 1) if row[0] not in known]
    write_csv(options.out / "train.csv", train)
    write_csv(options.out / "eval.csv", held_out)
    write_csv(options.out / "new.csv", tickets(options.new, seed=3 * options.seed + 2, product_line="new"))


if __name__ == "__main__":
    _main()
