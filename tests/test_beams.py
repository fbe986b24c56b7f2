"""Beam search: transformers' texts and scores, the very best text where all can be tried, and fair draws."""

from __future__ import annotations

import importlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers import EOS, PAD, VOCAB, tiny_config, tiny_model
from hornbook import checkpoint, models
from hornbook.errors import UserError
from hornbook.generation.beams import Hypothesis, beam_search
from hornbook.generation.stream import stream_tokens
from hornbook.layers.model import LanguageModel

CAUSAL = [name for name in models.families() if models.family(name).Model.causal]
PROMPT = [EOS, 5, 9, 3]


def sharp(family: str, **changes: Any) -> LanguageModel:
    """A neural model whose logits spread by 2, so that beams win by more than roundings and not by too much."""
    model = tiny_model(family, tied=False, **changes)
    with torch.no_grad():
        model.unembedding[0].mul_(2 / model(torch.arange(2, 14)[None] % model.config.vocab).std())
    return model


def counted(vocab: int, smoothing: str = "kneser-ney") -> LanguageModel:
    """A bigram of a tiny vocabulary, each token about half as frequent as the one before."""
    known = [i for i in range(vocab) if i != PAD]
    shares = 0.5 ** np.arange(len(known))
    ids = np.random.default_rng(1).choice(known, 80, p=shares / shares.sum())
    model = models.build(tiny_config("ngram", vocab=vocab, order=2, smoothing=smoothing))
    model.fit(np.array([EOS, *ids, EOS]))
    return model


def nats(model: LanguageModel, prompt: list[int], new: Iterable[list[int]]) -> list[float]:
    """Log-probabilities of continuations, read anew and at once."""
    found = []
    for tokens in new:
        row = torch.tensor([[*prompt, *tokens]])
        with torch.inference_mode():
            found.append(float(model.log_prob(row[:, :-1], row[:, 1:])[0, len(prompt) - 1 :].double().sum()))
    return found


def whole(text: Hypothesis, end: int = EOS) -> list[int]:
    """Its tokens, with the one that ended it."""
    return [*text.tokens, end] if text.ended else text.tokens


# transformers

TRIED = [{}, {"beams": 2, "length_penalty": 0.0}, {"length_penalty": 1.3, "early_stopping": "never"}]
TRIED += [
    {"early_stopping": True},
    {"beams": 3, "length_penalty": -1.5},
    {"length_penalty": 0.6, "early_stopping": "never"},
]
CASES = [(family, {}) for family in ("gpt2", "opt", "qwen3", "gemma", "rnn", "rnn_attention")]
CASES += [("llama", settings) for settings in TRIED]


