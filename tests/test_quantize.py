"""Matrices in 8 and 4 bits: how far numbers may move, what products give, and every model with them."""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helpers import VOCAB, tiny_model
from hornbook import models
from hornbook.adapt import int4, int8, nf4, quantized
from hornbook.adapt.layer_report import layer_of, outlying_columns, together
from hornbook.adapt.packing import Scheme, pack, unpack
from hornbook.adapt.products import product, rounded_product
from hornbook.adapt.quantization import dequantize, quantize
from hornbook.adapt.quantized import KINDS, Quantized, QuantizedEmbedding, QuantizedLinear
from hornbook.config import GROUPS, Quantization, Quantize
from hornbook.errors import UserError
from hornbook.layers.stand_in import StandIn

NEURAL = [name for name in models.families() if not models.family(name).Model.counted]
CAUSAL = [name for name in NEURAL if models.family(name).Model.causal]
SCHEMES = [
    Scheme("int8", 32),
    Scheme("int8", 64),
    Scheme("int8", 0),
    Scheme("int4", 32),
    Scheme("int4", 64, symmetric=True),
    Scheme("nf4", 64),
    Scheme("nf4", 64, double=True),
]
WAYS = {
    "int8": Quantization("int8", 32),
    "llm.int8": Quantization("int8", 0, outliers=6.0),
    "int4": Quantization("int4", 32),
    "int4 symmetric": Quantization("int4", 32, symmetric=True, head="int4"),
    "nf4": Quantization("nf4", 64, double=True, head="nf4"),
    "head in full": Quantization("int8", 64, head="none"),
}

CLOSE = {"rtol": 0, "atol": 2e-5}
"""As in test_every_model.py: roundings of float32 in sums of at most a few hundred terms of size 1."""
EPS = 2.0**-20
"""Room for the roundings of a few operations in float32, relative to the numbers."""


def numbers(rows: int = 9, columns: int = 96, size: float = 1.0, seed: int = 0) -> Tensor:
    """A matrix with a row of zeros, one of all the same, and one with a number that is far off."""
    drawn = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    drawn[0], drawn[1] = 0, -0.7
    drawn[2, 5] = 40
    return drawn * size


def coded(weight: Tensor, scheme: Scheme, bias: bool = False) -> QuantizedLinear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias)
    module = QuantizedLinear(linear, scheme)
    module.take(weight)
    return module


def by_group(values: Tensor, group: int) -> Tensor:
    """Numbers (N, columns) as (N, groups, numbers of a group)."""
    return values.unflatten(1, (-1, group or values.shape[1]))


def tokens(rows: int = 3, length: int = 20) -> Tensor:
    return torch.randint(3, VOCAB, (rows, length), generator=torch.Generator().manual_seed(1))


# -- numbers


