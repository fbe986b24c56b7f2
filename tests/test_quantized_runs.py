"""`hornbook quantize` and `load(bits=...)`: folders of quantised models in, out, in every command, and broken."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import hornbook
from folders import FORMS, TOKENIZER, edit, folder_of, same, speaking, store, tensors_of
from helpers import VOCAB
from hornbook import compression, models
from hornbook.adapt.quantization import dequantize, quantize
from hornbook.checkpoint import load, save_model
from hornbook.cli import main
from hornbook.compression import target_of
from hornbook.config import GROUPS, Evaluate, Inspect, Quantization, Quantize
from hornbook.errors import UserError, WorkError
from hornbook.evaluation.measure import measure
from hornbook.formats.coded import parse_quantization, spelled_quantization
from hornbook.formats.filling import build_empty
from hornbook.formats.gguf import save_gguf
from hornbook.formats.huggingface import export_weights, to_hf_config
from hornbook.inspection.anatomy import dissect

QUANTIZED = "quantized.safetensors"
NEURAL = [name for name in models.families() if not models.family(name).Model.counted]
INT8 = Quantization("int8", 32)
LLM_INT8 = Quantization("int8", 0, outliers=6.0)
WAYS = [INT8, LLM_INT8, Quantization("int4", 32, symmetric=True), Quantization("nf4", 64, double=True, head="nf4")]


def tokens() -> Tensor:
    return torch.randint(3, VOCAB, (2, 20), generator=torch.Generator().manual_seed(1))


def parts_of(folder: Path) -> dict[str, Tensor]:
    """The tensors of a quantised model's folder."""
    return load_file(folder / QUANTIZED)


