"""Scores: every target once, summed in nats, divided once."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from helpers import EOS, stream, tiny_model
from hornbook.data.shards import Shard
from hornbook.errors import UserError
from hornbook.evaluation.lines import score_lines
from hornbook.evaluation.pseudo import pseudo_perplexity
from hornbook.evaluation.score import cut_windows, score
from hornbook.evaluation.sentences import Sentence, score_sentence
from hornbook.text.tokenizer_training import train_tokenizer


def shard(length: int = 600) -> Shard:
    tokens = stream(length, seed=5)
    starts = np.flatnonzero(tokens == EOS) + 1
    sizes = np.diff(starts) * 3
    return Shard(tokens.astype(np.uint16), starts, sizes, np.maximum(sizes // 5, 1), 40, EOS, True)


@pytest.mark.parametrize(("context", "stride"), [(8, 8), (8, 4), (8, 1), (48, 20)])
def test_every_target_is_scored_once_with_the_stated_context(context: int, stride: int) -> None:
    data = shard()
    seen = []
    for w in cut_windows(data, context, stride):
        targets = range(w.start + w.length - w.scored + 1, w.start + w.length + 1)
        seen += targets
        begin = data.starts[w.document] - 1
        for target in targets:
            assert w.start == begin or target - w.start > context - stride
    assert sorted(seen) == list(range(1, len(data.tokens)))


@pytest.mark.parametrize("family", ["llama", "rnn", "ngram"])
def test_a_score_is_the_sum_over_documents_read_whole(family: str) -> None:
    model, data = tiny_model(family), shard()
    wanted = 0.0
    for i in range(data.documents):
        ids = torch.from_numpy(data.tokens[data.starts[i] - 1 : data.starts[i + 1]].astype(np.int64))[None]
        wanted -= float(model.log_prob(ids[:, :-1], ids[:, 1:]).sum().detach())
    longest = int(np.diff(data.starts).max())
    found = score(model, data, context=max(longest, 2), batch=7)
    assert found.nats.sum() == pytest.approx(wanted, rel=1e-5)
    assert found.targets.sum() == len(data.tokens) - 1
    assert found.bits_per_byte == pytest.approx(wanted / data.document_bytes.sum() / math.log(2), rel=1e-5)
    assert found.word_perplexity == pytest.approx(math.exp(wanted / data.document_words.sum()), rel=1e-4)
    assert found.token_perplexity == pytest.approx(math.exp(wanted / (len(data.tokens) - 1)), rel=1e-4)


def test_the_interval_holds_the_figure_and_narrows_with_more_documents() -> None:
    model = tiny_model("ngram")
    few, many = score(model, shard(600)), score(model, shard(6000))
    widths = []
    for found in (few, many):
        low, high = (x / math.log(2) for x in found.interval())
        assert low < found.bits_per_byte < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2  # ten times the documents: about a third of the width


def test_a_tokeniser_that_loses_text_has_no_bits_per_byte() -> None:
    data = shard()
    lossy = Shard(**{**vars(data), "restorable": False})
    summary = score(tiny_model("ngram"), lossy).summary()
    assert summary["bits_per_byte"] is None
    assert summary["word_perplexity"] > 1


def test_a_sentence_s_probability_does_not_underflow() -> None:
    tokenizer = train_tokenizer("bytes", [])
    model = tiny_model("llama", vocab=tokenizer.vocab, bos=tokenizer.bos, context=2048)
    model.tokenizer = tokenizer
    found = score_sentence(model, "the cat sat on the mat " * 40)
    assert len(found.nats) == len(found.pieces) == 920
    assert found.log_prob == pytest.approx(sum(found.nats))
    assert math.exp(found.log_prob) == 0.0
    mantissa, exponent = found.probability.split("e")
    assert 1 <= float(mantissa) < 10
    assert int(exponent) * math.log(10) + math.log(float(mantissa)) == pytest.approx(found.log_prob, abs=1e-3)


def test_a_probability_is_written_with_one_digit_before_the_point() -> None:
    found = Sentence("x", ["x"], [math.log(9.9997e-5)], [])
    assert found.probability == "1.000e-04"
    assert Sentence("x", ["x"], [math.log(2.5e-7)], []).probability == "2.500e-07"


def test_one_token_without_another_before_it_is_refused() -> None:
    tokenizer = train_tokenizer("bytes", [])
    model = tiny_model("llama", vocab=tokenizer.vocab, bos=None)
    model.tokenizer = tokenizer
    with pytest.raises(UserError, match="nothing is left to score"):
        score_sentence(model, "a")


def test_pseudo_perplexity_hides_each_token_in_turn_and_shows_all_others() -> None:
    model = tiny_model("bert", context=16)
    tokens = torch.tensor([EOS, *range(3, 38)])  # one document, longer than two windows
    ends = np.array([1, len(tokens)])
    data = Shard(tokens.numpy().astype(np.uint16), ends, np.array([9]), np.array([9]), 40, EOS, True)
    nats = []
    for place in range(1, len(tokens) - 1):  # the separator that opens it is no part of the text
        last = min(len(tokens) - 1, (place // 16 + 1) * 16)
        start = max(0, last - 16)
        window = tokens[start:last].clone()[None]
        window[0, place - start] = 2
        nats.append(-float(model(window)[0, place - start].log_softmax(-1)[tokens[place]].detach()))
    assert pseudo_perplexity(model, data, mask=2, sample=1000) == pytest.approx(math.exp(np.mean(nats)), rel=1e-4)


def test_an_encoder_gets_no_score_of_a_text() -> None:
    with pytest.raises(UserError, match="sees both sides"):
        score(tiny_model("bert"), shard())
    with pytest.raises(UserError, match="sees both sides"):
        score_lines(tiny_model("bert"), train_tokenizer("bytes", []), ["some words"])


@pytest.mark.parametrize("stride", [49, 512, 0, -1])
def test_a_stride_beyond_the_context_is_refused(stride: int) -> None:
    with pytest.raises(UserError, match="a stride is 1 to the context"):
        score(tiny_model("llama"), shard(), stride=stride)


def test_one_document_has_no_interval_and_an_impossible_text_no_perplexity() -> None:
    one = shard()
    cut = {"starts": one.starts[:2], "document_bytes": one.document_bytes[:1], "document_words": one.document_words[:1]}
    alone = Shard(**{**vars(one), "tokens": one.tokens[: one.starts[1]], **cut})
    assert score(tiny_model("ngram"), alone).summary()["bits_per_byte_interval"] is None
    impossible = score(tiny_model("ngram", smoothing="mle"), shard(6000)).summary()
    assert impossible["bits_per_byte"] is None
    json.loads(json.dumps(impossible, allow_nan=False))


def test_the_line_protocol_scores_all_but_the_first_token_of_each_cut_line() -> None:
    tokenizer = train_tokenizer("bytes", [])
    model = tiny_model("rnn", vocab=tokenizer.vocab)
    lines = ["", "a", "some words", "x" * 300]
    found = score_lines(model, tokenizer, lines, cut=128, batch=2)
    assert found.targets == 9 + 47  # this model's context of 48 is shorter than the cut
    assert found.lost == 300 - 48
    wanted = 0.0
    for line in lines[2:]:
        ids = torch.tensor([tokenizer.encode(line)[:48]])
        wanted -= float(model.log_prob(ids[:, :-1], ids[:, 1:]).sum().detach())
    assert found.nats == pytest.approx(wanted, rel=1e-5)