@pytest.mark.parametrize("width", [32, 96])
def test_two_codes_share_a_byte_and_come_apart_again(width: int) -> None:
    codes = torch.randint(16, (5, width), dtype=torch.uint8)
    pairs = pack(codes)
    assert pairs.shape == (5, width // 2)
    assert torch.equal(unpack(pairs), codes)
    assert torch.equal(pairs[:, 3], codes[:, 3] + 16 * codes[:, 19])  # GGUF's order: j, and j + 16


@pytest.mark.parametrize("size", [1e-7, 1e-3, 1.0, 1e5])
@pytest.mark.parametrize("group", [0, 32, 96])
def test_int8_moves_no_number_by_more_than_half_a_scale(group: int, size: float) -> None:
    weight, scheme = numbers(size=size), Scheme("int8", group)
    parts = int8.encode(weight, scheme)
    moved = by_group((int8.decode(parts, scheme) - weight).abs(), group)
    assert bool((moved <= parts["scales"].float()[..., None] * (0.5 + EPS * 127)).all())
    least = by_group(weight.abs(), group).amax(-1) / 127
    normal = least > 2**-14  # below, float16 has fewer digits
    torch.testing.assert_close(parts["scales"].float()[normal], least[normal], rtol=2**-11, atol=0)
    assert bool((parts["scales"].float() <= least * (1 + 2**-11) + 2**-24).all())  # no coarser than it must be


@pytest.mark.parametrize("size", [1e-7, 1e-3, 1.0, 1e3])
@pytest.mark.parametrize("group", [32, 96])
def test_int4_moves_no_number_by_more_than_half_a_scale(group: int, size: float) -> None:
    weight, scheme = numbers(size=size), Scheme("int4", group)
    parts = int4.encode(weight, scheme)
    moved = by_group((int4.decode(parts, scheme) - weight).abs(), group)
    lowest = by_group(weight, group).amin(-1).abs()
    half_a_place = torch.maximum(lowest * 2.0**-11, torch.tensor(2.0**-25))  # of the minimum, in float16
    bound = torch.maximum(parts["scales"].float() / 2, half_a_place) + EPS * lowest
    assert bool((moved <= bound[..., None] * (1 + EPS * 15)).all())
    spread = by_group(weight, group).amax(-1) - by_group(weight, group).amin(-1)
    assert bool((parts["scales"].float() <= (spread + half_a_place) / 15 * (1 + 2**-10) + 2**-24).all())


def test_symmetric_int4_cuts_off_only_what_lies_beyond_seven_and_a_half_scales_on_the_other_side() -> None:
    weight, scheme = numbers(), Scheme("int4", 32, symmetric=True)
    parts = int4.encode(weight, scheme)
    scales = parts["scales"].float()[..., None]
    places = by_group(weight, 32) / torch.where(scales == 0, 1, scales)  # the largest is at -8
    assert float(places.min()) >= -8.5
    moved = by_group((int4.decode(parts, scheme) - weight).abs(), 32)
    bound = scales.abs() * torch.where(places > 7.5, places - 7, 0.5)
    assert bool((moved <= bound + EPS * by_group(weight, 32).abs()).all())


def test_nf4_s_levels_are_the_quantiles_of_a_normal_distribution() -> None:
    published = [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635]
    published += [-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725]
    published += [0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941]
    published += [0.7229568362236023, 1.0]  # QLoRA, appendix E: float32, and a last quantile of 0.9677083
    torch.testing.assert_close(torch.tensor(nf4.LEVELS), torch.tensor(published), rtol=0, atol=5e-7)
    last = 1 - (1 / 32 + 1 / 30) / 2

    def share_below(level: float) -> float:
        """Of the normal distribution whose quantile `last` is at 1."""
        low, high = 0.0, 5.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if (1 + math.erf(middle / 2**0.5)) / 2 < last else (low, middle)
        return (1 + math.erf(level * low / 2**0.5)) / 2

    shares = [share_below(level) for level in nf4.LEVELS]
    below, above = shares[:8], shares[7:]
    assert [b - a for a, b in itertools.pairwise(below)] == pytest.approx([(last - 0.5) / 7] * 7)
    assert [b - a for a, b in itertools.pairwise(above)] == pytest.approx([(last - 0.5) / 8] * 8)


@pytest.mark.parametrize("double", [False, True])
def test_nf4_takes_the_nearest_level(double: bool) -> None:
    weight, scheme = numbers(300), Scheme("nf4", 64, double=double)
    module = coded(weight, scheme)
    parts = {name: getattr(module, name) for name in module.parts}
    if double:
        parts |= {name: parts[name].repeat_interleave(256, 0)[:300] for name in ("steps", "means")}
    scales = nf4.scales_of(parts).repeat_interleave(64, 1)[:, :96]
    choices = scales[..., None] * torch.tensor(nf4.LEVELS)
    best = (choices - weight[..., None]).abs().amin(-1)
    assert bool(((module.weight - weight).abs() <= best + EPS * weight.abs()).all())


def test_nf4_s_scales_in_8_bits_are_within_half_a_step() -> None:
    weight = numbers(600)
    module = coded(weight, Scheme("nf4", 32, double=True))
    largest = by_group(weight.abs(), 32).amax(-1)
    assert module.steps.shape == (3, 3)
    for block in range(3):
        rows = slice(256 * block, 256 * (block + 1))
        true, codes = largest[rows], module.scales[rows].float()
        apart = (module.means[block] + module.steps[block] * codes - true).abs()
        assert bool((apart <= module.steps[block] * (0.5 + EPS * 127) + EPS * true).all())
        spread = (true - true.mean(0)).abs().amax(0)
        torch.testing.assert_close(module.steps[block], spread / 127)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("rows", "columns"), [(300, 96), (1, 32), (7, 50), (257, 130), (2, 5)])
