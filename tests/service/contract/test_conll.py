"""CoNLL files: every scheme of tags gives the same entities."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.contract.conll import spans_of
from service.contract.dataset import read_dataset
from service.contract.errors import DatasetError
from service.contract.spans import join_spans

WORDS = ["Ann", "Lee", "met", "Bo", "Ed", "Ray", "in", "Rome"]
ENTITIES = "0 7 PER|12 14 PER|15 21 PER|25 29 LOC"


@pytest.mark.parametrize(
    "tags",
    [
        "B-PER I-PER O B-PER B-PER I-PER O B-LOC",  # IOB2
        "I-PER I-PER O I-PER B-PER I-PER O I-LOC",  # IOB1: B- only between neighbours
        "B-PER E-PER O S-PER B-PER E-PER O S-LOC",  # IOBES
        "B-PER L-PER O U-PER B-PER L-PER O U-LOC",  # BILOU
    ],
)
def test_every_scheme(tags: str) -> None:
    assert join_spans(spans_of(WORDS, tags.split())) == ENTITIES


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.conll"
    head = "\ufeff-DOCSTART- -X- -X- O\r\n\r\n# id = 1\r\n"
    body = "Ann NNP B-NP B-PER\r\nsang VBD B-VP O\r\n\r\n\r\n# of B-X\r\n🙂 SYM O O\r\n"
    path.write_bytes((head + body).encode())
    data = read_dataset(path)
    assert list(data.texts) == ["Ann sang", "# 🙂"]
    assert data.targets == ["0 3 PER", "0 1 X"]
    assert data.spans
    assert [data.place(row) for row in range(2)] == [f"line 4 of {path}", f"line 8 of {path}"]


def test_a_hash_is_a_word_where_it_has_a_tag(tmp_path: Path) -> None:
    path = tmp_path / "a.conll"
    path.write_text("#\tO\nAnn\tB-PER\n")
    assert read_dataset(path).targets == ["2 5 PER"]


def test_tags_may_stand_in_another_column(tmp_path: Path) -> None:
    path = tmp_path / "a.conll"
    path.write_text("Ann B-PER NNP\n")
    assert read_dataset(path, label_column="2").targets == ["0 3 PER"]


def test_texts_alone_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.conll"
    path.write_text("Ann\tO\nsang\tO\n")
    data = read_dataset(path, label_column=None)
    assert (list(data.texts), data.labels) == (["Ann sang"], None)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("Ann\tO\nsang\n", "line 2 has no tag beside 'sang'"),
        ("Ann\tPER\n", "line 1 has the tag 'PER'; tags are O, or B- or I- and a kind"),
        ("Ann\tB-\n", "line 1 has the tag 'B-'"),
        ("\tO\n", "line 1 has a tag and no word"),
        ("\n\n", "has no rows"),
        ("Ann\tB-a|b\n", "has '|' in the label"),
    ],
)
def test_the_line_is_named(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "a.conll").write_text(content)
    with pytest.raises(DatasetError) as caught:
        read_dataset(tmp_path / "a.conll")
    assert said in str(caught.value)


def test_a_column_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text("Ann O\n")
    with pytest.raises(DatasetError, match="line 1 has 2 columns, and tags were to be in 4"):
        read_dataset(tmp_path / "a.conll", label_column="4")


class TestWords:
    def test_rows_of_words_are_read_as_sentences_are(self, tmp_path: Path) -> None:
        tags = ["B-PER", "I-PER", "O", "B-PER", "B-PER", "I-PER", "O", "B-LOC"]
        table = pa.table({"tokens": [WORDS, ["none"]], "ner_tags": [tags, ["O"]]})
        pq.write_table(table, tmp_path / "a.parquet")
        data = read_dataset(tmp_path / "a.parquet", text_column="tokens", label_column="ner_tags")
        assert (list(data.texts), data.targets, data.spans) == ([" ".join(WORDS), "none"], [ENTITIES, ""], True)

    @pytest.mark.parametrize(
        ("row", "said"),
        [
            ('{"text": ["a", "b"], "label": ["O"]}', "line 1 has 2 words, and not as many tags"),
            ('{"text": ["a", "b"], "label": [0, 1]}', "as O or B-PER, not a number"),
            ('{"text": ["a"], "label": "O"}', "line 1 has 1 words, and not as many tags"),
            ('{"text": ["a", 1], "label": ["O", "O"]}', "a list for a text that is not one of words"),
            ('{"text": [], "label": []}', "a list for a text that is not one of words"),
        ],
    )
    def test_others_are_refused(self, tmp_path: Path, row: str, said: str) -> None:
        (tmp_path / "a.jsonl").write_text(row + "\n")
        with pytest.raises(DatasetError) as caught:
            read_dataset(tmp_path / "a.jsonl")
        assert said in str(caught.value)
