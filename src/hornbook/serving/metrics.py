"""What Prometheus reads at /metrics: counters, gauges and histograms in its text format, version 0.0.4."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping

Labels = tuple[tuple[str, str], ...]
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Upper ends of the histograms' buckets."""


class Histogram:
    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(SECONDS, value)] += 1
        self.sum += value


class Metrics:
    """All figures of a server; only the event loop touches them."""

    def __init__(self) -> None:
        self.help: dict[str, tuple[str, str]] = {}
        self.numbers: dict[str, dict[Labels, float]] = defaultdict(dict)
        self.histograms: dict[str, dict[Labels, Histogram]] = defaultdict(dict)

    def describe(self, name: str, kind: str, help: str) -> None:
        """`kind` is counter, gauge or histogram."""
        self.help[name] = kind, help

    def count(self, name: str, by: float = 1, **labels: str) -> None:
        values, key = self.numbers[name], tuple(labels.items())
        values[key] = values.get(key, 0) + by

    def set(self, name: str, value: float, **labels: str) -> None:
        self.numbers[name][tuple(labels.items())] = value

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        self.histograms[name].setdefault(tuple(labels.items()), Histogram()).add(seconds)

    def text(self) -> str:
        lines = []
        for name, (kind, help) in self.help.items():
            lines += [f"# HELP {name} {help}", f"# TYPE {name} {kind}"]
            lines += [f"{name}{written(dict(k))} {plain(value)}" for k, value in self.numbers[name].items()]
            for key, histogram in self.histograms[name].items():
                lines += histogram_lines(name, dict(key), histogram)
        return "\n".join(lines) + "\n"


def histogram_lines(name: str, labels: Mapping[str, str], histogram: Histogram) -> list[str]:
    lines, total = [], 0
    for end, count in zip((*map(str, SECONDS), "+Inf"), histogram.counts, strict=True):
        total += count
        lines.append(f"{name}_bucket{written({**labels, 'le': end})} {total}")
    return [*lines, f"{name}_sum{written(labels)} {histogram.sum:.6f}", f"{name}_count{written(labels)} {total}"]


def plain(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def written(labels: Mapping[str, str]) -> str:
    """{name="value",...}, with what would end a value escaped."""
    if not labels:
        return ""
    escapes = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
    return "{" + ",".join(f'{name}="{value.translate(escapes)}"' for name, value in labels.items()) + "}"
