"""How likely a model holds the tokens of a prompt, for completions that echo it with log-probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from hornbook.generation.answers import Chosen
from hornbook.layers.model import LanguageModel

CHUNK = 64
"""Positions whose logits exist at a time."""


def scored(model: LanguageModel, ids: Sequence[int], alternatives: int) -> Iterator[list[Chosen] | None]:
    """None after each chunk, so that others can be served between two; in the end all tokens, the first without a
    log-probability, since nothing predicts it."""
    found = [Chosen(ids[0])]
    with torch.inference_mode():
        cache = model.make_cache(1, len(ids))
    for start in range(0, len(ids) - 1, CHUNK):
        with torch.inference_mode():
            read, goals = ids[start : start + CHUNK], ids[start + 1 : start + CHUNK + 1]
            hidden = model.hidden(torch.tensor([read], device=model.device), cache)[0]
            nats = model.head(hidden[: len(goals)]).float().log_softmax(-1)
            best = nats.topk(min(alternatives, nats.shape[-1]))
            likely = nats.gather(-1, torch.tensor(goals, device=model.device)[:, None])[:, 0].tolist()
            tables = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            for token, nat, table in zip(goals, likely, tables, strict=True):
                found.append(Chosen(token, nat, tuple(zip(*table, strict=True))))
        yield None
    yield found
