"""Several corpora in one run: shares that are kept, no row twice or never, nothing remembered between batches."""

from __future__ import annotations

import dataclasses
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from hornbook.config import Train
from hornbook.data.batches import NO_TARGET, Batches
from hornbook.data.loader import Loader
from hornbook.data.mixing import Mixed, MixedBatches, Order, shared
from hornbook.data.shards import Shard
from hornbook.data.sources import data_name, named, open_data
from hornbook.errors import UserError
from hornbook.evaluation.mixture import mean_summary
from hornbook.log import read_log
from hornbook.text.tokenizer_training import train_tokenizer
from hornbook.training.pretrain import train
from prepared_folder import texts, write_prepared
from test_data import shard_of
from test_prepared import TINY, one_line

SHARES = [
    (7, 3),
    (1, 1, 1),
    (1, 2, 3, 5),
    (997, 2, 1),
    (333, 1, 666),
    (Fraction(1, 3), Fraction(2, 7), Fraction(8, 21)),
]


@pytest.mark.parametrize("shares", SHARES)
def test_every_corpus_has_its_share_of_any_blocks_within_one_row(shares: tuple) -> None:
    weights = shared(shares)
    order = Order(weights, seed=4)
    blocks = 40 if order.block < 1000 else 6
    corpora, numbers = order.rows(np.arange(blocks * order.block, dtype=np.int64))
    for rows in range(order.block, len(corpora) + 1, order.block):
        for corpus, weight in enumerate(weights):
            assert abs((corpora[:rows] == corpus).sum() - rows * weight) < 1
    for corpus in range(len(weights)):
        own = numbers[corpora == corpus]
        assert own.tolist() == list(range(len(own)))  # the next one of its own each time: none twice, none left out


@pytest.mark.parametrize("shares", SHARES)
def test_which_row_comes_when_follows_from_its_number_alone(shares: tuple) -> None:
    numbers = np.random.default_rng(0).integers(0, 10**9, 40)
    first, again, other = (Order(shared(shares), seed) for seed in (1, 1, 2))
    together = first.rows(numbers)
    for place, number in enumerate(numbers):
        alone = again.rows(np.array([number]))
        assert (alone[0][0], alone[1][0]) == (together[0][place], together[1][place])
    assert not np.array_equal(together[1], other.rows(numbers)[1])


def test_the_corpora_are_mixed_within_a_block() -> None:
    corpora, _ = Order(shared((1, 1)), seed=0).rows(np.arange(64, dtype=np.int64))
    changes = int((np.diff(corpora) != 0).sum())
    assert 16 < changes < 48  # of 63, half expected, deviation 4


def counting(lengths: list[int], first: int) -> Shard:
    """Documents whose tokens count up from `first`."""
    shard = shard_of(lengths)
    tokens = np.where(shard.tokens == 0, 0, shard.tokens + first).astype(np.uint16)
    return dataclasses.replace(shard, tokens=tokens)


def mixed(*weights: int) -> Mixed:
    shards = (counting([13, 1, 40, 7, 22, 5], 0), counting([50, 60, 9], 1000), counting([300], 2000))
    return Mixed(("a", "b", "c")[: len(weights)], shards[: len(weights)], shared(weights))


