"""What `hornbook evaluate` scores where little is said: the task that a run was taught, on what it never saw."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import hornbook
from hornbook.cli import main
from hornbook.config import Evaluate
from hornbook.errors import UserError
from hornbook.evaluation.wanted import settled, taught
from hornbook.tasks import Asked, Choice, Labelled
from test_finetune import reviews


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return reviews(tmp_path / "reviews.csv", 40)


@pytest.fixture
def run(tmp_path: Path, data: Path) -> str:
    """The folder of a run that was taught from `data`, as far as its settings go."""
    return folder(tmp_path / "run", data=str(data), task_name="classify", text="review", label="stars")


def folder(path: Path, **settings: Any) -> str:
    path.mkdir()
    empty: dict[str, Any] = {"task": None, "columns": [], "target": None, "options": [], "text": None, "label": None}
    (path / "train.json").write_text(json.dumps(empty | settings))
    return str(path)


def test_a_run_is_scored_on_the_rows_that_were_held_out_of_its_own_file(run: str, data: Path) -> None:
    settings, task = settled(Evaluate(run))
    assert (settings.data, settings.split) == (str(data), "test")
    assert task is not None
    assert task.kind is Labelled
    assert len(list(task.examples("test"))) == 4
    assert settled(Evaluate(run, str(data)))[0].split == "test"


def test_a_run_is_measured_with_the_cut_and_the_context_that_it_was_taught_with(tmp_path: Path, data: Path) -> None:
    facts = {"task_name": "classify", "text": "review", "label": "stars", "context_of_examples": 77, "cut": "tail"}
    run = folder(tmp_path / "other", data=str(data), **facts)
    settings, _ = settled(Evaluate(run))
    assert (settings.context, settings.cut) == (77, "tail")
    settings, _ = settled(Evaluate(run, context=50, cut="head"))
    assert (settings.context, settings.cut) == (50, "head")


def test_another_file_of_the_same_form_is_scored_whole(run: str, tmp_path: Path) -> None:
    settings, task = settled(Evaluate(run, str(reviews(tmp_path / "more.csv", 30))))
    assert settings.split == "all"
    assert task is not None
    assert len(list(task.examples("all"))) == 30


def test_a_split_that_is_given_is_the_one_that_is_scored(run: str) -> None:
    assert settled(Evaluate(run, split="validation"))[0].split == "validation"


def test_a_published_task_keeps_its_test_split_and_one_without_is_validated_on(run: str) -> None:
    for name, split in (("imdb", "test"), ("hellaswag", "validation"), ("lambada", "test")):
        settings, task = settled(Evaluate(run, name))
        assert task is not None
        assert (task.name, settings.split) == (name, split)


def test_a_run_that_learnt_a_published_task_is_scored_on_that(tmp_path: Path) -> None:
    run = folder(tmp_path / "run", data="multi30k", task_name="multi30k", options=["from=en", "to=de"])
    settings, task = settled(Evaluate(run))
    assert task is not None
    assert (task.name, task.kind, settings.split, settings.options) == ("multi30k", Asked, "test", ("from=en", "to=de"))


def test_a_file_needs_no_run_that_was_taught_where_its_task_is_named(tmp_path: Path, data: Path) -> None:
    wanted = Evaluate("gpt2", str(data), task="classify", columns=("text=review", "label=stars"))
    settings, task = settled(wanted)
    assert settings.split == "all"
    assert task is not None
    assert taught("gpt2") == {}


def test_a_corpus_is_no_task(run: str) -> None:
    for wanted in (
        Evaluate("gpt2"),
        Evaluate("gpt2", "wikitext-2"),
        Evaluate(run, "wikitext-2"),
        Evaluate(run, text=("a",)),
    ):
        assert settled(wanted)[1] is None
    assert Evaluate("gpt2").corpus == "python-docs"
    assert Evaluate("gpt2").part == "validation"
    with pytest.raises(UserError, match="--split all is for files of examples"):
        Evaluate("gpt2", split="all").part  # noqa: B018
    with pytest.raises(UserError, match="needs a file of its examples"):
        settled(Evaluate("gpt2", text=("a",), task="classify"))


def test_the_tutorials_protocol_of_hellaswag_is_its_plain_one(run: str) -> None:
    settings, task = settled(Evaluate(run, "hellaswag", protocol="tutorial"))
    assert settings.options == ("protocol=plain",)
    assert task is not None
    assert task.kind is Choice


def test_pairs_that_are_none_are_refused() -> None:
    for pair in ("text", "=review", "text=", "="):
        with pytest.raises(UserError, match="must be NAME=VALUE"):
            Evaluate("gpt2", columns=(pair,))


def test_a_trained_run_is_scored_on_the_text_that_it_learnt_from(tmp_path: Path) -> None:
    text = tmp_path / "my.csv"
    text.write_text("words\na text\n")
    run = folder(tmp_path / "trained", data=str(text), column="words")
    settings, task = settled(Evaluate(run))
    assert (settings.data, settings.column, task) == (str(text), "words", None)
    assert settled(Evaluate(run, "wikitext-2"))[0].data == "wikitext-2"
    assert settled(Evaluate(str(tmp_path)))[0].data == "python-docs", "of what is no run nothing is known"


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ("-", "learnt from standard input: name a text to score it on"),
        ("a.txt:0.7,b.txt:0.3", "learnt from a.txt:0.7,b.txt:0.3: name a text to score it on"),
        ("gone.txt", "gone.txt, from which .* learnt, is not there: name a text to score it on"),
    ],
)
def test_a_run_whose_text_cannot_be_had_again_asks_for_one(tmp_path: Path, data: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        settled(Evaluate(folder(tmp_path / "trained", data=data)))


def test_the_other_side_of_a_run_s_own_file_is_not_asked_of_another_file(tmp_path: Path) -> None:
    for name in ("train.de", "train.en"):
        (tmp_path / name).write_text("".join(f"line {n}\n" for n in range(30)))
    rows = tmp_path / "other.csv"
    rows.write_text("source,target\n" + "".join(f"Hund {n},dog {n}\n" for n in range(30)))
    facts = {"task_name": "translate", "target": str(tmp_path / "train.en")}
    run = folder(tmp_path / "run", data=str(tmp_path / "train.de"), **facts)
    assert settled(Evaluate(run))[0].target == str(tmp_path / "train.en")
    settings, task = settled(Evaluate(run, str(rows)))
    assert (settings.target, task is None) == (None, False)


def test_a_run_that_was_taught_is_scored_on_a_text_too(run: str, tmp_path: Path) -> None:
    (tmp_path / "wiki.txt").write_text("a text")
    settings, task = settled(Evaluate(run, str(tmp_path / "wiki.txt")))
    assert (settings.data, task) == (str(tmp_path / "wiki.txt"), None)


def test_a_precision_is_that_of_an_evaluation_in_python_too(
    run: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    seen: list[bool] = []
    monkeypatch.setattr("hornbook.evaluation.measure.measure", lambda _: seen.append(torch.is_autocast_enabled("cpu")))
    for precision in ("bfloat16", "float32"):
        hornbook.evaluate(run, "python-docs", precision=precision, device="cpu")
    assert seen == [True, False]
    with pytest.raises(UserError, match="for the harness there is"):
        hornbook.evaluate(run, harness=("hellaswag",))
    with pytest.raises(SystemExit, match="2"):
        main(["evaluate", run, "python-docs", "--precision", "bfloat16", "--device", "gpu"])
    assert "unknown device 'gpu'" in capfd.readouterr().err
