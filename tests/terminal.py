"""Commands as they look on a terminal, which is what a pseudo-terminal says it is."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios


def on_terminal(*arguments: str, columns: int = 120) -> str:
    """All that `hornbook ARGUMENTS` writes to a terminal of so many columns; lines end with a line feed."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    plain = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    command = subprocess.Popen(
        [sys.executable, "-m", "hornbook", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env={**plain, "TERM": "xterm-256color"},
    )
    os.close(theirs)
    found = b""
    with contextlib.suppress(OSError):  # as which Linux tells that the other side is closed
        while part := os.read(ours, 65536):
            found += part
    command.wait()
    os.close(ours)
    return found.decode().replace("\r\n", "\n")
