"""Where a prepared corpus is written: a folder, or an address that fsspec knows."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from hornbook.atomic import remove_leftovers, written_aside
from hornbook.data.remote import Store, is_address
from hornbook.errors import PassingError, UserError
from hornbook.lock import LOCK, Lock


class Place:
    """Files by their names below a folder or an address. What is wrong with either is a UserError."""

    def __init__(self, name: str) -> None:
        self.name = name.rstrip("/") or name
        plain = name.removeprefix("file://")
        self.folder = None if is_address(plain) else Path(plain).expanduser().absolute()

    @cached_property
    def store(self) -> Store:
        return Store(self.name)

    def names(self) -> dict[str, int]:
        """Every file and its size, hidden ones left out."""
        if self.folder is None:
            return self.asked("", lambda path: self.listed(path))
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"{self.name} is a file: name a folder")
        files = [path for path in self.folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
        return {path.relative_to(self.folder).as_posix(): path.stat().st_size for path in files}

    def listed(self, path: str) -> dict[str, int]:
        """The same at an address; nothing where no such folder is there yet, which an object store has not got."""
        system = self.store.system
        system.invalidate_cache()
        found: dict[str, Any] = system.find(path.rstrip("/"), detail=True)
        return {system._strip_protocol(at).removeprefix(path): about["size"] for at, about in found.items()}

    def read(self, name: str) -> bytes:
        """All of a file."""
        return self.store.read(name) if self.folder is None else (self.folder / name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        """A small file, whole or not at all."""
        if self.folder is None:
            self.asked(name, lambda path: self.store.system.pipe_file(path, content))
            return
        with self.writing(name), written_aside(self.folder / name) as aside:
            aside.write_bytes(content)

    @contextlib.contextmanager
    def receiving(self, name: str) -> Iterator[Path]:
        """A path to write a file to, whole; at the end it is at its place."""
        if self.folder is not None:
            yield self.folder / name
            return
        with tempfile.TemporaryDirectory(prefix="hornbook-") as folder:
            yield (file := Path(folder) / Path(name).name)
            self.asked(name, lambda path: self.store.system.put_file(str(file), path))

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """One process at a time writes to a folder, and what others left half-written there is removed."""
        if self.folder is None:
            yield
            return
        with self.writing(LOCK):
            self.folder.mkdir(parents=True, exist_ok=True)
            (lock := Lock(self.folder)).take()
        try:
            self.clear()
            yield
        finally:
            self.clear()
            lock.free()

    def clear(self) -> None:
        """Remove from a folder what processes that ended left half-written."""
        assert self.folder is not None
        for folder in (self.folder, *(path for path in self.folder.iterdir() if path.is_dir())):
            remove_leftovers(folder)

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise PassingError(f"cannot write {self.name}/{name}: {error.strerror or error}") from error

    def asked(self, name: str, ask: Callable[[str], Any]) -> Any:
        """What an address answers to something that changes it, after as much patience as reading has."""
        try:
            return self.store.patiently(name, ask)
        except UserError as error:
            raise type(error)(str(error).replace("cannot read", "cannot write", 1)) from error
