"""Data files: what is read, and what is said about a file that cannot be."""

from __future__ import annotations

import gzip
import io
import logging
import os
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.contract.dataset import Dataset, read_dataset, read_datasets, write_jsonl
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
        assert "is a folder" in fault(tmp_path / "a.csv")

    def test_what_is_no_regular_file_is_not_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "a.csv")
        assert "no regular file" in fault(tmp_path / "a.csv")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_a_file_that_may_not_be_read(self, tmp_path: Path) -> None:
        write(tmp_path, "a.csv", "text,label\none,x\n").chmod(0)
        assert "cannot be read: Permission denied" in fault(tmp_path / "a.csv")

    @pytest.mark.parametrize("name", ["a.xlsx", "a"])
    def test_an_unknown_kind_of_file(self, tmp_path: Path, name: str) -> None:
        assert "give .csv, .jsonl, .parquet or .conll" in fault(write(tmp_path, name, "text,label\none,x\n"))

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

    @pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
    def test_an_empty_file(self, tmp_path: Path, name: str) -> None:
        assert "is empty" in fault(write(tmp_path, name, b""))

    @pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
    def test_blank_lines_only(self, tmp_path: Path, name: str) -> None:
        fault(write(tmp_path, name, "\n \n\n"))

    def test_a_header_and_nothing_else(self, tmp_path: Path) -> None:
        assert "has no rows" in fault(write(tmp_path, "a.csv", "text,label\n"))

    def test_parquet_without_rows(self, tmp_path: Path) -> None:
        pq.write_table(
            pa.table({"text": pa.array([], pa.string()), "label": pa.array([], pa.string())}), tmp_path / "a.parquet"
        )
        assert "has no rows" in fault(tmp_path / "a.parquet")

    @pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
    def test_another_encoding_names_byte_and_line(self, tmp_path: Path, name: str) -> None:
        content = "text,label\none,x\ncaf\xe9,y\n" if name.endswith("csv") else '{"text": "a"}\n\n{"text": "\xe9"}\n'
        message = fault(write(tmp_path, name, content.encode("latin-1")))
        assert "not UTF-8: byte 0xe9 in line 3" in message
        assert "iconv" in message

    def test_more_cells_than_the_header(self, tmp_path: Path) -> None:
        message = fault(write(tmp_path, "a.csv", "text,label\none,x\nwell, then,y\n"))
        assert "line 3 has more cells than the header" in message

    def test_fewer_cells_than_the_header(self, tmp_path: Path) -> None:
        assert "line 3 has no 'label': it has 1 cell of 2" in fault(
            write(tmp_path, "a.csv", "text,label\none,x\ntwo\n")
        )

    def test_a_quote_that_never_closes(self, tmp_path: Path) -> None:
        assert "is not valid CSV" in fault(write(tmp_path, "a.csv", 'text,label\n"one,x\n'))

    def test_a_bad_json_line(self, tmp_path: Path) -> None:
        assert "line 2 is not valid JSON" in fault(
            write(tmp_path, "a.jsonl", '{"text": "one", "label": "x"}\n{"text": "two",\n')
        )

    def test_a_json_line_that_is_no_object(self, tmp_path: Path) -> None:
        assert "line 1 is not a JSON object" in fault(write(tmp_path, "a.jsonl", '["one", "x"]\n'))

    def test_a_column_that_is_there_twice(self, tmp_path: Path) -> None:
        message = fault(write(tmp_path, "a.csv", "text,label,text\none,x,two\n"))
        assert "the column 'text' 2 times, as columns 1 and 3" in message
        table = pa.Table.from_arrays([pa.array(["one"]), pa.array(["x"]), pa.array(["y"])], ["text", "label", "label"])
        pq.write_table(table, tmp_path / "a.parquet")
        assert "the column 'label' 2 times" in fault(tmp_path / "a.parquet")

    def test_a_null_text_in_parquet(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"text": ["one", None], "label": ["x", "y"]}), tmp_path / "a.parquet")
        assert "row 2 has no 'text'" in fault(tmp_path / "a.parquet")

    def test_damaged_parquet(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"text": TEXTS, "label": LABELS}), tmp_path / "a.parquet")
        whole = (tmp_path / "a.parquet").read_bytes()
        fault(write(tmp_path, "a.parquet", whole[:-20]))
        fault(write(tmp_path, "a.parquet", whole[:4] + b"\xff" * (len(whole) - 12) + whole[-8:]))

    def test_an_object_for_a_label_is_refused(self, tmp_path: Path) -> None:
        assert "line 1 has a dict" in fault(write(tmp_path, "a.jsonl", '{"text": "one", "label": {"a": 1}}\n'))

    def test_bytes_for_texts_are_not_read_as_their_python_spelling(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"text": [b"one"], "label": ["x"]}), tmp_path / "a.parquet")
        try:
            texts = read_dataset(tmp_path / "a.parquet").texts
        except DatasetError:
            return
        assert texts == ["one"]


