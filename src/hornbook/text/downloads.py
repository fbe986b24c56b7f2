"""One file from the first of several addresses that delivers it whole, written in one step, with its hash checked."""

from __future__ import annotations

import hashlib
import http.client
import os
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from hornbook.errors import UserError
from hornbook.progress import Bar

TIMEOUT = 30.0
"""Seconds without an answer or a byte after which an address is given up."""

NETWORK_ERRORS = (OSError, http.client.HTTPException)


def download(urls: Sequence[str], target: Path, sha256: str) -> Path:
    """Fetches `target` from the first of `urls` whose content has that SHA-256, and returns it.

    Writes beside the target, syncs, renames: what stands at `target` is whole and right, or is not there. A file that
    already stands there with that hash is kept. Raises UserError, with every address's reason, when none delivers.
    """
    if target.is_file() and sha256_of(target) == sha256:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    reasons = []
    for url in urls:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                found = _copy(url, file, target.name)
                file.flush()
                os.fsync(file.fileno())
            if found == sha256:
                os.replace(name, target)
                return target
            reasons.append(reason(url, f"its sha256 is {found[:12]}..., not {sha256[:12]}..."))
        except NETWORK_ERRORS as error:
            reasons.append(reason(url, error))
        finally:
            Path(name).unlink(missing_ok=True)
    raise UserError(f"cannot download {target.name}: {'; '.join(reasons)}")


def _copy(url: str, file: IO[bytes], name: str) -> str:
    """Writes what is at the address and returns its SHA-256."""
    digest, done = hashlib.sha256(), 0
    with open_url(url) as response, Bar(f"downloading {name}") as bar:
        length = response.headers.get("Content-Length")
        total = int(length) if length else None
        while chunk := response.read(1 << 20):
            file.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            bar.show(done, total or done, f"{done / 1e6:,.1f} MB")
    if total is not None and done != total:
        raise http.client.IncompleteRead(b"", total - done)
    return digest.hexdigest()


def open_url(url: str) -> http.client.HTTPResponse:
    """The answer to a GET request, redirections followed. Raises OSError or HTTPException."""
    request = urllib.request.Request(url, headers={"User-Agent": "hornbook"})
    return urllib.request.urlopen(request, timeout=TIMEOUT)


def reason(url: str, error: object) -> str:
    """Which address failed, and why, in few words."""
    return f"{urllib.parse.urlsplit(url).netloc}: {getattr(error, 'reason', error)}"


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
