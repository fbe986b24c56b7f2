"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hornbook.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def written_aside(path: str | Path) -> Iterator[Path]:
    """Write to the path that this yields; it is then synced and renamed to `path`, or, after an error, deleted.

    The folder of `path` is made where it is missing. OSErrors (a full disk) pass through.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = aside_of(path)
    try:
        yield aside
        sync_one(aside)
        os.replace(aside, path)
        sync_one(path.parent)
    finally:
        aside.unlink(missing_ok=True)


@contextlib.contextmanager
def folder_written_aside(folder: str | Path) -> Iterator[Path]:
    """Fill the folder that this yields; it is then synced and renamed to `folder`, or, after an error, deleted.

    UserError where `folder` exists and is not an empty folder. OSErrors pass through.
    """
    folder = Path(folder)
    refuse_existing(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(folder)
    aside = aside_of(folder)
    aside.mkdir()
    try:
        yield aside
        sync(aside)
        refuse_existing(folder)
        os.replace(aside, folder)
        sync_one(folder.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def aside_of(path: Path) -> Path:
    """A name beside `path` that nobody else has, not even a process of the same number on another machine. The number
    stands in it for `remove_leftovers`."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.{os.getpid()}.part")


def refuse_existing(path: Path, folder: bool = True) -> None:
    """UserError where something is at `path` that would be lost, or could not be replaced by a `folder`, or by a file.

    A folder may replace an empty one, but not the one that this program runs in, whose path would lead nowhere.
    """
    empty = path.is_dir() and not path.is_symlink() and not any(path.iterdir())
    if empty and path.samefile(os.curdir):
        raise UserError(f"{path} is the folder that you are in: give the name of a new one, such as {path / 'model'}")
    if os.path.lexists(path) and not (empty and folder):
        raise UserError(f"{path} exists already: choose another name, or remove it first")


def sync(folder: Path) -> None:
    """Have the disk hold every file below `folder`, and the folder itself."""
    for path in [*folder.rglob("*"), folder]:
        sync_one(path)


def sync_one(path: Path) -> None:
    """Have the disk hold a file, or the names in a folder, so that a loss of power takes nothing of it."""
    if os.name == "nt" and path.is_dir():
        return  # Windows has no such call
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        sync_open(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():  # not every file system syncs folders
            raise
    finally:
        os.close(handle)


def sync_open(handle: int) -> None:
    """The same for an open file."""
    if fcntl is not None and hasattr(fcntl, "F_FULLFSYNC"):  # on a Mac fsync leaves it in the drive's own memory
        with contextlib.suppress(OSError):
            fcntl.fcntl(handle, fcntl.F_FULLFSYNC)
            return
    os.fsync(handle)


def point(link: Path, target: Path) -> None:
    """Make `link` lead to `target`, both in folders that are there, in one step."""
    aside = link.with_name(f".{link.name}.{os.getpid()}.part")
    aside.unlink(missing_ok=True)
    aside.symlink_to(os.path.relpath(target, link.parent))
    os.replace(aside, link)


def discard(path: Path) -> None:
    """Delete a file, a link or a folder; a folder leaves its name in one step, so that no name leads to half of it."""
    if path.is_symlink() or not path.is_dir():
        return path.unlink(missing_ok=True)
    aside = path if path.name.startswith(".") else path.with_name(f".{path.name}.{os.getpid()}.part")
    if aside != path:
        os.replace(path, aside)
    shutil.rmtree(aside)


def remove_leftovers(folder: Path) -> None:
    """Delete what processes that have ended, or this one in an earlier life, had begun to write aside in `folder`."""
    for path in folder.glob(".*.part"):
        writer = path.name.split(".")[-2]
        if not writer.isdigit() or int(writer) == os.getpid() or not alive(int(writer)):
            discard(path)


def remove_abandoned(path: Path) -> None:
    """Delete what processes that died long ago had begun to write aside of this one file or folder. On another machine,
    which may share the place, one may still be at it: what has changed within the hour is left."""
    for aside in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        with contextlib.suppress(OSError):  # another process does the same
            if time.time() - max(part.stat().st_mtime for part in (aside, *aside.rglob("*"))) > 3600:
                discard(aside)


def alive(process: int) -> bool:
    """Whether this machine has such a process; on Windows, which cannot be asked so, it has."""
    try:
        if os.name == "nt":
            return True
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # somebody else's
        return True
    return True


def write_json(path: Path, value: Any) -> None:
    """Write one JSON file, whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_text(path: str | Path, text: str) -> None:
    """Write one file of text, as UTF-8, whole or not at all."""
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")
