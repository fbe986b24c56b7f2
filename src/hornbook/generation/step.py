"""A Transformer's pass over a few cached tokens as one program of the kernels (see `kernels/program.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hornbook.kernels import KINDS, MULTIPLE, Matrix
from hornbook.kernels.program import ACTIVATIONS, WIDEST, Program
from hornbook.layers.cache import KeyValueCache
from hornbook.layers.norms import PlusOneRMSNorm
from hornbook.layers.transformer import Block, Transformer

Matrices = Mapping[nn.Module, Matrix]
"""Without biases."""


class Misfit(Exception):
    """The model has something that the kernels have not."""


class Step:
    """`Transformer.hidden` for few new tokens; None where it is not for the kernels."""

    def __init__(self, model: Transformer, matrices: Matrices) -> None:
        """Misfit where the model has something that the kernels have not."""
        self.model, self.program = model, program(model, matrices)
        self.dtype = next(model.parameters()).dtype
        if self.dtype not in KINDS:
            raise Misfit(f"numbers of {self.dtype}")

    def __call__(self, tokens: Tensor, cache: KeyValueCache, segments: Tensor | None) -> Tensor | None:
        model = self.model
        if torch.is_grad_enabled() or tokens.numel() > self.program.most or cache.keys.dtype != self.dtype:
            return None
        slots = cache.slots(tokens, segments)
        model.check_fits(cache.filled)
        positions = slots % cache.length  # padding stands, harmlessly, at 0
        x, window = model.embed(tokens, positions).to(self.dtype), model.config.window or 0
        return self.program.run(x, cache.keys, cache.values, slots, model.angles(positions), window)


def program(model: Transformer, matrices: Matrices) -> Program:
    """Misfit where the model has something that the kernels have not."""
    c = model.config.resolved()
    widths = {c.dim, c.mlp, c.heads * c.head_dim}
    if any(width % MULTIPLE for width in widths) or c.head_dim % 16 or c.head_dim > WIDEST:
        raise Misfit(f"widths of {sorted(widths)} in heads of {c.head_dim}")
    heads, groups = c.heads * c.head_dim, c.kv_heads * c.head_dim
    found = Program(
        x=c.dim, normed=c.dim, other=c.dim, query=heads, key=groups, value=groups, mixed=heads, up=c.mlp, gate=c.mlp
    )
    for layer, block in enumerate(model.blocks):
        if type(block) is not Block:
            raise Misfit(f"a block: {type(block).__name__}")
        add_block(found, block, layer, c, matrices)
    if model.final_norm is None:
        return found.ready("x")
    add_norm(found, "x", "normed", model.final_norm)
    return found.ready("normed")


def add_block(p: Program, block: Block, layer: int, c: Any, matrices: Matrices) -> None:
    """As `Block.forward`."""
    if block.parallel:
        add_norm(p, "x", "normed", block.attention_norm)
        add_norm(p, "x", "other", block.mlp_norm)
        add_attention(p, block, "normed", layer, c, matrices)
        add_mlp(p, block, "other", c, matrices)
    elif block.pre_norm:
        add_norm(p, "x", "normed", block.attention_norm)
        add_attention(p, block, "normed", layer, c, matrices)
        add_norm(p, "x", "normed", block.mlp_norm)
        add_mlp(p, block, "normed", c, matrices)
    else:
        add_attention(p, block, "x", layer, c, matrices)
        add_norm(p, "x", "x", block.attention_norm)
        add_mlp(p, block, "x", c, matrices)
        add_norm(p, "x", "x", block.mlp_norm)


def add_norm(p: Program, source: str, to: str, norm: nn.Module) -> None:
    if type(norm) is nn.LayerNorm:
        p.norm(source, to, "layer", norm.weight, norm.bias, norm.eps)
    elif type(norm) is nn.RMSNorm and norm.eps is not None:
        p.norm(source, to, "rms", norm.weight, None, norm.eps)
    elif type(norm) is PlusOneRMSNorm:
        p.norm(source, to, "rms", 1 + norm.weight.float(), None, norm.eps)
    else:
        raise Misfit(f"a norm: {norm}")


def add_attention(p: Program, block: Block, source: str, layer: int, c: Any, matrices: Matrices) -> None:
    a = block.attention
    turned = int(c.head_dim * c.rotary_share) if c.positions == "rotary" and layer not in a.unrotated else 0
    heads: dict[str, Any] = {"layer": layer, "width": c.head_dim, "heads": c.heads, "groups": c.kv_heads}
    heads |= {"turned": turned, "eps": c.norm_eps}
    p.products(source, {name: held(getattr(a, name), matrices) for name in ("query", "key", "value")})
    p.keep("key", "value", None if a.key_norm is None else a.key_norm.weight, **heads)
    p.attend("query", "mixed", None if a.query_norm is None else a.query_norm.weight, **heads)
    p.products("mixed", {"x": held(a.output, matrices)}, add=True)


def add_mlp(p: Program, block: Block, source: str, c: Any, matrices: Matrices) -> None:
    m = block.mlp
    if c.activation not in ACTIVATIONS:
        raise Misfit(f"the activation {c.activation}")
    if m.gate is None:
        p.products(source, {"up": held(m.up, matrices)})
        p.activate("up", "up", c.activation, c.mlp)
    else:
        p.products(source, {"gate": held(m.gate, matrices), "up": held(m.up, matrices)})
        p.activate("gate", "up", c.activation, c.mlp, by="up")
    p.products("up", {"x": held(m.down, matrices)}, add=True)


def held(module: nn.Module, matrices: Matrices) -> Matrix:
    if module not in matrices:
        raise Misfit(f"a matrix: {module}")
    bias = getattr(module, "bias", None)
    return matrices[module].biased(bias) if bias is not None else matrices[module]