class TestPlaces:
    """Every message names the line that an editor shows, or the row where there are no lines."""

    @pytest.mark.parametrize(
        ("name", "content", "place"),
        [
            ("a.csv", "text,label\none,x\ntwo,\n", "line 3"),
            ("a.csv", 'text,label\none,x\ntwo,"  "\n', "line 3"),
            ("a.csv", '\n\ntext,label\n\n"one\nand\nmore",x\n\ntwo,\n', "line 9"),
            ("a.csv", 'text,label\r\n"one\r\nmore",x\r\ntwo,\r\n', "line 4"),
            ("a.csv", "text,label\rone,x\rtwo,\r", "line 3"),
            ("a.csv", 'text,label\none,x\n"two\nlines",nan\n', "line 3"),
            ("a.tsv", "text\tlabel\none\tx\ntwo\t\n", "line 3"),
            ("a.jsonl", '{"text": "one", "label": "x"}\n{"text": "two", "label": null}\n', "line 2"),
            ("a.jsonl", '\n{"text": "one", "label": "x"}\n\n{"text": "two"}\n', "line 4"),
            ("a.jsonl", '{"text": "one", "label": "x"}\r{"text": "two", "label": NaN}\r', "line 2"),
        ],
    )
    def test_a_row_without_a_label(self, tmp_path: Path, name: str, content: str, place: str) -> None:
        assert f"{place} has no 'label'" in fault(write(tmp_path, name, content))

    @pytest.mark.parametrize(
        ("name", "content", "place"),
        [
            ("a.csv", 'text,label\n"one\nmore",x\nnan,y\n', "line 4"),
            ("a.jsonl", '{"text": "one", "label": "x"}\n\n{"text": NaN, "label": "x"}\n', "line 3"),
        ],
    )
    def test_a_row_without_a_text(self, tmp_path: Path, name: str, content: str, place: str) -> None:
        assert f"{place} has no 'text'" in fault(write(tmp_path, name, content))

    def test_rows_of_parquet_are_counted_from_1(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"text": ["one", "two"], "label": [1.0, float("nan")]}), tmp_path / "a.parquet")
        assert "row 2 has no 'label' (nan is a missing value)" in fault(tmp_path / "a.parquet")

    def test_a_quote_that_never_closes_is_named_where_it_opens(self, tmp_path: Path) -> None:
        assert "begins in line 3 is not valid CSV" in fault(write(tmp_path, "a.csv", 'text,label\none,x\n"two,x\n'))

    def test_a_dataset_knows_where_its_rows_are_from(self, tmp_path: Path) -> None:
        path = write(tmp_path, "a.csv", 'text,label\n"one\nmore",x\n\ntwo,y\n')
        assert [read_dataset(path).place(row) for row in (0, 1)] == [f"line 2 of {path}", f"line 5 of {path}"]
        assert Dataset(["one"], ["x"]).place(0) == "row 1"


