"""What every generator is given: prompts, the way in which it is timed, and the line of JSON that it answers with.

Needs nothing installed: llama-cpp-python brings no torch.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

from peers.process import memory

PROMPT, NEW = 32, 128
"""Tokens."""
COMPARED = 256
"""Logits that are told, of the tokens with the lowest ids, to show that all run the same model."""

Generate = Callable[[Callable[[int], None]], Sequence[Sequence[int]]]
"""Continue the prompts, calling what it is given, once, as soon as every row has a new token, with how many tokens all
rows have by then. Gives the new tokens of each row."""


def prompts(rows: int, vocab: int) -> list[list[int]]:
    """The same for everybody, and each row another one."""
    draw = random.Random(0)
    return [[draw.randrange(vocab) for _ in range(PROMPT)] for _ in range(rows)]


def measured(generate: Generate, rows: int, repeats: int) -> dict[str, Any]:
    """Seconds of `repeats` generations after one of warm-up, each as (until the first tokens, in all), and the number
    of tokens that were there with the first."""
    runs = [timed(generate, rows) for _ in range(1 + repeats)]
    seconds = [(first, total) for first, total, _ in runs]
    return {"warm_seconds": seconds[0][1], "seconds": seconds[1:], "early": runs[-1][2]}


def timed(generate: Generate, rows: int) -> tuple[float, float, int]:
    """Seconds until the first tokens, in all, and how many tokens came first."""
    marks: list[tuple[float, int]] = []
    start = time.perf_counter()
    found = generate(lambda count: marks.append((time.perf_counter() - start, count)))
    total = time.perf_counter() - start
    assert [len(row) for row in found] == [NEW] * rows, f"{[len(row) for row in found]} new tokens"
    ((first, early),) = marks
    return first, total, early


def answer(times: dict[str, Any], load_seconds: float, logits: Sequence[float], **more: Any) -> None:
    """Print what was measured; `logits` are those of the first prompt's last token."""
    told = {"load_seconds": load_seconds, "peak_bytes": memory("VmHWM")}
    print(json.dumps(told | times | {"logits": [round(float(x), 4) for x in logits[:COMPARED]]} | more))


def options(names: Sequence[str]) -> argparse.Namespace:
    """What the driver says to a generator."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=names)
    parser.add_argument("source", help="a model folder, or a GGUF file")
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2, help="of llama.cpp; torch knows by itself")
    return parser.parse_args()
