"""What a process knows of itself. Needs nothing installed."""

from __future__ import annotations

import resource
import sys


def memory(name: str) -> int:
    """Bytes of a line of /proc/self/status: VmHWM is the most that was resident so far, VmRSS what is now. Elsewhere
    than on Linux, the most for both."""
    if sys.platform != "linux":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    with open("/proc/self/status") as lines:
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))
