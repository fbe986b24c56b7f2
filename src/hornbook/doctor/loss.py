"""Is it the next token that training asks for: each one once, padding never, and the end of text too?"""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from torch import Tensor

from hornbook.data.batches import NO_TARGET, Batch, Batches
from hornbook.data.masking import mask_tokens
from hornbook.data.shards import Shard
from hornbook.doctor.finding import FAIL, PASS, ROUNDING, WARN, Finding, NotApplicable, decide
from hornbook.doctor.subject import Subject

CONTEXT = 8
"""Tokens in a row of the batches that are looked at."""
STREAM = 3 * CONTEXT + 5
"""Tokens in the stream that they are cut from: whole rows, and shorter ones at both ends, which are padded."""


def wheel(s: Subject) -> list[int]:
    """A few ids, each of which has one successor in the stream; the end of text is among them."""
    ends = [i for i in (s.config.eos, s.config.bos) if i is not None]
    others = (i for i in range(s.config.vocab) if i not in (*ends, s.config.pad))
    return list(dict.fromkeys([*ends, *itertools.islice(others, 5)]))


def epoch(s: Subject) -> Batch:
    """One epoch of training batches, in one row: the stream that is cut goes round the wheel."""
    ids = wheel(s)
    stream = np.array([ids[i % len(ids)] for i in range(STREAM)])
    one, none = np.array([1]), ids[0]
    shard = Shard(stream, np.array([1, STREAM]), one, one, s.config.vocab, none, restorable=True)
    sampler = Batches(shard, 1, CONTEXT, seed=0)
    batches = [sampler.get(k) for k in range(sampler.windows)]
    return Batch(torch.cat([b.tokens for b in batches], 1), torch.cat([b.targets for b in batches], 1))


def targets(s: Subject) -> Finding:
    """What the batches pair with each token: its successor, once an epoch."""
    if not s.model.causal:
        return hidden_targets(s)
    found, ids = epoch(s), wheel(s)
    real = found.targets != NO_TARGET
    place = torch.full((s.config.vocab,), -1)
    place[ids] = torch.arange(len(ids))
    steps = (place[found.targets[real]] - place[found.tokens[real]]) % len(ids)
    share = float((steps == 1).float().mean()) if len(steps) else 0.0
    if share == 1 and len(steps) == STREAM - 1:
        return Finding(PASS, "batches ask each token for the one after it, and for each once an epoch", share)
    if share == 1:
        return Finding(FAIL, f"{len(steps)} tokens of {STREAM - 1} are targets in an epoch", len(steps) / (STREAM - 1))
    often = int(steps.mode().values) if len(steps) else 1
    told = {0: "itself: labels are not shifted", 1: "the next, but not always", 2: "the one after the next"}
    return Finding(FAIL, f"batches ask a token for {told.get(often, f'the one {often} further on')}", share)


def hidden_targets(s: Subject) -> Finding:
    """An encoder's batches: the targets are the tokens that were hidden, at their own places."""
    x = s.rows(4, 32).cpu()
    found = mask_tokens(Batch(x, x), s.hider, s.config.vocab, (0,), share=0.3)
    chosen = found.targets != NO_TARGET
    right = torch.where(chosen, found.targets == x, found.tokens == x).float().mean()
    if not chosen.any():
        return Finding(FAIL, "no token is hidden, so none is learnt", 0.0)
    return decide(
        1 - float(right),
        0.0,
        "batches ask for hidden tokens at their own places, and for no other",
        "batches ask for other tokens than those that they hide",
    )


def objective(s: Subject) -> Finding:
    """The loss that training minimises, against the logits' own log-probabilities of the targets."""
    b = s.examples(2, s.width - 1)
    nats, count = (float(part) for part in s.objective(s.model)(b.tokens, b.targets, b.segments))
    log_probs = s.model(b.tokens).float().log_softmax(-1)
    wanted = nats_of(log_probs, b.targets)
    apart = 0.0 if nats == wanted else abs(nats - wanted) / max(1.0, abs(wanted))
    if apart <= ROUNDING and count == int((b.targets != NO_TARGET).sum()):
        return Finding(PASS, "the loss in nats: minus the logits' log-probabilities of the targets", nats / count)
    told = "is not minus the log-probability of the targets"
    x = torch.cat([b.tokens, b.targets[:, -1:]], dim=1)
    if s.model.causal and near(nats, nats_of(log_probs, b.tokens)):
        told = "is that of the token itself: labels are not shifted"
    elif s.model.causal and near(nats, nats_of(log_probs[:, :-1], x[:, 2:])):
        told = "is that of the token after the next: labels are shifted twice"
    elif apart <= ROUNDING:
        told = f"counts {count:.0f} targets where there are {int((b.targets != NO_TARGET).sum())}"
    return Finding(FAIL, f"the loss {told}", nats / max(count, 1))


def near(a: float, b: float) -> bool:
    return abs(a - b) <= 1e-3 * max(1.0, abs(b))


