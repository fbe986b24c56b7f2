"""Beam search: the likeliest texts instead of the likeliest next tokens, from any rung.

A few texts, the beams, grow together. At each step all that could follow any of them compete, and the best stay. What
reaches an end token is put aside and ranked by its log-probability over a power of its length; the search ends when
what still grows cannot do better. Numbers of candidates, ranking and end are those of transformers' `generate`.

Two changes to how a step chooses: groups of beams, each of which avoids the tokens that the groups before it have just
taken (Vijayakumar et al. 2016), and a temperature, with which a step draws its beams without putting them back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from hornbook.config import Sampling, above_zero, require
from hornbook.errors import UserError
from hornbook.generation.answers import Request
from hornbook.generation.engine import Engine
from hornbook.generation.rows import filled_up
from hornbook.generation.sampling import NEVER, STUCK, candidates, ends, kept, noise, without_pad
from hornbook.layers.model import Cache, LanguageModel

EarlyStopping = bool | Literal["never"]


class Hypothesis(NamedTuple):
    """A text that has ended."""

    tokens: list[int]
    """New token ids, without the end token."""
    score: float
    """What it is ranked by: log_prob / length ** length_penalty. The length counts the end token."""
    log_prob: float
    """Nats: the sum over its tokens and its end token, as the model has them before any sampling setting."""
    ended: bool
    """By an end token; otherwise it is as long as was allowed."""


class Beam(NamedTuple):
    """A text that grows."""

    tokens: list[int]
    log_prob: float
    """Nats, summed."""
    rank: float
    """What its group chooses by: the same with penalties, those of `config.Sampling` and those for groups."""
    row: int
    """The row of the cache that has read all its tokens but the last."""


@dataclass(eq=False)
class Group:
    """Beams that compete with each other. A plain search is one group."""

    number: int
    beams: list[Beam]
    """The best first; none when its search has ended."""
    finished: list[Hypothesis] = field(default_factory=list)
    """The best first, at most as many as there may be beams."""


class Offer(NamedTuple):
    """What a step has to choose from, for all R beams, and what the groups before have chosen."""

    logits: Tensor
    """(R,V) float32, -inf for padding."""
    totals: Tensor
    """(R,1) float64: what the model subtracts from them (padding counted in) to make log-probabilities."""
    taken: Tensor
    """(V,) float64: beams of earlier groups by the token that they took at this step."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """What is asked, checked."""

    prompt: Sequence[int]
    closing: set[int | None]
    """Token ids that end a text."""
    beams: int
    tokens: int
    length_penalty: float
    groups: int
    diversity: float
    early_stopping: EarlyStopping
    returned: int
    sampling: Sampling
    source: int = 0

    def __post_init__(self) -> None:
        above_zero(self, "beams", "tokens", "groups", "returned")
        require(self, ("diversity",), lambda x: 0 <= x < math.inf, "0 or more")
        require(self, ("length_penalty",), lambda x: abs(x) <= 10, "between -10 and 10")
        require(self, ("early_stopping",), lambda x: x in (False, True, "never"), "False, True or 'never'")
        require(self, ("returned",), lambda x: x <= self.beams, f"at most the number of beams, {self.beams}")
        if self.beams % self.groups:
            raise UserError(f"{self.beams} beams cannot be shared out to {self.groups} groups: take a multiple")
        if self.groups > 1 and not self.diversity:
            raise UserError(f"{self.groups} groups without diversity find the same texts: set it, 0.2 to 0.8 say")

    @property
    def size(self) -> int:
        """Beams in a group."""
        return self.beams // self.groups

    def score(self, log_prob: float, length: int) -> float:
        return log_prob / length**self.length_penalty


@torch.inference_mode()
def beam_search(
    model: LanguageModel,
    prompt: Sequence[int],
    beams: int = 4,
    tokens: int = 100,
    length_penalty: float = 1.0,
    groups: int = 1,
    diversity: float = 0.0,
    early_stopping: EarlyStopping = False,
    returned: int = 1,
    source: int = 0,
    **sampling: Any,
) -> list[Hypothesis]:
    """The best continuations of a prompt by at most `tokens` tokens, best first: `returned` of them, or all there are.

    `beams` are divided among `groups`; `diversity` is what a token costs a group, in nats, for each beam of an earlier
    group that took it at the same step. `early_stopping` True ends a group's search when it has as many texts as beams,
    False when also its best beam, cut off here, would not score better than the worst of these, and 'never' when it
    would not either if it came to its full length at no more cost. `sampling` are fields of `config.Sampling`; the
    temperature is 0 unless it is given: above, beams are drawn. The first `source` tokens of the prompt are a source,
    for an encoder to read. One beam is the text of `stream_tokens`.

    Raises UserError for settings that cannot be, and before any work as `Engine.submit` does.
    """
    s = Search(
        prompt=prompt,
        closing=ends(model.config),
        beams=beams,
        tokens=tokens,
        length_penalty=length_penalty,
        groups=groups,
        diversity=diversity,
        early_stopping=early_stopping,
        returned=returned,
        sampling=Sampling(**{"temperature": 0.0} | sampling),
        source=source,
    )
    check(model, s)
    cache = model.make_cache(1, len(prompt) + tokens)
    searches = [Group(number, [Beam([], 0.0, 0.0, row=0)]) for number in range(groups)]
    read, sources = [list(prompt)], [source]
    while any(group.beams for group in searches):
        offer = next_offer(model, read, sources, cache)
        for group in searches:
            if group.beams:
                step(group, offer, s)
        follow(cache, searches)
        read, sources = [beam.tokens[-1:] for group in searches for beam in group.beams], []
    found = sorted((text for group in searches for text in group.finished), key=lambda text: -text.score)
    if not found:
        raise UserError(f"{STUCK}: it cannot go on")
    return found[:returned]


def check(model: LanguageModel, s: Search) -> None:
    """UserError for what cannot be continued, or not with so many beams."""
    engine, length = Engine(model), len(s.prompt) + s.tokens
    engine.check(Request(s.prompt, s.tokens, s.sampling, source=s.source))
    if (needed := engine.bytes(s.beams, length)) > engine.memory:
        raise UserError(
            f"caches for {s.beams} beams of {length} tokens take {needed / 1e6:.0f} MB, and {engine.memory / 1e6:.0f} "
            "are set aside for caches: take fewer beams, or ask for fewer tokens"
        )


def next_offer(model: LanguageModel, read: Sequence[Sequence[int]], sources: Sequence[int], cache: Cache) -> Offer:
    """Let each row of the cache read its new tokens, so many of which are a source; what may follow them.

    Chosen from on the CPU, where numbers have 64 bits and a seed draws the same whatever the model runs on.
    """
    tokens, segments = filled_up(read, cache.lengths.device, sources)
    hidden = model.hidden(tokens, cache, segments)
    logits = model.head(hidden[:, -1]).float().cpu()
    totals = logits.double().logsumexp(-1, keepdim=True)
    return Offer(without_pad(logits, model.config), totals, torch.zeros(logits.shape[-1], dtype=torch.float64))


def step(group: Group, offer: Offer, s: Search) -> None:
    """One token more for every beam of a group; the offer notes which."""
    best, length = continuations(group, offer, s), len(group.beams[0].tokens) + 1
    over = [beam for beam in best[: s.size] if length == s.tokens or beam.tokens[-1] in s.closing]
    group.finished += [finished(beam, s) for beam in over]
    group.finished = sorted(group.finished, key=lambda text: -text.score)[: s.size]
    group.beams = [beam for beam in best if beam.tokens[-1] not in s.closing][: s.size]
    for beam in group.beams:
        offer.taken[beam.tokens[-1]] += 1
    if length == s.tokens or settled(group, length, s):
        group.beams = []


def continuations(group: Group, offer: Offer, s: Search) -> list[Beam]:
    """The candidates of a step, best first: so many that, even with all ends among them, enough can go on."""
    rows = [beam.row for beam in group.beams]
    logits, totals = offer.logits[rows], offer.totals[rows]
    ranks = rated(logits, group.beams, s).double() - totals - s.diversity * offer.taken  # (B,V)
    ranks += torch.tensor([[beam.rank] for beam in group.beams], dtype=torch.float64)
    keys = ranks + s.sampling.temperature * luck(group, s, ranks.shape[-1]) if s.sampling.temperature else ranks
    places = highest(keys, max(2, 1 + len(s.closing)) * s.size)
    columns = (*places, (logits.double() - totals)[places], ranks[places])
    return [
        Beam([*group.beams[parent].tokens, token], group.beams[parent].log_prob + log_prob, rank, rows[parent])
        for parent, token, log_prob, rank in zip(*(column.tolist() for column in columns), strict=True)
    ]


def rated(logits: Tensor, beams: Sequence[Beam], s: Search) -> Tensor:
    """logits (B,V) with biases and penalties, -inf for what they or the other sampling settings rule out."""
    plain = replace(s.sampling, temperature=0.0)
    logits = candidates(logits, [s.prompt[s.source :]] * len(beams), [beam.tokens for beam in beams], plain)
    if s.sampling.temperature:
        within = kept((logits - logits.amax(-1, keepdim=True)) / s.sampling.temperature, s.sampling)
        logits = logits.masked_fill(within == NEVER, NEVER)
    return logits


def luck(group: Group, s: Search, vocab: int) -> Tensor:
    """(B,V) standard Gumbel numbers: the highest sums of these and log-probabilities are a draw without putting back.

    Yellott 1977; Kool et al. 2019, section 2.3. The first beam's are those of `stream_tokens` with the same seed.
    """
    first, made = group.number * s.size, len(group.beams[0].tokens)
    alarms = [noise(s.sampling.seed, first + place, made, vocab) for place in range(len(group.beams))]
    return -torch.stack(alarms).clamp(min=torch.finfo(torch.float32).tiny).double().log()


def highest(keys: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Rows and columns of the highest finite keys (B,V), highest first; of equal ones the first row, the first column.

    At most `count`. `topk` alone would leave open which of equal ones it takes, and n-grams have many.
    """
    flat = keys.nan_to_num(nan=NEVER, neginf=NEVER).flatten()
    least = flat.topk(min(count, len(flat))).values[-1]
    places = torch.nonzero((flat >= least) & (flat > NEVER))[:, 0]
    places = places[flat[places].argsort(descending=True, stable=True)][:count]
    return places // keys.shape[1], places % keys.shape[1]


def finished(beam: Beam, s: Search) -> Hypothesis:
    ended = beam.tokens[-1] in s.closing
    tokens = beam.tokens[:-1] if ended else beam.tokens
    return Hypothesis(tokens, s.score(beam.log_prob, len(beam.tokens)), beam.log_prob, ended)


def settled(group: Group, length: int, s: Search) -> bool:
    """Whether a group's search is over, its beams being `length` tokens long. A lone beam ends with its text."""
    if len(group.finished) < s.size:
        return False
    if s.early_stopping is True or s.size == 1:
        return True
    if s.early_stopping == "never" and s.length_penalty > 0:
        length = s.tokens
    best = max((beam.log_prob for beam in group.beams), default=NEVER)
    return s.score(best, length) <= group.finished[-1].score


def follow(cache: Cache, searches: Sequence[Group]) -> None:
    """Give every beam that grows a row of the cache, in the order of groups and beams."""
    rows = [beam.row for group in searches for beam in group.beams]
    cache.select(torch.tensor(rows, dtype=torch.int64, device=cache.lengths.device))
    places = iter(range(len(rows)))
    for group in searches:
        group.beams = [beam._replace(row=next(places)) for beam in group.beams]
