"""One neural run: the loop with its batches, its evaluations and its folder, from fresh or from where it stopped."""

from __future__ import annotations

import dataclasses
import math
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hornbook import machine
from hornbook.adapt.lora import training_flops
from hornbook.checkpoint import read_weights
from hornbook.config import Learning, Train
from hornbook.data.loader import Loader
from hornbook.errors import WorkError
from hornbook.layers.model import LanguageModel
from hornbook.parallel.parts import STATE, has_parts, read_parts, stored_parts
from hornbook.parallel.processes import Processes
from hornbook.parallel.sharding import divided
from hornbook.progress import Bar, duration, say
from hornbook.run import Run, read_tensors
from hornbook.small_files import read_object
from hornbook.text.home import home
from hornbook.training.callbacks import Callback, Event, Moment, tell
from hornbook.training.choices import describe
from hornbook.training.engine import Engine, random_state, set_random_state
from hornbook.training.interrupt import Interrupted
from hornbook.training.like import Replay
from hornbook.training.loop import State, Taken, Watch, fit, over
from hornbook.training.saving import OPTIMIZER, saver
from hornbook.training.work import Work

RECENT = 20
"""Steps over which the speed that is shown is taken."""
STRIDE = 1_000_003
"""Between the seeds of groups of processes."""
REPEATED = 4
"""Passes over a text up to which each teaches nearly as much as new text would (Muennighoff et al. 2023, "Scaling
data-constrained language models")."""
OFTEN = 10
"""Passes over a text from which dropout is likely to pay: of `hornbook-tiny` on WikiText-2, 0.1 costs 0.02 bits per
byte where the text is read 5 times, and gains 0.05 where it is read 18 times (docs/log.md)."""
GENERATORS = "rng", "rng_cuda", "rng_mps"
"""Of random numbers: the CPU's, the GPU's, an Apple GPU's."""