def test_the_parts_are_as_laid_out_and_stand_for_every_number(
    scheme: Scheme, rows: int, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = numbers(max(rows, 3), max(columns, 6))[:rows, :columns]
    module = coded(weight, scheme)
    for name, part in KINDS[scheme.kind].encode(weight, scheme).items():
        assert torch.equal(getattr(module, name), part)
        assert (part.shape, part.dtype) == module.parts[name][:2]
    assert module.weight.shape == weight.shape
    spans = by_group(F.pad(weight, (0, -columns % 32)), 32).abs().amax()
    assert float((module.weight - weight).abs().max()) <= 0.16 * float(spans)  # half of nf4's widest distance: 0.152
    monkeypatch.setattr(quantized, "PIECE", 1)  # a row at a time, or a block of 256
    again = coded(weight, scheme)
    assert all(torch.equal(getattr(module, name), getattr(again, name)) for name in module.parts)
    assert torch.equal(again.weight, module.weight)


@pytest.mark.parametrize("fault", [float("nan"), float("inf"), 1e9])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_cannot_be_held_is_refused(scheme: Scheme, fault: float) -> None:
    weight = numbers()
    weight[4, 7] = fault
    with pytest.raises(UserError, match="too large to be quantised"):
        coded(weight, scheme)


@pytest.mark.parametrize(
    ("scheme", "kind"), [(Scheme("int8", 32), "Q8_0"), (Scheme("int4", 32, symmetric=True), "Q4_0")]
)
def test_gguf_holds_the_same_numbers(scheme: Scheme, kind: str) -> None:
    gguf = pytest.importorskip("gguf")
    ours = coded(numbers(), scheme).weight
    number = gguf.GGMLQuantizationType[kind]
    theirs = gguf.quants.dequantize(gguf.quants.quantize(ours.numpy(), number), number)
    assert torch.equal(torch.from_numpy(theirs), ours)


# -- products


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_product_is_that_with_the_matrix_in_full(scheme: Scheme, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantized, "PIECE", 1)
    module, x = coded(numbers(300) * 0.1, scheme, bias=True), torch.randn(2, 3, 96)
    plain = module.plain()
    assert torch.equal(plain.weight, module.weight)
    torch.testing.assert_close(module(x), plain(x), **CLOSE)
    assert module(x[:, :0]).shape == (2, 0, 300)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_gradient_in_the_input_is_that_of_the_matrix_in_full(
    scheme: Scheme, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantized, "PIECE", 1)
    module = coded(numbers(300) * 0.1, scheme)
    x, y = (torch.randn(4, 96, generator=torch.Generator().manual_seed(3)).requires_grad_() for _ in range(2))
    module(x).square().sum().backward()
    module.plain()(y).square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-4, atol=1e-4)


