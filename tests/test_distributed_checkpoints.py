"""Checkpoints that every process writes its part of: whole for any number of processes, or not there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import save_file

from helpers import tiny_model
from hornbook.checkpoint import consolidate, load, save_model
from hornbook.errors import UserError
from hornbook.manifest import damage
from hornbook.parallel.parts import STATE, parameters, read_parts, stored_parts, write_parts
from hornbook.run import Run
from hornbook.small_files import read_object
from test_parallel import HERE, alone, command, finished, interrupted, near, several, torchrun, write_text

WORKER = str(HERE / "checkpoint_worker.py")


@pytest.fixture
def group() -> Iterator[Any]:
    """This process as a group of one."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield dist.group.WORLD
    dist.destroy_process_group()


@pytest.fixture
def folder(tmp_path: Path, group: Any) -> Path:
    """A checkpoint whose weights lie in parts: here all in one."""
    model = tiny_model("llama", seed=3)
    save_model(tmp_path / "x", model, None, weights=False)
    known = write_parts(tmp_path / "x" / STATE, parameters(model) | {"rng": torch.get_rng_state()}, group)
    assert [*known] == [path.name for path in (tmp_path / "x" / STATE).iterdir()]
    return tmp_path / "x"


def same(one: Any, other: Any) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_a_checkpoint_in_parts_can_be_loaded_by_one_process(folder: Path) -> None:
    assert same(load(folder), tiny_model("llama", seed=3))
    assert load(folder, dtype="bfloat16").embedding.weight.dtype == torch.bfloat16
    assert load(folder, bits=8).quantization is not None


def test_consolidated_it_is_a_hugging_face_folder(folder: Path) -> None:
    consolidate(folder)
    shutil.rmtree(folder / STATE)
    assert same(load(folder), tiny_model("llama", seed=3))


def test_parts_are_put_together_and_a_missing_one_is_told_of(tmp_path: Path) -> None:
    whole = torch.arange(12.0).reshape(4, 3)
    for number, rows in ((1, slice(0, 3)), (2, slice(3, 4))):
        told = json.dumps({"w": {"saved_offsets": [rows.start, 0]}})
        path = tmp_path / f"shard-0000{number}-model-00001-of-00001.safetensors"
        save_file({"w": whole[rows].contiguous()}, path, {"DCP_SHARDING_INFO": told})
    found = torch.zeros(4, 3)
    read_parts(tmp_path, {"w": found})
    assert torch.equal(found, whole)
    with pytest.raises(UserError, match=r"'w' has shape \[4, 3\] in .*, not \[3, 4\]"):
        read_parts(tmp_path, {"w": torch.zeros(3, 4)})
    with pytest.raises(UserError, match="lacks the tensor 'v'"):
        read_parts(tmp_path, {"v": found})
    (tmp_path / "shard-00001-model-00001-of-00001.safetensors").unlink()
    with pytest.raises(UserError, match="lacks parts of the tensor 'w'"):
        stored_parts(tmp_path)


def test_damage_is_one_line(folder: Path) -> None:
    path = next((folder / STATE).iterdir())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="is damaged"):
        load(folder)


def test_numbers_that_are_none_are_refused(tmp_path: Path, group: Any) -> None:
    model = tiny_model("llama")
    save_model(tmp_path, model, None, weights=False)
    with torch.no_grad():
        model.embedding.weight[3, 3] = float("nan")
    write_parts(tmp_path / STATE, parameters(model), group)
    with pytest.raises(UserError, match=r"model\.embedding\.weight' holds NaN"):
        load(tmp_path)


def test_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    path = next((folder / STATE).iterdir())
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="leads out of its folder"):
        load(folder)


# --- several processes


def written(tmp_path: Path, count: int, how: str, tensor: int, kind: str, *cases: str) -> dict[str, Any]:
    """What checkpoint_worker.py finds."""
    started = torchrun(count, WORKER, str(tmp_path / "found"), str(tmp_path), how, str(tensor), kind, *cases)
    finished(started)
    return json.loads((tmp_path / "found").read_text())


def check(found: dict[str, Any], count: int) -> None:
    for case, facts in found.items():
        wrong = [name for name in ("weights", "state", "losses", "alone", "loaded", "loaded later") if not facts[name]]
        assert not wrong, (case, wrong)
        assert facts["moved"], "nothing was learnt while it was written"
        assert facts["told"] == [True, False], case  # the first is the best as of it
        parts = [f"state/shard-{n:05d}-model-00001-of-00001.safetensors" for n in range(1, count + 1)]
        rest = {"config.json", "generation_config.json", "manifest.json", "state/state.json"}
        assert {*parts, *rest, "model.safetensors"} <= {*facts["files"]}
        assert {*parts, *rest} <= {*facts["later"]}
        assert "model.safetensors" not in facts["later"]  # neither the best nor the end
        kinds = {Path(name).suffix for name in facts["files"]}
        assert kinds <= {".json", ".safetensors"}, "something else was written"


