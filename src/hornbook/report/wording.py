"""Numbers and foreign text as a reader should see them."""

from __future__ import annotations

import math
import re
import unicodedata
from typing import Any

DASH = "–"
UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))
SUPERSCRIPT = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def bits(value: float | None) -> str:
    return DASH if value is None else f"{value:.3f}"


def between(interval: tuple[float, float] | None) -> str:
    return DASH if interval is None else f"{bits(interval[0])} to {bits(interval[1])}"


def percent(share: Any) -> str:
    return f"{100 * share:.0f} %" if is_number(share) else DASH


def memory(size: Any) -> str:
    """Bytes, in GB."""
    return f"{three(size / 1e9)} GB" if is_number(size) and size > 0 else DASH


def exactly(value: float) -> str:
    """As short as it can be, and the same number when it is read."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def signed(value: float) -> str:
    """Three decimals, with a true minus sign."""
    return f"{value:.3f}".replace("-", "−")


def change(value: float) -> str:
    """Three decimals with their sign, but for what rounds to nothing."""
    rounded = round(value, 3)
    return f"{rounded:+.3f}".replace("-", "−") if rounded else "0.000"


def count(value: Any) -> str:
    """1234567 -> 1.23 M: three figures are what one can compare at a glance; below ten thousand all of them."""
    if not is_number(value):
        return DASH
    for size, unit in UNITS:
        if abs(value) >= max(9999.5, 0.9995 * size):
            return f"{three(value / size)} {unit}"
    return f"{value:,.0f}"


def three(value: float) -> str:
    """Three significant figures, without an exponent."""
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value)) + 1e-4))}f}"


def power(value: Any) -> str:
    """3.2e13 -> 3.2 × 10¹³."""
    if not is_number(value) or value <= 0:
        return DASH
    digits, exponent = f"{value:.1e}".split("e")
    return f"{digits} × 10{str(int(exponent)).translate(SUPERSCRIPT)}"


def perplexity(value: Any) -> str:
    if value == math.inf:
        return "over 10³⁰⁰"
    if not is_number(value):
        return DASH
    return power(value) if value >= 1e7 else f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def seconds(value: Any) -> str:
    if not is_number(value):
        return DASH
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def firm(text: str) -> str:
    """`text` with its numbers held to their units: no line may break between 95 and %."""
    return re.sub(r"(?<=\d) (?=(%|[kMBTs]\b))", "\u00a0", text)


def listing(words: list[str]) -> str:
    """a, b and c."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def visible(text: str) -> str:
    """`text` with everything that would act on the page instead of being seen turned into a sign for it.

    Control characters become control pictures; what reorders, hides or joins text becomes its code point.
    """
    return "".join(sign(character) for character in text.replace("\r\n", "\n"))


def sign(character: str) -> str:
    if character in "\n\t":
        return character
    code = ord(character)
    if code < 0x20 or code == 0x7F:
        return chr(0x2421) if code == 0x7F else chr(0x2400 + code)
    return f"⟨U+{code:04X}⟩" if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn") else character


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
