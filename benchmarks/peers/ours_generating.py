"""Hornbook's engine on the peers' prompts: python -m peers.ours_generating NAME FOLDER prints a line of JSON."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from hornbook.checkpoint import load
from hornbook.config import Sampling
from hornbook.generation.answers import Request
from hornbook.generation.engine import Engine
from hornbook.generation.swift import quicken
from hornbook.layers.model import LanguageModel
from peers.generating import NEW, answer, measured, options, prompts

BITS = {"hornbook-bf16": None, "hornbook-int8": 8, "hornbook-int4": 4}


def main() -> None:
    given = options(list(BITS))
    start = time.perf_counter()
    model = load(given.source, "cpu", "bfloat16", bits=BITS[given.name])
    read = weights(model)
    quicken(model)
    load_seconds = time.perf_counter() - start
    texts = prompts(given.rows, model.config.vocab)
    times = measured(lambda mark: generate(model, texts, mark), given.rows, given.repeats)
    with torch.inference_mode():
        logits = model(torch.tensor(texts[:1]))[0, -1].tolist()
    answer(times, load_seconds, logits, weights=read, threads=torch.get_num_threads())


def generate(model: LanguageModel, texts: list[list[int]], mark: Callable[[int], None]) -> list[list[int]]:
    engine = Engine(model, rows=len(texts))
    answers = [engine.submit(Request(text, NEW, Sampling(temperature=0))) for text in texts]
    while engine.waiting or engine.reading:
        engine.step()
    mark(sum(len(a.new) for a in answers))
    while engine.busy:
        engine.step()
    return [a.new for a in answers]


def weights(model: LanguageModel) -> int:
    """Bytes that are read for a token: all but tables of which a row is looked up."""
    looked_up = ("positions.",) if model.tied else ("positions.", "embedding.")
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return sum(tensor.nbytes for name, tensor in named.items() if not name.startswith(looked_up))


if __name__ == "__main__":
    main()
