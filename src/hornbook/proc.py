"""What Linux tells of this process: memory and processors, and what a container leaves it of them."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

GROUP, GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
FILES = {
    "": ("memory.max", "memory.current", ("inactive_file", "active_file")),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")),
}
"""Of the second and the first version of control groups: limit, use, and what of that can be taken back."""


def read_kilobytes(path: str, name: str) -> int:
    """The bytes of the line `name:  1234 kB`; 0 where there is none."""
    try:
        with open(path) as lines:
            return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)
    except (OSError, ValueError):
        return 0


def cores() -> int:
    """Processors that this process may use; in a container that has a share of their time, as many as that makes."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = group_processors(GROUP, GROUPS)
    return found if share is None else min(found, max(1, math.ceil(share)))


def group_memory(group: Path, groups: Path) -> int | None:
    """Bytes that this process's control group, and those above it, leave it; None where none sets a limit.

    `group` as in cgroups(7), whose controllers stand in the folder `groups`. Pages of files that the kernel can take
    back count as free.
    """
    rooms = []
    for version, place in control_groups(group, groups, "memory"):
        most, used, files = FILES["memory" if version == 1 else ""]
        with contextlib.suppress(OSError, ValueError):
            limit = int((place / most).read_text())  # ValueError: max
            stated = dict(line.split() for line in (place / "memory.stat").read_text().splitlines())
            rooms.append(limit - int((place / used).read_text()) + sum(int(stated.get(f, 0)) for f in files))
    return max(0, min(rooms)) if rooms else None


def group_processors(group: Path, groups: Path) -> float | None:
    """Processors whose time the control groups give this process; None where none sets a limit."""
    shares = []
    for version, place in control_groups(group, groups, "cpu"):
        with contextlib.suppress(OSError, ValueError):
            if version == 1:
                names = "cpu.cfs_quota_us", "cpu.cfs_period_us"
                quota, period = (int((place / name).read_text()) for name in names)
            else:
                quota, period = map(int, (place / "cpu.max").read_text().split())  # ValueError: max
            if quota > 0 and period > 0:  # -1 is no limit
                shares.append(quota / period)
    return min(shares, default=None)


def control_groups(group: Path, groups: Path, controller: str) -> Iterator[tuple[int, Path]]:
    """(version, folder) of the group of this process in which a controller may set limits, and of those above it."""
    with contextlib.suppress(OSError, ValueError):
        for line in group.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            top = groups / controllers
            inside = top / path.lstrip("/")
            for place in (inside, *(above for above in inside.parents if above.is_relative_to(top))):
                yield (1 if controllers else 2), place
