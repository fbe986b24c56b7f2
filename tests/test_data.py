"""Shards, the sampler and masking."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from hornbook.data.batches import NO_TARGET, Batch, Batches
from hornbook.data.masking import mask_tokens
from hornbook.data.permutation import permute
from hornbook.data.shards import Shard, open_split, shard_path
from hornbook.errors import UserError
from hornbook.text.corpora import open_corpus
from hornbook.text.corpus import Corpus
from hornbook.text.tokenizer_training import train_tokenizer


def shard_of(lengths: list[int], separator: int = 0) -> Shard:
    """Documents of these lengths whose tokens count up, so that each target is told apart by its value."""
    tokens, starts, value = [separator], [1], 1
    for length in lengths:
        tokens += [*range(value, value + length), separator]
        value += length
        starts.append(len(tokens))
    sizes = np.array(lengths)
    return Shard(np.array(tokens, np.uint16), np.array(starts), sizes, sizes, value, separator, True)


@pytest.mark.parametrize("n", [1, 2, 3, 10, 64, 1000])
def test_permute_gives_every_element_once_and_depends_on_its_key(n: int) -> None:
    every = np.arange(n, dtype=np.int64)
    found = permute(every, n, (1, 2))
    assert sorted(found) == list(range(n))
    assert n < 10 or not np.array_equal(found, permute(every, n, (1, 3)))
    assert n < 10 or not np.array_equal(found, every)
    assert np.array_equal(permute(every[::-1].copy(), n, (1, 2)), found[::-1])  # any place can be asked for by itself


@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_every_token_is_a_target_exactly_once_an_epoch(epoch: int) -> None:
    shard = shard_of([13, 1, 40, 7, 22, 5])
    sampler = Batches(shard, batch=1, context=8, seed=3)
    targets = torch.cat([sampler.get(epoch * sampler.windows + i).targets[0] for i in range(sampler.windows)])
    assert sorted(targets[targets != NO_TARGET].tolist()) == sorted(shard.tokens[1:].tolist())


def test_a_target_is_the_token_after_its_input() -> None:
    sampler = Batches(shard_of([50, 60]), batch=4, context=8, seed=0)
    for k in range(5):
        b = sampler.get(k)
        inside = (b.targets[:, :-1] != NO_TARGET) & (b.targets[:, 1:] != NO_TARGET)
        assert torch.equal(b.targets[:, :-1][inside], b.tokens[:, 1:][inside])


def test_a_batch_is_a_pure_function_of_seed_and_number() -> None:
    shard = shard_of([100, 200])
    a, b, other = (Batches(shard, 4, 8, seed) for seed in (7, 7, 8))
    for _ in range(3):
        a.get(0)
    assert torch.equal(a.get(11).tokens, b.get(11).tokens)
    assert not torch.equal(a.get(11).tokens, other.get(11).tokens)
    assert not torch.equal(a.get(11).tokens, a.get(12).tokens)


def test_windows_start_elsewhere_in_the_next_epoch() -> None:
    sampler = Batches(shard_of([500]), batch=1, context=16, seed=0)
    first = {int(sampler.get(k).tokens[0, 0]) for k in range(sampler.windows)}
    second = {int(sampler.get(sampler.windows + k).tokens[0, 0]) for k in range(sampler.windows)}
    assert len(first & second) < len(first) / 2


def test_documents_kept_apart_have_segments_of_their_own() -> None:
    shard = shard_of([5, 6, 7])
    sampler = Batches(shard, batch=1, context=len(shard.tokens) - 1, seed=0, apart=True)
    seen = {}
    for k in range(sampler.windows):
        b = sampler.get(k)
        assert b.segments is not None
        for token, target, segment in zip(b.tokens[0], b.targets[0], b.segments[0], strict=True):
            if target != NO_TARGET and token:
                seen[int(token)] = int(segment)
            assert (target == NO_TARGET) == (segment == 0)
    assert [seen[i] for i in range(1, 19)] == [1] * 5 + [2] * 6 + [3] * 7


def test_a_corpus_shorter_than_one_block_is_refused() -> None:
    with pytest.raises(UserError, match="fewer than one block of 64"):
        Batches(shard_of([10]), 4, 64, 0)


def test_a_shard_holds_the_text_and_is_made_once(text_folder: Path, tmp_path: Path) -> None:
    corpus, tokenizer = open_corpus(str(text_folder)), train_tokenizer("bytes", [])
    shard = open_split(corpus, tokenizer, "train", tmp_path)
    path = shard_path(corpus, tokenizer, "train", tmp_path)
    made = path.stat().st_mtime_ns
    documents = list(corpus.documents("train"))
    assert shard.documents == len(documents)
    assert shard.tokens.dtype == np.uint16
    assert shard.restorable
    for i, text in enumerate(documents):
        ids = shard.tokens[shard.starts[i] : shard.starts[i + 1] - 1]
        assert tokenizer.decode(ids.tolist()) == text
        assert shard.tokens[shard.starts[i] - 1] == tokenizer.eos
    assert shard.document_bytes.sum() == corpus.size("train")
    open_split(corpus, tokenizer, "train", tmp_path)
    assert path.stat().st_mtime_ns == made
    assert [p for p in path.parent.iterdir() if p != path] == []


def test_a_damaged_shard_is_made_anew(text_folder: Path, tmp_path: Path) -> None:
    corpus, tokenizer = open_corpus(str(text_folder)), train_tokenizer("bytes", [])
    wanted = open_split(corpus, tokenizer, "train", tmp_path).tokens.tolist()
    path = shard_path(corpus, tokenizer, "train", tmp_path)
    path.write_bytes(path.read_bytes()[:1000])
    assert open_split(corpus, tokenizer, "train", tmp_path).tokens.tolist() == wanted


def test_a_text_that_changes_while_it_is_read_gives_no_shard(tmp_path: Path) -> None:
    texts = iter([["one"], ["one, and then more"]])
    corpus = Corpus("a text", "", "", lambda split: next(texts), lambda: ("train",))
    corpus.measure("train")
    with pytest.raises(UserError, match="a text train changed while it was read"):
        open_split(corpus, train_tokenizer("bytes", []), "train", tmp_path)
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_what_died_long_ago_over_a_shard_is_swept_away(text_folder: Path, tmp_path: Path) -> None:
    corpus, tokenizer = open_corpus(str(text_folder)), train_tokenizer("bytes", [])
    path = shard_path(corpus, tokenizer, "train", tmp_path)
    path.parent.mkdir(parents=True)
    old, young, other = (path.with_name(f".{name}.1234.part") for name in (path.name, f"{path.name}.ab", "x"))
    for part in (old, young, other):
        part.write_text("half")
    for part in (old, other):
        os.utime(part, (0, 0))
    open_split(corpus, tokenizer, "train", tmp_path)
    assert sorted(path.parent.iterdir()) == sorted([path, young, other])


def test_the_separator_of_a_document_cannot_be_written_in_its_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one <|endoftext|> two"}\n' * 20)
    corpus, tokenizer = open_corpus(str(tmp_path / "a.jsonl")), train_tokenizer("bytes", [])
    shard = open_split(corpus, tokenizer, "train", tmp_path)
    assert int((shard.tokens == tokenizer.eos).sum()) == shard.documents + 1


def test_masking_hides_the_stated_share_and_asks_only_for_what_it_chose() -> None:
    x = torch.randint(3, 40, (50, 100))
    targets = x.clone()
    targets[:, 90:] = NO_TARGET
    found = mask_tokens(Batch(x, targets), mask=2, vocab=40, key=(1,))
    chosen = found.targets != NO_TARGET
    assert not chosen[:, 90:].any()
    assert torch.equal(found.targets[chosen], x[chosen])
    assert torch.equal(found.tokens[~chosen], x[~chosen])
    assert abs(chosen[:, :90].float().mean() - 0.15) < 0.02  # 4,500 draws: deviation 0.0053, nearly four of them
    assert abs((found.tokens[chosen] == 2).float().mean() - 0.8) < 0.06  # 675 draws: deviation 0.0154
    assert found.segments is not None
    assert torch.equal(found.segments != 0, targets != NO_TARGET)
