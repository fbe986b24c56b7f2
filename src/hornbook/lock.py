"""A folder that one process works in: a lock that ends with its process, however that ends."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import weakref
from pathlib import Path

from hornbook.errors import UserError
from hornbook.progress import say

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
"""Its file, which stays; while it is held, it says by whom."""

_held: dict[int, weakref.finalize] = {}
"""Open files of the locks that this process holds -> what closes them."""


class Lock:
    """The lock of a folder. Others may read there; a second one who wants to write is told who does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.excludes = True
        """Whether it keeps others out, as far as is known: not on a file system without locks."""
        self._free: weakref.finalize | None = None

    def take(self) -> None:
        """Hold it until `free`, or the end of the process. UserError where another holds it; OSErrors pass through.

        A file system without locks is told of in one line, and the work goes on.
        """
        if self._free is not None and self._free.alive:
            return
        handle = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            free = locked(handle)
        except OSError as error:
            say(f"{self.folder} cannot be locked ({error.strerror}): see to it that nothing else trains into it")
            free, self.excludes = True, False
        if not free:
            told = holder(handle)
            os.close(handle)
            raise UserError(f"{self.folder} is in use by {told}: wait until it ends, stop it, or choose another --out")
        with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
            os.ftruncate(handle, 0)
            os.write(handle, json.dumps({"process": os.getpid(), "host": platform.node()}).encode())
        self._free = _held[handle] = weakref.finalize(self, release, handle)

    def free(self) -> None:
        """Let others in."""
        if self._free is not None:
            self._free()


def locked(handle: int) -> bool:
    """Lock an open file, unless another has; OSError where that is not possible here."""
    if fcntl is None:
        raise OSError(errno.ENOTSUP, "this system has no such locks")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def holder(handle: int) -> str:
    """Who holds a lock, as its file says."""
    try:
        told = json.loads(os.read(handle, 1000))
        return f"process {int(told['process'])} on {told['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def release(handle: int) -> None:
    _held.pop(handle, None)
    with contextlib.suppress(OSError):
        os.ftruncate(handle, 0)
    os.close(handle)


def forget() -> None:
    """In a child: close what was inherited, so that a lock does not outlive the process that took it."""
    for handle, free in list(_held.items()):
        free.detach()
        os.close(handle)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget)
