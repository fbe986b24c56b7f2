"""Two recipes of others, trained on given tokens for a given time: python -m peers.recipes ...

nanogpt   what nanoGPT's README has for a computer without GPU: 4 layers x 128, 4 heads, T 64, batch 12, float32, not
          compiled; AdamW at 1e-3 (betas 0.9, 0.99, decay 0.1, clip 1), 100 steps of warm-up, a cosine down to 1e-4, no
          dropout; every 250 steps 20 batches of either split are evaluated, and the best state is kept
trainer   GPT-2 in transformers' Trainer with its defaults: AdamW at 5e-5, no decay, linear down to 0, batch 8, float32

Where a recipe counts steps, its schedule runs over the time instead, so that it ends with it; and nothing is written to
the disk on the way. Tokens are .npy files of uint16 in FOLDER, into which the weights are written.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from peers.gpt import GPT
from peers.measuring import Shape

LAPTOP = {"layers": 4, "dim": 128, "heads": 4, "context": 64, "rows": 12}
HIGH, LOW, WARM_UP = 1e-3, 1e-4, 100
EVERY, BATCHES = 250, 20
SPEAK = 20.0


class Budget:
    """`seconds` from the moment (time.time) at which the process was started."""

    def __init__(self, began: float, seconds: float) -> None:
        self.began, self.seconds, self.spoke = began, seconds, 0.0

    @property
    def share(self) -> float:
        """Of the time that is over: 0 to 1."""
        return min(1.0, (time.time() - self.began) / self.seconds)

    def say(self, step: int, loss: float | None = None) -> None:
        """A line on standard error, now and then."""
        if time.time() - self.spoke > SPEAK:
            self.spoke = time.time()
            told = "" if loss is None else f"  loss {loss:.3f}"
            print(f"{100 * self.share:3.0f} %  step {step}{told}", file=sys.stderr, flush=True)


def nanogpt(given: argparse.Namespace, budget: Budget) -> dict[str, Any]:
    shape = Shape(vocab=given.vocab, **LAPTOP)
    model = GPT(shape, bias=False, tanh=False)
    optimizer = torch.optim.AdamW(model.groups(0.1), lr=HIGH, betas=(0.9, 0.99))
    splits = [np.load(given.folder / f"{split}.npy", mmap_mode="r") for split in ("train", "validation")]
    best, kept, step = math.inf, model.state_dict(), 0
    while budget.share < 1:
        if step % EVERY == 0:
            value = estimate(model, shape, splits)
            if value < best:
                best, kept = value, copy.deepcopy(model.state_dict())
        for group in optimizer.param_groups:
            group["lr"] = cosine(step, budget.share)
        loss = model(*batch(splits[0], shape))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        budget.say(step, loss.item())
    if estimate(model, shape, splits) < best:
        kept = model.state_dict()
    save_file({name: tensor.contiguous() for name, tensor in kept.items()}, given.folder / "model.safetensors")
    return {"steps": step, "tokens": step * shape.tokens}


def batch(stream: np.ndarray, shape: Shape) -> tuple[Tensor, Tensor]:
    """Rows from anywhere in the stream: tokens and targets (B,T)."""
    places = torch.randint(len(stream) - shape.context, (shape.rows,))
    rows = torch.stack([torch.from_numpy(stream[i : i + shape.context + 1].astype(np.int64)) for i in places])
    return rows[:, :-1], rows[:, 1:]


@torch.no_grad()
def estimate(model: GPT, shape: Shape, splits: list[np.ndarray]) -> float:
    """The validation loss; the training loss is looked at too, as there."""
    means = [torch.stack([model(*batch(split, shape)) for _ in range(BATCHES)]).mean() for split in splits]
    return float(means[1])


def cosine(step: int, share: float) -> float:
    """The learning rate."""
    if step < WARM_UP:
        return HIGH * step / WARM_UP
    return LOW + 0.5 * (1 + math.cos(math.pi * share)) * (HIGH - LOW)


def trainer(given: argparse.Namespace, budget: Budget) -> dict[str, Any]:
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

    class Timed(Trainer):
        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
            chosen = self.optimizer if optimizer is None else optimizer
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(chosen, lambda step: 1.0 - budget.share)
            return self.lr_scheduler

    class Watch(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            control.should_training_stop = budget.share >= 1
            budget.say(state.global_step)  # whose loss the Trainer keeps to itself

    layers, dim, heads, context = given.sizes
    off = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": 0, "eos_token_id": 0}
    sizes = {"n_layer": layers, "n_embd": dim, "n_head": heads, "n_positions": context}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=given.vocab, **sizes, **off))
    stream = np.load(given.folder / "train.npy").astype(np.int64)
    blocks = torch.from_numpy(stream[: len(stream) // context * context]).view(-1, context)
    rows = [{"input_ids": block, "labels": block} for block in blocks]
    chosen = {"max_steps": 10**7, "save_strategy": "no", "disable_tqdm": True, "use_cpu": True, "seed": given.seed}
    arguments = TrainingArguments(str(given.folder / "trainer"), **chosen)
    done = Timed(model, arguments, train_dataset=rows, callbacks=[Watch()]).train().global_step
    model.save_pretrained(given.folder)
    return {"steps": done, "tokens": done * arguments.train_batch_size * context}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", choices=["nanogpt", "trainer"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--began", type=float, required=True, help="time.time() when this process was started")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--vocab", type=int, required=True)
    parser.add_argument("--sizes", type=int, nargs=4, help="of the trainer's GPT-2: layers, width, heads, context")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    budget = Budget(given.began, given.seconds)
    found = {"nanogpt": nanogpt, "trainer": trainer}[given.recipe](given, budget)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