def theirs(
    folder: Path, prompts: Tensor, ends: list[int], settings: Mapping[str, Any]
) -> list[list[tuple[list[int], float]]]:
    """All beams that transformers returns for each prompt, cut behind their end tokens, and their scores."""
    transformers = pytest.importorskip("transformers")
    importlib.import_module("hornbook.formats.transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    beams = settings.get("beams", 4)
    told = model.generate(
        prompts,
        attention_mask=torch.ones_like(prompts),
        do_sample=False,
        num_beams=beams,
        num_return_sequences=beams,
        max_new_tokens=8,
        length_penalty=settings.get("length_penalty", 1.0),
        early_stopping=settings.get("early_stopping", False),
        eos_token_id=ends,
        pad_token_id=PAD,
        suppress_tokens=[PAD],
        return_dict_in_generate=True,
        output_scores=True,
    )
    rows = [cut(row, ends) for row in told.sequences[:, prompts.shape[1] :].tolist()]
    pairs = list(zip(rows, told.sequences_scores.tolist(), strict=True))
    return [pairs[i : i + beams] for i in range(0, len(pairs), beams)]


def cut(tokens: list[int], ends: list[int]) -> list[int]:
    """Tokens up to the first end token, and without it."""
    return tokens[: next((i for i, token in enumerate(tokens) if token in ends), len(tokens))]


@pytest.mark.parametrize(("family", "settings"), CASES, ids=lambda case: str(case))
def test_texts_and_scores_are_those_of_transformers_on_50_prompts(
    family: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    model = sharp(family, seed=1 if family == "rnn" else 3, vocab=14, stops=(6, 9))  # weights that end some texts
    checkpoint.save_model(tmp_path, model, None)
    prompts = torch.randint(2, 14, (50, 5), generator=torch.Generator().manual_seed(2))
    wanted = theirs(tmp_path, prompts, [EOS, 6, 9], settings)
    lengths = set()
    for prompt, texts in zip(prompts.tolist(), wanted, strict=True):
        found = beam_search(model, prompt, tokens=8, returned=len(texts), **settings)
        assert [text.tokens for text in found] == [tokens for tokens, _ in texts]
        # abs: a token of probability near 1 costs the difference of two float32 numbers of about 10
        assert [text.score for text in found] == pytest.approx([score for _, score in texts], rel=1e-4, abs=1e-5)
        lengths |= {len(text.tokens) for text in found}
    assert len(lengths) > 3, "texts of one length prove little"


# every rung


@pytest.mark.parametrize("family", CAUSAL)
def test_one_beam_is_the_greedy_text(family: str) -> None:
    model = tiny_model(family)
    (found,) = beam_search(model, PROMPT, beams=1, tokens=12)
    assert found.tokens == list(stream_tokens(model, PROMPT, 12, temperature=0))
    assert found.ended == (len(found.tokens) < 12)


@pytest.mark.parametrize(
    "settings", [{}, {"groups": 2, "diversity": 0.7}, {"temperature": 0.9, "top_p": 0.95}], ids=str
)
@pytest.mark.parametrize("family", CAUSAL)
def test_a_text_has_the_log_probability_that_the_model_gives_it_without_a_cache(
    family: str, settings: dict[str, Any]
) -> None:
    model = tiny_model(family)
    found = beam_search(model, PROMPT, tokens=10, length_penalty=0.7, returned=4, **settings)
    tokens = [whole(text) for text in found]
    log_probs = nats(model, PROMPT, tokens)
    assert [text.log_prob for text in found] == pytest.approx(log_probs, rel=1e-5)
    penalised = [log_prob / len(text) ** 0.7 for text, log_prob in zip(tokens, log_probs, strict=True)]
    assert [text.score for text in found] == pytest.approx(penalised, rel=1e-5)
    assert [text.score for text in found] == sorted((text.score for text in found), reverse=True)
    assert all(not {EOS, PAD} & set(text.tokens) for text in found)


@pytest.mark.parametrize("penalty", [0.0, 1.0, -0.5])
@pytest.mark.parametrize("family", ["ngram", "rnn", "llama"])
def test_with_a_beam_for_every_text_the_ranking_is_that_of_all_texts(family: str, penalty: float) -> None:
    vocab, longest = 5, 3
    model = counted(vocab) if family == "ngram" else tiny_model(family, vocab=vocab)
    texts = [
        list(text)
        for length in range(1, longest + 1)
        for text in product([i for i in range(vocab) if i != PAD], repeat=length)
        if EOS not in text[:-1] and (length == longest or text[-1] == EOS)
    ]
    scores = [sum_ / len(text) ** penalty for text, sum_ in zip(texts, nats(model, [4, 2], texts), strict=True)]
    beams = vocab**longest
    found = beam_search(model, [4, 2], beams, longest, length_penalty=penalty, returned=beams)
    assert sorted(map(whole, found)) == sorted(texts)
    assert [text.score for text in found] == pytest.approx(sorted(scores, reverse=True), rel=1e-5)
    assert scores[texts.index(whole(found[0]))] == pytest.approx(max(scores), rel=1e-5)


def test_the_prompt_is_read_once_in_one_row_and_then_a_token_a_beam() -> None:
    model, read = tiny_model("llama"), []
    model.embedding.register_forward_hook(lambda module, given, out: read.append(tuple(given[0].shape)))  # type: ignore[union-attr]
    beam_search(model, PROMPT, 3, 5, early_stopping="never", length_penalty=5.0)
    assert read == [(1, 4), (3, 1), (3, 1), (3, 1), (3, 1)]


# groups


def groups_by_the_paper(
    model: LanguageModel, prompt: list[int], tokens: int, groups: int, size: int, strength: float
) -> list[tuple[list[int], float]]:
    """Algorithm 1 of Vijayakumar et al. 2016 with Hamming diversity, for texts that have no end; and their nats."""
    beams: list[list[tuple[list[int], float]]] = [[([], 0.0)] for _ in range(groups)]
    for _ in range(tokens):
        for group in range(groups):
            grown = []
            for text, theta in beams[group]:
                with torch.inference_mode():
                    log_probs = model(torch.tensor([[*prompt, *text]]))[0, -1].log_softmax(-1).tolist()
                for token, log_prob in enumerate(log_probs):
                    same = sum(other[-1] == token for earlier in beams[:group] for other, _ in earlier)
                    grown.append(([*text, token], theta + log_prob - strength * same))
            beams[group] = sorted(grown, key=lambda beam: -beam[1])[:size]
    texts = [text for group in beams for text, _ in group]
    return list(zip(texts, nats(model, prompt, texts), strict=True))


@pytest.mark.parametrize(("groups", "size"), [(2, 2), (3, 1), (3, 2)])
@pytest.mark.parametrize("family", ["gpt2", "rnn", "ngram"])
def test_groups_are_those_of_the_paper(family: str, groups: int, size: int) -> None:
    endless = {"bos": None, "eos": None, "pad": None}
    model = tiny_model(family, **endless) if family == "ngram" else sharp(family, vocab=10, **endless)
    for strength in (0.3, 2.0):
        wanted = groups_by_the_paper(model, [3, 7, 4], 6, groups, size, strength)
        found = beam_search(
            model, [3, 7, 4], groups * size, 6, groups=groups, diversity=strength, returned=groups * size
        )
        assert sorted(text.tokens for text in found) == sorted(text for text, _ in wanted)
        assert [text.log_prob for text in found] == pytest.approx(
            sorted((n for _, n in wanted), reverse=True), rel=1e-5
        )
    plain = beam_search(model, [3, 7, 4], groups * size, 6, returned=groups * size)
    assert [text.tokens for text in plain] != [text.tokens for text in found]


@pytest.mark.parametrize("size", [1, 3])
def test_the_first_group_searches_as_if_it_were_alone(size: int) -> None:
    model = sharp("llama", vocab=14)
    alone = beam_search(model, PROMPT, size, 8, returned=size)
    both = beam_search(model, PROMPT, 2 * size, 8, groups=2, diversity=0.5, returned=2 * size)
    assert all(any(text.tokens == one.tokens for text in both) for one in alone)


# draws


def chi_square(found: Mapping[Any, int], chances: Mapping[Any, float]) -> tuple[float, float]:
    """Pearson's statistic, cells below 5 put together, and what it exceeds once in a thousand times."""
    count = sum(found.values())
    assert sum(chances.values()) == pytest.approx(1)
    assert set(found) <= set(chances)
    cells = [(found.get(key, 0), count * chance) for key, chance in chances.items() if count * chance >= 5]
    cells.append((count - sum(seen for seen, _ in cells), count - sum(wanted for _, wanted in cells)))
    cells = [cell for cell in cells if cell[1] > 1]
    free = len(cells) - 1
    limit = free * (1 - 2 / (9 * free) + 3.09 * math.sqrt(2 / (9 * free))) ** 3  # Wilson and Hilferty 1931
    return sum((seen - wanted) ** 2 / wanted for seen, wanted in cells), limit


def chances_after(model: LanguageModel, prompt: list[int], temperature: float, top_k: int = 0) -> dict[int, float]:
    """What each next token is drawn with."""
    with torch.no_grad():
        logits = model(torch.tensor([prompt]))[0, -1].double() / temperature
    logits[PAD] = -math.inf
    if top_k:
        logits[logits < logits.topk(top_k).values[-1]] = -math.inf
    return {token: chance for token, chance in enumerate(logits.softmax(-1).tolist()) if chance}


@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, 0), (0.6, 3)])
def test_one_drawn_beam_is_an_ordinary_sample(temperature: float, top_k: int) -> None:
    model = counted(6)
    chances: dict[tuple[int, ...], float] = {}
    for first, chance in chances_after(model, [4], temperature, top_k).items():
        if first == EOS:
            chances[()] = chance
            continue
        for second, more in chances_after(model, [4, first], temperature, top_k).items():
            text = (first,) if second == EOS else (first, second)
            chances[text] = chances.get(text, 0.0) + chance * more
    drawn = Counter(
        tuple(beam_search(model, [4], 1, 2, temperature=temperature, top_k=top_k, seed=seed)[0].tokens)
        for seed in range(1000)
    )
    statistic, limit = chi_square(drawn, chances)
    assert statistic < limit


