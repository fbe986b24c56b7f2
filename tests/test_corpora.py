"""Corpora: documents by split, never in two splits, and one clear line for what is no text."""

from __future__ import annotations

import collections
import csv
import gzip
import hashlib
import inspect
import io
import json
import os
from pathlib import Path

import pytest

from helpers import needs_data
from hornbook.errors import UserError
from hornbook.text.corpora import corpus_names, open_corpus
from hornbook.text.files import standard_input
from hornbook.text.splits import SPLITS, blocks, cut_one_document, hash64, repaired, split_of
from hornbook.text.wikitext import articles

DATA = os.environ.get("HORNBOOK_DATA")


def all_documents(corpus) -> list[str]:
    return [text for split in corpus.splits for text in corpus.documents(split)]


# --- by name


def test_an_unknown_name_is_answered_with_the_nearest_and_all_names():
    with pytest.raises(
        UserError, match=r"Did you mean 'python-docs'\? Possible: .*wikitext-2.*No file or folder"
    ) as error:
        open_corpus("python-doc")
    assert "\n" not in str(error.value)


def test_every_file_in_the_folder_is_a_corpus_with_its_own_name():
    for name in corpus_names():
        corpus = open_corpus(name)
        assert corpus.name == name
        assert corpus.licence
        assert corpus.source


def test_python_docs_needs_no_network_and_no_import_of_the_modules(monkeypatch):
    monkeypatch.setattr("socket.socket.connect", None)
    corpus = open_corpus("python-docs")
    assert 2e6 < sum(corpus.size(split) for split in SPLITS) < 3e6
    train = "".join(corpus.documents("train"))
    assert "zzz" not in corpus.describe()
    assert corpus.sha256("train") == hashlib.sha256(train.encode()).hexdigest()
    assert corpus.size("train") == len(train.encode())


def test_no_document_and_no_docstring_of_python_docs_is_in_two_splits():
    corpus = open_corpus("python-docs")
    documents = all_documents(corpus)
    assert len(documents) == len(set(documents)) > 500
    text = inspect.getdoc(collections.Counter) or ""
    assert sum(text in "".join(corpus.documents(split)) for split in SPLITS) == 1
    shares = [corpus.size(split) / sum(map(corpus.size, SPLITS)) for split in SPLITS]
    assert shares[0] > 0.8
    assert min(shares) > 0.02


def test_python_code_is_the_library_without_its_tests():
    corpus = open_corpus("python-code")
    size = sum(map(corpus.size, SPLITS))
    assert 9e6 < size < 16e6
    assert not any("import unittest.mock" in text and "class Test" in text for text in corpus.documents("validation"))


def test_an_unknown_split_lists_the_possible_ones(tmp_path):
    with pytest.raises(UserError, match="unknown split 'valid'"):
        open_corpus("python-docs").documents("valid")


def test_describe_is_one_line_with_size_hash_and_licence(tmp_path):
    (tmp_path / "a.txt").write_text("some words\n\n" * 100)
    line = open_corpus(str(tmp_path / "a.txt")).describe()
    assert "\n" not in line
    assert "licence not stated" in line
    assert open_corpus(str(tmp_path / "a.txt")).sha256("train")[:12] in line


# --- splits


def test_a_documents_split_depends_on_nothing_but_the_document(tmp_path):
    texts = [f"document {number}" for number in range(300)]
    (tmp_path / "few").mkdir()
    (tmp_path / "many").mkdir()
    for number, text in enumerate(texts):
        (tmp_path / "many" / f"{number:03}.txt").write_text(text)
        if number < 200:
            (tmp_path / "few" / f"{number:03}.txt").write_text(text)
    few, many = open_corpus(str(tmp_path / "few")), open_corpus(str(tmp_path / "many"))
    for split in SPLITS:
        assert set(few.documents(split)) <= set(many.documents(split))
        assert all(split_of(hash64(text)) == split for text in many.documents(split))


@pytest.mark.parametrize("count", range(2, 40))
def test_two_documents_are_enough_for_train_and_validation_and_three_for_test(count):
    keys = [hash64(f"{count} {number}") for number in range(count)]
    names = repaired(keys)
    found = {names.get(key) or split_of(key) for key in keys}
    assert found >= ({"train", "validation"} if count == 2 else set(SPLITS))


@pytest.mark.parametrize(
    "text", ["a", "ab", "one two three", "word " * 50, "line\n" * 5000, "par\n\nagraph " * 2000, "x" * 99999]
)
def test_blocks_joined_are_the_text(text):
    assert "".join(blocks(text)) == text


