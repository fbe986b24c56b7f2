"""Folders that are broken or mean harm: one clear line, nothing of them is executed, nothing is left half-written."""

from __future__ import annotations

import json
import os
import pickle
import random
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from folders import edit, folder_of, same, speaking, store, tensors_of
from hornbook import small_files
from hornbook.checkpoint import load
from hornbook.config import Import
from hornbook.errors import UserError
from hornbook.exchange import import_model
from hornbook.formats.config_json import parse_config, read_config
from hornbook.formats.weights import open_weights
from hornbook.small_files import read_bytes

INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole model folder, to be damaged."""
    return folder_of(speaking(), tmp_path / "theirs")


def refused(folder: Path) -> str:
    """The one line with which import refuses a folder, leaving nothing."""
    with pytest.raises(UserError) as error:
        import_model(Import(str(folder), str(folder.parent / "out")))
    assert "\n" not in str(error.value)
    assert [path.name for path in folder.parent.iterdir() if path != folder and path.name[0] in ".o"] == []
    return str(error.value)


class Harm:
    """Leaves a file behind when a pickle that holds it is run."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("form", ["zip", "old", "plain", "hidden in a good file", "protocol 0"])
def test_a_pickle_that_would_run_something_is_refused_and_not_run(form: str, folder: Path) -> None:
    mark, tensors = folder.parent / "harmed", tensors_of(folder)
    (folder / "model.safetensors").unlink()
    path = folder / "pytorch_model.bin"
    if form == "zip":
        torch.save(Harm(mark), path)
    elif form == "old":
        torch.save({"x": Harm(mark)}, path, _use_new_zipfile_serialization=False)
    elif form == "hidden in a good file":
        torch.save(tensors | {"transformer.extra": Harm(mark)}, path)
    else:
        path.write_bytes(pickle.dumps(Harm(mark), protocol=0 if form == "protocol 0" else 4))
    line = refused(folder)
    assert not mark.exists()
    assert "nothing in it was run" in line
    if form in ("zip", "old", "hidden in a good file"):
        assert "calls for posix.mkdir" in line or "calls for nt.mkdir" in line


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ([torch.ones(2)], "holds a list, not tensors by name"),
        (torch.ones(2), "holds a Tensor, not tensors by name"),
        ({"model": {"x": torch.ones(2)}}, "'model' is a dict"),
        ({"epoch": 3}, "'epoch' is a int"),
        ({3: torch.ones(2)}, "'3' is a int, not a name"),
        ({"x": torch.ones(1).expand(10**12)}, r"'x' has shape \[1000000000000\], more than the file has data for"),
        ({"x": torch.ones(2).to_sparse()}, "nothing in it was run|is not a plain dense tensor"),
        ({"x": torch.ones(2, device="meta")}, "nothing in it was run|is not a plain dense tensor"),
    ],
)
def test_a_pickle_with_anything_but_tensors_is_refused(content: Any, told: str, folder: Path) -> None:
    import re

    (folder / "model.safetensors").unlink()
    torch.save(content, folder / "pytorch_model.bin")
    assert re.search(told, refused(folder))


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_weights_are_refused(name: str, share: float, folder: Path) -> None:
    store(folder, tensors_of(folder), "pickle" if name.endswith(".bin") else "safetensors")
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: int(len(whole) * share)])
    assert name in refused(folder)


