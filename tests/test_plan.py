"""`hornbook plan`: bytes are those of real tensors, hours those of published runs; what is too large says what fits."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from helpers import VOCAB, tiny_config, tiny_model
from hornbook import machine, models
from hornbook.checkpoint import save_model
from hornbook.cli import main
from hornbook.config import Plan, Train
from hornbook.errors import UserError
from hornbook.formats.huggingface import to_hf_config
from hornbook.layers.class_head import give_class_head
from hornbook.machine import speed
from hornbook.planning import local
from hornbook.planning.activations import activations
from hornbook.planning.devices import GPUS, USABLE, find_gpu
from hornbook.planning.layout import Layout
from hornbook.planning.local import Probe, Seconds
from hornbook.planning.memory import Case, largest_batch, memory, sizes_of
from hornbook.planning.page import COMMAND, plan_page, write
from hornbook.planning.plan import Forecast, corrected, make
from hornbook.planning.published import RUNS, Published
from hornbook.planning.scaling_laws import ORIGINAL, REFIT, remark, scope
from hornbook.planning.timing import Work, time_step
from hornbook.training.engine import Engine, use_attention
from hornbook.training.muon import same_shapes
from hornbook.training.optimizers import Optimizers

PAGE = Path(__file__).parent.parent / "docs" / "plan.md"
NEAR = 0.25


def trained(family: str, optimizer: str) -> tuple[torch.nn.Module, Optimizers]:
    """A tiny model with gradients, and optimisers that took a step."""
    model = models.build(tiny_config(family))
    optimizers = Optimizers(optimizer, model, 1e-3, 0.1, 0.95)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    for each in optimizers.all:
        each.step()
    return model, optimizers


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "adafactor"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "rnn"])
def test_weights_gradients_and_optimiser_are_as_large_as_the_real_tensors(family: str, optimizer: str) -> None:
    model, optimizers = trained(family, optimizer)
    found = memory(Case(tiny_config(family), context=16, optimizer=optimizer), 1)
    assert found.weights == sum(p.numel() * p.itemsize for p in model.parameters())
    assert found.gradients == sum(p.grad.numel() * p.grad.itemsize for p in model.parameters() if p.grad is not None)
    assert found.optimizer == sum(t.numel() * t.itemsize for t in optimizers.tensors().values())


@pytest.mark.parametrize("attention", ["fused", "written-out"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_activations_of_any_depth_and_batch_are_what_a_real_pass_keeps(precision: str, attention: str) -> None:
    config = tiny_config("llama", layers=5)
    model = models.build(config)
    use_attention(model, attention)
    own, kept = {p.untyped_storage().data_ptr() for p in model.parameters()}, {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    half = precision == "bfloat16"
    with saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16, enabled=half):
        graph = model.hidden(torch.zeros(3, 24, dtype=torch.int64))
    assert graph.grad_fn is not None
    expected = activations(config, 24, precision, attention)
    assert expected.copies + expected.kept(3) == sum(storage.nbytes() for storage in kept.values())


def test_computing_again_keeps_one_tensor_a_block() -> None:
    config = tiny_config("gpt2", layers=12)
    found = activations(config, 32, "float32")
    ends = found.row - 12 * found.block
    assert found.kept(2, recompute=True) == 2 * (ends + 12 * 4 * 32 * 32 + found.block)
    assert found.kept(2, recompute=True) < found.kept(2) / 2


def test_the_cache_is_as_large_as_the_real_one_in_half_the_bytes() -> None:
    config = tiny_config("llama", kv_heads=2)
    with torch.no_grad():
        assert sizes_of(config, "adamw", 48)["cache"] == models.build(config).make_cache(1, 48).bytes // 2


def test_gradients_that_wait_for_the_next_batch_count_at_the_loss() -> None:
    config = models.find_size("gpt2")
    once, more = (memory(Case(config, accumulating=kept), 8) for kept in (False, True))
    assert once.moment == more.moment == "loss"
    assert more.peak - once.peak == once.gradients


def test_the_peak_lies_between_what_lasts_and_all_of_it() -> None:
    found = memory(Case(models.find_size("gpt2"), base=1000), 4)
    lasting = found.base + found.weights + found.optimizer + found.activations + found.copies
    assert lasting < found.peak < lasting + found.gradients + 3 * found.logits + found.activations


def test_sharding_divides_state_and_tensor_parallel_divides_matrices() -> None:
    config = models.find_size("llama-3-8b")
    alone = memory(Case(config), 1)
    spread = memory(Case(config, Layout(64, "shard")), 1)
    inside = memory(Case(config, Layout(64, "hybrid")), 1)
    cut = memory(Case(config, Layout(8, "none", 8)), 1)
    assert spread.weights == alone.weights // 64
    assert inside.weights == alone.weights // 8
    assert spread.optimizer < inside.optimizer < alone.optimizer
    assert spread.activations == alone.activations
    whole = 4 * (2 * config.vocab + 2 * config.layers + 1) * config.dim  # embedding, head, norms
    assert cut.weights == whole + (alone.weights - whole) // 8
    assert alone.activations / 8 < cut.activations < alone.activations


def test_what_is_gathered_in_full_counts_however_many_share_it() -> None:
    config = models.find_size("llama-3-8b")
    adamw, muon = (memory(Case(config, Layout(1024, "shard"), optimizer=name), 1) for name in ("adamw", "muon"))
    assert adamw.copies > 4 * 2 * config.vocab * 4096  # embedding and head in float32
    (together,) = same_shapes([torch.empty(14336, 4096, device="meta")] * 4)
    assert sizes_of(config, "muon", 8)["whole"] >= 10 * len(together) * 14336 * 4096 > muon.weights
    assert sizes_of(config, "adamw", 8)["whole"] == 0


def test_the_largest_batch_fits_and_one_row_more_does_not() -> None:
    case = Case(models.find_size("gpt2"), context=1024)
    rows = largest_batch(case, 40e9)
    assert rows > 1
    assert memory(case, rows).peak <= 40e9 < memory(case, rows + 1).peak


@pytest.mark.parametrize("run", [run for run in RUNS if run.mfu], ids=lambda run: run.what)
def test_published_hours_are_met_within_a_quarter_at_their_stated_utilisation(run: Published) -> None:
    assert run.predicted is not None
    assert abs(run.predicted / run.hours - 1) < NEAR


def test_the_run_without_a_stated_utilisation_says_what_its_hours_amount_to() -> None:
    run = next(run for run in RUNS if run.mfu is None)
    assert run.model == "llama-3-8b"
    assert run.predicted is None
    assert run.implied == pytest.approx(0.167, abs=0.002)


@pytest.mark.parametrize(
    ("asked", "hours"),
    [
        (Plan("gpt2", "10B", gpu="a100:8", mfu=0.6), 94 / 60),
        (Plan("gpt2-xl", "33.55B", gpu="h100:8", mfu=0.5, step_tokens="1048576"), 24),
    ],
    ids=lambda x: getattr(x, "model", ""),
)
def test_whole_plans_of_llm_c_s_runs_take_as_long_as_they_did(asked: Plan, hours: float) -> None:
    found = make(asked)
    assert abs(found.seconds / 3600 / hours - 1) < NEAR
    assert found.cost == pytest.approx(found.seconds / 3600 * 8 * GPUS[found.device].price)
    assert found.energy == pytest.approx(0.8 * GPUS[found.device].power / 1000 * found.device_hours)
    assert found.mfu <= asked.mfu


def work(**changes: object) -> Work:
    plain = Work(flops=6e9, numbers=10**9, rows=4, batches=1, context=1024, width=2048, layers=24)
    return dataclasses.replace(plain, **changes)


def test_one_device_waits_for_nobody_and_computes_at_the_stated_share() -> None:
    gpu = GPUS["h100"]
    step = time_step(work(), gpu, Layout(), 0.5)
    assert step.waited == step.tensor == step.data == 0
    assert step.seconds == pytest.approx(4 * 1024 * 6e9 / (0.5 * gpu.flops))
    assert time_step(work(recompute=True), gpu, Layout(), 0.5).seconds == pytest.approx(step.seconds * 4 / 3)


def test_traffic_is_that_of_rings_and_is_hidden_where_it_is_shorter() -> None:
    gpu = GPUS["h100"]
    data = time_step(work(), gpu, Layout(8, "data"), 0.4)
    assert data.data == pytest.approx(2 * 4e9 * 7 / 8 / gpu.link)
    assert data.waited == 0
    assert time_step(work(rows=1, context=64), gpu, Layout(8, "data"), 0.4).waited > 0
    split = time_step(work(), gpu, Layout(8, "none", 8), 0.4)
    assert split.tensor == pytest.approx(4 * 24 * 2 * 4096 * 2048 * 2 * 7 / 8 / gpu.link)
    assert split.seconds == split.arithmetic + split.tensor
    far, near = (time_step(work(), gpu, Layout(64, name), 0.4) for name in ("shard", "hybrid"))
    assert near.data < far.data


def test_float32_takes_the_peak_of_its_own_products() -> None:
    asked = Plan("gpt2", "10B", gpu="a100-80", batch=8)
    half, single = make(asked), make(dataclasses.replace(asked, precision="float32"))
    assert (half.peak, single.peak) == (312e12, 156e12)
    assert single.step_seconds >= 2 * half.step_seconds
    assert find_gpu("t4")[1].peak("float32") == 8.1e12


def test_the_head_is_computed_whole_by_each_device_that_shares_matrices() -> None:
    gpu, layout = find_gpu("h100")[1], Layout(8, "none", 8)
    shared, whole = (time_step(work(whole=flops), gpu, layout, 0.4).arithmetic for flops in (0.0, 6e9))
    assert whole == pytest.approx(8 * shared)


def test_the_cache_is_that_of_the_context_that_is_named() -> None:
    asked = Plan("llama-3.1-8b", "1T", gpu="h100:64", recompute=True)
    long, short = (make(dataclasses.replace(asked, context=context)).memory.cache for context in (8192, 4096))
    assert long * (4096 + 1) == short * (8192 + 1)  # and a slot for padding


def test_a_model_that_tells_classes_apart_is_not_planned_for(tmp_path: Path) -> None:
    model = tiny_model("gpt2")
    give_class_head(model, ("a", "b"))
    save_model(tmp_path, model, None)
    with pytest.raises(UserError, match="tells classes apart"):
        make(Plan(str(tmp_path), "1B", gpu="h100"))


def test_the_optimum_of_a_law_is_one() -> None:
    for law in (REFIT, ORIGINAL):
        best = law.best_parameters(1e21)
        losses = [law.loss(n, 1e21 / 6 / n) for n in (0.9 * best, best, 1.1 * best)]
        assert min(losses) == losses[1]
        assert law.best_tokens(best) == pytest.approx(1e21 / 6 / best)
    assert 1.1e12 < REFIT.best_tokens(70e9) < 1.6e12, "Chinchilla: 70 billion on 1.4 trillion"
    assert REFIT.loss(70e9, 1.4e12) == pytest.approx(1.97, abs=0.02)


def test_a_law_says_where_it_was_not_fitted() -> None:
    assert scope(1e9, 20e9) == ""
    assert "outside" in scope(8e9, 15e12)
    assert "worse than guessing" in scope(6e6, 2e6)


def test_over_training_is_said() -> None:
    assert "over-trained, as Llama is" in remark(8e9, 15e12)
    assert "a smaller model" in remark(8e9, 1e10)
    assert "about compute-optimal" in remark(70e9, 1.4e12)


@pytest.mark.parametrize(
    ("text", "count"),
    [("10B", 10**10), ("1e9", 10**9), ("300M", 3 * 10**8), ("1.5t", 1_500_000_000_000), ("20,000", 20_000)],
)
def test_tokens_are_written_as_people_write_them(text: str, count: int) -> None:
    assert Plan("gpt2", text).count == count


@pytest.mark.parametrize("text", ["many", "10X", "-5B", "0", "nan", "inf", ""])
def test_tokens_that_are_no_number_are_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"--tokens .*such as 10B, 300M or 15e12"):
        Plan("gpt2", text)


def test_gpus_are_found_by_name_and_number() -> None:
    assert find_gpu("H100:64")[::2] == ("h100", 64)
    assert find_gpu("RTX 4090")[::2] == ("rtx-4090", 1)
    assert find_gpu("a100")[0] == "a100-80"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gpu": "h10:8"}, "unknown GPU 'h10'. Did you mean 'h100'"),
        ({"gpu": "h100:0"}, "as in --gpu h100:8"),
        ({"gpu": "h100:x"}, "as in --gpu h100:8"),
        ({"gpu": "h100:8", "parallel": "none"}, "take data, shard or hybrid"),
        ({"gpu": "h100:8", "tensor": 3}, "does not divide 8 devices: 1, 2, 4, 8 do"),
        ({"gpu": "h100:24", "tensor": 24}, "does not divide 12 heads"),
        ({"model": "llama-3-70b", "gpu": "h100:16", "tensor": 16}, "64 heads with 8 of keys and values: 1, 2, 4, 8 do"),
        ({"gpu": "h100:8", "parallel": "shard", "optimizer": "adafactor"}, "adafactor needs whole matrices"),
        (
            {"model": "rnn", "gpu": "h100:8", "parallel": "hybrid", "vocab": 4096},
            "is for Transformers, and rnn is none",
        ),
        ({"parallel": "shard"}, "as in --gpu h100:8"),
        ({"model": "bigram", "gpu": "h100"}, "is counted"),
        ({"model": "gpt3"}, "unknown model 'gpt3'. Did you mean"),
    ],
)
def test_what_cannot_be_says_what_can(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as error:
        make(Plan(**{"model": "gpt2", "tokens": "1B"} | changes))
    assert message in str(error.value)


@pytest.mark.parametrize(
    "asked", [Plan("llama-3-8b", "1B", gpu="h100:8", parallel="data"), Plan("llama-3-70b", "1B", gpu="h100:8")]
)
def test_a_model_that_does_not_fit_says_what_would_and_that_does(asked: Plan) -> None:
    with pytest.raises(UserError, match=r"does not fit .* What fits: ") as error:
        make(asked)
    words = iter(str(error.value).rpartition("What fits: ")[2].split())
    changes = {w.strip("-"): True if w == "--recompute" else next(words) for w in words}
    assert changes
    found = make(dataclasses.replace(asked, **changes))
    assert found.memory.peak <= found.capacity == USABLE * 80e9


def test_the_command_prints_plain_tables_or_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    main(["plan", "gpt2-xl", "--tokens", "33.6B", "--gpu", "h100:8"])
    text = capsys.readouterr().out
    for words in (
        "gpt2-xl: 1.6 B parameters, 33.6 B tokens, 8 x h100",
        "weights, float32",
        "cost",
        "expected loss",
        "Besiroglu",
    ):
        assert words in text
    assert "\x1b" not in text
    main(["plan", "gpt2-xl", "--tokens", "33.6B", "--gpu", "h100:8", "--price", "2", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["cost"] == pytest.approx(2 * found["device_hours"])
    assert found["memory"]["weights"] == 4 * found["parameters"] == 4 * 1_557_611_200
    assert found["loss"]["refit"] == pytest.approx(REFIT.loss(1_557_611_200, 33_600_000_000))
    assert found["compute_optimal"]["approach_1_tokens"] == 20 * found["parameters"]


def test_a_config_file_and_its_folder_are_models_too(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(to_hf_config(tiny_config("llama"))))
    for source in (tmp_path, tmp_path / "config.json"):
        assert (
            make(Plan(str(source), "1M", gpu="l4")).parameters
            == sizes_of(tiny_config("llama"), "adamw", 48)["weights"] // 4
        )


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Small products, and one timed step."""
    monkeypatch.setattr(speed, "SQUARE", {"cpu": 64})
    monkeypatch.setattr(local, "LEAST", 1)
    speed.measured_speeds.cache_clear()
    yield
    speed.measured_speeds.cache_clear()


