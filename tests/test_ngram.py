import math
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers import needs_data
from hornbook.errors import UserError
from hornbook.layers.ngram_counts import FALLBACK_DISCOUNTS, count_ngrams, estimate_discounts
from hornbook.models.ngram import SIZES, NGram, NGramConfig

SEP, VOCAB = 0, 12
SMOOTHINGS = ["mle", "add-k", "kneser-ney"]


def random_stream(seed: int, documents: int = 60, vocab: int = VOCAB - 1) -> np.ndarray:
    """sep d1 sep d2 sep ...; ids from 1 to vocab-1, so that the last id of VOCAB never occurs."""
    draw = np.random.default_rng(seed)
    stream = [SEP]
    for _ in range(documents):
        length = draw.integers(0, 9)
        stream += [*(1 + draw.zipf(1.5, length) % (vocab - 1)).tolist(), SEP]
    return np.array(stream)


def fitted(order: int, smoothing: str = "kneser-ney", stream: np.ndarray | None = None, **fields) -> NGram:
    fields = {"vocab": VOCAB, "bos": SEP, "eos": SEP} | fields
    model = NGram(NGramConfig("ngram", order=order, smoothing=smoothing, **fields))
    model.fit(random_stream(1) if stream is None else stream)
    return model


class Plain:
    """The same model from plain dictionaries, one probability at a time, straight from the formulas.

    Words are ids, "<s>" the separator as context.
    """

    def __init__(self, stream: np.ndarray, order: int, smoothing: str, k: float = 1.0, vocab: int = VOCAB) -> None:
        self.order, self.smoothing, self.k, self.vocab = order, smoothing, k, vocab
        self.counts: list[Counter] = [Counter() for _ in range(order + 1)]
        for i in range(1, len(stream)):
            history = self.context(stream[:i])
            for n in range(min(order, len(history) + 1)):
                self.counts[n + 1][*history[len(history) - n :], int(stream[i])] += 1
        if smoothing == "kneser-ney":
            self.adjusted = [self.adjust(n) for n in range(order + 1)]
            self.discounts = [self.estimate(a) for a in self.adjusted]

    def context(self, tokens: np.ndarray) -> tuple:
        """What is known after `tokens`: at most order-1 of them, none beyond a separator."""
        known: list = []
        for token in tokens[::-1]:
            if len(known) == self.order - 1:
                break
            known.insert(0, "<s>" if token == SEP else int(token))
            if token == SEP:
                break
        return tuple(known)

    def adjust(self, n: int) -> Counter:
        if n == self.order:
            return self.counts[n]
        left = Counter(gram[1:] for gram in self.counts[n + 1])
        return Counter({gram: left[gram] or count for gram, count in self.counts[n].items()})

    def estimate(self, adjusted: Counter) -> list[float]:
        n = Counter(adjusted.values())
        if n[1] and n[2] and n[3]:
            y = n[1] / (n[1] + 2 * n[2])
            found = [1 - 2 * y * n[2] / n[1], 2 - 3 * y * n[3] / n[2], 3 - 4 * y * n[4] / n[3]]
            if 0 < found[0] <= 1 and 0 < found[1] <= 2 and 0 < found[2] <= 3:
                return found
        return [0.5, 1.0, 1.5]

    def prob(self, context: tuple, word: int) -> float:
        n = len(context) + 1
        if self.smoothing == "kneser-ney":
            return self.kneser_ney(context, word)
        total = sum(c for gram, c in self.counts[n].items() if gram[:-1] == context)
        count = self.counts[n][*context, word]
        if self.smoothing == "add-k":
            return (count + self.k) / (total + self.k * self.vocab)
        return count / total if total else self.prob(context[1:], word)

    def kneser_ney(self, context: tuple, word: int) -> float:
        n = len(context) + 1
        lower = self.kneser_ney(context[1:], word) if context else 1 / self.vocab
        follow = {gram[-1]: a for gram, a in self.adjusted[n].items() if gram[:-1] == context}
        if not follow:
            return lower
        taken = {w: self.discounts[n][min(a, 3) - 1] for w, a in follow.items()}
        own = follow[word] - taken[word] if word in follow else 0.0
        return (own + sum(taken.values()) * lower) / sum(follow.values())


