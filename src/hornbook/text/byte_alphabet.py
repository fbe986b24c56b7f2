"""GPT-2's spelling of bytes: tokenizer.json holds text, so each of the 256 bytes is written as one printable character.

Printable Latin-1 stands for itself; the other 68 bytes (controls, space, 0x7F-0xA0, 0xAD) are moved to U+0100 and up,
in order: the space becomes U+0120, the line feed U+010A.
"""

from __future__ import annotations

_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_MOVED = [byte for byte in range(256) if byte not in _PRINTABLE]

CHAR_OF: dict[int, str] = {byte: chr(byte) for byte in _PRINTABLE} | {
    byte: chr(0x100 + place) for place, byte in enumerate(_MOVED)
}
"""Byte -> the character that spells it."""

BYTE_OF: dict[str, int] = {char: byte for byte, char in CHAR_OF.items()}
"""Character -> the byte that it spells."""


def spell(data: bytes) -> str:
    """Bytes as a tokenizer.json spells them."""
    return "".join(CHAR_OF[byte] for byte in data)


def unspell(token: str) -> bytes | None:
    """The bytes that a token spells; None for a token with a character outside the 256."""
    try:
        return bytes(BYTE_OF[char] for char in token)
    except KeyError:
        return None