def test_one_long_document_is_cut_so_that_all_three_splits_have_text_and_nothing_is_lost():
    text = "".join(f"Paragraph {number} says {number * 7} things.\n\n" for number in range(2000))
    cut = cut_one_document(text)
    assert set(cut) == set(SPLITS)
    assert sum(len(piece) for pieces in cut.values() for piece in pieces) == len(text)
    assert all(piece in text for pieces in cut.values() for piece in pieces)
    assert len("".join(cut["train"])) > 0.7 * len(text)


# --- by path


ROWS = [
    {"text": f"row {number}, with a comma\nand a line feed: é 日本", "title": f"title {number}"} for number in range(40)
]


def write_rows(path: Path, form: str) -> None:
    if form == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in ROWS) + "\n", encoding="utf-8")
    elif form == "csv":
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["text", "title"])
            writer.writeheader()
            writer.writerows(ROWS)
    else:
        pyarrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(ROWS), path)


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_rows_of_every_form_are_the_same_documents(tmp_path, form):
    write_rows(tmp_path / f"rows.{form}", form)
    corpus = open_corpus(str(tmp_path / f"rows.{form}"))
    assert sorted(all_documents(corpus)) == sorted(row["text"] for row in ROWS)
    titles = open_corpus(str(tmp_path / f"rows.{form}"), column="title")
    assert sorted(all_documents(titles)) == sorted(row["title"] for row in ROWS)


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_a_missing_column_is_answered_with_the_columns(tmp_path, form):
    write_rows(tmp_path / f"rows.{form}", form)
    with pytest.raises(UserError, match=r"no column 'body' .*Its columns: text, title"):
        all_documents(open_corpus(str(tmp_path / f"rows.{form}"), column="body"))


def test_compressed_files_are_read_as_what_they_hold(tmp_path):
    zstandard = pytest.importorskip("zstandard")
    write_rows(tmp_path / "rows.jsonl", "jsonl")
    data = (tmp_path / "rows.jsonl").read_bytes()
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(data))
    (tmp_path / "b.jsonl.zst").write_bytes(zstandard.compress(data))
    plain = all_documents(open_corpus(str(tmp_path / "rows.jsonl")))
    assert plain
    assert all_documents(open_corpus(str(tmp_path / "a.jsonl.gz"))) == plain
    assert all_documents(open_corpus(str(tmp_path / "b.jsonl.zst"))) == plain


