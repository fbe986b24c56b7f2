"""`hornbook import` and `load`: any folder, run, GGUF file or name of the Hub becomes the same model here."""

from __future__ import annotations

import dataclasses
import json
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import hornbook
from folders import FORMS, TOKENIZER, edit, folder_of, same, speaking, store, tensors_of
from hornbook import checkpoint, exchange, models
from hornbook import run as runs
from hornbook.checkpoint import load
from hornbook.cli import main
from hornbook.config import Import
from hornbook.errors import UserError, WorkError
from hornbook.exchange import import_model
from hornbook.formats.sources import published
from hornbook.formats.weights import Stored, open_weights
from hornbook.generation.sampling import ends
from hornbook.run import Run

TRANSFORMERS = [name for name in models.families() if hasattr(next(iter(models.family(name).SIZES.values())), "heads")]
TIED = [name for name in TRANSFORMERS if "tied" in models.family(name).CONFIG.values()]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox"])
def test_weights_load_from_every_form_in_which_folders_keep_them(form: str, family: str, tmp_path: Path) -> None:
    model = speaking(family)
    store(folder_of(model, tmp_path), tensors_of(tmp_path), form)
    assert same(load(tmp_path), model)


@pytest.mark.parametrize("number", [torch.bfloat16, torch.float16])
def test_half_precision_becomes_float32_unless_another_format_is_asked_for(number: torch.dtype, tmp_path: Path) -> None:
    model = speaking()
    store(folder_of(model, tmp_path), {name: t.to(number) for name, t in tensors_of(tmp_path).items()})
    rounded = model.to(number)
    assert same(load(tmp_path), rounded.float())
    kept = load(tmp_path, dtype=str(number).removeprefix("torch."))
    assert {p.dtype for p in kept.parameters()} == {number}
    assert same(kept, rounded.to(number))


@pytest.mark.parametrize("family", TRANSFORMERS)
def test_names_without_the_family_s_prefix_are_found(family: str, tmp_path: Path) -> None:
    model = speaking(family)
    tensors = tensors_of(folder_of(model, tmp_path))
    prefix = next(iter(models.family(family).WEIGHTS)).split(".")[0] + "."
    bare = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    assert bare.keys() != tensors.keys()
    store(tmp_path, bare)
    assert same(load(tmp_path), model)


