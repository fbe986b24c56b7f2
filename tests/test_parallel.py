"""Several processes at one run: what they learn is what one would, whoever begins, dies, or hangs."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch.distributed.device_mesh import init_device_mesh

from helpers import VOCAB, stream, tiny_model
from hornbook import machine
from hornbook.config import Train
from hornbook.data.batches import NO_TARGET, Batch
from hornbook.data.shards import Shard
from hornbook.errors import UserError
from hornbook.evaluation.score import score
from hornbook.log import read_log
from hornbook.parallel.processes import DIMENSIONS, Processes, mesh_shape, take_gpu
from hornbook.parallel.sharding import averaged
from hornbook.parallel.tensors import total_norm
from hornbook.training import pretrain
from hornbook.training.objective import Objective
from hornbook.training.pretrain import train
from hornbook.training.together import require_possible

HERE = Path(__file__).parent
WEIGHTS = 1e-9
"""In float64. Sums in another order differ by 1e-16; where a gradient is nothing but that, as a key's bias has it, Adam
divides it by its epsilon of 1e-8: 1e-8 of a rate of 1e-3, in each of 20 steps."""
NORM = 1e-7
"""The surprise of a target is float32, to which 1e-7 of its size is lost."""


def torchrun(count: int, *arguments: str, more: tuple[str, ...] = (), **named: Any) -> subprocess.Popen[str]:
    """Start processes that meet on a free port, and after a death on another."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}", *more]
    path = os.pathsep.join([str(HERE), str(HERE.parent / "src"), os.environ.get("PYTHONPATH", "")])
    surroundings = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}
    return subprocess.Popen([*start, *arguments], env=surroundings, **pipe | named)


def compared(path: Path, count: int, how: str, tensor: int, *cases: str) -> dict[str, Any]:
    """What parallel_worker.py finds."""
    started = torchrun(count, str(HERE / "parallel_worker.py"), str(path), how, str(tensor), *cases)
    out, _ = started.communicate(timeout=240)
    assert started.returncode == 0, out[-3000:]
    return json.loads(path.read_text())


def agree(found: dict[str, Any], cases: tuple[str, ...]) -> None:
    assert set(found) == set(cases)
    for case, facts in found.items():
        assert facts["weights"] < WEIGHTS, (case, facts)
        assert facts["norm"] < NORM, (case, facts)
        assert facts["moved"] > 1e-3, "nothing was learnt"


SHARDED = ("llama:adamw", "gpt2:muon", "transformer:adamw")


def test_parameters_in_parts_learn_what_whole_ones_do(tmp_path: Path) -> None:
    found = compared(tmp_path / "found", 2, "shard", 1, *SHARDED)
    agree(found, SHARDED)
    for facts in found.values():
        assert facts["held"] == pytest.approx(0.5, abs=0.02)
        assert facts["divides"]
    shapes = found["llama:adamw"]["state"]
    assert shapes["0.blocks.0.mlp.up.weight.exp_avg"] == [48, 32]  # a checkpoint holds whole tensors, by name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "how", "tensor", "cases"),
    [
        (2, "data", 1, ("llama:adamw", "gpt2:muon", "rnn:adamw", "transformer:adamw", "bert:adamw", "opt:adafactor")),
        (2, "data", 2, ("llama:adamw", "gpt2:muon", "transformer:adamw", "opt:adamw", "gpt_neox:adamw")),
        (4, "shard", 2, ("llama:muon", "gpt2:adamw")),
        (4, "data", 2, ("llama:adamw", "gpt2:muon")),
        (4, "hybrid", 1, ("llama:adamw", "gpt2:muon")),
    ],
)
def test_every_way_of_spreading_learns_what_one_process_does(
    tmp_path: Path, count: int, how: str, tensor: int, cases: tuple[str, ...]
) -> None:
    found = compared(tmp_path / "found", count, how, tensor, *cases)
    agree(found, cases)
    if how == "hybrid":  # in parts within a pair, copied to the other
        assert all(facts["held"] == pytest.approx(0.5, abs=0.02) for facts in found.values())


# --- whole runs

FLAGS = "--tokenizer=bytes --layers=1 --dim=32 --heads=2 --context=32 --batch=4 --precision=float32 --warmup=5 "
FLAGS += "--device=cpu --threads=1 --attention=fused --float32-matmul=highest --compile=no --eval-tokens=500 "
FLAGS += "--optimizer=adamw --eval-every=20 --schedule=cosine"