def test_a_folder_without_weights_or_settings_says_what_it_lacks(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "holds no weights: it needs model.safetensors" in refused(folder)
    (folder / "config.json").unlink()
    assert "it has no config.json" in refused(folder)


def test_missing_tensors_are_refused(folder: Path) -> None:
    tensors = tensors_of(folder)
    del tensors["transformer.h.1.attn.c_attn.weight"]
    store(folder, tensors)
    line = "the weights lack the tensor 'transformer.h.1.attn.c_attn.weight', which config.json calls for"
    assert refused(folder) == line
    store(folder, {"transformer.wte.weight": tensors["transformer.wte.weight"], "x": torch.ones(1)})
    assert "and 26 others" in refused(folder)


@pytest.mark.parametrize(
    "change", [{"n_embd": 36}, {"n_inner": 50}, {"vocab_size": 300}, {"n_positions": 64}, {"n_layer": 1, "n_inner": 4}]
)
def test_shapes_that_contradict_the_config_are_refused(change: dict[str, int], folder: Path) -> None:
    edit(folder / "config.json", **change)
    assert "config.json calls for" in refused(folder)


@pytest.mark.parametrize("number", [torch.int8, torch.float8_e4m3fn, torch.uint8])
def test_weights_that_are_no_plain_numbers_are_refused(number: torch.dtype, folder: Path) -> None:
    store(folder, {name: tensor.to(number) for name, tensor in tensors_of(folder).items()})
    assert "holds numbers of type" in refused(folder)


@pytest.mark.parametrize("form", ["safetensors", "pickle"])
@pytest.mark.parametrize("fault", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("number", [torch.float32, torch.bfloat16])
def test_weights_that_are_not_finite_are_refused(fault: float, form: str, number: torch.dtype, folder: Path) -> None:
    tensors = {name: tensor.to(number) for name, tensor in tensors_of(folder).items()}
    tensors["transformer.h.1.mlp.c_fc.weight"][3, 5] = fault
    store(folder, tensors, form)
    kind = "NaN" if fault != fault else "infinite numbers"
    assert f"'transformer.h.1.mlp.c_fc.weight' holds {kind}" in refused(folder)


def test_a_second_head_that_differs_from_the_embedding_it_is_tied_to_is_refused(folder: Path) -> None:
    tensors = tensors_of(folder)
    store(folder, tensors | {"lm_head.weight": tensors["transformer.wte.weight"] + 1e-6})
    assert "'lm_head.weight' is stored too and differs" in refused(folder)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("/etc/passwd", "must be a .safetensors file beside its index"),
        ("../theirs/model-00001-of-00002.safetensors", "must be a .safetensors file beside its index"),
        ("sub/model-00001-of-00002.safetensors", "must be a .safetensors file beside its index"),
        ("..", "must be"),
        ("", "must be"),
        (".safetensors", "must be"),
        ("C:\\model.safetensors", "must be"),
        ("a\0.safetensors", "must be"),
        ("pytorch_model.bin", "must be a .safetensors file"),
        ("x" * 5000 + ".safetensors", "must be"),
        ("model-00007-of-00002.safetensors", "which is missing: copy or download it again"),
        ("outside.safetensors", "is a link that leads out of its folder"),
    ],
)
def test_an_index_may_only_name_shards_beside_itself(name: str, told: str, folder: Path) -> None:
    store(folder, tensors_of(folder), "sharded safetensors")
    secret = folder.parent / "secret.safetensors"
    secret.write_bytes((folder / "model-00001-of-00002.safetensors").read_bytes())
    (folder / "outside.safetensors").symlink_to(secret)
    places = json.loads((folder / INDEX).read_text())["weight_map"]
    edit(folder / INDEX, weight_map=places | {"transformer.wte.weight": name})
    assert told in refused(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_weights_may_not_be_a_link_that_leads_out_of_the_folder(name: str, folder: Path, tmp_path: Path) -> None:
    store(folder, tensors_of(folder), "pickle" if name.endswith(".bin") else "safetensors")
    (folder / name).rename(tmp_path / "secret")
    (folder / name).symlink_to(tmp_path / "secret")
    assert f"{name} is a link that leads out of its folder" in refused(folder)


@pytest.mark.parametrize("form", ["safetensors", "sharded safetensors"])
def test_links_within_a_folder_and_within_the_hub_s_cache_are_followed(form: str, folder: Path, tmp_path: Path) -> None:
    store(folder, tensors_of(folder), form)
    model = load(folder)
    blobs, snapshot = tmp_path / "hub" / "models--a--b" / "blobs", tmp_path / "hub" / "models--a--b" / "snapshots" / "c"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted(folder.iterdir())):
        (blobs / str(number)).write_bytes(path.read_bytes())
        (snapshot / path.name).symlink_to(Path("../../blobs") / str(number))
    assert same(load(snapshot), model)
    (tmp_path / "run").symlink_to(folder)
    assert same(load(tmp_path / "run"), model)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[]", "holds a JSON list, not an object"),
        ("{", "cannot read"),
        ("{}", "needs a 'weight_map'"),
        ('{"weight_map": []}', "needs a 'weight_map'"),
        ('{"weight_map": {"x": 3}}', "needs a 'weight_map'"),
        ('{"weight_map": {"x": "model-00001-of-00002.safetensors"}}', "which does not hold it"),
        ("[" * 200_000, "cannot read"),
    ],
)
def test_a_damaged_index_is_refused(content: str, told: str, folder: Path) -> None:
    store(folder, tensors_of(folder), "sharded safetensors")
    (folder / INDEX).write_text(content)
    assert told in refused(folder)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model_type": ...}, "has no model_type"),
        ({"model_type": ["gpt2"]}, "has no model_type"),
        ({"model_type": "gpt9"}, "unknown model_type"),
        ({"model_type": "gpt9", "auto_map": {"AutoModel": "x.Y"}}, "'gpt9' needs remote code, which is never run"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantised"),
        ({"n_embd": 10**12}, "n_embd 1000000000000, which is absurd"),
        ({"n_layer": 10**9}, "n_layer 1000000000, which is absurd: the most is 10,000"),
        ({"n_layer": 9999}, "calls for 9999 layers; the weights hold only 28 tensors"),
        ({"vocab_size": 10**400}, "which is absurd"),
        ({"n_embd": "32"}, "has n_embd '32': it must be a whole number from 1"),
        ({"n_embd": 32.0}, "must be a whole number"),
        ({"n_embd": True}, "must be a whole number"),
        ({"n_embd": None}, "must be given"),
        ({"n_embd": [32]}, "does not describe a model|must be a whole number"),
        ({"n_head": 0}, "must be a whole number from 1"),
        ({"n_layer": 0}, "must be a whole number from 1"),
        ({"n_layer": -2}, "must be a whole number from 1"),
        ({"vocab_size": 0}, "must be a whole number from 1"),
        ({"n_head": 5}, "a width of 32 cannot be divided among 5 heads"),
        ({"layer_norm_epsilon": "small"}, "must be a number"),
        ({"layer_norm_epsilon": -1.0}, "must be a number"),
        ({"layer_norm_epsilon": float("nan")}, "must be a number"),
        ({"resid_pdrop": 1.5}, "must be a number"),
        ({"tie_word_embeddings": "yes"}, "must be true or false"),
        ({"eos_token_id": "end"}, "must be a whole number"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx True"),
        ({"architectures": ["GPT2ForSequenceClassification"], "num_labels": 10**9}, "num_labels 1000000000, .*absurd"),
    ],
)
def test_a_config_that_cannot_be_is_refused(change: dict[str, Any], told: str, folder: Path) -> None:
    import re

    edit(folder / "config.json", **change)
    assert re.search(told, refused(folder))


