"""The readable byte-level BPE learns what the library learns, and what an independent trainer learned."""

from __future__ import annotations

import inspect
import json
import os
from pathlib import Path

import pytest

from helpers import needs_data
from hornbook.text import reference_bpe
from hornbook.text.byte_alphabet import unspell
from hornbook.text.reference_bpe import encode, merged, train
from hornbook.text.tokenizer_training import train_tokenizer

DATA = Path(os.environ.get("HORNBOOK_DATA", "."))

TEXT = (
    "The hornbook taught the letters; the letters taught the words, the words the books.\n" * 3
    + "aaaa aaa aa naïve 日本 " * 4
)


def library_merges(texts: list[str], vocab: int):
    tokenizer = train_tokenizer("bpe", texts, vocab=vocab)
    merges = json.loads(tokenizer.core.to_str())["model"]["merges"]
    return tokenizer, [(unspell(left), unspell(right)) for left, right in merges]


def test_it_is_short_enough_to_be_read():
    assert len(inspect.getsource(reference_bpe).splitlines()) < 100


def test_training_and_encoding_equal_the_library_on_text_with_many_ties():
    tokenizer, merges = library_merges([TEXT, "more letters"], 305)
    learned = train([TEXT, "more letters"], len(merges))
    assert learned == merges
    for text in (TEXT, "letters never seen: Ω", ""):
        assert encode(text, learned) == [tokenizer.token_bytes(id) for id in tokenizer.encode(text)]


def test_the_two_ways_to_break_ties_differ():
    text = "xy xy ab ab"
    assert train([text], 1) == [(b"a", b"b")]
    assert train([text], 1, ties="greater bytes") == [(b"x", b"y")]


def test_training_stops_when_no_pair_occurs_twice():
    assert train(["ab ab cd"], 10) == [(b"a", b"b")]
    assert train(["abcdef"], 10) == []


def test_merging_joins_from_left_to_right_without_overlap():
    assert merged((b"a", b"a", b"a"), (b"a", b"a")) == (b"aa", b"a")
    assert merged((b"a", b"b", b"a", b"b", b"c"), (b"a", b"b")) == (b"ab", b"ab", b"c")


@needs_data("bpe-reference")
def test_ties_to_the_greater_pair_give_the_reference_merges():
    text = (DATA / "bpe-reference" / "corpus.en").read_text(encoding="utf-8")
    lines = (DATA / "bpe-reference" / "train-bpe-reference-merges.txt").read_text(encoding="utf-8").splitlines()
    expected = [tuple(unspell(part) for part in line.split(" ")) for line in lines]
    assert train([text], 500 - 256 - 1, ties="greater bytes") == expected


@needs_data("bpe-reference")
@pytest.mark.parametrize("vocab", [500, 1500])
def test_ties_to_the_smaller_ids_give_the_librarys_merges_on_real_text(vocab):
    text = (DATA / "bpe-reference" / "corpus.en").read_text(encoding="utf-8")
    tokenizer, merges = library_merges([text], vocab)
    learned = train([text], len(merges))
    assert learned == merges
    for name in ("address.txt", "german.txt"):
        other = (DATA / "bpe-reference" / name).read_text(encoding="utf-8")[:20_000]
        assert encode(other, learned) == [tokenizer.token_bytes(id) for id in tokenizer.encode(other)]
