"""The threads that OpenMP keeps ready for each thread that has worked with tensors."""

from __future__ import annotations

import contextlib
import ctypes
import functools
from typing import Any

import torch

SOFT = 1
"""`omp_pause_soft`: settings stay (OpenMP 5.0, section 3.2.44)."""


def dismiss() -> None:
    """Let the calling thread's go; its next work gets new ones, in a tenth of a millisecond.

    While more are kept than there are cores, busy or not, GNU's OpenMP lets them sleep between the small pieces of a
    pass through a model, instead of looking out for the next for a moment: a quarter fewer tokens a second.
    """
    if (pause := pausing()) is not None:
        pause(SOFT)


@functools.cache
def pausing() -> Any:
    """OpenMP's own function; None where there is none."""
    with contextlib.suppress(AttributeError, OSError):
        return ctypes.CDLL(torch._C.__file__).omp_pause_resource_all
    return None