class TestLabels:
    @pytest.mark.parametrize("cell", ["food | service", " food|service ", "food|service|food", "\u00a0food |\tservice"])
    def test_spaces_and_repetitions_in_a_cell_do_not_count(self, tmp_path: Path, cell: str) -> None:
        assert read_dataset(write(tmp_path, "a.csv", f"text,label\none,{cell}\n")).targets == ["food|service"]

    @pytest.mark.parametrize("cell", ["a|", "|a", "a||b", "|", "a|  |b", "a|nan"])
    def test_a_stray_separator_names_the_line(self, tmp_path: Path, cell: str) -> None:
        assert "line 3 has " in fault(write(tmp_path, "a.csv", f"text,label\none,x\ntwo,{cell}\n"))

    @pytest.mark.parametrize("value", ['["a", ""]', '["a|b"]', '["nan"]', "[null]", "[[1]]", '"nan"'])
    def test_a_list_with_what_is_no_label_names_the_line(self, tmp_path: Path, value: str) -> None:
        assert "line 1 has " in fault(write(tmp_path, "a.jsonl", f'{{"text": "one", "label": {value}}}\n'))

    @pytest.mark.parametrize("label", ["none", "null", "NA", "N/A", "0", "naan"])
    def test_only_nan_is_no_label(self, tmp_path: Path, label: str) -> None:
        assert read_dataset(write(tmp_path, "a.csv", f"text,label\none,{label}\n")).targets == [label]

    def test_an_empty_cell_beside_several_labels_is_none_of_them(self, tmp_path: Path) -> None:
        data = read_dataset(write(tmp_path, "a.csv", "text,label\none,x|y\ntwo,\nthree,x\n"))
        assert data.targets == ["x|y", "", "x"]
        assert data.several_labels

    def test_lists_are_sets_of_labels(self, tmp_path: Path) -> None:
        path = write(tmp_path, "a.jsonl", '{"text": "one", "label": ["x", " y", "x"]}\n{"text": "two", "label": []}\n')
        assert read_dataset(path).targets == ["x|y", ""]
        pq.write_table(pa.table({"text": ["one", "two"], "label": [["x"], []]}), tmp_path / "a.parquet")
        data = read_dataset(tmp_path / "a.parquet")
        assert (data.targets, data.several_labels) == (["x", ""], True)

    def test_one_file_of_several_that_has_rows_with_several_labels_speaks_for_all(self, tmp_path: Path) -> None:
        files = [write(tmp_path, "a.csv", "text,label\none,x|y\n"), write(tmp_path, "b.csv", "text,label\ntwo,\n")]
        assert [data.targets for data in read_datasets(files)] == [["x|y"], [""]]
        assert "line 2 has no 'label'" in fault(files[1])

    def test_sets_survive_jsonl(self, tmp_path: Path) -> None:
        data = Dataset(["one", "two"], ["x", ""], sets=True)
        write_jsonl(tmp_path / "a.jsonl", data)
        again = read_dataset(tmp_path / "a.jsonl")
        assert (again, again.several_labels) == (data, True)


class TestOtherFiles:
    """What a file is, is seen from its content."""

    @pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
    @pytest.mark.parametrize("packed", [False, True])
    @pytest.mark.parametrize(
        ("name", "content"),
        [("a.csv", "text,label\n😀 שלום,x\n"), ("a.jsonl", '{"text": "😀 שלום", "label": "x"}\n')],
    )
    def test_a_byte_order_mark_and_gzip_are_followed(
        self, tmp_path: Path, name: str, content: str, encoding: str, packed: bool
    ) -> None:
        raw = content.encode(encoding)
        path = write(tmp_path, name, gzip.compress(raw) if packed else raw)
        assert read_dataset(path) == Dataset(["😀 שלום"], ["x"])

    def test_the_name_of_a_gzip_file_may_say_so(self, tmp_path: Path) -> None:
        path = write(tmp_path, "a.csv.gz", gzip.compress(b"text,label\none,x\n"))
        assert read_dataset(path) == Dataset(["one"], ["x"])

    def test_a_gzip_file_that_is_cut_short(self, tmp_path: Path) -> None:
        whole = gzip.compress(os.urandom(2000))
        assert "damaged gzip" in fault(write(tmp_path, "a.csv", whole[:-100]))

    @pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
    @pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
    def test_utf_16_without_a_mark_names_the_command(self, tmp_path: Path, name: str, encoding: str) -> None:
        message = fault(write(tmp_path, name, "text,label\nfine,x\n".encode(encoding)))
        assert f"`iconv -f {encoding.replace('-', '').replace('utf', 'UTF-').upper()} -t UTF-8 " in message

    def test_utf_16_that_is_cut_short(self, tmp_path: Path) -> None:
        assert "damaged at byte" in fault(write(tmp_path, "a.csv", "text,label\n".encode("utf-16")[:-1]))

    @pytest.mark.parametrize(("name", "line"), [("a.csv", 3), ("a.jsonl", 3)])
    def test_a_nul_byte_names_the_line(self, tmp_path: Path, name: str, line: int) -> None:
        assert f"NUL byte in line {line}" in fault(write(tmp_path, name, "text,label\none,x\ntw\0o,y\n"))

    def test_binary_gets_no_advice_about_encodings(self, tmp_path: Path) -> None:
        message = fault(write(tmp_path, "a.csv", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256))))
        assert "NUL byte" in message

    @pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
    def test_an_excel_file(self, tmp_path: Path, name: str) -> None:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("xl/workbook.xml", "<workbook/>")
        assert "ZIP archive, as Excel's" in fault(write(tmp_path, name, buffer.getvalue()))

    @pytest.mark.parametrize("name", ["a b.csv", "a b.jsonl"])
    def test_parquet_under_another_name(self, tmp_path: Path, name: str) -> None:
        pq.write_table(pa.table({"text": ["one"], "label": ["x"]}), tmp_path / name)
        message = fault(tmp_path / name)
        assert f"`mv '{tmp_path / name}' '{tmp_path / 'a b'}'.parquet`" in message

    @pytest.mark.parametrize("content", ["text,label\none,x\n", '{"text": "one", "label": "x"}\n'])
    def test_text_named_parquet(self, tmp_path: Path, content: str) -> None:
        assert "give it the suffix .csv or .jsonl" in fault(write(tmp_path, "a.parquet", content))

    def test_json_lines_named_csv_and_csv_named_jsonl(self, tmp_path: Path) -> None:
        assert "as JSON lines do" in fault(write(tmp_path, "a.csv", '{"text": "one", "label": "x"}\n'))
        assert "give it the suffix .csv" in fault(write(tmp_path, "a.jsonl", "text,label\none,x\n"))

    def test_one_json_array_names_the_command(self, tmp_path: Path) -> None:
        assert "`jq -c '.[]' " in fault(write(tmp_path, "a.jsonl", '[{"text": "one", "label": "x"}]\n'))

    def test_a_lone_surrogate_in_json(self, tmp_path: Path) -> None:
        assert "not valid JSON" in fault(write(tmp_path, "a.jsonl", '{"text": "\\ud800", "label": "x"}\n'))


