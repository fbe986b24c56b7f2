"""From logits to the next token."""

from __future__ import annotations

import torch
from torch import Tensor


def choose(logits: Tensor, temperature: float, top_k: int, top_p: float, generator: torch.Generator) -> Tensor:
    """logits (B,V) -> token ids (B,). Temperature 0 is greedy; otherwise temperature, then top-k, then top-p.

    Top-p keeps the smallest set of likeliest tokens with at least that probability (Holtzman et al. 2020).
    """
    if temperature == 0:
        return logits.argmax(-1)
    logits = logits.float() / temperature
    if 0 < top_k < logits.shape[-1]:
        least = logits.topk(top_k).values[..., -1:]
        logits = logits.masked_fill(logits < least, float("-inf"))
    if top_p < 1:
        ordered, order = logits.sort(descending=True)
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)  # probability of all that are likelier
        logits = logits.masked_fill((before >= top_p).scatter(-1, order, before >= top_p), float("-inf"))
    return torch.multinomial(logits.softmax(-1).cpu(), 1, generator=generator)[:, 0].to(logits.device)
