"""Runs that are killed at any instant and carried on by the same command: nothing may tell them from one that was not.

Deaths between any two operations of a save are in test_run_folder.py, Ctrl-C and SIGTERM in test_training.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hornbook import machine
from hornbook.cli import main
from hornbook.run import read_log

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork a process")
HERE = Path(__file__).parent
STARTED: list[subprocess.Popen] = []
FLAGS = "--tokenizer=bytes --layers=1 --dim=32 --heads=2 --context=32 --batch=4 --dropout=0.1 --precision=float32 "
FLAGS += "--device=cpu --threads=1 --attention=written-out --float32-matmul=highest --schedule=cosine --warmup=5"


def command(text: str, out: Path, steps: int) -> list[str]:
    """Saves every 20 steps."""
    return [
        "train",
        "gpt2-tiny",
        f"--data={text}",
        f"--out={out}",
        f"--steps={steps}",
        "--eval-every=20",
        *FLAGS.split(),
    ]


def forked(arguments: list[str], out: Path) -> int:
    """Start the command in a copy of this process, which has all imports done; the copy's id."""
    child = os.fork()
    if child:
        return child
    with open(f"{out}.err", "ab", buffering=0) as errors:
        os.dup2(errors.fileno(), 2)
        os.dup2(errors.fileno(), 1)
    status = 3
    try:
        main(arguments)
        status = 0
    except SystemExit as stop:
        status = int(stop.code or 0)
    finally:
        os._exit(status)


def begun(arguments: list[str], out: Path) -> int:
    """Start the command as a user does; its process."""
    with open(f"{out}.err", "ab") as errors:
        STARTED.append(subprocess.Popen([sys.executable, "-m", "hornbook", *arguments], stderr=errors, stdout=errors))
    return STARTED[-1].pid


def wait(child: int, until: Callable[[], Any] = lambda: False) -> int | None:
    """Wait for a process to end, and give its exit code, or less than 0 for a signal; None once `until` holds."""
    for _ in range(400_000):  # some minutes in which this process was awake
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if until():
            return None
        time.sleep(0.0005)
    os.kill(child, signal.SIGKILL)
    raise AssertionError("the run did not end")


def writing(out: Path) -> bool:
    """Whether a checkpoint is being written."""
    with contextlib.suppress(OSError):
        return any(name.endswith(".part") for name in os.listdir(out / "checkpoints"))
    return False


def kill_in(child: int, out: Path, chance: random.Random, inside: bool) -> bool:
    """SIGKILL at a random instant of the training, or of the writing of one of its next checkpoints; False where the
    run ended before."""
    seen = len(read_log(out))
    awaited: list[Callable[[], bool]] = [lambda: len(read_log(out)) not in (0, seen)]
    if inside:
        for _ in range(chance.randint(0, 2)):
            awaited += [lambda: writing(out), lambda: not writing(out)]
        awaited.append(lambda: writing(out))
    if any(wait(child, until) is not None for until in awaited):
        return False
    moment = time.monotonic() + chance.uniform(0, 0.01 if inside else 0.6)
    if wait(child, lambda: time.monotonic() >= moment) is not None:
        return False
    os.kill(child, signal.SIGKILL)
    return wait(child) == -signal.SIGKILL


def traces(out: Path) -> tuple[list[Any], dict[str, bytes], dict[str, Any]]:
    """What a run leaves, but for the time that it took: its log, its last checkpoint's tensors, its state."""
    log = [{key: value for key, value in line.items() if key != "seconds"} for line in read_log(out)]
    assert [line["step"] for line in log if "loss" in line] == list(range(1, log[-1]["step"] + 1))
    last = out / "last"
    tensors = {name: (last / name).read_bytes() for name in ("model.safetensors", "state/state.safetensors")}
    state = json.loads((last / "state" / "state.json").read_text())
    return log, tensors | {"best": (out / "model.safetensors").read_bytes()}, {**state, "seconds": 0}


def check_equal(out: Path, uninterrupted: Path, seed: int) -> None:
    for a, b in zip(traces(out), traces(uninterrupted), strict=True):
        assert a == b, f"seed {seed}: {out} and {uninterrupted} differ"


def kill(times: int, start: Callable[[list[str], Path], int], arguments: list[str], out: Path, seed: int) -> None:
    """Kill the run so many times, every other time inside a checkpoint."""
    chance = random.Random(seed)
    for number in range(times):
        killed = kill_in(start(arguments, out), out, chance, inside=number % 2 == 1)
        assert killed, f"seed {seed}: it ended too early\n{Path(f'{out}.err').read_text()[-1000:]}"


def kill_forks(text: str, place: str, seed: int) -> None:
    """Kill a short run four times; in a process of its own, of one thread, as that can fork."""
    a, b = Path(place) / "a", Path(place) / "b"
    assert wait(forked(command(text, a, 300), a)) == 0, Path(f"{a}.err").read_text()
    kill(4, forked, command(text, b, 300), b, seed)
    assert wait(forked(command(text, b, 300), b)) == 0, Path(f"{b}.err").read_text()
    check_equal(b, a, seed)


def test_a_run_killed_four_times_equals_one_that_was_not(text_folder: Path, tmp_path: Path) -> None:
    seed = 4
    code = f"import test_crash; test_crash.kill_forks({str(text_folder)!r}, {str(tmp_path)!r}, {seed})"
    paths = os.pathsep.join([str(HERE), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux limits a process that is under way")
def test_a_run_killed_twenty_times_and_out_of_disk_equals_one_that_was_not(text_folder: Path, tmp_path: Path) -> None:
    seed, a, b = 7, tmp_path / "a", tmp_path / "b"
    print(f"seed {seed}")
    arguments = command(str(text_folder), b, 1600)
    kill(10, begun, arguments, b, seed)
    full = begun(arguments, b)
    assert wait(full, lambda: writing(b)) is None
    resource.prlimit(full, resource.RLIMIT_FSIZE, (5000, 5000))
    assert wait(full) == 1
    told = Path(f"{b}.err").read_text().splitlines()[-1]
    assert told.startswith("hornbook: ")
    assert "File too large" in told
    kill(10, begun, arguments, b, seed + 1)
    assert wait(begun(arguments, b)) == 0
    assert wait(begun(command(str(text_folder), a, 1600), a)) == 0
    assert Path(f"{b}.err").read_text().count("carrying on at step") > 10
    check_equal(b, a, seed)


@pytest.mark.slow
@pytest.mark.skipif(not machine.can_compile(), reason="needs a C++ compiler")
def test_a_compiled_run_in_bfloat16_on_two_threads_is_carried_on_exactly_too(text_folder: Path, tmp_path: Path) -> None:
    """As long runs are computed unless told otherwise; the smallest ones above are neither."""

    def long(out: Path) -> list[str]:
        told = [
            word for word in command(str(text_folder), out, 300) if not word.startswith(("--precision", "--threads"))
        ]
        return [*told, "--precision=bfloat16", "--threads=2", "--compile=yes"]

    seed, a, b = 11, tmp_path / "a", tmp_path / "b"
    assert wait(begun(long(a), a)) == 0, Path(f"{a}.err").read_text()
    kill(3, begun, long(b), b, seed)
    assert wait(begun(long(b), b)) == 0
    assert Path(f"{b}.err").read_text().count("carrying on at step") >= 2
    assert "bfloat16, written-out attention, torch.compile" in Path(f"{b}.err").read_text()
    check_equal(b, a, seed)
