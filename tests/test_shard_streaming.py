"""Shards are written as their tokens come: the same content as ever, in memory that does not grow with the text."""

from __future__ import annotations

import errno
import shutil
import tracemalloc
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from hornbook.data.shards import open_split, read_shard, write_shard
from hornbook.errors import PassingError, UserError
from hornbook.text.corpora import open_corpus
from hornbook.text.tokenizer_training import train_tokenizer

FACTS = {"version": "1", "tokenizer": "t" * 64, "text": "x" * 64}


class Numbers:
    """A tokeniser of numbers between spaces, of any vocabulary."""

    def __init__(self, vocab: int) -> None:
        self.vocab, self.eos = vocab, vocab - 1

    def token_bytes(self, id: int) -> bytes:
        return b" %d" % id

    def encode(self, text: str) -> list[int]:
        return [int(number) for number in text.split()]


def spelled(ids: list[int]) -> str:
    return "".join(f" {id}" for id in ids)


def written_at_once(path: Path, pairs: list[tuple[str, list[int]]], tokenizer: Numbers) -> None:
    """The same shard as the safetensors library writes it."""
    dtype = np.uint16 if tokenizer.vocab <= 2**16 else np.uint32
    stream = [tokenizer.eos]
    starts = [1]
    for _, ids in pairs:
        stream += [*ids, tokenizer.eos]
        starts.append(len(stream))
    tensors = {
        "tokens": np.array(stream, dtype),
        "starts": np.array(starts, np.int64),
        "document_bytes": np.array([len(text.encode()) for text, _ in pairs], np.int64),
        "document_words": np.array([len(text.split()) for text, _ in pairs], np.int64),
    }
    more = {"vocab": str(tokenizer.vocab), "separator": str(tokenizer.eos), "restorable": "true"}
    save_file(tensors, path, FACTS | more)


@pytest.mark.parametrize("vocab", [100, 2**16, 2**16 + 1, 150_000])
@pytest.mark.parametrize("lengths", [[3], [1, 1], [5, 0, 7, 2], [20] * 30])
def test_a_shard_reads_as_one_that_was_written_at_once(vocab: int, lengths: list[int], tmp_path: Path) -> None:
    tokenizer, random = Numbers(vocab), np.random.default_rng(0)
    pairs = [(spelled(ids), ids) for ids in (random.integers(vocab - 1, size=n).tolist() for n in lengths)]
    write_shard(tmp_path / "streamed", iter(pairs), tokenizer, FACTS)
    written_at_once(tmp_path / "whole", pairs, tokenizer)
    ours, theirs = (read_shard(tmp_path / name, FACTS) for name in ("streamed", "whole"))
    for name in ("tokens", "starts", "document_bytes", "document_words"):
        assert getattr(ours, name).dtype == getattr(theirs, name).dtype, name
        assert np.array_equal(getattr(ours, name), getattr(theirs, name)), name
    for name in ("vocab", "separator", "restorable"):
        assert getattr(ours, name) == getattr(theirs, name), name


def test_ids_above_65535_are_kept(tmp_path: Path) -> None:
    tokenizer = Numbers(70_000)
    write_shard(tmp_path / "x", iter([(" 69998 3", [69_998, 3])]), tokenizer, FACTS)
    shard = read_shard(tmp_path / "x", FACTS)
    assert shard.tokens.dtype == np.uint32
    assert shard.tokens.tolist() == [69_999, 69_998, 3, 69_999]


@pytest.mark.parametrize("length", range(5))
def test_the_file_is_a_whole_safetensors_file(length: int, tmp_path: Path) -> None:
    ids = list(range(length))
    write_shard(tmp_path / "x", iter([(spelled(ids), ids)] * 3), Numbers(50), FACTS)
    with safe_open(tmp_path / "x", framework="pt") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        assert file.metadata() == FACTS | {"vocab": "50", "separator": "49", "restorable": "true"}
    assert found["tokens"].tolist() == [49, *([*ids, 49] * 3)]
    assert found["starts"].tolist() == [1, length + 2, 2 * length + 3, 3 * length + 4]
    header = 8 + int.from_bytes((tmp_path / "x").read_bytes()[:8], "little")
    assert header % 8 == 0
    assert sum(tensor.numpy().nbytes for tensor in found.values()) + header == (tmp_path / "x").stat().st_size


