"""A model's score on multiple-choice tasks: the log-probability of every ending, and which it would choose.

What the endings of an example have in common, the prompt, is read once: its cache is copied for each ending.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hornbook.data.batches import NO_TARGET
from hornbook.evaluation.score import require_causal
from hornbook.layers.model import LanguageModel
from hornbook.lessons import Row, encode_choice, fitted
from hornbook.tasks import Choice


@torch.inference_mode()
def choice_log_probs(
    model: LanguageModel,
    examples: Sequence[Choice],
    batch: int = 32,
    progress: Callable[[int, int], None] = lambda done, total: None,
    context: int | None = None,
) -> list[list[tuple[float, int]]]:
    """(log-probability in nats, tokens) of every ending of every example, after its prompt.

    Nothing is put in front of the prompt. The tokens of an ending are those that follow the prompt's when both are
    encoded together. Where a row does not fit into `context`, by default the model's, its beginning is cut. The model
    is put into evaluation mode and left in the mode it came in.
    """
    require_causal(model)
    context = min(context or model.config.context, model.config.context)
    rows = [[fitted(row, context) for row in encode_choice(model.tokenizer, example)] for example in examples]
    order = sorted(range(len(rows)), key=lambda i: -max(len(ids) for ids, _ in rows[i]))
    found: dict[int, list[tuple[float, int]]] = {}
    was_training = model.training
    model.eval()
    for first in range(0, len(order), batch):
        group = order[first : first + batch]
        found |= zip(group, score_rows(model, [rows[i] for i in group]), strict=True)
        progress(first + len(group), len(order))
    model.train(was_training)
    return [found[i] for i in range(len(rows))]


def score_rows(model: LanguageModel, examples: Sequence[list[Row]]) -> list[list[tuple[float, int]]]:
    """The scores of a few examples, in one pass over what their rows have in common and one over the rest."""
    device = model.device
    shared = shared_lengths(examples, model.config.context)
    rests = [(ids[n:], scored) for rows, n in zip(examples, shared, strict=True) for ids, scored in rows]
    tokens, segments = padded([ids[:-1] for ids, _ in rests], device)
    targets = torch.full(tokens.shape, NO_TARGET)
    for row, (ids, scored) in enumerate(rests):
        targets[row, len(ids) - 1 - scored : len(ids) - 1] = torch.tensor(ids[len(ids) - scored :])
    cache = None
    if any(shared):
        beginnings, real = padded([rows[0][0][:n] for rows, n in zip(examples, shared, strict=True)], device)
        cache = model.make_cache(len(examples), beginnings.shape[1] + tokens.shape[1])
        model.hidden(beginnings, cache, real)
        cache.select(torch.tensor([i for i, rows in enumerate(examples) for _ in rows], device=device))
    sums = iter(model.log_prob(tokens, targets.to(device), cache, segments).cpu().double().sum(1).tolist())
    return [[(next(sums), scored) for _, scored in rows] for rows in examples]


def shared_lengths(examples: Sequence[list[Row]], context: int) -> list[int]:
    """How many ids each example's rows have in common before the one that predicts the first they differ in.

    None of any where the longest beginning and the longest rest, to which all are padded, would not fit the context.
    """
    shared = [common(rows) for rows in examples]
    rest = max(len(ids) - n for rows, n in zip(examples, shared, strict=True) for ids, _ in rows)
    return shared if max(shared) + rest <= context else [0] * len(examples)


def common(rows: Sequence[Row]) -> int:
    """How many ids at their beginning the rows share and none scores, less one: the last of them predicts."""
    most = min(len(ids) - scored for ids, scored in rows)
    first = rows[0][0]
    same = next((i for i in range(most) if any(ids[i] != first[i] for ids, _ in rows)), most)
    return max(0, same - 1)


def padded(rows: Sequence[list[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows of ids as (B,T), padded on the right, and their segments: 1, and 0 for padding."""
    width = max(map(len, rows))
    tokens = torch.tensor([[*ids, *[0] * (width - len(ids))] for ids in rows], dtype=torch.int64, device=device)
    segments = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in rows], device=device)
    return tokens.reshape(len(rows), width), segments.reshape(len(rows), width)
