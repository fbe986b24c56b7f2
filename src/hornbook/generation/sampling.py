"""From logits to the next token: what may be drawn, how likely it is, and the draw.

Rows (B,V) that share one `config.Sampling` are worked on together; only the penalties look at each row's own tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hornbook.config import ModelConfig, Sampling

NEVER = float("-inf")
COLDEST = 1e-20
"""Lower temperatures are as good as this one, and 1e-46 is 0 in float32."""
STUCK = "the model's logits are not numbers, or rule out every token"
"""Why a text cannot go on where no token can be drawn."""


def ends(config: ModelConfig) -> set[int | None]:
    """Tokens at which every text ends."""
    return {config.eos, *config.stops}


class Place(NamedTuple):
    """Where a next token goes: the tokens before it, those given and those made, and whose draw it is."""

    prompt: Sequence[int]
    new: Sequence[int]
    sampling: Sampling
    sample: int = 0
    """Number of this sample among those of the same prompt and seed."""


def next_tokens(logits: Tensor, places: Sequence[Place], config: ModelConfig) -> list[int]:
    """Tokens drawn from logits (B,V), one a place and none of them padding; -1 where there is nothing to draw."""
    logits = without_pad(logits, config)
    groups: dict[int, list[int]] = {}
    for row, place in enumerate(places):
        groups.setdefault(id(place.sampling), []).append(row)
    found = [-1] * len(places)
    for rows in groups.values():
        some = [places[row] for row in rows]
        sampling = some[0].sampling
        chances = candidates(logits[rows], [p.prompt for p in some], [p.new for p in some], sampling)
        noises = None
        if sampling.temperature > 0:
            drawn = [noise(sampling.seed, p.sample, len(p.new), logits.shape[-1]) for p in some]
            noises = torch.stack(drawn).to(logits.device)
        tokens = torch.where(chances.amax(-1).isfinite(), draw(chances, noises), -1)
        for row, token in zip(rows, tokens.tolist(), strict=True):
            found[row] = token
    return found


def without_pad(logits: Tensor, config: ModelConfig) -> Tensor:
    """(B,V), -inf for the pad token, unless that also ends texts (as in many models fine-tuned elsewhere)."""
    if config.pad is None or config.pad in ends(config):
        return logits
    return logits.index_fill(-1, torch.tensor([config.pad], device=logits.device), NEVER)


def candidates(logits: Tensor, prompts: Sequence[Sequence[int]], news: Sequence[Sequence[int]], s: Sampling) -> Tensor:
    """logits (B,V) -> (B,V) float32, whose softmax is drawn from; -inf for what must not come.

    `prompts` and `news` are each row's tokens so far: those it was given, and those it has made.
    """
    logits = logits.float()
    if (
        s.logit_bias
        or s.no_repeat_ngram
        or (s.repetition_penalty, s.frequency_penalty, s.presence_penalty) != (1, 0, 0)
    ):
        logits = torch.stack(
            [punished(row, prompt, new, s) for row, prompt, new in zip(logits, prompts, news, strict=True)]
        )
    if s.temperature == 0:
        return logits
    return kept((logits - logits.amax(-1, keepdim=True)) / max(s.temperature, COLDEST), s)


def punished(logits: Tensor, prompt: Sequence[int], new: Sequence[int], s: Sampling) -> Tensor:
    """One row (V,) with bias and penalties, and without the tokens that would repeat a run."""
    logits = logits.clone()
    if s.logit_bias:
        logits[list(s.logit_bias)] += torch.tensor(list(s.logit_bias.values())).to(logits)
    if s.repetition_penalty != 1:  # Keskar et al. 2019, section 4.1; for negative logits as in their released code
        seen = torch.tensor(sorted({*prompt, *new}), dtype=torch.int64, device=logits.device)
        found = logits[seen]
        logits[seen] = torch.where(found > 0, found / s.repetition_penalty, found * s.repetition_penalty)
    if (s.frequency_penalty or s.presence_penalty) and new:
        tokens, counts = np.unique(np.asarray(new), return_counts=True)
        penalty = s.frequency_penalty * counts + s.presence_penalty
        logits[torch.from_numpy(tokens).to(logits.device)] -= torch.from_numpy(penalty).to(logits)
    if s.no_repeat_ngram:
        logits[repeating([*prompt, *new], s.no_repeat_ngram)] = NEVER
    return logits


def repeating(tokens: Sequence[int], length: int) -> list[int]:
    """The tokens that would make the last `length` ones a run that has been there before (Paulus et al. 2017)."""
    begun = list(tokens[len(tokens) - length + 1 :]) if length > 1 else []
    places = range(len(tokens) - length + 1)
    near = (i for i in places if not begun or tokens[i + length - 2] == begun[-1])  # most are told by their last token
    return sorted({tokens[i + length - 1] for i in near if list(tokens[i : i + length - 1]) == begun})


def kept(logits: Tensor, s: Sampling) -> Tensor:
    """(B,V), -inf outside of top-k, top-p, min-p and typical-p, one after the other; one token always stays."""
    if 0 < s.top_k < logits.shape[-1]:
        logits = logits.masked_fill(logits < logits.topk(s.top_k).values[:, -1:], NEVER)
    if s.top_p < 1:  # Holtzman et al. 2020, section 3.1
        logits = least_set(logits, -logits, s.top_p)
    if s.min_p > 0:  # Nguyen et al. 2024
        share = logits.softmax(-1)
        logits = logits.masked_fill(share < s.min_p * share.amax(-1, keepdim=True), NEVER)
    if s.typical_p < 1:  # Meister et al. 2023, section 4
        nats = logits.log_softmax(-1)
        entropy = -(nats.exp() * nats.masked_fill(nats == NEVER, 0)).sum(-1, keepdim=True)
        logits = least_set(logits, (-nats - entropy).abs(), s.typical_p)
    return logits


def least_set(logits: Tensor, order: Tensor, share: float) -> Tensor:
    """(B,V), -inf but for the first tokens by rising `order` (B,V) that together have at least this probability.

    Most of it mostly lies with few tokens, so the first 256 are looked at before all are sorted.
    """
    chances, vocab = logits.softmax(-1), logits.shape[-1]
    for width in (min(256, vocab), vocab):
        first = order.topk(width, largest=False).indices
        before = chances.gather(-1, first).cumsum(-1) - chances.gather(-1, first)  # of all that come earlier
        if width == vocab or bool((before[:, -1] >= share).all()):
            break
    within = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, first, before < share)
    within.scatter_(-1, first[:, :1], True)  # whatever the share
    return logits.masked_fill(~within, NEVER)


def noise(seed: int, sample: int, step: int, vocab: int) -> Tensor:
    """(V,) float32 standard exponentials that belong to one token of one sample of one request, come what may beside.

    From a counter-based generator (Salmon et al. 2011, Philox): no state is carried from step to step.
    """
    key = np.array([seed % 2**64, sample], np.uint64)
    bits = np.random.Philox(key=key, counter=[0, 0, 0, step])
    return torch.from_numpy(np.random.Generator(bits).standard_exponential(vocab, dtype=np.float32))


def draw(logits: Tensor, noises: Tensor | None) -> Tensor:
    """(B,V) -> token ids (B,): the likeliest without noise, else one drawn by it.

    The first of exponential alarms with rates p rings as token i with probability p_i, and two nearly equal
    distributions nearly always agree on the token (Maddison et al. 2014): a small model can guess a large one's draw.
    """
    if noises is None:
        return logits.argmax(-1)
    return (logits.softmax(-1) / noises.clamp(min=torch.finfo(torch.float32).tiny)).argmax(-1)