def held_out(seed: int = 9) -> torch.Tensor:
    """Text with words, pairs and contexts that were never seen; id VOCAB-1 among them."""
    return torch.from_numpy(random_stream(seed, 12, VOCAB))[None]


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize("order", range(1, 8))
def test_probabilities_sum_to_one_in_every_context(order, smoothing):
    for seed in range(3):
        model = fitted(order, smoothing, random_stream(seed, 5 * 10**seed), k=0.3)
        contexts = torch.randint(-1, VOCAB + 1, (400, max(1, order - 1)), generator=torch.Generator().manual_seed(seed))
        contexts = torch.where((contexts < 0).flip(-1).cumsum(-1).flip(-1) > 0, -1, contexts)  # unknown reaches back
        rows = torch.cat([model.head(contexts), model(held_out())[0]])
        assert rows.shape[-1] == VOCAB
        assert not rows.isnan().any()
        torch.testing.assert_close(rows.double().exp().sum(-1), torch.ones(len(rows), dtype=torch.float64), **NEAR)


NEAR = {"rtol": 0, "atol": 2e-6}


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize("order", [1, 2, 3, 5, 7])
def test_it_equals_plain_dictionaries(order, smoothing):
    stream, text = random_stream(3), held_out()[0].numpy()
    model, plain = fitted(order, smoothing, stream, k=0.5), Plain(stream, order, smoothing, 0.5)
    rows = model(torch.from_numpy(text)[None])[0].double().exp()
    for i in range(len(text)):
        expected = [plain.prob(plain.context(text[: i + 1]), w) for w in range(VOCAB)]
        np.testing.assert_allclose(rows[i].numpy(), expected, rtol=2e-6, atol=1e-12)


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize("order", range(1, 8))
def test_the_look_up_equals_the_dense_rows(order, smoothing):
    model, text = fitted(order, smoothing), held_out()
    tokens, targets = text[:, :-1], text[:, 1:].clone()
    dense = model(tokens).log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    torch.testing.assert_close(model.log_prob(tokens, targets), dense, rtol=1e-5, atol=1e-5)
    targets[:, ::3] = -100
    assert (model.log_prob(tokens, targets)[:, ::3] == 0).all()


def test_real_discounts_are_estimated_on_a_larger_text():
    stream = random_stream(5, 3000, 400)
    discounts = [estimate_discounts(level.counts) for level in count_ngrams(stream, 3, 400, [SEP])]
    assert discounts[2] != FALLBACK_DISCOUNTS
    model, plain = fitted(3, stream=stream, vocab=400), Plain(stream, 3, "kneser-ney", vocab=400)
    assert plain.discounts[3] == pytest.approx(discounts[2], rel=1e-12)
    text = torch.from_numpy(random_stream(6, 3, 400))
    found = model.log_prob(text[None, :-1], text[None, 1:])[0]
    expected = [math.log(plain.prob(plain.context(text[:i].numpy()), int(text[i]))) for i in range(1, len(text))]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)


def test_discounts_that_cannot_be_estimated_fall_back():
    assert estimate_discounts(np.array([1, 1, 1])) == FALLBACK_DISCOUNTS
    assert estimate_discounts(np.array([1] * 8 + [2] + [3] * 3)) == FALLBACK_DISCOUNTS  # D2 below 0
    assert estimate_discounts(np.array([1] * 8 + [2] * 4 + [3] * 2 + [4])) == (0.5, 1.25, 2.0)


@pytest.mark.parametrize("order", [1, 2, 4])
def test_cached_equals_uncached_in_pieces_of_any_size(order):
    model, text = fitted(order), held_out()
    cache = model.make_cache(1, text.shape[1])
    pieces = [model(piece, cache) for piece in text.split([1, 1, 5, 2, text.shape[1] - 9], dim=1)]
    assert torch.equal(torch.cat(pieces, 1), model(text))
    assert cache.lengths.tolist() == [text.shape[1]]


def test_padding_on_either_side_leaves_rows_as_they_were():
    model = fitted(4)
    rows = [held_out(seed)[0, :n] for seed, n in ((2, 7), (3, 4), (4, 1))]
    left = torch.full((3, 7), VOCAB - 1)
    segments = torch.zeros(3, 7, dtype=torch.int64)
    right, right_segments = left.clone(), segments.clone()
    for i, row in enumerate(rows):
        left[i, 7 - len(row) :], segments[i, 7 - len(row) :] = row, 1
        right[i, : len(row)], right_segments[i, : len(row)] = row, 1
    for cached in (False, True):
        caches = [model.make_cache(3, 12) if cached else None for _ in range(2)]
        on_left, on_right = model(left, caches[0], segments), model(right, caches[1], right_segments)
        for i, row in enumerate(rows):
            alone = model(row[None])[0]
            assert torch.equal(on_left[i, 7 - len(row) :], alone)
            assert torch.equal(on_right[i, : len(row)], alone)
    for cache in caches:  # each row goes on from its own length
        assert cache.lengths.tolist() == [7, 4, 1]
        nexts = model(torch.tensor([[1], [2], [3]]), cache)
        for i, row in enumerate(rows):
            assert torch.equal(nexts[i, 0], model(torch.cat([row, torch.tensor([i + 1])])[None])[0, -1])


