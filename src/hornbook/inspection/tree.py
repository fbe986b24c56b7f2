"""The module tree of a model as rows: shapes, parameters, bytes, arithmetic. Equal layers are folded into one."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import Tensor, nn

from hornbook.layers.model import LanguageModel
from hornbook.layers.stand_in import StandIn

KINDS = {
    "embedding": "embeddings",
    "token_types": "embeddings",
    "project_in": "embeddings",
    "positions": "positions",
    "recurrent": "recurrence",
    "attention": "attention",
    "cross_attention": "attention",
    "query": "attention",
    "combine": "attention",
    "mlp": "MLP",
    "norms": "norms",
    "transform": "head",
    "project_out": "head",
    "output": "head",
    "output_bias": "head",
    "keys": "keys",
    "log_probs": "log-probabilities",
    "backoffs": "back-off weights",
}
"""What a part is for, by its name or that of the module around it; the outermost counts, but a norm is a norm."""
OTHER = "other"


@dataclass(frozen=True)
class Part:
    """A module or a tensor. Its figures are sums over all its copies, and, of a module, over all that it holds."""

    path: str
    """Its name, with equal layers folded: `blocks.0-63.attention.query`."""
    module: str
    """Its class; empty for what is no module of its own."""
    depth: int
    copies: int
    """How many equal ones the row stands for."""
    shapes: tuple[tuple[int, ...], ...] = ()
    """Of the tensors that are its own, in one copy."""
    parameters: int = 0
    """Tensors that are shared count where they stand first."""
    bytes: int = 0
    flops: int = 0
    """Floating-point operations to read one token (forward only)."""
    kind: str = ""
    """What it is for; empty for a module that holds others."""
    tied_to: str = ""
    """The part whose tensor this one uses."""

    @property
    def is_scores(self) -> bool:
        """Whether it is what attention computes beside its matrices."""
        return self.path.split(".")[-1] == "scores"


@dataclass
class Walk:
    """One way through a model."""

    counted: bool
    scores: dict[int, int]
    """FLOPs of each attention module beyond its matrices, by its identity."""
    seen: dict[int, str] = field(default_factory=dict)
    """The path of every tensor met so far, by its identity."""

    def module(self, module: nn.Module, path: str, depth: int, copies: int) -> list[Part]:
        """The row of a module and of all that it holds; nothing where that has no tensors."""
        own, name = own_tensors(module), type(module).__name__
        if isinstance(module, StandIn):
            return [self.stand_in(module, own, path, depth, copies)]
        if own and not list(module.children()):
            return [self.leaf(own, path, name, depth, copies, looked_up=isinstance(module, nn.Embedding))]
        held = list(self.inside(module, f"{path}.", depth + 1, copies))
        return [total(held, path, name, depth, copies), *held] if held else []

    def inside(self, module: nn.Module, path: str, depth: int, copies: int) -> Iterator[Part]:
        """The rows of what a module holds: its modules, then tensors of its own."""
        for label, child, count in folded(module):
            yield from self.module(child, f"{path}{label}", depth, copies * count)
        for name, tensor in own_tensors(module).items():
            yield self.leaf({name: tensor}, f"{path}{name}", "", depth, copies)
        if scores := self.scores.get(id(module)):
            yield Part(f"{path}scores", "", depth, copies, flops=copies * scores, kind="attention")

    def leaf(
        self, own: dict[str, Tensor], path: str, module: str, depth: int, copies: int, looked_up: bool = False
    ) -> Part:
        """The row of tensors that are a module's own; matrices are multiplied with, tables only `looked_up`."""
        fresh = [tensor for tensor in own.values() if id(tensor) not in self.seen]
        tied_to = "" if fresh else self.seen[id(next(iter(own.values())))]
        self.seen.update({id(tensor): path for tensor in fresh})
        matrices = [t for t in own.values() if isinstance(t, nn.Parameter) and t.ndim > 1 and not looked_up]
        return Part(
            path=path,
            module=module,
            depth=depth,
            copies=copies,
            shapes=tuple(tuple(tensor.shape) for tensor in own.values()),
            parameters=copies * sum(t.numel() for t in fresh if self.is_parameter(t)),
            bytes=copies * sum(t.nbytes for t in fresh),
            flops=2 * copies * sum(t.numel() for t in matrices),
            kind=kind_of(path),
            tied_to=tied_to,
        )

    def stand_in(self, module: StandIn, own: dict[str, Tensor], path: str, depth: int, copies: int) -> Part:
        """The row of a matrix that is kept in another form: shape and parameters in full, bytes as they are kept."""
        matrix, others = (module.rows, module.columns), [t for t in own.values() if isinstance(t, nn.Parameter)]
        return Part(
            path=path,
            module=type(module).__name__,
            depth=depth,
            copies=copies,
            shapes=(matrix, *(tuple(tensor.shape) for tensor in others)),
            parameters=copies * (math.prod(matrix) + sum(tensor.numel() for tensor in others)),
            bytes=copies * sum(tensor.nbytes for tensor in own.values()),
            flops=0 if module.looked_up else 2 * copies * math.prod(matrix),
            kind=kind_of(path),
        )

    def is_parameter(self, tensor: Tensor) -> bool:
        """What gradients change; in a counted model the numbers that counting gives."""
        return isinstance(tensor, nn.Parameter) or (self.counted and tensor.is_floating_point())


