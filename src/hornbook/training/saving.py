"""How a session's checkpoints come to the disk: whole ones at once, those of a model in parts while it goes on."""

from __future__ import annotations

import contextlib
import datetime
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor

from hornbook.atomic import write_json
from hornbook.checkpoint import consolidate, save_model
from hornbook.errors import PassingError, UserError
from hornbook.layers.model import LanguageModel
from hornbook.parallel.parts import STATE, parameters, staged, write_parts
from hornbook.parallel.processes import Processes
from hornbook.parallel.sharding import divided
from hornbook.parallel.tensors import gathered
from hornbook.run import Run
from hornbook.training.optimizers import Optimizers

OPTIMIZER = "optimizer."
"""What the names of its state begin with in a checkpoint."""
Told = Callable[[bool], None]
"""Is called when a checkpoint is on the disk, with whether it is the best."""


class Saver:
    """Writes whole checkpoints, by the main process. Every process must call its methods."""

    def __init__(
        self, run: Run, model: LanguageModel, optimizers: Optimizers, processes: Processes, told: Told
    ) -> None:
        self.run, self.model, self.optimizers, self.processes, self.told = run, model, optimizers, processes, told

    def save(self, step: int, others: dict[str, Tensor], facts: dict[str, Any], best: bool, last: bool) -> None:
        """Write the checkpoint of `step`, with `others` beside weights and optimiser; `last` of the run, it may be."""
        tensors = self.state(in_full=True) | others
        with self.processes.heart.at("saving"), gathered(self.model, self.processes.main):
            self.run.save(step, self.model, self.model.tokenizer, tensors, facts, best)
        self.processes.wait()
        self.told(best)

    def state(self, in_full: bool) -> dict[str, Tensor]:
        """The optimisers', by the names that it has in a checkpoint."""
        return {f"{OPTIMIZER}{name}": tensor for name, tensor in self.optimizers.tensors(in_full).items()}

    def land(self) -> None:
        """Until what was saved is on the disk. UserError where that failed."""


class PartSaver(Saver):
    """Writes parts, at most one checkpoint at a time, from copies on the CPU. One is a checkpoint when the main process
    has heard of every other that its part is on the disk, and has renamed the folder."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        limit = datetime.timedelta(seconds=self.processes.heart.timeout)
        self.group = dist.new_group(backend="gloo", timeout=limit)  # its own: a save and a step speak at once
        self.thread: threading.Thread | None = None
        self.best = False
        self.failure: BaseException | None = None

    def save(self, step: int, others: dict[str, Tensor], facts: dict[str, Any], best: bool, last: bool) -> None:
        self.land()
        main, run = self.processes.main, self.run
        # told only when it is empty, or one process would delete what another has begun to write
        self.best, name = self.processes.told([best or not run.has_best(), run.aside(step).name] if main else None)
        aside = run.checkpoints / name
        tensors = staged(parameters(self.model) | self.state(in_full=False) | others)
        if main:
            log = run.metrics.sync()
            work = partial(self.lead, aside, step, tensors, facts, last, log)
        else:
            work = partial(self.follow, aside, tensors)
        self.thread = threading.Thread(target=self.watched, args=(work,), daemon=True, name="checkpoint")
        self.thread.start()

    def watched(self, work: Callable[[], None]) -> None:
        """Do the work of a thread; what it raises is for `land`."""
        try:
            work()
        except BaseException as error:  # raised again there
            self.failure = error

    def lead(
        self, aside: Path, step: int, tensors: dict[str, Tensor], facts: dict[str, Any], last: bool, log: int
    ) -> None:
        """The main process's part, and what makes of all parts a checkpoint."""
        failure = None
        try:
            with self.run.written(aside, step):
                known = self.write(aside, tensors)
                save_model(aside, self.model, self.model.tokenizer, weights=False)
                if self.best or last:
                    consolidate(aside)
                write_json(aside / STATE / "state.json", facts)
                self.run.publish(aside, step, self.best, log, known)
        except UserError as error:
            failure = str(error)
        self.agree(failure)

    def follow(self, aside: Path, tensors: dict[str, Tensor]) -> None:
        """Another process's part."""
        with contextlib.suppress(OSError):  # which the main process hears of
            self.write(aside, tensors)
        self.agree(None)

    def write(self, aside: Path, tensors: dict[str, Tensor]) -> dict[str, dict[str, Any]]:
        """This process's part; what the manifest says of all parts."""
        known = write_parts(aside / STATE, tensors, self.group)
        return {f"{STATE}/{name}": told for name, told in known.items()}

    def agree(self, failure: str | None) -> None:
        """Hear from the main process how it ended. PassingError where it failed: on a full disk, say."""
        told = [failure]
        dist.broadcast_object_list(told, src=0, group=self.group)
        if told[0] is not None:
            raise PassingError(told[0])

    def land(self) -> None:
        if self.thread is None:
            return
        with self.processes.heart.at("waiting for a checkpoint to be written"):
            self.thread.join()
            self.thread = None
            if self.failure is not None:
                raise self.failure
        self.told(self.best)


def saver(run: Run, model: LanguageModel, optimizers: Optimizers, processes: Processes, told: Told) -> Saver:
    """The one for how the model lies; an adapter is small enough to be gathered."""
    kind = PartSaver if divided(processes) and model.adapter is None else Saver
    return kind(run, model, optimizers, processes, told)
