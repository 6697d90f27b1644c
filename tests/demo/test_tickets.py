"""The generated tickets: the same each time, varied, and not to be solved by counting words."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from plumbline.demo.ticket_phrases import PHRASES, SLOTS, ProductLine
from plumbline.demo.tickets import INTENTS, MAX_WORDS, MIN_WORDS, tickets, write_csv
from service.contract.dataset import read_dataset

LINES: list[ProductLine] = ["old", "new"]


@pytest.mark.parametrize("line", LINES)
class TestTickets:
    def test_the_same_seed_gives_the_same_tickets(self, line: ProductLine) -> None:
        assert tickets(200, seed=1, product_line=line) == tickets(200, seed=1, product_line=line)

    def test_also_in_another_process(self, line: ProductLine) -> None:
        script = f"from plumbline.demo.tickets import tickets; print(tickets(50, seed=1, product_line={line!r}))"
        environment = os.environ | {"PYTHONHASHSEED": "77", "PYTHONIOENCODING": "utf-8"}
        run = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment
        )
        assert run.stdout.strip() == str(tickets(50, seed=1, product_line=line))

    def test_another_seed_gives_other_tickets(self, line: ProductLine) -> None:
        first, second = ({text for text, _ in tickets(1200, seed=seed, product_line=line)} for seed in (1, 2))
        assert len(first & second) < 0.05 * len(first)

    def test_none_comes_twice(self, line: ProductLine) -> None:
        rows = tickets(3000, seed=1, product_line=line)
        assert len(rows) == len({text for text, _ in rows}) == 3000

    def test_intents_have_equal_shares_in_random_order(self, line: ProductLine) -> None:
        intents = [intent for _, intent in tickets(600, seed=1, product_line=line)]
        assert Counter(intents) == dict.fromkeys(INTENTS, 100)
        assert set(intents[:60]) == set(INTENTS)

    def test_lengths_vary_from_short_to_long(self, line: ProductLine) -> None:
        lengths = sorted(len(text.split()) for text, _ in tickets(1200, seed=1, product_line=line))
        assert MIN_WORDS <= lengths[0] <= 7
        assert 38 <= lengths[-1] <= MAX_WORDS
        assert lengths[300] < 0.6 * lengths[900]

    def test_no_slot_is_left_open(self, line: ProductLine) -> None:
        assert not [text for text, _ in tickets(3000, seed=1, product_line=line) if re.search(r"[{}]", text)]

    def test_no_phrase_belongs_to_two_intents(self, line: ProductLine) -> None:
        phrases = [
            phrase
            for said in PHRASES[line].values()
            for phrase in (*said.things, *said.wishes, *said.troubles, *said.settled)
        ]
        assert len(phrases) == len(set(phrases))
        slots = {slot for phrase in phrases for slot in re.findall(r"\{(\w+)\}", phrase)}
        assert slots <= set(SLOTS[line])


def test_there_are_six_intents_in_both_lines() -> None:
    assert len(INTENTS) == 6
    assert set(PHRASES["old"]) == set(PHRASES["new"]) == set(INTENTS)


def test_word_order_decides_between_tickets_of_the_same_words() -> None:
    labels: dict[tuple[str, ...], set[str]] = {}
    for text, intent in tickets(20_000, seed=1):
        labels.setdefault(tuple(sorted(re.findall(r"\w+", text.lower()))), set()).add(intent)
    assert any(len(found) > 1 for found in labels.values())


def test_counting_words_is_not_enough_and_fails_on_the_new_line() -> None:
    texts, intents = zip(*tickets(1200, seed=1), strict=True)
    model = make_pipeline(TfidfVectorizer(token_pattern=r"\w+"), LogisticRegression(C=10, max_iter=2000))
    model.fit(texts, intents)
    accuracy = {
        line: model.score(*map(list, zip(*tickets(600, seed=2, product_line=line), strict=True))) for line in LINES
    }
    assert 0.6 < accuracy["old"] < 0.9
    assert accuracy["new"] < accuracy["old"] - 0.15


def test_the_new_line_brings_new_words_and_uses_old_ones() -> None:
    old, new = (
        Counter(word for text, _ in tickets(1200, seed=1, product_line=line) for word in re.findall("[a-z]+", text))
        for line in LINES
    )
    assert {"hub", "fitter", "tariff", "deposit", "thermostat"} <= set(new) - set(old)
    common = {word for word, count in new.most_common(150)} & set(old)
    assert {"charge", "cancel", "return", "account", "parcel"} <= set(new) & set(old)
    assert len(common) > 75


def test_a_file_of_tickets_is_a_data_file(tmp_path: Path) -> None:
    rows = tickets(100, seed=1)
    write_csv(tmp_path / "tickets.csv", rows)
    data = read_dataset(tmp_path / "tickets.csv")
    assert list(zip(data.texts, data.targets, strict=True)) == rows


def test_the_command_writes_three_files_that_share_no_text(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "plumbline.demo.tickets", "--out", str(tmp_path / "a" / "b"), "--train", "60"]
    subprocess.run([*command, "--eval", "30", "--new", "30"], check=True, timeout=60)
    texts = [read_dataset(tmp_path / "a" / "b" / name).texts for name in ("train.csv", "eval.csv", "new.csv")]
    assert [len(found) for found in texts] == [60, 30, 30]
    assert len({text for found in texts for text in found}) == 120