def emulated(x: Tensor, weight: Tensor, threshold: float) -> Tensor:
    """LLM.int8() by the paper's formulas in float64: X (tokens, h), W (outputs, h) -> (tokens, outputs)."""
    outlying = [h for h in range(x.shape[1]) if any(abs(value) >= threshold for value in x[:, h].tolist())]
    others = [h for h in range(x.shape[1]) if h not in outlying]
    of_x, of_w = x[:, others].abs().amax(1, keepdim=True), weight.abs().amax(1, keepdim=True)
    steps = (of_w / 127).half().double()  # kept in float16
    weights = (weight / steps.where(steps > 0, 1)).round()
    codes = (127 * x[:, others] / of_x.where(of_x > 0, 1)).round()
    regular = codes @ weights[:, others].T * (of_x / 127) * steps.T
    return regular + x[:, outlying] @ (weights[:, outlying] * steps).T


@pytest.mark.parametrize("outlying", [0, 1, 5])
def test_llm_int8_is_the_paper_s_formula(outlying: int) -> None:
    weight = numbers() * 0.1
    x = torch.randn(6, 96, generator=torch.Generator().manual_seed(2)).clamp(-5, 5)
    x[2, :outlying], x[5] = 9, 0
    module = coded(weight, Scheme("int8", 0, outliers=6.0))
    wanted = emulated(x.double(), weight.double(), 6.0)
    # sums of integers are exact (127^2 96 < 2^24); what is left are about ten roundings of terms up to 9 x 4 x 5
    torch.testing.assert_close(module(x).double(), wanted, rtol=0, atol=10 * 180 * 2**-24)


def test_outlying_columns_in_full_save_the_others_from_coarse_steps() -> None:
    module = coded(numbers(), Scheme("int8", 0, outliers=6.0))
    x = torch.randn(6, 96, generator=torch.Generator().manual_seed(2)).clamp(-3, 3)
    x[:, 7] = 60
    exact, kept = product(x, module), module(x)
    module.scheme = module.scheme._replace(outliers=100.0)
    assert float((kept - exact).norm()) < 0.1 * float((module(x) - exact).norm())  # 3 / 127 against 60 / 127


@pytest.mark.parametrize("scheme", SCHEMES)
def test_rows_that_are_looked_up_are_those_of_the_matrix(scheme: Scheme) -> None:
    table = nn.Embedding(600, 50)
    module = QuantizedEmbedding(table, scheme)
    module.take(table.weight)
    ids = torch.tensor([[0, 599, 256], [3, 3, 511]])
    assert torch.equal(module(ids), module.weight[ids])


# -- models


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", NEURAL)
def test_a_quantised_model_is_the_model_of_its_rounded_matrices(family: str, way: str) -> None:
    model, how = tiny_model(family), WAYS[way]
    before = copy.deepcopy(model)
    if family == "rnn" and how.head == "none":
        with pytest.raises(UserError, match="nothing of this model is left to be quantised"):
            quantize(model, how)
        return
    with torch.no_grad():
        quantize(model, how)
        wanted = dequantize(copy.deepcopy(model))
        for module in model.modules():
            if isinstance(module, Quantized):
                module.product = product  # activations in full
        torch.testing.assert_close(model(tokens()), wanted(tokens()), **CLOSE)
    left = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    assert left == (["output"] if how.head == "none" and model.output is not None else [])
    assert isinstance(model.embedding, nn.Embedding) == (how.head == "none")
    assert [type(module) for module in wanted.modules()] == [type(module) for module in before.modules()]
    assert wanted.state_dict().keys() == before.state_dict().keys()
    assert model.parameter_count() == before.parameter_count()
    assert model.flops_per_token(48) == before.flops_per_token(48)
    size, held = (sum(tensor.nbytes for tensor in m.state_dict().values()) for m in (before, model))
    assert held < size


@pytest.mark.parametrize("changes", [("llama", True), ("llama", False), ("rnn", True), ("rnn", False), ("opt", True)])
def test_the_head_multiplies_the_quantised_matrix(changes: tuple[str, bool]) -> None:
    family, tied = changes
    model = quantize(tiny_model(family, tied=tied), WAYS["int8"])
    seen: list[StandIn] = []
    model.readout.product = lambda x, matrix: (seen.append(matrix), product(x, matrix))[1]
    with torch.no_grad():
        logits = model(tokens())
    assert seen == [model.embedding if tied else model.output]
    weight, bias = model.unembedding
    with torch.no_grad():
        wanted = F.linear(model.features(model.hidden(tokens())), weight, bias)
    torch.testing.assert_close(logits, wanted, **CLOSE)


