"""The best that was ever measured here: short measurements on a shared machine are noisy, and only ever too low."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import torch

from hornbook.atomic import write_json
from hornbook.machine.hardware import cores, processor


def best_seen(store: Path | None, device: torch.device, name: str, value: float) -> float:
    """The larger of `value` and what the JSON file `store` has for this processor, cores, threads and torch.

    A larger one is kept there. A file that cannot be read or written, or None, is as good as an empty one.
    """
    if store is None:
        return value
    key = ", ".join(map(str, (identity(device), cores(), torch.get_num_threads(), torch.__version__)))
    try:
        known = json.loads(store.read_text())
        before = float(known.get(key, {}).get(name, 0))
    except (OSError, ValueError, TypeError, AttributeError):
        known, before = {}, 0.0
    if value <= before:
        return before
    known[key] = {**known.get(key, {}), name: value}
    with contextlib.suppress(OSError):
        write_json(store, known)
    return value


def identity(device: torch.device) -> str:
    """The name of what computes."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} {processor()}"