def command(text: Path, out: Path, steps: int = 60, *more: str) -> list[str]:
    return ["train", "llama-tiny", f"--data={text}", f"--out={out}", f"--steps={steps}", *FLAGS.split(), *more]


def write_text(path: Path) -> Path:
    path.write_text("".join(f"Line {n} of a text that says {n * n % 97} and no more.\n" for n in range(400)))
    return path


@pytest.fixture
def text(tmp_path: Path) -> Path:
    return write_text(tmp_path / "text.txt")


def several(count: int, arguments: list[str], *more: str, **named: Any) -> subprocess.Popen[str]:
    return torchrun(count, "-m", "hornbook", *arguments, more=more, **named)


def finished(started: subprocess.Popen[str]) -> str:
    out, _ = started.communicate(timeout=240)
    assert started.returncode == 0, out[-3000:]
    return out


def alone(arguments: list[str]) -> None:
    subprocess.run([sys.executable, "-m", "hornbook", *arguments], check=True, capture_output=True, timeout=240)


def steps(run: Path) -> list[dict[str, Any]]:
    return [line for line in read_log(run) if "loss" in line]


def near(one: Path, other: Path) -> None:
    """The same tokens at every step, and the same losses but for float32's rounding of sums in another order."""
    assert [(line["step"], line["tokens"]) for line in steps(one)] == [
        (line["step"], line["tokens"]) for line in steps(other)
    ]
    for line, again in zip(steps(one), steps(other), strict=True):
        assert line["loss"] == pytest.approx(again["loss"], rel=1e-5)  # 60 steps of a few 1e-7


def interrupted(arguments: list[str], count: int, run: Path) -> None:
    """Begun by so many processes, all of which are killed after their first checkpoint."""
    if count == 1:
        started = subprocess.Popen([sys.executable, "-m", "hornbook", *arguments], start_new_session=True)
    else:
        started = several(count, arguments)
    until(lambda: any((run / "checkpoints").glob("[0-9]*")), started)
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    kill_children_of(run)
    assert not (run / "summary.json").exists()


def kill_children_of(run: Path) -> None:
    for pid in children_of(run):
        with contextlib.suppress(ProcessLookupError):  # it may die of another's death first
            os.kill(pid, signal.SIGKILL)


def until(ready: Any, started: subprocess.Popen[str]) -> None:
    for _ in range(2400):
        if ready():
            return
        assert started.poll() is None, "it ended early"
        time.sleep(0.05)
    raise AssertionError("it never came")


