"""What one of several processes does for test_parallel.py: each model trained alone, then spread, and compared.

torchrun ... parallel_worker.py RESULT HOW TENSOR FAMILY:OPTIMIZER ...
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.distributed.fsdp import FSDPModule

from helpers import VOCAB, stream, tiny_model
from hornbook.config import Train
from hornbook.data.batches import Batches
from hornbook.data.loader import Loader
from hornbook.data.shards import Shard
from hornbook.parallel.processes import Processes, joined
from hornbook.parallel.sharding import exchange
from hornbook.parallel.tensors import gathered, local
from hornbook.training.engine import Engine

STEPS = 20


def main() -> None:
    result, how, tensor, *cases = sys.argv[1:]
    torch.set_num_threads(1)
    found = {}
    pair_up(how)
    with joined("cpu", how, int(tensor), timeout=60) as processes:
        for case in cases:
            family, optimizer = case.split(":")
            found[case] = compared(family, optimizer, processes)
        if processes.main:
            Path(result).write_text(json.dumps(found))


def pair_up(how: str) -> None:
    """Where a model is to be spread within machines, two processes are one."""
    if how == "hybrid":
        os.environ["LOCAL_WORLD_SIZE"] = "2"


def compared(family: str, optimizer: str, processes: Processes) -> dict[str, Any]:
    """The greatest differences of a training by all processes from one by this process alone."""
    alone, losses, norms, _ = trained(family, optimizer, Processes())
    spread, others, other_norms, engine = trained(family, optimizer, processes)
    before = dict(tiny(family).double().named_parameters())
    held = sum(local(p).numel() for p in spread.parameters())
    state = engine.optimizers.tensors()
    divides = divides_gradients(engine, spread)
    with gathered(spread, processes.main):
        if not processes.main:
            return {}
        names = dict(spread.named_parameters())
        weights = max(float((p - names[name]).abs().max()) for name, p in alone.named_parameters())
    return {
        "weights": weights,
        "moved": max(float((p - before[name]).abs().max()) for name, p in alone.named_parameters()),
        "loss": max(abs(a - b) for a, b in zip(losses, others, strict=True)),
        "norm": max(abs(a - b) / a for a, b in zip(norms, other_norms, strict=True)),
        "held": held / sum(p.numel() for p in alone.parameters()),
        "divides": divides,
        "state": {name: list(tensor.shape) for name, tensor in state.items()},
    }


def divides_gradients(engine: Engine, model: Any) -> bool:
    """Whether a pass that is not the last one of a step leaves no gradient in full where parameters lie in parts."""
    exchange(engine.objective, model, False)
    groups = [part._get_fsdp_state()._fsdp_param_group for part in model.modules() if isinstance(part, FSDPModule)]
    return all(group.reduce_grads for group in groups if group is not None)


def tiny(family: str) -> Any:
    return tiny_model(family, dropout=0.0)


def trained(family: str, optimizer: str, processes: Processes) -> tuple[Any, list[float], list[float], Engine]:
    """A tiny model after some steps of two batches each, in parts of two rows, with its losses and norms."""
    model = tiny(family).double().train()
    settings = Train(model=family, batch=8, accumulate=2, rows=2, optimizer=optimizer, lr=1e-3, device="cpu")
    settings = dataclasses.replace(settings, precision="float32", compile="no", attention="fused", threads=1)
    shard = Shard(stream(2000), *np.ones((3, 1), np.int64), vocab=VOCAB, separator=0, restorable=True)
    batches = Batches(shard, 8, 32, seed=1)
    engine = Engine(model, settings, processes=processes)
    loader = Loader(batches.get, 2, torch.device("cpu"), processes.share)
    losses, norms = [], []
    for step in range(STEPS):
        loss, norm = engine.gradients(loader.get(step))
        engine.apply(1.0)
        losses.append(float(loss))
        norms.append(float(norm))
    loader.close()
    return model, losses, norms, engine


if __name__ == "__main__":
    main()
