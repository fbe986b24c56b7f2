"""Is one model really better than another? Both read the same documents, so the documents are resampled in pairs.

Documents differ far more from each other than two models differ on one document: the intervals of two models may
overlap widely while the interval of their difference excludes 0. No torch here, so that a report can use it.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2000
MOST_UNITS = 1000
"""More documents than this are drawn in groups of neighbours: as good an interval, without gigabytes of weights."""


def resampling_weights(documents: int, seed: int) -> NDArray[np.float64]:
    """How often each bootstrap resample draws each document: (RESAMPLES, documents)."""
    return np.random.default_rng(seed).multinomial(documents, [1 / documents] * documents, RESAMPLES).astype(np.float64)


def paired_difference(
    nats_a: ArrayLike, nats_b: ArrayLike, bytes: ArrayLike, seed: int = 0
) -> tuple[float, float, float]:
    """Bits per byte of a minus those of b, and the 95 % interval by the paired bootstrap over documents (Efron 1979).

    All three have one entry a document, in the same order. Below 0, a is better. Raises ValueError on unlike lengths.
    """
    gap = np.asarray(nats_a, np.float64) - np.asarray(nats_b, np.float64)
    sizes = np.asarray(bytes, np.float64)
    if gap.ndim != 1 or gap.shape != sizes.shape or not len(gap):
        raise ValueError(f"one entry a document is needed: nats have shape {gap.shape}, bytes {sizes.shape}")
    low, high = ratio_interval(gap, sizes, seed)
    return tuple(float(x) / math.log(2) for x in (gap.sum() / sizes.sum(), low, high))  # type: ignore[return-value]


def ratio_interval(tops: NDArray[np.float64], bottoms: NDArray[np.float64], seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of sum(tops) / sum(bottoms), by the percentile bootstrap over documents (Efron 1979)."""
    tops, bottoms = pooled(tops), pooled(bottoms)
    weights = kept_weights(len(tops), seed)
    low, high = np.quantile((weights @ tops) / (weights @ bottoms), [0.025, 0.975])
    return float(low), float(high)


def pooled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums over at most MOST_UNITS groups of neighbours."""
    if len(values) <= MOST_UNITS:
        return values
    return np.add.reduceat(values, np.linspace(0, len(values), MOST_UNITS, endpoint=False).astype(int))


kept_weights = lru_cache(maxsize=1)(resampling_weights)
