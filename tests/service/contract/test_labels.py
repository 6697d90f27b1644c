"""Label strings: what is the same label, and which labels only look alike."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.contract.labels import SEPARATOR, clean_target, folded, join_labels, similar_labels, split_labels


@given(st.lists(st.text().map(str.strip).filter(lambda one: one and SEPARATOR not in one and one.lower() != "nan")))
def test_what_is_joined_is_split_again(labels: list[str]) -> None:
    assert split_labels(join_labels(labels)) == tuple(dict.fromkeys(labels))


@given(st.text())
def test_cleaning_twice_is_cleaning_once(cell: str) -> None:
    try:
        once = clean_target(cell)
    except ValueError:
        return
    assert clean_target(once) == once
    assert set(split_labels(once)) == set(split_labels(cell))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("negative", "Negative"),
        ("card arrival", "card  Arrival"),
        ("café", "cafe\u0301"),
        ("ｆｏｏｄ", "food"),
        ("straße", "STRASSE"),
        ("food", "food\u200b"),
        ("card arrival", "card\u00a0arrival"),
    ],
)
def test_labels_that_look_alike(one: str, other: str) -> None:
    assert folded(one) == folded(other)


@pytest.mark.parametrize(("one", "other"), [("c", "c++"), ("refund", "refunds"), ("1", "-1"), ("a_b", "a-b")])
def test_labels_that_do_not(one: str, other: str) -> None:
    assert folded(one) != folded(other)


def test_known_and_frequent_labels_go_first() -> None:
    counts = {"food": 3, "Food": 30, "FOOD": 1, "service": 2, "Service": 2}
    assert similar_labels(counts) == {"food": "Food", "FOOD": "Food", "service": "Service"}
    assert similar_labels(counts, ["food"]) == {"Food": "food", "FOOD": "food", "service": "Service"}
    assert similar_labels({"food": 1, "Food": 1}, ["food", "Food"]) == {}
