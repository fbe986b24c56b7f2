"""What one of several processes does for test_distributed_checkpoints.py.

torchrun ... checkpoint_worker.py RESULT FOLDER HOW TENSOR saved|mixed FAMILY:OPTIMIZER ...
torchrun ... checkpoint_worker.py train FAULT hornbook's arguments ...
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from helpers import VOCAB, stream, tiny_model
from hornbook.checkpoint import load, read_weights
from hornbook.config import Train
from hornbook.data.batches import Batches
from hornbook.data.loader import Loader
from hornbook.data.shards import Shard
from hornbook.parallel.parts import STATE, parameters, read_parts, stored_parts, write_parts
from hornbook.parallel.processes import Processes, joined
from hornbook.parallel.tensors import local, whole
from hornbook.run import FollowedRun, Run
from hornbook.text.tokenizer_training import train_tokenizer
from hornbook.training import saving
from hornbook.training.engine import Engine
from hornbook.training.saving import OPTIMIZER, PartSaver
from parallel_worker import pair_up

RATE = 1e-3


def main() -> None:
    if sys.argv[1] == "train":
        return faulty(sys.argv[2], sys.argv[3:])
    result, folder, how, tensor, kind, *cases = sys.argv[1:]
    torch.set_num_threads(1)
    pair_up(how)
    with joined("cpu", how, int(tensor), timeout=60) as processes:
        found = {case: KINDS[kind](Path(folder), *case.split(":"), processes) for case in cases}
        if processes.main:
            Path(result).write_text(json.dumps(found))


def engine_of(family: str, optimizer: str, processes: Processes, precision: str = "float32") -> Engine:
    model = tiny_model(family, dropout=0.0).train()
    settings = Train(model=family, batch=8, optimizer=optimizer, lr=RATE, device="cpu", precision="float32")
    settings = dataclasses.replace(settings, precision=precision, compile="no", attention="fused", threads=1)
    return Engine(model, settings, processes=processes)


def learn(engine: Engine, steps: range) -> list[float]:
    shard = Shard(stream(2000), *np.ones((3, 1), np.int64), vocab=VOCAB, separator=0, restorable=True)
    loader = Loader(Batches(shard, 8, 32, seed=1).get, 1, torch.device("cpu"), engine.processes.share)
    losses = []
    for step in steps:
        losses.append(float(engine.gradients(loader.get(step))[0]))
        engine.apply(1.0)
    loader.close()
    return losses


def saved(folder: Path, family: str, optimizer: str, processes: Processes) -> dict[str, Any]:
    """A checkpoint of step 2, written after two more steps have been taken, is what the model was at step 2, whoever
    reads it; from it the same two steps lead to the same place."""
    folder = folder / f"{family}-{optimizer}"
    run = Run(folder) if processes.main else FollowedRun(folder)
    if processes.main:
        run.begin({})
    processes.wait()
    engine = engine_of(family, optimizer, processes)
    engine.model.tokenizer = train_tokenizer("bytes", [])
    told: list[bool] = []
    saver = PartSaver(run, engine.model, engine.optimizers, processes, told.append)
    learn(engine, range(2))
    before = {name: whole(tensor).clone() for name, tensor in parameters(engine.model).items()}
    state = {name: tensor.clone() for name, tensor in engine.optimizers.tensors().items()}
    learnt = threading.Event()

    def late(*told: Any) -> Any:
        assert learnt.wait(60), "training waited for the disk"
        return write_parts(*told)

    with mock.patch.object(saving, "write_parts", late):
        saver.save(2, {"rng": torch.get_rng_state()}, {"step": 2}, best=False, last=False)
        losses = learn(engine, range(2, 4))
        learnt.set()
        saver.land()
    saver.save(4, {}, {"step": 4}, best=False, last=False)  # not the best, and not the end: parts alone
    saver.land()
    place, later = run.checkpoints / "000002", run.checkpoints / "000004"
    again = resumed(place, family, optimizer, processes)
    same_weights = equal({name: whole(tensor) for name, tensor in parameters(again.model).items()}, before)
    same_state = equal(again.optimizers.tensors(), state)
    same_losses = learn(again, range(2, 4)) == losses
    after = {name: whole(tensor) for name, tensor in parameters(engine.model).items()}
    if not processes.main:
        return {}
    alone = resumed(place, family, optimizer, Processes())
    run.close()
    return {
        "told": told,
        "files": sorted(path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()),
        "later": sorted(path.relative_to(later).as_posix() for path in later.rglob("*") if path.is_file()),
        "weights": same_weights,
        "state": same_state,
        "losses": same_losses,
        "alone": equal(parameters(alone.model), before) and equal(alone.optimizers.tensors(), state),
        "loaded": equal(parameters(load(place)), before),
        "loaded later": equal(parameters(load(later)), after),
        "moved": not equal(before, after),
    }


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(local(tensor), other[name]) for name, tensor in one.items())


def resumed(place: Path, family: str, optimizer: str, processes: Processes) -> Engine:
    """A fresh engine, filled from a checkpoint."""
    engine = engine_of(family, optimizer, processes)
    with torch.no_grad():
        for parameter in engine.parameters:
            local(parameter).fill_(7.0)
    read_weights(place, engine.model)
    found = {
        name.removeprefix(OPTIMIZER): told
        for name, told in stored_parts(place / STATE).items()
        if name.startswith(OPTIMIZER)
    }
    wanted = engine.optimizers.receivers(found)
    read_parts(place / STATE, {OPTIMIZER + name: tensor for name, tensor in wanted.items()})
    engine.optimizers.restore(wanted)
    return engine


def mixed(folder: Path, family: str, optimizer: str, processes: Processes) -> dict[str, Any]:
    """Losses in bfloat16, alone and spread, and what the blocks computed in."""
    alone = learn(engine_of(family, optimizer, Processes(), "bfloat16"), range(20))
    engine = engine_of(family, optimizer, processes, "bfloat16")
    block, kinds = engine.model.blocks[0], {}

    def look(module: Any, inputs: Any, output: torch.Tensor) -> None:
        kinds["matrix"], kinds["norm"] = block.attention.query.weight.dtype, module.weight.dtype
        kinds["in"], kinds["out"] = inputs[0].dtype, output.dtype

    block.mlp_norm.register_forward_hook(look)
    together = learn(engine, range(20))
    kinds["lies"] = next(iter(engine.parameters)).dtype
    names = {name: str(kind).removeprefix("torch.") for name, kind in kinds.items()}
    return {"alone": alone, "together": together, "kinds": names}


KINDS = {"saved": saved, "mixed": mixed}


def faulty(fault: str, arguments: list[str]) -> None:
    """Hornbook's command, with what goes wrong at its second checkpoint."""
    from torch.distributed.checkpoint import HuggingFaceStorageWriter

    from hornbook.cli import main as command

    write, publish = HuggingFaceStorageWriter.write_data, Run.publish
    saves = []

    def struck(writer: Any, plan: Any, planner: Any) -> Any:
        saves.append(plan)
        if len(saves) == 2 and os.environ["RANK"] == "1" and fault == "part":
            (Path(writer.path) / "shard-00002-model-00001-of-00001.safetensors").write_bytes(b"half of it")
            os.kill(os.getpid(), signal.SIGKILL)
        if len(saves) == 2 and os.environ["RANK"] == "1" and fault == "full":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(writer, plan, planner)

    def dies(run: Run, *told: Any) -> None:
        if fault == "publish" and run.has_best():
            os.kill(os.getpid(), signal.SIGKILL)
        publish(run, *told)

    faults = mock.patch.object(HuggingFaceStorageWriter, "write_data", struck), mock.patch.object(Run, "publish", dies)
    with faults[0], faults[1]:
        command(arguments)


if __name__ == "__main__":
    main()
