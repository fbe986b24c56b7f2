"""One sweep by several workers: processes of this machine, or tasks of a Ray cluster whose machines share the folder.

Each is an ordinary worker (`trials.work`): what ties them together is the study in the folder, and nothing else.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hornbook import machine
from hornbook.config import Sweep
from hornbook.data.engines import opened_ray
from hornbook.errors import UserError
from hornbook.progress import Bar, say
from hornbook.small_files import read_object
from hornbook.sweeping.study import SETTINGS, kept_study, places
from hornbook.sweeping.trials import folder_of, prepare, work
from hornbook.training.interrupt import Interrupted, deferred_interrupts

if TYPE_CHECKING:
    from optuna import Study

LOGS = "workers"
"""The folder of what each worker says."""
SAVING = 60.0
"""Seconds that tasks on a cluster have to save their runs when they are told to end."""
LOOK = 1.0
"""Seconds between two looks at how far they are."""


def sweep(settings: Sweep) -> dict[str, Any]:
    """Run the trials that are missing, by as many workers as are asked for; returns and raises what `trials.work` does.

    Whatever the others leave, because they died, this process does at the end.
    """
    settings = shared_out(settings)
    if several(settings):
        if settings.data == "-":
            raise UserError("one process reads standard input, and several workers need a text: put it into a file")
        _, folder, study = prepare(settings)
        crew = by_ray if settings.engine == "ray" else by_processes
        threads = machine.number_of(settings.threads or 1, "thread")
        say(f"{settings.workers} workers, {threads} each; what they say is in {folder / LOGS}")
        with kept_study(folder), Bar("sweep") as bar, deferred_interrupts() as asked:
            for _ in crew(settings, folder, asked):
                bar.show(ended(study), settings.trials, f"{ended(study)} of {settings.trials} trials")
            if asked():
                raise Interrupted
    return work(settings)


def several(settings: Sweep) -> bool:
    """Whether the workers are processes of their own."""
    return settings.workers > 1 or settings.engine == "ray"


def shared_out(settings: Sweep) -> Sweep:
    """With the threads of each worker: as given, as before, or of several a like share of the cores."""
    path = folder_of(settings) / SETTINGS
    before = read_object(path).get("threads") if path.exists() else None
    share = max(1, machine.cores() // settings.workers) if several(settings) else None
    return dataclasses.replace(settings, threads=settings.threads or before or share)


def ended(study: Study) -> int:
    return sum(trial.state.is_finished() for trial in places(study).values())


def one_worker(settings: Sweep, number: int, folder: Path, where: str) -> None:
    """Be worker `number`, in a process of one's own, and say what there is to say into a file. `where` is the folder
    that paths begin from."""
    with contextlib.suppress(OSError):  # another machine may not have it
        os.chdir(where)
    log = folder / LOGS / f"{number}.log"
    log.parent.mkdir(exist_ok=True)
    with open(log, "a", encoding="utf-8") as file:
        sys.stderr.flush()
        os.dup2(file.fileno(), 2)
    if gpus := visible_gpus():
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
    try:
        work(settings)
    except (Interrupted, KeyboardInterrupt):
        sys.exit(130)
    except UserError as error:
        print(f"hornbook: {error}", file=sys.stderr, flush=True)
        sys.exit(error.code)


def visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES would call each that this process may use."""
    count = torch.cuda.device_count()
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return (named or list(map(str, range(count))))[:count]


def by_processes(settings: Sweep, folder: Path, asked: Callable[[], bool]) -> Iterator[None]:
    """Let them work, and yield now and then until all have ended; what ends this ends them too."""
    context = multiprocessing.get_context("spawn")
    given = [(settings, number, folder, os.getcwd()) for number in range(settings.workers)]
    crew = [context.Process(target=one_worker, args=each) for each in given]
    for one in crew:
        one.start()
    try:
        while any(one.is_alive() for one in crew) and not asked():
            wait([one.sentinel for one in crew if one.is_alive()], LOOK)
            yield
    finally:
        for one in crew:
            if one.is_alive():
                one.terminate()  # it saves its run, and goes
        for one in crew:
            one.join()
    for number, one in enumerate(crew):
        if one.exitcode not in (0, 130):
            say(f"worker {number} ended with {one.exitcode}: see {folder / LOGS / f'{number}.log'}")


def by_ray(settings: Sweep, folder: Path, asked: Callable[[], bool]) -> Iterator[None]:
    """The same as tasks on a cluster, each with its threads, and a GPU where this machine has one."""
    assert settings.threads
    ray, ours = opened_ray(settings.workers * settings.threads)
    need = {"num_cpus": settings.threads, "num_gpus": int(torch.cuda.is_available())}
    task = ray.remote(max_retries=0, **need)(one_worker)
    settings = dataclasses.replace(settings, out=str(folder.absolute()))  # a worker begins in a folder of its own
    left = [task.remote(settings, n, folder.absolute(), os.getcwd()) for n in range(settings.workers)]
    try:
        while left and not asked():
            gone, left = ray.wait(left, timeout=LOOK)
            for each in gone:
                told(ray, each)
            yield
    finally:
        for each in left:
            ray.cancel(each)
        if left:  # they save their runs, and go
            ray.wait(left, num_returns=len(left), timeout=SAVING)
        if ours:
            ray.shutdown()


def told(ray: Any, task: Any) -> None:
    """Say of a task that failed why."""
    try:
        ray.get(task)
    except ray.exceptions.RayError as error:
        say(f"a worker ended: {str(error).strip().splitlines()[-1]}")
