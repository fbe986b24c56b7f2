"""Models put to tasks: what does not fit, what is not known, and that those who know nothing learn from other rows."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import pytest

from hornbook.config import Evaluate
from hornbook.errors import UserError
from hornbook.evaluation.judging import Judged, judge, put
from hornbook.evaluation.mistakes import details, is_right, mistakes
from hornbook.evaluation.wanted import settled
from hornbook.layers.class_head import give_class_head
from hornbook.layers.model import LanguageModel
from hornbook.scoring.choices import score_choice
from hornbook.tasks import Asked, Choice, Dialogue, Labelled, LastWord, Preference, Source, Task, open_task
from hornbook.training.finetune import finetune
from test_finetune import jsonl, reviews, settings
from test_lessons import ASKED, talker


def classifier(*labels: str) -> LanguageModel:
    model = talker("gpt2")
    give_class_head(model, labels)
    return model.eval()


def of(kind: type, examples: list[Any], **fields: Any) -> Task:
    """A task with these examples in every split."""
    return Task(
        "t", kind, lambda split: iter(examples), lambda example, output: {"accuracy": 1.0}, "accuracy", **fields
    )


def classes(path: Path) -> Task:
    return open_task("classify", Source(str(path), {}, None, 0, {}))


# --- what is not known


def test_three_hundred_classes_of_two_rows_each_are_learnt_and_measured(tmp_path: Path) -> None:
    """Most of the classes that are held out were not learnt: they are mistakes, and no end of the run."""
    rows = [{"text": f"it is number {n}, copy {copy}", "label": f"c{n}"} for n in range(300) for copy in range(2)]
    data = jsonl(tmp_path / "rows.jsonl", rows)
    summary = finetune(settings(data, tmp_path / "run", steps=2, batch=8))
    assert summary["scores"]["figures"]["accuracy"]["value"] < 1
    assert "of classes that this model was not taught" in summary["scores"]["note"]
    _, task = settled(Evaluate(str(tmp_path / "run")))
    assert task is not None


def test_a_class_that_was_not_taught_is_a_row_and_a_column_of_the_confusion() -> None:
    examples = [Labelled("one", "a"), Labelled("two", "b"), Labelled("three", "z")]
    found = put(classifier("a", "b"), open_task("imdb", Source(None, {}, None, 0, {})), "test", examples)
    assert found.note == "1 examples are of classes that this model was not taught (z) and count as mistakes"
    assert found.marks[2]["accuracy"] == 0
    told = details(found)
    assert told["labels"] == ["a", "b", "z"]
    assert sum(told["confusion"][2]) == 1
    with pytest.raises(UserError, match=r"the labels y, z are none that this model was taught: a, b"):
        put(classifier("a", "b"), found.task, "test", [Labelled("x", "z"), Labelled("x", "y")])


def test_rows_of_one_class_are_evaluated_and_not_learnt_from(tmp_path: Path) -> None:
    data = jsonl(tmp_path / "rows.jsonl", [{"text": f"row {n}", "label": "a"} for n in range(9)])
    found = judge(classifier("a", "b"), classes(data), "all")
    assert found.figures["log_loss"].value > 0
    with pytest.raises(UserError, match=r"all 7 labels to learn from in .* are 'a': two classes at least"):
        finetune(settings(data, tmp_path / "run"))


# --- those who know nothing


def test_baselines_do_not_learn_from_the_rows_that_they_answer(tmp_path: Path) -> None:
    """Labels drawn at random cannot be told from the text."""
    draw = random.Random(0)
    rows = [{"text": f"text with the word w{n}", "label": draw.choice("ab")} for n in range(300)]
    task = classes(jsonl(tmp_path / "rows.jsonl", rows))
    for split in ("all", "train"):
        found = judge(classifier("a", "b"), task, split)
        assert found.others["TF-IDF + logistic regression"]["accuracy"].value < 0.6, split
        assert found.others["majority class"]["accuracy"].value >= 0.5
        assert found.note == "baselines learn from the other rows of the same split"


def test_a_baseline_that_can_tell_does_so_from_other_rows(tmp_path: Path) -> None:
    task = open_task("classify", Source(str(reviews(tmp_path / "r.csv")), {"text": "review", "label": "stars"}, None))
    found = judge(classifier("1", "5"), task, "all", limit=40)
    assert found.others["TF-IDF + logistic regression"]["accuracy"].value > 0.9


@pytest.mark.parametrize("count", [1, 2])
def test_a_file_of_a_row_or_two_is_evaluated(tmp_path: Path, count: int) -> None:
    rows = [{"text": "one", "label": "a"}, {"text": "two", "label": "b"}][:count]
    found = judge(classifier("a", "b"), classes(jsonl(tmp_path / "rows.jsonl", rows)), "all")
    assert len(found.examples) == count
    assert (found.others["TF-IDF + logistic regression"]["log_loss"].value >= 0.69) == (count == 2)


# --- what does not fit


def test_a_question_that_leaves_no_room_is_left_out_and_counted() -> None:
    def asked(question: str) -> Asked:
        return Asked({"a": "some words", "q": question}, "x", ("x",))

    examples = [asked("who?"), asked("who " * 100), asked("where?")]
    plain = ASKED | {"plain": "{a}\n\n{q}\n\nIn short:"}
    found = judge(talker(context=100), of(Asked, examples, **plain), "test")
    assert found.examples == [examples[0], examples[2]]
    assert len(found.outputs) == 2
    assert "1 examples do not fit at all and are left out" in found.note
    with pytest.raises(UserError, match="none of the 1 examples of t fits"):
        judge(talker(context=100), of(Asked, examples[1:2], **plain), "test")


def test_what_does_not_fit_counts_in_no_mean() -> None:
    long = "word " * 60
    said = ({"role": "user", "content": "q"}, {"role": "assistant", "content": "a"})
    talks = [Dialogue(said), Dialogue(({"role": "user", "content": long}, said[1]))]
    pairs = [Preference(said[:1], "good", "bad"), Preference(said[:1], long, "bad")]
    for kind, examples in ((Dialogue, talks), (Preference, pairs)):
        found = put(talker(), of(kind, examples), "test", examples)
        assert found.examples == examples[:1]
        assert len(found.outputs) == 1
        assert found.note == "1 examples do not fit at all and are left out"


def test_a_passage_that_is_cut_before_its_last_word_is_counted() -> None:
    examples = [LastWord("a passage", "end"), LastWord("a passage " * 30, "end")]
    model = talker()
    found = put(model, of(LastWord, examples), "test", examples, context=50)
    assert found.note == "1 of 2 texts are longer than 50 tokens: tail of them is kept"
    assert len(found.outputs) == 2
    short = dataclasses.replace(examples[1], prompt=examples[1].prompt[-(50 - len(" end") + 1) :])
    assert put(model, of(LastWord, [short]), "test", [short]).outputs[0] == pytest.approx(found.outputs[1], abs=1e-4)


# --- files that change


def test_a_file_that_has_changed_or_is_gone_is_spoken_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = reviews(tmp_path / "reviews.csv", 40)
    finetune(settings(data, tmp_path / "run", steps=1))
    capsys.readouterr()
    settled(Evaluate(str(tmp_path / "run")))
    assert "has changed" not in capsys.readouterr().err
    reviews(data, 60)
    settled(Evaluate(str(tmp_path / "run")))
    assert "reviews.csv has changed since this model was taught" in capsys.readouterr().err
    data.unlink()
    with pytest.raises(UserError, match=r"reviews\.csv, from which .* was taught, is gone: name a file"):
        settled(Evaluate(str(tmp_path / "run")))


def judged_by(kind: type, headline: str, examples: list[Any], outputs: list[Any], score: Any) -> Judged:
    return Judged(Task("t", kind, lambda split: iter(()), score, headline), "test", examples, outputs)


def test_a_choice_is_a_mistake_by_the_figure_that_stands_above() -> None:
    """The second ending has less probability in all, and more a character."""
    examples = [Choice("I eat", ("rocks", "bread and butter"), answer) for answer in (0, 1)]
    found = judged_by(Choice, "accuracy_per_character", examples, [[(-5.0, 1), (-8.0, 3)]] * 2, score_choice)
    assert found.headline == 0.5
    assert [is_right(found, i) for i in range(2)] == [False, True]
    (worst,) = mistakes(found, 5)
    assert (worst["truth"], worst["prediction"]) == ("rocks", "bread and butter")
    assert worst["confidence"] == "0.500 nats a character more"


@pytest.mark.parametrize(("mark", "best"), [("rougeLsum", 1.0), ("sentence_chrf", 100.0)])
def test_a_text_that_is_as_it_should_be_is_no_mistake(mark: str, best: float) -> None:
    examples = [Asked({"source": "eins"}, "one", ("one",)), Asked({"source": "zwei"}, "two", ("two",))]
    found = judged_by(Asked, mark, examples, ["one", "too"], lambda e, o: {mark: best if e.answer == o else best / 2})
    assert [is_right(found, i) for i in range(2)] == [True, False]
    assert [worst["output"] for worst in mistakes(found, 5)] == ["too"]
