"""What data sheets promise of NVIDIA's GPUs: dense products, float32 sums, no sparsity."""

from __future__ import annotations

import re

HALF_PRECISION: dict[str, float] = {
    "V100 PCIE": 112e12,
    "V100 SXM2": 125e12,
    "V100 SXM3": 125e12,
    "T4": 65e12,
    "A10": 125e12,
    "A40": 149.7e12,
    "A100": 312e12,
    "RTX 3090": 71e12,
    "RTX 4090": 165.2e12,
    "L4": 121e12,
    "L40S": 362e12,
    "H100 PCIe": 756e12,
    "H100 HBM3": 989e12,
    "H200": 989e12,
    "B200": 2250e12,
}
"""FLOP/s in bfloat16, or, on the V100 and T4, which have none, in float16. `H100 80GB HBM3` is the SXM board's name."""

SINGLE_PRECISION: dict[str, float] = {"V100 PCIE": 14e12, "V100 SXM2": 15.7e12, "V100 SXM3": 15.7e12, "T4": 8.1e12}
"""FLOP/s in float32 of those without TF32, which is half as fast as bfloat16 on all others."""

OTHER_CARDS = {"Ti", "SUPER", "D", "NVL", "Laptop", "Max", "MIG", "Ada"}
"""Words that make another card, or a slice, of a name in the table."""


def promised(name: str) -> float | None:
    """FLOP/s of the GPU that CUDA calls `name`; None for one that is not in the table."""
    words = set(re.split(r"[\s-]+", name))
    if words & OTHER_CARDS:
        return None
    return next((flops for card, flops in HALF_PRECISION.items() if set(card.split()) <= words), None)
