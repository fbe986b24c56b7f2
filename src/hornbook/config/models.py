"""What a model states about itself: the fields of its config.json."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True)
class ModelConfig:
    """What every rung states about itself. A family with fields of its own subclasses this in its file."""

    family: str
    """The file in `models/` that builds it."""
    vocab: int = 0
    """Number of token ids V; 0 in a size that takes its tokeniser's."""
    context: int = 256
    """Longest sequence T, in tokens, that the model was built or trained for."""
    bos: int | None = None
    """Token id that opens a document (also its separator in packed batches)."""
    eos: int | None = None
    """Token id that closes a document; generation stops there."""
    stops: tuple[int, ...] = ()
    """Further token ids at which generation stops: the end of a message, say."""
    pad: int | None = None
    """Token id that fills up rows; never predicted, never attended to."""
    labels: tuple[str, ...] = ()
    """Classes that a class head tells apart, by its outputs; none for a model that predicts tokens."""

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def resolved(self) -> Self:
        """A copy in which every size that was left to be derived is written out."""
        return self


@dataclass(frozen=True)
class RopeScaling:
    """RoPE scaling: how rotary positions are stretched to contexts longer than those first trained on."""

    kind: str
    """'linear' (Chen et al. 2023): all rates divided by `factor`; 'llama3' (Grattafiori et al. 2024, section 3.4.3 and
    released code): slow rates divided, fast ones kept, those between blended."""
    factor: float
    low: float = 1.0
    """'llama3': rates that turn fewer than `low` times in the original context are divided."""
    high: float = 4.0
    """'llama3': rates that turn more than `high` times in it are kept."""
    original: int = 8192
    """'llama3': the context before."""


@dataclass(frozen=True)
class TransformerConfig(ModelConfig):
    """The parts and sizes of one Transformer. A family fixes the parts and names sizes for the rest."""

    dim: int = 256
    """Width D of the residual stream."""
    layers: int = 4
    """Number of blocks."""
    heads: int = 4
    """Number of query heads H."""
    kv_heads: int = 0
    """Number of key and value heads (grouped queries); 0 means as many as query heads."""
    head_dim: int = 0
    """Width K of a head; 0 means dim / heads."""
    mlp: int = 0
    """Inner width of the MLP; 0 means 4 dim."""
    norm: str = "layer"
    """'layer' (mean and variance, with bias), 'rms' (root mean square, scale only) or 'rms_plus_one' (Gemma: the scale
    is 1 + weight)."""
    norm_eps: float = 1e-5
    pre_norm: bool = True
    """True puts the norm before the sub-layer (GPT-2 and later); False is post-norm, after the sum (2017, BERT)."""
    query_norm: bool = False
    """QK norm: each head's queries and keys go through an RMSNorm before they meet (Qwen3)."""
    parallel: bool = False
    """Attention and MLP read the same input and are added together (GPT-NeoX)."""
    activation: str = "gelu_tanh"
    gated: bool = False
    """The MLP multiplies its activation with a second projection (Shazeer 2020)."""
    positions: str = "learned"
    """'learned' (a table), 'sinusoidal' (Vaswani et al. 2017, section 3.5), 'rotary' (Su et al. 2021) or 'none'."""
    position_offset: int = 0
    """Rows of the position table before position 0 (OPT: 2)."""
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    rotary_share: float = 1.0
    """The share of a head's channels that rotate, the first ones (GPT-NeoX: a quarter)."""
    unrotated: tuple[int, ...] = ()
    """NoPE layers: blocks, by number, whose queries and keys do not rotate (SmolLM3)."""
    window: int | None = None
    """Sliding window: a position sees itself and the window - 1 before it; None for all before it."""
    qkv_bias: bool = True
    """The projections to queries, keys and values carry biases."""
    output_bias: bool = True
    """The projection out of attention carries one."""
    mlp_bias: bool = True
    """The MLP's projections carry biases (the output head never does)."""
    tied: bool = True
    """The output head is the token embedding."""
    embedding_norm: bool = False
    """A norm after the embeddings (BERT)."""
    embedding_scale: bool = False
    """Token embeddings are multiplied by sqrt(dim) (Vaswani et al. 2017, section 3.4; Gemma)."""
    embedding_dim: int = 0
    """Width E of the token embeddings where it is not D: they are projected in, and out again (OPT-350m); 0 means D."""
    dropout: float = 0.0
    """Probability, on embeddings, attention weights and sub-layer outputs, while training."""

    def resolved(self) -> Self:
        return self.replace(
            kv_heads=self.kv_heads or self.heads,
            head_dim=self.head_dim or self.dim // self.heads,
            mlp=self.mlp or 4 * self.dim,
            embedding_dim=self.embedding_dim or self.dim,
            unrotated=tuple(i for i in self.unrotated if i < self.layers),
        )
