"""Downloads of gigabytes: what has come is kept, and the next attempt goes on behind it."""

from __future__ import annotations

import contextlib
import os
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from hornbook.errors import UserError
from hornbook.progress import Bar
from hornbook.text.downloads import NETWORK_ERRORS, TIMEOUT, reason, sha256_of
from hornbook.text.space import gigabytes

PAUSE = 1.0
"""Seconds before an address that broke off is asked again."""


def is_whole(target: Path, size: int) -> bool:
    """Whether the file is there: it was renamed to its place when its hash was right, so that its size tells."""
    return target.is_file() and target.stat().st_size == size


def part_of(target: Path) -> Path:
    """Where a file lies while it comes."""
    return target.with_name(f".{target.name}.part")


def download_resuming(urls: Sequence[str], target: Path, size: int, sha256: str) -> Path:
    """Fetch `target`, of so many bytes and that SHA-256, from the first of `urls` that delivers it; returns it.

    An address that breaks off is asked again for the rest, as long as each answer brings something. What has come stays
    beside the target for the next call. A second process waits for the first. UserError when no address delivers.
    """
    if is_whole(target, size):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part, reasons = part_of(target), []
    with open(part, "ab") as file, locked(file):
        for url in [] if is_whole(target, size) else urls:
            if trouble := fill(url, file, size, target.name):
                reasons.append(reason(url, trouble))
            elif (found := sha256_of(part)) == sha256:
                os.replace(part, target)
            else:
                file.truncate(0)
                reasons.append(reason(url, f"its sha256 is {found[:12]}..., not {sha256[:12]}..."))
            if is_whole(target, size):
                break
    if is_whole(target, size):
        part.unlink(missing_ok=True)  # opened anew by one that waited
        return target
    done = part.stat().st_size
    raise UserError(
        f"cannot download {target.name}: {'; '.join(reasons)}. {gigabytes(done)} of {gigabytes(size)} are kept: "
        "the same command carries on"
    )


def fill(url: str, file: BinaryIO, size: int, name: str) -> Exception | None:
    """Append to the file what the address has behind its end, until it has `size` bytes; the error that ended it."""
    while (had := file_size(file)) != size:
        try:
            append(url, file, size, name)
        except NETWORK_ERRORS as error:
            if file_size(file) <= had:
                return error
            time.sleep(PAUSE)
    return None


def append(url: str, file: BinaryIO, size: int, name: str) -> None:
    """One request, written as it comes; the file is emptied where the address sends the whole of it."""
    done = file_size(file)
    headers = {"User-Agent": "hornbook"} | ({"Range": f"bytes={done}-"} if done else {})
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response, Bar(f"downloading {name}") as bar:
        if response.headers.get("Content-Range", "").split("-")[0] != f"bytes {done}":
            file.truncate(0)
            done = 0
        while chunk := response.read(1 << 20):
            file.write(chunk)
            done += len(chunk)
            bar.show(done, size, f"{done / 1e6:,.0f} of {size / 1e6:,.0f} MB")
            if done > size:
                file.truncate(0)
                raise OSError(f"it is longer than {size:,} bytes")
    file.flush()
    os.fsync(file.fileno())
    if done < size:
        raise OSError(f"it broke off after {done:,} of {size:,} bytes")


def file_size(file: BinaryIO) -> int:
    """Bytes in it, those not yet on disk included."""
    file.flush()
    return os.fstat(file.fileno()).st_size


@contextlib.contextmanager
def locked(file: BinaryIO) -> Iterator[None]:
    """Held by one process at a time, where the system and the disk can lock files."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with contextlib.suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX)
    yield  # closing the file gives the lock back
