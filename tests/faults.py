"""A file layer that fails at the k-th operation, or shows what a death before it would leave.

What safetensors writes, from Rust, counts as one operation.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from unittest import mock

from safetensors import SafetensorError
from safetensors.torch import save_file

GROWS = ("mkdir", "symlink", "rename", "replace", "write", "fsync")
SHRINKS = ("unlink", "remove", "rmdir")
KINDS = ("ENOSPC", "EIO", "short")


class Faults:
    """Inside the `with`, operation number `at` on files, counted from 1, goes wrong.

    ENOSPC   it fails, and so does from then on whatever needs space: the disk is full
    EIO      it fails; all others work
    short    as ENOSPC, but of a write the first half is written

    Without a kind nothing goes wrong; `before(number)` is called before each operation.
    """

    def __init__(self, at: int = 0, kind: str = "", before: Callable[[int], Any] = lambda number: None) -> None:
        self.at, self.kind, self.count, self.before, self.calling = at, kind, 0, before, False
        self.real = {name: getattr(os, name) for name in (*GROWS, *SHRINKS, "open")}
        self.real_open = builtins.open
        places = [(os, name, self.watched(name)) for name in (*GROWS, *SHRINKS, "open")]
        places += [(builtins, "open", self.open), (io, "open", self.open)]
        self.patches = [mock.patch.object(place, name, new) for place, name, new in places]
        self.patches += [mock.patch(f"hornbook.{module}.save_file", self.save_file) for module in ("run", "checkpoint")]

    @property
    def struck(self) -> bool:
        return self.count >= self.at

    def __enter__(self) -> Self:
        for patch in self.patches:
            patch.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for patch in self.patches:
            patch.stop()

    def due(self, grows: bool) -> bool:
        """Count an operation; whether it fails."""
        if self.calling:
            return False
        self.count += 1
        self.calling = True
        self.before(self.count)
        self.calling = False
        return bool(self.kind) and (self.count == self.at or (self.struck and grows and self.kind != "EIO"))

    def error(self, place: object = None) -> OSError:
        number = errno.EIO if self.kind == "EIO" else errno.ENOSPC
        return OSError(number, os.strerror(number), None if isinstance(place, int | None) else str(place))

    def watched(self, name: str) -> Any:
        def operation(place: Any, *args: Any, **options: Any) -> Any:
            if self.due(grows=name in GROWS or (name == "open" and bool(args and args[0] & os.O_CREAT))):
                if name == "write" and self.kind == "short" and self.count == self.at:
                    return self.real["write"](place, args[0][: len(args[0]) // 2])
                raise self.error(place)
            return self.real[name](place, *args, **options)

        return operation

    def open(self, path: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        writes = any(letter in mode for letter in "wax+")
        if self.due(grows=writes):
            raise self.error(path)
        file = self.real_open(path, mode, *args, **options)
        return Writing(file, self) if writes else file

    def save_file(self, tensors: Any, path: Path, *args: Any) -> None:
        if self.due(grows=True):
            if self.kind == "short":
                save_file(tensors, path.with_name(".tmpRuSt"), *args)
                os.truncate(path.with_name(".tmpRuSt"), path.with_name(".tmpRuSt").stat().st_size // 2)
            raise SafetensorError(f"Error while serializing: I/O error: {self.error().strerror}")
        save_file(tensors, path, *args)


class Writing:
    """An open file whose writes count."""

    def __init__(self, file: Any, faults: Faults) -> None:
        self.file, self.faults = file, faults

    def write(self, data: Any) -> int:
        if self.faults.due(grows=True):
            if self.faults.kind == "short":
                self.file.write(data[: len(data) // 2])
                self.file.flush()
            raise self.faults.error(self.file.name)
        return self.file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __iter__(self) -> Any:
        return iter(self.file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()
