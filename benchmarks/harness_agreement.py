"""Do our figures agree with lm-evaluation-harness, item by item? A real model, read by us and by transformers.

    python benchmarks/harness_agreement.py [--model SmolLM2.gguf] [--tasks hellaswag lambada] [--limit 20] [--batch 8]

The model is written as a Hugging Face folder. Three score the same items of it in float32: the harness's own class for
transformers (HFLM), our class for the harness (`evaluation/harness_model.py`), and `hornbook evaluate`. `nats` is the
greatest difference of a log-probability from HFLM's; `marks` counts items on which they differ in which ending is
chosen, by any of the marks, or in whether a word is the likeliest. Ends with 1 where they differ.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

import hornbook
from hornbook.checkpoint import load
from hornbook.evaluation.judging import judge
from hornbook.tasks import Choice, Source, Task, open_task

SPLITS = {"hellaswag": "validation", "lambada": "test"}
NEAR = 1e-3
"""Nats. A log-probability of size 10 behind thirty layers of float32 is good to about 1e-5, and up to a hundred of them
are summed."""


class Item:
    """A request, as far as models look at it."""

    def __init__(self, *args: str) -> None:
        self.args = args


def main() -> None:
    given = options()
    if find_spec("lm_eval") is None:
        sys.exit("lm-evaluation-harness is not installed: pip install -c constraints.txt -e '.[eval]'")
    torch.set_num_threads(given.threads)
    worst = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "model")
        hornbook.import_model(str(given.model), str(folder))
        for name in given.tasks:
            worst += compared(folder, open_task(name, Source()), SPLITS[name], given.limit, given.batch)
    sys.exit(bool(worst))


def compared(folder: Path, task: Task, split: str, limit: int, batch: int) -> int:
    """Print what the three find on a task; how many items differ."""
    from lm_eval.models.huggingface import HFLM

    from hornbook.evaluation.harness_model import HarnessModel

    model = load(folder, text=True)
    started = time.perf_counter()
    ours = judge(model, task, split, limit, baselines=False)
    took = time.perf_counter() - started
    requests = [Item(*pair) for example in ours.examples for pair in pairs(example)]
    theirs, theirs_took = timed(HFLM(str(folder), device="cpu", dtype="float32", batch_size=batch), requests)
    adapted, adapted_took = timed(HarnessModel(model, batch), requests)
    print(f"{task.name}, {split}: {len(ours.examples):,} items, {len(requests):,} log-probabilities")
    print(f"{'':<26}{'seconds':>9}{'nats':>12}{'marks':>9}   figures")
    wanted = in_form(ours.examples, ours.outputs, theirs)
    print(f"{'HFLM':<26}{theirs_took:>9.1f}{'':>12}{'':>9}   {told(task, ours.examples, wanted)}")
    wrong = 0
    for who, seconds, found in (
        ("our class for the harness", adapted_took, in_form(ours.examples, ours.outputs, adapted)),
        ("hornbook evaluate", took, ours.outputs),
    ):
        gap, differ = distance(found, wanted), differing(task, ours.examples, found, wanted)
        print(f"{who:<26}{seconds:>9.1f}{gap:>12.2e}{differ:>9}   {told(task, ours.examples, found)}", flush=True)
        wrong += differ + (gap > NEAR)
    return wrong


def timed(model: Any, requests: list[Item]) -> tuple[list[tuple[float, bool]], float]:
    started = time.perf_counter()
    return model.loglikelihood(requests, disable_tqdm=True), time.perf_counter() - started


def pairs(example: Any) -> list[tuple[str, str]]:
    """(context, continuation), as the harness asks of an example."""
    endings = example.endings if isinstance(example, Choice) else (example.word,)
    return [(example.prompt, f" {ending}") for ending in endings]


def in_form(examples: Sequence[Any], outputs: Sequence[Any], found: Sequence[tuple[float, bool]]) -> list[Any]:
    """What the harness found, as outputs of the task; the numbers of tokens are ours."""
    rest = iter(found)
    return [
        [(next(rest)[0], tokens) for _, tokens in output] if isinstance(example, Choice) else next(rest)
        for example, output in zip(examples, outputs, strict=True)
    ]


def distance(found: Sequence[Any], wanted: Sequence[Any]) -> float:
    """The greatest difference of two log-probabilities."""
    numbers = [[nats for output in some for nats in first(output)] for some in (found, wanted)]
    return max(abs(a - b) for a, b in zip(*numbers, strict=True))


def first(output: Any) -> list[float]:
    return [nats for nats, _ in output] if isinstance(output, list) else [output[0]]


def differing(task: Task, examples: Sequence[Any], found: Sequence[Any], wanted: Sequence[Any]) -> int:
    """Items of which a mark that is 0 or 1 is another."""
    marks = [[sharp(task.score(e, o)) for e, o in zip(examples, some, strict=True)] for some in (found, wanted)]
    return sum(a != b for a, b in zip(*marks, strict=True))


def sharp(marks: dict[str, float]) -> dict[str, float]:
    return {name: mark for name, mark in marks.items() if name.startswith("accuracy")}


def told(task: Task, examples: Sequence[Any], outputs: Sequence[Any]) -> str:
    marks = [task.score(example, output) for example, output in zip(examples, outputs, strict=True)]
    means = {name: sum(mark[name] for mark in marks) / len(marks) for name in marks[0]}
    means |= {name: figure.value for name, figure in task.figures(examples, outputs).items()} if task.figures else {}
    return "  ".join(f"{name} {mean:.4f}" for name, mean in means.items())


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    files = sorted(Path(os.environ.get("HORNBOOK_DATA", "nowhere"), "smollm2-135m").glob("*.gguf"))
    parser.add_argument("--model", default=files[0] if files else None, required=not files)
    parser.add_argument("--tasks", nargs="+", default=list(SPLITS), choices=list(SPLITS))
    parser.add_argument("--limit", type=int, default=0, help="items of each task; 0 for all")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args()


if __name__ == "__main__":
    main()