def test_a_folder_is_read_recursively_in_order_without_hidden_and_binary_files(tmp_path):
    (tmp_path / "b" / "c").mkdir(parents=True)
    (tmp_path / ".git").mkdir()
    texts = {"a.txt": "first", "b/c/d.md": "second", "b/e.txt": "third", "z.txt": "fourth"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    (tmp_path / ".git" / "x.txt").write_text("hidden")
    (tmp_path / "b" / ".notes.txt").write_text("hidden")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\0\0")
    (tmp_path / "empty.txt").write_text("")
    assert sorted(all_documents(open_corpus(str(tmp_path)))) == sorted(texts.values())


def test_a_folder_with_train_and_test_files_keeps_them_and_says_that_it_has_no_validation(tmp_path):
    (tmp_path / "train.txt").write_text("to learn from")
    (tmp_path / "test.txt").write_text("to be tested on")
    corpus = open_corpus(str(tmp_path))
    assert list(corpus.documents("train")) == ["to learn from"]
    assert list(corpus.documents("test")) == ["to be tested on"]
    with pytest.raises(UserError, match=r"has no validation split. It has: train, test. Put a file .* named after"):
        corpus.documents("validation")


def test_a_text_too_short_for_a_split_says_what_gives_it_one(tmp_path):
    (tmp_path / "tiny.txt").write_text("hello\n")
    with pytest.raises(UserError, match=r"has no validation split. It has: train. .* give a longer text"):
        open_corpus(str(tmp_path / "tiny.txt")).documents("validation")


def test_a_pipe_is_read_once_and_split_like_a_file(tmp_path, monkeypatch):
    text = "".join(f"Paragraph {number}.\n\n" for number in range(500))
    (tmp_path / "a.txt").write_text(text)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    standard_input.cache_clear()
    pipe, again, file = open_corpus("-"), open_corpus("-"), open_corpus(str(tmp_path / "a.txt"))
    assert pipe.splits == again.splits == file.splits == SPLITS
    for split in SPLITS:
        assert list(pipe.documents(split)) == list(file.documents(split))


def test_equal_text_with_other_document_ends_has_another_fingerprint(tmp_path):
    for name, rows in (("a", ["one", "two"] * 2), ("b", ["on", "etwo"] * 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    a, b = (open_corpus(str(tmp_path / name)).measure("train") for name in "ab")
    assert a.sha256 == b.sha256
    assert a.fingerprint != b.fingerprint


BAD = {
    "empty.txt": (b"", "is empty"),
    "binary.txt": (b"some\0thing", r"NUL byte at offset 4"),
    "latin.txt": ("caf\u00e9".encode("latin-1"), r"not UTF-8: byte 0xe9 at offset 3"),
    "bad.jsonl": (b'{"text": "a"}\n{"text"\n', r"line 2 of .* is not JSON"),
    "list.jsonl": (b"[1, 2]\n", "no JSON object"),
    "number.jsonl": (b'{"text": 3}\n', "holds int, not text"),
    "half.jsonl": (b'{"text": "\\ud800"}\n', "surrogate"),
    "none.jsonl": (b"\n\n", "no document"),
    "blank.jsonl": (b'{"text": ""}\n', "no document"),
    "header.csv": (b"text,title\n", "no document"),
    "broken.gz": (b"\x1f\x8b\x08nonsense", "damaged"),
    "cut.txt.gz": (gzip.compress(b"words " * 1000)[:-20], "damaged"),
    "bad.parquet": (b"PAR1nonsense", "cannot read"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_text_is_refused_in_one_line(tmp_path, name):
    data, message = BAD[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=message) as error:
        all_documents(open_corpus(str(tmp_path / name)))
    assert "\n" not in str(error.value)
    assert name in str(error.value)


def test_a_folder_without_text_is_refused(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"\0\0")
    with pytest.raises(UserError, match="no text file in the folder"):
        all_documents(open_corpus(str(tmp_path)))


# --- WikiText

WIKI = (
    " \n = First = \n \n It has = signs = in it . \n \n = = Section = = \n \n x \n = no title = \n \n y \n \n"
    " = nor this = \n z \n \n \n"
    " = Second \u2028 = \n \n Words . \n \n"
)


def test_an_article_begins_at_a_title_between_blank_lines_and_no_byte_is_lost():
    found = list(articles(io.StringIO(WIKI, newline="\n")))
    assert "".join(found) == WIKI
    assert [text.split("\n")[1] for text in found] == [" = First = ", " = Second \u2028 = "]


@pytest.mark.parametrize(
    "lines", [[], [" \n"], [" = Only = \n"], ["no title\n"], [" = A = \n", " \n", " = B = \n", " \n"]]
)
def test_articles_keep_every_line_of_odd_texts(lines):
    assert "".join(articles(lines)) == "".join(lines)


def test_a_file_that_is_not_the_original_wikitext_is_refused(tmp_path, monkeypatch):
    (tmp_path / "wikitext-2").mkdir()
    (tmp_path / "wikitext-2" / "train.txt").write_text(WIKI, encoding="utf-8")
    monkeypatch.setenv("HORNBOOK_DATA", str(tmp_path))
    with pytest.raises(UserError, match=r"the train text of wikitext-2 in .* has sha256 "):
        list(open_corpus("wikitext-2").documents("train"))


@needs_data("wikitext-2", "wikitext-2-raw")
@pytest.mark.parametrize(
    ("name", "split", "file", "count"),
    [
        ("wikitext-2", "train", "train.txt", 600),
        ("wikitext-2", "validation", "valid.txt", 60),
        ("wikitext-2-raw", "validation", "wiki.valid.raw", 60),
    ],
)
def test_wikitext_has_its_articles_and_is_the_file_byte_for_byte(name, split, file, count):
    corpus = open_corpus(name)
    documents = list(corpus.documents(split))
    assert len(documents) == count
    assert "".join(documents).encode() == (Path(str(DATA)) / name / file).read_bytes()


@needs_data("tinyshakespeare")
def test_tiny_shakespeare_is_split_in_order_and_whole():
    corpus = open_corpus("tinyshakespeare")
    text = "".join(all_documents(corpus))
    assert hashlib.sha256(text.encode()).hexdigest().startswith("86c4e6aa")
    assert 0.9 < corpus.size("train") / len(text.encode()) < 0.95


@needs_data("tinystories-sample")
def test_the_tiny_stories_sample_has_three_splits():
    corpus = open_corpus("tinystories")
    assert corpus.splits == SPLITS
    assert sum(map(corpus.size, SPLITS)) == 944426
