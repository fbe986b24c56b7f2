"""The loop and its parts, on tiny models."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from helpers import VOCAB, stream, tiny_model
from hornbook.checkpoint import load
from hornbook.cli import main
from hornbook.config import Finetune, Train
from hornbook.data.batches import NO_TARGET, Batch
from hornbook.errors import UserError
from hornbook.run import read_log
from hornbook.training.adafactor import Adafactor
from hornbook.training.callbacks import Moment
from hornbook.training.engine import backward
from hornbook.training.finetune import finetune
from hornbook.training.objective import Objective
from hornbook.training.optimizers import OPTIMIZERS, Optimizers
from hornbook.training.prepare import changed
from hornbook.training.pretrain import train
from hornbook.training.schedules import SCHEDULES, rate_factor
from hornbook.training.session import by_heart, read_often

TINY = {
    "tokenizer": "bytes",
    "layers": 1,
    "dim": 32,
    "context": 32,
    "batch": 4,
    "precision": "float32",
    "device": "cpu",
}


def settings(text_folder: Path, out: Path, **changes: object) -> Train:
    return Train(**({"model": "gpt2-tiny", "data": str(text_folder), "out": str(out), "heads": 2} | TINY | changes))


def batch(rows: int, targets: list[int], seed: int) -> Batch:
    """Rows of 12 tokens, of which row i has targets[i]."""
    x = torch.randint(3, VOCAB, (rows, 13), generator=torch.Generator().manual_seed(seed))
    goals = x[:, 1:].clone()
    for row, count in enumerate(targets):
        goals[row, count:] = NO_TARGET
    return Batch(x[:, :-1], goals)


def test_accumulating_unequal_batches_equals_one_large_batch() -> None:
    whole = batch(4, [12, 3, 7, 1], seed=0)
    parts = [Batch(whole.tokens[i : i + 1], whole.targets[i : i + 1]) for i in range(4)]
    gradients, losses = [], []
    for group in ([whole], parts):
        model = tiny_model("llama")
        losses.append(float(backward(Objective(model), group, 23, nullcontext)))
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    # sums of about 1,000 products in another order, relative to the largest gradient
    assert (gradients[0] - gradients[1]).abs().max() < 1e-5 * gradients[0].abs().max()


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_warms_up_then_never_rises(name: str) -> None:
    factors = [rate_factor(name, step, 10, step / 100) for step in range(100)]
    assert factors[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(factors[9:]))
    assert max(factors) == 1
    assert name == "constant" or factors[-1] < 0.15


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser_lowers_the_loss_and_its_state_survives_a_restart(name: str) -> None:
    x = torch.from_numpy(stream(65))[None]
    group = [Batch(x[:, :-1], x[:, 1:])]

    def steps(model: torch.nn.Module, optimizers: Optimizers, count: int) -> list[float]:
        found = []
        for _ in range(count):
            found.append(float(backward(Objective(model), group, 64, nullcontext)))
            optimizers.step(1.0)
        return found

    model = tiny_model("llama")
    optimizers = Optimizers(name, model, 3e-3, 0.1, 0.95)
    losses = steps(model, optimizers, 10)
    assert losses[-1] < losses[0]
    again = tiny_model("llama")
    again.load_state_dict(model.state_dict())
    restored = Optimizers(name, again, 3e-3, 0.1, 0.95)
    restored.restore({key: value.clone() for key, value in optimizers.tensors().items()})
    assert steps(again, restored, 5) == steps(model, optimizers, 5)


def test_adafactor_steps_as_hugging_face_does_with_an_absolute_rate() -> None:
    transformers = pytest.importorskip("transformers.optimization")
    generator = torch.Generator().manual_seed(0)
    starts = [torch.randn(shape, generator=generator) for shape in ((6, 9), (9,), (2, 3, 4))]
    ours, theirs = ([torch.nn.Parameter(start.clone()) for start in starts] for _ in range(2))
    optimizers = (
        Adafactor(ours, lr=0.02, weight_decay=0.1),
        transformers.Adafactor(theirs, lr=0.02, weight_decay=0.1, scale_parameter=False, relative_step=False),
    )
    for _ in range(20):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn(one.shape, generator=generator)
            other.grad = one.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for one, other, start in zip(ours, theirs, starts, strict=True):
        # Numbers of size 2 to 4 are rounded by 1.2e-7, twice a step (decay, update), in 20 steps.
        torch.testing.assert_close(one, other, rtol=0, atol=5e-6)
        assert float((one - start).abs().max()) > 0.05


def test_biases_and_norms_are_not_decayed() -> None:
    model = tiny_model("gpt2")
    before = {name: p.clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    Optimizers("adamw", model, 0.1, 0.5, 0.95).step(1.0)
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name]) == (p.ndim < 2), name


def test_a_run_folder_is_whole_and_tells_what_was_done(text_folder: Path, tmp_path: Path) -> None:
    summary = train(settings(text_folder, tmp_path / "run", steps=20, eval_every=10))
    log = read_log(tmp_path / "run")
    assert [line["step"] for line in log if "loss" in line] == list(range(1, 21))
    assert [line["step"] for line in log if "validation_loss" in line] == [10, 20]
    assert log[0]["loss"] == pytest.approx(math.log(259), rel=0.02)
    assert summary["steps"] == 20
    assert summary["tokens"] == 20 * 4 * 32
    assert summary["validation"]["bits_per_byte"] < log[0]["loss"] / math.log(2)
    assert (tmp_path / "run" / "last").resolve().name == "000020"
    assert not [p for p in (tmp_path / "run").rglob("*.p*") if p.suffix in (".part", ".pt", ".pkl")]
    model = load(tmp_path / "run")
    assert model.config.layers == 1
    assert load(tmp_path / "run" / "last").tokenizer.kind == "bytes"


def test_an_interrupted_run_carried_on_equals_one_that_never_stopped(text_folder: Path, tmp_path: Path) -> None:
    flags = ["--steps", "400", "--eval-every", "100", "--dropout", "0.1"]
    flags += ["--attention", "written-out", "--threads", "1", "--float32-matmul", "highest"]  # which runs may differ in
    flags += [f"--{key}={value}" for key, value in (TINY | {"heads": 2}).items()]

    def command(out: str) -> list[str]:
        return [
            sys.executable,
            "-m",
            "hornbook",
            "train",
            "gpt2-tiny",
            "--data",
            str(text_folder),
            "--out",
            out,
            *flags,
        ]

    def wait_for(folder: Path, lines: int, process: subprocess.Popen) -> None:
        deadline = time.monotonic() + 120
        while len(read_log(folder)) < lines:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)

    subprocess.run(command(str(tmp_path / "a")), check=True, capture_output=True)
    for kind, lines in ((signal.SIGINT, 7), (signal.SIGTERM, 30)):
        process = subprocess.Popen(command(str(tmp_path / "b")), stderr=subprocess.PIPE, stdout=subprocess.PIPE)
        wait_for(tmp_path / "b", lines, process)
        process.send_signal(kind)
        _, told = process.communicate(timeout=120)
        assert process.returncode == 130
        assert b"carries on" in told
        assert b"Traceback" not in told
    subprocess.run(command(str(tmp_path / "b")), check=True, capture_output=True)
    a, b = ((tmp_path / name / "last" / "model.safetensors").read_bytes() for name in "ab")
    assert a == b
    logs = [[(line["step"], line.get("loss")) for line in read_log(tmp_path / name)] for name in "ab"]
    assert logs[0] == logs[1]


def test_a_finished_run_is_not_trained_again(text_folder: Path, tmp_path: Path) -> None:
    first = train(settings(text_folder, tmp_path / "run", steps=3))
    stamp = os.stat(tmp_path / "run" / "last" / "model.safetensors").st_mtime_ns
    assert train(settings(text_folder, tmp_path / "run", steps=3)) == json.loads(json.dumps(first))
    assert os.stat(tmp_path / "run" / "last" / "model.safetensors").st_mtime_ns == stamp


def test_a_run_of_other_settings_is_not_touched(text_folder: Path, tmp_path: Path) -> None:
    train(settings(text_folder, tmp_path / "run", steps=2))
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    with pytest.raises(UserError, match=r"lr was .* and is now 0\.5\): choose another --out"):
        train(settings(text_folder, tmp_path / "run", steps=2, lr=0.5))
    assert {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()} == before


def test_a_refused_start_leaves_the_folder_free_for_the_corrected_one(text_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="fewer than one block"):
        train(settings(text_folder, tmp_path / "run", steps=2, context=100_000))
    with pytest.raises(UserError, match="does not fit into a context"):
        train(settings(text_folder, tmp_path / "run", steps=2, prompt="far too long " * 10))
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match="became nan"):
        train(settings(text_folder, tmp_path / "run", steps=50, lr=1e30, clip=0.0, warmup=0))
    assert train(settings(text_folder, tmp_path / "run", steps=2))["steps"] == 2
    assert [line["step"] for line in read_log(tmp_path / "run") if "loss" in line] == [1, 2]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("steps", -5),
        ("epochs", 0.0),
        ("minutes", -1.0),
        ("minutes", math.nan),
        ("minutes", math.inf),
        ("epochs", math.inf),
        ("seed", 2**63),
        ("batch", 0),
        ("accumulate", 0),
        ("context", 0),
        ("lr", -1.0),
        ("clip", -1.0),
        ("seed", -1),
        ("dropout", 2.0),
        ("layers", 0),
    ],
)
def test_a_number_out_of_range_is_refused_before_any_work(name: str, value: float, text_folder: Path) -> None:
    with pytest.raises(UserError, match=f"--{name} is {value}: it must be"):
        settings(text_folder, Path("unused"), **{name: value})


@pytest.mark.parametrize(
    ("lengths", "told"),
    [
        ({"steps": 5, "minutes": 1.0}, "--steps and --minutes are lengths of the same run: give one"),
        ({"epochs": 1.0, "steps": 5}, "--steps and --epochs"),
    ],
)
def test_two_lengths_of_one_run_are_refused_before_any_work(
    lengths: dict[str, float], told: str, text_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=told):
        train(settings(text_folder, tmp_path / "run", **lengths))
    with pytest.raises(UserError, match=told):
        finetune(Finetune("gpt2-tiny", "no-such-file.csv", **lengths))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("model", "changes", "told"),
    [
        ("gpt2-tiny", {"kv_heads": 1}, "has no --kv_heads"),
        ("llama-tiny", {"heads": 3, "dim": 36}, "3 heads cannot share 2"),
        ("llama-tiny", {"heads": 4, "dim": 20}, "of the 5 channels of a head 5 would turn"),
        ("pythia-tiny", {"heads": 4, "dim": 48}, "of the 12 channels of a head 3 would turn"),
        ("gpt2-tiny", {"heads": 3, "dim": 32}, "cannot be divided"),
    ],
)
def test_heads_that_cannot_be_are_refused(
    model: str, changes: dict[str, int], told: str, text_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=told):
        train(settings(text_folder, tmp_path / "run", steps=1, **({"model": model} | changes)))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"heads": 3, "dim": 32}, "cannot be divided among 3 heads"),
        ({"rows": 3}, "cannot be divided into parts of --rows 3"),
        ({"track": ("tensorbord",)}, "Did you mean 'tensorboard'"),
        ({"tasks": ("hellaswga",)}, "Did you mean 'hellaswag'"),
        ({"model": "rnn-tiny", "heads": None, "recompute": True}, "--recompute is for models made of blocks"),
        (
            {"model": "trigram", "heads": None, "layers": None, "dim": None, "context": None, "k": 0.5},
            "--smoothing add-k",
        ),
    ],
)
def test_what_does_not_go_together_is_said_before_a_text_is_looked_for(
    changes: dict[str, object], told: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=told):
        train(settings(tmp_path / "no-such-text", tmp_path / "run", steps=1, **changes))
    assert not (tmp_path / "run").exists()


def test_a_finished_run_is_told_of_on_a_full_disk_too(
    text_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = train(settings(text_folder, tmp_path / "run", steps=2))
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=0))
    assert train(settings(text_folder, tmp_path / "run", steps=2)) == summary
    with pytest.raises(UserError, match="MB free: free some"):
        train(settings(text_folder, tmp_path / "other", steps=2))


def test_a_loss_that_is_no_number_ends_the_run_with_the_batch_named(text_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the loss became nan at step \d+ \(batch \d+\)"):
        train(settings(text_folder, tmp_path / "run", steps=50, lr=1e30, clip=0.0, warmup=0))


def test_training_stops_early_when_evaluations_stop_improving(text_folder: Path, tmp_path: Path) -> None:
    summary = train(settings(text_folder, tmp_path / "run", steps=60, eval_every=5, patience=2, lr=0.0))
    assert summary["steps"] == 15  # the first evaluation is the best, the next two are not better


def test_a_run_is_served_and_summed_up_by_its_best_checkpoint(text_folder: Path, tmp_path: Path) -> None:
    flags = {"steps": 30, "eval_every": 10, "schedule": "constant", "warmup": 0}
    summary = train(settings(text_folder, tmp_path / "bad", **(flags | {"lr": 0.3})))
    folder = tmp_path / "bad"
    values = {line["step"]: line["validation_loss"] for line in read_log(folder) if "validation_loss" in line}
    best = min(values, key=values.__getitem__)
    assert (folder / "best").resolve().name == f"{best:06d}"
    # the summary scores with an overlapping stride and all tokens, the evaluation without: close, not equal
    assert math.log(summary["validation"]["token_perplexity"]) == pytest.approx(values[best], abs=0.2)


def test_an_encoder_trains_on_hidden_tokens_and_is_scored_apart(text_folder: Path, tmp_path: Path) -> None:
    summary = train(settings(text_folder, tmp_path / "run", model="bert-tiny", steps=10))
    assert "validation" not in summary
    assert 1 < summary["pseudo_perplexity"] < 1000


def test_a_budget_in_minutes_ends_near_it(text_folder: Path, tmp_path: Path) -> None:
    summary = train(settings(text_folder, tmp_path / "run", minutes=0.05))
    assert 3 <= summary["seconds"] < 60  # three seconds, and a step on a machine that is busy
    assert summary["steps"] > 1


def test_the_summary_of_a_counted_model_says_what_it_holds_after_counting(text_folder: Path, tmp_path: Path) -> None:
    summary = train(Train("trigram", data=str(text_folder), vocab=300, out=str(tmp_path / "run")))
    assert summary["parameters"] == load(tmp_path / "run").parameter_count() > 1000


def test_a_pattern_of_blocks_goes_on_through_all_layers() -> None:
    assert changed(Train("smollm3-tiny", layers=8)).unrotated == (3, 7)  # type: ignore[attr-defined]
    assert changed(Train("smollm3-tiny")).unrotated == (3,)  # type: ignore[attr-defined]


def test_too_long_a_context_is_told_of_before_a_model_is_built(
    text_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hornbook.models.build", lambda config: pytest.fail("it was built"))
    with pytest.raises(UserError, match="fewer than one block"):
        train(settings(text_folder, tmp_path / "run", steps=1, context=10**8))


def test_memory_that_runs_out_before_the_first_step_is_told_of_in_one_line(
    text_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

    monkeypatch.setattr("hornbook.training.engine.place", full)
    with pytest.raises(UserError, match="memory ran out while the model was placed"):
        train(settings(text_folder, tmp_path / "run", steps=1))
    monkeypatch.setattr("hornbook.training.pretrain.count", full)
    with pytest.raises(SystemExit) as ended:
        main(["train", "bigram", "--data", str(text_folder), "--out", str(tmp_path / "counted"), "--vocab", "300"])
    assert ended.value.code == 1
    assert "memory ran out (CUDA out of memory): take" in capfd.readouterr().err.splitlines()[-1]


def test_a_counted_run_that_died_leaves_no_line_behind(text_folder: Path, tmp_path: Path) -> None:
    def die(moment: Moment) -> None:
        raise InterruptedError

    asked = Train("bigram", data=str(text_folder), vocab=300, out=str(tmp_path / "run"))
    with pytest.raises(InterruptedError):
        train(asked, [die])
    train(asked)
    assert len(read_log(tmp_path / "run")) == 1


def test_a_recurrent_model_reads_rows_apart_of_which_one_is_padding_alone(text_folder: Path, tmp_path: Path) -> None:
    """The last window of an epoch may be."""
    (tmp_path / "text").mkdir()
    text = next(text_folder.iterdir()).read_text()[:600]
    for split in ("train", "validation"):
        (tmp_path / "text" / f"{split}.txt").write_text(text)
    asked = settings(tmp_path / "text", tmp_path / "run", model="rnn-tiny", heads=None, layers=None, context=8)
    asked = dataclasses.replace(asked, batch=1, apart=True, epochs=2.0, steps=None, tokenizer="bytes", vocab=None)
    assert train(asked)["steps"] > 0


def test_a_run_that_will_read_its_text_often_is_told_of_dropout_at_its_first_evaluation(
    text_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert read_often(9.9, 0.0) is None
    assert read_often(20.0, 0.1) is None
    assert read_often(20.0, None) is None  # counted
    (tmp_path / "text").mkdir()
    for split in ("train", "validation"):
        (tmp_path / "text" / f"{split}.txt").write_text(next(text_folder.iterdir()).read_text()[:600])
    asked = settings(tmp_path / "text", tmp_path / "often", steps=None, epochs=20.0, eval_every=5, dropout=0.0)
    train(asked)
    told = [line for line in capfd.readouterr().err.splitlines() if "--dropout 0.1" in line]
    assert told == ["at this speed the text will be read about 20 times: --dropout 0.1 is likely to do better"]
    train(dataclasses.replace(asked, out=str(tmp_path / "dropping"), dropout=0.1))
    assert "likely to do better" not in capfd.readouterr().err


def test_a_run_that_learns_its_text_by_heart_is_told_what_may_help(
    text_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert by_heart(90, 100, 4.0) is None
    assert by_heart(100, 100, 20.0) is None
    monkeypatch.setattr("hornbook.run.Run.best_step", 1)
    (tmp_path / "text").mkdir()
    for split in ("train", "validation"):
        (tmp_path / "text" / f"{split}.txt").write_text(next(text_folder.iterdir()).read_text()[:600])
    train(settings(tmp_path / "text", tmp_path / "few", steps=9))
    assert "by heart" not in capfd.readouterr().err
    train(settings(tmp_path / "text", tmp_path / "many", steps=50))
    told = capfd.readouterr().err
    assert re.search(r"best at step 1 of 50: after \d+ passes over the same text much is learnt by heart", told)
