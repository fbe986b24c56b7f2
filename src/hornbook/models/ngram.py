"""The counted rung: how often did each token follow the last few? Unigram to 7-gram, no gradient, one pass.

Against every other rung: nothing is learnt, only counted; the "hidden state" is the last order-1 tokens themselves.
A context that was never seen falls back to a shorter one. Separators (`bos`, `eos`) cut the history, as KenLM's <s>.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hornbook.config import ModelConfig
from hornbook.errors import UserError, unknown
from hornbook.layers.cache import TokenCache
from hornbook.layers.model import Cache, LanguageModel
from hornbook.layers.ngram_counts import Table, count_ngrams, estimate

MAX_ORDER = 7
SMOOTHINGS = ("mle", "add-k", "kneser-ney", "arpa")


@dataclass(frozen=True)
class NGramConfig(ModelConfig):
    """What a counted model is. Raises UserError for an order, smoothing or k that cannot be."""

    order: int = 2
    """Tokens in the longest n-gram, 1 to 7: the context is order - 1 tokens."""
    smoothing: str = "kneser-ney"
    """'mle' (relative frequency), 'add-k', 'kneser-ney' (interpolated, modified), or 'arpa': read from a file."""
    k: float = 1.0
    """What 'add-k' adds to every count."""
    entries: tuple[int, ...] = ()
    """Stored n-grams of each length, which are the shapes of the model's tensors; empty before it is fitted."""

    def __post_init__(self) -> None:
        if not 1 <= self.order <= MAX_ORDER:
            raise UserError(f"an n-gram of order {self.order}: possible are 1 to {MAX_ORDER}")
        if self.smoothing not in SMOOTHINGS:
            raise unknown("smoothing", self.smoothing, SMOOTHINGS)
        if not self.k > 0:
            raise UserError(f"add-k with k = {self.k}: k must be above 0 (smoothing 'mle' adds nothing)")
        if self.entries and len(self.entries) != self.order:
            raise UserError(f"entries {self.entries} name {len(self.entries)} lengths; the order is {self.order}")
        if self.entries and self.entries[0] != self.vocab + 1:
            raise UserError(f"entries {self.entries} begin with another number than vocab + 1, {self.vocab + 1}")


class BackoffStep(NamedTuple):
    """One context on the way to a probability, the longest first."""

    context: tuple[int, ...]
    """Token ids; the vocabulary's size stands for the start of a document."""
    seen: bool
    """Whether anything was ever counted after this context."""
    found: bool
    """Whether the target was: then `nats` is its log-probability and this the last step, else the back-off weight."""
    nats: float