def test_special_tokens_beyond_the_vocabulary_are_none(folder: Path) -> None:
    vocab = read_config(folder).vocab
    edit(folder / "config.json", pad_token_id=vocab, bos_token_id=10**6, eos_token_id=vocab - 1)
    config = read_config(folder)
    assert (config.pad, config.bos, config.eos) == (None, None, vocab - 1)


def test_an_adapter_s_base_may_be_no_adapter_and_name_no_file_elsewhere(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "evil/x"}))
    (adapter / "hornbook.json").write_text(json.dumps({"base": "hf:evil/x", "base_sha256": "0"}))
    hub = {"hf:evil/x": adapter}
    monkeypatch.setattr("hornbook.checkpoint.locate", lambda name: hub.get(str(name), Path(name)))
    with pytest.raises(UserError, match="which is one itself"):
        load(adapter)
    hub["hf:evil/x"] = folder
    (folder / "model.safetensors").unlink()
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a": "/dev/zero"}}))
    with pytest.raises(UserError, match=r"a shard must be a \.safetensors file beside its index"):
        load(adapter)


def test_counts_of_n_grams_must_be_a_list(tmp_path: Path) -> None:
    folder = folder_of(speaking("ngram"), tmp_path / "theirs")
    for entries in (3, ["x"], [-1, 2, 3], [10**15] * 3, [1, 2], [10, 5, 5]):
        edit(folder / "config.json", entries=entries)
        refused(folder)


