"""Rows that a user brings: every form alike, what is no table in one line, and splits that leak nothing."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hornbook.errors import UserError
from hornbook.tasks import columns_at
from hornbook.text.divided import Divided
from hornbook.text.files import read_documents
from hornbook.text.rows import column_of, label_of, read_rows, shuffled, split_rows, text_of
from hornbook.text.splits import SPLITS

ODD = 'said "no", then\nleft;\t日本 é'
ROWS = [{"text": f"{ODD} {number}", "label": str(number % 3)} for number in range(20)]


def as_csv(rows: list[dict[str, str]], separator: str = ",") -> bytes:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(rows[0]), delimiter=separator)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    pyarrow = pytest.importorskip("pyarrow")
    buffer = io.BytesIO()
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


FORMS: dict[str, Callable[[list[Any]], bytes]] = {
    "jsonl": lambda rows: "".join(json.dumps(row) + "\n" for row in rows).encode(),
    "json": lambda rows: json.dumps(rows, indent=1).encode(),
    "csv": as_csv,
    "tsv": lambda rows: as_csv(rows, "\t"),
    "parquet": as_parquet,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
def test_rows_of_every_form_are_the_same_with_quotes_and_line_ends_in_them(
    tmp_path: Path, form: str, packing: str
) -> None:
    data = FORMS[form](ROWS)
    if packing == ".gz":
        data = gzip.compress(data)
    elif packing == ".zst":
        data = pytest.importorskip("zstandard").compress(data)
    path = tmp_path / f"rows.{form}{packing}"
    path.write_bytes(data)
    rows = read_rows(str(path), ["text", "label"])
    assert rows == ROWS
    assert str(path) in rows[3].where


@pytest.mark.parametrize("form", ["jsonl", "json", "csv"])
def test_a_byte_order_mark_belongs_to_no_column(tmp_path: Path, form: str) -> None:
    (tmp_path / f"rows.{form}").write_bytes(b"\xef\xbb\xbf" + FORMS[form](ROWS))
    assert read_rows(str(tmp_path / f"rows.{form}")) == ROWS


def test_spaces_around_the_names_of_columns_belong_to_none(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text , label\none, a\n")
    assert [list(row) for row in read_rows(str(tmp_path / "rows.csv"), ["text", "label"])] == [["text", "label"]]


def test_tables_with_semicolons_and_tables_without_quoting_are_read(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text('text;label\n"one; or 1,5";a\ntwo;b\n')
    assert read_rows(str(tmp_path / "rows.csv")) == [
        {"text": "one; or 1,5", "label": "a"},
        {"text": "two", "label": "b"},
    ]
    (tmp_path / "rows.tsv").write_text('text\tlabel\n"No", he said\ta\ntwo\tb\n')
    assert [row["text"] for row in read_rows(str(tmp_path / "rows.tsv"))] == ['"No", he said', "two"]


def test_a_json_file_of_an_object_a_line_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_bytes(FORMS["jsonl"](ROWS))
    assert read_rows(str(tmp_path / "rows.json")) == ROWS


@pytest.mark.parametrize("form", FORMS)
def test_a_cell_of_a_million_characters_is_whole(tmp_path: Path, form: str) -> None:
    rows = [{"text": "word, " * 200_000, "label": "a"}]
    (tmp_path / f"rows.{form}").write_bytes(FORMS[form](rows))
    assert read_rows(str(tmp_path / f"rows.{form}")) == rows


@pytest.mark.parametrize("form", FORMS)
def test_a_missing_column_is_answered_with_those_that_there_are_and_the_flag(tmp_path: Path, form: str) -> None:
    path = str(tmp_path / f"rows.{form}")
    Path(path).write_bytes(FORMS[form](ROWS))
    with pytest.raises(UserError, match=r"no column 'stars' in .*Its columns: text, label"):
        read_rows(path, ["stars"])
    with pytest.raises(UserError, match=r"no column 'stars'.*Its columns: text, label.*--label COLUMN"):
        column_of("label", {"label": "stars"}, ("label",), ["text", "label"], path)
    with pytest.raises(UserError, match=r"no column 'prompt'.*--columns prompt=COLUMN"):
        column_of("prompt", {}, ("prompt", "question"), ["text", "label"], path)


BAD = {
    "none.csv": (None, "No such file"),
    "empty.csv": (b"", "is empty"),
    "empty.jsonl": (b"", "is empty"),
    "empty.json": (b"", "is empty"),
    "blank.jsonl": (b"\n\n", "has no rows"),
    "header.csv": (b"text,label\n", "has no rows"),
    "latin.csv": ("text\ncafé\n".encode("latin-1"), "not UTF-8: byte 0xe9 at offset 8"),
    "latin.jsonl": ('{"a": "x"}\n{"a": "é"}\n'.encode("latin-1"), "line 2 .*not UTF-8: byte 0xe9 at offset 7"),
    "nul.csv": (b"text\na\0b\n", "NUL byte at offset 6"),
    "bad.jsonl": (b'{"a": 1}\n\n{"a"\n', "line 3 of .* is not JSON"),
    "bad.json": (b'[{"a": 1},\n{"a"]', "is not JSON: .* at line 2, column 5"),
    "deep.json": (b"[" * 100_000, "cannot be read"),
    "digits.jsonl": (b'{"a": ' + b"1" * 5000 + b"}\n", "cannot be read"),
    "list.jsonl": (b"[1, 2]\n", "no JSON object"),
    "object.json": (b'{"rows": [], "more": 1}', "one JSON object with the keys rows, more, no array of objects"),
    "number.json": (b"3", "one JSON value, no array"),
    "open.csv": (b'text,label\n"never closed,1\nb,2\n', "row 1 of .*unexpected end of data"),
    "twice.csv": (b"text,text,label\na,b,c\n", "has two columns 'text'"),
    "cells.csv": (b"text,label\nyes, I did,1\n", "row 1 of .* has more cells than the header"),
    "cut.csv.gz": (gzip.compress(b"text\n" + b"words\n" * 1000)[:-20], "damaged"),
    "bad.parquet": (b"PAR1nonsense", "cannot read"),
    "notes.txt": (b"some words", "has no rows: examples come from .csv"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_table_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    data, told = BAD[name]
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=told) as error:
        read_rows(str(tmp_path / name))
    assert "\n" not in str(error.value)
    assert name in str(error.value)


@pytest.mark.parametrize("reader", ["documents", "suggestion"])
def test_a_comma_outside_of_quotes_cuts_no_text_short(reader: str, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("text\nHello, world. How are you?\n")
    with pytest.raises(UserError, match=r"row 1 of .* has more cells than the header"):
        list(read_documents(str(path), "text")) if reader == "documents" else columns_at(str(path))


def test_a_byte_order_mark_is_no_part_of_a_text(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes("\ufeffThe text".encode())
    assert list(read_documents(str(tmp_path / "x.txt"), "text")) == ["The text"]


def one(tmp_path: Path, text: str) -> Any:
    (tmp_path / "one.jsonl").write_text(text)
    return read_rows(str(tmp_path / "one.jsonl"))[0]


def test_half_a_surrogate_pair_is_refused_and_an_escaped_nul_is_a_character(tmp_path: Path) -> None:
    row = one(tmp_path, '{"text": "\\ud800", "label": "\\udfff", "odd": "a\\u0000b", "none": null, "number": 3}')
    for read in (lambda: text_of(row, "text"), lambda: label_of(row, "label")):
        with pytest.raises(UserError, match="half a surrogate pair"):
            read()
    assert text_of(row, "odd") == "a\0b"
    assert text_of(row, "none") == text_of(row, "not there") == ""
    with pytest.raises(UserError, match=r"'number' in line 1 .* holds int, not text"):
        text_of(row, "number")


@pytest.mark.parametrize(
    ("cell", "label"),
    [('"4"', "4"), ("4", "4"), ("4.0", "4"), ("true", "true"), ("false", "false"), ('" good "', "good"), ("-1", "-1")],
)
def test_labels_of_any_type_are_spelled_as_texts(tmp_path: Path, cell: str, label: str) -> None:
    assert label_of(one(tmp_path, f'{{"label": {cell}}}'), "label") == label


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ("null", "line 1 of .* has no label"),
        ('""', "has no label"),
        ('"  "', "has no label"),
        ("NaN", "has no label"),
        ("4.5", "holds 4.5"),
        ("[1]", r"holds \[1\]"),
    ],
)
def test_a_label_that_is_none_is_refused_with_its_row(tmp_path: Path, cell: str, told: str) -> None:
    with pytest.raises(UserError, match=told) as error:
        label_of(one(tmp_path, f'{{"label": {cell}}}'), "label")
    assert "one.jsonl" in str(error.value)


# --- splits


def texts(count: int) -> list[str]:
    return [f"text {number}" for number in range(count)]


@pytest.mark.parametrize("count", [3, 4, 9, 10, 11, 100, 1234])
def test_every_row_is_in_one_split_of_which_none_is_empty(count: int) -> None:
    rows = texts(count)
    parts = {split: split_rows(rows, split, 7) for split in SPLITS}
    assert sorted(row for part in parts.values() for row in part) == sorted(rows)
    assert len(parts["validation"]) == len(parts["test"]) == max(1, count // 10)
    assert split_rows(rows, "all") == rows


def test_splits_depend_on_the_rows_and_the_seed_but_not_on_their_order() -> None:
    rows = texts(300)
    assert split_rows(rows, "test", 1) == split_rows(rows[::-1], "test", 1)
    assert set(split_rows(rows, "test", 1)) != set(split_rows(rows, "test", 2))
    assert split_rows(rows, "train", 1) != [row for row in rows if row in set(split_rows(rows, "train", 1))]
    # a published division must not change: these are part of what a figure means
    assert split_rows(texts(30), "test", 0) == ["text 22", "text 0", "text 6"]
    assert shuffled(texts(5)) == shuffled(texts(5)[::-1]) != texts(5)


def test_rows_with_the_same_text_are_in_the_same_split_however_they_are_spaced() -> None:
    rows = [(f"text {number % 50}" + " " * (number % 3), number) for number in range(500)]
    where: dict[str, set[str]] = {}
    for split in SPLITS:
        for text, _ in split_rows(rows, split, 0, lambda row: row[0]):
            where.setdefault(text.strip(), set()).add(split)
    assert len(where) == 50
    assert all(len(found) == 1 for found in where.values())


@pytest.mark.parametrize("rows", [["a"], ["a", "b"], ["a", "a", "a", "b"]])
def test_fewer_than_three_different_rows_are_refused(rows: list[str]) -> None:
    with pytest.raises(UserError, match=r"x.csv has [12] different examples?: .* takes three at least"):
        split_rows(rows, "train", name="x.csv")
    assert split_rows(rows, "all") == rows


def test_an_unknown_split_lists_those_that_there_are() -> None:
    with pytest.raises(UserError, match=r"unknown split 'valid'.*validation"):
        split_rows(texts(9), "valid")


def divided(path: Path, seed: int = 0) -> Divided[str]:
    return Divided(str(path), lambda file: [row["text"] or None for row in read_rows(file)], str, seed)


def write(path: Path, rows: list[str]) -> None:
    path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))


def test_a_folder_keeps_the_splits_that_its_files_name_and_draws_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "train.jsonl", texts(50))
    write(tmp_path / "test-00000.jsonl", ["text 3", "other"])
    write(tmp_path / "notes.jsonl", ["not asked for"])
    found = divided(tmp_path)
    assert sorted(found("test")) == ["other", "text 3"]
    assert len(list(found("validation"))) == 5
    assert sorted([*found("train"), *found("validation")]) == sorted(texts(50))
    assert len(list(found("all"))) == 52
    assert "1 of 2 test examples are in train too" in capsys.readouterr().err


def test_a_folder_whose_files_name_no_split_is_divided_as_one(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", texts(20))
    write(tmp_path / "b.jsonl", ["b 1", "b 2"])
    found = divided(tmp_path)
    assert sorted(row for split in SPLITS for row in found(split)) == sorted([*texts(20), "b 1", "b 2"])


def test_folders_that_cannot_be_learnt_from_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no \.csv, .* file"):
        list(divided(tmp_path)("train"))
    write(tmp_path / "test.jsonl", texts(20))
    with pytest.raises(UserError, match="files for test, but none whose name says train"):
        list(divided(tmp_path)("train"))


def test_rows_that_are_left_out_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "a.jsonl", [*texts(5), "", ""])
    assert len(list(divided(tmp_path / "a.jsonl")("all"))) == 5
    assert "2 of 7 examples left out, without text" in capsys.readouterr().err
    write(tmp_path / "b.jsonl", ["", ""])
    with pytest.raises(UserError, match=r"no example in .*b.jsonl has text"):
        list(divided(tmp_path / "b.jsonl")("train"))
