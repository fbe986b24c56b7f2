"""The compiled products against the plain ones."""

from __future__ import annotations

import copy
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers import tiny_model
from hornbook import kernels
from hornbook.adapt import int4, int8
from hornbook.adapt.packing import Scheme, unpack
from hornbook.adapt.quantization import quantization_of, quantize
from hornbook.adapt.quantized import Quantized
from hornbook.config import Sampling
from hornbook.errors import UserError
from hornbook.generation.answers import Request
from hornbook.generation.engine import Engine
from hornbook.generation.swift import quicken
from hornbook.kernels.program import Program
from hornbook.layers.model import LanguageModel

built = pytest.mark.skipif(kernels.library() is None, reason="no C compiler")


Multiply = Callable[..., torch.Tensor]


def stored(weight: torch.Tensor, form: str, group: int = 32, symmetric: bool = False) -> tuple[Multiply, torch.Tensor]:
    """A matrix in a form: the product with it, and the numbers that it stands for."""
    if form in ("float32", "bfloat16"):
        held = weight.to(getattr(torch, form))
        matrix, whole = kernels.plain(held), held.float()
    else:
        kind, scheme = (int8 if form == "int8" else int4), Scheme(form, group, symmetric=symmetric)
        parts = kind.encode(weight, scheme)
        codes = unpack(parts["codes"]) if form == "int4" else parts["codes"]
        matrix = kernels.coded(codes, parts["scales"], parts.get("minimums"), 4 if form == "int4" else 8)
        whole = kind.decode(parts, scheme)
    assert matrix is not None
    return lambda x: kernels.multiply(x, matrix), whole


@built
@pytest.mark.parametrize("rows", [1, 15, 16, 33, 65, 200])
@pytest.mark.parametrize("batch", [1, 2, 3, 4, 7, 17, 40])
@pytest.mark.parametrize(
    ("form", "group"), [("float32", 0), ("bfloat16", 0), ("int8", 32), ("int8", 96), ("int4", 32), ("int4", 96)]
)
def test_products_are_exact_to_the_rounding_of_their_sums(form: str, group: int, batch: int, rows: int) -> None:
    torch.manual_seed(rows * batch)
    width = 96
    weight = torch.randn(rows, width)
    multiply, whole = stored(weight, form, group)
    for dtype, last_place in ((torch.float32, 2.0**-24), (torch.bfloat16, 2.0**-8)):
        x = torch.randn(batch, width).to(dtype)
        found, wanted = multiply(x), x.double() @ whole.double().T
        # float32 sums of `width` products; with 4 bits of minimums and codes, each as large as a group's range
        size = x.double().abs() @ whole.double().abs().T.clamp(min=float(weight.abs().max()) if form == "int4" else 0)
        assert found.dtype == dtype
        bound = 4 * width * 2.0**-24 * size + last_place * wanted.abs()
        assert bool(((found.double() - wanted).abs() <= bound).all())


@built
def test_a_bias_is_added_before_the_rounding() -> None:
    weight, bias, x = torch.randn(40, 64).bfloat16(), torch.randn(40), torch.randn(2, 3, 64).bfloat16()
    matrix = kernels.plain(weight, bias)
    assert matrix is not None
    found = kernels.multiply(x, matrix)
    assert kernels.multiply(x, matrix, torch.float32).dtype == torch.float32
    wanted = (x.double() @ weight.double().T + bias).bfloat16()
    assert found.shape == (2, 3, 40)
    assert torch.allclose(found.float(), wanted.float(), rtol=2.0**-7, atol=1e-6)


@built
def test_symmetric_codes_have_no_minimum() -> None:
    multiply, whole = stored(torch.randn(64, 128), "int4", symmetric=True)
    x = torch.randn(3, 128)
    assert torch.allclose(multiply(x), x @ whole.T, atol=1e-4)


@built
def test_all_finite_bfloat16_numbers_come_back_from_a_product_with_one() -> None:
    bits = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    bits = bits[bits.isfinite()]
    weight = torch.zeros(len(bits), 32, dtype=torch.bfloat16)
    weight[:, 0] = bits
    x = torch.zeros(1, 32, dtype=torch.bfloat16)
    x[0, 0] = 1
    matrix = kernels.plain(weight)
    assert matrix is not None
    found, normal = kernels.multiply(x, matrix)[0], bits.float().abs() >= torch.finfo(torch.bfloat16).tiny
    assert torch.equal(found[normal], bits[normal])
    assert bool(((found == bits) | (found == 0)).all()), "numbers below all normal ones may be taken for 0"


