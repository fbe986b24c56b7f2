"""API keys: read once, kept and compared as SHA-256 hashes."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from pathlib import Path

from hornbook.errors import UserError
from hornbook.small_files import read_text

VARIABLE = "HORNBOOK_API_KEYS"
SHORTEST = 16
"""Characters of a key: a hash can be tried fast, so a key must not be guessable."""


class Keys:
    """The keys that are accepted; none at all means that nobody is asked for one."""

    def __init__(self, hashes: set[bytes]) -> None:
        self.hashes = sorted(hashes)

    def __bool__(self) -> bool:
        return bool(self.hashes)

    def holder(self, authorization: str) -> str | None:
        """Who sends `Authorization: Bearer KEY`: the beginning of the key's hash. None for a key that is not accepted.

        Every hash is compared, each in constant time.
        """
        scheme, _, key = authorization.partition(" ")
        given = hashlib.sha256(key.strip().encode("utf-8", "surrogatepass")).digest()
        equal = [hmac.compare_digest(given, known) for known in self.hashes]
        return given.hex()[:8] if any(equal) and scheme.lower() == "bearer" else None


def read_keys(file: str | None) -> Keys:
    """The keys in a file, one a line, and in HORNBOOK_API_KEYS, between spaces or commas.

    `sha256:HEX` stands for a key by its hash; lines that begin with # are comments. UserError for a file without keys.
    """
    entries = re.split(r"[\s,]+", os.environ.get(VARIABLE, ""))
    if file is not None:
        lines = [line.strip() for line in read_text(Path(file).expanduser()).splitlines()]
        found = [line for line in lines if line and not line.startswith("#")]
        if not found:
            raise UserError(f"{file} holds no API key: write one a line, such as `openssl rand -hex 32` makes")
        entries += found
    return Keys({hashed(entry) for entry in entries if entry})


def hashed(entry: str) -> bytes:
    if entry.startswith("sha256:"):
        if not re.fullmatch(r"sha256:[0-9a-fA-F]{64}", entry):
            raise UserError("an API key's hash is sha256: and 64 hexadecimal digits")
        return bytes.fromhex(entry.removeprefix("sha256:"))
    if not entry.isascii():
        raise UserError("an API key has a character beyond ASCII, which no header carries: take `openssl rand -hex 32`")
    if len(entry) < SHORTEST:
        raise UserError(f"an API key has {len(entry)} characters: take at least {SHORTEST}, as `openssl rand -hex 32`")
    return hashlib.sha256(entry.encode()).digest()