def test_two_drawn_beams_are_drawn_without_putting_back() -> None:
    model = counted(6)
    single = chances_after(model, [4], 0.8)
    chances = {
        frozenset((a, b)): single[a] * single[b] * (1 / (1 - single[a]) + 1 / (1 - single[b]))
        for a, b in combinations(single, 2)
    }
    drawn = Counter(
        frozenset(
            token
            for text in beam_search(model, [4], 2, 1, temperature=0.8, seed=seed, returned=2)
            for token in whole(text)
        )
        for seed in range(1000)
    )
    statistic, limit = chi_square(drawn, chances)
    assert statistic < limit


@pytest.mark.parametrize("family", CAUSAL)
def test_one_drawn_beam_is_the_sample_of_the_same_seed(family: str) -> None:
    model = tiny_model(family)
    settings: dict[str, Any] = {"temperature": 0.9, "min_p": 0.01, "repetition_penalty": 1.2, "no_repeat_ngram": 3}
    for seed in range(3):
        (found,) = beam_search(model, PROMPT, 1, 10, seed=seed, **settings)
        assert found.tokens == list(stream_tokens(model, PROMPT, 10, seed=seed, **settings))


@pytest.mark.parametrize("settings", [{}, {"groups": 2, "diversity": 0.5}], ids=str)
def test_beams_drawn_at_a_temperature_near_0_are_the_plain_ones(settings: dict[str, Any]) -> None:
    model = sharp("llama", vocab=14)
    plain = beam_search(model, PROMPT, 4, 8, returned=4, **settings)
    assert beam_search(model, PROMPT, 4, 8, returned=4, temperature=1e-7, seed=3, **settings) == plain