@pytest.mark.parametrize("apart", [False, True])
def test_every_token_of_a_corpus_is_a_target_once_in_each_of_its_epochs(apart: bool) -> None:
    text = mixed(5, 2, 3)
    sampler = MixedBatches(text, batch=4, context=8, seed=3, apart=apart)
    rows: dict[int, list[torch.Tensor]] = {0: [], 1: [], 2: []}
    for k in range(200):
        batch, (corpora, _) = sampler.get(k), sampler.numbers(k)
        for row, corpus in enumerate(corpora):
            rows[corpus].append(batch.targets[row])
            seen = batch.tokens[row][batch.tokens[row] != 0]
            assert (seen // 1000 == corpus).all()
    for corpus, shard in enumerate(text.shards):
        windows = sampler.samplers[corpus].windows
        for epoch in range(len(rows[corpus]) // windows):
            targets = torch.cat(rows[corpus][epoch * windows : (epoch + 1) * windows])
            assert sorted(targets[targets != NO_TARGET].tolist()) == sorted(shard.tokens[1:].tolist())


def test_an_epoch_ends_where_the_first_corpus_has_been_read_once() -> None:
    sampler = MixedBatches(mixed(1, 1), batch=4, context=8, seed=0)
    windows = [one.windows for one in sampler.samplers]
    assert sampler.per_epoch == pytest.approx(2 * min(windows) / 4)
    rows = np.arange(int(sampler.per_epoch * 4), dtype=np.int64)
    corpora, numbers = sampler.order.rows(rows)
    for corpus, count in enumerate(windows):
        assert numbers[corpora == corpus].max() < count + 1


def test_how_much_of_several_texts_a_batch_reads_is_their_mean_by_share() -> None:
    sampler = MixedBatches(mixed(3, 1), batch=4, context=8, seed=0)
    shares, windows = (0.75, 0.25), [one.windows for one in sampler.samplers]
    read = [4 * share / count for share, count in zip(shares, windows, strict=True)]  # of each text, in a batch
    assert sampler.read_by_batch == pytest.approx(sum(s * r for s, r in zip(shares, read, strict=True)))
    alone = sampler.samplers[0]
    assert alone.read_by_batch == pytest.approx(1 / alone.per_epoch)


def test_corpora_of_one_length_are_read_in_orders_of_their_own() -> None:
    text = Mixed(("a", "b"), (counting([300], 0), counting([300], 1000)), shared((1, 1)))
    one, two = MixedBatches(text, 4, 8, seed=0).samplers
    assert one.spans(np.arange(30))[0].tolist() != two.spans(np.arange(30))[0].tolist()


def test_segments_are_those_of_each_row_s_own_corpus() -> None:
    text = mixed(1, 1)
    sampler = MixedBatches(text, batch=8, context=16, seed=0, apart=True)
    batch, (corpora, numbers) = sampler.get(2), sampler.numbers(2)
    assert batch.segments is not None
    for corpus in (0, 1):
        alone = Batches(text.shards[corpus], 1, 16, sampler.samplers[corpus].seed, apart=True)
        wanted = alone.rows(numbers[corpora == corpus])
        assert torch.equal(batch.segments[torch.from_numpy(corpora == corpus)], wanted.segments)


def test_a_loader_gives_what_the_sampler_does_whatever_was_asked_before() -> None:
    sampler, again = (MixedBatches(mixed(5, 2, 3), 4, 8, seed=1) for _ in range(2))
    loader = Loader(sampler.get, 1, torch.device("cpu"))
    for step in (17, 18, 3, 100):
        assert torch.equal(loader.get(step).batches[0].tokens, again.get(step).tokens)
    loader.close()


# --- the setting


def test_a_setting_names_corpora_with_shares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert named("a.txt") == [("a.txt", None)]
    assert named("a.txt:0.7, b/:.3") == [("a.txt", Fraction(7, 10)), ("b/", Fraction(3, 10))]
    assert named("s3://bucket/x:2,http://host:8000/y:1") == [("s3://bucket/x", 2), ("http://host:8000/y", 1)]
    assert named("s3://bucket/x,b") == [("s3://bucket/x", None), ("b", None)]
    assert data_name("s3://bucket/x:2,texts/b.txt:1") == "x-b"
    assert data_name("-") == "stdin"
    monkeypatch.chdir(tmp_path)
    for name in ("a,b:1.txt", "c:1"):
        (tmp_path / name).write_text("x")
    assert named("a,b:1.txt") == [("a,b:1.txt", None)]  # a file that is there
    assert named("c:1,d") == [("c:1", None), ("d", None)]


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("a:0.5,b", "a share for each or for none"),
        ("a,,b", "a share for each or for none"),
        ("-,a", "standard input cannot be mixed"),
        ("a:1,a:2", "a is named twice"),
        ("a:1,b:0", "each must be above 0"),
        ("a:1,b:0.00001", "at least one of 10,000 rows"),
        ("a:1,b:1", "unknown corpus 'a'"),
    ],
)
def test_a_setting_that_cannot_be_is_told_of(setting: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        open_data(setting)
    one_line(error)


# --- runs


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of text, and a prepared corpus."""
    folder = tmp_path_factory.mktemp("two")
    rows = [json.dumps({"text": "dogs bark at night, " * (3 + n % 5) + str(n)}) for n in range(60)]
    (folder / "dogs.jsonl").write_text("\n".join(rows))
    write_prepared(folder / "cats", {"train": [texts(40), texts(30, 1)], "validation": [texts(9, 2)]})
    return folder / "dogs.jsonl", folder / "cats"


def test_a_run_learns_from_both_and_is_measured_on_each_and_together(two: tuple[Path, Path], tmp_path: Path) -> None:
    data = f"{two[0]}:0.25,{two[1]}:0.75"
    summary = train(Train(data=data, out=str(tmp_path / "run"), **TINY))
    line = next(line for line in read_log(tmp_path / "run") if "validation_loss" in line)
    each = [line["validation_bits_per_byte_dogs"], line["validation_bits_per_byte_cats"]]
    assert line["validation_bits_per_byte"] == pytest.approx(0.25 * each[0] + 0.75 * each[1])
    found = summary["validations"]
    assert list(found) == ["dogs", "cats"]
    bits = [found[name]["bits_per_byte"] for name in found]
    assert summary["validation"]["bits_per_byte"] == pytest.approx(0.25 * bits[0] + 0.75 * bits[1])
    assert summary["validation"]["documents"] == sum(one["documents"] for one in found.values())
    again = train(Train(data=data, out=str(tmp_path / "again"), **TINY | {"steps": 6}))
    assert again["steps"] == 6


def test_a_mixed_run_carried_on_is_one_that_never_stopped(two: tuple[Path, Path], tmp_path: Path) -> None:
    from hornbook.training.interrupt import Interrupted

    settings = {"data": f"{two[0]}:0.5,{two[1]}:0.5", **TINY}
    train(Train(out=str(tmp_path / "a"), **settings))

    def stop(moment) -> None:
        if moment.event == "save" and moment.step == 6:
            raise Interrupted

    with pytest.raises(Interrupted):
        train(Train(out=str(tmp_path / "b"), **settings), [stop])
    train(Train(out=str(tmp_path / "b"), **settings))
    losses = [[line.get("loss") for line in read_log(tmp_path / name)] for name in "ab"]
    assert losses[0] == losses[1]
    with pytest.raises(UserError, match=r"holds a run of other settings \(data was"):
        train(Train(out=str(tmp_path / "a"), **settings | {"data": f"{two[0]}:0.4,{two[1]}:0.6"}))


def test_what_cannot_be_mixed_is_told_of(two: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="bigram counts one corpus"):
        train(Train(model="bigram", data=f"{two[0]}:1,{two[1]}:1", out=str(tmp_path / "run")))
    other = train_tokenizer("char", texts(3))
    write_prepared(tmp_path / "other", {"train": [texts(9)], "validation": [texts(2)]}, other)
    with pytest.raises(UserError, match="were prepared with different tokenisers"):
        train(Train(data=f"{two[1]}:1,{tmp_path / 'other'}:1", out=str(tmp_path / "run"), **TINY))
    (tmp_path / "short.jsonl").write_text("\n".join(json.dumps({"text": str(n)}) for n in range(3)))
    with pytest.raises(UserError, match=r"short: the training text has .* fewer than one block of 32"):
        train(Train(data=f"{two[1]}:1,{tmp_path / 'short.jsonl'}:1", out=str(tmp_path / "run"), **TINY))


def test_the_mean_of_scores_is_by_shares_and_lacks_what_one_lacks() -> None:
    def summary(bits: float | None, far: float) -> dict:
        counts = {"nats": 5.0, "targets": 3, "bytes": 10, "words": 2, "documents": 1, "context": 8, "stride": 4}
        ends = None if bits is None else [bits - far, bits + far]
        return counts | {
            "bits_per_byte": bits,
            "bits_per_byte_interval": ends,
            "word_perplexity": 100.0,
            "token_perplexity": 4.0 if bits == 1 else 9.0,
        }

    found = mean_summary([summary(1.0, 0.3), summary(2.0, 0.4)], [0.5, 0.5])
    assert found["bits_per_byte"] == pytest.approx(1.5)
    assert found["bits_per_byte_interval"] == pytest.approx([1.25, 1.75])  # 0.15 and 0.2 at right angles
    assert found["token_perplexity"] == pytest.approx(6.0)
    assert (found["targets"], found["bytes"], found["documents"]) == (6, 20, 2)
    assert mean_summary([summary(1.0, 0.3), summary(None, 0)], [0.5, 0.5])["bits_per_byte"] is None
