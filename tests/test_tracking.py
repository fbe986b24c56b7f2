"""Callbacks, and the trackers among them: what TensorBoard, wandb and Trackio are told, and that none ends a run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from hornbook.config import Train
from hornbook.errors import UserError
from hornbook.layers.model import LanguageModel
from hornbook.training import tracking
from hornbook.training.callbacks import Callback, Event, Moment, table, tell
from hornbook.training.tracking import Tracker, sorted_out, tracker

DOCS = Path(__file__).parent.parent / "docs"
SETTINGS = {"model": "gpt2-tiny", "lr": 0.002}


def moment(event: Event, step: int, folder: Path = Path("run"), /, **values: Any) -> Moment:
    return Moment(event, step, values, cast(LanguageModel, None), folder)


def follow(callback: Callback, folder: Path, first: int, last: int, loss: float = 1.0) -> None:
    """A run from its step `first` on, one evaluation at its end."""
    for k in range(first, last + 1):
        figures = {"loss": loss, "seconds": k / 4, "tokens": 100 * k, "lr": 0.002, "gradient_norm": 0.5}
        callback(moment("step", k, folder, **figures))
    callback(moment("evaluation", last, folder, seconds=9.0, sample="The <cat>", validation_bits_per_byte=loss / 2))
    callback(moment("save", last, folder, folder=str(folder)))


class Recorder:
    """A sink that keeps what it is sent, and fails at one step."""

    where = "nowhere"

    def __init__(self, fails_at: int = 0) -> None:
        self.fails_at, self.sent, self.closed = fails_at, [], False

    def send(self, step: int, figures: dict[str, float], texts: dict[str, str]) -> None:
        if step == self.fails_at:
            raise OSError("no space left on device\nat all")
        self.sent.append((step, figures, texts))

    def flush(self) -> None: ...

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    sink = Recorder()
    monkeypatch.setitem(tracking.SINKS, "tensorboard", lambda *_: sink)
    return sink


# --- callbacks


def test_callbacks_are_called_in_turn_and_what_one_raises_is_not_hidden() -> None:
    called: list[str] = []

    def fail(_: Moment) -> None:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        tell([lambda m: called.append(f"first {m.step}"), fail, lambda m: called.append("last")], moment("step", 3))
    assert called == ["first 3"]


def test_the_table_has_its_headings_once_and_a_row_for_each_evaluation() -> None:
    lines: list[str] = []
    follow(callback := table(lines.append), Path("run"), 1, 10)
    follow(callback, Path("run"), 11, 20, loss=0.5)
    assert [line.split()[0] for line in lines] == ["step", "10", "20"]
    assert "0.250" in lines[2]  # bits per byte
    assert "-" in lines[2].split()  # no validation loss was told
    assert "The <cat>" in lines[2]


# --- what trackers are told


def test_figures_are_grouped_by_what_they_are_of() -> None:
    step = sorted_out(moment("step", 1, loss=2.0, seconds=1.0, tokens=10, lr=0.1, step=1))
    assert step == ({"train/loss": 2.0, "train/lr": 0.1}, {})
    evaluation = sorted_out(moment("evaluation", 1, step=1, seconds=1.0, sample="The", validation_loss=2.0))
    assert evaluation == ({"validation/loss": 2.0}, {"sample": "The"})
    masked = sorted_out(moment("evaluation", 1, sample=None, validation_masked_loss=2.0))
    assert masked == ({"validation/masked_loss": 2.0}, {})
    summary = {"steps": 5, "mfu": None, "engine": {"threads": "2"}, "model": "x"}
    end = sorted_out(moment("end", 5, **summary, validation={"bits_per_byte": 1.5, "document_nats": [1.0, 2.0]}))
    assert end == ({"final/steps": 5, "final/bits_per_byte": 1.5}, {})


def test_a_skipped_step_is_told_as_text() -> None:
    assert sorted_out(moment("step", 7, step=7, skipped="the loss became nan", batch=12)) == (
        {},
        {"skipped": "batch 12: the loss became nan"},
    )


def test_the_speed_of_a_step_leaves_out_what_was_done_before_it(recorder: Recorder, tmp_path: Path) -> None:
    callback = Tracker("tensorboard", tmp_path, SETTINGS)
    follow(callback, tmp_path, 1, 3)
    follow(callback, tmp_path, 4, 5)
    speeds = {
        step: figures.get("train/tokens_per_second") for step, figures, _ in recorder.sent if "train/loss" in figures
    }
    assert speeds == {1: None, 2: 400.0, 3: 400.0, 4: None, 5: 400.0}


def test_a_tracker_that_fails_says_so_once_and_the_run_goes_on(
    recorder: Recorder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder.fails_at = 4
    callback = Tracker("tensorboard", tmp_path, SETTINGS)
    follow(callback, tmp_path, 1, 9)
    assert [step for step, _, _ in recorder.sent] == [1, 2, 3]
    told = capsys.readouterr().err.splitlines()
    expected = "--track tensorboard failed at step 4 (no space left on device): the run goes on without it"
    assert told == ["tensorboard: nowhere", expected]


def test_ctrl_c_inside_a_tracker_is_not_swallowed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(tracking.SINKS, "tensorboard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        follow(Tracker("tensorboard", tmp_path, SETTINGS), tmp_path, 1, 1)


def test_a_tracker_is_closed_at_the_end_and_told_nothing_after_it(recorder: Recorder, tmp_path: Path) -> None:
    callback = Tracker("tensorboard", tmp_path, SETTINGS)
    follow(callback, tmp_path, 1, 2)
    callback(moment("end", 2, tmp_path, steps=2))
    told = len(recorder.sent)
    assert recorder.closed
    follow(callback, tmp_path, 3, 4)
    assert len(recorder.sent) == told


# --- asking for one


def test_an_unknown_tracker_is_told_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown tracker 'tensorbord'\. Did you mean 'tensorboard'"):
        tracker("tensorbord", tmp_path, SETTINGS)


@pytest.mark.parametrize(
    ("name", "told"),
    [("tensorboard", r"hornbook\[track\]"), ("wandb", "pip install wandb"), ("trackio", "install trackio")],
)
def test_a_missing_package_is_told_before_any_work(
    name: str, told: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UserError, match=f"--track {name} needs the package '{name}'.*{told}"):
        tracker(name, tmp_path, SETTINGS)


def test_several_trackers_are_asked_for_at_once() -> None:
    import tyro

    words = ["gpt2-tiny", "--track", "tensorboard", "wandb", "--seed", "3"]
    assert tyro.cli(Train, args=words).track == ("tensorboard", "wandb")


# --- TensorBoard, wandb, Trackio


def events(folder: Path) -> Any:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    return accumulator.EventAccumulator(
        str(folder / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0}
    ).Reload()


def test_tensorboard_is_told_all_and_nothing_is_written_before_the_first_moment(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    callback = tracker("tensorboard", tmp_path, SETTINGS)
    assert list(tmp_path.iterdir()) == []
    follow(callback, tmp_path, 1, 10)
    found = events(tmp_path)
    assert [e.step for e in found.Scalars("train/loss")] == list(range(1, 11))
    assert found.Scalars("train/lr")[0].value == pytest.approx(0.002)
    assert found.Scalars("validation/bits_per_byte")[0].value == 0.5
    assert found.Tensors("sample/text_summary")[0].tensor_proto.string_val == [b"    The <cat>"]
    assert b"lr: 0.002" in found.Tensors("settings/text_summary")[0].tensor_proto.string_val[0]
    callback(moment("end", 10, tmp_path, validation={"bits_per_byte": 0.4}))
    assert events(tmp_path).Scalars("final/bits_per_byte")[0].value == pytest.approx(0.4)


def test_tensorboard_drops_what_a_resumed_run_does_again(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    follow(tracker("tensorboard", tmp_path, SETTINGS), tmp_path, 1, 10, loss=1.0)
    follow(tracker("tensorboard", tmp_path, SETTINGS), tmp_path, 6, 12, loss=2.0)  # from the checkpoint of step 5
    losses = {e.step: e.value for e in events(tmp_path).Scalars("train/loss")}
    assert losses == {k: 1.0 if k <= 5 else 2.0 for k in range(1, 13)}


def test_a_disk_that_fills_up_under_tensorboard_leaves_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboard")
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    with open("/dev/full", "wb", buffering=0) as full:
        monkeypatch.setattr(tracking, "open", lambda *_: full, raising=False)
        follow(tracker("tensorboard", tmp_path, SETTINGS), tmp_path, 1, 10)
    (told,) = capsys.readouterr().err.splitlines()
    assert "No space left on device" in told
    assert "the run goes on without it" in told


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_tracking import SETTINGS, follow, moment
from hornbook.training.tracking import tracker
folder = Path({folder!r})
callback = tracker({name!r}, folder, SETTINGS)
follow(callback, folder, 1, 5)
callback(moment("end", 5, folder, validation={{"bits_per_byte": 0.4}}))
"""