def test_packed_segments_do_not_see_each_other():
    model = fitted(4)
    a, b = torch.tensor([[1, 2, 1, 3]]), torch.tensor([[2, 1, 2]])
    packed = torch.cat([a, torch.tensor([[5]]), b], 1)
    logits = model(packed, segments=torch.tensor([[1, 1, 1, 1, 0, 2, 2, 2]]))
    assert torch.equal(logits[:, :4], model(a))
    assert torch.equal(logits[:, 5:], model(b))


def test_a_separator_cuts_the_history_and_is_not_the_end_that_it_predicts():
    model = fitted(4)
    assert torch.equal(model(torch.tensor([[1, 2, SEP, 3]]))[:, 2:], model(torch.tensor([[5, 5, SEP, 3]]))[:, 2:])
    assert model.hidden(torch.tensor([[1, SEP, 3]])).tolist() == [[[-1, -1, 1], [-1, -1, VOCAB], [-1, VOCAB, 3]]]


def test_different_bos_and_eos_both_cut():
    model = fitted(3, bos=10, eos=SEP, stream=np.array([10, 1, 2, SEP, 10, 2, 1, SEP]))
    assert model.hidden(torch.tensor([[1, SEP, 10, 2]]))[0, 2:].tolist() == [[-1, VOCAB], [VOCAB, 2]]


def test_a_stream_without_separators_is_one_document():
    model = fitted(2, "mle", np.array([1, 2, 1, 3]), bos=None, eos=None)
    assert model.log_prob(torch.tensor([[1, 1]]), torch.tensor([[2, 3]])).exp().tolist() == [[0.5, 0.5]]
    assert model(torch.tensor([[3]])).exp()[0, 0, 1].item() == pytest.approx(0.5)  # nothing follows 3: unigrams


def test_cache_rows_can_be_selected_and_forgotten():
    model, text = fitted(3), held_out()[:, :8]
    cache = model.make_cache(2, 8)
    model(torch.cat([text, text.flip(1)]), cache)
    cache.select(torch.tensor([1, 1, 0]))
    cache.rewind(torch.tensor([3, 8, 0]))
    assert cache.lengths.tolist() == [3, 8, 0]
    cache.rewind(torch.tensor([3, 7, 1]))
    nexts = model(torch.tensor([[4], [4], [4]]), cache)[:, 0]
    assert torch.equal(nexts[0], model(torch.cat([text.flip(1)[:, :3], torch.tensor([[4]])], 1))[0, -1])
    assert torch.equal(nexts[1], model(torch.cat([text.flip(1)[:, :7], torch.tensor([[4]])], 1))[0, -1])
    assert torch.equal(nexts[2], model(torch.tensor([[4]]))[0, -1])
    assert cache.bytes == 3 * 8 * 8


def test_a_full_cache_says_so():
    model = fitted(3)
    cache = model.make_cache(1, 2)
    with pytest.raises(UserError, match="holds 2 tokens"):
        model(torch.tensor([[1, 2, 3]]), cache)


def test_the_future_does_not_leak():
    model, text = fitted(5), held_out()
    changed = text.clone()
    changed[:, 6:] = 1
    assert torch.equal(model(text)[:, :6], model(changed)[:, :6])


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_the_back_off_path_adds_up_to_the_log_probability(smoothing):
    model = fitted(4, smoothing)
    for context in ([1, 2, 1], [VOCAB - 1], [SEP, 3], [4, 4, 4, 4]):
        for target in (SEP, 1, 5, VOCAB - 1):
            path = model.backoff_path(context, target)
            expected = model(torch.tensor([context]))[0, -1, target].item()
            assert sum(step.nats for step in path) == pytest.approx(expected, rel=1e-5)
            assert [step.found for step in path] == [False] * (len(path) - 1) + [True]


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_nothing_before_a_token_leaves_the_unigrams_alone(order):
    model = fitted(order)
    (step,) = model.backoff_path([], 1)
    assert step.nats == pytest.approx(float(model.log_probs_1[1]))


