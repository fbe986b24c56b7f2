"""The Python modules that every Python carries, as files to read. Nothing of them is imported or run."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from hornbook.errors import UserError

LEFT_OUT = {"test", "tests", "idle_test", "__pycache__", "site-packages", "dist-packages", "lib-dynload", "pydoc_data"}
VERSION = ".".join(map(str, sys.version_info[:3]))


@cache
def modules() -> dict[str, Path]:
    """Dotted name -> source file for the standard library without its tests, sorted by name."""
    root = Path(sysconfig.get_path("stdlib"))
    found = {}
    for path in _sources(root):
        parts = path.relative_to(root).with_suffix("").parts
        # What begins so was generated for this one build of Python: another machine's differs.
        if parts[0] in sys.stdlib_module_names and not parts[0].startswith("_sysconfigdata"):
            found[".".join(parts).removesuffix(".__init__")] = path
    if not found:
        raise UserError(
            f"this Python keeps no source of its standard library in {root}: choose another corpus or a file"
        )
    return dict(sorted(found.items()))


def _sources(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.is_dir() and path.name not in LEFT_OUT:
            yield from _sources(path)
        elif path.suffix == ".py":
            yield path