@built
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (6, 2), (4, 1)])
@pytest.mark.parametrize(("width", "window"), [(16, None), (48, 5), (256, None)])
def test_attention_of_new_tokens_equals_torchs(
    dtype: torch.dtype, heads: int, groups: int, width: int, window: int | None
) -> None:
    torch.manual_seed(0)
    rows, slots, new = 3, 40, 2
    at = torch.tensor([[0, 1], [37, 38], [7, 39]])  # the last slot is for padding
    keys, values = (torch.randn(1, rows + 1, groups, slots, width).to(dtype) for _ in range(2))
    query, key, value = (torch.randn(rows, n, new, width).to(dtype) for n in (heads, groups, groups))
    wanted_keys, wanted_values = keys.clone(), values.clone()
    for row, places in enumerate(at.tolist()):
        wanted_keys[0, row, :, places], wanted_values[0, row, :, places] = key[row], value[row]
    program = attention_alone(heads, groups, width)
    x = torch.cat([part.transpose(1, 2).flatten(2) for part in (query, key, value)], -1)
    found = program.run(x, keys, values, at, None, window or 0)
    found = found.flatten()[: query.numel()].view(rows, new, heads, width).transpose(1, 2)
    assert torch.equal(keys, wanted_keys)
    assert torch.equal(values, wanted_values)
    places = torch.arange(slots)
    seen = (places <= at[..., None]) & (places > at[..., None] - (window or slots))
    k, v = (part[0, :rows].double().repeat_interleave(heads // groups, 1) for part in (keys, values))
    wanted = torch.nn.functional.scaled_dot_product_attention(query.double(), k, v, seen[:, None])
    wanted[2, :, 1] = 0
    # a score has `width` products of float32, a mix `slots`; what is stored is rounded once
    bound = (width + slots) * 2.0**-24 * 16 + (2.0**-8 if dtype == torch.bfloat16 else 0) * wanted.abs()
    assert bool(((found.double() - wanted).abs() <= bound).all())


def attention_alone(heads: int, groups: int, width: int) -> Program:
    """Of queries, keys and values that come beside each other."""
    sizes = {"query": heads * width, "key": groups * width, "value": groups * width}
    everything = torch.eye(sum(sizes.values()))
    program = Program(x=len(everything), **sizes, mixed=len(everything))
    parts = {
        name: kernels.plain(part) for name, part in zip(sizes, everything.split(list(sizes.values())), strict=True)
    }
    program.products("x", {name: part for name, part in parts.items() if part is not None})
    shape = {"layer": 0, "width": width, "heads": heads, "groups": groups, "turned": 0, "eps": 1e-5}
    program.keep("key", "value", None, **shape)
    program.attend("query", "mixed", None, **shape)
    return program.ready("mixed")


FAMILIES = ["gpt2", "opt", "llama", "gemma", "gpt_neox", "qwen3", "hornbook", "smollm3", "rnn"]
WIDE: dict[str, Any] = {"dim": 64, "mlp": 96, "heads": 4, "head_dim": 16}
"""Sizes that the kernels can have."""


def of_two(family: str, dtype: torch.dtype, bits: int | None) -> tuple[LanguageModel, LanguageModel]:
    """The same model twice, and the second one quickened."""
    models = [tiny_model(family, **({} if family == "rnn" else WIDE)).to(dtype) for _ in range(2)]
    if how := quantization_of(bits):
        for model in models:
            quantize(model, how)
    quicken(models[1])
    assert family == "rnn" or models[1].step is not None
    return models[0], models[1]


@built
@pytest.mark.parametrize("bits", [None, 8, 4])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_quickened_model_in_float32_says_what_the_plain_one_does(family: str, bits: int | None) -> None:
    plain, swift = of_two(family, torch.float32, bits)
    tokens = torch.randint(3, 40, (6, 24), generator=torch.Generator().manual_seed(0))
    tokens[3] = tokens[2]
    with torch.inference_mode():
        caches = [m.make_cache(6, 24) for m in (plain, swift)]
        for some in tokens.split([1, 1, 1, 2, 1, 3, 9, 1, 1, 4], 1):
            real = torch.ones_like(some)
            real[3, 1:] = 0  # padding, which nobody sees
            wanted, found = (m(some, cache, real) for m, cache in zip((plain, swift), caches, strict=True))
            kept = real.bool()
            # rounded sums, on their way through two layers: of about 100 numbers of float32 each
            assert torch.allclose(found[kept], wanted[kept], rtol=1e-4, atol=2e-5)
        assert torch.equal(caches[0].lengths, caches[1].lengths)


@built
@pytest.mark.parametrize("bits", [8, 4])
def test_a_quantised_model_in_float16_goes_the_plain_way(bits: int) -> None:
    model = tiny_model("llama", **WIDE).to(torch.float16)
    quantize(model, quantization_of(bits))
    quicken(model)
    assert model.step is None  # type: ignore[attr-defined]
    with torch.inference_mode():
        assert model(torch.tensor([[3]]), model.make_cache(1, 4)).isfinite().all()


@built
def test_an_encoder_without_a_head_is_left_as_it_is() -> None:
    model = tiny_model("bert", masked_head=False, **WIDE)
    quicken(model)
    with pytest.raises(UserError, match="without a masked-token head"):
        model.unembed(model.features(torch.zeros(1, 1, 64)))


@built
@pytest.mark.parametrize("bits", [None, 8, 4])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_quickened_model_in_bfloat16_is_as_exact_as_the_plain_one(family: str, bits: int | None) -> None:
    plain, swift = of_two(family, torch.bfloat16, bits)
    exact = copy.deepcopy(plain).float()
    tokens = torch.randint(3, 40, (16, 12), generator=torch.Generator().manual_seed(0))
    rounding = ours = 0.0  # squared, of bfloat16 between layers, which both have
    with torch.inference_mode():
        for rows in tokens.split([2, 6, 8]):
            caches = [m.make_cache(len(rows), 12) for m in (exact, plain, swift)]
            for token in rows.split(1, 1):
                logits = [m(token, c).float() for m, c in zip((exact, plain, swift), caches, strict=True)]
                rounding += float((logits[1] - logits[0]).square().sum())
                ours += float((logits[2] - logits[0]).square().sum())
    assert ours <= 1.2 * rounding
    if bits is None:
        swift(tokens).float().logsumexp(-1).sum().backward()
        assert swift.get_parameter("embedding.weight").grad is not None


@built
@pytest.mark.parametrize("bits", [8, 4])
def test_codes_that_kernels_have_taken_over_are_the_same_and_held_once(bits: int) -> None:
    plain, swift = of_two("llama", torch.bfloat16, bits)
    wanted, found = (m.get_submodule("embedding") for m in (plain, swift))
    assert isinstance(wanted, Quantized)
    assert isinstance(found, Quantized)
    ids = torch.tensor([[0, 39, 17], [16, 15, 1]])
    for rows in (slice(0, 40), slice(3, 35), slice(32, 40), ids):
        assert torch.equal(found.decoded(rows), wanted.decoded(rows))
    before, after = (sum(part.numel() for part in m.state_dict().values()) for m in (plain, swift))
    assert after < 0.5 * before


@built
def test_logits_of_a_bfloat16_head_are_not_rounded() -> None:
    model = tiny_model("llama", **WIDE).bfloat16()
    quicken(model)
    with torch.inference_mode():
        hidden = torch.randn(3, 64).bfloat16()
        assert torch.allclose(model.head(hidden), hidden.float() @ model.unembedding[0].float().T, atol=1e-5)


OTHERS = {
    "AVX2": "-march=x86-64-v3",
    "AVX-512": "-march=x86-64-v4 -mprefer-vector-width=512",
    "AVX-512 with bfloat16": "-march=x86-64-v4 -mavx512bf16 -mprefer-vector-width=512",
}
"""Processors that this one may be able to be, and what each is asked of with."""


@built
@pytest.mark.skipif(platform.machine() != "x86_64", reason="these are instructions of x86-64")
@pytest.mark.parametrize("processor", list(OTHERS))
def test_other_processors_instructions_give_the_same(
    processor: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    flags = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")).split()
    if not {"avx2", "avx512_bf16", "avx512bw"} <= set(flags):
        pytest.skip("this processor has not got them")
    monkeypatch.setattr(kernels, "target", lambda: OTHERS[processor].split())
    monkeypatch.setenv("HORNBOOK_HOME", str(tmp_path / "home"))
    kernels.library.cache_clear()
    try:
        for form, group in (("float32", 0), ("bfloat16", 0), ("int8", 32), ("int4", 32), ("int4", 96)):
            for batch in (1, 7, 17):
                test_products_are_exact_to_the_rounding_of_their_sums(form, group, batch, 65)
        for bits in (None, 8, 4):
            test_a_quickened_model_in_float32_says_what_the_plain_one_does("hornbook", bits)
            test_a_quickened_model_in_bfloat16_is_as_exact_as_the_plain_one("llama", bits)
        assert len(list((tmp_path / "home").rglob("*.so"))) == 1
    finally:
        kernels.library.cache_clear()


def test_without_a_compiler_everything_runs_the_plain_way(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kernels, "library", lambda: None)
    model, sampling = tiny_model("llama").bfloat16(), Sampling(temperature=0)
    texts = []
    for step in range(2):
        engine = Engine(model)
        answer = engine.submit(Request([3, 4], 20, sampling))
        while engine.busy:
            engine.step()
        texts.append(answer.new)
        if not step:
            quicken(model)
    assert texts[0] == texts[1]


@built
def test_kernels_that_cannot_be_built_are_told_of_once_and_done_without(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "products.c"
    broken.write_text("this is no C")
    monkeypatch.setattr(kernels, "SOURCE", broken)
    monkeypatch.setenv("HORNBOOK_HOME", str(tmp_path / "home"))
    kernels.library.cache_clear()
    try:
        assert kernels.library() is None
        assert "cannot be built" in capsys.readouterr().err
        assert not list((tmp_path / "home").rglob("*.so"))
    finally:
        kernels.library.cache_clear()
