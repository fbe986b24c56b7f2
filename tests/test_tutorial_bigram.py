import itertools
import math
import os
from collections import Counter
from pathlib import Path

import pytest

from helpers import needs_data
from hornbook.errors import UserError
from hornbook.evaluation.tutorial import TutorialBigram, explain, tutorial_bigram

TRAIN = ["The cat sat on the mat", "", " the CAT chased the dog ", "", "alone", "the dog sat"]
VALIDATION = ["", "the cat sat on the dog", "", "a dog sat", "mat", "the alone cat unknown words", "   "]
SENTENCES = ["the cat sat on the mat", "the cat jumped over the moon"]


def plain(train: list[str], validation: list[str]) -> tuple[float, float, float, int]:
    """The tutorial's protocol with dictionaries and a loop: nats, its perplexity, the honest one, unknown pairs."""
    log_prob = plain_model(train)
    logs, tokens, pairs, unknown = [], 0, 0, 0
    for line in validation:
        words = line.lower().split()
        for first, second in itertools.pairwise(words):
            value, known = log_prob(first, second)
            logs.append(value)
            pairs += 1
            unknown += not known
        tokens += len(words) - 1
    nats = -math.fsum(logs)
    return nats, math.exp(nats / tokens), math.exp(nats / pairs), unknown


def plain_model(train: list[str]):
    vocab, pairs, follow = set(), Counter(), Counter()
    for line in train:
        words = line.lower().split()
        vocab.update(words)
        for first, second in itertools.pairwise(words):
            pairs[first, second] += 1
            follow[first] += 1

    def log_prob(first: str, second: str) -> tuple[float, bool]:
        if first not in vocab or second not in vocab:
            return math.log(1e-8), False
        return math.log((pairs[first, second] + 1) / (follow[first] + len(vocab))), True

    return log_prob


def assert_equals_plain(result: TutorialBigram, train: list[str], validation: list[str]) -> None:
    """Digit for digit: no tolerance."""
    nats, tutorial, honest, unknown = plain(train, validation)
    assert result.nats == nats
    assert result.tutorial_perplexity == tutorial
    assert result.honest_perplexity == honest
    assert result.unknown_pairs == unknown
    log_prob = plain_model(train)
    for sentence in SENTENCES:
        words = sentence.split()
        expected = [(a, b, *log_prob(a, b)) for a, b in itertools.pairwise(words)]
        assert result.sentence_pairs(sentence) == expected
        assert result.sentence_log_prob(sentence) == math.fsum(log for _, _, log, _ in expected)


def test_it_equals_plain_dictionaries_digit_for_digit():
    result = tutorial_bigram(TRAIN, VALIDATION)
    assert_equals_plain(result, TRAIN, VALIDATION)
    assert (result.vocab, result.pairs, result.unknown_pairs, result.empty_lines) == (8, 11, 3, 3)


def test_an_empty_line_takes_one_word_away_in_the_tutorial_only():
    with_empty = tutorial_bigram(TRAIN, ["the cat sat", "", "the dog sat"])
    without = tutorial_bigram(TRAIN, ["the cat sat", "the dog sat"])
    assert with_empty.honest_perplexity == without.honest_perplexity == without.tutorial_perplexity
    assert with_empty.tutorial_perplexity == math.exp(without.nats / 3)


def test_probabilities_by_hand():
    pairs = tutorial_bigram(TRAIN, VALIDATION).sentence_pairs("The cat alone the moon")
    expected = [(2 + 1) / (5 + 8), (0 + 1) / (2 + 8), (0 + 1) / (0 + 8), 1e-8]
    assert [math.exp(pair.log_prob) for pair in pairs] == pytest.approx(expected)
    assert [pair.known for pair in pairs] == [True, True, True, False]


def test_a_long_sentence_of_unknown_words_does_not_underflow():
    result = tutorial_bigram(TRAIN, VALIDATION)
    assert result.sentence_log_prob("the cat " + "blip " * 100) < -1800
    assert result.sentence_log_prob("the") == result.sentence_log_prob("") == 0


def test_as_many_empty_lines_as_pairs_leave_nothing_to_divide_by():
    assert tutorial_bigram(TRAIN, ["the cat", ""]).tutorial_perplexity == math.inf


def test_the_explanation_states_both_numbers_and_the_reason():
    result = tutorial_bigram(TRAIN, VALIDATION)
    text = explain(result)
    assert f"{result.tutorial_perplexity:,.2f}" in text
    assert f"{result.honest_perplexity:,.2f}" in text
    assert "minus one word" in text
    assert "3 of 11 (27.3%)" in text
    assert "changes none" in explain(tutorial_bigram(TRAIN, ["the cat sat"]))


def test_lines_without_pairs_are_refused():
    with pytest.raises(UserError, match="training text has no two words"):
        tutorial_bigram(["one", "", "word"], VALIDATION)
    with pytest.raises(UserError, match="validation text has no two words"):
        tutorial_bigram(TRAIN, ["one", "", "word"])


@needs_data("wikitext-2")
def test_on_wikitext_it_equals_plain_dictionaries_digit_for_digit():
    folder = Path(os.environ["HORNBOOK_DATA"]) / "wikitext-2"
    train, validation = (
        (folder / f"{part}.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")
        for part in ("train", "valid")
    )
    result = tutorial_bigram(train, validation)
    assert_equals_plain(result, train, validation)
    assert f"{result.tutorial_perplexity:,.2f}" == "1,933.53"
    assert f"{result.honest_perplexity:,.2f}" == "1,845.69"
