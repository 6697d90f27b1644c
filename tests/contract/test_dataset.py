"""Data files: what is read, and what is said about a file that cannot be."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.contract.dataset import Dataset, read_dataset, write_jsonl
from service.contract.errors import DatasetError

TEXTS = ["plain", 'with "quotes", commas\nand lines', "😀 family: 👩‍👩‍👧", "שלום, עולם", "", "\u2028 and \u0085"]
LABELS = ["a", "b", "a", "a|b", "c d", "ü"]


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def fault(path: Path, **options: str | None) -> str:
    """The message of the refusal, which names the file."""
    with pytest.raises(DatasetError) as caught:
        read_dataset(path, **options)  # type: ignore[arg-type]
    assert caught.value.exit_code == 2
    assert str(path) in str(caught.value)
    return str(caught.value)


class TestReading:
    def test_csv(self, tmp_path: Path) -> None:
        path = write(tmp_path, "a.csv", 'id,label,text\n1,good,"fine, really"\n2, bad ,"two\nlines"\n')
        assert read_dataset(path) == Dataset(["fine, really", "two\nlines"], ["good", "bad"])

    def test_csv_with_windows_line_ends(self, tmp_path: Path) -> None:
        path = write(tmp_path, "a.csv", "text,label\r\none,x\r\ntwo,y\r\n")
        assert read_dataset(path) == Dataset(["one", "two"], ["x", "y"])

    def test_jsonl_with_blank_lines_and_other_fields(self, tmp_path: Path) -> None:
        path = write(tmp_path, "a.jsonl", '{"text": "one", "label": "x", "id": 1}\n\n{"label": 2, "text": "two"}\r\n')
        assert read_dataset(path) == Dataset(["one", "two"], ["x", "2"])

    def test_parquet(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"label": LABELS, "id": range(6), "text": TEXTS}), tmp_path / "a.parquet")
        assert read_dataset(tmp_path / "a.parquet") == Dataset(TEXTS, LABELS)

    def test_parquet_with_numbers_for_labels(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"text": ["one", "two"], "label": [0, 1]}), tmp_path / "a.parquet")
        assert read_dataset(tmp_path / "a.parquet").targets == ["0", "1"]

    def test_jsonl_round_trip(self, tmp_path: Path) -> None:
        write_jsonl(tmp_path / "a.jsonl", Dataset(TEXTS, LABELS))
        assert read_dataset(tmp_path / "a.jsonl") == Dataset(TEXTS, LABELS)

    def test_jsonl_round_trip_without_labels(self, tmp_path: Path) -> None:
        write_jsonl(tmp_path / "a.jsonl", Dataset(TEXTS, None))
        assert read_dataset(tmp_path / "a.jsonl", label_column=None) == Dataset(TEXTS, None)

    @settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    @given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1))
    def test_any_text_survives_jsonl(self, tmp_path: Path, texts: list[str]) -> None:
        data = Dataset(texts, ["x"] * len(texts))
        write_jsonl(tmp_path / "a.jsonl", data)
        assert read_dataset(tmp_path / "a.jsonl") == data

    @pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
    def test_a_byte_order_mark_is_no_part_of_the_first_column(self, tmp_path: Path, name: str) -> None:
        content = "text,label\none,x\n" if name.endswith("csv") else '{"text": "one", "label": "x"}\n'
        assert read_dataset(write(tmp_path, name, content.encode("utf-8-sig"))) == Dataset(["one"], ["x"])

    @pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
    def test_emoji_and_right_to_left_text(self, tmp_path: Path, name: str) -> None:
        text = "😀 שלום مرحبا"
        content = f"text,label\n{text},ü\n" if name.endswith("csv") else f'{{"text": "{text}", "label": "ü"}}\n'
        assert read_dataset(write(tmp_path, name, content)) == Dataset([text], ["ü"])

    @pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
    def test_a_cell_of_1_mb(self, tmp_path: Path, name: str) -> None:
        text = "long " * 200_000
        content = f"text,label\n{text},x\n" if name.endswith("csv") else f'{{"text": "{text}", "label": "x"}}\n'
        assert read_dataset(write(tmp_path, name, content)).texts == [text]

    def test_other_column_names(self, tmp_path: Path) -> None:
        path = write(tmp_path, "a.CSV", "body,intent\none,x\n")
        assert read_dataset(path, text_column="body", label_column="intent") == Dataset(["one"], ["x"])

    def test_without_labels(self, tmp_path: Path) -> None:
        data = read_dataset(write(tmp_path, "a.csv", "text\none\n\ntwo\n"), label_column=None)
        assert len(data) == 2
        with pytest.raises(DatasetError, match="has none"):
            _ = data.targets

    def test_an_empty_text_is_a_text(self, tmp_path: Path) -> None:
        assert read_dataset(write(tmp_path, "a.csv", 'text,label\n"",x\n')).texts == [""]


class TestFaults:
    def test_a_missing_file(self, tmp_path: Path) -> None:
        assert "No such file" in fault(tmp_path / "none.csv")

    def test_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").mkdir()
        assert "cannot be read" in fault(tmp_path / "a.csv")

    @pytest.mark.parametrize("name", ["a.xlsx", "a"])
    def test_an_unknown_kind_of_file(self, tmp_path: Path, name: str) -> None:
        assert "give .csv, .jsonl or .parquet" in fault(write(tmp_path, name, "text,label\none,x\n"))

    def test_a_missing_column_names_those_present(self, tmp_path: Path) -> None:
        message = fault(write(tmp_path, "a.csv", "id,comment\n1,one\n"))
        assert "no column 'text'; it has 'id', 'comment'" in message

    @pytest.mark.parametrize(
        ("name", "content"),
        [("a.csv", "txt,label\none,x\n"), ("a.jsonl", '{"txt": "one", "label": "x"}\n')],
    )
    def test_a_misspelt_column_is_suggested(self, tmp_path: Path, name: str, content: str) -> None:
        assert "Did you mean 'txt'?" in fault(write(tmp_path, name, content))

    def test_a_misspelt_column_in_parquet(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"text": ["one"], "lable": ["x"]}), tmp_path / "a.parquet")
        assert "Did you mean 'lable'?" in fault(tmp_path / "a.parquet")

    def test_a_misspelt_column_below_a_blank_first_line(self, tmp_path: Path) -> None:
        assert "Did you mean 'txt'?" in fault(write(tmp_path, "a.jsonl", '\n{"txt": "one", "label": "x"}\n'))

    @pytest.mark.parametrize(("name", "said"), [("a.csv", "no column"), ("a.jsonl", "no rows"), ("a.parquet", "not a")])
    def test_an_empty_file(self, tmp_path: Path, name: str, said: str) -> None:
        assert said in fault(write(tmp_path, name, b""))

    def test_a_header_and_nothing_else(self, tmp_path: Path) -> None:
        assert "has no rows" in fault(write(tmp_path, "a.csv", "text,label\n"))

    def test_parquet_without_rows(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"text": pa.array([], pa.string()), "label": pa.array([], pa.string())}),
                       tmp_path / "a.parquet")  # fmt: skip
        assert "has no rows" in fault(tmp_path / "a.parquet")

    @pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
    def test_another_encoding_names_byte_and_line(self, tmp_path: Path, name: str) -> None:
        content = "text,label\none,x\ncaf\xe9,y\n" if name.endswith("csv") else '{"text": "a"}\n\n{"text": "\xe9"}\n'
        message = fault(write(tmp_path, name, content.encode("latin-1")))
        assert "not UTF-8: byte 0xe9 in line 3" in message
        assert "iconv" in message

    def test_utf_16(self, tmp_path: Path) -> None:
        assert "not UTF-8: byte 0xff in line 1" in fault(write(tmp_path, "a.csv", "text,label\n".encode("utf-16")))

    def test_more_cells_than_the_header(self, tmp_path: Path) -> None:
        message = fault(write(tmp_path, "a.csv", "text,label\none,x\nwell, then,y\n"))
        assert "line 3 has more cells than the header" in message

    def test_fewer_cells_than_the_header(self, tmp_path: Path) -> None:
        assert "row 2 has no 'label'" in fault(write(tmp_path, "a.csv", "text,label\none,x\ntwo\n"))

    def test_a_quote_that_never_closes(self, tmp_path: Path) -> None:
        assert "is not valid CSV" in fault(write(tmp_path, "a.csv", 'text,label\n"one,x\n'))

    def test_a_bad_json_line(self, tmp_path: Path) -> None:
        assert "line 2 is not valid JSON" in fault(
            write(tmp_path, "a.jsonl", '{"text": "one", "label": "x"}\n{"text": "two",\n')
        )

    def test_a_json_line_that_is_no_object(self, tmp_path: Path) -> None:
        assert "line 1 is not a JSON object" in fault(write(tmp_path, "a.jsonl", '["one", "x"]\n'))

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("a.csv", "text,label\none,x\ntwo,\n"),
            ("a.csv", 'text,label\none,x\ntwo,"  "\n'),
            ("a.jsonl", '{"text": "one", "label": "x"}\n{"text": "two", "label": null}\n'),
            ("a.jsonl", '{"text": "one", "label": "x"}\n{"text": "two"}\n'),
        ],
    )
    def test_a_blank_label_names_the_row(self, tmp_path: Path, name: str, content: str) -> None:
        assert "row 2 has no 'label'" in fault(write(tmp_path, name, content))

    def test_a_null_text_in_parquet(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"text": ["one", None], "label": ["x", "y"]}), tmp_path / "a.parquet")
        assert "row 2 has no 'text'" in fault(tmp_path / "a.parquet")

    def test_damaged_parquet(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"text": TEXTS, "label": LABELS}), tmp_path / "a.parquet")
        whole = (tmp_path / "a.parquet").read_bytes()
        fault(write(tmp_path, "a.parquet", whole[:-20]))
        fault(write(tmp_path, "a.parquet", whole[:4] + b"\xff" * (len(whole) - 12) + whole[-8:]))

    @pytest.mark.parametrize("value", ['["a", "b"]', '{"a": 1}'])
    def test_a_list_or_object_for_a_label_is_refused(self, tmp_path: Path, value: str) -> None:
        fault(write(tmp_path, "a.jsonl", f'{{"text": "one", "label": {value}}}\n'))

    def test_bytes_for_texts_are_not_read_as_their_python_spelling(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"text": [b"one"], "label": ["x"]}), tmp_path / "a.parquet")
        try:
            texts = read_dataset(tmp_path / "a.parquet").texts
        except DatasetError:
            return
        assert texts == ["one"]