def test_tokens_are_mapped_and_not_read(tmp_path: Path) -> None:
    write_shard(tmp_path / "x", iter([(spelled([1, 2]), [1, 2])]), Numbers(50), FACTS)
    tokens = read_shard(tmp_path / "x", FACTS).tokens
    assert isinstance(tokens, np.memmap)
    assert Path(str(tokens.filename)) == tmp_path / "x"
    assert tokens.offset % 8 == 0


def test_memory_does_not_grow_with_the_text(tmp_path: Path) -> None:
    ids = [7] * 2000
    pair = (spelled(ids), ids)

    def peak(documents: int) -> int:
        tracemalloc.start()
        write_shard(tmp_path / str(documents), (pair for _ in range(documents)), Numbers(50), FACTS)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    few, many = peak(10), peak(3000)
    assert (tmp_path / "3000").stat().st_size > 12e6
    assert many - few < 0.5e6  # 24 bytes a document are 72 kB; the tokens themselves would be 12 MB


@pytest.mark.parametrize("kind", ["bytes", "bpe", "word", "char"])
def test_whether_a_text_is_restored_is_judged_as_decoding_does(kind: str, tmp_path: Path) -> None:
    tokenizer = train_tokenizer(kind, ["the quick brown fox\n\n  jumps; é 日本"] * 3, 270 if kind == "bpe" else None)
    texts = ["the quick brown fox", "fox jumps", "brown \n é", "quite unknown wörds", "日", ""]
    for number, text in enumerate(texts):
        ids = tokenizer.encode(text)
        write_shard(tmp_path / f"{number}", iter([(text, ids)]), tokenizer, FACTS)
        assert read_shard(tmp_path / f"{number}", FACTS).restorable == (tokenizer.decode(ids) == text)


def test_a_tokeniser_whose_ids_alone_say_no_bytes_is_asked_to_decode(tmp_path: Path) -> None:
    class Joined(Numbers):
        def token_bytes(self, id: int) -> None:
            return None

        def decode(self, ids: list[int]) -> str:
            return " ".join(map(str, ids))

    for text, restorable in (("1 2", True), ("1  2", False)):
        write_shard(tmp_path / text, iter([(text, [1, 2])]), Joined(50), FACTS)
        assert read_shard(tmp_path / text, FACTS).restorable == restorable


def failing(error: Exception) -> Iterator[tuple[str, list[int]]]:
    yield " 1 2", [1, 2]
    raise error


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), PassingError, "could not write .*No space left"),
        (UserError("not a text"), UserError, "^not a text$"),
        (KeyboardInterrupt(), KeyboardInterrupt, "^$"),
    ],
)
def test_what_ends_early_leaves_nothing_behind(
    error: Exception, kind: type[BaseException], told: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=told):
        write_shard(tmp_path / "x", failing(error), Numbers(50), FACTS)
    assert list(tmp_path.iterdir()) == []


def test_a_split_without_documents_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no document"):
        write_shard(tmp_path / "x", iter([]), Numbers(50), FACTS)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_too_small_is_noticed_before_anything_is_written(
    text_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, tokenizer = open_corpus(str(text_folder)), train_tokenizer("bytes", [])
    tokens = corpus.size("train") + corpus.measure("train").documents  # a byte is a token, two bytes on disk
    needed = 2 * tokens + 24 * corpus.measure("train").documents
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, int(0.8 * needed)))
    with pytest.raises(UserError, match=r"train as tokens takes about .* GB .*HORNBOOK_HOME") as error:
        open_split(corpus, tokenizer, "train", tmp_path)
    assert "\n" not in str(error.value)
    assert not any(path.is_file() for path in tmp_path.rglob("*"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, int(1.2 * needed)))
    assert open_split(corpus, tokenizer, "train", tmp_path).documents == corpus.measure("train").documents