def refused(capfd: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command that must fail; returns its one line."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    told = [line for line in capfd.readouterr().err.splitlines() if line.startswith("hornbook: ")]
    assert (stop.value.code, len(told)) == (2, 1)
    return told[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A quantised model's folder."""
    return folder_of(quantize(speaking("llama", tied=False), INT8), tmp_path / "theirs")


# -- in and out


@pytest.mark.parametrize("how", WAYS, ids=lambda how: how.kind)
@pytest.mark.parametrize("family", NEURAL)
def test_a_quantised_model_loads_bit_identical(family: str, how: Quantization, tmp_path: Path) -> None:
    model = quantize(speaking(family), how)
    again = load(folder_of(model, tmp_path))
    assert same(again, model)
    assert again.quantization == how
    assert again.config.resolved() == model.config.resolved()
    with torch.no_grad():
        assert torch.equal(again(tokens()), model(tokens()))
    stated = json.loads((tmp_path / "config.json").read_text())["quantization_config"]
    assert (stated["quant_method"], stated["kind"]) == ("hornbook", how.kind)


def test_quantised_weights_may_be_spread_over_shards(tmp_path: Path) -> None:
    model = quantize(speaking(), INT8)
    save_model(tmp_path, model, None, shard=10_000)
    assert len(list(tmp_path.glob("quantized-*-of-*.safetensors"))) > 3
    assert same(load(tmp_path), model)


def test_half_precision_leaves_the_stored_integers_and_scales_alone(folder: Path) -> None:
    model, half = load(folder), load(folder, dtype="bfloat16")
    assert torch.equal(half.embedding.scales, model.embedding.scales)
    assert torch.equal(half.final_norm.weight, model.final_norm.weight.bfloat16())
    assert half(tokens()).dtype == torch.bfloat16


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("family", NEURAL)
def test_loading_in_few_bits_is_quantising_after_loading(family: str, bits: int, tmp_path: Path) -> None:
    kind = {8: "int8", 4: "int4"}[bits]
    folder_of(speaking(family), tmp_path)
    for dtype in ("float32", "bfloat16"):
        wanted = quantize(load(tmp_path, dtype=dtype), Quantization(kind, GROUPS[kind]))
        found = load(tmp_path, dtype=dtype, bits=bits)
        assert same(found, wanted)
        assert found.quantization == wanted.quantization
        with torch.no_grad():
            assert torch.equal(found(tokens()), wanted(tokens()))
    assert found.tokenizer.encode("a b")


@pytest.mark.parametrize("form", [*FORMS, "gguf"])
def test_every_form_of_weights_loads_in_few_bits(form: str, tmp_path: Path) -> None:
    model, source = speaking("gpt2"), tmp_path / "x"
    if form == "gguf":
        source = tmp_path / "x.gguf"
        save_gguf(source, model, TOKENIZER, "F32")
    else:
        store(folder_of(model, source), tensors_of(source), form)
    assert same(load(source, bits=8), quantize(load(source), INT8))


def test_a_head_that_is_stored_twice_is_checked_before_it_is_quantised(tmp_path: Path) -> None:
    tensors = tensors_of(folder_of(speaking(), tmp_path))
    store(tmp_path, tensors | {"lm_head.weight": tensors["transformer.wte.weight"] + 1e-6})
    with pytest.raises(UserError, match="is stored too and differs"):
        load(tmp_path, bits=8)


def test_what_cannot_be_loaded_in_few_bits_is_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="bits 3: possible are 8 and 4"):
        hornbook.load(str(folder), bits=3)
    with pytest.raises(UserError, match=r"quantised already \(int8 in groups of 32\): leave out bits"):
        hornbook.load(str(folder), bits=8)
    with pytest.raises(UserError, match="counted"):
        hornbook.load(str(folder_of(speaking("ngram"), tmp_path / "ngram")), bits=8)


PEAK = """
import re, sys
import hornbook
from hornbook import checkpoint  # what every load needs

def peak():  # of this program alone; what getrusage says can be that of the process which started it
    return 1024 * int(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1])

before = peak()
model = hornbook.load(sys.argv[1], bits=int(sys.argv[2]))
print(before, peak(), sum(t.nbytes for t in model.state_dict().values()))
"""


def peak_of(folder: Path, bits: int) -> tuple[int, int, int]:
    """Most memory (bytes) that a process held before and after it loaded a model, and the model's own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PEAK, str(folder), str(bits)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    before, after, size = map(int, done.stdout.split())
    return before, after, size


def random_folder(folder: Path, name: str, dtype: torch.dtype, **changes: int) -> int:
    """A folder with random weights of a named size, made a tensor at a time; returns the bytes of its weights."""
    config = models.find_size(name).replace(**changes)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(to_hf_config(config)))
    places, draw, total = {}, torch.Generator().manual_seed(0), 0
    for number, (their, empty) in enumerate(export_weights(build_empty(config)).items()):
        tensor = (0.02 * torch.randn(empty.shape, generator=draw)).to(dtype)
        save_file({their: tensor}, folder / f"{number:05d}.safetensors", {"format": "pt"})
        places[their], total = f"{number:05d}.safetensors", total + tensor.nbytes
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return total


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read as Linux states it")
def test_loading_in_few_bits_never_holds_the_model_in_full(tmp_path: Path) -> None:
    sizes = {"dim": 1024, "layers": 4, "heads": 16, "vocab": 8192, "context": 512}
    full = random_folder(tmp_path / "x", "opt-125m", torch.float32, **sizes)
    assert full > 200e6
    before, after, size = peak_of(tmp_path / "x", 8)
    assert size < 0.28 * full
    # beside the model: the largest tensor, as it is on the disk, pieces of some megabytes, and what torch loads (40 MB)
    assert after - before < size + 8192 * 1024 * 4 + 70e6 < 0.75 * full


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read as Linux states it")
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_opt_1_3b_loads_in_8_bits_within_1_8_gigabytes(dtype: torch.dtype, tmp_path: Path) -> None:
    full = random_folder(tmp_path / "x", "opt-1.3b", dtype)
    assert full == 1_315_758_080 * dtype.itemsize
    _, after, size = peak_of(tmp_path / "x", 8)
    linear, table = 24 * (4 * 2048 * 2048 + 2 * 2048 * 8192), 50272 * 2048
    others = 1_315_758_080 - linear - table
    assert size == (linear + table) * 34 // 32 + 4 * others
    assert after < 1.8e9


# -- folders that are broken


def test_every_tensor_must_be_what_config_json_calls_for(folder: Path) -> None:
    tensors = parts_of(folder)
    name = "blocks.1.mlp.up"
    for change, told in [
        ({f"{name}.codes": None}, f"lack the tensor '{name}.codes', which config.json calls for"),
        (
            {f"{name}.codes": torch.zeros(48, 64, dtype=torch.int8)},
            r"shape \[48, 64\]; config.json calls for \[48, 32\]",
        ),
        ({f"{name}.codes": torch.zeros(48, 32)}, "holds numbers of type float32; possible are int8"),
        ({f"{name}.scales": torch.zeros(48, 1)}, "holds numbers of type float32; possible are float16"),
        ({f"{name}.scales": torch.full((48, 1), float("nan")).half()}, "holds NaN"),
        ({f"{name}.scales": torch.full((48, 1), float("inf")).half()}, "holds infinite numbers"),
        ({"final_norm.weight": torch.zeros(32, dtype=torch.int8)}, "holds numbers of type int8"),
    ]:
        changed = {key: tensor for key, tensor in (tensors | change).items() if tensor is not None}
        save_file(changed, folder / QUANTIZED)
        with pytest.raises(UserError, match=told):
            load(folder)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"quant_method": "gptq"}, "quantised weights of this kind are not read here"),
        ({"kind": "int3"}, "config.json: unknown kind of quantisation 'int3'"),
        ({"kind": ["int8"]}, "has kind .*not possible"),
        ({"group": 33}, "a group of 33 is not possible"),
        ({"group": 10**30}, "is not possible"),
        ({"group": "32"}, "has group '32', which is not possible"),
        ({"group": True}, "not possible"),
        ({"group": 64}, "config.json calls for"),
        ({"group": 0, "outliers": float("inf")}, "are not possible"),
        ({"kind": "int4"}, "config.json calls for"),
        ({"keep": "blocks"}, "has keep 'blocks', which is not possible"),
        ({"keep": ["blocks.7"]}, "unknown module 'blocks.7'"),
        ({"head": None}, "has head 'None'"),
        ({"layers": 3}, "has 'layers', which this version does not know"),
    ],
)
def test_a_description_that_cannot_be_is_refused(change: dict[str, Any], told: str, folder: Path) -> None:
    stated = json.loads((folder / "config.json").read_text())["quantization_config"]
    edit(folder / "config.json", quantization_config=stated | change)
    with pytest.raises(UserError, match=told):
        load(folder)


def test_any_description_is_read_or_refused(folder: Path) -> None:
    """Seeded: some keys get odd values."""
    draw, spelled, well = random.Random(0), spelled_quantization(INT8), 0
    odd: list[Any] = [
        None,
        True,
        -1,
        0,
        32,
        64,
        10**30,
        6.0,
        float("nan"),
        "",
        "int4",
        "nf4",
        "none",
        [],
        [3],
        ["x"],
        {},
    ]
    for _ in range(400):
        changed = spelled | {draw.choice([*spelled, "more"]): draw.choice(odd) for _ in range(draw.randint(1, 3))}
        try:
            parse_quantization({"quantization_config": changed})
            well += 1
        except UserError as error:
            if "\n" in str(error):
                pytest.fail(f"more than a line: {error}")
    assert 0 < well < 400


def test_no_memory_is_asked_for_before_every_shape_is_known_to_fit(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(folder / "config.json", intermediate_size=10**8)

    def asked(*_: Any, **__: Any) -> None:
        raise AssertionError("memory was asked for")

    monkeypatch.setattr(nn.Module, "to_empty", asked)
    with pytest.raises(UserError, match=r"config.json calls for \[100000000, 32\]"):
        load(folder)


# -- the command


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return folder_of(speaking("llama"), tmp_path / "x")


def test_quantize_writes_a_run_and_says_what_it_cost(
    run: Path, text_folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    edit(run / "generation_config.json", max_new_tokens=7)
    monkeypatch.chdir(run.parent)  # long names would be broken in the table
    main(["quantize", "x", "int8", "--data", str(text_folder), "--limit", "300", "--batch", "4"])
    target = run.with_name("x-int8")
    out = capfd.readouterr().out.splitlines()
    heads = "matrix, shape, kept as, bytes, now, error, worst column, > 6 sd, inputs >= 6"
    assert out[0].split() == heads.replace(",", "").split()
    assert out[1].startswith("embedding ")
    assert any("blocks.0-1.attention.query" in line and "2 x 32 x 32" in line for line in out)
    assert any("MB in float32" in line and "times smaller" in line for line in out)
    assert [line.split()[0] for line in out if line.startswith("x")][:2] == ["x", "x-int8"]
    assert any(line.startswith("token perplexity ") for line in out)
    assert out[-2] == "verified on arrival: every tensor and logits of 2 x 32 tokens bit-identical"
    assert out[-1] == "x-int8"
    assert same(load(target), quantize(load(run), INT8))
    assert load(target).tokenizer.hash == load(run).tokenizer.hash
    assert json.loads((target / "generation_config.json").read_text())["max_new_tokens"] == 7
    report = json.loads((target / "quantize.json").read_text())
    assert [layer["name"] for layer in report["layers"]][:2] == ["embedding", "blocks.0.attention.query"]
    assert report["before"]["targets"] == report["after"]["targets"] >= 300
    assert report["bytes_after"] == sum(tensor.nbytes for tensor in parts_of(target).values())


def test_every_matrix_has_its_line_if_asked_for(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    main(["quantize", str(run), "nf4", "--double", "--layers", "--out", str(run.with_name("y"))])
    out = capfd.readouterr().out
    assert out.count("blocks.1.") == 7
    assert "nf4 in groups of 64, scales in 8 bits, embedding and head int8 in groups of 32" in out
    assert "perplexity" not in out


def test_quantize_in_python_gives_what_the_command_prints(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = hornbook.quantize(str(run), "int8", outliers=6.0)
    assert found.how == LLM_INT8
    main(["quantize", str(run), "int8", "--outliers", "6", "--out", str(run.with_name("y")), "--json"])
    told = json.loads(capfd.readouterr().out)
    assert told | {"path": ""} == json.loads(json.dumps(found.summary())) | {"path": ""}


def test_a_gguf_file_and_an_encoder_can_be_quantised(tmp_path: Path) -> None:
    save_gguf(tmp_path / "y.gguf", speaking("llama"), TOKENIZER, "F32")
    assert hornbook.quantize(str(tmp_path / "y.gguf"), "int4").path == tmp_path / "y-int4"
    run = folder_of(speaking("bert"), tmp_path / "bert")
    found = hornbook.quantize(str(run), "int4")
    assert {layer.name for layer in found.layers} >= {"embedding", "transform"}
    assert found.before == {}


def test_a_recurrent_cell_stays_in_full_and_that_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = hornbook.quantize(str(folder_of(speaking("rnn"), tmp_path / "x")), "int8")
    assert [layer.name for layer in found.layers] == ["embedding", "output"]
    assert load(found.path).recurrent.weight_hh_l0.dtype == torch.float32
    assert "matrices of recurrent layers stay in full" in capfd.readouterr().err


def test_quantize_says_what_is_wrong_and_leaves_nothing(
    run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert "unknown kind of quantisation 'int9'. Did you mean 'int8'?" in refused(capfd, "quantize", run, "int9")
    assert "a group of 20 is not possible" in refused(capfd, "quantize", run, "int4", "--group", 20, "--out", out)
    assert "--outliers" in refused(capfd, "quantize", run, "int8", "--outliers", -1, "--out", out)
    assert "in int8 by rows only" in refused(capfd, "quantize", run, "nf4", "--outliers", 6, "--out", out)
    assert "Did you mean 'blocks.0.mlp.up'?" in refused(
        capfd, "quantize", run, "int8", "--keep", "blocks.0.mlp.upp", "--out", out
    )
    assert "no run or model folder" in refused(capfd, "quantize", tmp_path / "none", "int8")
    counted = folder_of(speaking("ngram"), tmp_path / "ngram")
    assert "model of the family ngram is counted" in refused(capfd, "quantize", counted, "int8", "--out", out)
    main(["quantize", str(run), "int8", "--out", str(out)])
    capfd.readouterr()
    assert "exists already" in refused(capfd, "quantize", run, "int4", "--out", out)
    assert "quantised already" in refused(capfd, "quantize", out, "int4", "--out", tmp_path / "again")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ngram", "out", "x"]


def test_what_is_made_of_a_checkpoint_lies_beside_the_run_which_deletes_what_is_old(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = run / "checkpoints" / "000500"
    part.mkdir(parents=True)
    (run / "train.json").write_text("{}")
    assert target_of(Quantize(str(part), "int8")) == run.parent / "x-000500-int8"
    assert target_of(Quantize(str(run), "int8")) == run.parent / "x-int8"
    for place, name in ((run, "checkpoints/000500"), (part.parent, "000500"), (part, "../000500")):
        monkeypatch.chdir(place)
        assert target_of(Quantize(name, "int8")).resolve() == run.parent / "x-000500-int8"
    (run / "train.json").unlink()  # a folder of that name that is no run's
    assert target_of(Quantize(str(part.parent), "int8")) == run / "checkpoints-int8"


def test_a_folder_that_would_not_come_back_the_same_is_not_kept(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(folder: Path) -> Any:
        model = load(folder)
        model.embedding.codes[3, 4] += 1
        return model

    monkeypatch.setattr(compression, "load", lambda place, *rest, **more: (other if place != run else load)(place))
    with pytest.raises(WorkError, match="did not come back the same: nothing was kept"):
        hornbook.quantize(str(run), "int8")
    assert [path.name for path in run.parent.iterdir()] == ["x"]


# -- in every other command


@pytest.mark.parametrize("how", WAYS, ids=lambda how: how.kind)
def test_generate_and_evaluate_take_a_quantised_run(how: Quantization, text_folder: Path, tmp_path: Path) -> None:
    run = str(folder_of(quantize(speaking("gpt2"), how), tmp_path / "x"))
    assert isinstance(hornbook.generate(run, "The ", tokens=5), str)
    assert hornbook.evaluate(run, str(text_folder), limit=200).targets.sum() >= 200


@pytest.mark.parametrize("how", [LLM_INT8, WAYS[3]], ids=lambda how: how.kind)
def test_the_doctor_finds_nothing_wrong_with_a_quantised_run(how: Quantization, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    run = folder_of(quantize(speaking("gpt2"), how), tmp_path / "x")
    found = {finding.name: finding for finding in hornbook.examine(str(run))}
    assert {name: f.meaning for name, f in found.items() if f.verdict == "FAIL"} == {}
    passed = {name for name, finding in found.items() if finding.verdict == "PASS"}
    assert {"cache", "batch", "save and load", "hugging face", "accumulation", "learns a row"} <= passed


@pytest.mark.parametrize("family", ["gpt2", "llama", "rnn", "bert"])
def test_inspect_shows_shapes_in_full_and_bytes_as_they_are_kept(family: str, tmp_path: Path) -> None:
    model = speaking(family)
    plain = dissect(Inspect(str(folder_of(model, tmp_path / "plain"))))
    run = folder_of(quantize(model, Quantization("int4", 32)), tmp_path / "x")
    found = dissect(Inspect(str(run)))
    assert found.parameters == plain.parameters == found.formula.value
    assert found.formula == plain.formula
    assert found.whole.flops == plain.whole.flops
    assert found.whole.bytes == sum(tensor.nbytes for tensor in parts_of(run).values()) < plain.whole.bytes
    assert [part.shapes for part in found.parts] == [part.shapes for part in plain.parts]
    assert found.names == plain.names
    assert "Quantised: int4 in groups of 32, embedding and head int8 in groups of 32" in str(found)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "rnn"])
def test_export_and_import_take_a_quantised_run(family: str, tmp_path: Path) -> None:
    model = quantize(speaking(family), INT8)
    run = folder_of(model, tmp_path / "x")
    hornbook.export(str(run), str(tmp_path / "full"))
    assert same(load(tmp_path / "full"), dequantize(load(run)))
    hornbook.import_model(str(run), str(tmp_path / "again"))
    assert same(load(tmp_path / "again"), model)


@pytest.mark.parametrize(("kind", "how"), [("q8_0", INT8), ("q4_0", Quantization("int4", 32, symmetric=True))])
def test_gguf_has_the_numbers_of_a_quantised_run(kind: str, how: Quantization, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    model = quantize(speaking("llama", mlp=64), how)
    run = folder_of(model, tmp_path / "x")
    assert "every tensor" in hornbook.export(str(run), str(tmp_path / "x.gguf"), type=kind).verified
    assert same(load(tmp_path / "x.gguf"), dequantize(model))


def test_transformers_refuses_the_folder_instead_of_drawing_weights(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    transformers = pytest.importorskip("transformers")
    with pytest.raises(OSError, match=r"no file named model\.safetensors"):
        transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert "cannot read" in refused(capfd, "doctor", folder, "--foreign")


def test_without_its_tensors_a_quantised_folder_says_what_it_needs(folder: Path) -> None:
    (folder / QUANTIZED).unlink()
    with pytest.raises(UserError, match=r"holds no weights: it needs quantized\.safetensors, or shards with quantized"):
        load(folder)


# -- a real model


@pytest.mark.slow
def test_smollm2_loses_less_than_1_percent_in_8_bits_and_6_percent_in_4() -> None:
    files = sorted(Path(os.environ.get("HORNBOOK_DATA", "nowhere"), "smollm2-135m").glob("*.gguf"))
    if not files:
        pytest.skip("HORNBOOK_DATA names no folder with smollm2-135m")
    settings = Evaluate("", "wikitext-2-raw", limit=8000, context=1024, stride=1024, batch=2)
    exact = measure(settings, load(files[0], text=True)).token_perplexity
    for bits, loss in ((8, 0.01), (4, 0.06)):
        model = dequantize(load(files[0], text=True, bits=bits))  # the same numbers, multiplied sooner
        assert measure(settings, model).token_perplexity < (1 + loss) * exact
