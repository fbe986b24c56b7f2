"""Room on a disk, asked for before the work that needs it."""

from __future__ import annotations

import shutil
from pathlib import Path

from hornbook.errors import PassingError


def require_space(folder: Path, needed: float, what: str, hint: str = "") -> None:
    """PassingError where the disk of `folder` (which need not exist yet) has no `needed` bytes free for `what`."""
    present = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(present).free
    if needed > free:
        raise PassingError(
            f"{what} takes about {gigabytes(needed)} in {folder}, where {gigabytes(free)} is free: "
            f"{hint}free some, or let HORNBOOK_HOME name a folder on a larger disk"
        )


def gigabytes(size: float) -> str:
    """Bytes as people say them: 2.15 GB, 0.003 GB."""
    return f"{size / 1e9:,.3g} GB"