def test_the_same_seed_draws_the_same_beams_and_another_draws_others() -> None:
    model = tiny_model("llama")
    first, again, other = (beam_search(model, PROMPT, 3, 8, returned=3, temperature=1.0, seed=s) for s in (1, 1, 2))
    assert first == again
    assert [text.tokens for text in first] != [text.tokens for text in other]


def test_groups_draw_each_for_itself() -> None:
    found = beam_search(tiny_model("llama"), PROMPT, 2, 8, groups=2, diversity=1e-9, temperature=1.0, returned=2)
    assert found[0].tokens != found[1].tokens


def test_top_k_of_one_leaves_the_greedy_text_alone() -> None:
    model = sharp("rnn")
    found = beam_search(model, PROMPT, 4, 6, temperature=1.0, top_k=1, early_stopping=True, returned=4)
    assert [text.tokens for text in found] == [list(stream_tokens(model, PROMPT, 6, temperature=0))]


# what no beam may do, and what is refused


def test_what_an_n_gram_has_never_seen_is_never_written() -> None:
    model = models.build(tiny_config("ngram", order=2, smoothing="mle"))
    model.fit(np.array([EOS, 5, 6, EOS, 5, 7, EOS]))
    found = beam_search(model, [EOS], 10, 4, returned=10)
    assert [(text.tokens, text.ended) for text in found] == [([5, 6], True), ([5, 7], True)]
    assert [text.log_prob for text in found] == pytest.approx([math.log(0.5)] * 2)
    drawn = beam_search(model, [EOS], 10, 4, returned=10, temperature=2.0, groups=2, diversity=0.5)
    assert {tuple(text.tokens) for text in drawn} == {(5, 6), (5, 7)}


def test_a_text_ends_where_padding_and_end_are_one_token() -> None:
    model = models.build(tiny_config("ngram", order=2, smoothing="mle", pad=EOS))
    model.fit(np.array([EOS, 5, 6, EOS]))
    assert beam_search(model, [EOS], 2, 9)[0] == ([5, 6], 0.0, 0.0, True)


def test_a_model_whose_logits_are_no_numbers_is_refused() -> None:
    model = tiny_model("llama")
    torch.nn.init.constant_(model.final_norm.weight, math.nan)  # type: ignore[union-attr]
    with pytest.raises(UserError, match="not numbers"):
        beam_search(model, PROMPT, 2, 3)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"prompt": []}, "prompt is empty"),
        ({"prompt": [5] * 40}, "40 tokens of prompt and 10 new ones do not fit into the context of 48"),
        ({"beams": 0}, "beams is 0: it must be above 0"),
        ({"groups": 3, "diversity": 0.5}, "4 beams cannot be shared out to 3 groups"),
        ({"groups": 2}, "without diversity"),
        ({"diversity": -1.0}, "diversity is -1"),
        ({"returned": 5}, "at most the number of beams, 4"),
        ({"length_penalty": math.nan}, "length-penalty is nan"),
        ({"early_stopping": "always"}, "False, True or 'never'"),
        ({"top_p": 0.0}, "top-p is 0"),
        ({"beams": 10**9}, "take fewer beams"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_in_one_line_before_any_work(changes: dict[str, Any], told: str) -> None:
    model = tiny_model("llama")
    model.embedding.register_forward_pre_hook(lambda *_: pytest.fail("the model was asked"))  # type: ignore[union-attr]
    settings: dict[str, Any] = {"prompt": PROMPT, "beams": 4, "tokens": 10} | changes
    with pytest.raises(UserError, match=told) as caught:
        beam_search(model, **settings)
    assert "\n" not in str(caught.value)


def test_an_encoder_is_refused() -> None:
    with pytest.raises(UserError, match="cannot continue a text"):
        beam_search(tiny_model("bert", vocab=VOCAB), PROMPT)