@pytest.mark.parametrize("content", ["[]", "3", '"gpt2"', "null", "{", "", "\udcff", "[" * 200_000])
def test_a_config_that_is_no_object_is_refused(content: str, folder: Path) -> None:
    (folder / "config.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    assert "config.json" in refused(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"rope_parameters": ..., "rope_theta": "fast"},
        {"rope_parameters": ..., "rope_theta": 0},
        {"rope_parameters": "default"},
        {"rope_parameters": {"rope_type": ["x"]}},
        {"rope_parameters": {"rope_type": "llama3", "factor": "8"}},
        {"rope_parameters": ..., "rope_scaling": {"type": "linear", "factor": 0}},
        {"rope_parameters": ..., "rope_scaling": {"type": "linear", "factor": "4"}},
        {"rope_parameters": {"rope_type": "default", "rope_theta": None, "partial_rotary_factor": -1}},
        {"head_dim": 7},
        {"num_key_value_heads": 3},
        {"num_key_value_heads": -1},
    ],
)
def test_rotary_settings_that_cannot_be_are_refused(change: dict[str, Any], tmp_path: Path) -> None:
    folder = folder_of(speaking("llama", tied=False), tmp_path / "theirs")
    edit(folder / "config.json", **change)
    refused(folder)


def test_remote_code_is_ignored_where_a_family_here_knows_the_model(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "modeling_x.py").write_text("raise SystemExit('run')")
    edit(folder / "config.json", auto_map={"AutoModelForCausalLM": "modeling_x.X"})
    load(folder)
    assert "names remote code (auto_map), which is never run: a gpt2 model is built here" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", "{"),
        ("tokenizer.json", '{"model": 3}'),
        ("tokenizer_config.json", "3"),
        ("tokenizer_config.json", '{"eos_token": ["x"]}'),
        ("special_tokens_map.json", "3"),
    ],
)
def test_a_damaged_tokeniser_is_refused(name: str, content: str, folder: Path) -> None:
    (folder / name).write_text(content)
    refused(folder)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["device", "pipe"])
def test_settings_that_are_no_ordinary_file_are_refused(kind: str, folder: Path) -> None:
    path = folder / "config.json"
    path.unlink()
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/null")
    assert "config.json is no ordinary file" in refused(folder)


@pytest.mark.parametrize(
    "name",
    [
        *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"),
        *("special_tokens_map.json", "chat_template.jinja", "vocab.json", "merges.txt"),
    ],
)
def test_settings_and_tokenisers_beyond_belief_are_refused(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name in ("vocab.json", "merges.txt"):
        (folder / "tokenizer.json").unlink()
        (folder / "vocab.json").write_text("{}")
        (folder / "merges.txt").write_text("")
    monkeypatch.setattr(small_files, "LARGEST", 1_000_000)
    with open(folder / name, "ab") as file:
        file.truncate(1_000_001)
    assert f"{name} has more than 1,000,000 bytes" in refused(folder)


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="this system has no /proc")
def test_a_file_that_is_larger_than_it_says_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path("/proc/self/status")
    assert path.stat().st_size == 0
    assert read_bytes(path)
    monkeypatch.setattr(small_files, "LARGEST", 10)
    with pytest.raises(UserError, match="more than 10 bytes"):
        read_bytes(path)


