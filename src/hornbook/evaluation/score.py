"""A model's score on a split: every target once, with a stated context, summed in nats and divided once.

A document is `sep ids sep`: its tokens and the separator that closes it are targets, the one that opens it is context.
Windows of at most T tokens move over each document by `stride` targets: the first scores all of its targets, each
further one only its last `stride`, so that those have at least T - stride tokens of context.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hornbook.data.batches import NO_TARGET
from hornbook.data.shards import Shard
from hornbook.errors import UserError
from hornbook.layers.model import LanguageModel
from hornbook.parallel.processes import Processes
from hornbook.scoring.intervals import ratio_interval


@dataclass(frozen=True)
class Scores:
    """Per-document sums; the figures follow from them. `bytes` and `words` are those of the text itself."""

    nats: NDArray[np.float64]
    targets: NDArray[np.int64]
    bytes: NDArray[np.int64]
    words: NDArray[np.int64]
    restorable: bool
    context: int
    stride: int

    @property
    def bits_per_byte(self) -> float | None:
        """None for a tokeniser that cannot restore the text: it would be paid for what it threw away."""
        return float(self.nats.sum() / self.bytes.sum() / math.log(2)) if self.restorable else None

    @property
    def word_perplexity(self) -> float:
        """exp(nats of the whole text / its whitespace-separated words)."""
        return exponential(self.nats.sum() / self.words.sum())

    @property
    def token_perplexity(self) -> float:
        """exp(nats / targets): only comparable between models with one tokeniser."""
        return exponential(self.nats.sum() / self.targets.sum())

    def interval(
        self, numerator: str = "nats", denominator: str = "bytes", seed: int = 0
    ) -> tuple[float, float] | None:
        """The 95 % interval of a ratio of sums, by the bootstrap over documents; None for one document, or infinite."""
        if len(self.nats) < 2 or not np.isfinite(self.nats).all():
            return None
        return ratio_interval(getattr(self, numerator), getattr(self, denominator), seed)

    def summary(self) -> dict[str, Any]:
        """All figures, plain, for tables and JSON; None for one that is infinite or cannot be had."""
        by_bytes, by_words = self.interval(), self.interval("nats", "words")
        bits = [x / math.log(2) for x in by_bytes] if by_bytes and self.restorable else None
        return {
            "bits_per_byte": finite(self.bits_per_byte),
            "bits_per_byte_interval": bits,
            "word_perplexity": finite(self.word_perplexity),
            "word_perplexity_interval": [finite(exponential(x)) for x in by_words] if by_words else None,
            "token_perplexity": finite(self.token_perplexity),
            "nats": finite(float(self.nats.sum())),
            "targets": int(self.targets.sum()),
            "bytes": int(self.bytes.sum()),
            "words": int(self.words.sum()),
            "documents": len(self.nats),
            "context": self.context,
            "stride": self.stride,
            "document_nats": [finite(x) for x in self.nats.tolist()],
            "document_bytes": self.bytes.tolist(),
        }


def finite(figure: float | None) -> float | None:
    """The figure, or None for what JSON cannot hold: a model without smoothing finds some texts impossible."""
    return figure if figure is not None and math.isfinite(figure) else None


def require_causal(model: LanguageModel) -> None:
    """UserError for an encoder: it sees both sides of a token, so it gives no probability of a text."""
    if not model.causal:
        raise UserError(
            f"a model of the family {model.config.family} sees both sides: it gives no probability of a text"
        )


def exponential(nats: float) -> float:
    return math.exp(nats) if nats < 700 else math.inf


@dataclass(frozen=True)
class Window:
    """tokens[start : start + length] read, the last `scored` of its targets counted for `document`."""

    document: int
    start: int
    length: int
    scored: int


def cut_windows(shard: Shard, context: int, stride: int, limit: int = 0) -> Iterator[Window]:
    """The windows of all documents, or of the first documents until `limit` targets are reached."""
    used = 0
    for document in range(shard.documents):
        begin, end = int(shard.starts[document]) - 1, int(shard.starts[document + 1]) - 1  # inputs; targets are one on
        if limit and used >= limit:
            return
        done = begin
        while done < end:
            stop = min(end, begin + context if done == begin else done + stride)
            start = max(begin, stop - context)
            yield Window(document, start, stop - start, stop - done)
            done = stop
        used += end - begin


@torch.inference_mode()
def score(
    model: LanguageModel,
    shard: Shard,
    context: int | None = None,
    stride: int | None = None,
    batch: int = 32,
    limit: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
    processes: Processes | None = None,
) -> Scores:
    """Score `model` on `shard`. The model is put into evaluation mode and left in the mode it came in.

    Several `processes` that hold it share the batches; all get the sums. Raises UserError for an encoder, and for a
    stride beyond the context.
    """
    processes = processes or Processes()
    device = model.device
    require_causal(model)
    context = model.config.context if context is None else context
    stride = max(1, context // 2) if stride is None else stride
    if not 1 <= stride <= context or batch < 1 or limit < 0:
        raise UserError(
            f"stride {stride}, context {context}, batch {batch}, limit {limit}: a stride is 1 to the context, a batch "
            "at least 1, a limit not negative"
        )
    windows = sorted(cut_windows(shard, context, stride, limit), key=lambda w: -w.length)
    cuts = [windows[first : first + batch] for first in range(0, len(windows), batch)]
    sums = np.zeros((2, shard.documents))
    was_training = model.training
    model.eval()
    for turn in range(0, len(cuts), processes.groups):
        mine = turn + processes.group
        rows = cuts[min(mine, len(cuts) - 1)]  # who has none left computes along: a model in parts needs all
        tokens, goals = gather(shard, rows)
        found = -model.log_prob(tokens.to(device), goals.to(device)).cpu().double().sum(1).numpy()
        if mine < len(cuts):
            np.add.at(sums[0], [row.document for row in rows], found)
            np.add.at(sums[1], [row.document for row in rows], [row.scored for row in rows])
        progress(min(len(windows), (turn + processes.groups) * batch), len(windows))
    model.train(was_training)
    nats, counts = processes.summed(torch.from_numpy(sums)).numpy()
    targets = counts.round().astype(np.int64)
    seen = targets > 0
    return Scores(
        nats[seen],
        targets[seen],
        shard.document_bytes[seen],
        shard.document_words[seen],
        shard.restorable,
        context,
        stride,
    )


def gather(shard: Shard, rows: list[Window]) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and targets (B,T) of windows, padded on the right with tokens that no target asks for."""
    width = max(row.length for row in rows)
    tokens = np.zeros((len(rows), width), np.int64)
    goals = np.full((len(rows), width), NO_TARGET, np.int64)
    for i, row in enumerate(rows):
        span = shard.tokens[row.start : row.start + row.length + 1].astype(np.int64)
        tokens[i, : row.length] = span[:-1]
        goals[i, row.length - row.scored : row.length] = span[1:][row.length - row.scored :]
    return torch.from_numpy(tokens), torch.from_numpy(goals)
