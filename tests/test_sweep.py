"""`hornbook sweep`: what may be varied, trials that outlive their process, and a page that has all of them."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import re
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hornbook import lock, machine, train
from hornbook.cli import main
from hornbook.config import Sweep, Train
from hornbook.errors import PassingError, UserError, WorkError
from hornbook.lock import Lock
from hornbook.report.sweep_page import render_sweep, sweep_table
from hornbook.run import read_log
from hornbook.sweeping import sweep, trials, workers
from hornbook.sweeping.space import Dimension, dimension, space
from hornbook.sweeping.study import next_trial, open_study, places, work_folder
from hornbook.sweeping.telling import found_by
from hornbook.text.space import require_space
from hornbook.training.callbacks import Callback, Moment
from hornbook.training.interrupt import Interrupted
from test_report import Reader

optuna = pytest.importorskip("optuna")


class Fake:
    """In the place of `train`: a bowl over the learning rate, told at three evaluations."""

    def __init__(self) -> None:
        self.asked: list[Train] = []
        self.fail: set[int] = set()
        self.stop: set[int] = set()

    def __call__(self, settings: Train, callbacks: list[Callback]) -> dict[str, Any]:
        self.asked.append(settings)
        place = int(Path(str(settings.out)).name)
        Path(str(settings.out)).mkdir(parents=True, exist_ok=True)
        if place in self.fail:
            raise WorkError("the loss is no number")
        if place in self.stop:
            self.stop.discard(place)
            raise Interrupted
        value = value_of(settings)
        for step in (1, 2, 3):
            moment = Moment("evaluation", step, {"validation_bits_per_byte": value + 1 / step}, None, Path("."))  # type: ignore[arg-type]
            for callback in callbacks:
                callback(moment)
        return {"validation": {"bits_per_byte": value}}


def value_of(settings: Train) -> float:
    return 2 + 100 * abs((settings.lr or 0.02) - 0.003) + settings.batch / 1000  # type: ignore[operator]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    monkeypatch.setattr(trials, "train_alone", one := Fake())
    return one


@pytest.fixture
def asked(text_folder: Path, tmp_path: Path) -> dict[str, Any]:
    over = ("lr=1e-4..1e-2", "batch=8,16,32")
    return {"model": "rnn", "data": str(text_folder), "over": over, "trials": 4, "out": str(tmp_path / "s")}


# --- what is varied


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ("lr=1e-4..1e-2", Dimension("lr", low=1e-4, high=1e-2, log=True)),
        ("lr=1e-3..2e-3", Dimension("lr", low=1e-3, high=2e-3)),
        ("weight-decay=0..1", Dimension("weight_decay", low=0.0, high=1.0)),
        ("dim=64..250/64", Dimension("dim", low=64, high=192, step=64)),
        ("layers=1..4", Dimension("layers", low=1, high=4, step=1)),
        ("batch=8,16,auto", Dimension("batch", (8, 16, "auto"))),
        ("schedule=wsd,cosine", Dimension("schedule", ("wsd", "cosine"))),
        ("apart=true,false", Dimension("apart", (True, False))),
        ("tokenizer=../a,../b", Dimension("tokenizer", ("../a", "../b"))),
    ],
)
def test_a_spec_is_read(spec: str, wanted: Dimension) -> None:
    assert dimension(spec) == wanted


@pytest.mark.parametrize(
    ("over", "told"),
    [
        ((), "a sweep needs something to vary"),
        (("learning=1,2",), "unknown setting to sweep over"),
        (("lrr=1e-4..1e-2",), "Did you mean 'lr'"),
        (("out=a,b",), "unknown setting"),
        (("lr",), "cannot be read"),
        (("lr=1e-4..",), "cannot be read"),
        (("lr=1e-2..1e-4",), "the second number must be above the first"),
        (("lr=0.1..0.9/0.1",), "steps are for whole numbers"),
        (("dim=1.5..3",), "must be a whole number"),
        (("dim=64..128/100",), "at most 64"),
        (("batch=8",), "to fix it, --batch 8"),
        (("batch=8,x",), "'x': it must be a whole number or auto"),
        (("schedule=wsd,wds",), "wsd"),
        (("tasks=a,b",), "several values"),
        (("lr=1e-4,1e-3", "lr=1,2"), "names lr twice"),
        (("batch=0,8",), "--batch is 0: it must be above 0"),
        (("dropout=0.0..1.0",), "below 1"),
        (("data=../a,../b",), "scores on different texts cannot be compared"),
        (("order=3,5",), "rnn has no --order"),
        (("model=rnn,lama-tiny",), "unknown"),
        (("lora=4,8",), "--lora adapts a model that has learnt something"),
        (("rows=3,5",), "--batch 16 cannot be divided into parts of --rows 3"),
    ],
)
def test_what_cannot_be_swept_over_is_told_in_one_line(over: tuple[str, ...], told: str) -> None:
    with pytest.raises(UserError, match=re.escape(told)) as caught:
        space(Sweep("rnn", over=over))
    assert "\n" not in str(caught.value)


def test_values_are_refused_that_go_with_none_of_the_others_and_not_those_that_go_with_one() -> None:
    assert len(space(Sweep("gpt2-tiny", over=("heads=3,4", "dim=96,128")))) == 2  # 128 goes with 4 alone
    assert len(space(Sweep("gpt2-tiny", over=("heads=3,4", "dim=64..256/64")))) == 2  # 3 goes with 192 alone
    many = tuple(
        f"{name}=0.1..0.9" for name in ("lr", "weight-decay", "dropout", "beta2", "clip", "spike", "lora-dropout")
    )
    with pytest.raises(UserError, match="--lora-alpha, --lora-dropout and --lora-targets belong to --lora"):
        space(Sweep("gpt2-tiny", over=("layers=1..9", *many)))
    assert len(space(Sweep("gpt2-tiny", over=("heads=3,5", "dim=300..305", "layers=1..9", *many[:-1])))) == 9
    with pytest.raises(UserError, match="--dim 100 cannot be divided among 3 heads"):
        space(Sweep("gpt2-tiny", over=("heads=3,6", "dim=96,100")))


def test_settings_that_need_each_other_may_be_swept_over_together(text_folder: Path, tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    tiny = {"tokenizer": "bytes", "context": 16, "layers": 1, "dim": 16, "steps": 2, "compile": "no"}
    train("gpt2-tiny", data=str(text_folder), out=run, heads=2, mlp=16, **tiny)
    given = Sweep(run, data=str(text_folder), over=("lora=4,8", "lora-alpha=8,16"), steps=2)
    assert [one.name for one in space(given)] == ["lora", "lora_alpha"]
    with pytest.raises(UserError, match="belong to --lora RANK"):
        space(Sweep(run, data=str(text_folder), over=("lora-alpha=8,16",), steps=2))


@pytest.mark.parametrize(
    ("over", "told"),
    [
        (["--over", "lr=1.."], "cannot be read"),
        (["--over", "steps=3,4", "--minutes", "1"], "--steps and --minutes are lengths of the same run: give one"),
        (["--over", "steps=3,4", "--over", "epochs=1,2"], "--steps and --epochs are lengths of the same run: give one"),
    ],
)
def test_the_command_line_tells_it_before_any_work(
    over: list[str], told: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["sweep", "rnn", *over, "--out", str(tmp_path / "s")])
    assert stop.value.code == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


# --- trials


def test_the_first_trial_has_the_defaults_and_the_best_is_the_least(fake: Fake, asked: dict[str, Any]) -> None:
    found = sweep(Sweep(**asked))
    values = [trial["value"] for trial in found["trials"]]
    assert [trial["trial"] for trial in found["trials"]] == [0, 1, 2, 3]
    assert (fake.asked[0].lr, fake.asked[0].batch) == (None, 16)
    assert found["trials"][0]["settings"]["batch"] == 16
    assert found["trials"][0]["settings"]["lr"] > 0  # the recipe's
    assert values == [value_of(settings) for settings in fake.asked]
    assert found["best"] == values.index(min(values))
    assert all(1e-4 <= (settings.lr or 0) <= 1e-2 for settings in fake.asked[1:])


def test_the_same_command_adds_only_what_is_missing(fake: Fake, asked: dict[str, Any]) -> None:
    sweep(Sweep(**asked | {"trials": 2}))
    found = sweep(Sweep(**asked))
    assert [Path(str(settings.out)).name for settings in fake.asked] == ["000", "001", "002", "003"]
    assert len({settings.lr for settings in fake.asked}) == 4
    assert len(found["trials"]) == 4
    with pytest.raises(UserError, match="of other settings"):
        sweep(Sweep(**asked | {"steps": 7}))


def test_a_sweep_in_pieces_draws_what_one_in_one_piece_does(fake: Fake, asked: dict[str, Any], tmp_path: Path) -> None:
    whole = sweep(Sweep(**asked))
    fake.stop = {2}
    pieces = asked | {"out": str(tmp_path / "pieces")}
    with pytest.raises(Interrupted):
        sweep(Sweep(**pieces))
    found = sweep(Sweep(**pieces))
    assert [t["settings"] for t in found["trials"]] == [t["settings"] for t in whole["trials"]]
    assert all(trial["state"] == "done" for trial in found["trials"])


def test_a_failed_trial_is_told_of_and_the_sweep_goes_on(fake: Fake, asked: dict[str, Any]) -> None:
    fake.fail = {1}
    found = sweep(Sweep(**asked))
    assert [trial["state"] for trial in found["trials"]] == ["done", "failed", "done", "done"]
    assert found["trials"][1]["why"] == "the loss is no number"
    assert "the loss is no number" in Reader(render_sweep(found)).text


def test_a_sweep_of_which_nothing_worked_says_why(fake: Fake, asked: dict[str, Any]) -> None:
    fake.fail = {0, 1, 2, 3}
    with pytest.raises(UserError, match="all 4 trials failed; the first: the loss is no number"):
        sweep(Sweep(**asked))


def test_what_is_refused_of_the_defaults_ends_a_sweep_and_costs_no_trial(
    fake: Fake, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(settings: Train, callbacks: list[Callback]) -> dict[str, Any]:
        raise UserError("the text is too short")

    monkeypatch.setattr(trials, "train_alone", refused)
    for _ in range(4):
        with pytest.raises(UserError, match="the text is too short") as caught:
            sweep(Sweep(**asked))
        assert caught.value.code == 2
    monkeypatch.setattr(trials, "train_alone", fake)
    assert [trial["state"] for trial in sweep(Sweep(**asked))["trials"]] == ["done"] * 4


def test_a_trial_that_is_scored_in_another_unit_is_not_compared(
    fake: Fake, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def mixed(settings: Train, callbacks: list[Callback]) -> dict[str, Any]:
        words = settings.tokenizer == "word"
        figure = "validation_loss" if words else "validation_bits_per_byte"
        for callback in callbacks:
            callback(Moment("evaluation", 1, {figure: 9.0 if words else 2.0}, None, Path(".")))  # type: ignore[arg-type]
        return {"validation": {"nats": 10.0, "targets": 100} if words else {"bits_per_byte": 2.0}}

    monkeypatch.setattr(trials, "train_alone", mixed)
    found = sweep(Sweep(**asked | {"over": ("tokenizer=bpe,word",), "trials": 8}))
    states = {trial["settings"]["tokenizer"]: trial["state"] for trial in found["trials"]}
    assert states == {"bpe": "done", "word": "failed"}
    assert found["unit"] == "bits per byte"
    assert {trial["why"] for trial in found["trials"]} == {
        "",
        "it is scored in nats a token, and others in bits per byte, which cannot be compared",
    }


def test_the_defaults_decide_the_unit_though_others_were_scored_before(fake: Fake, asked: dict[str, Any]) -> None:
    folder = Path(asked["out"])
    settings = Sweep(**asked | {"trials": 2})
    study = open_study(settings, folder)
    early, late = study.ask(), study.ask()  # 0 and 1, of which 1 is scored first
    trials.require_unit(study, late, folder, 1, "nats a token")
    study.tell(late, 7.0)
    trials.require_unit(study, early, folder, 0, "bits per byte")
    study.tell(early, 2.0)
    found = found_by(settings, space(settings), study, folder)
    assert [trial["state"] for trial in found["trials"]] == ["done", "failed"]
    assert (found["best"], found["unit"]) == (0, "bits per byte")
    assert "scored in nats a token" in found["trials"][1]["why"]


def test_a_study_that_cannot_be_written_ends_a_sweep_in_a_line_and_costs_no_trial(
    fake: Fake, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    sweep(Sweep(**asked | {"trials": 1}))
    for _ in range(4):
        with monkeypatch.context() as patched:
            patched.setattr(optuna.trial.Trial, "report", full)
            with pytest.raises(PassingError, match=r"cannot work with .*study.db: database or disk is full"):
                sweep(Sweep(**asked))
    assert [trial["state"] for trial in sweep(Sweep(**asked))["trials"]] == ["done"] * 4


def test_a_damaged_study_is_told_of_in_a_line(fake: Fake, asked: dict[str, Any]) -> None:
    sweep(Sweep(**asked | {"trials": 1}))
    (Path(asked["out"]) / "study.db").write_bytes(b"no database" * 1000)
    with pytest.raises(PassingError, match="file is not a database"):
        sweep(Sweep(**asked))


@pytest.mark.parametrize("name", ["{a}", "what?", "a%20b", "a#b c"])
def test_a_folder_may_have_any_name(name: str, fake: Fake, asked: dict[str, Any], tmp_path: Path) -> None:
    sweep(Sweep(**asked | {"out": str(tmp_path / name), "trials": 2}))
    assert [path.name for path in tmp_path.rglob("study.db")] == ["study.db"]
    assert (tmp_path / name / "study.db").exists()


def test_several_workers_need_a_text_in_a_file_and_a_folder_that_can_be_locked(
    fake: Fake, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="standard input"):
        sweep(Sweep(**asked | {"data": "-", "workers": 2}))

    def without(handle: int) -> bool:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(lock, "locked", without)
    with pytest.raises(UserError, match="only one worker"):
        sweep(Sweep(**asked | {"workers": 2}))
    assert len(sweep(Sweep(**asked | {"trials": 2}))["trials"]) == 2


def test_being_terminated_outside_of_training_is_no_death(
    fake: Fake, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def terminated(settings: Train, callbacks: list[Callback]) -> dict[str, Any]:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        raise AssertionError("it went on")

    before = signal.getsignal(signal.SIGTERM)
    for _ in range(4):
        with monkeypatch.context() as patched:
            patched.setattr(trials, "train_alone", terminated)
            with pytest.raises(KeyboardInterrupt):
                sweep(Sweep(**asked))
    assert signal.getsignal(signal.SIGTERM) is before
    assert [trial["state"] for trial in sweep(Sweep(**asked))["trials"]] == ["done"] * 4


def test_the_page_has_a_place_for_a_default_that_is_written_otherwise(fake: Fake, asked: dict[str, Any]) -> None:
    found = sweep(Sweep(**asked | {"over": ("clip=0,1",), "clip": 1}))
    assert len([trial for trial in found["trials"] if trial["state"] == "done"]) == 4


def test_what_is_worse_than_the_median_ends_early_but_never_the_defaults(fake: Fake, asked: dict[str, Any]) -> None:
    found = sweep(Sweep(**asked | {"trials": 14}))
    states = [trial["state"] for trial in found["trials"]]
    assert states[:5] == ["done"] * 5
    assert "pruned" in states
    done = [trial["value"] for trial in found["trials"] if trial["state"] == "done"]
    assert found["trials"][found["best"]]["value"] == min(done)
    sweep(Sweep(**asked | {"trials": 14, "prune": "none", "out": asked["out"] + "-all"}))
    assert fake.asked[0].out != fake.asked[14].out


def taken(asked: dict[str, Any], pipe: Any) -> None:
    """In a process of its own: take a trial, say so, and wait to be killed."""
    settings = Sweep(**asked)
    study, folder = open_study(settings, Path(asked["out"])), Path(asked["out"])
    with next_trial(study, folder, settings.trials, 0) as got:
        assert got is not None
        pipe.send(got[0])
        pipe.recv()


def test_workers_take_different_trials_and_a_killed_ones_is_carried_on(fake: Fake, asked: dict[str, Any]) -> None:
    here, there = multiprocessing.Pipe()
    worker = multiprocessing.get_context("spawn").Process(target=taken, args=(asked, there))
    worker.start()
    assert here.recv() == 0
    found = sweep(Sweep(**asked))
    assert [trial["state"] for trial in found["trials"]] == ["at work", "done", "done", "done"]
    worker.kill()
    worker.join()
    found = sweep(Sweep(**asked))
    assert [trial["state"] for trial in found["trials"]] == ["done"] * 4
    assert [Path(str(settings.out)).name for settings in fake.asked] == ["001", "002", "003", "000"]


def test_a_trial_that_kills_its_process_each_time_fails_in_the_end_and_the_others_are_done(
    fake: Fake, asked: dict[str, Any]
) -> None:
    for _ in range(3):
        here, there = multiprocessing.Pipe()
        worker = multiprocessing.get_context("spawn").Process(target=taken, args=(asked, there))
        worker.start()
        assert here.recv() == 0
        worker.kill()
        worker.join()
    found = sweep(Sweep(**asked))
    assert [(trial["trial"], trial["state"]) for trial in found["trials"]] == [
        (0, "failed"),
        (1, "done"),
        (2, "done"),
        (3, "done"),
    ]
    assert found["trials"][0]["why"] == "its process died 3 times, as when memory runs out"
    assert sweep(Sweep(**asked))["trials"] == found["trials"]


def test_being_asked_to_stop_is_no_death(fake: Fake, asked: dict[str, Any]) -> None:
    for _ in range(5):
        fake.stop = {1}
        with pytest.raises(Interrupted):
            sweep(Sweep(**asked))
    assert [trial["state"] for trial in sweep(Sweep(**asked))["trials"]] == ["done"] * 4


def test_a_full_disk_ends_a_sweep_and_costs_no_trial(
    fake: Fake, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(settings: Train, callbacks: list[Callback]) -> dict[str, Any]:
        if Path(str(settings.out)).name == "001":
            require_space(Path(), math.inf, "the text")
        return fake(settings, callbacks)

    monkeypatch.setattr(trials, "train_alone", full)
    for _ in range(4):  # which is no death
        with pytest.raises(PassingError, match="the text takes about"):
            sweep(Sweep(**asked))
    monkeypatch.setattr(trials, "train_alone", fake)
    assert [trial["state"] for trial in sweep(Sweep(**asked))["trials"]] == ["done"] * 4


def test_a_sweep_that_one_worker_began_is_joined_by_several_and_a_trial_keeps_its_threads(
    fake: Fake, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.stop = {1}
    with pytest.raises(Interrupted):
        sweep(Sweep(**asked))
    (Path(asked["out"]) / "trials" / "001" / "train.json").write_text('{"threads": 7}')
    monkeypatch.setattr(workers, "by_processes", lambda *_: iter(()))  # the parent does what they leave
    found = sweep(Sweep(**asked | {"workers": 4}))
    assert [trial["state"] for trial in found["trials"]] == ["done"] * 4
    share = max(1, machine.cores() // 4)
    assert [settings.threads for settings in fake.asked] == [None, None, 7, share, share]


@pytest.mark.parametrize(
    ("visible", "count", "wanted"),
    [(None, 0, []), (None, 2, ["0", "1"]), ("2,3", 2, ["2", "3"]), ("GPU-x", 1, ["GPU-x"])],
)
def test_workers_share_the_gpus_that_may_be_used(
    visible: str | None, count: int, wanted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(workers.torch.cuda, "device_count", lambda: count)
    assert workers.visible_gpus() == wanted


def test_a_trial_whose_run_is_locked_is_left_alone(fake: Fake, asked: dict[str, Any]) -> None:
    fake.stop = {1}
    with pytest.raises(Interrupted):
        sweep(Sweep(**asked))
    held = Lock(Path(asked["out"]) / "trials" / "001")
    held.take()
    assert sweep(Sweep(**asked))["trials"][1]["state"] == "at work"
    held.free()
    assert sweep(Sweep(**asked))["trials"][1]["state"] == "done"


def test_several_workers_do_all_trials_though_one_of_them_is_killed(
    asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = {"tokenizer": "bytes", "context": 16, "layers": 1, "dim": 16, "steps": 2, "trials": 4, "compile": "no"}
    settings, folder = Sweep(**asked | small | {"workers": 2, "threads": 1}), Path(asked["out"])
    crew = workers.by_processes

    def weakened(*args: Any) -> Iterator[None]:
        looks = crew(*args)
        next(looks)
        multiprocessing.active_children()[0].kill()
        yield from looks

    monkeypatch.setattr(workers, "by_processes", weakened)
    parent = workers.work

    def last(given: Sweep) -> dict[str, Any]:  # what the parent does when they have ended: of four trials not all
        done = [t.state.is_finished() for t in places(open_study(given, folder)).values()]
        assert sum(done) >= 3, "the worker that was left did no trials"
        return parent(given)

    monkeypatch.setattr(workers, "work", last)
    found = sweep(settings)
    told = capsys.readouterr().err
    assert told.count("ended with") == told.count("ended with -9") == 1
    assert [trial["state"] for trial in found["trials"]] == ["done"] * 4
    assert any((folder / workers.LOGS / f"{number}.log").exists() for number in range(2))


@pytest.mark.slow
def test_workers_of_a_ray_cluster_work_in_the_sweep_s_own_folder(
    asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(tmp_path)
    small = {"tokenizer": "bytes", "context": 16, "layers": 1, "dim": 16, "steps": 2, "trials": 4, "compile": "no"}
    settings = Sweep(**asked | small | {"out": "here", "workers": 2, "threads": 1, "engine": "ray"})
    parent = workers.work

    def last(given: Sweep) -> dict[str, Any]:
        done = [trial.state.is_finished() for trial in places(open_study(given, Path("here"))).values()]
        assert done == [True] * 4, "the cluster's workers did them"
        return parent(given)

    monkeypatch.setattr(workers, "work", last)
    assert [trial["state"] for trial in sweep(settings)["trials"]] == ["done"] * 4
    assert sorted(path.name for path in tmp_path.rglob("study.db")) == ["study.db"]


def test_a_real_trial_goes_on_from_its_checkpoint(asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"tokenizer": "bytes", "context": 16, "layers": 1, "dim": 16, "steps": 6, "eval_every": 2, "trials": 2}
    settings = Sweep(**asked | small | {"threads": 1, "compile": "no"})
    real = trials.train_alone

    def killed(given: Train, callbacks: list[Callback]) -> dict[str, Any]:
        def die(moment: Moment) -> None:
            if moment.event == "save" and moment.step == 4 and str(given.out).endswith("001"):
                raise KeyboardInterrupt

        return real(given, [*callbacks, die])

    monkeypatch.setattr(trials, "train_alone", killed)
    with pytest.raises(KeyboardInterrupt):
        sweep(settings)
    monkeypatch.setattr(trials, "train_alone", real)
    found = sweep(settings)
    assert [trial["state"] for trial in found["trials"]] == ["done", "done"]
    run = Path(found["trials"][1]["folder"])
    steps = [line["step"] for line in read_log(run) if "validation_bits_per_byte" in line]
    assert steps == [2, 4, 6]  # nothing twice
    bits = json.loads((run / "summary.json").read_text())["validation"]["bits_per_byte"]
    assert found["trials"][1]["value"] == bits
    study = open_study(settings, Path(asked["out"]))
    assert len(study.get_trials()) == 3  # one life more than trials
    assert list(places(study)[1].intermediate_values) == [1, 2, 3]
    assert work_folder(Path(asked["out"]), 1).is_dir()


def test_a_folder_of_something_else_is_refused(fake: Fake, asked: dict[str, Any]) -> None:
    (Path(asked["out"])).mkdir()
    (Path(asked["out"]) / "mine.txt").write_text("x")
    with pytest.raises(UserError, match="is no sweep"):
        sweep(Sweep(**asked))
    assert [path.name for path in Path(asked["out"]).iterdir()] == ["mine.txt"]


# --- what is shown


def test_the_page_and_the_table_have_the_trials(fake: Fake, asked: dict[str, Any]) -> None:
    fake.fail = {2}
    found = sweep(Sweep(**asked | {"trials": 13}))
    page = Reader(Path(asked["out"], "report.html").read_text())
    rows = [attrs["id"] for tag, attrs in page.elements if tag == "tr" and "id" in attrs]
    assert sorted(rows) == sorted(f"trial-{number}" for number in range(13))
    assert not [tag for tag, _ in page.elements if tag == "script"]
    assert "Best is trial" in page.text
    table = sweep_table(found)
    assert table[1][0].startswith(f"{found['best']:03d}")
    assert any(row[0] == "000 (defaults)" for row in table)


def test_the_command_prints_one_json_object(
    fake: Fake, asked: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sweep", "rnn", "--data", asked["data"], "--out", asked["out"], "--trials", "2", "--json"]
    main([*words, "--over", "lr=1e-4..1e-2", "--over", "batch=8,16"])
    found = json.loads(capsys.readouterr().out)
    assert list(found["over"]) == ["lr", "batch"]
    assert len(found["trials"]) == 2


def test_a_missing_optuna_is_named_with_its_extra(asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(UserError, match=r"hornbook\[sweep\]"):
        sweep(Sweep(**asked))
