"""transformers, asked for without its progress bars and remarks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from hornbook.doctor.finding import NotApplicable


@contextlib.contextmanager
def quiet_transformers() -> Iterator[Any]:
    """The package; NotApplicable where it is not installed."""
    try:
        import transformers
    except ImportError:
        raise NotApplicable("transformers is not installed: pip install 'hornbook[transformers]'") from None
    log = transformers.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield transformers
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()