@pytest.mark.parametrize("family", CAUSAL)
def test_a_quantised_model_reads_in_pieces_as_at_once(family: str) -> None:
    if models.family(family).Model.counted:
        return
    model, x = quantize(tiny_model(family), WAYS["int4"]), tokens()
    cache = model.make_cache(3, 24)
    with torch.no_grad():
        parts = [model(part, cache) for part in x.split([7, 1, 12], dim=1)]
        torch.testing.assert_close(torch.cat(parts, 1), model(x), **CLOSE)


def test_llm_int8_rounds_activations_everywhere_but_in_the_head() -> None:
    model = quantize(tiny_model("llama", tied=False), WAYS["llm.int8"])
    found = {name: module.product for name, module in model.named_modules() if isinstance(module, Quantized)}
    assert {name for name, used in found.items() if used is not rounded_product} == {"embedding", "output"}
    assert model.embedding.scheme == Scheme("int8", 32)


@pytest.mark.parametrize("kind", GROUPS)
def test_half_precision_and_copies_leave_the_parts_as_they_are(kind: str) -> None:
    model = quantize(tiny_model("gpt2"), Quantization(kind, GROUPS[kind]))
    half = copy.deepcopy(model).bfloat16()
    parts = {name: tensor for name, tensor in model.state_dict().items() if name.split(".")[-1] in ("codes", "scales")}
    assert all(torch.equal(half.state_dict()[name], tensor) for name, tensor in parts.items())
    assert half.embedding(tokens()).dtype == torch.bfloat16
    with torch.no_grad():
        logits = half(tokens())
        assert logits.dtype == torch.bfloat16
        torch.testing.assert_close(logits.float(), model(tokens()), rtol=0.1, atol=0.3)
    assert half.make_cache(1, 8).keys.dtype == torch.bfloat16


def test_half_precision_weights_are_what_is_quantised() -> None:
    model = tiny_model("gpt2").bfloat16()
    rounded = quantize(copy.deepcopy(model).float(), WAYS["int8"])
    assert torch.equal(quantize(model, WAYS["int8"]).embedding.codes, rounded.embedding.codes)


def test_modules_to_keep_stay_as_they_are() -> None:
    model = tiny_model("gpt2", layers=11)
    quantize(model, Quantization(keep=("blocks.1", "blocks.2.mlp.up", "embedding")))
    left = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    assert left == {f"blocks.1.{part}" for part in parts_of_a_block()} | {"blocks.2.mlp.up"}
    assert isinstance(model.embedding, nn.Embedding)
    with pytest.raises(UserError, match=r"unknown module 'blocks.1.mlp.upp'. Did you mean 'blocks.1.mlp.up'"):
        quantize(tiny_model("gpt2"), Quantization(keep=("blocks.1.mlp.upp",)))


def parts_of_a_block() -> list[str]:
    return ["mlp.up", "mlp.down", *(f"attention.{part}" for part in ("query", "key", "value", "output"))]


