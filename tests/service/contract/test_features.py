"""Drift features are the same numbers on every machine and in every release of this feature version."""

from __future__ import annotations

import hashlib
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.contract.features import (
    FEATURE_VERSION,
    PROJECTED,
    TOKEN_BUCKETS,
    decode_embedding,
    encode_embedding,
    hash_tokens,
    project,
    projection_matrix,
    words,
)

RAMP = np.arange(384, dtype=np.float32)[None] / np.float32(384)


class TestProjection:
    """If one of these numbers has to change, FEATURE_VERSION has to change with it."""

    def test_the_matrix_never_changes(self) -> None:
        assert FEATURE_VERSION == 1
        digest = hashlib.sha256(projection_matrix(384).astype("<f4").tobytes()).hexdigest()
        assert digest == "3e472690dc571ba30a968819a5659c3828bb776f8f2fb13d08e9d655bad21d75"

    def test_an_embedding_gives_the_same_numbers_for_ever(self) -> None:
        expected = np.array([1.038, -1.694, 2.627, -1.409, -0.195, 3.564, -1.015, -1.052])
        np.testing.assert_allclose(project(RAMP)[0, :8].astype(np.float64), expected, atol=2e-3)

    def test_lengths_are_kept_about(self) -> None:
        rows = np.random.default_rng(0).normal(size=(2000, 384)).astype(np.float32)
        ratio = np.linalg.norm(project(rows).astype(np.float32), axis=1) / np.linalg.norm(rows, axis=1)
        assert 0.97 < ratio.mean() < 1.03

    @pytest.mark.parametrize("width", [1, 8, 384, 768])
    def test_any_width_gives_32_half_floats(self, width: int) -> None:
        projected = project(np.ones((3, width), dtype=np.float32))
        assert projected.shape == (3, PROJECTED)
        assert projected.dtype == np.float16

    def test_no_rows(self) -> None:
        assert project(np.zeros((0, 384), dtype=np.float32)).shape == (0, PROJECTED)

    def test_values_beyond_half_precision_are_clipped(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            projected = project(np.full((1, 384), 1e6, dtype=np.float32))
        assert np.isfinite(projected).all()
        assert np.abs(projected).max() == np.finfo(np.float16).max


class TestEncoding:
    def test_it_is_base64_of_little_endian_half_floats(self) -> None:
        assert encode_embedding(np.array([1.0, -2.0], dtype=np.float16)) == "ADwAwA=="

    @given(st.lists(st.floats(width=16, allow_nan=False), min_size=PROJECTED, max_size=PROJECTED))
    def test_it_loses_nothing(self, values: list[float]) -> None:
        row = np.array(values, dtype=np.float16)
        decoded = decode_embedding(encode_embedding(row))
        assert decoded.dtype == np.float32
        np.testing.assert_array_equal(decoded, row.astype(np.float32))

    @pytest.mark.parametrize("text", ["%%%%", "AAA", "AAAA", "é"])
    def test_damage_is_a_value_error(self, text: str) -> None:
        with pytest.raises(ValueError):  # noqa: PT011
            decode_embedding(text)


class TestWords:
    def test_words_and_single_marks_in_lower_case(self) -> None:
        assert words("Don't WAIT—שלום 2½ a_b!!") == ["don", "'", "t", "wait", "—", "שלום", "2½", "a_b", "!", "!"]

    def test_the_numbers_never_change(self) -> None:
        assert hash_tokens("Where is my parcel? Where? 😀") == [688, 688, 3725, 4934, 4934, 7520, 8855, 13636]

    @given(st.lists(st.sampled_from(["refund", "not", "parcel", "!", "שלום"])), st.randoms())
    def test_the_order_is_hidden(self, chosen: list[str], rng: object) -> None:
        shuffled = chosen.copy()
        rng.shuffle(shuffled)  # type: ignore[attr-defined]
        assert hash_tokens(" ".join(shuffled)) == hash_tokens(" ".join(chosen))

    @given(st.text())
    def test_any_text_gives_one_bucket_for_each_word(self, text: str) -> None:
        hashed = hash_tokens(text)
        assert len(hashed) == len(words(text))
        assert hashed == sorted(hashed)
        assert all(0 <= bucket < TOKEN_BUCKETS for bucket in hashed)

    def test_a_lone_surrogate(self) -> None:
        assert len(hash_tokens("cut \ud83d")) == 2
