"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hornbook.errors import UserError


@contextlib.contextmanager
def written_aside(path: str | Path) -> Iterator[Path]:
    """Write to the path that this yields; it is then synced and renamed to `path`, or, after an error, deleted.

    The folder of `path` is made where it is missing. OSErrors (a full disk) pass through.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield aside
        with open(aside, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(aside, path)
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
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        yield aside
        sync(aside)
        refuse_existing(folder)
        os.replace(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


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
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """Write one JSON file, whole or not at all."""
    with written_aside(path) as aside:
        aside.write_text(json.dumps(value, indent=2) + "\n")
