"""`hornbook export`: other programs' files, each read back and compared before it takes its name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import hornbook
from folders import TOKENIZER, folder_of, same, speaking, tensors_of
from hornbook import exchange, models
from hornbook.checkpoint import load
from hornbook.cli import main
from hornbook.config import Export
from hornbook.errors import UserError, WorkError
from hornbook.exchange import export_model
from hornbook.formats.arpa import read_arpa
from hornbook.formats.gguf import load_gguf
from hornbook.layers.model import LanguageModel
from hornbook.models.ngram import NGram, NGramConfig

LLAMA_CPP = [name for name in models.families() if hasattr(models.family(name), "GGUF")]
WIDE: dict[str, Any] = {"dim": 64, "mlp": 96}


def counted(order: int = 3, **fields: Any) -> LanguageModel:
    t = TOKENIZER
    model = NGram(NGramConfig("ngram", t.vocab, 48, order=order, **{"bos": t.bos, "eos": t.eos, "pad": t.pad} | fields))
    ids = [t.eos or 0]
    for text in ("a list of lists", "the list of a tuple", "an empty list", "lists and tuples") * 3:
        ids += [*t.encode(text), t.eos or 0]
    model.fit(torch.tensor(ids))
    return model.eval()


def exported(model: LanguageModel, tmp_path: Path, target: str, **fields: Any) -> exchange.Arrival:
    folder_of(model, tmp_path / "run")
    return export_model(Export(str(tmp_path / "run"), str(tmp_path / target), **fields))


@pytest.mark.parametrize("family", models.families())
def test_a_folder_holds_every_bit(family: str, tmp_path: Path) -> None:
    model = counted() if family == "ngram" else speaking(family)
    arrival = exported(model, tmp_path, "out")
    assert arrival.verified == "verified on arrival: every tensor and logits of 2 x 32 tokens bit-identical"
    assert same(load(tmp_path / "out"), model)
    assert not any(path.is_symlink() for path in (tmp_path / "out").iterdir())
    assert len({path.stat().st_mode for path in (tmp_path / "out").iterdir()}) == 1, "all readable by the same people"


@pytest.mark.parametrize(("kind", "number"), [("bf16", torch.bfloat16), ("f16", torch.float16)])
def test_a_folder_in_half_precision_holds_the_rounded_numbers(kind: str, number: torch.dtype, tmp_path: Path) -> None:
    model = speaking("llama")
    arrival = exported(model, tmp_path, "out", type=kind)
    assert {tensor.dtype for tensor in tensors_of(tmp_path / "out").values()} == {number}
    assert same(load(tmp_path / "out"), model.to(number).float())
    assert f"every tensor as {kind} rounds it, logits of 2 x 32 tokens within 0." in arrival.verified
    transformers = pytest.importorskip("transformers")
    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").dtype == number


@pytest.mark.parametrize("kind", ["f32", "bf16"])
def test_the_keys_of_many_n_grams_stay_integers_in_a_folder(kind: str, tmp_path: Path) -> None:
    model = NGram(NGramConfig("ngram", 5001, 48, order=2))
    model.fit(torch.arange(5001))
    keys = model.get_buffer("keys_2")
    assert not torch.equal(keys.float().long(), keys), "more than a float32 can hold"
    assert "verified on arrival: every tensor" in exported(model.eval(), tmp_path, "out", type=kind).verified
    assert torch.equal(load(tmp_path / "out").get_buffer("keys_2"), keys)


def test_large_weights_are_spread_over_files_that_transformers_reads(tmp_path: Path) -> None:
    model = speaking()
    exported(model, tmp_path, "out", shard_size=2e-5)
    shards = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert len(shards) > 2
    assert shards[0] == f"model-00001-of-{len(shards):05d}.safetensors"
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(p.numel() * 4 for p in model.parameters())
    assert set(index["weight_map"].values()) == set(shards)
    assert same(load(tmp_path / "out"), model)
    transformers = pytest.importorskip("transformers")
    theirs, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values())
    assert torch.equal(theirs.transformer.wte.weight, model.get_parameter("embedding.weight"))


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16", "q8_0", "q4_0"])
@pytest.mark.parametrize("family", LLAMA_CPP)
def test_a_gguf_file_is_read_back_and_compared(family: str, kind: str, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    model = speaking(family, **WIDE)
    arrival = exported(model, tmp_path, "x.gguf", type=kind)
    again = load_gguf(tmp_path / "x.gguf")
    shifted = models.family(family).GGUF.get("norm_plus_one")
    assert ("bit-identical" in arrival.verified) == same(again, model) == (kind == "f32" and not shifted)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "x.gguf"]


def test_gguf_is_f16_where_nothing_is_said(tmp_path: Path) -> None:
    assert "every tensor as f16 rounds it" in exported(speaking(), tmp_path, "x.gguf").verified


def test_opt_has_no_gguf(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^llama\.cpp has no OPT; use the Hugging Face folder$"):
        exported(speaking("opt"), tmp_path, "x.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("smoothing", ["kneser-ney", "mle", "add-k"])
@pytest.mark.parametrize("ends", [{}, {"bos": 0, "eos": 1}])
def test_an_n_gram_becomes_an_arpa_file(smoothing: str, ends: dict[str, int], tmp_path: Path) -> None:
    model = counted(order=2 if smoothing == "add-k" else 3, smoothing=smoothing, **ends)
    arrival = exported(model, tmp_path, "x.arpa")
    assert "the file's rounding" in arrival.verified
    words = read_arpa(tmp_path / "x.arpa")[1]
    assert "</s>" in words
    assert "Ġ" in words


def test_an_arpa_file_holds_n_grams_only(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds n-grams, not a model of the family gpt2"):
        exported(speaking(), tmp_path, "x.arpa")
    with pytest.raises(UserError, match=r"llama\.cpp has no n-grams; write an \.arpa file"):
        exported(counted(), tmp_path, "x.gguf")
    with pytest.raises(UserError, match="leave out --type q8_0"):
        exported(counted(), tmp_path, "x.arpa", type="q8_0")


def test_the_format_may_be_named_where_the_target_does_not_say_it(tmp_path: Path) -> None:
    exported(speaking(), tmp_path, "model", format="gguf", type="f32")
    assert load(tmp_path / "model").config.family == "gpt2"


def test_what_a_folder_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a Hugging Face folder takes f32, bf16 or f16"):
        exported(speaking(), tmp_path, "out", type="q8_0")
    model = speaking()
    with torch.no_grad():
        model.get_parameter("final_norm.weight")[0] = 1e5
    with pytest.raises(UserError, match=r"'final_norm\.weight' holds numbers above f16's 65,504: choose --type bf16"):
        exported(model, tmp_path, "out", type="f16")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_file_of_weights_alone_is_not_what_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"x\.safetensors is no file that .*: possible are a folder, x\.gguf"):
        exported(speaking(), tmp_path, "x.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("target", ["out", "x.gguf", "x.arpa"])
def test_nothing_is_written_over_what_is_there(target: str, tmp_path: Path) -> None:
    (tmp_path / target).write_text("precious")
    with pytest.raises(UserError, match="exists already"):
        exported(speaking(), tmp_path, target)
    assert (tmp_path / target).read_text() == "precious"


@pytest.mark.parametrize("target", ["x.gguf", "x.arpa"])
def test_a_file_does_not_replace_a_folder_even_an_empty_one(target: str, tmp_path: Path) -> None:
    (tmp_path / target).mkdir()
    with pytest.raises(UserError, match="exists already"):
        exported(counted() if target == "x.arpa" else speaking(), tmp_path, target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", target]


@pytest.mark.parametrize("target", ["out", "x.gguf", "x.arpa"])
def test_a_copy_that_differs_is_found_and_not_kept(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = {"out": "save_model", "x.gguf": "save_gguf", "x.arpa": "write_arpa"}[target]
    real = getattr(exchange, name)

    def faulty(*arguments: Any) -> None:
        model = next(argument for argument in arguments if isinstance(argument, LanguageModel))
        tensor = model.log_probs_1 if target == "x.arpa" else model.get_parameter("final_norm.weight")
        before = tensor.detach().clone()
        with torch.no_grad():
            tensor.mul_(1.001)
            real(*arguments)
            tensor.copy_(before)

    monkeypatch.setattr(exchange, name, faulty)
    with pytest.raises(WorkError, match="did not arrive"):
        exported(counted() if target == "x.arpa" else speaking(), tmp_path, target)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_model_without_a_tokeniser_can_leave_as_a_folder_only(tmp_path: Path) -> None:
    folder_of(speaking(), tmp_path / "run", tokenizer=None)
    with pytest.raises(UserError, match="without a tokeniser"):
        export_model(Export(str(tmp_path / "run"), str(tmp_path / "x.gguf")))
    assert "no tokeniser" in export_model(Export(str(tmp_path / "run"), str(tmp_path / "out"))).model


def test_export_prints_what_it_wrote(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder_of(speaking("llama"), tmp_path / "run")
    main(["export", str(tmp_path / "run"), str(tmp_path / "out"), "--type", "bf16", "--shard-size", "0.00002"])
    summary, verified, path = capfd.readouterr().out.splitlines()
    assert summary.startswith("llama, ")
    assert verified.startswith("verified on arrival: every tensor as bf16")
    assert path == str(tmp_path / "out")
    assert hornbook.export(str(tmp_path / "run"), str(tmp_path / "again")).path == tmp_path / "again"


def test_files_for_folders_only_are_not_asked_of_one_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--shard-size spreads the weights of a folder"):
        export_model(Export("x", str(tmp_path / "x.gguf"), shard_size=1.0))
    with pytest.raises(UserError, match="above 0, and finite"):
        Export("x", "y", shard_size=float("inf"))