class NGram(LanguageModel):
    """Tables of log-probabilities and back-off weights; see `layers/ngram_counts.py` for their layout.

    For n-grams of k tokens: `keys_k` int64 (from k = 2: the rows of level 1 are token ids), `log_probs_k` float32 and,
    below the highest order, `backoffs_k` float32. Uniform until `fit` or `store` fills it.
    """

    config: NGramConfig
    counted = True
    log_probs_1: Tensor

    def __init__(self, config: NGramConfig) -> None:
        super().__init__()
        self.config = config
        rows = config.entries or (config.vocab + 1, *[0] * (config.order - 1))
        for k, count in enumerate(rows, start=1):
            if k > 1:
                self.register_buffer(f"keys_{k}", torch.zeros(count, dtype=torch.int64))
            self.register_buffer(f"log_probs_{k}", torch.full((count,), -math.log(max(config.vocab, 1))))
            if k < config.order:
                self.register_buffer(f"backoffs_{k}", torch.zeros(count))

    @property
    def start(self) -> int:
        """The word that stands for a separator in a context."""
        return self.config.vocab

    @property
    def separators(self) -> list[int]:
        return sorted({i for i in (self.config.bos, self.config.eos) if i is not None})

    def fit(self, tokens: NDArray[Any] | Tensor) -> None:
        """Count tokens (N,), any integer type, and keep what the smoothing makes of the counts.

        Raises UserError when there are none, when an id is outside the vocabulary, and for a model read from a file.
        """
        c = self.config
        if c.smoothing == "arpa":
            raise UserError("this model was read from an ARPA file, which holds no counts: fit a fresh one")
        stream = np.asarray(tokens.cpu() if isinstance(tokens, Tensor) else tokens).astype(np.int64)
        if not len(stream) or (len(stream) == 1 and stream[0] in self.separators):
            raise UserError("there is no token to count")
        if stream.min() < 0 or stream.max() >= c.vocab:
            raise UserError(f"token ids from {stream.min()} to {stream.max()}: the vocabulary has 0 to {c.vocab - 1}")
        self.store(estimate(count_ngrams(stream, c.order, c.vocab, self.separators), c.vocab, c.smoothing, c.k))

    def store(self, tables: Sequence[Table]) -> None:
        """Take over finished tables, one an order, the first with vocab + 1 rows."""
        device = self.log_probs_1.device
        for k, table in enumerate(tables, start=1):
            if k > 1:
                self.register_buffer(f"keys_{k}", torch.from_numpy(table.keys).to(device))
            self.register_buffer(f"log_probs_{k}", torch.from_numpy(table.log_probs).to(device, torch.float32))
            if k < self.config.order:
                self.register_buffer(f"backoffs_{k}", torch.from_numpy(table.backoffs).to(device, torch.float32))
        self.config = self.config.replace(entries=tuple(len(table.keys) for table in tables))

    def hidden(self, tokens: Tensor, cache: Cache | None = None, segments: Tensor | None = None) -> Tensor:
        """tokens (B,T) -> the tokens that each prediction looks at, (B, T, max(1, order-1)) int64, the latest last.

        A separator is `start`; -1 stands where the history is unknown or cut: before a separator, in front of the
        segment, and everywhere at padding.
        """
        width = max(1, self.config.order - 1)
        marks = torch.ones_like(tokens) if segments is None else segments
        order = (marks == 0).long().argsort(dim=1, stable=True)  # real tokens first: padding may stand anywhere
        line, marks = tokens.gather(1, order), marks.gather(1, order)
        before = line.new_full((len(line), width), -1)
        if cache is not None:
            assert isinstance(cache, TokenCache)
            before, marks = cache.last(width), (marks != 0).long()
            cache.append(line, marks.sum(1))
        contexts = torch.cat([before, line], 1).unfold(1, width, 1)[:, 1:]
        marks = torch.cat([torch.ones_like(before), marks], 1).unfold(1, width, 1)[:, 1:]
        closed = torch.isin(contexts, contexts.new_tensor(self.separators))
        later = closed.flip(-1).cumsum(-1).flip(-1) - closed.long()
        known = (marks == marks[..., -1:]) & (marks != 0) & (later == 0)
        contexts = torch.where(known, contexts.masked_fill(closed, self.start), -1)
        return torch.empty_like(contexts).scatter_(1, order[..., None].expand_as(contexts), contexts)

    def head(self, hidden: Tensor) -> Tensor:
        """Contexts (..., max(1, order-1)) -> log-probabilities as logits (..., V) float32.

        From short contexts to long: a context multiplies the row by its weight, then writes what it has counted.
        """
        contexts = hidden.reshape(-1, hidden.shape[-1])
        rows = self.log_probs_1.repeat(len(contexts), 1)  # with a column for `start`, which is dropped at the end
        for k, nodes in self.contexts(contexts):
            rows += look_up(self.get_buffer(f"backoffs_{k}"), nodes)[:, None]
            first, count = self.continuations(k, nodes)
            within = torch.arange(int(count.sum()), device=rows.device)
            within -= (count.cumsum(0) - count).repeat_interleave(count)
            children = first.repeat_interleave(count) + within
            words = self.get_buffer(f"keys_{k + 1}")[children] % (self.start + 1)
            parents = torch.arange(len(rows), device=rows.device).repeat_interleave(count)
            rows[parents, words] = self.get_buffer(f"log_probs_{k + 1}")[children]
        return rows[:, :-1].reshape(*hidden.shape[:-1], -1)

    def log_prob(
        self, tokens: Tensor, targets: Tensor, cache: Cache | None = None, segments: Tensor | None = None
    ) -> Tensor:
        """As the contract has it, but looked up: no row of V numbers is made."""
        contexts = self.hidden(tokens, cache, segments).flatten(0, 1)
        goals = targets.reshape(-1).clamp(min=0)
        found = self.log_probs_1[goals]
        for k, nodes in self.contexts(contexts):
            children = self.find(k + 1, nodes, goals)
            backoffs = look_up(self.get_buffer(f"backoffs_{k}"), nodes)
            found = torch.where(
                children >= 0, look_up(self.get_buffer(f"log_probs_{k + 1}"), children), found + backoffs
            )
        return torch.where(targets == -100, 0.0, found.reshape(targets.shape))

    def contexts(self, contexts: Tensor) -> Iterator[tuple[int, Tensor]]:
        """For k = 1, 2, ...: the rows (N,) of the last k tokens of contexts (N,D) in level k, -1 where they have none.

        'add-k' asks a context of all known tokens only, whatever shorter ones have seen.
        """
        for k in range(1, self.config.order):
            nodes = contexts[:, -k]
            for length in range(2, k + 1):
                nodes = self.find(length, nodes, contexts[:, length - k - 1])
            if self.config.smoothing == "add-k" and k < contexts.shape[1]:
                nodes = torch.where(contexts[:, -k - 1] < 0, nodes, -1)
            yield k, nodes

    def find(self, length: int, prefixes: Tensor, words: Tensor) -> Tensor:
        """Rows (N,) of the n-grams prefix + word in a level, -1 where there is none."""
        keys = self.get_buffer(f"keys_{length}")
        if not len(keys):
            return torch.full_like(prefixes, -1)
        wanted = prefixes * (self.start + 1) + words
        places = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
        return torch.where((prefixes >= 0) & (words >= 0) & (keys[places] == wanted), places, -1)

    def continuations(self, k: int, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """The n-grams that begin with rows (N,) of level k: where they start in level k + 1, and how many they are."""
        keys = self.get_buffer(f"keys_{k + 1}")
        first = torch.searchsorted(keys, nodes * (self.start + 1))
        count = torch.searchsorted(keys, (nodes + 1) * (self.start + 1)) - first
        return first, torch.where(nodes >= 0, count, 0)

    def backoff_path(self, context: Sequence[int], target: int) -> list[BackoffStep]:
        """How the probability of `target` after the tokens `context` came about: contexts tried, the longest first.

        The `nats` add up to `log_prob`. A first step that was not `seen` means that the model had to back off.
        """
        device = self.log_probs_1.device
        read = self.hidden(torch.tensor([list(context)], dtype=torch.int64, device=device))[0, -1:]
        steps: list[BackoffStep] = []
        for k, node in reversed(list(self.contexts(read))) if len(read) else ():
            words = tuple(read[0, -k:].tolist())
            if min(words) < 0 or (self.config.smoothing == "add-k" and steps):
                continue
            child = self.find(k + 1, node, torch.tensor([target], device=device))
            if int(child) >= 0:
                return [*steps, BackoffStep(words, True, True, float(self.get_buffer(f"log_probs_{k + 1}")[child]))]
            seen = int(self.continuations(k, node)[1]) > 0
            steps.append(BackoffStep(words, seen, False, float(look_up(self.get_buffer(f"backoffs_{k}"), node))))
        return [*steps, BackoffStep((), True, True, float(self.log_probs_1[target]))]

    def make_cache(self, batch: int, length: int) -> Cache:
        return TokenCache(batch, length, self.log_probs_1.device)

    def parameter_count(self) -> int:
        """Log-probabilities and back-off weights stored."""
        return sum(buffer.numel() for buffer in self.buffers() if buffer.is_floating_point())


def look_up(values: Tensor, rows: Tensor) -> Tensor:
    """values[rows], and 0 where a row is -1."""
    if not len(values):
        return torch.zeros(rows.shape, device=values.device)
    return torch.where(rows >= 0, values[rows.clamp(min=0)], 0.0)


Model = NGram

SIZES = {
    "unigram": NGramConfig("ngram", order=1),
    "bigram": NGramConfig("ngram", order=2),
    "trigram": NGramConfig("ngram", order=3),
    "4gram": NGramConfig("ngram", order=4),
    "5gram": NGramConfig("ngram", order=5),
    "bigram-add-one": NGramConfig("ngram", order=2, smoothing="add-k", k=1.0),
}

HF = {"model_type": "hornbook_ngram", "architectures": ["HornbookNGramForCausalLM"], "num_hidden_layers": 0}

CONFIG = {
    "context_length": "context",
    "order": "order",
    "smoothing": "smoothing",
    "k": "k",
    "entries": "entries",
}

WEIGHTS = {
    f"model.{name}_{k}": f"{name}_{k}" for k in range(1, MAX_ORDER + 1) for name in ("keys", "log_probs", "backoffs")
}