def nats_of(log_probs: Tensor, goals: Tensor) -> float:
    """Sum of minus log_probs (B,T,V) at goals (B,T); NO_TARGET adds nothing."""
    each = -log_probs.gather(-1, goals.clamp(min=0)[..., None])[..., 0]
    return float(torch.where(goals == NO_TARGET, 0.0, each).sum())


def padding_in_loss(s: Subject) -> Finding:
    """Rows that end early: batches give their rest no target, and the loss is that of the shorter rows."""
    if s.model.causal and (surplus := int((epoch(s).targets != NO_TARGET).sum()) - (STREAM - 1)) > 0:
        return Finding(FAIL, f"batches give a target to {surplus} positions of padding", float(surplus))
    short = s.examples(2, s.width - 5)
    rest = torch.ones_like(short.tokens[:, :1]).repeat(1, 4)
    tokens = torch.cat([short.tokens, rest * s.filler], dim=1)
    goals = torch.cat([short.targets, rest * NO_TARGET], dim=1)
    segments = torch.cat([torch.ones_like(short.tokens), rest * 0], dim=1)
    loss = s.objective(s.model)
    nats, count = (float(part) for part in loss(short.tokens, short.targets, torch.ones_like(short.tokens)))
    padded, counted = (float(part) for part in loss(tokens, goals, segments))
    apart = 0.0 if padded == nats else abs(padded - nats) / max(1.0, abs(nats))
    return decide(
        apart if counted == count else math.inf,
        ROUNDING,
        "padding bears no loss and is not counted",
        "padding bears a loss, or is counted: the model learns to write it",
    )


def end_of_text_in_loss(s: Subject) -> Finding:
    """The token that ends a text must be a target, even where it is also what rows are filled up with."""
    eos = s.config.eos
    if eos is None:
        raise NotApplicable("this model has no token that ends a text")
    if not bool((epoch(s).targets == eos).any()):
        return Finding(FAIL, "batches never give the end of text as a target: the model will never stop", 0.0)
    b = s.examples(1, s.width - 1)
    ends = b.targets.clone()
    b.targets[:, -1], ends[:, -1] = (word := wheel(s)[-1]), eos
    loss = s.objective(s.model)
    (nats, count), (more, counted) = loss(b.tokens, b.targets, None), loss(b.tokens, ends, None)
    if not math.isfinite(float(nats)):
        raise NotApplicable("this model holds a text like that for impossible")
    last = -s.model(b.tokens)[0, -1].float().log_softmax(-1)
    cost, wanted = float(more - nats + last[word]), float(last[eos])
    same = cost == wanted or abs(cost - wanted) <= ROUNDING * max(1.0, abs(float(more)))  # infinities are the same
    if int(counted) == int(count) and same:
        return Finding(PASS, "the end of text is learnt: what it costs here, in nats", cost)
    return Finding(FAIL, f"the end of text costs that instead of {wanted:.4g} nats: the model will never stop", cost)


def next_token(s: Subject) -> Finding:
    """On plain English a trained model knows the next token better than the same one, or the one after the next."""
    c, length = s.config, min(128, s.config.context, len(s.text_ids) - 2)
    if s.tokenizer is None:
        raise NotApplicable("there is no tokeniser that can be read")
    if not s.text_ids:
        raise NotApplicable("this tokeniser can make little of plain English")
    if length < 8:
        raise NotApplicable("a context too short to tell")
    x = torch.tensor([s.text_ids[at : at + length + 2] for at in range(0, len(s.text_ids) - length - 1, length)][:4])
    if (opening := c.eos if c.bos is None else c.bos) is not None:
        x = torch.cat([torch.full((len(x), 1), opening), x[:, :-1]], dim=1)
    x = x.to(s.device)
    log_probs = s.model(x[:, :length]).float().log_softmax(-1)
    same, after, second = (
        -log_probs.gather(-1, x[:, shift : shift + length, None])[..., 0].clamp(min=-30) for shift in range(3)
    )
    nats, chance = float(after.mean()), math.log(c.vocab)
    others = {"the same token": same, "the token after the next": second}
    name, rival = min(others.items(), key=lambda item: float(item[1].mean()))
    told = f"next token {nats:.2f}, same {float(same.mean()):.2f}, after the next {float(second.mean()):.2f} nats"
    learnt = nats < 0.9 * chance
    if learnt and nats < float(rival.mean()):
        return Finding(PASS, f"the next token is what it predicts: {told}", nats)
    lead = after - rival
    certainly = float(lead.mean()) > 3 * float(lead.std()) / lead.numel() ** 0.5
    if certainly and float(rival.mean()) < untrained(s, name):
        return Finding(FAIL, f"it predicts {name}: {told}", nats)
    if learnt:
        return Finding(WARN, f"it hardly predicts the next token: {told}", nats)
    raise NotApplicable(f"not trained, as far as plain English tells: {told}")


def untrained(s: Subject, name: str) -> float:
    """Nats below which no untrained model comes, half a nat of doubt included."""
    return math.log(s.config.vocab) - 0.5 - (s.leaning if name == "the same token" else 0.0)