class TestHeaders:
    @pytest.mark.parametrize(("delimiter", "said"), [(";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars")])
    def test_the_delimiter_is_the_one_by_which_the_header_has_the_columns(
        self, tmp_path: Path, delimiter: str, said: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        content = 'id;text;label\n1;well, then;x\n2;"a;b\nc";y\n'.replace(";", delimiter)
        with caplog.at_level(logging.INFO):
            data = read_dataset(write(tmp_path, "a.csv", content))
        assert data == Dataset(["well, then", f"a{delimiter}b\nc"], ["x", "y"])
        assert f"separated by {said}" in caplog.text

    def test_other_columns_after_semicolons_are_named_one_by_one(self, tmp_path: Path) -> None:
        message = fault(write(tmp_path, "a.csv", "Comment;Label\nwell, then;x\nfine;y\n"))
        assert "no column 'text'; it has 'Comment', 'Label'. Name it with --text-column" in message

    def test_case_and_spaces_in_a_header(self, tmp_path: Path) -> None:
        assert read_dataset(write(tmp_path, "a.csv", "text, label\none,x\n")).targets == ["x"]
        message = fault(write(tmp_path, "a.csv", "text,Label\none,x\n"))
        assert "Did you mean 'Label'? Then add --label-column Label" in message

    @pytest.mark.parametrize(
        ("content", "options"),
        [
            ("this one was good,pos\nthat one was bad,neg\n", "--text-column 1 --label-column 2"),
            ("pos;good\nneg;bad, really\npos;fine, yes\n", "--text-column 2 --label-column 1"),
            ("1\tgood\n2\tbad\n", "--text-column 2 --label-column 1"),
        ],
    )
    def test_a_file_without_a_header_is_read_by_the_options_that_the_message_names(
        self, tmp_path: Path, content: str, options: str
    ) -> None:
        path = write(tmp_path, "a.csv", content)
        message = fault(path)
        assert "its first line looks like data" in message
        assert message.endswith(options)
        _, text, _, label = options.split()
        data = read_dataset(path, text_column=text, label_column=label)
        assert len(data) == content.count("\n")
        assert data.place(0) == f"line 1 of {path}"

    def test_a_place_that_is_not_there(self, tmp_path: Path) -> None:
        path = write(tmp_path, "a.csv", "one good thing,x\n")
        assert "no column 3: its first row has 2 cells" in fault(path, text_column="1", label_column="3")

    def test_columns_that_are_called_by_numbers_go_first(self, tmp_path: Path) -> None:
        path = write(tmp_path, "a.csv", "2,1\none,x\n")
        assert read_dataset(path, text_column="2", label_column="1") == Dataset(["one"], ["x"])
