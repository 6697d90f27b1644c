"""Data files with a second text in each row."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.contract.dataset import read_dataset, read_datasets, write_jsonl
from service.contract.errors import DatasetError
from service.contract.inputs import TextPair

ROWS = [TextPair("a man plays", "someone plays"), TextPair("a dog", 'said "no"'), TextPair("x", "")]


def write(path: Path) -> Path:
    labels = ["yes", "no", "no"]
    if path.suffix == ".csv":
        path.write_text('label,text_pair,text\nyes,someone plays,a man plays\nno,"said ""no""",a dog\nno,,x\n')
    elif path.suffix == ".parquet":
        columns = {"text": [one.text for one in ROWS], "label": labels, "text_pair": [one.text_pair for one in ROWS]}
        pq.write_table(pa.table(columns), path)
    else:
        path.write_text(
            '{"text": "a man plays", "text_pair": "someone plays", "label": "yes"}\n'
            '{"text": "a dog", "text_pair": "said \\"no\\"", "label": "no"}\n'
            '{"text": "x", "text_pair": "", "label": "no"}\n'
        )
    return path


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.parquet"])
def test_a_column_text_pair_makes_pairs_and_jsonl_keeps_them(tmp_path: Path, name: str) -> None:
    data = read_dataset(write(tmp_path / name))
    assert data.paired
    assert list(data.texts) == ROWS
    write_jsonl(tmp_path / "again.jsonl", data)
    assert read_dataset(tmp_path / "again.jsonl") == data


def test_another_column_can_be_named(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("text,hypothesis,label\na,b,yes\nc,d,no\n")
    assert not read_dataset(file).paired
    assert list(read_dataset(file, pair_column="hypothesis").texts) == [TextPair("a", "b"), TextPair("c", "d")]
    with pytest.raises(DatasetError, match=r"has no column 'premise'.*--pair-column"):
        read_dataset(file, pair_column="premise")


def test_a_row_without_its_second_text_is_named(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "a", "text_pair": "b", "label": "yes"}\n{"text": "c", "label": "no"}\n')
    with pytest.raises(DatasetError, match="line 2 has no 'text_pair', the second text of its pair"):
        read_dataset(file)
    short = tmp_path / "rows.csv"
    short.write_text("text,label,text_pair\na,yes,b\nc,no\n")
    with pytest.raises(DatasetError, match="line 3 has no 'text_pair'"):
        read_dataset(short)


def test_pairs_beside_single_texts_are_refused(tmp_path: Path) -> None:
    single = tmp_path / "single.csv"
    single.write_text("text,label\na,yes\n")
    with pytest.raises(DatasetError, match=r"rows.csv has pairs of texts .*single.csv has no second text"):
        read_datasets([write(tmp_path / "rows.csv"), single])


def test_pairs_are_no_single_texts(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="reads single texts"):
        _ = read_dataset(write(tmp_path / "rows.csv")).single_texts