def parts_of(model: LanguageModel, context: int) -> list[Part]:
    """All rows of a model, in its own order, without one for the whole; FLOPs in rows of `context` tokens.

    A head that is the token embedding gets a row too, without parameters of its own.
    """
    halves = {id(m): getattr(m, "halves", 1) for m in model.modules() if hasattr(m, "kernel")}
    beyond = model.flops_per_token(context) - LanguageModel.flops_per_token(model, context)
    each = beyond // 3 // max(1, sum(halves.values()))  # a third of training is the forward pass
    walk = Walk(model.counted, {module: n * each for module, n in halves.items()})
    parts = list(walk.inside(model, "", 0, 1))
    if model.tied and not any(part.path == "output" for part in parts):
        shape = next(part.shapes[0] for part in parts if part.path == "embedding")
        flops = 2 * math.prod(shape)
        parts.append(Part("output", "", 0, 1, (shape,), flops=flops, kind="head", tied_to="embedding"))
    return parts


def leaves(parts: list[Part]) -> list[Part]:
    """The rows that hold no others: each tensor is in one of them."""
    return [part for part in parts if part.kind]


def total(parts: list[Part], path: str = "", module: str = "", depth: int = 0, copies: int = 1) -> Part:
    """The row of something that holds `parts` and nothing else."""
    sums = {name: sum(getattr(part, name) for part in leaves(parts)) for name in ("parameters", "bytes", "flops")}
    return Part(path, module, depth, copies, **sums)


def by_kind(parts: list[Part]) -> dict[str, Part]:
    """Sums over all parts of a kind, in the order of KINDS."""
    order = [*dict.fromkeys(KINDS.values()), OTHER]
    groups = {kind: [part for part in leaves(parts) if part.kind == kind] for kind in order}
    return {kind: total(group, kind) for kind, group in groups.items() if group}


def kind_of(path: str) -> str:
    """What a part is for; OTHER where its name does not say."""
    names = [re.sub(r"_\d+$", "", name) for name in path.split(".")]
    if names[-1].endswith("norm"):
        return "norms"
    return next((KINDS[name] for name in names if name in KINDS), OTHER)


def own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and stored buffers that belong to a module itself, not to one inside it."""
    return {name: tensor for name, tensor in module.state_dict(keep_vars=True).items() if "." not in name}


def folded(module: nn.Module) -> Iterator[tuple[str, nn.Module, int]]:
    """(label, the first, how many) of the modules inside; neighbours in a list that have equal shapes are one."""
    for name, child in module.named_children():
        if not isinstance(child, nn.ModuleList):
            yield name, child, 1
            continue
        for _, run in itertools.groupby(enumerate(child), key=lambda numbered: signature(numbered[1])):
            numbers, equals = zip(*run, strict=True)
            last = f"-{numbers[-1]}" if len(numbers) > 1 else ""
            yield f"{name}.{numbers[0]}{last}", equals[0], len(numbers)


def signature(module: nn.Module) -> tuple[object, ...]:
    """What makes two modules equal to look at: their class, and the names, shapes and dtypes of their tensors."""
    return type(module), *((name, t.shape, t.dtype) for name, t in module.state_dict().items())
