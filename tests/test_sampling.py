"""What may be drawn, how likely it is, and that it is drawn so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from hornbook.config import ModelConfig, Sampling
from hornbook.errors import UserError
from hornbook.generation.sampling import NEVER, Place, candidates, least_set, next_tokens, noise

VOCAB = 600
NO_PAD = ModelConfig("x")


def logits(rows: int = 4, vocab: int = VOCAB, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed))


def ours(scores: torch.Tensor, prompt: list[int], new: list[int], **settings: Any) -> torch.Tensor:
    rows = len(scores)
    return candidates(scores, [prompt] * rows, [new] * rows, Sampling(**settings))


@pytest.mark.parametrize(
    ("settings", "make"),
    [
        ({"temperature": 0.7}, lambda t: t.TemperatureLogitsWarper(0.7)),
        ({"top_k": 7}, lambda t: t.TopKLogitsWarper(7)),
        ({"top_p": 0.8}, lambda t: t.TopPLogitsWarper(0.8)),
        ({"top_p": 0.9999}, lambda t: t.TopPLogitsWarper(0.9999)),
        ({"min_p": 0.05}, lambda t: t.MinPLogitsWarper(0.05)),
        ({"typical_p": 0.6}, lambda t: t.TypicalLogitsWarper(0.6)),
        ({"repetition_penalty": 1.4}, lambda t: t.RepetitionPenaltyLogitsProcessor(1.4)),
        ({"no_repeat_ngram": 3}, lambda t: t.NoRepeatNGramLogitsProcessor(3)),
        ({"no_repeat_ngram": 1}, lambda t: t.NoRepeatNGramLogitsProcessor(1)),
        ({"logit_bias": {5: 2.0, 9: -30.0}}, lambda t: t.SequenceBiasLogitsProcessor({(5,): 2.0, (9,): -30.0})),
    ],
)
def test_each_setting_gives_the_probabilities_that_transformers_gives(
    settings: dict[str, Any], make: Callable[[Any], Any]
) -> None:
    theirs = pytest.importorskip("transformers.generation.logits_process")
    scores, text = logits(), [4, 5, 6, 7, 4, 5, 8, 4, 5]
    wanted = make(theirs)(torch.tensor([text] * len(scores)), scores.clone()).softmax(-1)
    found = ours(scores, text[:4], text[4:], **settings).softmax(-1)
    assert torch.equal(found > 0, wanted > 0)
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-7)
    assert not torch.allclose(found, scores.softmax(-1), atol=1e-7), "a setting that changes nothing proves nothing"


def test_frequency_and_presence_look_at_the_new_text_only() -> None:
    scores = logits(1)
    found = ours(scores, [1, 1, 2], [2, 3, 3], frequency_penalty=0.5, presence_penalty=0.25, temperature=0)
    change = (scores - found)[0]
    assert {int(i): float(change[i]) for i in change.nonzero()} == pytest.approx({2: 0.75, 3: 1.25}, abs=1e-5)


def test_filters_work_one_after_the_other_on_what_the_one_before_left() -> None:
    scores = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log()
    found = ours(scores, [], [], top_k=2, top_p=0.55)  # of the two that top-k leaves, the first has 4/7 of all
    assert found.isfinite().tolist() == [[True, False, False, False]]


def test_a_set_that_needs_more_than_the_first_256_tokens_is_found_whole() -> None:
    flat = logits(2, 5000) / 100
    kept = least_set(flat, -flat, 0.9).isfinite().sum(-1)
    chances = flat.softmax(-1).sort(descending=True).values.cumsum(-1)
    assert kept.tolist() == [int((row < 0.9).sum()) + 1 for row in chances]
    assert int(kept.min()) > 4000


@pytest.mark.parametrize(
    "settings",
    [{}, {"temperature": 0.6}, {"top_k": 5}, {"top_p": 0.7}, {"min_p": 0.2}, {"repetition_penalty": 1.5}],
    ids=str,
)
def test_draws_have_the_exact_probabilities(settings: dict[str, Any]) -> None:
    count, scores = 20_000, logits(1, 12) / 3
    chances = ours(scores, [3], [], **settings).softmax(-1)[0].double().numpy()
    places = [Place([3], [], Sampling(seed=7, **settings), sample) for sample in range(count)]
    shared = [place._replace(sampling=places[0].sampling) for place in places]
    drawn = next_tokens(scores.expand(count, -1).clone(), shared, NO_PAD)
    seen = np.bincount(drawn, minlength=12)
    assert not seen[chances == 0].any()
    real = chances > 0
    wanted = count * chances[real] / chances[real].sum()
    distance = float(((seen[real] - wanted) ** 2 / wanted).sum())
    half = torch.tensor([(int(real.sum()) - 1) / 2, distance / 2], dtype=torch.float64)
    assert torch.special.gammaincc(*half) > 1e-4, "Pearson's chi-square test"


def test_noise_is_the_same_for_its_place_and_another_for_every_other() -> None:
    first = noise(1, 2, 3, 50)
    assert torch.equal(first, noise(1, 2, 3, 50))
    assert torch.equal(first[:20], noise(1, 2, 3, 20))
    assert not torch.equal(noise(2**63 + 1, 0, 0, 50), noise(2**63 + 2, 0, 0, 50)), "large seeds are told apart"
    others = [noise(0, 2, 3, 50), noise(1, 0, 3, 50), noise(1, 2, 4, 50), noise(2**64 + 5, 2, 3, 50)]
    assert not any(torch.equal(first, other) for other in others)


def test_a_temperature_near_zero_is_greedy_and_not_a_number_of_none() -> None:
    scores = logits(8)
    for temperature in (1e-12, 1e-46, 5e-324):
        sampling = Sampling(temperature=temperature)
        drawn = next_tokens(scores.clone(), [Place([], [], sampling)] * 8, NO_PAD)
        assert drawn == scores.argmax(-1).tolist()


def test_what_cannot_be_drawn_from_is_minus_one_and_leaves_the_others_alone() -> None:
    scores = logits(3)
    scores[0], scores[1] = float("nan"), NEVER
    for temperature in (0.0, 1.0):
        found = next_tokens(scores.clone(), [Place([], [], Sampling(temperature=temperature))] * 3, NO_PAD)
        assert found[:2] == [-1, -1]
        assert found[2] >= 0


def test_the_pad_token_is_never_drawn() -> None:
    scores = logits(1, 10)
    scores[0, 4] = 50.0
    places, config = [Place([], [], Sampling(temperature=0))], ModelConfig("x", pad=4, eos=5)
    assert next_tokens(scores.clone(), places, config) != [4]
    assert next_tokens(scores.clone(), places, config.replace(eos=4)) == [4], "a pad that also ends texts can come"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -1.0),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("top_p", 0.0),
        ("top_p", float("nan")),
        ("min_p", 1.5),
        ("typical_p", 0.0),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", 1e-300),
        ("frequency_penalty", float("inf")),
        ("presence_penalty", 1e300),
        ("no_repeat_ngram", -1),
        ("logit_bias", {3: float("nan")}),
    ],
)
def test_settings_that_mean_nothing_are_refused_in_one_line(field: str, value: Any) -> None:
    with pytest.raises(UserError, match="must be") as error:
        Sampling(**{field: value})
    assert "\n" not in str(error.value)
