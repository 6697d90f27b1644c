"""Cleaning: what counts as the same text, and what is dropped."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.data.clean import NEAR, clean, jaccard, normalise, shingles
from service.contract.dataset import Dataset


@pytest.mark.parametrize(
    "other", ["SHARES RISE 7% TODAY", "shares  rise 3 % today!!", "Shares rise 4% today…", "ｓhares rise 5% today"]
)
def test_case_punctuation_width_and_the_value_of_digits_do_not_count(other: str) -> None:
    assert normalise(other) == normalise("Shares rise 9% today")


def test_texts_of_signs_only_stay_apart() -> None:
    assert normalise("🙂") != normalise("🙁")
    assert normalise("") == ""


def test_duplicates_are_counted_and_the_first_stays() -> None:
    done = clean(Dataset(["Good film.", "good film", "bad film"], ["p", "p", "n"]), [])
    assert done.data == Dataset(["Good film.", "bad film"], ["p", "n"])
    assert done.dropped == {"leaked": 0, "conflicting": 0, "duplicate": 1, "near_duplicate": 0}


def test_contradicting_rows_all_go() -> None:
    done = clean(Dataset(["It rose 4%", "it rose 9 %", "it rose 4%", "fell"], ["p", "n", "p", "n"]), [])
    assert done.data.texts == ["fell"]
    assert done.dropped["conflicting"] == 3


def test_the_order_of_several_labels_is_no_contradiction() -> None:
    done = clean(Dataset(["same text", "same text"], ["a|b", "b|a"]), [])
    assert done.dropped == {"leaked": 0, "conflicting": 0, "duplicate": 1, "near_duplicate": 0}


LONG = "the quarterly report of the company shows that sales of the new phone went up in every single region"


def test_near_duplicates_go_if_their_label_agrees() -> None:
    near = LONG.replace("phone", "phones")
    assert clean(Dataset([LONG, near], ["p", "p"]), []).dropped["near_duplicate"] == 1
    assert clean(Dataset([LONG, near], ["p", "n"]), []).dropped["near_duplicate"] == 0


def test_rows_that_leaked_from_the_eval_data_go_whatever_their_label() -> None:
    done = clean(Dataset([LONG.upper(), "another text"], ["n", "n"]), [LONG.replace("phone", "phones")])
    assert done.data.texts == ["another text"]
    assert done.dropped["leaked"] == 1


def test_short_texts_that_differ_in_a_word_are_different() -> None:
    texts = ["not good", "good", "so good", "not so good"]
    assert clean(Dataset(texts, ["n", "p", "p", "n"]), []).data.texts == texts


words = st.lists(
    st.sampled_from(["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"]), min_size=1, max_size=12
)


@given(st.lists(words.map(" ".join), min_size=1, max_size=25))
def test_the_index_finds_every_near_pair_that_comparing_all_pairs_finds(texts: list[str]) -> None:
    done = clean(Dataset(texts, ["same"] * len(texts)), [])
    for one, other in combinations(done.data.texts, 2):
        assert jaccard(shingles(normalise(one)), shingles(normalise(other))) < NEAR
    kept = [shingles(normalise(text)) for text in done.data.texts]
    assert all(any(jaccard(shingles(normalise(text)), one) >= NEAR for one in kept) for text in texts)
    assert sum(done.dropped.values()) + len(done.data) == len(texts)
