"""The contract that every rung of the ladder fulfils, neural or counted."""

from __future__ import annotations

import itertools
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from hornbook.config import Adapter, ModelConfig, Quantization
from hornbook.errors import UserError, listing
from hornbook.layers.cross_entropy import linear_cross_entropy
from hornbook.layers.stand_in import StandIn
from hornbook.text.tokenizers import Tokenizer


class Cache(Protocol):
    """What a model remembers of the tokens it has read: keys and values, a hidden state, or the last tokens."""

    lengths: Tensor
    """(B,) int64: how many real tokens each row has read."""

    def select(self, rows: Tensor) -> None:
        """Keep or repeat rows, in place: row i becomes the old row rows[i] (beam search reorders with it)."""

    def rewind(self, lengths: Tensor) -> None:
        """Forget all but the first lengths[b] tokens of every row b."""

    def join(self, other: Self) -> None:
        """Take the rows of another cache of the same model behind these; make room where there is too little."""

    def reserve(self, length: int) -> None:
        """Make room for rows of `length` tokens, where there is less."""

    def copy(self, row: int) -> Self:
        """One row as a cache of its own, which shares no memory with this one."""

    @property
    def bytes(self) -> int:
        """Memory held."""


class LanguageModel(nn.Module):
    """tokens (B,T) -> logits (B,T,V).

    `segments` (B,T) says what belongs together: 0 is padding, n is document n. Positions and masks follow from it,
    never from token ids. With a cache, `segments` may only mark padding (0 or 1): a cached row is one document.
    """

    config: ModelConfig
    tokenizer: Tokenizer
    """Of a model that was loaded from a folder."""
    causal = True
    """False for an encoder, which sees both sides and so has no next-token probability."""
    reads_source = False
    """True where a prompt's source goes to an encoder: segments -n, from which document n is written."""
    counted = False
    """True where `fit(tokens)` takes the place of gradient steps."""
    quantization: Quantization | None = None
    """How its matrices are kept in few bits, where they are (`adapt/`)."""
    adapter: Adapter | None = None
    """What it learns beside weights that stay as they are, where it does (`adapt/lora.py`)."""
    class_head: nn.Module | None
    """Features -> logits of `config.labels`, in a model that tells classes apart (`layers/class_head.py`)."""
    token_head: tuple[str, ...] = ("output",)
    """Attributes that predict tokens beside the embedding, which a class head takes the place of."""
    embedding: Any
    output: Any
    """Neural models: the token embedding, and the head's last matrix, None where that is the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.class_head = None

    def hidden(self, tokens: Tensor, cache: Cache | None = None, segments: Tensor | None = None) -> Tensor:
        """tokens (B,T) int64 -> (B,T,D)."""
        raise NotImplementedError

    def features(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., E): what the head's last matrix multiplies."""
        return hidden

    @property
    def readout(self) -> Any:
        """Whose `weight` (V,E) is the head's last matrix."""
        return self.embedding if self.output is None else self.output

    @property
    def readout_bias(self) -> Tensor | None:
        """The head's bias (V,), if any."""
        return None

    @property
    def unembedding(self) -> tuple[Tensor, Tensor | None]:
        """The head's last matrix (V,E) and its bias (V,), if any."""
        return self.readout.weight, self.readout_bias

    def head(self, hidden: Tensor) -> Tensor:
        """(..., D) -> logits (..., V)."""
        return self.unembed(self.features(hidden))

    def unembed(self, features: Tensor) -> Tensor:
        """(..., E) -> logits (..., V). UserError for a model that tells classes apart."""
        self.require_tokens()
        matrix = self.readout
        if not isinstance(matrix, StandIn):
            return nn.functional.linear(features, *self.unembedding)
        logits, bias = matrix.multiply(features), self.readout_bias
        return logits if bias is None else logits + bias.to(logits.dtype)

    def class_logits(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., C): what the class head makes of each position, of which one counts (`judged_places`)."""
        assert self.class_head is not None
        return self.class_head(self.features(hidden))

    def require_tokens(self) -> None:
        """UserError for a model that tells classes apart."""
        if self.class_head is not None:
            raise UserError(f"this model tells classes apart ({listing(self.config.labels)}): it predicts no tokens")

    def make_cache(self, batch: int, length: int) -> Cache:
        """An empty cache for `batch` rows of at most `length` tokens."""
        raise NotImplementedError

    def forward(self, tokens: Tensor, cache: Cache | None = None, segments: Tensor | None = None) -> Tensor:
        """tokens (B,T) int64 -> logits (B,T,V)."""
        return self.head(self.hidden(tokens, cache, segments))

    def log_prob(
        self, tokens: Tensor, targets: Tensor, cache: Cache | None = None, segments: Tensor | None = None
    ) -> Tensor:
        """tokens, targets (B,T) int64 -> log-probability of each target in nats, (B,T) float32.

        The logits of at most `chunk` positions exist at a time. A target of -100 (no target) gives 0.
        """
        hidden = self.hidden(tokens, cache, segments)
        flat, goal = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
        chunk = 1024
        parts = [
            -nn.functional.cross_entropy(
                self.head(flat[i : i + chunk]).float(), goal[i : i + chunk], reduction="none", ignore_index=-100
            )
            for i in range(0, flat.shape[0], chunk)
        ]
        return torch.cat(parts).reshape(targets.shape)

    def nats(self, tokens: Tensor, targets: Tensor, segments: Tensor | None = None) -> Tensor:
        """tokens, targets (B,T) int64 -> nats summed over all targets but -100, () float32; what training minimises.

        As `log_prob` has it; where there are gradients to take, made for them.
        """
        if self.counted:
            return -self.log_prob(tokens, targets, segments=segments).sum()
        hidden = self.hidden(tokens, segments=segments)
        if hidden.device.type == "cpu" and not torch.compiler.is_compiling():  # a GPU would be waited for
            learnt = targets != -100
            hidden, targets = hidden[learnt], targets[learnt]
        return linear_cross_entropy(self.features(hidden), *self.unembedding, targets)

    def flops_per_token(self, context: int) -> int:
        """Floating-point operations to train on one token in rows of `context` (forward and backward).

        6 for each weight of a matrix that is multiplied with (Kaplan et al. 2020, section 2.1): embedding tables are
        only looked up, a tied head counts. Attention adds its own part where there is one.
        """
        held = {name: m.rows * m.columns for name, m in self.named_modules() if isinstance(m, StandIn)}
        tables = {name: m.weight.numel() for name, m in self.named_modules() if isinstance(m, nn.Embedding)}
        tables |= {name: numbers for name, numbers in held.items() if self.get_submodule(name).looked_up}
        matrices = sum(p.numel() for p in self.parameters() if p.ndim >= 2) + sum(held.values()) - sum(tables.values())
        return 6 * (matrices + (tables["embedding"] if self.tied else 0))

    @property
    def tied(self) -> bool:
        """Whether the head is the token embedding; one of classes never is."""
        return bool(getattr(self.config, "tied", False)) and not self.config.labels

    def fit(self, tokens: Any) -> None:
        """Learn from tokens (N,), any integer type, by counting them. Only where `counted`."""
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        """Where its weights, or counts, are."""
        return next(itertools.chain(self.parameters(), self.buffers())).device

    def parameter_count(self) -> int:
        """Numbers that the model holds, shared tensors counted once."""
        held = sum(module.rows * module.columns for module in self.modules() if isinstance(module, StandIn))
        return held + sum(p.numel() for p in self.parameters())
