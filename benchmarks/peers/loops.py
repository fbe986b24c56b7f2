"""The peers' training loops, each as its user has it: python -m peers.loops NAME SHAPE prints one line of JSON.

trainer, trainer-fast    Trainer of transformers: its defaults; bf16 and torch_compile
nanogpt, nanogpt-fast    nanoGPT's loop, written anew: float32 and not compiled, as its README has it for CPUs; with
                         bf16 autocast and torch.compile
litgpt                   LitGPT's model in the loop of its `pretrain`, written anew: bf16-mixed, compiled
plain, plain-written     autocast, torch.compile, fused AdamW; the same with attention written out

All train with AdamW, without dropout, on random tokens that lie in memory.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from peers.gpt import GPT
from peers.measuring import SHAPES, Clock, Shape, answer, random_rows


def trainer(shape: Shape, clock: Clock, fast: bool) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

    class Watch(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            clock.start()

        def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            control.should_training_stop = not clock.tick()

    off = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": 0, "eos_token_id": 0}
    sizes = {"n_positions": shape.context, "n_embd": shape.dim, "n_layer": shape.layers, "n_head": shape.heads}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=shape.vocab, **sizes, **off))
    rows = [{"input_ids": row, "labels": row} for row in random_rows(shape)[:, :-1]]
    with tempfile.TemporaryDirectory() as folder:
        chosen: dict[str, Any] = {"bf16": True, "torch_compile": True} if fast else {}
        chosen |= {"per_device_train_batch_size": shape.rows, "max_steps": 1_000_000, "use_cpu": True}
        arguments = TrainingArguments(folder, save_strategy="no", disable_tqdm=True, **chosen)
        result = Trainer(model, arguments, train_dataset=rows, callbacks=[Watch()]).train()
    answer(clock, shape, model, shape.context * shape.dim, result.training_loss)


def nanogpt(shape: Shape, clock: Clock, fast: bool) -> None:
    model = GPT(shape, bias=False, tanh=False)
    run: Any = torch.compile(model) if fast else model
    context = torch.autocast("cpu", torch.bfloat16) if fast else contextlib.nullcontext()
    optimizer = torch.optim.AdamW(model.groups(0.1), lr=1e-3, betas=(0.9, 0.99))
    stream = random_rows(shape).flatten().numpy().astype(np.uint16)

    def batch() -> tuple[Tensor, Tensor]:
        places = torch.randint(len(stream) - shape.context, (shape.rows,))
        parts = [torch.from_numpy(stream[i : i + shape.context + 1].astype(np.int64)) for i in places]
        return torch.stack([part[:-1] for part in parts]), torch.stack([part[1:] for part in parts])

    tokens, targets = batch()
    clock.start()
    going = True
    while going:
        for group in optimizer.param_groups:
            group["lr"] = 1e-3
        with context:
            loss = run(tokens, targets)
        tokens, targets = batch()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        told = loss.item()
        going = clock.tick()
    answer(clock, shape, model, shape.context * shape.dim, told)


def litgpt(shape: Shape, clock: Clock) -> None:
    from lightning import Fabric
    from litgpt import GPT as LitGPT
    from litgpt import Config
    from litgpt.utils import chunked_cross_entropy

    sizes = {"n_layer": shape.layers, "n_embd": shape.dim, "n_head": shape.heads, "block_size": shape.context}
    vocab = {"vocab_size": shape.vocab, "padded_vocab_size": shape.vocab}
    config = Config(name="gpt", parallel_residual=False, bias=True, intermediate_size=4 * shape.dim, **sizes, **vocab)
    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    fabric.launch()
    bare = LitGPT(config)
    bare.apply(bare._init_weights)
    bare.transformer.wte.weight = bare.lm_head.weight
    model = fabric.setup(torch.compile(bare))
    optimizer = fabric.setup_optimizers(torch.optim.AdamW(model.parameters(), 4e-4, (0.9, 0.95), weight_decay=0.1))
    rows, k = random_rows(shape), 0
    clock.start()
    going = True
    while going:
        part = rows[k * shape.rows % len(rows) :][: shape.rows]
        loss = chunked_cross_entropy(model(part[:, :-1].contiguous()), part[:, 1:].contiguous())
        fabric.backward(loss)
        fabric.clip_gradients(model, optimizer, max_norm=1.0)
        optimizer.step()
        optimizer.zero_grad()
        k += 1
        going = clock.tick()
    answer(clock, shape, bare, 0, loss.item())


def plain(shape: Shape, clock: Clock, written: bool) -> None:
    model = GPT(shape, written=written)
    run = torch.compile(model)
    optimizer = torch.optim.AdamW(model.groups(0.1), lr=1e-3, betas=(0.9, 0.95), fused=True)
    rows, k = random_rows(shape), 0
    clock.start()
    going = True
    while going:
        part = rows[k * shape.rows % len(rows) :][: shape.rows]
        with torch.autocast("cpu", torch.bfloat16):
            loss = run(part[:, :-1], part[:, 1:])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        k += 1
        going = clock.tick()
    answer(clock, shape, model, shape.context * shape.dim, loss.item())


LOOPS = {
    "trainer": lambda shape, clock: trainer(shape, clock, fast=False),
    "trainer-fast": lambda shape, clock: trainer(shape, clock, fast=True),
    "nanogpt": lambda shape, clock: nanogpt(shape, clock, fast=False),
    "nanogpt-fast": lambda shape, clock: nanogpt(shape, clock, fast=True),
    "litgpt": litgpt,
    "plain": lambda shape, clock: plain(shape, clock, written=False),
    "plain-written": lambda shape, clock: plain(shape, clock, written=True),
}


def options(names: list[str]) -> argparse.Namespace:
    """What the driver says to a loop."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=names)
    parser.add_argument("shape", choices=list(SHAPES))
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=25)
    return parser.parse_args()


if __name__ == "__main__":
    given = options(list(LOOPS))
    torch.manual_seed(0)
    LOOPS[given.name](SHAPES[given.shape], Clock(given.warmup, given.steps, given.seconds))
