"""What the machine is measured to do, and `hornbook bench`: figures that follow from their definitions."""

from __future__ import annotations

import dataclasses
import json
import math
import mmap
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from helpers import tiny_config
from hornbook import bench, machine, models, proc
from hornbook.bench import Case, Finding
from hornbook.cli import main
from hornbook.config import Bench, TransformerConfig
from hornbook.errors import UserError
from hornbook.machine import memory, remembered, speed
from hornbook.machine.datasheets import promised

CPU = torch.device("cpu")
BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Small matrices, little memory, no compilation."""
    monkeypatch.setattr(speed, "SQUARE", {"cpu": 64})
    monkeypatch.setattr(speed, "available_memory", lambda device: 64 * 2**20)
    monkeypatch.setattr(machine, "can_compile", lambda: False)
    for cached in (speed.measured_speeds, speed.memory_bandwidth):
        cached.cache_clear()
    yield
    for cached in (speed.measured_speeds, speed.memory_bandwidth):
        cached.cache_clear()


def tiny_case() -> Case:
    return Case("tiny", tiny_config("gpt2", bos=None, eos=None), rows=2)


@pytest.mark.usefixtures("quick")
def test_the_peak_is_the_best_product_and_leaves_the_precision_as_it_was() -> None:
    before = torch.get_float32_matmul_precision()
    speeds = machine.matmul_speeds(CPU, torch.float32, "medium")
    assert len(speeds) >= 2
    assert machine.matmul_peak(CPU, torch.float32, "medium") == max(speeds) > 0
    assert torch.get_float32_matmul_precision() == before
    assert machine.matmul_speeds("cpu", torch.float32, "medium") is speeds, "measured once in a process"
    assert machine.matmul_speeds("cpu", torch.float32, "highest") is not speeds


def test_speeds_count_two_operations_for_each_multiply_and_add(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "SQUARE", {"cpu": 32})
    monkeypatch.setattr(speed, "seconds_of", lambda run, device: [0.5, 0.25])
    speeds = speed.measured_speeds.__wrapped__(CPU, torch.float32, "highest", 1)
    assert speeds == (2 * 32**3 / 0.5, 2 * 32**3 / 0.25)


@pytest.mark.usefixtures("quick")
def test_the_bandwidth_test_takes_a_quarter_of_the_free_memory_at_most() -> None:
    found = machine.memory_bandwidth(CPU)
    assert 0 < found.bytes <= 16 * 2**20
    assert found.read > 0
    assert found.copy > 0


def test_resident_memory_follows_what_is_held_and_the_peak_stays() -> None:
    before = machine.resident_memory()
    with mmap.mmap(-1, size := 64 * 2**20) as block:  # torch's own memory may come of what was let go before
        block[:] = b"1" * size
        held, most = machine.resident_memory(), machine.peak_memory(CPU)
        assert held - before > 0.9 * size
        assert most >= held - 2**22
    assert machine.peak_memory() >= most - 2**22, "the system counts pages in lots"


@pytest.mark.parametrize("name", ["gpu", "cpu:", "cpu:x", "cpu:\u0661", ":0", "CPU"])
def test_a_device_that_torch_would_not_understand_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="unknown device"):
        machine.check_device(name)
    assert machine.check_device("cpu:0") == "cpu:0"


def test_memory_is_told_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    real = machine.peak_memory()
    monkeypatch.setattr(memory, "read_kilobytes", lambda path, name: 0)
    assert machine.peak_memory() == machine.resident_memory()
    assert 0.5 * real < machine.peak_memory() < 4 * real
    assert memory.available_memory() > 2**20


GROUPS = {
    "second version": ("0::/a/b\n", "", ("memory.max", "memory.current", "")),
    "first version": (
        "5:cpu:/\n4:memory:/a/b\n0::/a/b\n",
        "memory",
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
    ),
}


@pytest.mark.parametrize("version", GROUPS)
def test_a_container_s_limit_counts_as_memory(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said, controller, (most, used, files) = GROUPS[version]
    (tmp_path / "cgroup").write_text(said)
    groups = tmp_path / "groups"
    for place, limit, use in (("", "max", 900), ("a", "1000", 700), ("a/b", "9223372036854771712", 600)):
        folder = groups / controller / place
        folder.mkdir(parents=True, exist_ok=True)
        (folder / most).write_text(f"{limit}\n")
        (folder / used).write_text(f"{use}\n")
        (folder / "memory.stat").write_text(f"anon 5\n{files}inactive_file 30\n{files}active_file 20\n")
    assert proc.group_memory(tmp_path / "cgroup", groups) == 1000 - 700 + 50
    monkeypatch.setattr(memory, "GROUP", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "GROUPS", groups)
    if sys.platform == "linux":
        assert memory.available_memory() == 350
        (groups / controller / "a" / used).write_text("1100\n")
        assert memory.available_memory() == 0
    (groups / controller / "a" / most).write_text("max\n")
    (groups / controller / "a" / "b" / most).write_text("max\n")
    assert proc.group_memory(tmp_path / "cgroup", groups) is None
    assert proc.group_memory(tmp_path / "no such file", groups) is None


@pytest.mark.parametrize(
    ("said", "files", "wanted"),
    [
        ("0::/a/b\n", {"cpu.max": "max 100000", "a/cpu.max": "250000 100000", "a/b/cpu.max": "max 100000"}, 2.5),
        ("0::/a\n", {"a/cpu.max": "max 100000"}, None),
        (
            "4:memory:/a\n3:cpu,cpuacct:/a\n0::/\n",
            {"cpu,cpuacct/a/cpu.cfs_quota_us": "50000", "cpu,cpuacct/a/cpu.cfs_period_us": "100000"},
            0.5,
        ),
        ("5:cpu:/a\n", {"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"}, None),
        ("5:cpuset:/\n", {}, None),
    ],
)
def test_a_container_s_share_of_the_processors_counts_as_so_many_cores(
    said: str, files: dict[str, str], wanted: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group, groups = tmp_path / "cgroup", tmp_path / "groups"
    group.write_text(said)
    for name, value in files.items():
        (groups / name).parent.mkdir(parents=True, exist_ok=True)
        (groups / name).write_text(f"{value}\n")
    assert proc.group_processors(group, groups) == wanted
    monkeypatch.setattr(proc, "GROUP", group)
    monkeypatch.setattr(proc, "GROUPS", groups)
    monkeypatch.setattr(proc.os, "sched_getaffinity", lambda process: set(range(64)), raising=False)
    assert proc.cores() == (64 if wanted is None else max(1, math.ceil(wanted)))


@pytest.mark.parametrize(
    ("name", "teraflops"),
    [
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100-PCIE-40GB", 312),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989),
        ("NVIDIA B200", 2250),
        ("NVIDIA L4", 121),
        ("Tesla T4", 65),
        ("Tesla V100-SXM2-16GB", 125),
        ("NVIDIA A10", 125),
        ("NVIDIA GeForce RTX 3090", 71),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA A10G", None),
        ("NVIDIA L40", None),
        ("NVIDIA H100 NVL", None),
        ("NVIDIA GeForce RTX 3090 Ti", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None),
        ("NVIDIA GeForce GTX 1080", None),
    ],
)
def test_only_the_very_cards_of_the_table_are_promised_anything(name: str, teraflops: float | None) -> None:
    assert promised(name) == (teraflops and teraflops * 1e12)


def test_a_known_gpu_is_judged_by_its_data_sheet_and_all_else_by_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr(speed, "matmul_peak", lambda device, dtype: 1e12)
    assert machine.reference_peak("cuda", torch.bfloat16) == machine.Peak(989e12, "data sheet")
    assert machine.reference_peak("cuda", torch.float32) == machine.Peak(1e12, "measured")
    assert machine.reference_peak("cpu", torch.bfloat16) == machine.Peak(1e12, "measured")


def test_the_best_ever_seen_is_remembered_for_this_machine_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "new" / "machine.json"
    assert remembered.best_seen(store, CPU, "matmul", 5.0) == 5.0
    assert remembered.best_seen(store, CPU, "matmul", 3.0) == 5.0
    assert remembered.best_seen(store, CPU, "matmul", 7.0) == 7.0
    assert remembered.best_seen(store, CPU, "read", 1.0) == 1.0
    monkeypatch.setattr(remembered, "processor", lambda: "another")
    assert remembered.best_seen(store, CPU, "matmul", 2.0) == 2.0
    known = json.loads(store.read_text())
    assert sorted(map(len, known.values())) == [1, 2]


@pytest.mark.parametrize("damage", ["{", "[]", '{"x": 3}', "null"])
def test_a_damaged_memory_is_as_good_as_none(damage: str, tmp_path: Path) -> None:
    store = tmp_path / "machine.json"
    store.write_text(damage)
    assert remembered.best_seen(store, CPU, "matmul", 5.0) == 5.0
    assert remembered.best_seen(store, CPU, "matmul", 3.0) == 5.0


def test_a_memory_that_cannot_be_written_harms_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert remembered.best_seen(tmp_path / "file" / "machine.json", CPU, "matmul", 5.0) == 5.0
    assert remembered.best_seen(None, CPU, "matmul", 5.0) == 5.0


@pytest.mark.usefixtures("quick")
def test_shares_follow_from_speeds_operations_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    case = tiny_case()
    monkeypatch.setattr(machine, "reference_peak", lambda *_: machine.Peak(1e9, "measured"))
    figures = bench.rehearse(case, CPU, read=1e6)
    c = case.config
    assert isinstance(c, TransformerConfig)
    matrices = c.layers * (4 * c.dim**2 + 2 * c.dim * c.mlp)
    flops = 6 * (matrices + c.vocab * c.dim) + 6 * c.layers * c.context * c.dim
    training, generation = figures["training"], figures["generation"]
    assert training["flops_per_token"] == flops
    assert training["share_of_peak"] == pytest.approx(training["tokens_per_second"] * flops / 1e9)
    assert generation["bytes_per_token"] == 4 * (figures["parameters"] - c.context * c.dim)
    assert generation["share_of_bandwidth"] == pytest.approx(
        generation["tokens_per_second"] * generation["bytes_per_token"] / 1e6
    )
    for rate in (training, generation):
        assert 0 < rate["lowest"] <= rate["tokens_per_second"] <= rate["highest"]


def test_a_step_of_the_bench_learns() -> None:
    torch.manual_seed(0)
    case = tiny_case()
    model = models.build(case.config)
    step = bench.stepper(model, dataclasses.replace(bench.settings_of(case, model, CPU), compile="no"))
    rows = torch.randint(case.config.vocab, (2, 25))
    losses = [float(step(bench.Batch(rows[:, :-1], rows[:, 1:]))) for _ in range(8)]
    assert losses[-1] < losses[0] - 0.1


def test_generation_times_every_new_token_but_the_prompt() -> None:
    model = models.build(tiny_config("gpt2", bos=None, eos=None))
    assert len(bench.generation_seconds(model)) == 48 - 16


def test_an_untied_head_is_read_and_tables_are_not() -> None:
    model = models.build(tiny_config("llama", tied=False))
    assert bench.bytes_per_token(model) == 4 * (model.parameter_count() - model.config.vocab * 32)


@pytest.mark.usefixtures("quick")
def test_findings_come_in_order_and_models_that_do_not_fit_are_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = [kind for kind, _ in bench.findings(Bench(device="cpu"), [tiny_case()])]
    assert kinds[0] == "machine"
    assert kinds[1] == "matmul"
    assert kinds[-4:] == ["memory", "estimate", "model", "end"]
    monkeypatch.setattr(bench, "rehearse", lambda *_: pytest.fail("there is no time for a model"))
    found = dict(bench.findings(Bench(device="cpu", minutes=1e-6), [tiny_case()]))
    assert found["skipped"]["name"] == "tiny"
    assert "0 s are left" in bench.told("skipped", found["skipped"])


@pytest.mark.usefixtures("quick")
def test_a_model_that_does_not_fit_into_memory_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")

    monkeypatch.setattr(bench, "rehearse", full)
    found = dict(bench.findings(Bench(device="cpu"), [tiny_case()]))
    assert found["skipped"] == {"name": "tiny", "reason": "CUDA out of memory."}
    assert "end" in found


def test_larger_models_are_expected_to_take_longer() -> None:
    for name in ("cpu", "cuda"):
        seconds = [bench.expected_seconds(case, 1e12, 1e10, 1.0) for case in bench.cases(torch.device(name))]
        assert seconds == sorted(seconds)


def interrupted(settings: Bench) -> Iterator[Finding]:
    yield "machine", {"machine": "x", "device": "cpu", "torch": "2"}
    raise KeyboardInterrupt


def test_what_was_measured_until_ctrl_c_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "findings", interrupted)
    with pytest.raises(SystemExit) as stop:
        main(["bench", "--json"])
    assert stop.value.code == 130
    found = json.loads(capsys.readouterr().out)
    assert found["finished"] is False
    assert found["machine"] == "x"


@pytest.mark.usefixtures("quick")
def test_the_command_prints_a_table_or_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "cases", lambda device: [tiny_case()])
    main(["bench", "--device", "cpu"])
    table = capsys.readouterr().out
    assert all(word in table for word in ("bfloat16", "GB/s read", "tiny", "6 L T D"))
    main(["bench", "--device", "cpu", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["finished"] is True
    assert found["model"][0]["name"] == "tiny"
    assert found["model"][0]["training"]["peak_source"] == "measured"


@pytest.mark.skipif(not BENCHMARKS.exists(), reason="the benchmarks are not in the source distribution")
def test_the_peers_plain_gpt_is_ours_and_their_operations_are_counted_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from peers import gpt, measuring

    shape = measuring.SHAPES["tiny"]
    sizes = {"dim": shape.dim, "layers": shape.layers, "heads": shape.heads, "context": shape.context}
    ours = models.build(models.find_size("gpt2-tiny").replace(vocab=shape.vocab, bos=None, eos=None, **sizes))
    assert shape.flops_per_token == ours.flops_per_token(shape.context)
    assert shape.parameters == ours.parameter_count() - shape.context * shape.dim
    rows = measuring.random_rows(shape, 2)
    with torch.no_grad():
        expected = -float(ours.log_prob(rows[:, :-1], rows[:, 1:]).mean())
        for written in (False, True):
            theirs = gpt.GPT(shape, written=written)
            theirs.load_state_dict(renamed(ours))
            assert float(theirs(rows[:, :-1], rows[:, 1:])) == pytest.approx(expected, rel=1e-5)


def renamed(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Our GPT-2's tensors under the names of the peers' plain one."""
    names = {"embedding": "tokens", "final_norm": "norm", "attention_norm": "norms.0", "mlp_norm": "norms.1"}
    names |= {"attention.output": "mix", "mlp.up": "up", "mlp.down": "down"}
    found, fused = {}, {}
    for name, tensor in model.state_dict().items():
        if any(part in name for part in (".query.", ".key.", ".value.")):
            block, _, _, kind = name.rsplit(".", 3)
            fused.setdefault(f"{block}.qkv.{kind}", []).append(tensor)
            continue
        for ours, theirs in names.items():
            name = name.replace(f"{ours}.", f"{theirs}.") if f".{name}".find(f".{ours}.") >= 0 else name
        found[name] = tensor
    return found | {name: torch.cat(parts) for name, parts in fused.items()}


@pytest.mark.skipif(not BENCHMARKS.exists(), reason="the benchmarks are not in the source distribution")
def test_a_clock_leaves_out_the_warm_up_and_stops_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from peers import measuring

    now = iter(range(0, 1000, 10))
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: next(now))
    clock = measuring.Clock(warmup=2, steps=5, budget=25)
    clock.start()
    going = [clock.tick() for _ in range(5)]
    assert going == [True, True, True, True, False], "three measured steps of 10 s are more than 25 s"