def test_the_back_off_path_tells_a_context_that_was_never_seen():
    model = fitted(3)
    assert [step.seen for step in model.backoff_path([VOCAB - 1], 1)] == [False, True]
    assert model.backoff_path([SEP], 1)[0] == (
        (VOCAB,),
        True,
        True,
        pytest.approx(model(torch.tensor([[SEP]]))[0, 0, 1].item()),
    )


def test_fitting_twice_gives_the_same_bits_and_replaces_what_was_there():
    model, again = fitted(5), fitted(5, stream=random_stream(8))
    again.fit(torch.from_numpy(random_stream(1)).to(torch.int32))
    assert model.config == again.config
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_a_saved_state_fits_a_model_built_from_its_config_even_on_the_meta_device():
    model = fitted(4)
    with torch.device("meta"):
        fresh = NGram(model.config)
    fresh.load_state_dict(model.state_dict(), assign=True)
    assert torch.equal(fresh(held_out()), model(held_out()))


def test_before_fitting_it_is_uniform():
    model = NGram(SIZES["trigram"].replace(vocab=VOCAB))
    torch.testing.assert_close(model(held_out()), torch.full((1, held_out().shape[1], VOCAB), -math.log(VOCAB)))
    torch.testing.assert_close(
        model.log_prob(held_out(), held_out()), torch.full(held_out().shape, -math.log(VOCAB)), rtol=0, atol=0
    )


def test_a_large_vocabulary_needs_memory_for_what_occurs_only():
    vocab = 1_000_000  # dense, a pair table would take 4 TB
    stream = np.random.default_rng(0).integers(1, vocab, 5000)
    for smoothing in SMOOTHINGS:
        model = fitted(2, smoothing, stream, vocab=vocab)
        text = torch.from_numpy(stream)[None]
        assert model.log_prob(text[:, :-1], text[:, 1:]).isfinite().all()
        assert sum(buffer.nbytes for buffer in model.buffers()) < 10 * vocab


def test_unsigned_shard_tokens_are_counted():
    model = fitted(2, stream=random_stream(1).astype(np.uint16))
    assert torch.equal(model(held_out()), fitted(2)(held_out()))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"order": 8}, "possible are 1 to 7"),
        ({"order": 0}, "possible are 1 to 7"),
        ({"smoothing": "kneser"}, "Did you mean 'kneser-ney'"),
        ({"smoothing": "add-k", "k": 0.0}, "above 0"),
        ({"order": 3, "entries": (1, 2)}, "the order is 3"),
    ],
)
def test_impossible_settings_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        NGramConfig("ngram", **fields)


def test_what_cannot_be_counted_is_refused():
    model = NGram(NGramConfig("ngram", vocab=4))
    with pytest.raises(UserError, match="no token"):
        model.fit(np.array([], np.int64))
    with pytest.raises(UserError, match="no token"):
        NGram(NGramConfig("ngram", vocab=4, eos=0)).fit(np.array([0]))
    with pytest.raises(UserError, match="0 to 3"):
        model.fit(np.array([1, 4]))
    with pytest.raises(UserError, match="ARPA"):
        NGram(NGramConfig("ngram", vocab=4, smoothing="arpa")).fit(np.array([1]))


@needs_data("wikitext-2")
@pytest.mark.parametrize(("order", "perplexity"), [(3, 247.66), (5, 239.98)])
def test_wikitext_perplexity_is_that_of_kenlm(order, perplexity):
    """lmplz's figures: tokenised WikiText-2, blank lines dropped, a sentence a line, <unk> an ordinary word."""
    ids: dict[str, int] = {"</s>": SEP, "KenLM's own unknown word": 1}
    streams = []
    for part in ("train.txt", "valid.txt"):
        text = (Path(os.environ["HORNBOOK_DATA"]) / "wikitext-2" / part).read_text(encoding="utf-8")
        lines = [[ids.setdefault(word, len(ids)) for word in line.split()] for line in text.split("\n") if line.strip()]
        streams.append(np.array([SEP] + [token for line in lines for token in [*line, SEP]]))
    model = fitted(order, stream=streams[0], vocab=len(ids))
    valid = torch.from_numpy(streams[1])[None]
    assert model.log_prob(valid[:, :-1], valid[:, 1:]).double().mean().neg().exp().item() == pytest.approx(
        perplexity, abs=0.01
    )
