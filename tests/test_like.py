"""`--like RUN`: the same run again, and what may differ."""

from __future__ import annotations

import dataclasses
import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

import hornbook
from hornbook.cli import main
from hornbook.config import Train
from hornbook.errors import UserError
from hornbook.run import read_log
from hornbook.training import like as likes
from hornbook.training.like import factor, like, replay, settings_of, settled, told

FLAGS = ["--tokenizer=bytes", "--layers=1", "--dim=32", "--heads=2", "--context=32", "--batch=4", "--device=cpu"]
FLAGS += ["--warmup=3", "--dropout=0.1"]


@pytest.fixture(scope="module")
def made(text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 30 steps."""
    folder = tmp_path_factory.mktemp("runs") / "x"
    main(["train", "gpt2-tiny", f"--data={text_folder}", f"--out={folder}", "--steps=30", "--seed=5", *FLAGS])
    return folder


def log_of(folder: Path) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if name != "seconds"} for line in read_log(folder)]


def by_the_clock(folder: Path, **settings: Any) -> Path:
    """A run of a minute that came to 50 steps, of which the 20th was left out and every 25th evaluated."""
    folder.mkdir()
    values = dataclasses.asdict(Train("gpt2-tiny", minutes=1.0, lr=0.003, seed=5)) | settings
    (folder / "train.json").write_text(json.dumps(values | {"text": "abc", "future": 1}))
    lines: list[dict[str, Any]] = []
    for step in range(1, 51):
        taken = {"loss": 2.0, "lr": 0.003 * (step / 70)} if step != 20 else {"skipped": "a spike", "batch": 19}
        lines.append({"step": step, "seconds": 0.5, **taken})
        lines += [{"step": step, "sample": "The", "validation_loss": 2.0}] if step % 25 == 0 else []
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "summary.json").write_text("{}")
    return folder


def test_a_run_is_repeated_bit_for_bit(made: Path, capfd: pytest.CaptureFixture[str]) -> None:
    main(["train", "--like", str(made)])
    again = made.with_name("x-again")
    assert log_of(again) == log_of(made)
    for name in ("model.safetensors", "last/state/state.safetensors"):
        assert (again / name).read_bytes() == (made / name).read_bytes()
    assert f"repeating {made} bit for bit" in capfd.readouterr().err


def test_a_run_by_the_clock_is_repeated_bit_for_bit(text_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "x"
    main(["train", "llama-tiny", f"--data={text_folder}", f"--out={out}", "--minutes=0.03", "--kv-heads=1", *FLAGS])
    hornbook.train(like=str(out), out=str(tmp_path / "y"))
    hornbook.train(like=str(tmp_path / "y"), out=str(tmp_path / "z"))
    assert any("validation_loss" in line for line in log_of(out))
    for name in "yz":
        assert log_of(tmp_path / name) == log_of(out)
        for file in ("model.safetensors", "last/state/state.safetensors"):
            assert (tmp_path / name / file).read_bytes() == (out / file).read_bytes()


def test_a_finetuned_run_is_not_repeated_as_if_it_had_been_trained_on_text(tmp_path: Path) -> None:
    folder = by_the_clock(tmp_path / "x", task_name="reviews")
    with pytest.raises(UserError, match="that run was finetuned; `hornbook finetune`"):
        settings_of(str(folder))


def test_what_is_given_beside_it_is_changed_and_said(made: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = made.with_name("y")
    main(["train", "--like", str(made), "--out", str(out), "--seed", "0", "--steps", "10"])  # 0 is the usual seed
    saved = json.loads((out / "train.json").read_text())
    assert (saved["seed"], saved["steps"], saved["warmup"], saved["model"]) == (0, 10, 3, "gpt2-tiny")
    assert f"repeating {made} with changes: steps 30 is now 10, seed 5 is now 0" in capfd.readouterr().err
    assert log_of(out)[0] != log_of(made)[0]


def test_the_verb_takes_it_too(made: Path) -> None:
    out = made.with_name("z")
    summary = hornbook.train(like=str(made), out=str(out), steps=5)
    assert summary["steps"] == 5
    assert json.loads((out / "train.json").read_text())["like"] == str(made)


@pytest.mark.parametrize("arguments", [[], ["--steps", "5"], ["--like", "nowhere"]])
def test_without_a_model_and_a_run_to_repeat_one_line_says_so(
    arguments: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", *arguments])
    assert stop.value.code == 2
    told = capfd.readouterr().err
    assert told.count("\n") == 1
    assert ("there is no such run" if "nowhere" in arguments else "needs a model") in told


def test_a_length_that_is_given_takes_the_place_of_the_run_s_own(tmp_path: Path) -> None:
    run = str(by_the_clock(tmp_path / "x"))
    assert (like(run, steps=7).minutes, like(run, steps=7).steps) == (None, 7)
    assert (like(run, minutes=3.0).minutes, like(run, minutes=3.0).steps) == (3.0, None)
    with pytest.raises(UserError, match="--steps and --epochs are lengths of the same run"):
        like(run, steps=7, epochs=1.0)


def test_a_run_by_the_clock_is_repeated_by_its_log(tmp_path: Path) -> None:
    run = str(by_the_clock(tmp_path / "x"))
    settings = like(run, seed=6)
    assert (settings.minutes, settings.steps) == (1.0, 50)
    course = replay(settings)
    assert course
    assert course.evaluated == {25, 50}
    lines = [line for line in read_log(run) if "loss" in line or "skipped" in line]
    assert [0.003 * f for f in course.factors] == [line.get("lr", 0.003) for line in lines]
    assert replay(like(run, steps=50)) is None
    assert replay(Train("gpt2-tiny", minutes=1.0, steps=50)) is None


def test_a_repetition_by_the_log_is_itself_repeated_by_its_log(tmp_path: Path) -> None:
    by_the_clock(tmp_path / "y", steps=50, like="runs/x")
    assert replay(like(str(tmp_path / "y"))) is not None


@pytest.mark.parametrize("change", [{"lr": 0.1}, {"schedule": "cosine"}, {"warmup": 7}, {"optimizer": "adafactor"}])
def test_with_other_rates_a_run_by_the_clock_goes_by_the_clock_again(change: dict[str, Any], tmp_path: Path) -> None:
    settings = like(str(by_the_clock(tmp_path / "x")), **change)
    assert (settings.minutes, settings.steps) == (1.0, None)
    assert replay(settings) is None
    assert "going by the clock" in told(settings, {})


def test_a_run_by_the_clock_must_have_ended_and_have_its_log(tmp_path: Path) -> None:
    folder = by_the_clock(tmp_path / "x")
    settings = like(str(folder))
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join(lines[:5] + lines[6:]))
    with pytest.raises(UserError, match="lacks some of its 50 steps"):
        replay(settings)
    (folder / "summary.json").unlink()
    with pytest.raises(UserError, match="has not ended"):
        like(str(folder))
    assert like(str(folder), steps=9).steps == 9


def test_another_text_is_told_of(tmp_path: Path) -> None:
    settings = like(str(by_the_clock(tmp_path / "x")))
    assert told(settings, {"text": "abc", "new": 1}).endswith("bit for bit")
    assert told(settings, {"text": "abd"}).endswith("with changes: its text is not the same")
    other = like(str(by_the_clock(tmp_path / "y", process_count=2)))
    assert told(other, {"process_count": 2}).endswith("bit for bit")
    assert told(other, {"process_count": 1}).endswith("with changes: its process count is not the same")


def test_a_folder_that_is_no_run_cannot_be_repeated(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such run"):
        settings_of(str(tmp_path))
    (tmp_path / "train.json").write_text('{"model": "gpt2-tiny", "steps": "many"}')
    with pytest.raises(UserError, match="does not hold the settings"):
        settings_of(str(tmp_path))


def test_factors_give_the_rates_that_were_to_the_last_bit() -> None:
    chance = random.Random(0)
    for _ in range(20_000):
        peak, was = 10 ** chance.uniform(-6, 0), chance.random()
        assert peak * factor(peak * was, peak) == peak * was
    assert factor(None, 0.1) == 1
    assert factor(0.0, 0.0) == 1
    assert math.isfinite(factor(0.0, 0.1))


def test_settled_settings_stay_as_they_are(tmp_path: Path) -> None:
    run = str(by_the_clock(tmp_path / "x"))
    assert likes.LENGTHS == ("steps", "epochs", "minutes")
    assert settled(settings_of(run)) == like(run)
