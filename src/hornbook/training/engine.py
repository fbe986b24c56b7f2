"""One optimiser step, as fast as the machine does it: precision, compilation, kernels, memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from hornbook import machine
from hornbook.config import Learning
from hornbook.data.batches import Batch
from hornbook.data.loader import Group
from hornbook.errors import WorkError
from hornbook.layers.attention import flexible, fused, written_out
from hornbook.layers.model import LanguageModel
from hornbook.parallel.processes import Processes
from hornbook.parallel.sharding import averaged, compile_blocks, divided, exchange, spread
from hornbook.parallel.tensors import local, total_norm
from hornbook.progress import say
from hornbook.training.lookups import ordered_lookups
from hornbook.training.objective import Objective
from hornbook.training.optimizers import Optimizers
from hornbook.training.recompute import recompute_activations

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Engine:
    """A model and its optimisers. `settings` say everything: nothing is left open in them (see `choices.py`)."""

    def __init__(
        self,
        model: LanguageModel,
        settings: Learning,
        objective: nn.Module | None = None,
        processes: Processes | None = None,
    ) -> None:
        """`objective` around the model: next tokens, where there is none. `processes` share the work, where there are
        several, and each then holds what falls to it."""
        assert settings.optimizer is not None
        assert settings.lr is not None
        assert settings.batch != "auto"
        self.model = model
        self.processes = processes or Processes()
        self.clip, self.rows = settings.clip, settings.rows or settings.batch
        self.own_rows = settings.batch // self.processes.groups
        self.dtype = PRECISIONS[settings.precision]
        with enough_memory("the model was placed"):
            place(model, settings)
        self.device = model.device
        """With its number, for other threads begin at a GPU of their own."""
        if settings.recompute:
            recompute_activations(model)
        if settings.compile == "yes":
            torch.compiler.reset()  # it compiles the same code for eight models at most
            (compile_blocks if divided(self.processes) else ordered_lookups)(model)
        spread(model, self.processes, self.dtype)
        self.optimizers = Optimizers(settings.optimizer, model, settings.lr, settings.weight_decay, settings.beta2)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.autocast = precision(settings, self.device)
        self.objective = (Objective(model) if objective is None else objective).to(self.device)
        self.objective = averaged(self.objective, self.processes)
        if settings.compile == "yes" and not divided(self.processes):
            self.objective = torch.compile(self.objective, dynamic=False)  # type: ignore[assignment]
        self.norm: Tensor | None = None
        self.fewer_rows: int | None = None
        """At once since memory ran out, if it did."""

    def gradients(self, group: Group, scale: float = 1.0) -> tuple[Tensor, Tensor]:
        """The mean loss over all targets of the group, and the norm of its gradient, which is left in the parameters.

        Both are () float32 on the device, in nats a target. `scale` keeps float16's gradients from vanishing: it is in
        the gradients until `apply`. Where memory runs out, the group is done again in smaller parts.
        """
        drawn = random_state(self.device)
        while True:
            try:
                self.drop()
                with self.processes.heart.at("computing gradients"):
                    loss = self.backward(group, scale)
                break
            except RuntimeError as error:  # torch.OutOfMemoryError is one
                if not machine.out_of_memory(error):
                    raise
                self.shrink()
                set_random_state(self.device, drawn)
        with self.processes.heart.at("adding up"):
            self.norm = total_norm([p.grad for p in self.parameters if p.grad is not None]) / scale
        return self.processes.summed(loss), self.norm

    def backward(self, group: Group, scale: float = 1.0) -> Tensor:
        """Gradients of the group's mean loss, of which this process's rows' part is returned."""
        parts = [part for batch in group.batches for part in batch.parts(self.rows)]
        total = torch.zeros((), device=self.device)
        for number, part in enumerate(parts, start=1):
            exchange(self.objective, self.model, number == len(parts))
            # gradients of several groups are averaged, and wanted is their sum
            total += backward(self.objective, [part], group.targets, self.autocast, scale * self.processes.groups)
        return total

    def shrink(self) -> None:
        """Halve the rows that are computed at once; a WorkError where one row is too much."""
        self.drop()
        if self.processes.size > 1:
            rows = min(self.rows, self.own_rows)
            raise WorkError(f"out of memory: take fewer --rows than {rows} at once, or --recompute")
        if self.rows == 1:
            raise WorkError(
                "one row does not fit into memory: take a shorter --context, a smaller model, or --recompute"
            )
        self.take_rows(-(-self.rows // 2))
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        say(
            f"out of memory: from here on {self.rows} rows at once (--rows {self.rows}); the steps stay what they were "
            "but for dropout"
        )

    def take_rows(self, fewer: int | None) -> None:
        """Compute at most so many rows at once from here on; None to leave it as it is."""
        if fewer is not None:
            self.rows = self.fewer_rows = min(fewer, self.rows)

    def apply(self, factor: float, scale: float = 1.0) -> None:
        """Clip the gradients that `gradients` left, and step at `factor` times the learning rate."""
        assert self.norm is not None
        gradients = [local(p.grad) for p in self.parameters if p.grad is not None]
        if self.clip:
            shrinking = (self.clip / (self.norm + 1e-6)).clamp(max=1.0)
            if self.device.type != "cpu" or scale != 1.0 or shrinking < 1.0:  # to read it, a GPU would be waited for
                torch._foreach_mul_(gradients, shrinking / scale)
        elif scale != 1.0:
            torch._foreach_mul_(gradients, 1 / scale)
        self.optimizers.step(factor)

    def drop(self) -> None:
        """Forget the gradients."""
        for p in self.parameters:
            p.grad = None


def random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Of the generators that dropout draws from."""
    if device.type == "mps":
        return torch.get_rng_state(), torch.mps.get_rng_state()
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def set_random_state(device: torch.device, state: tuple[Tensor, Tensor | None]) -> None:
    """Take back what `random_state` gave."""
    torch.set_rng_state(state[0])
    if state[1] is None:
        return
    if device.type == "mps":
        torch.mps.set_rng_state(state[1])
    else:
        torch.cuda.set_rng_state(state[1], device)


def backward(
    objective: nn.Module,
    parts: list[Batch],
    targets: int,
    autocast: Callable[[], contextlib.AbstractContextManager[Any]],
    scale: float = 1.0,
) -> Tensor:
    """Gradients of the mean loss over all `targets` of the parts, however they were cut, times `scale`.

    Returns that loss, () float32 on the device.
    """
    total = torch.zeros((), device=parts[0].tokens.device)
    for part in parts:
        with autocast():
            nats, _ = objective(*part.arguments)
        (nats * (scale / max(targets, 1))).backward()
        total += nats.detach()
    return total / max(targets, 1)


def place(model: LanguageModel, settings: Learning) -> None:
    """Put a model where it is trained, with the products and the attention that it is trained with."""
    device = torch.device(settings.device or "cpu")
    prepare_machine(device, settings)
    model.to(device)
    if settings.attention != "auto":
        use_attention(model, settings.attention)


def prepare_machine(device: torch.device, settings: Learning) -> None:
    """Threads, allocator and the precision of float32 products, for this process."""
    if settings.threads:
        torch.set_num_threads(settings.threads)
    if device.type == "cpu":
        machine.keep_freed_memory()
    if settings.float32_matmul != "auto":
        torch.set_float32_matmul_precision(settings.float32_matmul)


def use_attention(model: LanguageModel, name: str) -> None:
    """Let every attention of the model use the kernel of that name."""
    for module in model.modules():
        if hasattr(module, "kernel"):
            module.kernel = KERNELS[name]  # type: ignore[assignment]


KERNELS = {"fused": fused, "written-out": written_out, "flex": flexible}


def precision(settings: Learning, device: torch.device) -> Callable[[], contextlib.AbstractContextManager[Any]]:
    """Makes the context of a forward pass: autocast, or none."""
    dtype = PRECISIONS[settings.precision]
    return partial(torch.autocast, device.type, dtype, enabled=dtype != torch.float32)


@contextlib.contextmanager
def enough_memory(doing: str) -> Iterator[None]:
    """WorkError where memory runs out."""
    try:
        yield
    except RuntimeError as error:
        if not machine.out_of_memory(error):
            raise
        raise WorkError(
            f"memory ran out while {doing}: take a smaller model, a shorter --context, or --optimizer adafactor. "
            "Checkpoints, if there are any yet, are whole"
        ) from None
