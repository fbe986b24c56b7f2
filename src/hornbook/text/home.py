"""Where downloads, pins and prepared shards are kept."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """`$HORNBOOK_HOME`, else `hornbook` in the user's cache folder. Not created here: whoever writes creates it."""
    if given := os.environ.get("HORNBOOK_HOME"):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "hornbook"


def data_folder() -> Path | None:
    """The folder `$HORNBOOK_DATA`, which may hold corpora for work without a network; None when unset."""
    given = os.environ.get("HORNBOOK_DATA")
    return Path(given).expanduser() if given else None