def in_a_process_of_its_own(name: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """These packages keep threads and processes of their own."""
    pytest.importorskip(name)
    folder.mkdir()
    code = SCRIPT.format(tests=str(Path(__file__).parent), folder=str(folder), name=name)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "TRACKIO"))}
    environment = kept | {"TRACKIO_DIR": str(folder / "trackio"), "HOME": str(folder)}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def test_wandb_stays_offline_without_a_key(tmp_path: Path) -> None:
    done = in_a_process_of_its_own("wandb", tmp_path / "x")
    assert done.returncode == 0, done.stderr
    assert "failed" not in done.stderr
    assert "wandb sync" in done.stderr
    (stored,) = (tmp_path / "x" / "wandb").glob("offline-run-*/run-*.wandb")
    assert b"train/gradient_norm" in stored.read_bytes()


def test_trackio_keeps_its_figures_on_this_machine(tmp_path: Path) -> None:
    done = in_a_process_of_its_own("trackio", tmp_path / "x")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "failed" not in done.stderr
    import sqlite3

    with sqlite3.connect(tmp_path / "x" / "trackio" / "hornbook.db") as database:
        rows = database.execute("select step, metrics from metrics").fetchall()
    assert sorted({step for step, _ in rows}) == [1, 2, 3, 4, 5]
    assert any("train/gradient_norm" in str(metrics) for _, metrics in rows)


# --- the book


def test_the_callbacks_that_the_book_writes_run(tmp_path: Path) -> None:
    code = "\n".join(re.findall(r"```python\n(.*?)```", (DOCS / "training.md").read_text(), re.DOTALL))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = [line.split(",") for line in (tmp_path / "norms.csv").read_text().splitlines()]
    assert {step for step, *_ in rows} == {"10", "20"}
    assert all(float(norm) > 0 for *_, norm in rows)
    assert done.stdout.splitlines()[-1] == "good enough"
    assert (tmp_path / "runs" / "stopped" / "last").exists()
    assert not (tmp_path / "runs" / "stopped" / "summary.json").exists()
