"""A random order of n things, one thing at a time: no list is stored, so any place in it can be asked for directly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def permute(index: NDArray[np.int64], n: int, key: tuple[int, ...]) -> NDArray[np.int64]:
    """The elements at places `index` of the permutation of range(n) that `key` names.

    A Feistel network of four rounds over the next even power of two, walked again while it lands outside of range(n)
    (Black and Rogaway 2002, "Ciphers with arbitrary finite domains", cycle walking).
    """
    half = max(1, (max(n - 1, 1).bit_length() + 1) // 2)
    mask = np.uint64((1 << half) - 1)
    rounds = np.random.SeedSequence(key).generate_state(4, np.uint64)
    values = index.astype(np.uint64)
    outside = np.ones(values.shape, bool)
    while outside.any():
        left, right = values[outside] >> np.uint64(half), values[outside] & mask
        for secret in rounds:
            left, right = right, left ^ (mix(right ^ secret) & mask)
        values[outside] = (left << np.uint64(half)) | right
        outside = values >= np.uint64(n)
    return values.astype(np.int64)


def mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele et al. 2014): every bit of x stirs every bit of the result."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
