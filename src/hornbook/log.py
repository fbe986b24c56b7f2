"""metrics.jsonl and its like: one JSON object a line, each whole before the next begins."""

from __future__ import annotations

import json
import math
import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hornbook.atomic import sync_one, sync_open
from hornbook.errors import PassingError

METRICS = "metrics.jsonl"


class Log:
    """A file of a folder, the log of a run say. A line is with the system once `write` returns: only a loss of power
    before `sync` takes it. The file is opened at the first line and stays open: a line costs microseconds."""

    def __init__(self, folder: Path, name: str = METRICS) -> None:
        self.path = folder / name
        self.handle: int | None = None
        self.free: Callable[[], Any] = lambda: None

    def write(self, values: dict[str, Any]) -> None:
        """Append a line. PassingError where the disk does not take it."""
        rest = (json.dumps(values) + "\n").encode()
        try:
            handle = self.opened() if self.handle is None else self.handle
            while rest:
                rest = rest[os.write(handle, rest) :]
        except OSError as error:
            raise PassingError(f"cannot write to {self.path}: {error.strerror or error}") from error

    def opened(self) -> int:
        self.handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self.free = weakref.finalize(self, os.close, self.handle)
        sync_one(self.path.parent)
        return self.handle

    def sync(self) -> int:
        """Have the disk hold all lines; their bytes. OSErrors pass through."""
        if self.handle is not None:
            sync_open(self.handle)
        return self.size()

    def size(self) -> int:
        """Bytes."""
        return self.path.stat().st_size if self.path.exists() else 0

    def cut(self, keep: Callable[[dict[str, Any]], bool], most: float = math.inf) -> None:
        """End it before the first line that is torn, that `keep` refuses, or that ends after `most` bytes. PassingError
        where that cannot be."""
        if not self.path.exists():
            return
        try:
            with open(self.path, "rb+") as file:
                kept = 0
                for line in file:
                    value = parsed(line)
                    if value is None or not line.endswith(b"\n") or not keep(value) or kept + len(line) > most:
                        break
                    kept += len(line)
                file.truncate(kept)
                sync_open(file.fileno())
        except OSError as error:
            raise PassingError(f"cannot write to {self.path}: {error.strerror or error}") from error

    def close(self) -> None:
        self.free()
        self.handle = None


def parsed(line: bytes) -> dict[str, Any] | None:
    """A line of the log; None for one that is torn."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def read_log(folder: str | Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl, up to a torn one."""
    return read_lines(Path(folder) / METRICS)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file, up to a torn one; none where there is no file."""
    lines = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        if (value := parsed(line)) is None:
            break
        lines.append(value)
    return lines
