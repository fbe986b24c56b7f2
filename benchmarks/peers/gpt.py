"""GPT-2 in plain PyTorch, as one writes it in a tutorial: the model of the loops that bring none of their own."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from peers.measuring import Shape


class Block(nn.Module):
    """Norm, attention, norm, MLP; `written` spells attention out instead of calling the fused kernel."""

    def __init__(self, shape: Shape, bias: bool, tanh: bool, written: bool) -> None:
        super().__init__()
        d = shape.dim
        self.heads, self.written = shape.heads, written
        self.norms = nn.ModuleList(nn.LayerNorm(d, bias=bias) for _ in range(2))
        self.qkv, self.mix = nn.Linear(d, 3 * d, bias=bias), nn.Linear(d, d, bias=bias)
        self.up, self.down = nn.Linear(d, 4 * d, bias=bias), nn.Linear(4 * d, d, bias=bias)
        self.act = nn.GELU(approximate="tanh" if tanh else "none")

    def forward(self, x: Tensor) -> Tensor:
        """(B,T,D) -> (B,T,D)."""
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in self.qkv(self.norms[0](x)).chunk(3, -1))
        if self.written:
            later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
            mixed = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).masked_fill(later, -math.inf).softmax(-1) @ v
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.mix(mixed.transpose(1, 2).flatten(2))
        return x + self.down(self.act(self.up(self.norms[1](x))))


class GPT(nn.Module):
    """tokens and targets (B,T) -> mean loss in nats; without targets, logits (B,T,V). The head is the embedding."""

    def __init__(self, shape: Shape, bias: bool = True, tanh: bool = True, written: bool = False) -> None:
        super().__init__()
        self.shape = shape
        self.tokens, self.positions = nn.Embedding(shape.vocab, shape.dim), nn.Embedding(shape.context, shape.dim)
        self.blocks = nn.ModuleList(Block(shape, bias, tanh, written) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.dim, bias=bias)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for block in self.blocks:
            for linear in (block.mix, block.down):
                nn.init.normal_(linear.weight, std=0.02 / math.sqrt(2 * shape.layers))

    def forward(self, tokens: Tensor, targets: Tensor | None = None) -> Tensor:
        x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x)
        logits = F.linear(self.norm(x), self.tokens.weight)
        return logits if targets is None else F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def groups(self, decay: float) -> list[dict[str, object]]:
        """Parameters for an optimiser: matrices and tables decay, the rest does not."""
        learnt = list(self.parameters())
        large, small = [p for p in learnt if p.ndim > 1], [p for p in learnt if p.ndim < 2]
        return [{"params": large, "weight_decay": decay}, {"params": small, "weight_decay": 0.0}]