def here(**changes: object) -> Forecast:
    plain = {"tokens": "10k", "context": 16, "batch": 2, "vocab": VOCAB, "device": "cpu", "precision": "float32"}
    return make(Plan("gpt2-tiny", **plain | changes))


@pytest.mark.usefixtures("quick")
def test_this_machine_is_planned_for_by_real_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        local, "step_seconds", lambda config, here, context, rows: Seconds(0.1 * rows * config.layers, 0.05)
    )
    monkeypatch.setattr(local, "PATIENCE", 1e9)
    found = here()
    assert found.how == "steps of the whole model"
    assert found.step_seconds == pytest.approx(0.85)
    assert found.steps == -(-10_000 // 32)
    assert found.memory.base > 50e6
    monkeypatch.setattr(local, "deepest", lambda config, here, context, rows: 2 if rows == 1 else 0)
    part = here()
    assert part.how == "steps of 1 and 2 of 4 layers, 1 of 2 rows"
    assert part.step_seconds == pytest.approx(0.85)


def test_the_probe_corrects_what_the_allocator_adds() -> None:
    case = Case(tiny_config("gpt2", layers=6), context=16, base=1000)
    part, whole = case.config.replace(layers=2), memory(case, 8)
    tried = memory(dataclasses.replace(case, config=part), 4).peak - 1000
    found = Probe(1.0, "", (part, 4), 1000 + 2 * tried)
    assert corrected(case, whole, found, 1000).peak == 1000 + 2 * (whole.peak - 1000)
    assert corrected(case, whole, Probe(1.0, ""), 1000) == whole


@pytest.mark.usefixtures("quick")
def test_what_does_not_fit_here_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hornbook.machine.available_memory", lambda device: 60_000_000)
    with pytest.raises(UserError, match=r"does not fit here.*(--batch|--gpu h100:8)"):
        here(batch=4000, context=256)


@pytest.mark.usefixtures("quick")
def test_what_does_not_fit_by_what_was_seen_says_so_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hornbook.planning.plan.probe", lambda config, *_: Probe(1.0, "", (config, 2), 10**15))
    with pytest.raises(UserError, match=r"does not fit here: 1"):
        here()


def test_products_are_measured_as_the_run_computes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, choose = [], local.choose

    def peak(*_: object) -> speed.Peak:
        seen.append(torch.get_float32_matmul_precision())
        return speed.Peak(1e11, "measured")

    monkeypatch.setattr(local, "choose", lambda *x: dataclasses.replace(choose(*x), float32_matmul="medium"))
    monkeypatch.setattr("hornbook.machine.reference_peak", peak)
    with machine.float32_precision("highest"):  # which the probe's engine changes for its process
        here()
    assert seen[0] == "medium"


def test_a_real_step_of_the_probe_is_one_of_the_engine() -> None:
    settings = Train("x", batch=2, optimizer="muon", lr=1e-3, precision="float32", device="cpu", compile="no")
    found = local.Here("cpu", "", 1e9, 0, 1e9, settings)
    assert isinstance(Engine(models.build(tiny_config("gpt2")), settings), Engine)
    assert local.step_seconds(tiny_config("gpt2"), found, 16, 2) > (0, 0)


def test_the_page_in_docs_is_what_the_code_gives() -> None:
    same = PAGE.exists() and PAGE.read_text(encoding="utf-8") == plan_page()
    assert same, f"docs/plan.md is not up to date: write it anew with `{COMMAND}`"


def test_the_command_writes_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hornbook.planning.page.plan_page", lambda: "a page\n")
    write(str(tmp_path / "docs" / "plan.md"))
    assert (tmp_path / "docs" / "plan.md").read_text() == "a page\n"
