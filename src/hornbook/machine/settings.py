"""Settings of torch that are best here, measured in a fraction of a second."""

from __future__ import annotations

import functools
import time

import torch

from hornbook.machine.hardware import cores, physical_cores
from hornbook.machine.speed import float32_precision


@functools.cache
def best_threads() -> int:
    """Threads with which torch is fastest: as many as processors, or, where two share a core and it shows, as cores.

    Leaves torch with that number. Other work on the machine must not decide: fewer need to be clearly faster.
    """
    candidates = sorted({physical_cores(), cores()})
    if len(candidates) > 1:
        rounds = [{n: seconds_with(n) for n in candidates} for _ in range(4)]
        few, many = (min(seconds[n] for seconds in rounds) for n in candidates)
        candidates = candidates[:1] if few < 0.9 * many else candidates
    torch.set_num_threads(candidates[-1])
    return candidates[-1]


def seconds_with(threads: int) -> float:
    """The best of several goes at a product of 512 and at exponentials of a million numbers."""
    torch.set_num_threads(threads)
    matrix, numbers, best = torch.randn(512, 512), torch.randn(2**20), float("inf")
    for _ in range(6):
        began = time.perf_counter()
        for _ in range(4):
            matrix @ matrix
            numbers.exp()
        best = min(best, time.perf_counter() - began)
    return best


@functools.cache
def fastest_exact_products() -> str:
    """'medium' where a CPU's float32 products are 1.2 times as fast with it and no less exact, else 'highest'.

    What oneDNN does under this name depends on the processor: another way to the same numbers, or bfloat16.
    """
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(768, 768, generator=generator) for _ in range(2))
    exact = a.double() @ b.double()
    seconds, errors = {}, {}
    for name in ("highest", "medium"):
        with float32_precision(name):
            errors[name] = float(((a @ b).double() - exact).abs().max())
            times = []
            for _ in range(5):
                began = time.perf_counter()
                a @ b
                times.append(time.perf_counter() - began)
            seconds[name] = min(times)
    exactly = errors["medium"] <= 2 * errors["highest"]
    return "medium" if exactly and seconds["highest"] > 1.2 * seconds["medium"] else "highest"
