"""Examples in rows: what an example costs does not depend on its neighbours, nor on how it is padded."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from helpers import VOCAB, tiny_model
from hornbook.data.batches import NO_TARGET, Batch
from hornbook.data.packing import Packed, Piece, fill_rows, row_width, stacked
from hornbook.layers.class_head import give_class_head
from hornbook.layers.model import LanguageModel
from hornbook.lessons import Lessons
from hornbook.tasks import Asked, Choice, Dialogue, Labelled, LastWord, Preference, Source, open_task
from hornbook.training.objective import ClassObjective, Objective, PreferenceObjective
from test_lessons import talker

FAMILIES = ["gpt2", "llama", "opt", "rnn", "rnn_attention", "hornbook", "mistral"]


def pieces(count: int = 23, seed: int = 0, longest: int = 20) -> list[Piece]:
    """Prompts without targets, and what is learnt after them."""
    random, found = np.random.default_rng(seed), []
    for _ in range(count):
        length = int(random.integers(2, longest))
        tokens = random.integers(3, 40, length + 1)
        targets = tokens[1:].copy()
        targets[: int(random.integers(0, length))] = NO_TARGET
        found.append(Piece(tokens[:-1].astype(np.int32), targets.astype(np.int32)))
    return found


def test_an_epoch_holds_every_piece_once_in_another_order_each_time() -> None:
    some = pieces()
    packed = Packed(some, 4, 32, seed=1)
    first, second = ([i for row in packed.rows_of(epoch) for i in row] for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(len(some)))
    assert first != second


def test_a_batch_is_a_pure_function_of_its_number() -> None:
    some = pieces()
    one, other = Packed(some, 4, 32, seed=1), Packed(some, 4, 32, seed=1)
    ahead = [one.get(k) for k in range(9)]
    for k in reversed(range(9)):
        assert all(torch.equal(a, b) for a, b in zip(ahead[k].arguments, other.get(k).arguments, strict=True))
    assert not torch.equal(ahead[0].tokens, Packed(some, 4, 32, seed=2).get(0).tokens)


def test_rows_are_never_longer_than_wanted_and_mostly_full() -> None:
    lengths = np.random.default_rng(0).integers(1, 60, 500)
    rows = fill_rows(np.arange(500), lengths, 64)
    used = [int(lengths[row].sum()) for row in rows]
    assert max(used) <= 64
    assert sum(used) > 0.9 * 64 * len(rows)
    assert row_width([Piece(np.zeros(n, np.int32), np.zeros(n, np.int32)) for n in (5, 40)], 1024) % 32 == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_rows_cost_what_their_pieces_cost_one_by_one(family: str) -> None:
    model, some = tiny_model(family), pieces()
    objective = Objective(model)
    packed = Packed(some, 3, 40, seed=0)
    rows = len(packed.rows_of(0))
    batches = [packed.get(k) for k in range(math.ceil(rows / 3))]
    alone = [one_by_one(piece) for row in packed.rows_of(0) for piece in map(some.__getitem__, row)]
    together = [Batch(*(x[: rows - 3 * k] for x in b.arguments)) for k, b in enumerate(batches)]
    same(objective, together, alone)


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert"])
def test_classes_in_packed_rows_cost_what_they_cost_alone(family: str) -> None:
    torch.manual_seed(0)
    model = give_class_head(tiny_model(family), ("a", "b", "c"))
    with torch.no_grad():
        for parameter in model.class_head.parameters():  # type: ignore[union-attr]
            parameter.normal_()
    some = []
    for number, piece in enumerate(pieces()):
        targets = np.full(len(piece), NO_TARGET, np.int32)
        targets[-1 if model.causal else 0] = number % 3
        some.append(Piece(piece.tokens, targets))
    for weights in (None, [0.5, 1.0, 2.0]):
        objective = ClassObjective(model, weights).eval()
        same(objective, [stacked([some[:3], some[3:5]], 64), stacked([some[5:8]], 64)], list(map(one_by_one, some[:8])))


@pytest.mark.parametrize("family", ["gpt2", "opt", "llama"])
def test_a_row_longer_than_the_context_may_be_mostly_padding(family: str) -> None:
    """Segments of a pair fit one by one, and rows are as wide as the longest pair."""
    model = tiny_model(family)
    tokens = torch.randint(3, VOCAB, (2, 96), generator=torch.Generator().manual_seed(0))
    segments = torch.zeros(2, 96, dtype=torch.int64)
    segments[0, :48], segments[0, 48:], segments[1, :10] = 1, 2, 1
    with torch.no_grad():
        found, alone = model.hidden(tokens, segments=segments)[1, :10], model.hidden(tokens[1:, :10])[0]
    assert torch.allclose(found, alone, atol=1e-5)


@pytest.mark.parametrize("family", ["rnn", "rnn_attention", "gpt2"])
def test_a_part_that_holds_padding_alone_costs_nothing_and_has_gradients_of_zero(family: str) -> None:
    model = tiny_model(family)
    nothing = torch.zeros(1, 6, dtype=torch.int64)
    loss = model.nats(nothing, torch.full_like(nothing, NO_TARGET), segments=nothing)
    loss.backward()
    assert loss == 0
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_preferences_in_packed_rows_cost_what_they_cost_alone_and_by_hand() -> None:
    model, beta = tiny_model("llama"), 0.3
    random = np.random.default_rng(0)
    pairs = []
    for better, worse in zip(pieces(6, 1, 12), pieces(6, 2, 12), strict=True):
        parts = [better.tokens, worse.tokens], [better.targets, worse.targets]
        tokens, targets = (np.concatenate(part) for part in parts)
        segments = np.repeat([1, 2], [len(better), len(worse)]).astype(np.int32)
        pairs.append(Piece(tokens, targets, segments, random.normal(-3, 1, len(tokens)).astype(np.float32)))
    objective = PreferenceObjective(model, beta)
    same(objective, [stacked([pairs[:2], pairs[2:4]], 64), stacked([pairs[4:]], 64)], list(map(one_by_one, pairs)))
    by_hand = 0.0
    for pair in pairs:
        sums = []
        for number in (1, 2):
            at = pair.own == number
            batch = one_by_one(Piece(pair.tokens[at], pair.targets[at]))
            nats = model.log_prob(batch.tokens, batch.targets)[0].detach().numpy()
            learnt = pair.targets[at] != NO_TARGET
            sums.append(float((nats - pair.reference[at])[learnt].sum()))  # type: ignore[index]
        by_hand += math.log1p(math.exp(-beta * (sums[0] - sums[1])))
    found, count = objective(*stacked([pairs], 512).arguments)
    assert int(count) == len(pairs)
    assert float(found.detach()) == pytest.approx(by_hand, rel=1e-5)


def said(*turns: str) -> tuple[dict[str, str], ...]:
    return tuple({"role": role, "content": text} for role, text in zip(("user", "assistant") * 3, turns, strict=False))


def asked(number: int, *names: str) -> Asked:
    return Asked({name: f"some {name} " * (number + 1) for name in names}, f"answer {number}" * (1 + number % 3))


TASKS: dict[str, Callable[[int], Any]] = {
    "imdb": lambda n: Labelled("a film " * (n + 1), "ab"[n % 2]),
    "cnn-dailymail": lambda n: asked(n, "article"),
    "multi30k": lambda n: asked(n, "source"),
    "squad": lambda n: asked(n, "question", "context"),
    "hellaswag": lambda n: Choice("I eat " * (n + 1), ("rocks", f"bread {n}"), 1),
    "lambada": lambda n: LastWord("I eat " * (n + 1), "bread" * (1 + n % 3)),
    "chat": lambda n: Dialogue(said("Hi " * (n + 1), "Hello.", "Bye", f"Farewell {n}.")[: 2 + n % 3]),
    "instruct": lambda n: Dialogue(said(f"Say {n}", f"{n} " * (n + 1))),
    "prefer": lambda n: Preference(said("Hi " * (n + 1)), f"Hello {n}", "Go away" * (1 + n % 2)),
}
"""A task of each kind, and an example of it by number, of another length each."""


SOURCES = ("cnn-dailymail", "multi30k", "squad")
"""Tasks that an encoder-decoder does: it writes from a source."""
BOTH = [(name, family) for name in TASKS for family in ("llama", "gpt2")] + [(name, "transformer") for name in SOURCES]


@pytest.mark.parametrize(("name", "family"), BOTH)
def test_a_task_s_padded_batch_costs_what_its_examples_cost_one_by_one_by_their_targets(name: str, family: str) -> None:
    """The loss of the batch is that of the rows, each counting by its tokens (classes and pairs: by its examples)."""
    model = loud_talker(family)
    task = open_task(name, Source(None if name in PUBLISHED else "rows.jsonl"))
    objective: torch.nn.Module = Objective(model)
    if task.kind is Labelled:
        objective = ClassObjective(give_class_head(model, ("a", "b")))
        for parameter in model.class_head.parameters():  # type: ignore[union-attr]
            torch.nn.init.normal_(parameter)
    some = Lessons(model, task, 150).pieces(TASKS[name](number) for number in range(7))
    if task.kind is Preference:
        objective = PreferenceObjective(model)
        some = [replace(piece, reference=np.full(len(piece), -0.3, np.float32)) for piece in some]
    assert len(some) == 7
    assert len({len(piece) for piece in some}) > 3
    alone = list(map(one_by_one, some))
    padded, packed = stacked([[piece] for piece in some], 160), stacked([some[:1], some[1:3], some[3:]], 800)
    for together in (padded, packed):
        same(objective, [together], alone)
    with torch.no_grad():
        weighted = [(float(objective(*batch.arguments)[0]) / batch.count, batch.count) for batch in alone]
        whole = float(objective(*padded.arguments)[0]) / padded.count
    assert whole == pytest.approx(sum(loss * count for loss, count in weighted) / padded.count, rel=2e-5)


PUBLISHED = ("imdb", "cnn-dailymail", "multi30k", "squad", "hellaswag", "lambada")


def loud_talker(family: str) -> LanguageModel:
    """Tiny, with a tokeniser of bytes, and weights large enough to matter."""
    torch.manual_seed(0)
    model = talker(family, context=800)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter * 3 if parameter.ndim > 1 else parameter + 0.2 * torch.randn_like(parameter))
    return model


def test_the_loss_of_a_step_counts_pairs_where_there_are_pairs() -> None:
    pair = Piece(*(np.ones(6, np.int32),) * 2, np.array([1, 1, 1, 2, 2, 2], np.int32), np.zeros(6, np.float32))
    assert stacked([[pair, pair], [pair]], 16).count == 3
    assert stacked([pieces(3)], 64).count == sum(int((p.targets != NO_TARGET).sum()) for p in pieces(3))


def one_by_one(piece: Piece) -> Batch:
    """A piece alone, without padding."""
    return stacked([[piece]], len(piece))


def same(objective: torch.nn.Module, together: list[Batch], alone: list[Batch]) -> None:
    """Sums, counts and gradients agree, but for the rounding of sums of so many float32 numbers."""
    objective.eval()
    results = []
    for batches in (together, alone):
        objective.zero_grad()
        total = torch.zeros(())
        for batch in batches:
            found, _ = objective(*batch.arguments)
            total = total + found
        total.backward()
        gradients = [p.grad.clone() for p in objective.parameters() if p.grad is not None]
        results.append((float(total.detach()), sum(batch.count for batch in batches), gradients))
    (nats, count, gradients), (other, other_count, others) = results
    assert count == other_count
    assert nats == pytest.approx(other, rel=2e-5)
    whole = float(torch.nn.utils.get_total_norm(others))  # some, such as a key's bias, are 0 but for rounding
    for one, two in zip(gradients, others, strict=True):
        assert float((one - two).norm()) <= 2e-5 * whole
