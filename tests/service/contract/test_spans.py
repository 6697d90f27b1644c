"""Entities as strings, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.contract.dataset import Dataset, read_dataset, write_jsonl
from service.contract.errors import DatasetError
from service.contract.spans import Span, join_spans, kinds, problem, span_of, split_spans

KINDS = st.sampled_from(["PER", "creative work", "ΟΡΓ", "🙂"])


@st.composite
def some_spans(draw: st.DrawFn) -> list[Span]:
    bounds = sorted(draw(st.sets(st.integers(0, 10_000), max_size=12)))
    return [Span(start, end, draw(KINDS)) for start, end in zip(bounds[::2], bounds[1::2], strict=False)]


@given(some_spans())
def test_they_come_back_from_their_string(spans: list[Span]) -> None:
    written = join_spans(reversed(spans))
    assert split_spans(written) == tuple(spans)
    assert kinds(written) == tuple(one.kind for one in spans)
    assert problem(spans) is None


@pytest.mark.parametrize(
    ("spans", "said"),
    [
        ([Span(2, 2, "A")], "its end is not behind its start"),
        ([Span(3, 1, "A")], "its end is not behind its start"),
        ([Span(0, 9, "A")], "the text has 5 characters"),
        ([Span(0, 3, "A"), Span(2, 4, "B")], "overlap, '0 3 A' and '2 4 B'"),
        ([Span(2, 4, "B"), Span(0, 3, "A")], "overlap"),
    ],
)
def test_what_is_wrong_is_said(spans: list[Span], said: str) -> None:
    assert said in str(problem(spans, "abcde"))


@pytest.mark.parametrize("written", ["PER", "0 5", "a b PER", "-1 5 PER", "0 5 PER|x"])
def test_what_is_no_entity(written: str) -> None:
    with pytest.raises(ValueError, match="it is written start, end and label"):
        split_spans(written)


@pytest.mark.parametrize(
    "value",
    [
        {"start": 1, "end": 4, "label": " PER "},
        {"start": 1, "end": 4, "entity_group": "PER", "score": 0.9, "word": "abc"},
        [1, 4, "PER"],
    ],
)
def test_the_shapes_of_json(value: object) -> None:
    assert span_of(value) == Span(1, 4, "PER")


@pytest.mark.parametrize(
    "value", [{"start": 1, "end": 4}, {"start": "1", "end": 4, "label": "A"}, [1, 4], [True, 2, "A"]]
)
def test_other_shapes_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"has .+ entity"):
        span_of(value)


class TestJsonLines:
    def test_a_file_of_spans_is_read_and_written(self, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl").write_text(
            '{"text": "🙂 Ann Lee sang", "label": [{"start": 2, "end": 9, "label": "PER"}]}\n'
            '{"text": "no", "label": []}\n'
        )
        data = read_dataset(tmp_path / "a.jsonl")
        assert (data.targets, data.spans) == (["2 9 PER", ""], True)
        write_jsonl(tmp_path / "b.jsonl", data)
        again = read_dataset(tmp_path / "b.jsonl")
        assert again == data
        assert again.spans

    @pytest.mark.parametrize(
        ("label", "said"),
        [
            ('[{"start": 0, "end": 99, "label": "A"}]', "line 1 has an entity '0 99 A', and the text has 3"),
            (
                '[{"start": 0, "end": 2, "label": "A"}, {"start": 1, "end": 3, "label": "B"}]',
                "line 1 has entities that",
            ),
            ('[{"start": 0, "end": 2, "label": "A|B"}]', "line 1 has '|' in the label"),
            ('[{"begin": 0}]', "line 1 has {'begin': 0} for an entity"),
        ],
    )
    def test_the_row_is_named(self, tmp_path: Path, label: str, said: str) -> None:
        (tmp_path / "a.jsonl").write_text(f'{{"text": "abc", "label": {label}}}\n')
        with pytest.raises(DatasetError) as caught:
            read_dataset(tmp_path / "a.jsonl")
        assert said in str(caught.value)


def test_rows_that_are_taken_keep_what_they_are() -> None:
    from export.data.clean import take

    assert take(Dataset(["a", "b"], ["", "0 1 A"], spans=True), [1]).spans
