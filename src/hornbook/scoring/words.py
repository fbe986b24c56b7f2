"""Words of any script, for scores that compare words."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

WITHOUT_SPACES = frozenset(["CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR"])
"""The first words of the names of characters that no space parts from the next word."""
ASCII = re.compile("[a-z0-9]")


def words(text: str) -> list[str]:
    """Runs of letters, digits and their marks, in small letters and one spelling (NFKC); each character by itself where
    a script has no spaces between words."""
    return "".join(map(spaced, unicodedata.normalize("NFKC", text).lower())).split()


@lru_cache(maxsize=1 << 16)
def spaced(character: str) -> str:
    """A character of a word as it is, with spaces around where it is a word by itself; a space for any other."""
    if not character.isalnum() and unicodedata.category(character)[0] != "M":
        return " "
    return f" {character} " if stands_alone(character) else character


def stands_alone(character: str) -> bool:
    """Whether a character is of a script without spaces between words."""
    return re.split("[ -]", unicodedata.name(character, ""))[0] in WITHOUT_SPACES


def mostly_beyond_ascii(texts: Iterable[str]) -> bool:
    """Whether more than half of all words have none of the letters a to z, and no digit."""
    found = [ASCII.search(word) is None for text in texts for word in words(text)]
    return sum(found) > len(found) / 2


def mostly_without_spaces(texts: Iterable[str]) -> bool:
    """Whether more than half of all words are characters of scripts without spaces between words."""
    found = [len(word) == 1 and stands_alone(word) for text in texts for word in words(text)]
    return sum(found) > len(found) / 2