def test_what_is_saved_while_learning_is_what_was_there_whoever_reads_it(tmp_path: Path) -> None:
    check(written(tmp_path, 2, "shard", 1, "saved", "llama:adamw", "gpt2:muon"), 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "how", "tensor"), [(3, "shard", 1), (2, "data", 2), (4, "shard", 2), (4, "data", 2), (4, "hybrid", 1)]
)
def test_the_same_however_the_model_lies(tmp_path: Path, count: int, how: str, tensor: int) -> None:
    found = written(tmp_path, count, how, tensor, "saved", "llama:adamw", "transformer:muon")
    check(found, count)


@pytest.mark.slow
def test_bfloat16_is_what_blocks_are_sent_in_and_no_more(tmp_path: Path) -> None:
    for case, facts in written(tmp_path, 2, "shard", 1, "mixed", "llama:adamw", "gpt2:adamw").items():
        kinds = {"matrix": "bfloat16", "norm": "bfloat16", "in": "float32", "out": "float32", "lies": "float32"}
        assert facts["kinds"] == kinds, case
        # a norm's weights are rounded too, to 2^-9 of themselves, as its output is before it is multiplied
        assert facts["together"] == pytest.approx(facts["alone"], rel=5e-3), case
        assert facts["together"][-1] < facts["together"][0] - 0.05, "nothing was learnt"


# --- whole runs


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text(tmp_path_factory.mktemp("text") / "text.txt")


def asked(text: Path, out: Path, *more: str) -> list[str]:
    """60 steps, saved every 20, of rows that two and three processes can share."""
    return [*(word for word in command(text, out) if word != "--batch=4"), "--batch=6", *more]


@pytest.fixture(scope="module")
def whole(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process that nothing befell."""
    run = tmp_path_factory.mktemp("whole") / "run"
    alone(asked(text, run))
    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "then", "counts"), [("data", "shard", (2, 2)), ("shard", "data", (2, 2)), ("shard", "shard", (2, 3))]
)
def test_a_run_may_be_spread_otherwise_when_it_carries_on(
    text: Path, whole: Path, tmp_path: Path, first: str, then: str, counts: tuple[int, int]
) -> None:
    run = tmp_path / "run"
    interrupted(asked(text, run, f"--parallel={first}"), counts[0], run)
    out = finished(several(counts[1], asked(text, run, f"--parallel={then}")))
    assert "carrying on at step" in out
    near(whole, run)
    differences = zip(load(whole / "last").parameters(), load(run / "last").parameters(), strict=True)
    assert max(float((one - other).abs().max()) for one, other in differences) < 1e-4  # of float32, over 60 steps


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["part", "publish", "full"])
def test_what_dies_while_it_is_written_leaves_the_one_before_in_use(
    text: Path, whole: Path, tmp_path: Path, fault: str
) -> None:
    run = tmp_path / "run"
    started = torchrun(2, WORKER, "train", fault, *asked(text, run, "--parallel=shard"))
    out, _ = started.communicate(timeout=240)
    assert started.returncode != 0
    if fault == "full":
        assert "could not write the checkpoint of step 40" in out, out[-3000:]
        assert "process 1: [Errno 28] No space left on device" in out
    else:
        assert [path.name for path in (run / "checkpoints").glob(".*")] == [".000040.part"]
    assert [path.name for path in Run(run).saved()] == ["000020"]
    assert not damage(run / "checkpoints" / "000020")
    alone(asked(text, run))
    near(whole, run)


@pytest.mark.slow
def test_the_end_of_a_run_in_parts_is_a_hugging_face_folder(text: Path, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    finished(several(2, asked(text, run, "--parallel=shard")))
    near(whole, run)
    scores = [read_object(folder / "summary.json")["validation"] for folder in (whole, run)]
    assert scores[0]["targets"] == scores[1]["targets"]  # which two processes have shared
    assert scores[0]["nats"] == pytest.approx(scores[1]["nats"], rel=1e-5)
    for name in (".", "best", "last"):
        assert (run / name / "model.safetensors").is_file(), name
    assert (run / "last").resolve().name == "000060"
    assert not damage(run / "last")
