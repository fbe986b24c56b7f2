"""Chat templates rendered in processes of their own, which stay for the next one.

To start Python and Jinja takes a tenth of a second; what is started once forks for each template (`chat_template.py`),
and so each has a fresh process with its own limits. A process renders one at a time: threads that come together have
one each.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from hornbook.errors import UserError

PROGRAM = Path(__file__).with_name("chat_template.py")
PATIENCE = 20.0
"""Seconds for a template, the start of its process included."""
KEPT = 2
"""Processes that stay when nothing is to be rendered."""
FORKS = hasattr(os, "fork")
"""Elsewhere a process renders once and ends."""


class Process:
    """One that renders."""

    def __init__(self) -> None:
        command, pipe = [sys.executable, str(PROGRAM)], subprocess.PIPE
        self.popen = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, start_new_session=True
        )
        self.late = self.used = False

    def ask(self, line: bytes) -> bytes:
        """The answer's line; what there is of it where the process ended, or was ended after PATIENCE seconds."""
        assert self.popen.stdin is not None
        assert self.popen.stdout is not None
        timer = threading.Timer(PATIENCE, self.time_out)
        timer.start()
        try:
            self.popen.stdin.write(line)
            self.popen.stdin.flush()
            return self.popen.stdout.readline()
        except OSError:
            return b""
        finally:
            timer.cancel()
            timer.join()
            self.used = True

    def time_out(self) -> None:
        self.late = True
        self.kill()

    def kill(self) -> None:
        """With the fork that renders: it has the process's group."""
        if self.popen.poll() is None:
            if FORKS:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.popen.pid, signal.SIGKILL)
            else:
                self.popen.kill()

    def end(self) -> None:
        self.kill()
        for pipe in (self.popen.stdin, self.popen.stdout):
            with contextlib.suppress(OSError):
                assert pipe is not None
                pipe.close()
        self.popen.wait()


idle: list[Process] = []
"""They have answered, and wait for the next. Appending to a list, and popping from it, is safe from any thread."""


@atexit.register
def end_idle() -> None:
    while idle:
        idle.pop().end()


if FORKS:
    os.register_at_fork(after_in_child=idle.clear)  # a process and its pipes serve one parent


def render(template: str, values: dict[str, Any]) -> str:
    """What a template makes of some values; a UserError where it fails, or asks for more than it may have."""
    answer = exchange(json.dumps({"template": template, "values": values}).encode() + b"\n")
    if "error" in answer:
        raise UserError(f"the chat template does not work: {answer['error']}")
    return answer["text"]


def exchange(line: bytes) -> dict[str, str]:
    """An answer, by a process that waits for something to do or by a new one."""
    try:
        process = idle.pop()
    except IndexError:
        process = Process()
    used = process.used
    try:
        answer = json.loads(process.ask(line))
    except ValueError:  # it ended before it had answered
        process.end()
        if process.late:
            return {"error": f"it ran for more than {PATIENCE:.0f} seconds"}
        if used:  # it may have been gone before it was asked
            return exchange(line)
        return {"error": "its process was stopped before it was done"}
    except BaseException:
        process.end()
        raise
    if FORKS and not process.late and len(idle) < KEPT:
        idle.append(process)
    else:
        process.end()
    return answer
