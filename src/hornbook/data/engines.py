"""Who encodes the parts of a corpus: processes of this machine, or Ray's workers on any number of machines.

Both call `encoding.encode_part`. An engine has a few parts in hand at most; one whose worker dies is begun again.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import traceback
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

import numpy as np

from hornbook.data.encoding import Done, Setup, Text, encode_part
from hornbook.data.parts import Part
from hornbook.errors import UserError, missing_extra
from hornbook.progress import say

DEATHS = 4
"""Workers that one part may cost."""
ANSWER = 10.0
"""Seconds."""
Outcome = Done | UserError | str | None
"""What came of a part: a text tells of a mistake in the program, None that its worker died."""


class Engine(Protocol):
    """Workers, each with one part at a time."""

    workers: int

    @property
    def busy(self) -> int:
        """How many have a part."""

    def start(self, part: Part) -> None:
        """Give a part to one that has none."""

    def wait(self) -> list[tuple[Part, Outcome]]:
        """What has come of some parts, once anything has."""

    def close(self) -> None:
        """End the workers, whatever they do."""


def carried_out(parts: Iterator[Part], engine: Engine) -> Iterator[Done]:
    """What came of each part, as they end. The next part is read while the workers have theirs.

    Raises the UserError of a part that cannot be written, and one for a part on which worker after worker dies.
    """
    deaths: Counter[str] = Counter()
    for part in parts:
        while engine.busy >= engine.workers:
            yield from ended(engine, deaths)
        engine.start(part)
    while engine.busy:
        yield from ended(engine, deaths)


def ended(engine: Engine, deaths: Counter[str]) -> Iterator[Done]:
    """What has come of the parts that ended; those whose worker died are begun again."""
    for part, outcome in engine.wait():
        if isinstance(outcome, Done):
            yield outcome
        elif isinstance(outcome, UserError):
            raise outcome
        elif outcome is not None:
            raise RuntimeError(outcome)
        else:
            deaths[part.name] += 1
            if deaths[part.name] >= DEATHS:
                raise UserError(
                    f"{DEATHS} workers died while they prepared {part.name}, as when memory runs out: "
                    "take fewer --workers, or a smaller --part-size in another place"
                )
            say(f"a worker died while it prepared {part.name}: it is done again")
            engine.start(part)


def sent(part: Part) -> tuple[str, str, bytes]:
    """All that a worker is told of a part but its text."""
    return part.name, part.fingerprint, part.ends.tobytes()


class Processes:
    """Processes of this machine, begun afresh: nothing of this one is copied into them."""

    def __init__(self, workers: int, setup: Setup) -> None:
        self.workers = workers
        self.all = [Process(setup) for _ in range(workers)]

    @property
    def busy(self) -> int:
        return sum(worker.part is not None for worker in self.all)

    def start(self, part: Part) -> None:
        next(worker for worker in self.all if worker.part is None).give(part)

    def wait(self) -> list[tuple[Part, Outcome]]:
        ready = wait([worker.pipe for worker in self.all if worker.part is not None])
        return [worker.take() for worker in self.all if worker.pipe in ready]

    def close(self) -> None:
        for worker in self.all:
            worker.end()


class Process:
    """One process and our end of the pipe to it."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.begin()

    def begin(self) -> None:
        self.part: Part | None = None
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, self.setup), daemon=True)
        self.process.start()
        theirs.close()

    def give(self, part: Part) -> None:
        self.part = part
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it is dead: `take` will find that out
            self.pipe.send(sent(part))
            self.pipe.send_bytes(part.text)

    def take(self) -> tuple[Part, Outcome]:
        assert self.part is not None
        part, self.part = self.part, None
        try:
            return part, self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.end()
            self.begin()
            return part, None

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def serve(pipe: Connection, setup: Setup) -> None:
    """A worker: part after part, until nobody sends any."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who gives out the parts
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            name, fingerprint, ends = pipe.recv()
            pipe.send(attempt(Text(name, fingerprint, ends, pipe.recv_bytes()), setup))


def attempt(text: Text, setup: Setup) -> Outcome:
    """What comes of a part, mistakes in the program too."""
    try:
        return encode_part(text, setup)
    except Exception:
        return traceback.format_exc()


class Rays:
    """Ray's workers, a core each, of the cluster that RAY_ADDRESS names or that runs here, else of one of our own."""

    def __init__(self, workers: int | None, cores: int, setup: Setup) -> None:
        """`cores`: those of this machine, for a cluster of our own."""
        self.ray, self.ours = opened_ray(workers or cores)
        self.workers = workers or max(1, int(self.ray.cluster_resources().get("CPU", 1)))
        self.setup = self.ray.put(setup)
        self.task = self.ray.remote(num_cpus=1, max_retries=0)(attempt_shared)
        self.parts: dict[Any, Part] = {}

    @property
    def busy(self) -> int:
        return len(self.parts)

    def start(self, part: Part) -> None:
        name, fingerprint, ends = sent(part)
        self.parts[self.task.remote(name, fingerprint, ends, np.frombuffer(part.text, np.uint8), self.setup)] = part

    def wait(self) -> list[tuple[Part, Outcome]]:
        ready, _ = self.ray.wait(list(self.parts), num_returns=1)
        return [(self.parts.pop(task), self.outcome(task)) for task in ready]

    def outcome(self, task: Any) -> Outcome:
        failed = self.ray.exceptions
        try:
            return self.ray.get(task)
        except failed.RayTaskError as error:
            if "No module named 'hornbook" in str(error):
                raise UserError("Ray's workers have no Hornbook: install the same one on all machines") from error
            return str(error)
        except failed.RuntimeEnvSetupError as error:
            raise UserError(f"Ray cannot start workers: {str(error).splitlines()[0]}") from error
        except failed.RayError:  # the worker, its machine, or what was sent to it is gone
            return None

    def close(self) -> None:
        for task in self.parts:
            with contextlib.suppress(Exception):
                self.ray.cancel(task, force=True)
        if self.ours:
            self.ray.shutdown()


def attempt_shared(name: str, fingerprint: str, ends: bytes, data: np.ndarray, setup: Setup) -> Outcome:
    """`attempt` for a text in Ray's shared memory, which is not copied."""
    return attempt(Text(name, fingerprint, ends, data), setup)


def opened_ray(cores: int) -> tuple[Any, bool]:
    """Ray, connected, and whether by us. UserError where it is not installed, or RAY_ADDRESS leads nowhere."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise missing_extra("ray", "cluster", "--engine ray") from None
    if ray.is_initialized():
        return ray, False
    logging.getLogger("ray").setLevel(logging.ERROR)
    quiet: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
    address = os.environ.get("RAY_ADDRESS", "")
    check_address(address)
    try:
        ray.init(address="auto", **quiet)
    except ConnectionError as error:
        if address:
            told = str(error).strip().partition("\n")[0]
            hint = "where it asks for a token, set RAY_AUTH_MODE=token here too"
            raise UserError(f"cannot join the Ray cluster at RAY_ADDRESS={address}: {told}; {hint}") from None
        ray.init(address="local", num_cpus=cores, include_dashboard=False, **quiet)
    return ray, True


def check_address(address: str) -> None:
    """UserError, at once, where nothing listens at host:port: Ray itself takes minutes to find that out."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        return
    try:
        socket.create_connection((host, int(port)), ANSWER).close()
    except OSError as error:
        raise UserError(f"there is no Ray cluster at RAY_ADDRESS={address}: {error.strerror or error}") from None
