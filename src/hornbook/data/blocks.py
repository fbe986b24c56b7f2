"""Blocks of files that lie elsewhere, kept on this machine's disk: a cache of bounded size that processes share.

A block is a file: its bytes, and their SHA-256 behind them, which whoever reads it for the first time checks. It is
written aside and renamed, but not synced: what a loss of power leaves of it fails the check and is fetched anew. Where
there is no room, the blocks go that were unused for longest; a file's time says when that was.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from hornbook import lock
from hornbook.config import byte_count
from hornbook.errors import PassingError
from hornbook.progress import say
from hornbook.text.home import home
from hornbook.text.resuming import locked
from hornbook.text.space import gigabytes

USUAL = 10 * 2**30
"""Bytes that the cache may take where nothing else is said and the disk has them."""
KEPT = 0.9
"""Of the bound: what is left when room is made, so that it is seldom made."""
SUM = hashlib.sha256().digest_size
CLAIMS = 256
"""Files that stand for the blocks that are being fetched."""
TOTAL = ".total"
"""The file that says how many bytes all blocks have; whoever holds its lock may write and delete them."""


class Cache:
    """Blocks by name, in at most `bound` bytes of files in `folder`. Any number of threads and processes."""

    def __init__(self, folder: Path, bound: int) -> None:
        self.folder, self.bound = folder, bound
        self.proven: set[str] = set()
        self.mine = threading.Lock()
        self.told = False
        folder.mkdir(parents=True, exist_ok=True)

    def holds(self, name: str) -> bool:
        """Whether a block is there, whole or not."""
        return os.path.exists(self.folder / name)

    def read(self, name: str, begin: int = 0, end: int | None = None) -> bytes | None:
        """Bytes of a block; None where it is not there, or is damaged, and then it is deleted."""
        path, proven = self.folder / name, name in self.proven
        try:
            with open(path, "rb") as file:
                found = span(file, begin, end) if proven else proved(file.read())
            os.utime(path)
        except OSError:
            self.proven.discard(name)
            return None
        if found is None:
            self.drop(name)
        elif not proven:
            self.proven.add(name)
            found = found[begin:end]
        return found

    def store(self, name: str, data: bytes) -> bool:
        """Keep a block; whether there was room. A disk that does not take it is told of once."""
        size = len(data) + SUM
        if size > self.bound:
            return False
        aside = self.folder / f".{name}.{os.getpid()}.part"
        try:
            with self.ledger() as total:
                if self.holds(name):
                    return True
                used = read_total(total)
                if used is None or used + size > self.bound:
                    used = self.make_room(size)
                write_total(total, used + size)  # before the file: a death in between counts too much, never too little
                with open(aside, "wb") as file:
                    file.write(data)
                    file.write(hashlib.sha256(data).digest())
                os.replace(aside, self.folder / name)
        except OSError as error:
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)
            if not self.told:
                say(f"{self.folder} takes no more ({error.strerror or error}): going on without keeping what is read")
            self.told = True
            return False
        self.proven.add(name)
        return True

    def drop(self, name: str) -> None:
        """Delete a block."""
        with contextlib.suppress(OSError), self.ledger() as total:
            size = os.path.getsize(self.folder / name)
            os.unlink(self.folder / name)
            if (used := read_total(total)) is not None:
                write_total(total, max(0, used - size))
        self.proven.discard(name)

    def make_room(self, size: int) -> int:
        """Delete the blocks that were unused for longest, until `size` more bytes fit; returns what the others take."""
        found: list[tuple[int, int, str]] = []
        for entry in os.scandir(self.folder):
            if entry.name.endswith(".part"):  # of a process that died: whoever writes holds the lock
                os.unlink(entry)
            elif not entry.name.startswith("."):
                about = entry.stat()
                found.append((about.st_mtime_ns, about.st_size, entry.path))
        used, most = sum(size for _, size, _ in found), min(int(KEPT * self.bound), self.bound - size)
        for _, freed, path in sorted(found):
            if used <= most:
                break
            with contextlib.suppress(PermissionError):  # Windows: it is being read
                os.unlink(path)
                used -= freed
        return used

    @contextlib.contextmanager
    def ledger(self) -> Iterator[BinaryIO]:
        """The total, held by one thread of one process at a time."""
        handle = os.open(self.folder / TOTAL, os.O_RDWR | os.O_CREAT, 0o644)
        with os.fdopen(handle, "r+b") as file, self.mine, locked(file):
            yield file

    @contextlib.contextmanager
    def claimed(self, name: str, wait: Callable[[float], None]) -> Iterator[None]:
        """Within, nobody else fetches that block. `wait` is called with seconds while somebody does, and may raise."""
        place = self.folder / f".claim-{zlib.crc32(name.encode()) % CLAIMS:02x}"
        handle = os.open(place, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            while not taken(handle):
                wait(0.02)
            yield
        finally:
            os.close(handle)


def span(file: BinaryIO, begin: int, end: int | None) -> bytes | None:
    """Bytes of a block that was checked before; None where its file has become shorter."""
    size = os.fstat(file.fileno()).st_size - SUM
    end = size if end is None else end
    file.seek(begin)
    return file.read(end - begin) if end <= size else None


def proved(content: bytes) -> bytes | None:
    """The block that a file holds, if its sum is right."""
    data, digest = content[:-SUM], content[-SUM:]
    return data if hashlib.sha256(data).digest() == digest else None


def taken(handle: int) -> bool:
    """Whether the lock of an open file is ours now; without locks, it is."""
    try:
        return lock.locked(handle)
    except OSError:
        return True


def read_total(file: BinaryIO) -> int | None:
    """What the ledger says; None where nothing was written yet, or something else."""
    file.seek(0)
    text = file.read(32)
    return int(text) if text.isdigit() else None


def write_total(file: BinaryIO, total: int) -> None:
    file.seek(0)
    file.truncate()
    file.write(b"%d" % total)
    file.flush()


def usual_cache() -> Cache:
    """The cache in HORNBOOK_HOME: of `$HORNBOOK_CACHE` bytes, such as 20GB, else of 10 GiB, but of no more than half of
    what the disk has besides. UserError where that is no size, or the folder cannot be written."""
    folder = home() / "cache"
    try:
        cache = Cache(folder, USUAL)
        with cache.ledger() as total:
            used = read_total(total) or 0
        cache.bound = min(USUAL, (used + shutil.disk_usage(folder).free) // 2)
    except OSError as error:
        raise PassingError(f"cannot write to {folder} ({error.strerror}): let HORNBOOK_HOME name another") from None
    if given := os.environ.get("HORNBOOK_CACHE"):
        cache.bound = byte_count("HORNBOOK_CACHE", given)
    return cache


def told(cache: Cache) -> str:
    """Where it lies, for people."""
    return f"through {cache.folder}, which keeps up to {gigabytes(cache.bound)}"
