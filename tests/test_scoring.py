"""How outputs are judged: against hand-made cases, plain loops, and the packages that others measure with."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from hornbook.errors import UserError
from hornbook.scoring import baselines, intervals, rouge, translation
from hornbook.scoring.answers import answer_marks, normalise
from hornbook.scoring.choices import last_word_figures, last_word_marks, score_choice
from hornbook.scoring.classes import calibration_curve, class_figures, class_marks, confusion
from hornbook.scoring.intervals import Figure, bootstrap, estimate, wilson
from hornbook.scoring.rouge import rouge_marks
from hornbook.scoring.sentences import first_sentences, sentences

DATA = os.environ.get("HORNBOOK_DATA")


@dataclass
class Example:
    text: str = ""
    label: str = ""
    endings: tuple[str, ...] = ()
    answer: int = 0
    fields: dict[str, str] = field(default_factory=dict)


# intervals


def test_the_interval_of_a_share_is_wilsons() -> None:
    assert wilson(0.5, 100) == pytest.approx((0.403832, 0.596168), abs=1e-6)
    assert wilson(0.0, 10) == pytest.approx((0.0, 0.277533), abs=1e-6)
    assert wilson(1.0, 10) == pytest.approx((0.722467, 1.0), abs=1e-6)


def test_the_bootstrap_is_that_of_a_plain_loop() -> None:
    draw = np.random.default_rng(0)
    values = draw.exponential(2.0, 80)
    plain = np.quantile([draw.choice(values, 80).mean() for _ in range(4000)], [0.025, 0.975])
    low, high = bootstrap(values, np.exp)
    # a quantile of 2,000 draws deviates by 1.5 % of the width, one of 4,000 by 1.1 %: 1.9 % together, three times
    assert np.log([low, high]) == pytest.approx(plain, abs=0.06 * math.log(high / low))
    assert bootstrap(values, np.exp) == (low, high)
    assert bootstrap(values, np.exp, seed=1) != (low, high)


def test_many_examples_are_drawn_in_groups_with_much_the_same_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(1).normal(0, 1, (2500, 2))
    grouped = bootstrap(values, lambda means: means.sum(1))
    monkeypatch.setattr(intervals, "MOST_UNITS", 2500)
    single = bootstrap(values, lambda means: means.sum(1))
    assert grouped == pytest.approx(single, abs=0.15 * (single[1] - single[0]))


@pytest.mark.parametrize("rows", [[0.1, 2.3] * 1250, sorted([0.1, 2.3] * 1250)], ids=["alternating", "sorted"])
def test_the_interval_of_many_examples_does_not_hang_on_their_order(rows: list[float]) -> None:
    # the mean of n values that are m - d or m + d deviates by d / sqrt(n); a quantile of 2,000 draws, by 3 % of that
    half = 1.96 * 1.1 / math.sqrt(len(rows))
    assert bootstrap(rows) == pytest.approx((1.2 - half, 1.2 + half), abs=0.15 * half)


def test_one_example_has_a_score_without_an_interval_and_none_has_no_score() -> None:
    assert estimate([3.0]) == Figure(3.0)
    with pytest.raises(ValueError, match="no example"):
        bootstrap([])


# classes

LABELS = ("a", "b", "c")


def outputs(count: int = 300, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    draw = np.random.default_rng(seed)
    truth = draw.integers(0, 3, count)
    logits = draw.normal(0, 1, (count, 3)) + 1.5 * np.eye(3)[truth]
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return chances, [LABELS[i] for i in truth]


def test_the_likeliest_class_counts_and_its_log_loss_is_bounded() -> None:
    assert class_marks([0.2, 0.5, 0.3], LABELS, "b") == {"accuracy": 1.0, "log_loss": pytest.approx(math.log(2))}
    assert class_marks([0.4, 0.4, 0.2], LABELS, "a")["accuracy"] == 1.0  # of equal ones the first
    assert class_marks([1.0, 0.0, 0.0], LABELS, "c") == {"accuracy": 0.0, "log_loss": pytest.approx(15 * math.log(10))}


def test_figures_of_a_classifier_are_scikit_learns() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    chances, truth = outputs()
    chosen = [LABELS[i] for i in chances.argmax(1)]
    found = class_figures(chances, LABELS, truth)
    assert found["macro_f1"].value == pytest.approx(metrics.f1_score(truth, chosen, average="macro"))
    brier = metrics.brier_score_loss(truth, chances, labels=list(LABELS), scale_by_half=False)
    assert found["brier"].value == pytest.approx(brier)
    assert confusion(chances, LABELS, truth).tolist() == metrics.confusion_matrix(truth, chosen).tolist()
    losses = [class_marks(row, LABELS, label)["log_loss"] for row, label in zip(chances, truth, strict=True)]
    assert np.mean(losses) == pytest.approx(metrics.log_loss(truth, chances, labels=list(LABELS)))


def test_the_interval_of_macro_f1_is_that_of_a_plain_loop() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    chances, truth = outputs(80)
    chosen, right = chances.argmax(1), np.array([LABELS.index(label) for label in truth])
    draw, plain = np.random.default_rng(5), []
    for _ in range(600):
        rows = draw.integers(0, 80, 80)
        plain.append(metrics.f1_score(right[rows], chosen[rows], average="macro"))
    found = class_figures(chances, LABELS, truth)["macro_f1"]
    low, high = np.quantile(plain, [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.12 * (high - low))


def test_a_class_that_is_neither_true_nor_chosen_takes_no_part_in_macro_f1() -> None:
    chances = [[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.7, 0.3, 0.0], [0.1, 0.9, 0.0]]
    assert class_figures(chances, LABELS, ["a", "b", "b", "b"])["macro_f1"].value == pytest.approx((2 / 3 + 4 / 5) / 2)
    chances[3] = [0.1, 0.0, 0.9]  # chosen once, wrongly: its F1 is 0
    found = class_figures(chances, LABELS, ["a", "b", "b", "b"])["macro_f1"].value
    assert found == pytest.approx((2 / 3 + 2 / 4 + 0) / 3)


def test_calibration_is_measured_in_fifteen_bins_of_equal_width() -> None:
    chances = [[0.95, 0.05], [0.95, 0.05], [0.61, 0.39], [0.60, 0.40]]
    truth = ["x", "y", "x", "y"]
    curve = calibration_curve(chances, ("x", "y"), truth)
    assert [(round(b.confidence, 6), b.accuracy, b.count) for b in curve] == [(0.6, 0, 1), (0.61, 1, 1), (0.95, 0.5, 2)]
    error = class_figures(chances, ("x", "y"), truth)["calibration_error"]
    assert error == Figure(pytest.approx((0.60 + 0.39 + 2 * 0.45) / 4))
    sure = class_figures(np.eye(3)[[0, 1, 2]], LABELS, LABELS)
    assert sure["calibration_error"].value == sure["brier"].value == 0
    assert sure["macro_f1"].value == 1


# rouge

HARD = [
    "Mr. Smith met Dr. J. K. Rowling in St. Louis.",
    "The U.S. Army left the U.S.|Then it came back.",
    "It costs $3.50 at 5 p.m. Eastern time.",
    "They met at 5 p.m.|The talks failed.",
    '"We won."|He smiled.',
    '"We won!" he said.|"Twice."',
    "He asked: 'Why?'|Nobody knew.",
    "Really?!|Yes... perhaps.|No…|Done.",
    "Apple Inc. Chief Tim Cook spoke of Apple Inc.|They listened.",
    "See Fig. 3 and No. 10, e.g. The Times, vs. Arsenal.",
    "The answer was no.|It stayed no.",
    "On Jan. 5 it rained.|It was Jan.|Her sister left.",
    "1. Wash the rice.|2. Boil it.",
    "George W. Bush and I.|So did she.",
    "The rate rose 2.5 percent to 3.1.|In May it fell.",
    "(He was late.)|She was not.",
    "She has a Ph.D. in physics from D.C.|Every one of them has.",
    "Visit www.example.com.|It is free.",
    "First line without a stop\nSecond line.|Third.",
    "“Is it over?”|“It is,” said Ms. Jones.",
    "World No. 1 Novak Djokovic Jr. won.|Sen. McCain lost.",
    "Harry gets money .|NEW: He is 18 .",
    '... You know.|"... Nobody does."',
]


@pytest.mark.parametrize("marked", HARD)
def test_sentences_end_where_a_reader_ends_them(marked: str) -> None:
    text = marked.replace("|", " ")
    assert sentences(text) == marked.replace("\n", "|").split("|")


def test_white_space_alone_is_no_sentence_and_the_first_ones_are_joined_by_spaces() -> None:
    assert sentences(" \n\n ") == sentences("") == []
    assert first_sentences("One.  Two!\n\nThree? Four.", 3) == "One. Two! Three?"
    assert first_sentences("Only one", 3) == "Only one"


ARTICLE = "The quick brown foxes were jumping over dogs. Mr. Fox slept. It rained in the U.S. on Monday."
SUMMARY = "A quick fox jumped over the lazy dog. It was raining Monday."


def test_rouge_is_google_s_with_stemming_on_one_sentence_a_line() -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer")
    theirs = scorer.RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"], use_stemmer=True)
    reference, output = "\n".join(sentences(ARTICLE)), "\n".join(sentences(SUMMARY))
    assert reference.count("\n") == 2
    wanted = {kind: score.fmeasure for kind, score in theirs.score(reference, output).items()}
    assert rouge_marks(SUMMARY, [ARTICLE]) == pytest.approx(wanted)
    assert wanted["rougeLsum"] > wanted["rougeL"]


def test_the_best_reference_counts_for_each_kind_of_rouge() -> None:
    pytest.importorskip("rouge_score")
    first, second = rouge_marks(SUMMARY, [ARTICLE]), rouge_marks(SUMMARY, ["It rained."])
    both = rouge_marks(SUMMARY, [ARTICLE, "It rained."])
    assert both == {kind: max(first[kind], second[kind]) for kind in first}
    assert rouge_marks(SUMMARY, [SUMMARY]) == dict.fromkeys(first, pytest.approx(1.0))
    assert rouge_marks("", [SUMMARY]) == dict.fromkeys(first, 0.0)


# translation

GERMAN = [
    "Ein Mann sitzt auf dem Dach.",
    "Zwei Hunde rennen über die Wiese.",
    "Kinder spielen im Schnee.",
    "Sie lacht.",
]
GUESSED = [
    "Ein Mann sitzt auf einem Dach.",
    "Zwei Hunde laufen über eine Wiese.",
    "Kinder spielen im Schnee.",
    "Er isst.",
]


def test_bleu_and_chrf_are_sacrebleus_with_its_intervals_and_signatures() -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    references = [[text] for text in GERMAN]
    found = translation.translation_figures(GUESSED, references)
    bleu, chrf = sacrebleu.corpus_bleu(GUESSED, [GERMAN]).score, sacrebleu.corpus_chrf(GUESSED, [GERMAN]).score
    assert (found["bleu"].value, found["chrf"].value) == pytest.approx((bleu, chrf))
    theirs = sacrebleu.CHRF().corpus_score(GUESSED, [GERMAN], n_bootstrap=1000)
    middle, half = (float(part) for part in theirs.format(width=8).split("(μ = ")[1].rstrip(")").split(" ± "))
    assert (found["chrf"].low, found["chrf"].high) == pytest.approx((middle - half, middle + half), abs=1e-6)
    assert found == translation.translation_figures(GUESSED, references)
    signatures = translation.translation_signatures(GUESSED, references)
    assert signatures["bleu"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert signatures["chrf"].startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:")


def test_examples_may_have_more_references_than_others() -> None:
    pytest.importorskip("sacrebleu")
    references = [[text] for text in GERMAN]
    references[0].append(GUESSED[0])
    one, more = (translation.translation_figures(GUESSED, some) for some in ([[t] for t in GERMAN], references))
    assert more["bleu"].value > one["bleu"].value
    assert translation.translation_figures(GUESSED[:1], references[:1])["chrf"] == Figure(pytest.approx(100.0))


def test_a_wrong_translation_has_the_lower_mark() -> None:
    pytest.importorskip("sacrebleu")
    marks = [translation.translation_marks(o, [r])["sentence_chrf"] for o, r in zip(GUESSED, GERMAN, strict=True)]
    assert min(marks) == marks[3]
    assert marks[2] == pytest.approx(100)


# answers


@pytest.mark.parametrize(
    ("output", "references", "exact", "f1"),
    [
        ("the Denver Broncos!", ["Denver Broncos"], 1, 1),
        ("Denver", ["Denver Broncos"], 0, 2 / 3),
        ("Broncos of Denver, Denver", ["Denver Broncos"], 0, 2 * 2 / (4 + 2)),
        ("An apple a day", ["apple, day"], 1, 1),
        ("Santa-Clara", ["Santa Clara"], 0, 0),  # punctuation goes, no space comes
        ("theatre", ["atre"], 0, 0),
        ("24–10", ["24-10", "24–10"], 1, 1),  # only ASCII punctuation goes
        ("die Panthers", ["Panthers"], 0, 2 / 3),  # a German article stays
        ("the", ["a"], 1, 0),  # both empty: as the published script has it
        ("", ["x"], 0, 0),
    ],
)
def test_answers_are_judged_by_squads_rules(output: str, references: list[str], exact: float, f1: float) -> None:
    assert answer_marks(output, references) == {"exact_match": exact, "f1": pytest.approx(f1)}


def test_normalising_twice_changes_nothing_more() -> None:
    text = "  The  U.S.A. — an 'Apple'\t(a day)\n"
    assert normalise(text) == "usa — apple day" == normalise(normalise(text))


@pytest.mark.skipif(not DATA, reason="HORNBOOK_DATA names no folder of corpora")
@pytest.mark.parametrize("language", ["en", "de"])
def test_every_published_answer_is_right_and_the_next_one_mostly_wrong(language: str) -> None:
    path = Path(DATA or "", "xquad", f"xquad.{language}.json")
    if not path.is_file():
        pytest.skip("HORNBOOK_DATA names no folder with xquad")
    rows = [q for d in json.loads(path.read_text("utf-8"))["data"] for p in d["paragraphs"] for q in p["qas"]]
    answers = [[answer["text"] for answer in row["answers"]] for row in rows]
    assert all(answer_marks(some[0], some) == {"exact_match": 1, "f1": 1} for some in answers)
    others = [answer_marks(b[0], a)["exact_match"] for a, b in pairwise(answers)]
    assert np.mean(others) < 0.05


# choices


def test_endings_are_chosen_by_their_sum_and_by_the_sum_per_character_and_token() -> None:
    endings, output = ("a" * 2, "b" * 30, "c" * 20), [(-2.0, 1), (-3.0, 2), (-8.0, 16)]
    for answer, right in enumerate(("accuracy", "accuracy_per_character", "accuracy_per_token")):
        marks = score_choice(Example(endings=endings, answer=answer), output)
        assert [name for name, mark in marks.items() if mark] == [right]


def test_perplexity_of_last_words_is_the_exponential_of_their_mean_nats() -> None:
    found = [(-1.0, True), (-3.0, False), (-2.0, True)]
    marks = [last_word_marks(None, output) for output in found]
    assert marks[0] == {"accuracy": 1.0, "log_prob": -1.0}
    figure = last_word_figures([None] * 3, found)["perplexity"]
    assert figure.value == pytest.approx(math.exp(2.0))
    assert (figure.low, figure.high) == pytest.approx((math.e, math.exp(3)))
    found[1] = (-math.inf, False)
    assert last_word_figures([None] * 3, found)["perplexity"] == Figure(math.inf)


# baselines

GOOD, BAD = "a great film, truly wonderful and great", "an awful film, truly terrible and bad"


def reviews(count: int) -> list[Example]:
    draw = np.random.default_rng(0)
    found = []
    for i in range(count):
        words = (GOOD if i % 2 else BAD).split()
        found.append(Example(" ".join(draw.permutation(words)) + f" film{i}", "pos" if i % 2 else "neg"))
    return found


@pytest.mark.parametrize("count", [2, 30, 300])
def test_words_and_logistic_regression_tell_good_from_bad(count: int) -> None:
    pytest.importorskip("sklearn")
    train, test = reviews(count), reviews(20)
    found = baselines.tfidf_logistic(train, test, ("neg", "neutral", "pos"))
    chosen = [("neg", "neutral", "pos")[int(np.argmax(row))] for row in found]
    assert chosen == [example.label for example in test]
    assert all(row[1] == 0 and sum(row) == pytest.approx(1) for row in found)
    assert found == baselines.tfidf_logistic(train, test, ("neg", "neutral", "pos"))


def test_without_words_or_classes_to_learn_from_the_majority_is_taken() -> None:
    pytest.importorskip("sklearn")
    for train in ([Example("...", "pos"), Example("!", "neg"), Example("", "pos")], [Example("good", "pos")]):
        found = baselines.tfidf_logistic(train, [Example("good")], ("neg", "pos"))
        assert found == baselines.majority(train, [Example("good")], ("neg", "pos"))
        assert np.argmax(found[0]) == 1


def test_the_majority_knows_only_how_frequent_labels_are() -> None:
    train = [Example(label=label) for label in "aab"]
    assert baselines.majority(train, [Example("x")] * 2, LABELS) == [[3 / 6, 2 / 6, 1 / 6]] * 2
    assert baselines.majority([], [Example("x")], LABELS) == [[1 / 3] * 3]


def test_texts_are_summarised_by_their_first_sentences_and_copied() -> None:
    example = Example(fields={"title": "T.", "article": "One. Two.\nThree. Four."})
    assert baselines.lead3([], [example]) == ["One. Two. Three."]
    assert baselines.lead3([], [example], "title") == ["T."]
    assert baselines.copy_source([], [example]) == ["One. Two.\nThree. Four."]
    assert baselines.copy_source([], [example], "title") == ["T."]


def test_a_random_choice_is_at_chance_and_the_same_by_every_mark() -> None:
    examples = [Example(endings=("a", "bb" * 30, "c", "d"), answer=i % 4) for i in range(2000)]
    found = baselines.random_choice([], examples)
    marks = [score_choice(example, output) for example, output in zip(examples, found, strict=True)]
    assert np.mean([mark["accuracy"] for mark in marks]) == pytest.approx(0.25, abs=0.04)  # four deviations of 0.0097
    assert all(len(set(mark.values())) == 1 for mark in marks)
    assert found == baselines.random_choice([], examples) != baselines.random_choice([], examples, seed=1)


@pytest.mark.parametrize(
    ("package", "call"),
    [
        ("sklearn.feature_extraction.text", lambda: baselines.tfidf_logistic(reviews(2), reviews(2), ("neg", "pos"))),
        ("sacrebleu", lambda: translation.translation_figures(["a"], [["a"]])),
        ("rouge_score.rouge_scorer", lambda: (rouge.scorer.cache_clear(), rouge.rouge_marks("a", ["a"]))),
    ],
)
def test_a_package_that_is_missing_is_named_with_its_extra(package: str, call, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(UserError, match=r"hornbook\[tasks\]"):
        call()