def children_of(run: Path) -> list[int]:
    """Processes at work on a run, found by their command lines."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if f"--out={run}".encode() in words and b"-m" in words and b"torch.distributed.run" not in words:
            found.append(int(path.parent.name))
    return sorted(found)


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), [(2, 1), (1, 2)])
@pytest.mark.parametrize("how", ["data", "shard"])
def test_a_run_begun_by_some_is_ended_by_others(text: Path, tmp_path: Path, first: int, then: int, how: str) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    alone(command(text, whole, 300))
    interrupted(command(text, cut, 300, f"--parallel={how}"), first, cut)
    if then == 1:
        alone(command(text, cut, 300))
    else:
        finished(several(then, command(text, cut, 300, f"--parallel={how}")))
    near(whole, cut)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["data", "shard"])
def test_an_adapter_learns_over_several_processes_what_it_does_in_one(how: str, text: Path, tmp_path: Path) -> None:
    alone(command(text, tmp_path / "base", 40))
    flags = "--lora=4 --steps=40 --lr=0.01 --batch=4 --precision=float32 --device=cpu --threads=1 --attention=fused "
    flags += "--float32-matmul=highest --compile=no --eval-tokens=500 --eval-every=20 --warmup=5"
    adapted = ["train", str(tmp_path / "base"), f"--data={text}", *flags.split()]
    alone([*adapted, f"--out={tmp_path / 'one'}"])
    finished(several(2, [*adapted, f"--out={tmp_path / 'two'}", f"--parallel={how}"]))
    near(tmp_path / "one", tmp_path / "two")
    files = [load_file(tmp_path / run / "adapter_model.safetensors") for run in ("one", "two")]
    assert files[0].keys() == files[1].keys()
    for name, tensor in files[0].items():
        apart = float((files[1][name] - tensor).norm())
        assert apart < 1e-5 * float(tensor.norm()), name  # sums in another order: 40 steps of a few 1e-7


@pytest.mark.slow
def test_a_worker_that_is_killed_is_started_again_and_nothing_shows(text: Path, tmp_path: Path) -> None:
    whole, struck = tmp_path / "whole", tmp_path / "struck"
    more = ("--parallel=shard", "--dropout=0.1")
    finished(several(2, command(text, whole, 200, *more)))
    started = several(2, command(text, struck, 200, *more), "--max-restarts=1", stdout=subprocess.DEVNULL)
    until(lambda: any((struck / "checkpoints").glob("[0-9]*")), started)
    os.kill(children_of(struck)[-1], signal.SIGKILL)
    assert started.wait(timeout=240) == 0
    files = [load_file(run / "last" / "model.safetensors") for run in (whole, struck)]
    assert all(torch.equal(tensor, files[1][name]) for name, tensor in files[0].items())
    assert [line["loss"] for line in steps(whole)] == [line["loss"] for line in steps(struck)]


@pytest.mark.slow
def test_ctrl_c_saves_once_and_the_same_command_carries_on(text: Path, tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    finished(several(2, command(text, whole, 300)))
    started = several(2, command(text, stopped, 300))
    until(lambda: any((stopped / "checkpoints").glob("[0-9]*")), started)
    os.killpg(started.pid, signal.SIGINT)  # as a terminal does: to torchrun and to all workers
    out, _ = started.communicate(timeout=240)
    assert out.count("stopped and saved in") == 1, out[-3000:]
    assert not (stopped / "summary.json").exists()
    finished(several(2, command(text, stopped, 300)))
    assert [line["loss"] for line in steps(whole)] == [line["loss"] for line in steps(stopped)]


@pytest.mark.slow
@pytest.mark.skipif(not machine.can_compile(), reason="needs a C++ compiler")
@pytest.mark.parametrize("how", ["--parallel=data", "--parallel=shard", "--tensor=2"])
def test_compiled_blocks_learn_what_plain_ones_do(text: Path, tmp_path: Path, how: str) -> None:
    plain, compiled = tmp_path / "plain", tmp_path / "compiled"
    alone(command(text, plain, 10))
    finished(several(2, [*command(text, compiled, 10), "--compile=yes", how]))
    near(plain, compiled)


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--parallel=shard", "--eval-every=1"]], ids=["at a step", "at an evaluation"])
def test_a_worker_that_hangs_is_named(text: Path, tmp_path: Path, more: list[str]) -> None:
    run = tmp_path / "run"
    started = several(2, command(text, run, 100_000, "--timeout=10", *more))
    until(lambda: any((run / "checkpoints").glob("[0-9]*")), started)
    second = next(pid for pid in children_of(run) if rank(pid) == "1")
    os.kill(second, signal.SIGSTOP)
    out, _ = started.communicate(timeout=240)
    assert started.returncode != 0
    told = r"process 0 waited .* s at step \d+, .*process 1: step \d+, [a-z ]+, for \d+ s"
    assert re.search(told, out), out[-3000:]


def rank(pid: int) -> str:
    words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return next(word.decode().removeprefix("RANK=") for word in words if word.startswith(b"RANK="))


# --- what cannot be


def test_one_process_is_a_group_of_one() -> None:
    one = Processes()
    assert (one.main, one.groups, one.group, one.share(7)) == (True, 1, 0, slice(0, 7))
    assert one.agree(1.5, True) == (1.5, True)
    assert one.told({"a": [1]}) == {"a": [1]}
    one.require_rows(7)


def test_rows_are_shared_out_once_each() -> None:
    batch = Batch(torch.arange(12).reshape(6, 2), torch.full((6, 2), NO_TARGET))
    parts = [batch.cut(Processes(rank=rank, size=3).share(6)) for rank in range(3)]
    assert torch.equal(torch.cat([part.tokens for part in parts]), batch.tokens)
    with pytest.raises(UserError, match=r"--batch 7 cannot be shared by 3 groups .* such as 6, 9, 12"):
        Processes(size=3).require_rows(7)


def test_scoring_is_shared_out_and_every_target_counted_once() -> None:
    starts = np.arange(0, 1001, 100) + 1
    shard = Shard(stream(1001), starts, *np.ones((2, 10), np.int64), vocab=VOCAB, separator=0, restorable=True)
    whole = score(model := tiny_model("llama"), shard, 16, 16, batch=4)
    parts = [score(model, shard, 16, 16, batch=4, processes=Processes(rank=rank, size=3)) for rank in range(3)]
    assert sum(int(part.targets.sum()) for part in parts) == int(whole.targets.sum()) == 1000
    assert sum(float(part.nats.sum()) for part in parts) == pytest.approx(float(whole.nats.sum()), rel=1e-12)
    assert all(part.targets.sum() > 300 for part in parts)


def test_each_process_takes_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    take_gpu(torch.device("cuda"), 1)
    assert taken == [1]
    with pytest.raises(UserError, match="3 processes at least on a machine with 2 GPUs: start 2"):
        take_gpu(torch.device("cuda"), 2)
    with pytest.raises(UserError, match="--device cuda:1: each process takes a GPU of its own"):
        take_gpu(torch.device("cuda:1"), 0)
    assert taken == [1]


def test_buffers_are_not_sent_again_at_every_step(tmp_path: Path) -> None:
    """A quantised base keeps its codes in them."""
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1, 1, 1), mesh_dim_names=DIMENSIONS)
        spread = averaged(Objective(tiny_model("llama")), Processes(0, 2, mesh))  # as if there were another one
        assert isinstance(spread, torch.nn.parallel.DistributedDataParallel)
        assert not spread.broadcast_buffers
    finally:
        dist.destroy_process_group()


def test_processes_are_arranged_by_machine() -> None:
    assert mesh_shape(8, 4, "data", 1) == (8, 1, 1)
    assert mesh_shape(8, 4, "shard", 1) == (1, 8, 1)
    assert mesh_shape(8, 4, "hybrid", 1) == (2, 4, 1)
    assert mesh_shape(8, 4, "hybrid", 2) == (2, 2, 2)
    with pytest.raises(UserError, match="5 processes cannot be put in groups of --tensor 2"):
        mesh_shape(5, 5, "data", 2)
    with pytest.raises(UserError, match="does not divide 3 of them"):
        mesh_shape(6, 3, "hybrid", 2)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"batch": "auto"}, "--batch auto measures one process"),
        ({"find_lr": True}, "--find-lr is one process's work"),
        ({"parallel": "shard", "optimizer": "adafactor"}, "adafactor needs whole matrices"),
        ({"tensor": 2, "snapshots": 5}, "--snapshots needs whole models"),
        ({"tensor": 2, "lora": 4}, "--lora adapts whole ones"),
        ({"tensor": 2, "tasks": ("hellaswag",)}, "--tasks needs whole models"),
    ],
)
def test_what_needs_one_process_says_so(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        require_possible(Train(model="llama-tiny", **changes), tiny_model("llama"))


def test_counting_is_one_process_s_work() -> None:
    with pytest.raises(UserError, match="counted by one process"):
        require_possible(Train(model="5gram"), tiny_model("ngram"))


def test_counting_under_torchrun_is_refused_before_it_begins(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrain, "several", lambda settings: contextlib.nullcontext(Processes(0, 2)))
    with pytest.raises(UserError, match="counted by one process: start it without torchrun"):
        train(Train(model="bigram", data=str(text), out=str(tmp_path / "run")))
    assert not (tmp_path / "run" / "train.json").exists()


STOPPING = """
import os, sys
import hornbook
from hornbook.training.interrupt import Interrupted

