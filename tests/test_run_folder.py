"""The run folder: what it keeps and finds again, what it says when the disk or another process is in its way."""

from __future__ import annotations

import contextlib
import copy
import errno
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from faults import KINDS, Faults
from helpers import tiny_model
from hornbook.atomic import folder_written_aside, point, remove_leftovers, written_aside
from hornbook.checkpoint import load, read_weights
from hornbook.cli import main
from hornbook.errors import PassingError, UserError, WorkError
from hornbook.formats.weights import open_weights
from hornbook.layers.model import LanguageModel
from hornbook.manifest import damage, read_manifest
from hornbook.run import KEPT, SNAPSHOTS, Run, read_log, read_tensors
from hornbook.small_files import read_object
from hornbook.text.tokenizer_training import train_tokenizer
from hornbook.training import guard
from hornbook.training.optimizers import OPTIMIZERS, Optimizers
from hornbook.training.space import checkpoint_bytes

TOKENIZER = train_tokenizer("bytes", [])
SETTINGS = {"model": "x", "lr": 0.1}


@functools.cache
def model_of(step: int) -> LanguageModel:
    """The model that a run has at a step."""
    return tiny_model("llama", seed=step, vocab=TOKENIZER.vocab, layers=1)


def fresh() -> LanguageModel:
    """A model to fill."""
    return copy.deepcopy(model_of(99))


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one, as a disk takes its time to sync."""
    shared = Path("/dev/shm")
    if not (shared.is_dir() and os.access(shared, os.W_OK)):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        yield Path(folder)


def log_and_save(run: Run, step: int, best: bool = False) -> None:
    run.log(step=step, loss=1 / step)
    run.save(step, model_of(step), TOKENIZER, {"x": torch.full((3,), step)}, {"step": step}, best)


def restored_by(run: Run, model: LanguageModel) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """Fill a model from the newest whole checkpoint; what else that holds."""
    name = run.find()
    if name is None:
        return None
    folder = run.checkpoints / name
    read_weights(folder, model)
    return read_tensors(folder / "state/state.safetensors"), read_object(folder / "state/state.json")


def make(folder: Path, steps: int, best: tuple[int, ...] = (1,)) -> Path:
    """The folder of a run that saved at each step."""
    with Run(folder) as run:
        run.begin(SETTINGS)
        for step in range(1, steps + 1):
            log_and_save(run, step, step in best)
    return folder


def carried_on(folder: Path) -> int:
    """Carry the run on, as the same command does, up to where it begins to train; the step that it stands at.

    Everything that the checkpoint holds must be that step's, and so must the log and the links.
    """
    with Run(folder) as run:
        run.begin(SETTINGS)
        model = fresh()
        restored = restored_by(run, model)
    step = int(restored[1]["step"]) if restored else 0
    assert [line["step"] for line in read_log(folder)] == list(range(1, step + 1))
    assert not list(folder.rglob("*.part"))
    if restored:
        assert restored[0]["x"].tolist() == [step] * 3
        same = zip(model.parameters(), model_of(step).parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in same)
        assert int((folder / "last").resolve().name.split("-")[0]) == step
        assert (folder / "model.safetensors").samefile(folder / "best" / "model.safetensors")
        assert (folder / "tokenizer_config.json").samefile(folder / "best" / "tokenizer_config.json")
    return step


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_the_last_two_checkpoints_and_the_best_are_kept(tmp_path: Path) -> None:
    folder = make(tmp_path / "x", 6, best=(1, 2))
    assert checkpoints(folder) == ["000002", "000005", "000006"]
    assert len(checkpoints(folder)) == KEPT
    assert (folder / "best").resolve().name == "000002"
    assert (folder / "model.safetensors").resolve() == folder / "checkpoints/000002/model.safetensors"
    assert not (folder / "manifest.json").exists()
    assert carried_on(folder) == 6
    assert torch.equal(load(folder).embedding.weight, model_of(2).embedding.weight)


def test_what_somebody_else_puts_beside_the_checkpoints_stays(tmp_path: Path) -> None:
    folder = make(tmp_path / "x", 2)
    for name in ("000001-int8", ".000002-int8.1f2e.99.part", "mine"):
        (folder / "checkpoints" / name).mkdir()
    make(folder, 5)
    assert {"000001-int8", ".000002-int8.1f2e.99.part", "mine"} < set(checkpoints(folder))
    assert "000001" not in checkpoints(folder)


def test_a_step_saved_again_takes_its_place_under_another_name(tmp_path: Path) -> None:
    folder = make(tmp_path / "x", 2)
    with Run(folder) as run:
        run.begin(SETTINGS)
        run.save(2, model_of(2), TOKENIZER, {"x": torch.full((3,), 2)}, {"step": 2, "again": True}, best=True)
        assert checkpoints(folder) == ["000001", "000002-2"]
        restored = restored_by(run, fresh())
    assert restored
    assert restored[1]["again"]
    assert (folder / "best").resolve().name == "000002-2"


@pytest.mark.parametrize("step", [2, 3])
def test_a_run_can_be_read_at_every_instant_of_a_save(step: int, memory: Path) -> None:
    folder = make(memory / "x", 2)
    links = ["last", "best", *(path.name for path in folder.iterdir() if path.is_symlink())]
    seen = []

    def look(number: int) -> None:
        seen.append(number)
        assert all((folder / link / ".").exists() or (folder / link).is_file() for link in links)
        assert any(not damage(path) for path in Run(folder).saved())

    with Run(folder) as run:
        run.begin(SETTINGS)
        with Faults(before=look):
            log_and_save(run, step, best=True)
    assert len(seen) > 40


# --- death


def begin_and_save(run: Run, step: int) -> None:
    """What a run does from its start to its next checkpoint."""
    run.begin(SETTINGS)
    restored_by(run, fresh())
    log_and_save(run, step, best=True)


def save_again(run: Run, step: int) -> None:
    """A step that is there already."""
    run.begin(SETTINGS)
    run.save(step, model_of(step), TOKENIZER, {"x": torch.full((3,), step)}, {"step": step}, False)


SCENES = {  # name -> what happens, up to which step; steps saved before, whether the last is damaged; what may be found
    "first start": (begin_and_save, 1, 0, False, {0, 1}),
    "next save": (begin_and_save, 3, 2, False, {2, 3}),
    "same step": (save_again, 2, 2, False, {2}),
    "damage": (begin_and_save, 3, 3, True, {2, 3}),
}


@pytest.mark.parametrize("scene", SCENES)
def test_a_death_between_any_two_operations_leaves_a_run_that_carries_on(scene: str, memory: Path) -> None:
    work, to, before, damaged, possible = SCENES[scene]
    folder = make(memory / "x", before) if before else memory / "x"
    if damaged:
        (folder / "checkpoints" / f"{before:06d}" / "config.json").unlink()

    def remember(number: int) -> None:
        """What is on the disk now is what a death at this instant leaves."""
        if folder.exists():
            shutil.copytree(folder, memory / f"{number:03d}", symlinks=True)

    with Run(folder) as run, Faults(before=remember) as faults:
        work(run, to)
    remember(faults.count + 1)
    shutil.rmtree(folder)
    seen = []
    for left in sorted(memory.iterdir()):
        torn = [path.name for path in Run(left).saved() if damage(path)]
        assert torn == [f"{before:06d}"] * damaged or (damaged and not torn)
        seen.append(carried_on(left))
        with Run(left) as run:
            begin_and_save(run, seen[-1] + 1)
        assert carried_on(left) == seen[-1] + 1
        assert len(checkpoints(left)) <= KEPT
    assert set(seen) == possible
    assert seen == sorted(seen)
    assert len(seen) > 40


# --- damage


def damages(folder: Path) -> Iterator[tuple[str, str]]:
    """Damage each file of the newest checkpoint in each way: what was done, and what must be said of it."""
    for path in sorted(p for p in (folder / "checkpoints/000003").rglob("*") if p.is_file()):
        name = str(path.relative_to(folder / "checkpoints/000003"))
        content = path.read_bytes()
        told = {"gone": "missing", "short": "bytes instead of", "flipped": "checksum", "empty": "bytes instead of"}
        if name == "manifest.json":
            told = {"gone": "has no manifest.json", "short": "cannot be read", "empty": "cannot be read"}
        for kind, words in told.items():
            if kind == "gone":
                path.unlink()
            else:
                middle = len(content) // 2
                flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
                path.write_bytes({"short": content[:-2], "flipped": flipped, "empty": b""}[kind])
            yield f"{name} {kind}", words
        path.write_bytes(content)


def test_a_damaged_checkpoint_is_told_of_and_the_one_before_it_used(
    memory: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = make(memory / "whole", 3, best=(1, 3))
    seen = 0
    for kind, words in damages(shutil.copytree(whole, memory / "x", symlinks=True)):
        folder = shutil.copytree(memory / "x", memory / "copy", symlinks=True)
        assert carried_on(folder) == 2, kind
        told = capfd.readouterr().err
        assert "damaged: checkpoint 000003: " in told
        assert words in told, kind
        assert "carrying on from checkpoint 000002" in told
        assert told.count("\n") == 1
        assert (folder / "best").resolve().name == "000001"  # as it was at step 2
        assert carried_on(folder) == 2
        assert capfd.readouterr().err == ""
        with Run(folder) as run:
            run.begin(SETTINGS)
            log_and_save(run, 3)
        assert checkpoints(folder) == ["000001", "000002", "000003"]
        shutil.rmtree(folder)
        seen += 1
    assert seen > 20


def test_a_run_without_a_whole_checkpoint_is_refused_with_what_is_wrong(tmp_path: Path) -> None:
    folder = make(tmp_path / "x", 3)
    for name in checkpoints(folder):
        (folder / "checkpoints" / name / "state" / "state.safetensors").write_bytes(b"")
    before = sorted(folder.rglob("*"))
    with Run(folder) as run:
        run.begin(SETTINGS)
        with pytest.raises(
            UserError, match=r"no checkpoint .* is whole \(checkpoint 000003: state/state.safetensors"
        ) as e:
            restored_by(run, fresh())
    assert "remove" in str(e.value)
    assert "\n" not in str(e.value)
    assert sorted(folder.rglob("*")) == before


def test_a_damaged_best_checkpoint_is_replaced_by_the_one_carried_on_from(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = make(tmp_path / "x", 4)
    with Run(folder) as run:
        run.find()
        assert not run.lost_best
    (folder / "checkpoints/000001/model.safetensors").unlink()
    with Run(folder) as run:
        assert run.find() == "000004"
        assert run.lost_best
    assert carried_on(folder) == 4
    assert "the best checkpoint, 000001, is damaged (model.safetensors is missing): 000004" in capfd.readouterr().err
    assert (folder / "best").resolve().name == "000004"


def test_links_that_were_not_moved_before_a_death_are_moved_by_the_next_start(tmp_path: Path) -> None:
    folder = make(tmp_path / "x", 3, best=(1, 3))
    for name, step in (("last", 2), ("best", 1)):
        (folder / name).unlink()
        (folder / name).symlink_to(f"checkpoints/{step:06d}")
    assert carried_on(folder) == 3
    assert (folder / "best").resolve().name == "000003"


def test_a_run_that_ended_before_its_first_checkpoint_starts_afresh_with_any_settings(tmp_path: Path) -> None:
    with Run(tmp_path / "x") as run:
        run.begin(SETTINGS | {"lr": 7})
        run.log(step=1, loss=2.0)
        (run.checkpoints / ".000001.part").mkdir()
        (run.folder / f".train.json.{os.getpid()}.part").write_text("{")
    assert carried_on(tmp_path / "x") == 0
    assert json.loads((tmp_path / "x" / "train.json").read_text()) == SETTINGS


def test_a_folder_in_which_a_run_had_only_begun_to_write_its_settings_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / ".train.json.999999999999999999999.part").write_text("{")
    (tmp_path / "x" / ".lock").write_text("")
    assert carried_on(tmp_path / "x") == 0
    (tmp_path / "y").mkdir()
    (tmp_path / "y" / "thesis.txt").write_text("")
    with pytest.raises(UserError, match="is not a run"):
        Run(tmp_path / "y").begin(SETTINGS)
    assert [path.name for path in (tmp_path / "y").iterdir()] == ["thesis.txt"]


def test_what_a_killed_process_left_of_a_folder_goes_an_hour_later(tmp_path: Path) -> None:
    target, long_ago = tmp_path / "x [8 bits]", time.time() - 4000
    for name, inside in (("a", long_ago), ("b", time.time())):
        (left := tmp_path / f".{target.name}.{name}.99.part").mkdir()
        (left / "model.safetensors").write_bytes(b"half")
        os.utime(left / "model.safetensors", (inside, inside))
        os.utime(left, (long_ago, long_ago))
    with folder_written_aside(target) as aside:
        (aside / "config.json").write_text("{}")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".x [8 bits].b.99.part", "x [8 bits]"]


def test_only_what_no_living_process_is_writing_is_swept_away(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        (tmp_path / f".a.{process.pid}.part").write_text("")
        (tmp_path / f".b.{os.getpid()}.part").mkdir()
        (tmp_path / ".c.part").symlink_to("nowhere")
        (tmp_path / ".d").write_text("")
        remove_leftovers(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == [f".a.{process.pid}.part", ".d"]
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".d"]


# --- the log


def test_the_log_is_cut_to_the_checkpoint_carried_on_from(tmp_path: Path) -> None:
    folder = make(tmp_path / "x", 3)
    with Run(folder) as run:
        run.begin(SETTINGS)
        run.log(step=4, loss=0.1)
        run.log(step=5, loss=0.1)
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"step": 6, "lo')
    assert carried_on(folder) == 3
    with Run(folder) as run:
        run.begin(SETTINGS)
        run.log(step=4, loss=0.2)
    assert [line["loss"] for line in read_log(folder)] == [1, 1 / 2, 1 / 3, 0.2]


def test_a_line_is_whole_where_the_system_takes_it_piece_by_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    with Run(tmp_path / "x") as run:
        run.begin(SETTINGS)
        monkeypatch.setattr(os, "write", lambda handle, data: real(handle, data[:5]))
        run.log(step=1, loss=0.123456789)
        run.log(step=2, loss=0.5)
        monkeypatch.undo()
    assert read_log(tmp_path / "x") == [{"step": 1, "loss": 0.123456789}, {"step": 2, "loss": 0.5}]


def test_a_log_that_lost_lines_is_told_of(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = make(tmp_path / "x", 3)
    (folder / "metrics.jsonl").write_bytes(b'{"step": 1, "loss": 1}\n\0\0\0\xff')
    with Run(folder) as run:
        run.begin(SETTINGS)
        assert restored_by(run, fresh())
        run.log(step=4)
    assert "lacks lines from before step 3" in capfd.readouterr().err
    assert [line["step"] for line in read_log(folder)] == [1, 4]


def path_of(handle: int) -> str:
    """Of an open file."""
    if sys.platform == "darwin":
        import fcntl

        return fcntl.fcntl(handle, fcntl.F_GETPATH, bytes(1024)).rstrip(b"\0").decode()
    return os.readlink(f"/proc/self/fd/{handle}")


def test_the_log_is_on_the_disk_before_the_checkpoint_that_it_leads_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = []

    def note(name: str, key: Any) -> None:
        real = getattr(os, name)

        def noted(*args: Any, **options: Any) -> Any:
            order.append((name, str(key(args[0]))))
            return real(*args, **options)

        monkeypatch.setattr(os, name, noted)

    note("fsync", path_of)
    note("rename", lambda path: path)
    make(tmp_path / "x", 1)
    synced = {path: place for place, (name, path) in enumerate(order) if name == "fsync"}
    renamed = next(place for place, (name, _) in enumerate(order) if name == "rename")
    inside = [path for path in synced if "/.000001.part" in path]
    assert synced[str(tmp_path / "x" / "metrics.jsonl")] < renamed
    assert {"manifest.json", "model.safetensors", "state.safetensors", "state"} <= {Path(path).name for path in inside}
    assert all(synced[path] < renamed for path in inside)
    assert synced[str(tmp_path / "x" / "checkpoints")] > renamed
    assert synced[str(tmp_path / "x")] > renamed


# --- the lock


def test_a_folder_at_work_is_refused_by_name_of_its_holder_and_free_afterwards(tmp_path: Path) -> None:
    folder = make(tmp_path / "x", 1)
    with Run(folder) as run:
        run.begin(SETTINGS)
        for attempt in (Run(folder).claim, lambda: Run(folder).begin(SETTINGS)):
            with pytest.raises(UserError, match=f"is in use by process {os.getpid()} on .*: wait until it ends"):
                attempt()
        assert load(folder).config.family == "llama"  # reading goes on
        run.claim()
    assert carried_on(folder) == 1


def held_by(folder: Path, body: str) -> Any:
    """Another process that holds the lock of a run, and then does `body`."""
    begin = f"import os, sys, time; from hornbook.run import Run; run = Run({str(folder)!r}); run.begin({SETTINGS!r})"
    return subprocess.Popen([sys.executable, "-c", f"{begin}\n{body}"], stdout=subprocess.PIPE, text=True)


def test_a_lock_ends_with_its_process_even_where_a_child_lives_on(tmp_path: Path) -> None:
    folder = make(tmp_path / "x", 1)
    body = "if not os.fork(): print(os.getpid(), flush=True)\ntime.sleep(600)"
    with held_by(folder, body) as process:
        child = int(process.stdout.readline())
        try:
            with pytest.raises(UserError, match=f"in use by process {process.pid} on"):
                Run(folder).claim()
            process.kill()
            process.wait()
            os.kill(child, 0)
            assert carried_on(folder) == 1
        finally:
            os.kill(child, signal.SIGKILL)


def test_the_command_line_says_in_one_line_that_a_run_is_in_use(
    tmp_path: Path, text_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with Run(tmp_path / "x") as run:
        run.begin(SETTINGS)
        with pytest.raises(SystemExit) as stop:
            main(["train", "bigram", "--data", str(text_folder), "--tokenizer", "bytes", "--out", str(tmp_path / "x")])
    assert stop.value.code == 2
    assert f"in use by process {os.getpid()}" in capfd.readouterr().err.splitlines()[-1]


def test_a_file_system_without_locks_is_told_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    folder = make(tmp_path / "x", 1)
    monkeypatch.setattr("hornbook.lock.fcntl.flock", refuse)
    with Run(folder) as run:
        run.claim()
        run.begin(SETTINGS)
        told = capfd.readouterr().err
    assert "cannot be locked (No locks available)" in told
    assert told.count("\n") == 1


# --- the disk


def test_a_checkpoint_s_folder_is_cleared_before_it_is_named_and_not_after(tmp_path: Path) -> None:
    """Several processes write into it at once, as soon as they know its name."""
    run = Run(tmp_path / "run")
    left = run.aside(5) / "state"
    left.mkdir(parents=True)
    aside = run.aside(5)
    assert aside == left.parent
    assert not aside.exists()
    left.mkdir(parents=True)  # by another process
    with run.written(aside, 5):
        assert left.is_dir()


def test_too_little_space_is_told_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path / "not" / "there" / "yet")
    monkeypatch.setattr("hornbook.run.shutil.disk_usage", lambda place: shutil._ntuple_diskusage(10**9, 0, 5_000_000))
    run.check_space(1_250_000)
    with pytest.raises(UserError, match=r"need 5\.2 MB \(4 of 1\.3 MB\), and its disk has 5\.0 MB free"):
        run.check_space(1_300_000)
    there = sum(path.stat().st_size for path in make(tmp_path / "x", 3).glob("checkpoints/**/*") if path.is_file())
    Run(tmp_path / "x").check_space((5_000_000 + there) // 4)
    with pytest.raises(UserError, match=r"of which .* are there"):
        Run(tmp_path / "x").check_space((5_000_000 + there) // 4 + 1)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("family", ["gpt2", "llama", "rnn"])
def test_the_size_of_a_checkpoint_is_known_before_there_is_one(name: str, family: str, tmp_path: Path) -> None:
    model = tiny_model(family, vocab=TOKENIZER.vocab, dim=128).train()
    optimizers = Optimizers(name, model, lr=0.01, decay=0.1, beta2=0.95)
    expected = checkpoint_bytes(model, optimizers.all)
    model.log_prob(torch.randint(9, (1, 8)), torch.randint(9, (1, 8))).sum().backward()
    optimizers.step(1.0)
    with Run(tmp_path / "x") as run:
        run.begin(SETTINGS)
        run.save(1, model, TOKENIZER, optimizers.tensors(), {}, best=True)
    weighty = (tmp_path / "x" / "checkpoints").rglob("*.safetensors")
    assert sum(path.stat().st_size for path in weighty) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_no_failure_of_the_disk_costs_a_checkpoint(kind: str, memory: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole, steps = make(memory / "whole", 2), set()
    for at in range(1, 500):
        folder, told = shutil.copytree(whole, memory / str(at), symlinks=True), ""
        with Run(folder) as run:
            run.begin(SETTINGS)
            assert restored_by(run, fresh())
            with Faults(at, kind) as faults:
                try:
                    log_and_save(run, 3, best=True)
                except UserError as error:
                    told = str(error)
        told += capfd.readouterr().err.strip()
        assert "\n" not in told
        if not faults.struck:
            break
        step = carried_on(folder)
        assert capfd.readouterr().err == ""
        assert step == 3 or (step == 2 and told), (at, told)
        steps.add(step)
        with Run(folder) as run:  # the disk is well again
            run.begin(SETTINGS)
            assert restored_by(run, fresh())
            log_and_save(run, step + 1)
        assert carried_on(folder) == step + 1
        shutil.rmtree(folder)
    assert steps == {2, 3}
    assert at > 50
    assert carried_on(folder) == 3


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="this system has no limits on files")
def test_files_that_the_system_does_not_let_grow_cost_no_checkpoint(memory: Path) -> None:
    import resource

    whole = make(memory / "whole", 2)
    sizes = {path.stat().st_size for path in (whole / "checkpoints" / "000002").rglob("*") if path.is_file()}
    sizes.add(read_manifest(whole / "checkpoints" / "000002")["log"])
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    for most in sorted({0, *sizes, *(size - 1 for size in sizes), *(size // 2 for size in sizes)}):
        folder = shutil.copytree(whole, memory / "copy", symlinks=True)
        told = ""
        with Run(folder) as run:
            run.begin(SETTINGS)
            assert restored_by(run, fresh())
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, limit[1]))
            try:
                log_and_save(run, 3)
            except UserError as error:
                told = str(error)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        assert carried_on(folder) == (2 if told else 3)
        assert bool(told) == (most < max(sizes))
        shutil.rmtree(folder)


def test_a_file_written_aside_leaves_nothing_behind_whatever_fails(tmp_path: Path) -> None:
    for at in range(1, 20):
        with contextlib.suppress(OSError), Faults(at, "ENOSPC") as faults, written_aside(tmp_path / "a") as aside:
            aside.write_text(f"text {at}")
        assert [path.name for path in tmp_path.iterdir()] in ([], ["a"])
        if not faults.struck:
            break
    assert (tmp_path / "a").read_text() == f"text {at}"
    assert at > 4


def test_a_log_line_neither_opens_nor_syncs_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Run(tmp_path / "x") as run:
        run.begin(SETTINGS)
        run.log(step=0)
        handles = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
        with monkeypatch.context() as patched:
            for name in ("open", "fsync"):
                patched.setattr(os, name, lambda *_, name=name: pytest.fail(f"os.{name} for a line"))
            for step in range(1000):
                run.log(step=step, loss=3.5, seconds=1.5, tokens=step)
        assert not handles or len(os.listdir("/proc/self/fd")) == handles
    assert len(read_log(tmp_path / "x")) == 1001


def test_lines_after_a_checkpoint_of_the_same_step_are_cut_too(tmp_path: Path) -> None:
    """An evaluation whose save failed: it is made again."""
    folder = make(tmp_path / "x", 3)
    with Run(folder) as run:
        run.begin(SETTINGS)
        run.log(step=3, validation_loss=1.0)
    assert carried_on(folder) == 3
    assert not any("validation_loss" in line for line in read_log(folder))


def test_two_that_write_one_file_aside_do_not_meet_even_under_one_number(tmp_path: Path) -> None:
    """Processes of two machines that share a folder may have the same number."""
    with written_aside(tmp_path / "x") as one:
        one.write_text("one")
        with written_aside(tmp_path / "x") as other:
            assert other != one
            other.write_text("other")
        assert (tmp_path / "x").read_text() == "other"
    assert (tmp_path / "x").read_text() == "one"
    assert len(list(tmp_path.iterdir())) == 1


def test_weights_read_through_a_link_that_moves_are_all_of_one_checkpoint(tmp_path: Path) -> None:
    folder = make(tmp_path / "x", 2, best=(1, 2))
    with open_weights(folder) as weights:
        first, *others = weights.values()
        one = first.read()
        point(folder / "best", folder / "checkpoints" / "000001")
        found = [one, *(other.read() for other in others)]
    wanted = read_tensors(folder / "checkpoints" / "000002" / "model.safetensors").values()
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_what_went_wrong_in_the_doing_ends_with_1_and_a_wrong_request_with_2() -> None:
    assert (UserError.code, WorkError.code, PassingError.code, guard.refuse("nan", 1, 1).code) == (2, 1, 1, 1)


def test_snapshots_of_a_run_without_a_checkpoint_do_not_outlive_it(tmp_path: Path) -> None:
    with Run(tmp_path / "x") as run:
        run.begin(SETTINGS | {"lr": 7})
        (run.folder / SNAPSHOTS / "000001").mkdir(parents=True)
    with Run(tmp_path / "x") as run:
        run.begin(SETTINGS)
        assert not (run.folder / SNAPSHOTS).exists()
