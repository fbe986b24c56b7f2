"""The recurrent rung: a state carried from token to token (Elman 1990), by a tanh, GRU or LSTM cell.

GRU: Cho et al. 2014; LSTM: Hochreiter and Schmidhuber 1997; as a language model: Mikolov et al. 2010. Against a
Transformer: no positions, no attention; everything that the model knows of the past is in its state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from hornbook.config import ModelConfig
from hornbook.layers.cache import TokenCache
from hornbook.layers.dropout import Dropout
from hornbook.layers.initialise import initialise
from hornbook.layers.model import Cache, LanguageModel

CELLS: dict[str, Any] = {"tanh": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


@dataclass(frozen=True)
class RNNConfig(ModelConfig):
    """Sizes of a recurrent model."""

    dim: int = 512
    """Width D of the embedding and of the state."""
    layers: int = 1
    cell: str = "lstm"
    tied: bool = False
    dropout: float = 0.0


class RecurrentCache(TokenCache):
    """The state after the tokens read so far, and those tokens, from which an earlier state can be had again."""

    def __init__(self, batch: int, length: int, device: torch.device) -> None:
        super().__init__(batch, length, device)
        self.state: tuple[Tensor, ...] | None = None
        """Each (L,B,D); None before the first token, and after `rewind` until it is computed anew."""

    def select(self, rows: Tensor) -> None:
        super().select(rows)
        if self.state is not None:
            self.state = tuple(part[:, rows] for part in self.state)

    def rewind(self, lengths: Tensor) -> None:
        if bool((lengths < self.lengths).any()):
            self.state = None
        super().rewind(lengths)

    def join(self, other: Self) -> None:
        if not len(self.lengths):
            self.state = other.state
        elif self.state is not None and other.state is not None:
            self.state = tuple(torch.cat(parts, 1) for parts in zip(self.state, other.state, strict=True))
        else:
            self.state = None
        super().join(other)

    @property
    def bytes(self) -> int:
        return super().bytes + sum(part.nbytes for part in self.state or ())


class RNN(LanguageModel):
    """Embedding, recurrent layers, head."""

    config: RNNConfig

    def __init__(self, config: RNNConfig) -> None:
        super().__init__()
        c = self.config = config
        self.embedding = nn.Embedding(c.vocab, c.dim)
        self.dropout = Dropout(c.dropout)
        between = c.dropout if c.layers > 1 else 0.0
        self.recurrent = CELLS[c.cell](c.dim, c.dim, c.layers, batch_first=True, dropout=between)
        self.output = None if c.tied else nn.Linear(c.dim, c.vocab, bias=False)
        initialise(self)

    def hidden(self, tokens: Tensor, cache: Cache | None = None, segments: Tensor | None = None) -> Tensor:
        """tokens (B,T) -> (B,T,D)."""
        assert cache is None or isinstance(cache, RecurrentCache)
        return self.dropout(self.states(tokens, cache, segments))

    def states(self, tokens: Tensor, cache: RecurrentCache | None, segments: Tensor | None) -> Tensor:
        """The states after each token, (B,T,D); every segment starts from nothing, padding leaves no trace."""
        if cache is not None:
            return self.cached_states(tokens, cache, segments)
        if segments is None:
            return self.run(tokens, None)[0]
        row, start, length = runs(segments)  # each run of one segment becomes a row of its own
        if not len(length):  # padding alone; every weight still has a gradient, of zeros
            return 0 * self.run(torch.zeros_like(tokens), None)[0]
        step = torch.arange(int(length.max()), device=tokens.device)
        real = step < length[:, None]
        places = (row[:, None], (start[:, None] + step).clamp(max=tokens.shape[1] - 1))
        found, _ = self.run(torch.where(real, tokens[places], 0), None)
        states = found.new_zeros(*tokens.shape, found.shape[-1])
        return states.index_put(tuple(place.expand_as(real)[real] for place in places), found[real])

    def cached_states(self, tokens: Tensor, cache: RecurrentCache, segments: Tensor | None) -> Tensor:
        """As `states`, going on from the cache; the real tokens of a row are first moved together to its left."""
        if cache.state is None and bool(cache.lengths.any()):
            _, cache.state = self.run(cache.tokens, None, cache.lengths)
        if segments is None:
            cache.append(tokens, torch.full_like(cache.lengths, tokens.shape[1]))
            found, cache.state = self.run(tokens, cache.state)
            return found
        real = segments != 0
        order = (~real).long().argsort(dim=1, stable=True)
        cache.append(tokens.gather(1, order), real.sum(1))
        found, cache.state = self.run(tokens.gather(1, order), cache.state, real.sum(1))
        return torch.zeros_like(found).scatter(1, order[..., None].expand_as(found), found)

    def run(
        self, tokens: Tensor, state: tuple[Tensor, ...] | None, lengths: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The layers over tokens (B,T) from `state`: outputs (B,T,D) and the state after lengths[b] tokens."""
        x: Any = self.dropout(self.embedding(tokens))
        width = tokens.shape[1]
        some = None if lengths is None else lengths > 0
        before = state or self.nothing(len(tokens), x)
        if lengths is not None:
            x = pack_padded_sequence(x, lengths.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False)
        found, after = self.recurrent(x, before if len(before) > 1 else before[0])
        after = after if isinstance(after, tuple) else (after,)
        if lengths is not None:
            found, _ = pad_packed_sequence(found, batch_first=True, total_length=width)
            assert some is not None
            after = tuple(torch.where(some[None, :, None], a, b) for a, b in zip(after, before, strict=True))
        return found, after

    def nothing(self, batch: int, like: Tensor) -> tuple[Tensor, ...]:
        """The state before the first token: zeros."""
        zeros = torch.zeros(self.config.layers, batch, self.config.dim, device=like.device, dtype=like.dtype)
        return (zeros, zeros) if self.config.cell == "lstm" else (zeros,)

    def make_cache(self, batch: int, length: int) -> Cache:
        return RecurrentCache(batch, length, next(self.parameters()).device)


def runs(segments: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Row, start and length, each (R,), of the R runs of one non-zero segment in segments (B,T)."""
    starts = torch.ones_like(segments, dtype=torch.bool)
    starts[:, 1:] = segments[:, 1:] != segments[:, :-1]
    row, start = torch.nonzero(starts, as_tuple=True)
    ends = torch.cat([start[1:], start.new_zeros(1)])
    ends = torch.where(ends == 0, segments.shape[1], ends)  # the next run starts a new row, or there is none
    kept = segments[row, start] != 0
    return row[kept], start[kept], (ends - start)[kept]


Model = RNN

SIZES = {
    "rnn": RNNConfig("rnn", dim=512, layers=1),
    "rnn-tiny": RNNConfig("rnn", dim=256, layers=1),
}

RECIPE = {"optimizer": "muon", "lr": 0.004}

HF = {"model_type": "hornbook_rnn", "architectures": ["HornbookRNNForCausalLM"]}

CONFIG = {
    "context_length": "context",
    "hidden_size": "dim",
    "num_hidden_layers": "layers",
    "cell": "cell",
    "tie_word_embeddings": "tied",
    "dropout": "dropout",
}

WEIGHTS = {
    "model.embedding.weight": "embedding.weight",
    "model.recurrent.weight_ih_l{i}": "recurrent.weight_ih_l{i}",
    "model.recurrent.weight_hh_l{i}": "recurrent.weight_hh_l{i}",
    "model.recurrent.bias_ih_l{i}": "recurrent.bias_ih_l{i}",
    "model.recurrent.bias_hh_l{i}": "recurrent.bias_hh_l{i}",
    "model.output.weight": "output.weight",
}