class Session:
    """Holds what the loop's callbacks share. `settings` leave nothing open; `model` has its tokeniser."""

    def __init__(
        self,
        settings: Learning,
        model: LanguageModel,
        work: Work,
        run: Run,
        callbacks: Sequence[Callback] = (),
        course: Replay | None = None,
        processes: Processes | None = None,
    ) -> None:
        self.processes = processes or Processes()
        self.began = time.monotonic()
        self.settings, self.model, self.work, self.run = settings, model, work, run
        self.callbacks, self.course = callbacks, course
        self.engine = Engine(model, settings, work.objective, self.processes)
        self.device = self.engine.device
        share = self.processes.share if self.processes.groups > 1 else None
        self.loader = Loader(work.batch, settings.accumulate, self.device, share, getattr(work, "foresight", None))
        self.steps = settings.steps
        if self.steps is None and settings.epochs:
            self.steps = math.ceil(work.per_epoch * settings.epochs / settings.accumulate)
        self.state = State()
        self.flops = training_flops(model, work.context)
        self.peak = machine.reference_peak(self.device, self.engine.dtype, home() / "machine.json")
        if self.device.type == "cuda" and self.peak.source == "measured":
            machine.forget_peak(self.device)  # of the products that were measured
        self.marks: deque[tuple[float, int]] = deque(maxlen=RECENT + 1)
        self.progress = 0.0
        self.bits: float | None = None
        self.saver = saver(run, model, self.engine.optimizers, self.processes, self.saved)

    def learn(self, bar: Bar) -> dict[str, Any]:
        """Train to the end, or on to it; returns the summary of the best checkpoint. Raises as `loop.fit` does."""
        self.bar = bar
        torch.manual_seed(self.settings.seed + STRIDE * self.processes.group)  # whatever was measured before
        self.resume()
        say(f"engine: {describe(self.settings)}")
        self.state.seconds += time.monotonic() - self.began
        watch = Watch(self.after_step, self.evaluate, self.save)
        try:
            fit(self.engine, self.loader, self.settings, self.steps, self.state, watch, self.course)
        except Interrupted:
            self.saver.land()
            raise
        finally:
            self.loader.close()
        self.saver.land()
        self.run.restore_best(self.model)
        if self.processes.main and (told := by_heart(self.run.best_step, self.state.step, self.passes)):
            say(told)
        return self.summary()

    @property
    def passes(self) -> float:
        """How often the text has been read so far."""
        return self.state.step * self.settings.accumulate * self.work.read_by_batch

    def tell(self, event: Event, values: dict[str, Any], step: int | None = None) -> None:
        step = self.state.step if step is None else step
        tell(self.callbacks, Moment(event, step, values, self.model, self.run.folder))

    def log(self, event: Event, **values: Any) -> None:
        """Write a line to metrics.jsonl, and tell the callbacks of it."""
        self.run.log(**values)
        self.tell(event, values, values["step"])

    def resume(self) -> None:
        """Take weights, optimiser, random state and place from the last checkpoint, where there is one."""
        found, lost = self.processes.told((self.run.find(), self.run.lost_best) if self.processes.main else None)
        if found is None:
            return
        folder = self.run.checkpoints / found
        self.state = State(**read_object(folder / STATE / "state.json"))
        if lost:  # what takes its place is to be beaten by whatever comes
            self.state.best = self.state.best_loss = math.inf
            self.state.worse = 0
        self.engine.take_rows(self.state.rows)
        read_weights(folder, self.model)
        tensors = self.stored(folder)
        held = {name.removeprefix(OPTIMIZER): t for name, t in tensors.items() if name.startswith(OPTIMIZER)}
        self.engine.optimizers.restore(held)
        self.restore_random(tensors)
        say(f"carrying on at step {self.state.step}")

    def stored(self, folder: Path) -> dict[str, Tensor]:
        """What a checkpoint holds beside weights: all, or where it lies in parts, here or there, what falls to this
        process."""
        place = folder / STATE
        if not has_parts(folder) and not divided(self.processes):
            return read_tensors(place / "state.safetensors")
        found = stored_parts(place)
        own = [name + self.suffix for name in GENERATORS if name + self.suffix in found]
        wanted = {name: torch.empty(found[name].shape, dtype=found[name].dtype) for name in own}
        state = {name.removeprefix(OPTIMIZER): t for name, t in found.items() if name.startswith(OPTIMIZER)}
        wanted |= {OPTIMIZER + name: tensor for name, tensor in self.engine.optimizers.receivers(state).items()}
        read_parts(place, wanted)
        return wanted

    @property
    def suffix(self) -> str:
        """What the names of this process's generators end with."""
        return f".{self.processes.rank}" if self.processes.rank else ""

    def random(self) -> dict[str, Tensor]:
        """The state of every process's generators, by the process's number but for the main one's."""
        cpu, gpu = random_state(self.device)
        states = {"rng": cpu} if gpu is None else {"rng": cpu, f"rng_{self.device.type}": gpu}
        found = {name: self.processes.gather(value) for name, value in states.items()}
        return {f"{name}.{i}" if i else name: value for name, each in found.items() for i, value in enumerate(each)}

    def restore_random(self, tensors: dict[str, Tensor]) -> None:
        """Take back what `random` gave; a process that was not there then begins a course of its own."""
        cpu = tensors.get("rng" + self.suffix)
        if cpu is None:
            torch.manual_seed(self.settings.seed + STRIDE * self.processes.group + self.state.step)
        gpu = tensors.get(f"rng_{self.device.type}{self.suffix}")
        set_random_state(self.device, (torch.get_rng_state() if cpu is None else cpu, gpu))

    def after_step(self, taken: Taken, loss: float, norm: float) -> None:
        assert self.settings.lr is not None
        self.marks.append((taken.seconds, taken.tokens))
        self.progress = taken.progress
        self.bar.show(taken.progress, 1, self.note(taken, loss))
        told: dict[str, Any] = {"loss": loss, "lr": self.settings.lr * taken.factor, "gradient_norm": norm}
        if taken.fault:
            told = {"skipped": taken.fault, "batch": taken.batch}
            say(f"step {taken.step} is left out (batch {taken.batch}): {taken.fault}")
        self.log("step", step=taken.step, seconds=taken.seconds, tokens=taken.tokens, **told)

    def note(self, taken: Taken, loss: float) -> str:
        """What the bar shows, the most important first."""
        (since, before), (now, tokens) = self.marks[0], self.marks[-1]
        speed = (tokens - before) / (now - since) if now > since else taken.tokens / max(taken.seconds, 1e-9)
        parts = [f"step {taken.step}", f"loss {loss:.3f}"]
        parts += [f"{self.bits:.3f} bits/byte"] if self.bits is not None else []
        parts += [f"{speed:,.0f} tokens/s", f"MFU {self.mfu(speed):.0%}"]
        return "  ".join([*parts, f"{machine.peak_memory(self.device) / 1e9:.1f} GB"])

    def mfu(self, speed: float) -> float:
        """Share of the machine's peak that so many tokens a second make (Chowdhery et al. 2022, appendix B)."""
        return speed * self.flops / (self.peak.flops * self.processes.size)

    def evaluate(self, state: State) -> tuple[float, float]:
        """Measure on part of what is not learnt from, and let the model speak; returns the figure to keep low, and what
        decides between equal ones."""
        self.model.eval()
        with self.engine.autocast():
            looked = self.work.evaluate(lambda done, total: self.bar.show(done, total, "evaluating"))
        self.model.train()
        if not math.isfinite(looked.value):
            raise WorkError(
                f"the validation loss became {looked.value} at step {state.step}. Try a lower --lr or more --warmup"
            )
        fresh = isinstance(self.settings, Train) and self.settings.lora is None
        if self.processes.main and not state.evaluated and fresh and self.progress:
            dropout = getattr(self.model.config, "dropout", None)
            if told := read_often(self.passes / self.progress, dropout):
                say(told)
        self.bits = looked.figures.get("validation_bits_per_byte")
        figures, sample = looked.figures, looked.sample
        self.log("evaluation", step=state.step, seconds=state.seconds, sample=sample, **figures)
        told = "  ".join(f"{name.replace('_', ' ')} {number:.3f}" for name, number in figures.items())
        say(f"step {state.step}  {told}" + (f"  {sample!r}" if sample else ""))
        return looked.value, looked.loss

    def save(self, state: State, best: bool) -> None:
        state.rows = self.engine.fewer_rows
        last = over(state, self.settings, self.steps, self.course)
        self.saver.save(state.step, self.random(), dataclasses.asdict(state), best, last)

    def saved(self, best: bool) -> None:
        """A checkpoint is on the disk."""
        self.tell("save", {"folder": str((self.run.folder / "last").resolve()), "best": best})

    def summary(self) -> dict[str, Any]:
        """The run's totals, and how well the model as it is now does its work."""
        state, s = self.state, self.settings
        assert s.batch != "auto"
        result: dict[str, Any] = {
            "steps": state.step,
            "seconds": state.seconds,
            "tokens": state.tokens,
            "mean_loss": state.nats / max(state.targets, 1),
            "tokens_per_second": state.tokens / state.seconds,
            "samples_per_second": state.step * s.accumulate * s.batch / state.seconds,
            "steps_per_second": state.step / state.seconds,
            "flops": state.tokens * self.flops,
            "mfu": self.mfu(state.tokens / state.seconds),
            "peak_flops": self.peak.flops,
            "peak_memory": machine.peak_memory(self.device),
            "engine": describe(s),
            "machine": machine.describe(self.device),
        } | machine.versions()
        say(
            f"{state.step} steps in {duration(state.seconds)}: mean loss {result['mean_loss']:.3f}, "
            f"{result['samples_per_second']:.1f} samples/s, {result['steps_per_second']:.2f} steps/s, "
            f"{result['flops']:.3g} FLOPs, {result['mfu']:.0%} of the {self.peak.source} peak"
        )
        return result | self.work.summary(lambda done, total: self.bar.show(done, total, "evaluating"))


def read_often(passes: float, dropout: float | None) -> str | None:
    """What there is to say of a run that will read its text so many times, with this probability (None: has none)."""
    if dropout != 0 or passes < OFTEN:
        return None
    return f"at this speed the text will be read about {passes:.0f} times: --dropout 0.1 is likely to do better"


def by_heart(best: int, last: int, passes: float) -> str | None:
    """What there is to say of a run whose best step was not its last, after so many passes over its text."""
    if best == last or passes <= REPEATED:
        return None
    return (
        f"best at step {best:,} of {last:,}: after {passes:.0f} passes over the same text much is learnt by heart. "
        "More text, fewer steps or more --dropout may do better"
    )
