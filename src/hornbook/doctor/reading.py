"""Does a pass over tokens do what it must, however the tokens are laid out?"""

from __future__ import annotations

from collections.abc import Callable

import torch

from hornbook.doctor.finding import FAIL, PASS, ROUNDING, Finding, NotApplicable, decide, gap
from hornbook.doctor.subject import Subject

LEAK = 1e-6
"""Largest gap before a changed token: the same numbers go through the same kernels, so it is 0, or a last bit where a
kernel picks its order by itself. A mask of -10 in the place of minus infinity would show as about 5e-5."""
PADS = 4


def future_leak(s: Subject) -> Finding:
    """A token that is changed must leave all logits before it as they were."""
    x, at = s.rows(2, s.width), s.width // 2
    changed = x.clone()
    changed[:, at] = (changed[:, at] + 1) % s.config.vocab
    before, after = s.model(x), s.model(changed)
    if not s.model.counted and torch.equal(before[:, at:], after[:, at:]):
        return Finding(FAIL, "changing a token changes nothing at all: the model does not read its input")
    return decide(
        gap(after[:, :at], before[:, :at]),
        LEAK,
        "changing a later token changes nothing before it",
        "changing a later token changes logits before it: the model looks at what it is to predict",
    )


def cache(s: Subject) -> Finding:
    """Reading in pieces of one and of several tokens, onto a cache that is empty and one that is not."""
    x = s.rows(2, s.width)
    half = s.width // 2
    pieces = [n for n in (half, 1, 3, s.width - half - 4) if n > 0] if s.width >= 8 else [1] * s.width
    held = s.model.make_cache(2, s.width)
    found = torch.cat([s.model(piece, held) for piece in x.split(pieces, dim=1)], dim=1)
    return decide(
        gap(found, s.model(x)),
        ROUNDING,
        "reading in pieces gives the logits of reading at once",
        "reading in pieces gives other logits than reading at once: generation goes wrong",
    )


def padding(s: Subject, side: str) -> Finding:
    """A shorter row, filled up on one side, must read as it does alone."""
    x, short = s.rows(2, s.width), s.width - min(PADS, s.width // 2)
    pads = torch.full_like(x[1:, short:], s.filler)
    alone = x[1:, :short]
    row = torch.cat([pads, alone] if side == "left" else [alone, pads], dim=1)
    segments = torch.ones_like(x)
    real = slice(s.width - short, None) if side == "left" else slice(short)
    segments[1] = 0
    segments[1, real] = 1
    found = s.model(torch.cat([x[:1], row]), segments=segments)
    figure = max(gap(found[:1], s.model(x[:1])), gap(found[1:, real], s.model(alone)))
    return decide(
        figure,
        ROUNDING,
        f"padding on the {side} changes no logit",
        f"padding on the {side} changes logits: it is seen, or it shifts positions",
    )


def padding_left(s: Subject) -> Finding:
    return padding(s, "left")


def padding_right(s: Subject) -> Finding:
    return padding(s, "right")


def batch(s: Subject) -> Finding:
    """A row alone and among others."""
    x = s.rows(3, s.width)
    return decide(
        gap(s.model(x)[1:2], s.model(x[1:2])),
        ROUNDING,
        "a row reads alone as in a batch",
        "a row reads otherwise in a batch than alone: rows mix",
    )


def packed(s: Subject) -> Finding:
    """Two documents in one row must read as each does alone."""
    x, cut = s.rows(1, s.width), s.width // 2
    segments = torch.ones_like(x)
    segments[:, cut:] = 2
    found = s.model(x, segments=segments)
    figure = max(gap(found[:, :cut], s.model(x[:, :cut])), gap(found[:, cut:], s.model(x[:, cut:])))
    return decide(
        figure,
        ROUNDING,
        "documents that share a row do not see each other",
        "documents that share a row read otherwise than alone: they see each other, or positions run on",
    )


def attention_weights(s: Subject) -> Finding:
    """A softmax over the keys: the weights of each query add up to 1 (a sum of 24 terms: to 1e-5)."""
    sums = s.attention_sums()
    if not sums:
        raise NotApplicable("no attention to look into")
    worst = max(float((each - 1).abs().max()) for each in sums)
    return decide(
        worst,
        1e-5,
        "the weights of every query add up to 1",
        "the weights of a query do not add up to 1: softmax is missing, or over the wrong axis",
    )


def finite_activations(s: Subject) -> Finding:
    """Every module's output, at padding too: a NaN there reaches the weights through the gradient."""
    x = s.rows(2, s.width)
    segments = torch.ones_like(x)
    segments[1, : min(PADS, s.width // 2)] = 0
    largest, wrong = 0.0, ""

    def look(name: str, output: object) -> None:
        nonlocal largest, wrong
        if isinstance(output, torch.Tensor) and output.is_floating_point() and output.numel():
            value = float(output.abs().max())
            largest = max(largest, value) if value == value else largest
            if not wrong and not bool(output.isfinite().all()):
                wrong = name or "the model itself"
        elif isinstance(output, tuple | list):
            for part in output:
                look(name, part)

    def watcher(name: str) -> Callable[..., None]:
        return lambda module, inputs, output: look(name, output)

    hooks = [module.register_forward_hook(watcher(name)) for name, module in s.model.named_modules()]
    try:
        s.model(x, segments=segments)
    finally:
        for hook in hooks:
            hook.remove()
    if wrong:
        return Finding(FAIL, f"{wrong} gives out NaN or infinity", largest)
    note = ", more than float16 can hold" if largest > torch.finfo(torch.float16).max else ""
    return Finding(PASS, f"all activations are finite; this is the largest{note}", largest)