def follow(moment):
    if moment.event == "save" and moment.step == 4:
        raise Interrupted

try:
    hornbook.train("llama-tiny", data=sys.argv[1], out=sys.argv[2], steps=20, eval_every=2, tokenizer="bytes",
                   layers=1, dim=16, heads=2, kv_heads=2, mlp=16, context=16, batch=4, compile="no", threads=1,
                   callbacks=[follow])
except Interrupted:
    open(f"{sys.argv[2]}-{os.environ['RANK']}", "w").close()
"""


@pytest.mark.parametrize("how", ["data", pytest.param("shard", marks=pytest.mark.slow)])
def test_every_process_calls_the_callbacks_so_that_one_may_stop_them_all(how: str, text: Path, tmp_path: Path) -> None:
    script = tmp_path / "stopping.py"
    script.write_text(STOPPING.replace("threads=1", f'threads=1, parallel="{how}"'))
    finished(torchrun(2, str(script), str(text), str(tmp_path / "run")))
    assert (tmp_path / "run-0").exists()
    assert (tmp_path / "run-1").exists()
    assert max(line["step"] for line in read_log(tmp_path / "run")) == 4


def test_a_norm_over_plain_tensors_is_pytorch_s() -> None:
    tensors = [torch.randn(3, 4), torch.randn(5)]
    assert torch.equal(total_norm(tensors), torch.nn.utils.get_total_norm(tensors))


def test_an_odd_number_of_processes_is_refused_before_any_work(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UserError, match="3 processes cannot be put in groups of --tensor 2"):
        train(Train(model="llama-tiny", data=str(text), out=str(tmp_path / "run"), tensor=2))
    assert not (tmp_path / "run").exists()
