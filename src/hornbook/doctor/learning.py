"""Does the model start where it should, and learn what it is shown?"""

from __future__ import annotations

import contextlib
import math

import torch

from hornbook.data.batches import NO_TARGET, Batch
from hornbook.doctor.finding import FAIL, PASS, ROUNDING, Finding, decide
from hornbook.doctor.subject import Subject
from hornbook.training.engine import backward

STEPS, RATE = 300, 0.01


def first_loss(s: Subject) -> Finding:
    """A fresh model knows nothing: ln V nats on random targets, and s^2 / 2 more for logits of deviation s.

    The tolerance is 2 % of ln V, and three deviations of the mean of n targets, whose nats vary as the logits do. The
    spread may add a nat at most: what starts wider is sure of things that it cannot know.
    """
    model, note = s.fresh()
    vocab, width = model.config.vocab, min(64, model.config.context - 1)
    x = torch.randint(vocab, (4, width + 1), generator=torch.Generator().manual_seed(0)).to(s.device)
    tokens, goals = x[:, :-1], x[:, 1:]
    nats = -float(model.log_prob(tokens, goals).mean())
    excess = float(model(tokens[:1]).float().var(-1).mean()) / 2
    tolerance = 0.02 * math.log(vocab) + 3 * math.sqrt(2 * excess / goals.numel())
    told = f"a fresh model's loss; ln {vocab:,} is {math.log(vocab):.3f}, the spread of logits adds {excess:.3f}{note}"
    fair = excess <= 1 and abs(nats - math.log(vocab) - excess) <= tolerance
    return Finding(PASS if fair else FAIL, told, nats)


def accumulation(s: Subject) -> Finding:
    """Gradients of rows of unequal length, taken one by one and all at once."""
    model, note = s.pupil()
    whole = pupils_batch(s, model.config.vocab, 4)
    for row in range(4):
        whole.targets[row, : 3 * row] = NO_TARGET
    parts = [Batch(whole.tokens[i : i + 1], whole.targets[i : i + 1]) for i in range(4)]
    count = int((whole.targets != NO_TARGET).sum())
    gradients = []
    for group in ([whole], parts):
        model.zero_grad()
        with torch.enable_grad():
            backward(s.objective(model), group, count, contextlib.nullcontext)
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    once, summed = gradients
    unit = max(float(g.abs().max()) for g in once.values())
    figure = max(float((once[name] - summed[name]).abs().max()) for name in once) / max(unit, 1e-30)
    return decide(
        figure,
        ROUNDING,
        f"the gradient of four batches is that of one batch of their rows{note}",
        f"four batches give another gradient than one of their rows: losses are averaged before they are summed{note}",
    )


def overfitting(s: Subject) -> Finding:
    """One row learnt by heart: down to a tenth of ln V within a few hundred steps of Adam."""
    model, note = s.pupil()
    b = pupils_batch(s, model.config.vocab, 1)
    goal, loss = 0.1 * math.log(model.config.vocab), s.objective(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    nats = math.inf
    for step in range(STEPS + 1):
        with torch.enable_grad():
            total, count = loss(b.tokens, b.targets, b.segments)
            mean = total / count
        nats = float(mean.detach())
        if nats < goal:
            return Finding(PASS, f"a row is learnt by heart: the loss after {step} steps{note}", nats)
        optimizer.zero_grad()
        mean.backward()
        optimizer.step()
    return Finding(
        FAIL, f"a row is not learnt by heart: the loss after {STEPS} steps, which should be {goal:.2f}{note}", nats
    )


def pupils_batch(s: Subject, vocab: int, rows: int) -> Batch:
    """What training shows, in ids below `vocab`."""
    b = s.examples(rows, s.width - 1)
    return Batch(b.tokens % vocab, torch.where(b.targets == NO_TARGET, NO_TARGET, b.targets % vocab))