@pytest.mark.parametrize("stored", ["once", "under the head's name", "twice"])
@pytest.mark.parametrize("family", TIED)
def test_a_tied_embedding_may_be_stored_in_any_way(
    family: str, stored: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = speaking(family, tied=True)
    tensors, names = tensors_of(folder_of(model, tmp_path)), {v: k for k, v in models.family(family).WEIGHTS.items()}
    embedding, head = names["embedding.weight"], names["output.weight"]
    assert head not in tensors
    if stored == "twice":
        tensors[head] = tensors[embedding].clone()
    elif stored != "once":
        tensors[head] = tensors.pop(embedding)
    store(tmp_path, tensors)
    assert same(load(tmp_path), model)
    assert "not used" not in capfd.readouterr().err


def test_known_harmless_tables_are_passed_over_and_others_named_in_a_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = speaking()
    tensors = tensors_of(folder_of(model, tmp_path))
    tensors["transformer.h.0.attn.bias"] = torch.ones(1, 1, 48, 48)
    tensors["transformer.h.0.attn.masked_bias"] = torch.tensor(-1e4)
    store(tmp_path, tensors)
    assert same(load(tmp_path), model)
    assert capfd.readouterr().err == ""
    store(tmp_path, tensors | {"transformer.h.7.ln_1.weight": torch.ones(32)})
    assert same(load(tmp_path), model)
    (line,) = capfd.readouterr().err.splitlines()
    assert "transformer.h.7.ln_1.weight" in line
    assert "attn" not in line


@pytest.mark.parametrize("form", ["safetensors", "sharded safetensors", "pickle"])
def test_weights_stream_in_one_tensor_at_a_time(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = speaking("gpt2", layers=4)
    tensors = tensors_of(folder_of(model, tmp_path))
    store(tmp_path, tensors, form)
    alive: dict[int, int] = {}
    most = []

    def counted(stored: Stored) -> Stored:
        def read() -> torch.Tensor:
            tensor = stored.read().clone()  # a copy of its own, whose life can be followed
            alive[id(tensor)] = tensor.nbytes
            weakref.finalize(tensor, alive.pop, id(tensor))
            most.append(sum(alive.values()))
            return tensor

        return stored._replace(read=read)

    @contextmanager
    def followed(folder: Path) -> Iterator[dict[str, Stored]]:
        with open_weights(folder) as weights:
            yield {name: counted(stored) for name, stored in weights.items()}

    monkeypatch.setattr(checkpoint, "open_weights", followed)
    assert same(load(tmp_path), model)
    assert len(most) == len(tensors)
    assert max(most) == max(tensor.nbytes for tensor in tensors.values())


def test_no_memory_is_asked_for_before_every_shape_is_known_to_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = speaking()
    folder_of(model, tmp_path)
    edit(tmp_path / "config.json", n_inner=10**8)

    def asked(*_: Any, **__: Any) -> None:
        raise AssertionError("memory was asked for")

    monkeypatch.setattr(torch.nn.Module, "to_empty", asked)
    with pytest.raises(UserError, match=r"c_fc.* has shape \[32, 48\]; config.json calls for \[32, 100000000\]"):
        load(tmp_path)


def test_a_folder_without_a_tokeniser_loads_and_says_so_when_text_is_needed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = speaking()
    folder_of(model, tmp_path, tokenizer=None)
    again = load(tmp_path)
    assert same(again, model)
    assert not hasattr(again, "tokenizer")
    with pytest.raises(SystemExit):
        main(["generate", str(tmp_path), "The "])
    with pytest.raises(UserError, match=r"without a tokeniser: put its tokenizer\.json"):
        hornbook.generate(str(tmp_path), "The ")
    assert "without a tokeniser" in capfd.readouterr().err


def sources(tmp_path: Path) -> dict[str, Path]:
    """The same model as each kind of source on the disk."""
    from hornbook.formats.gguf import save_gguf

    model = speaking("llama")
    folder_of(model, tmp_path / "folder")
    run = Run(tmp_path / "run")
    run.begin({"model": "x"})
    run.save(1, model, TOKENIZER, {}, {}, best=True)
    save_gguf(tmp_path / "model.gguf", model, TOKENIZER, "F32")
    return {"folder": tmp_path / "folder", "run": tmp_path / "run", "gguf": tmp_path / "model.gguf"}


@pytest.mark.parametrize("kind", ["folder", "run", "gguf"])
def test_every_source_becomes_a_complete_folder_that_answers_the_same(kind: str, tmp_path: Path) -> None:
    source, x = sources(tmp_path)[kind], torch.randint(258, (2, 20))
    arrival = import_model(Import(str(source), str(tmp_path / "out")))
    again = load(tmp_path / "out")
    assert torch.equal(again(x), load(source)(x))
    assert again.tokenizer.encode("a b") == TOKENIZER.encode("a b")
    there = {path.name for path in (tmp_path / "out").iterdir() if not path.is_symlink()}
    files = {"config.json", "model.safetensors", "generation_config.json", "tokenizer.json", "tokenizer_config.json"}
    assert there == files
    assert f"llama, {again.parameter_count():,} parameters, context 48, bytes tokeniser of" in arrival.model
    assert arrival.verified == "verified on arrival: logits of 2 x 32 tokens bit-identical to the source's"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_import_prints_what_it_brought_in(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder_of(speaking(), tmp_path / "folder")
    main(["import", str(tmp_path / "folder"), str(tmp_path / "out"), "--dtype", "bfloat16"])
    summary, verified, path = capfd.readouterr().out.splitlines()
    assert summary.startswith("gpt2, ")
    assert "bit-identical" in verified
    assert path == str(tmp_path / "out")
    assert tensors_of(tmp_path / "out")["transformer.wte.weight"].dtype == torch.bfloat16
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"


def test_nothing_is_written_over_a_folder_that_holds_something(tmp_path: Path) -> None:
    folder_of(speaking(), tmp_path / "folder")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="exists already"):
        import_model(Import(str(tmp_path / "folder"), str(tmp_path / "mine")))
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    (tmp_path / "empty").mkdir()
    import_model(Import(str(tmp_path / "folder"), str(tmp_path / "empty")))
    assert same(load(tmp_path / "empty"), load(tmp_path / "folder"))


@pytest.mark.parametrize("fault", ["a changed weight", "a full disk"])
def test_what_does_not_arrive_whole_is_not_kept(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_of(speaking(), tmp_path / "folder")
    real = exchange.save_model

    def faulty(folder: Path, *rest: Any, **named: Any) -> None:
        real(folder, *rest, **named)
        if fault == "a full disk":
            raise OSError(28, "No space left on device")
        tensors = tensors_of(folder)
        tensors["transformer.ln_f.bias"] = tensors["transformer.ln_f.bias"] + 1e-5
        save_file(tensors, folder / "model.safetensors")

    monkeypatch.setattr(exchange, "save_model", faulty)
    with pytest.raises(WorkError, match=r"did not arrive whole: logits differ by|could not write .*No space left"):
        import_model(Import(str(tmp_path / "folder"), str(tmp_path / "out")))
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_several_end_tokens_stay_in_generation_config(tmp_path: Path) -> None:
    folder_of(speaking(), tmp_path / "folder")
    edit(tmp_path / "folder" / "generation_config.json", eos_token_id=[0, 7], temperature=0.6, odd={"a": 1})
    import_model(Import(str(tmp_path / "folder"), str(tmp_path / "out")))
    kept = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert (kept["eos_token_id"], kept["temperature"], "odd" in kept) == ([0, 7], 0.6, False)
    for folder in ("folder", "out"):  # and end what is written
        config = load(tmp_path / folder).config
        assert ends(config) == {0, 7} | {config.eos}


def test_an_encoder_without_a_head_arrives_too(tmp_path: Path) -> None:
    model = speaking("bert", masked_head=False)
    folder_of(model, tmp_path / "folder")
    import_model(Import(str(tmp_path / "folder"), str(tmp_path / "out")))
    assert same(load(tmp_path / "out"), model)


@pytest.mark.parametrize("name", [".", "absolute"])
def test_the_folder_that_one_is_in_is_not_replaced(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_of(speaking(), tmp_path / "theirs")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    target = name if name == "." else str(tmp_path / "here")
    with pytest.raises(UserError, match="is the folder that you are in: give the name of a new one"):
        import_model(Import("../theirs", target))
    import_model(Import("../theirs", "./model"))
    assert [path.name for path in Path(".").iterdir()] == ["model"]


def test_a_checkpoint_in_shards_is_a_run_like_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, real = speaking(), runs.save_model
    monkeypatch.setattr(runs, "save_model", lambda *args: real(*args, shard=20_000))
    run = Run(tmp_path / "run")
    run.begin({"model": "x"})
    run.save(1, model, TOKENIZER, {}, {}, best=True)
    assert len(list((tmp_path / "run").glob("model-*.safetensors"))) > 2
    assert same(load(tmp_path / "run"), model)


def test_published_names_are_sizes_that_have_a_vocabulary_of_their_own() -> None:
    sizes = models.sizes()
    assert published()["gpt2"] == "openai-community/gpt2"
    assert published()["opt-1.3b"] == "facebook/opt-1.3b"
    assert published()["llama-3-8b"] == "meta-llama/Meta-Llama-3-8B"
    for name in published():
        assert sizes[name].vocab > 0
    for family in ("gpt2", "opt", "llama", "bert"):
        unpublished = set(models.family(family).SIZES) - set(published())
        assert all(sizes[name].vocab == 0 for name in unpublished)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("gpt2-tiny", "no published weights of gpt2-tiny: train it with `hornbook train gpt2-tiny`"),
        ("gpt2-medum", "Did you mean 'gpt2-medium'?"),
        ("someone/something", "write hf:someone/something for a model of the Hub"),
        ("GPT2", "Did you mean 'gpt2'?"),
        ("nothing.gguf", "there is no file 'nothing.gguf'"),
        ("runs/nothing", "there is no run or model folder 'runs/nothing'"),
        ("hf:a/b/c", "write hf:owner/name"),
        ("hf:", "write hf:owner/name"),
    ],
)
def test_what_names_no_model_is_told_what_there_is(name: str, told: str) -> None:
    with pytest.raises(UserError) as error:
        load(name)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_model_is_told_what_could_be(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UserError, match=r"possible are a run, a Hugging Face folder or a \.gguf file"):
        load(tmp_path / "notes.txt")


def test_loading_in_python_takes_the_same_sources(tmp_path: Path) -> None:
    folder_of(speaking(), tmp_path / "folder")
    model = hornbook.load(str(tmp_path / "folder"), dtype="bfloat16")
    assert next(model.parameters()).dtype == torch.bfloat16
    arrival = hornbook.import_model(str(tmp_path / "folder"), str(tmp_path / "out"))
    assert dataclasses.is_dataclass(load(arrival.path).config)
    with pytest.raises(UserError, match="unknown number format 'int8'"):
        hornbook.load(str(tmp_path / "folder"), dtype="int8")


def test_a_folder_around_a_gguf_file_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "model.Q8_0.gguf").touch()
    with pytest.raises(UserError, match=r"no config\.json; name the file itself: .*model\.Q8_0\.gguf"):
        load(tmp_path)
