"""What guessing ahead gains: a model's tokens a second with drafters, beside the same text without.

    python benchmarks/guessing_ahead.py RUN [--draft lookup runs/5gram ...] [--bits 8] [--prompts 6] [--tokens 96]

Prompts are 200 tokens each, from places evenly apart in the validation split of --data; each is continued greedily
and at temperature 1, one row, without a drafter and with each, in turns. The texts are compared: they must be equal.
`right` is the share of guesses that came true, `a pass` how many tokens a pass of the model gave.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from hornbook.config import Sampling, Speaking
from hornbook.data.shards import open_split
from hornbook.generation.answers import Answer, Request
from hornbook.generation.drafts import drafter
from hornbook.generation.engine import Engine
from hornbook.generation.swift import opened
from hornbook.layers.model import LanguageModel
from hornbook.text.corpora import open_corpus

PROMPT = 200


class Counting:
    """A drafter, and how many tokens it has guessed."""

    def __init__(self, held: Any) -> None:
        self.held, self.guessed = held, 0

    def guess(self, answer: Answer, room: int) -> list[int]:
        found = self.held.guess(answer, room)
        self.guessed += len(found)
        return found


def main() -> None:
    given = options()
    model = opened(Speaking(given.run, dtype=given.dtype, bits=given.bits))
    prompts = texts(model, given.data, given.prompts)
    drafters = [None, *given.draft]
    print(
        f"{given.run}, {given.dtype}, bits {given.bits or 'as they are'}; {len(prompts)} texts of {given.tokens} tokens"
    )
    print(f"{'':<14}{'drafter':<28}{'tokens/s':>10}{'x':>7}{'right':>8}{'a pass':>8}")
    for temperature in (0.0, 1.0):
        sums: dict[str | None, list[float]] = {name: [0.0] * 4 for name in drafters}
        for number, prompt in enumerate([prompts[0], *prompts]):
            new: dict[str | None, list[int]] = {}
            for name in drafters:
                new[name], figures = continued(model, prompt, given.tokens, temperature, name)
                if number:  # the first one warms up
                    sums[name] = [a + b for a, b in zip(sums[name], figures, strict=True)]
            same = all(text == new[None] for text in new.values())
            if not same:
                print(f"  text {number} differs: two candidates lay within rounding")
        speeds = {name: tokens / seconds for name, (tokens, seconds, _, _) in sums.items()}
        for name, (tokens, _, guessed, passes) in sums.items():
            right = f"{(tokens - passes) / guessed:.0%}" if guessed else ""
            kind = "greedy" if temperature == 0 else "temperature 1"
            told = f"{kind:<14}{name or 'none':<28}{speeds[name]:>10.1f}{speeds[name] / speeds[None]:>7.2f}"
            print(f"{told}{right:>8}{tokens / passes:>8.2f}", flush=True)


def continued(
    model: LanguageModel, prompt: list[int], tokens: int, temperature: float, name: str | None
) -> tuple[list[int], list[float]]:
    """The new tokens; how many, seconds behind the prompt, tokens guessed, passes."""
    held = drafter(name, model)
    counting = Counting(held) if held is not None else None
    engine = Engine(model, rows=1, drafter=counting)
    answer = engine.submit(Request(prompt, tokens, Sampling(temperature=temperature, seed=1)))
    while engine.reading or engine.waiting:
        engine.step()
    before, passes, began = len(answer.new), 0, time.perf_counter()
    while engine.busy:
        engine.step()
        passes += 1
    seconds = time.perf_counter() - began
    return answer.new, [len(answer.new) - before, seconds, counting.guessed if counting else 0, passes]


def texts(model: LanguageModel, data: str, count: int) -> list[list[int]]:
    """Pieces of the validation split, evenly apart."""
    shard = open_split(open_corpus(data, "text"), model.tokenizer, "validation")
    if len(shard.tokens) < count + PROMPT:
        sys.exit(
            f"the validation split of {data} has {len(shard.tokens):,} tokens: too few for {count} prompts of {PROMPT}"
        )
    step = (len(shard.tokens) - PROMPT) // count
    return [shard.tokens[n * step : n * step + PROMPT].tolist() for n in range(count)]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--draft", nargs="+", default=["lookup"])
    parser.add_argument("--data", default="wikitext-2")
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16"])
    parser.add_argument("--bits", type=int, choices=[8, 4])
    parser.add_argument("--prompts", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=96)
    return parser.parse_args()


if __name__ == "__main__":
    main()
