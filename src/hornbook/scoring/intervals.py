"""Scores with their 95 % intervals: of a share (Wilson 1927), of the mean of a few runs (Student 1908), and of any
function of means (bootstrap, Efron 1979)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2000
MOST_UNITS = 1000
"""More examples than this are drawn in groups, put together by lot: as good an interval, without gigabytes of weights.
Groups of neighbours would not do: those of a file sorted by class differ more than examples do."""

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Figure:
    """A score with its 95 % interval, where one can be had."""

    value: float
    low: float | None = None
    high: float | None = None


def wilson(share: float, n: int, z: float = 1.959964) -> tuple[float, float]:
    """The interval of a share among n independent trials (Wilson 1927, equation 1)."""
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262, 11: 2.228}
"""How many values -> the 97.5 % quantile of Student's t with one degree of freedom less."""


def student(values: Sequence[float]) -> tuple[float, float] | None:
    """The interval of the mean of a few independent values (Student 1908), slightly too wide for more than eleven; None
    for a single one."""
    if len(values) < 2:
        return None
    mean = statistics.mean(values)
    half = STUDENT[min(len(values), max(STUDENT))] * statistics.stdev(values) / math.sqrt(len(values))
    return mean - half, mean + half


def the_mean(means: Numbers) -> Numbers:
    return means


def bootstrap(
    values: ArrayLike, statistic: Callable[[Numbers], ArrayLike] = the_mean, seed: int = 0
) -> tuple[float, float]:
    """The interval of a statistic of the means of `values`, by the percentile bootstrap over examples.

    `values` (N,) or (N,K): one entry an example. `statistic` gets the means of all resamples, (R,) or (R,K), and gives
    (R,): as it comes, the mean. Raises ValueError where there is no example.
    """
    rows = np.asarray(values, np.float64)
    if not len(rows):
        raise ValueError("there is no example to draw from")
    sums, counts = pooled(rows), pooled(np.ones(len(rows)))
    weights = kept_weights(len(sums), seed)
    drawn = weights @ counts
    means = (weights @ sums) / (drawn if rows.ndim == 1 else drawn[:, None])
    low, high = np.quantile(np.asarray(statistic(means), np.float64), [0.025, 0.975])
    return float(low), float(high)


def estimate(values: ArrayLike, statistic: Callable[[Numbers], ArrayLike] = the_mean, seed: int = 0) -> Figure:
    """The statistic of the means of `values`, with its `bootstrap` interval where there are two examples or more, and
    none is infinite."""
    rows = np.asarray(values, np.float64)
    with np.errstate(over="ignore"):
        value = float(np.asarray(statistic(rows.mean(0, keepdims=True))).reshape(-1)[0])
        return Figure(value, *(bootstrap(rows, statistic, seed) if len(rows) > 1 and np.isfinite(rows).all() else ()))


def ratio_interval(tops: Numbers, bottoms: Numbers, seed: int = 0) -> tuple[float, float]:
    """The interval of sum(tops) / sum(bottoms), by the percentile bootstrap over documents."""
    tops, bottoms = pooled(tops), pooled(bottoms)
    weights = kept_weights(len(tops), seed)
    low, high = np.quantile((weights @ tops) / (weights @ bottoms), [0.025, 0.975])
    return float(low), float(high)


def pooled(values: Numbers) -> Numbers:
    """Sums over at most MOST_UNITS groups, the same ones for as many values."""
    if len(values) <= MOST_UNITS:
        return values
    values = values[np.random.default_rng(0).permutation(len(values))]
    return np.add.reduceat(values, np.linspace(0, len(values), MOST_UNITS, endpoint=False).astype(int))


def resampling_weights(units: int, seed: int) -> Numbers:
    """How often each bootstrap resample draws each unit: (RESAMPLES, units)."""
    return np.random.default_rng(seed).multinomial(units, [1 / units] * units, RESAMPLES).astype(np.float64)


kept_weights = lru_cache(maxsize=1)(resampling_weights)