def test_models_that_cannot_be_quantised_are_refused() -> None:
    with pytest.raises(UserError, match="model of the family ngram is counted: it has no matrices"):
        quantize(tiny_model("ngram"), WAYS["int8"])
    model = quantize(tiny_model("gpt2"), WAYS["int4"])
    with pytest.raises(UserError, match=r"quantised already \(int4 in groups of 32, embedding and head int8"):
        quantize(model, WAYS["int8"])


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"kind": "int9"}, "unknown kind of quantisation 'int9'. Did you mean 'int8'"),
        ({"head": "int5"}, "unknown head of quantisation 'int5'"),
        ({"group": 33}, "a group of 33 is not possible: 0 .whole rows. or a multiple of 32"),
        ({"kind": "int4", "group": 0}, "a group of 0 is not possible: a multiple of 32"),
        ({"group": -32}, "not possible"),
        ({"group": 1 << 20}, "not possible"),
        ({"group": 0, "outliers": -1.0}, "outliers from -1.0 on are not possible"),
        ({"group": 0, "outliers": float("nan")}, "are not possible"),
        ({"outliers": 6.0}, "outliers are kept apart in int8 by rows only"),
        ({"kind": "nf4", "outliers": 6.0}, "outliers are kept apart in int8 by rows only"),
    ],
)
def test_settings_that_cannot_be_are_refused(fields: dict[str, object], told: str) -> None:
    with pytest.raises(UserError, match=told):
        Quantization(**fields)  # type: ignore[arg-type]


# -- the report


def test_the_report_says_how_far_each_matrix_moved() -> None:
    weight = numbers(300)
    for scheme in SCHEMES:
        module = coded(weight, scheme)
        layer, moved = layer_of("x", weight, module), module.weight - weight
        assert layer.error == pytest.approx(float(moved.norm() / weight.norm()), rel=1e-5)
        columns = moved.norm(dim=0) / weight.norm(dim=0)
        assert (layer.worst, layer.worst_column) == (
            pytest.approx(float(columns.max()), rel=1e-5),
            int(columns.argmax()),
        )
        assert layer.far == int(((weight - weight.mean()).abs() > 6 * weight.std(correction=0)).sum()) == 1
        assert layer.bytes_before == 300 * 96 * 4
        assert layer.bytes_after == sum(getattr(module, name).nbytes for name in module.parts)


def test_equal_matrices_of_all_blocks_are_told_together() -> None:
    found, model = [], tiny_model("gpt2", layers=3)
    quantize(model, WAYS["int8"], lambda *what: found.append(layer_of(*what)))
    assert len(found) == 1 + 3 * 6
    rows = {row.name: row for row in together(found)}
    assert rows.keys() == {"embedding", *(f"blocks.0-2.{part}" for part in parts_of_a_block())}
    up = [layer for layer in found if layer.name.endswith("mlp.up")]
    row = rows["blocks.0-2.mlp.up"]
    assert (row.count, row.bytes_after) == (3, sum(layer.bytes_after for layer in up))
    assert row.worst == max(layer.worst for layer in up)
    norms = sum(layer.norm**2 for layer in up)
    assert row.error**2 == pytest.approx(sum((layer.error * layer.norm) ** 2 for layer in up) / norms)
    rest = [layer for layer in found if "blocks.1." not in layer.name]
    assert "blocks.0,2.mlp.up" in {row.name for row in together(rest)}


@pytest.mark.parametrize("family", ["gpt2", "opt", "bert", "rnn_attention"])
def test_outliers_among_activations_are_counted_by_column(family: str) -> None:
    model = tiny_model(family)
    inputs: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name != "output":
            module.register_forward_pre_hook(lambda _, x, name=name: inputs.update({name: x[0]}))
    found = outlying_columns(model, tokens(1), 0.3)
    head = "embedding" if model.output is None else "output"
    assert found.keys() == inputs.keys() | {head}
    for name, x in inputs.items():
        assert found[name] == int(((x.abs() >= 0.3).sum((0, 1)) > 0).sum())
    assert sum(found.values()) > 0


@pytest.mark.parametrize(("kind", "name", "of"), [("int8", "symmetric", "int4"), ("int4", "double", "nf4")])
def test_what_changes_another_kind_only_is_refused(kind: str, name: str, of: str) -> None:
    with pytest.raises(
        UserError, match=f"--{name} changes {of} only, and here {kind} and, for the head, int8 are kept"
    ):
        Quantize("x", kind, **{name: True})
    assert Quantize("x", kind, head=of, **{name: True}).quantization.head == of
