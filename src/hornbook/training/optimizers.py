"""Optimisers by name, with their parameter groups, and their state as plain tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hornbook.parallel.parts import StoredPart
from hornbook.parallel.tensors import alike, in_parts, parted, whole
from hornbook.training.adafactor import Adafactor
from hornbook.training.muon import Muon

Groups = list[dict[str, Any]]

DEFAULT_RATES = {"adamw": 2e-3, "adafactor": 1e-2, "muon": 4e-3}


def adamw(matrices: list[nn.Parameter], tables: list[nn.Parameter], others: list[nn.Parameter], **o: Any) -> list[Any]:
    """Loshchilov and Hutter 2019. Decay on matrices and tables, none on biases and norms."""
    groups: Groups = [{"params": same} for same in alike(matrices + tables).values()]
    groups += [{"params": same, "weight_decay": 0.0} for same in alike(others).values()]
    fused = all(p.device.type in ("cpu", "cuda") for p in matrices + tables + others)
    return [torch.optim.AdamW(groups, lr=o["lr"], betas=(0.9, o["beta2"]), weight_decay=o["decay"], fused=fused)]


def adafactor(
    matrices: list[nn.Parameter], tables: list[nn.Parameter], others: list[nn.Parameter], **o: Any
) -> list[Any]:
    """Shazeer and Stern 2018, with an absolute rate; see `adafactor.py`."""
    groups: Groups = [{"params": matrices + tables}, {"params": others, "weight_decay": 0.0}]
    return [Adafactor(groups, lr=o["lr"], weight_decay=o["decay"])]


def muon(matrices: list[nn.Parameter], tables: list[nn.Parameter], others: list[nn.Parameter], **o: Any) -> list[Any]:
    """Orthogonalised momentum for the matrices (Jordan et al. 2024; see `muon.py`), AdamW for the rest.

    Updates are scaled to AdamW's size (Liu et al. 2025, "Muon is scalable"), so both share one learning rate.
    """
    hidden = [Muon(matrices, lr=o["lr"], weight_decay=o["decay"])] if matrices else []
    return [*hidden, *(adamw([], tables, others, **o) if tables or others else [])]


OPTIMIZERS = {"adamw": adamw, "adafactor": adafactor, "muon": muon}


class Optimizers:
    """The optimisers of one run, stepped together; the learning rate is set as a factor of each group's own."""

    def __init__(self, name: str, model: nn.Module, lr: float, decay: float, beta2: float) -> None:
        tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
        head = getattr(model, "output", None)
        tables |= {id(head.weight)} if isinstance(head, nn.Linear) else set()
        tables |= {id(p) for p in classes.parameters()} if (classes := getattr(model, "class_head", None)) else set()
        learnt = [p for p in model.parameters() if p.requires_grad]
        self.all = OPTIMIZERS[name](
            [p for p in learnt if p.ndim >= 2 and id(p) not in tables],
            [p for p in learnt if p.ndim >= 2 and id(p) in tables],
            [p for p in learnt if p.ndim < 2],
            lr=lr,
            decay=decay,
            beta2=beta2,
        )
        self.lr = lr
        names = {id(p): name for name, p in model.named_parameters()}
        self.names = [[names[id(p)] for group in o.param_groups for p in group["params"]] for o in self.all]
        """Of each optimiser's parameters, in its order."""

    def step(self, factor: float) -> None:
        """One step at `factor` times the learning rate; gradients are dropped after it."""
        for optimizer in self.all:
            for group in optimizer.param_groups:
                group["lr"] = self.lr * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def tensors(self, in_full: bool = True) -> dict[str, Tensor]:
        """All state, flat: 'optimizer.parameter.key' -> tensor. Whole, however the parameters lie, for which every
        process must ask; or else laid out as they are."""
        return {
            f"{i}.{self.names[i][index]}.{key}": whole(torch.as_tensor(value)) if in_full else torch.as_tensor(value)
            for i, optimizer in enumerate(self.all)
            for index, state in optimizer.state_dict()["state"].items()
            for key, value in state.items()
            if value is not None
        }

    def receivers(self, stored: Mapping[str, StoredPart]) -> dict[str, Tensor]:
        """Tensors without content for state of these names and shapes, laid out as the parameters are."""
        parameters = self.by_name()
        tensors = {}
        for spelled, (shape, dtype) in stored.items():
            like = parameters[spelled.split(".", 1)[1].rpartition(".")[0]]
            same = shape == like.shape
            tensors[spelled] = torch.empty_like(like, dtype=dtype) if same else torch.empty(shape, dtype=dtype)
        return tensors

    def by_name(self) -> dict[str, nn.Parameter]:
        """All parameters that learn."""
        names = (name for names in self.names for name in names)
        learnt = (p for optimizer in self.all for group in optimizer.param_groups for p in group["params"])
        return dict(zip(names, learnt, strict=True))

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take back what `tensors` gave, whole or laid out as the parameters are now."""
        parameters = self.by_name()
        for i, optimizer in enumerate(self.all):
            places = {name: index for index, name in enumerate(self.names[i])}
            state: dict[int, dict[str, Tensor]] = {}
            for spelled, tensor in tensors.items():
                which, rest = spelled.split(".", 1)
                name, key = rest.rsplit(".", 1)
                if int(which) == i:
                    like = parameters[name]
                    plain = tensor.shape == like.shape and not in_parts(tensor)
                    laid = parted(tensor.to(like.device), like) if plain else tensor
                    state.setdefault(places[name], {})[key] = laid
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
