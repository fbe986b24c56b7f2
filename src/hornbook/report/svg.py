"""Just enough SVG: elements whose content and attributes are always escaped, scales, ticks, labels that keep apart."""

from __future__ import annotations

import math
from dataclasses import dataclass

from markupsafe import Markup

LETTER = 7.0
"""Width of a letter at 13 px, about: what room to leave for a name."""


def tag(name: str, *content: str | Markup, **attributes: str | float) -> Markup:
    """One element; `class_` and `stroke_width` are written class and stroke-width."""
    spelled = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), short(value)) for key, value in attributes.items()
    )
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), spelled, Markup("").join(content))


def short(value: str | float) -> str:
    """A tenth of a pixel is all that can be seen."""
    return value if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")


def picture(ident: str, title: str, description: str, width: float, height: float, *parts: Markup) -> Markup:
    """A drawing that a screen reader announces with its title and its description."""
    return tag(
        "svg",
        tag("title", title, id=f"{ident}-title"),
        tag("desc", description, id=f"{ident}-desc"),
        *parts,
        role="img",
        aria_labelledby=f"{ident}-title {ident}-desc",
        viewBox=f"0 0 {short(width)} {short(height)}",
        width=width,
        height=height,
    )


def path(points: list[tuple[float, float]], **attributes: str | float) -> Markup:
    """A line through `points`, in pixels."""
    return tag("path", d="M" + "L".join(f"{short(x)},{short(y)}" for x, y in points), **attributes)


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high` onto pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, wanted: int) -> list[tuple[float, str]]:
        """About `wanted` round values on the scale, with their labels."""
        rough = (self.high - self.low) / wanted
        size = 10.0 ** math.floor(math.log10(rough))
        step = min((size * m for m in (1, 2, 5, 10)), key=lambda s: abs(math.log(s / rough)))
        decimals = max(0, -math.floor(math.log10(step) + 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [(k * step, f"{k * step:.{decimals}f}") for k in range(first, last + 1)]


def padded(values: list[float], share: float) -> tuple[float, float]:
    """The range of `values`, wider by `share` of it at either end, and never empty."""
    low, high = min(values), max(values)
    room = (high - low) * share or max(abs(low), 1.0) * 0.05
    return low - room, high + room


def keep_apart(places: list[float], gap: float, top: float, bottom: float) -> list[float]:
    """`places` moved as little as it takes for labels `gap` high not to cover each other, in the same order."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    moved = list(places)
    floor = top
    for i in order:
        moved[i] = floor = max(moved[i], floor)
        floor += gap
    ceiling = bottom
    for i in reversed(order):
        moved[i] = ceiling = min(moved[i], ceiling)
        ceiling -= gap
    return moved