ODD: list[Any] = [None, True, -1, 0, 1, 3, 2**31, 10**12, 10**30, 0.5, -0.5, float("nan"), float("inf"), "", "x", "3"]
ODD += [[], {}, [0], [None], [[]], {"rope_type": "linear"}, {"rope_type": "llama3", "factor": 8.0}, {"a": {}}, ["x", 3]]


def outcome(action: Any, *arguments: Any) -> bool:
    """Whether it went well; anything but a UserError of one line fails the test."""
    try:
        action(*arguments)
    except UserError as error:
        if "\n" in str(error):
            pytest.fail(f"more than a line: {error}")
        return False
    return True


@pytest.mark.parametrize("family", ["gpt2", "opt", "llama", "gpt_neox", "smollm3", "bert", "rnn", "ngram"])
def test_any_config_is_read_or_refused(family: str, tmp_path: Path) -> None:
    """Seeded: some keys get odd values."""
    draw = random.Random(0)
    spelled = json.loads((folder_of(speaking(family), tmp_path) / "config.json").read_text())
    keys = [*spelled, "rope_parameters", "rope_scaling", "rope_theta", "no_rope_layers", "no_rope_layer_interval"]
    well = 0
    for _ in range(400):
        changed = spelled | {draw.choice(keys): draw.choice(ODD) for _ in range(draw.randint(1, 3))}
        well += outcome(parse_config, changed)
    assert 0 < well < 400


def test_any_folder_is_loaded_or_refused_whatever_its_config_says(folder: Path) -> None:
    draw, whole = random.Random(1), (folder / "config.json").read_text()
    spelled, well = json.loads(whole), 0
    for _ in range(150):
        changed = spelled | {draw.choice([*spelled]): draw.choice(ODD)}
        (folder / "config.json").write_text(json.dumps(changed))
        well += outcome(load, folder)
    assert 0 < well < 150


def test_any_index_is_read_or_refused(folder: Path) -> None:
    """Seeded: odd values in its structure, then odd characters in its text."""
    store(folder, tensors_of(folder), "sharded safetensors")
    draw, whole = random.Random(2), (folder / INDEX).read_text()
    places = json.loads(whole)["weight_map"]

    def read() -> None:
        with open_weights(folder) as weights:
            for stored in weights.values():
                stored.read()

    well = 0
    for turn in range(300):
        text = list(whole)
        if turn % 2:
            changed = places | {draw.choice([*places]): draw.choice([*ODD, "model.safetensors", "../x.safetensors"])}
            text = list(json.dumps({"weight_map": changed if draw.random() < 0.9 else draw.choice(ODD)}))
        for _ in range(0 if turn % 2 else draw.randint(1, 4)):
            text[draw.randrange(len(text))] = draw.choice('{}[]":,\\/.x0\0é')
        (folder / INDEX).write_text("".join(text), encoding="utf-8")
        well += outcome(read)
    assert 0 < well < 300


def test_any_safetensors_header_is_read_or_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    draw, whole = random.Random(3), path.read_bytes()
    length = struct.unpack("<Q", whole[:8])[0]
    well = 0
    for turn in range(200):
        damaged, end = bytearray(whole), 8 + length if turn % 4 else len(whole)  # beyond the header are numbers
        for _ in range(draw.randint(1, 3)):
            damaged[draw.randrange(end)] = draw.randrange(256)
        path.write_bytes(damaged)
        well += outcome(load, folder)
    assert 0 < well < 200


def test_any_pickle_is_read_or_refused(folder: Path) -> None:
    store(folder, tensors_of(folder), "pickle")
    path = folder / "pytorch_model.bin"
    draw, whole = random.Random(4), path.read_bytes()
    start = whole.index(b"data.pkl")
    well = 0
    for _ in range(200):
        damaged = bytearray(whole)
        for _ in range(draw.randint(1, 3)):
            damaged[draw.randrange(start, start + 3000)] = draw.randrange(256)
        path.write_bytes(damaged)
        well += outcome(load, folder)
    assert 0 < well < 200
