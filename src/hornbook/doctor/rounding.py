"""What numbers do to the model: its weights, half precision, compiled code."""

from __future__ import annotations

import torch

from hornbook import machine
from hornbook.doctor.finding import FAIL, PASS, ROUNDING, WARN, Finding, NotApplicable, decide, gap
from hornbook.doctor.subject import Subject


def weights(s: Subject) -> Finding:
    """Finite, and not all zero. A counted model's log-probability of what it never saw may be minus infinity."""
    largest, empty, tensors = 0.0, [], s.model.state_dict()
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        if bool(tensor.isnan().any()) or (not s.model.counted and not bool(tensor.isfinite().all())):
            return Finding(FAIL, f"{name} holds NaN or infinity")
        value = float(tensor.nan_to_num(0, 0, 0).abs().max())
        largest = max(largest, value)
        if not value and tensor.ndim > 1:
            empty.append(name)
    if not largest:
        return Finding(FAIL, "all weights are zero", 0.0)
    if empty:
        return Finding(WARN, f"{len(empty)} matrices hold nothing but zeros, such as {empty[0]}", float(len(empty)))
    return Finding(PASS, f"{len(tensors)} tensors, all finite; this is the largest number", largest)


def bfloat16(s: Subject) -> Finding:
    """Mean divergence (KL, nats) of the bfloat16 model's predictions from the float32 model's.

    bfloat16 rounds to 2^-9 of a number at most, on average (root mean square) 2^-9 / sqrt(3), three times in a product
    (both factors and the result): 2^-9 of its size. A sub-layer chains about five; the errors of 2 L sub-layers add as
    squares: logits of deviation d move by about r = d 2^-9 sqrt(10 L + 1) at most, which costs r^2 / 2 nats. WARN
    above four times that: twice the noise.
    """
    x = s.rows(2, min(64, s.config.context))
    exact = s.model(x).float().log_softmax(-1)
    with torch.autocast(s.device.type, torch.bfloat16):
        rounded = s.model(x).float().log_softmax(-1)
    if not bool(rounded.isfinite().all()):
        return Finding(FAIL, "in bfloat16 the logits are no longer finite")
    nats = float((exact.exp() * (exact - rounded)).sum(-1).mean())
    change = float((exact.exp() - rounded.exp()).abs().max())
    bound = 4 * float(exact.var(-1).mean()) * 2**-18 * (10 * s.layers + 1) / 2
    told = f"nats that bfloat16 costs; no probability moves by more than {change:.2g}"
    if nats > bound:
        return Finding(WARN, f"{told}; rounding alone explains {bound:.2g}", nats)
    return Finding(PASS, told, nats)


def compiled(s: Subject) -> Finding:
    """torch.compile fuses and reorders, and may do no more."""
    if s.model.counted:
        raise NotApplicable("a counted model is not computed with")
    if s.device.type == "cpu" and not machine.can_compile():
        raise NotApplicable("there is no C++ compiler here")
    x = s.rows(2, s.width)
    return decide(
        gap(torch.compile(s.model)(x), s.model(x)),
        ROUNDING,
        "compiled it gives the same logits",
        "compiled it gives other logits",
    )
