"""GGUF files: the container holds what others' libraries see in it, and models come back as they went out."""

from __future__ import annotations

import json
import os
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers import needs_data
from hornbook import models
from hornbook.checkpoint import load
from hornbook.config import RopeScaling, TransformerConfig
from hornbook.errors import PassingError, UserError
from hornbook.formats.gguf import load_gguf, permuted, save_gguf
from hornbook.formats.gguf_config import rope_factors
from hornbook.formats.gguf_file import GGUFFile, write
from hornbook.formats.gguf_types import TYPES, WRITTEN
from hornbook.formats.huggingface import export_weights
from hornbook.layers.model import LanguageModel
from hornbook.layers.positions import rotary_angles, rotate
from hornbook.text.tokenizer_training import train_tokenizer
from hornbook.text.tokenizers import Tokenizer

gguf = pytest.importorskip("gguf")

DATA = Path(os.environ.get("HORNBOOK_DATA", "."))

SIZE: dict[str, Any] = {"dim": 64, "layers": 2, "heads": 4, "mlp": 96, "context": 48}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    name: (name, {}) for name in models.families() if hasattr(models.family(name), "GGUF")
}
VARIANTS |= {
    "gpt2, untied": ("gpt2", {"tied": False}),
    "llama, untied, one head each": ("llama", {"kv_heads": 4, "tied": False}),
    "llama with wide heads": ("llama", {"kv_heads": 1, "head_dim": 48, "rope_theta": 5e5}),
    "llama with biases": ("llama", {"kv_heads": 2, "qkv_bias": True, "output_bias": True, "mlp_bias": True}),
    "llama, positions stretched evenly": ("llama", {"rope_scaling": RopeScaling("linear", 4.0)}),
    "llama, positions stretched by rate": (
        "llama",
        {"rope_scaling": RopeScaling("llama3", 8.0, original=32), "context": 256},
    ),
    "gpt_neox in sequence, turning half": ("gpt_neox", {"parallel": False, "rotary_share": 0.5}),
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer("bytes", [])


def build(family: str, changes: dict[str, Any], seed: int = 0) -> LanguageModel:
    """A tiny model with weights so large that every one shows; its vocabulary has spare rows."""
    tiny = next(iter(models.family(family).SIZES.values()))
    assert isinstance(tiny, TransformerConfig)
    ends = {"bos": 256, "eos": 256, "pad": 257}
    model = models.build(tiny.replace(**({"vocab": 264, "window": None} | ends | SIZE | changes))).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.3 + (p.ndim == 1))
    return model


def tokens(width: int = 24) -> Tensor:
    return torch.randint(0, 256, (2, width), generator=torch.Generator().manual_seed(1))


# --- models, out and in


@pytest.mark.parametrize("variant", VARIANTS)
@torch.inference_mode()
def test_a_float32_file_gives_the_same_model_bit_for_bit(variant: str, tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = build(*VARIANTS[variant])
    save_gguf(tmp_path / "x.gguf", model, tokenizer, "F32")
    again = load_gguf(tmp_path / "x.gguf")
    assert not again.training
    # To llama.cpp a Mistral is a Llama.
    assert again.config.resolved() == model.config.resolved().replace(family=again.config.family)
    assert again.state_dict().keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        exact = not models.family(model.config.family).GGUF.get("norm_plus_one") or not name.endswith("norm.weight")
        assert torch.allclose(again.state_dict()[name], tensor, rtol=0, atol=0 if exact else 2e-7), name
    if exact:
        assert torch.equal(again(tokens()), model(tokens()))
    assert again.tokenizer.encode("né\n") == tokenizer.encode("né\n")


@pytest.mark.parametrize("variant", ["gpt2", "llama", "gpt2, untied"])
@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0"])
def test_other_formats_round_each_matrix_as_ggml_does(
    variant: str, kind: str, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    model = build(*VARIANTS[variant])
    save_gguf(tmp_path / "x.gguf", model, tokenizer, kind)
    again, head = load_gguf(tmp_path / "x.gguf").state_dict(), "output" if "untied" in variant else "embedding"
    for name, tensor in model.state_dict().items():
        number = gguf.GGMLQuantizationType["Q8_0" if kind == "Q4_0" and name == f"{head}.weight" else kind]
        expected = tensor.numpy()
        if tensor.ndim == 2 and name != "positions.weight":
            expected = gguf.quants.dequantize(gguf.quants.quantize(expected, number), number)
            assert not np.array_equal(expected, tensor.numpy())
        assert np.array_equal(again[name].numpy(), expected), name
    assert GGUFFile(tmp_path / "x.gguf").metadata["general.file_type"] == {
        "F16": gguf.LlamaFileType.MOSTLY_F16,
        "BF16": gguf.LlamaFileType.MOSTLY_BF16,
        "Q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
        "Q4_0": gguf.LlamaFileType.MOSTLY_Q4_0,
    }[kind]  # fmt: skip


def test_rows_that_are_no_whole_blocks_become_half_precision(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = build("llama", {"dim": 64, "mlp": 72})
    save_gguf(tmp_path / "x.gguf", model, tokenizer, "Q8_0")
    kinds = {name: info.kind for name, info in GGUFFile(tmp_path / "x.gguf").tensors.items()}
    assert kinds["blk.0.ffn_down.weight"] == "F16"
    assert kinds["blk.0.ffn_up.weight"] == kinds["token_embd.weight"] == "Q8_0"
    assert kinds["blk.0.attn_norm.weight"] == "F32"
    assert torch.equal(
        load_gguf(tmp_path / "x.gguf").state_dict()["blocks.1.mlp.down.weight"],
        model.state_dict()["blocks.1.mlp.down.weight"].half().float(),
    )


@pytest.mark.parametrize("variant", ["gpt2", "llama", "gpt_neox"])
def test_ggufs_own_reader_sees_the_same_fields_and_tensors(variant: str, tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = build(*VARIANTS[variant])
    save_gguf(tmp_path / "x.gguf", model, tokenizer, "Q8_0")
    theirs, ours = gguf.GGUFReader(tmp_path / "x.gguf"), GGUFFile(tmp_path / "x.gguf")
    fields = {name: field.contents() for name, field in theirs.fields.items() if not name.startswith("GGUF.")}
    assert {name: value or [] for name, value in fields.items()} == {k: v or [] for k, v in ours.metadata.items()}
    assert [tensor.name for tensor in theirs.tensors] == list(ours.tensors)
    for tensor in theirs.tensors:
        assert tuple(reversed(tensor.shape.tolist())) == ours.tensors[tensor.name].shape
        expected = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        assert np.array_equal(ours.read(tensor.name).numpy(), expected), tensor.name


REQUIRED = {  # what llama.cpp does not load an architecture without
    "gpt2": "context_length embedding_length block_count feed_forward_length attention.head_count "
    "attention.layer_norm_epsilon",
    "llama": "context_length embedding_length block_count feed_forward_length attention.head_count "
    "attention.layer_norm_rms_epsilon",
    "gptneox": "context_length embedding_length block_count feed_forward_length attention.head_count "
    "attention.layer_norm_epsilon use_parallel_residual",
}


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox"])
def test_a_file_has_the_keys_that_llama_cpp_requires_in_the_types_that_it_expects(
    family: str, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    save_gguf(tmp_path / "a-name.gguf", build(family, {}), tokenizer)
    fields = gguf.GGUFReader(tmp_path / "a-name.gguf").fields
    architecture = fields["general.architecture"].contents()
    for key in REQUIRED[architecture].split():
        kind = fields[f"{architecture}.{key}"].types[0].name
        assert kind == ("FLOAT32" if "epsilon" in key else "BOOL" if "use_" in key else "UINT32"), key
    assert fields["general.name"].contents() == "a-name"
    assert len(fields["tokenizer.ggml.tokens"].contents()) == 264
    assert [t.name for t in fields["tokenizer.ggml.token_type"].types] == ["ARRAY", "INT32"]
    assert [t.name for t in fields["tokenizer.ggml.merges"].types][:1] == ["ARRAY"]
    for name in ("bos", "eos", "padding"):
        assert fields[f"tokenizer.ggml.{name}_token_id"].types[0].name == "UINT32"


def test_query_and_key_rows_stand_in_llama_cpps_order_in_a_llama_with_grouped_queries(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    model = build("llama", {"kv_heads": 2})
    save_gguf(tmp_path / "x.gguf", model, tokenizer, "F32")
    file, state = GGUFFile(tmp_path / "x.gguf"), model.state_dict()
    for theirs, ours, heads in (("attn_q", "query", 4), ("attn_k", "key", 2)):
        weight = state[f"blocks.1.attention.{ours}.weight"]
        expected = weight.reshape(heads, 2, 8, 64).transpose(1, 2).reshape(weight.shape)  # heads of 16 channels
        assert not torch.equal(weight, expected)
        assert torch.equal(file.read(f"blk.1.{theirs}.weight"), expected)
    assert torch.equal(file.read("blk.1.attn_v.weight"), state["blocks.1.attention.value.weight"])


def test_turning_neighbouring_channels_of_reordered_rows_gives_the_scores_of_ours() -> None:
    x, weights = torch.randn(5, 32), torch.randn(2, 24, 32)  # query and key, 3 heads of 8
    angles = rotary_angles(torch.arange(5)[None], 8, 10000.0)
    query, key = (rotate((x @ w.T).unflatten(-1, (3, 8)).transpose(0, 1)[None], angles)[0] for w in weights)
    ours = query @ key.transpose(-1, -2)
    turn = torch.polar(torch.ones(5, 4), torch.arange(5)[:, None] / 10000.0 ** (torch.arange(0, 8, 2) / 8))
    pairs = [(x @ permuted(w, 3, inwards=False).T).view(5, 3, 4, 2).contiguous() for w in weights]
    turned = [torch.view_as_real(torch.view_as_complex(p) * turn[:, None]).flatten(2).transpose(0, 1) for p in pairs]
    assert torch.allclose(ours, turned[0] @ turned[1].transpose(-1, -2), atol=1e-4)
    assert torch.equal(permuted(permuted(weights[0], 3, inwards=False), 3, inwards=True), weights[0])


def test_the_factors_of_llama_3_1_are_those_of_its_published_files() -> None:
    factors = rope_factors(128, 500000.0, RopeScaling("llama3", 8.0))
    # by the rule in Meta's released code, in double precision
    wave = 2 * np.pi * 500000.0 ** (np.arange(0, 128, 2) / 128)
    smooth = (8192 / wave - 1) / 3
    expected = np.where(wave < 8192 / 4, 1, np.where(wave > 8192, 8, 1 / ((1 - smooth) / 8 + smooth)))
    assert np.allclose(factors.numpy(), expected, rtol=1e-5)
    assert factors[0] == 1
    assert factors[-1] == 8


THEIRS = ("llama", "llama, untied, one head each", "llama with wide heads", "qwen2")
READ_BY_TRANSFORMERS = {name: VARIANTS[name] for name in THEIRS} | {
    "gpt2 of the usual shape": ("gpt2", {"mlp": 256, "context": 1024}),  # transformers reads neither from the file,
    "qwen3 of the usual shape": ("qwen3", {"head_dim": 128}),  # nor this
}


@pytest.mark.parametrize("variant", READ_BY_TRANSFORMERS)
def test_transformers_reads_the_same_model_from_a_file_that_we_write(
    variant: str, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    transformers = pytest.importorskip("transformers")
    model = build(*READ_BY_TRANSFORMERS[variant])
    save_gguf(tmp_path / "x.gguf", model, tokenizer, "F32")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="x.gguf", attn_implementation="eager", dtype=torch.float32
    ).eval()
    with torch.inference_mode():
        ours, other = model(tokens()), theirs(tokens()).logits
    assert float(ours.std()) > 0.3
    assert float((ours - other).abs().max()) < 1e-5 * float(ours.abs().max())


def test_gpt_neox_keeps_all_queries_before_all_keys_before_all_values(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = build("gpt_neox", {})
    save_gguf(tmp_path / "x.gguf", model, tokenizer, "F32")
    for leaf in ("weight", "bias"):
        theirs = export_weights(model)[f"gpt_neox.layers.1.attention.query_key_value.{leaf}"]
        heads = theirs.reshape(4, 3, 16, -1)  # as llama.cpp's converter takes Hugging Face's tensor apart
        expected = torch.cat([heads[:, part].reshape(64, -1) for part in range(3)]).reshape(theirs.shape)
        assert torch.equal(GGUFFile(tmp_path / "x.gguf").read(f"blk.1.attn_qkv.{leaf}"), expected)


def test_gemmas_norms_are_stored_with_the_1_added(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = build("gemma", {})
    save_gguf(tmp_path / "x.gguf", model, tokenizer)
    file, state = GGUFFile(tmp_path / "x.gguf"), model.state_dict()
    assert torch.equal(file.read("output_norm.weight"), state["final_norm.weight"] + 1)
    assert torch.equal(file.read("blk.1.ffn_norm.weight"), state["blocks.1.mlp_norm.weight"] + 1)


def test_one_tensor_at_a_time_is_in_memory_beside_the_model(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_gguf(tmp_path / "x.gguf", build("llama", {}), tokenizer, "Q8_0")
    read, alive = GGUFFile.read, []

    def watched(self: GGUFFile, name: str) -> Tensor:
        assert not any(tensor() is not None for tensor in alive), "an earlier tensor is still held"
        alive.append(weakref.ref(tensor := read(self, name)))
        return tensor

    monkeypatch.setattr(GGUFFile, "read", watched)
    load_gguf(tmp_path / "x.gguf")
    assert len(alive) == 2 + 2 * 9


def test_memory_is_asked_for_in_the_number_format_that_the_model_gets(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_gguf(tmp_path / "x.gguf", build("gemma", {}), tokenizer, "Q8_0")
    wanted = load_gguf(tmp_path / "x.gguf").to(torch.bfloat16).state_dict()
    asked, real = [], torch.nn.Module.to_empty

    def watched(self: torch.nn.Module, **given: Any) -> torch.nn.Module:
        asked.extend({parameter.dtype for parameter in self.parameters()})
        return real(self, **given)

    monkeypatch.setattr(torch.nn.Module, "to_empty", watched)
    found = load(tmp_path / "x.gguf", dtype="bfloat16").state_dict()
    assert asked == [torch.bfloat16]
    assert all(torch.equal(found[name], tensor) and tensor.dtype == torch.bfloat16 for name, tensor in wanted.items())


def test_a_head_that_repeats_the_embedding_is_tied(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = build("gpt2", {"tied": False})
    with torch.no_grad():
        model.output.weight.copy_(model.embedding.weight)
    save_gguf(tmp_path / "x.gguf", model, tokenizer, "Q8_0")
    again = load_gguf(tmp_path / "x.gguf")
    assert again.tied
    assert "output.weight" not in again.state_dict()


def test_a_sliding_window_becomes_the_context_within_which_it_changes_nothing(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    model = build("llama", {"window": 16})
    save_gguf(tmp_path / "x.gguf", model, tokenizer, "F32")
    again = load_gguf(tmp_path / "x.gguf")
    assert (again.config.context, again.config.window) == (16, None)
    assert torch.equal(again(tokens(16)), model(tokens(16)))


def test_a_family_that_llama_cpp_calls_llama_is_written_as_one_and_read_as_a_llama(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = {"architecture": "llama", "permuted": True}
    for other in ("mistral", "gemma"):  # one after and one before it in the alphabet
        monkeypatch.setattr(models.family(other), "GGUF", table, raising=False)
    model = build("mistral", {})
    save_gguf(tmp_path / "x.gguf", model, tokenizer, "F32")
    again = load_gguf(tmp_path / "x.gguf")
    assert again.config.family == "llama"
    assert torch.equal(again(tokens()), model(tokens()))


# --- what is refused


@pytest.mark.parametrize("family", ["opt", "rnn", "smollm3", "rnn_attention", "bert"])
def test_a_model_that_llama_cpp_does_not_have_is_sent_to_the_hugging_face_folder(
    family: str, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    config = next(iter(models.family(family).SIZES.values())).replace(vocab=264, context=16)
    with pytest.raises(UserError, match="use the Hugging Face folder") as caught:
        save_gguf(tmp_path / "x.gguf", models.build(config), tokenizer)
    if family == "opt":
        assert str(caught.value) == "llama.cpp has no OPT; use the Hugging Face folder"
    if family == "smollm3":  # llama.cpp has it
        assert str(caught.value) == "smollm3 is not written as GGUF here; use the Hugging Face folder"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("family", "changes", "told"),
    [
        ("llama", {"activation": "relu"}, "activation is 'relu'"),
        ("gpt2", {"norm_eps": 0.0}, "layer_norm_epsilon 0.0"),
        ("qwen2", {"rope_scaling": RopeScaling("llama3", 8.0, original=32)}, "in no qwen2"),
        ("llama", {"rope_scaling": RopeScaling("llama3", 8.0, low=2.0, original=32)}, "not as Llama 3.1"),
    ],
)
def test_a_model_that_the_keys_cannot_describe_is_not_written(
    family: str, changes: dict[str, Any], told: str, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    with pytest.raises(UserError, match=told):
        save_gguf(tmp_path / "x.gguf", build(family, changes), tokenizer)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = build("llama", {})
    with pytest.raises(UserError, match=r"unknown number format.*Q8_0"):
        save_gguf(tmp_path / "x.gguf", model, tokenizer, "Q8")
    with pytest.raises(UserError, match="the tokeniser has 259 tokens and the model 258"):
        save_gguf(tmp_path / "x.gguf", build("llama", {"vocab": 258}), tokenizer)
    (tmp_path / "file").write_text("")
    with pytest.raises(PassingError, match="could not write"):
        save_gguf(tmp_path / "file" / "x.gguf", model, tokenizer)
    with torch.no_grad():
        model.blocks[1].mlp.down.weight[3, 4] = 1e6
    for kind in ("F16", "Q4_0"):
        with pytest.raises(UserError, match=f"beyond the 65,504 that {kind} can hold"):
            save_gguf(tmp_path / "x.gguf", model, tokenizer, kind)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    save_gguf(tmp_path / "x.gguf", model, tokenizer, "BF16")


def edited(path: Path, keys: dict[str, Any] | None = None, tensors: dict[str, Tensor | None] | None = None) -> Path:
    """A copy of a float32 file with other keys and tensors; None leaves one out."""
    file, new = GGUFFile(path), path.with_name("edited.gguf")
    metadata = {key: value for key, value in (file.metadata | (keys or {})).items() if value is not None}
    stored = {name: file.read(name) for name in file.tensors} | (tensors or {})
    write(new, metadata, [(name, t.shape, "F32", lambda t=t: t) for name, t in stored.items() if t is not None])
    return new


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"general.architecture": "mamba"}, "unknown general.architecture in the GGUF file 'mamba'"),
        ({"general.architecture": None}, "unknown general.architecture"),
        ({"general.alignment": 48}, "no power of two"),
        ({"split.count": 3}, "one of 3 parts"),
        ({"llama.context_length": None}, "llama.context_length None: it must be a whole number"),
        ({"llama.embedding_length": 0}, "llama.embedding_length 0"),
        ({"llama.embedding_length": 2**40}, "from 1 to 1,048,576"),
        ({"llama.block_count": 2**31}, "llama.block_count"),
        ({"llama.block_count": 3}, "lacks the tensor 'blk.2.attn_norm.weight'|llama.block_count 3"),
        ({"llama.block_count": 1}, "'blk.1.attn_norm.weight', for which the model here has no place"),
        ({"llama.attention.head_count": "many"}, "llama.attention.head_count 'many'"),
        ({"llama.attention.head_count": [4, 4]}, "llama.attention.head_count"),
        (
            {"llama.attention.head_count": 5, "llama.attention.head_count_kv": 5, "llama.attention.key_length": None},
            "shared evenly",
        ),
        ({"llama.attention.head_count_kv": 3}, "share them evenly"),
        ({"llama.attention.head_count": 8}, "'blk.0.attn_q.weight' has shape"),
        ({"llama.attention.value_length": 8}, "the key length, 16"),
        ({"llama.attention.layer_norm_rms_epsilon": float("nan")}, "a number above 0"),
        ({"llama.rope.dimension_count": 17}, "an even number"),
        ({"llama.rope.freq_base": -1.0}, "llama.rope.freq_base -1.0"),
        ({"llama.rope.scaling.type": "yarn"}, "unknown way to stretch rotary positions in the GGUF file 'yarn'"),
        ({"llama.expert_count": 8}, "llama.expert_count 8, which is not built here"),
        ({"llama.attention.sliding_window": 4096}, "llama.attention.sliding_window 4096"),
        ({"llama.attention.causal": False}, "llama.attention.causal False"),
        ({"tokenizer.ggml.tokens": ["a", "b"]}, "2 tokens and 264 types"),
        ({"tokenizer.ggml.model": "t5"}, "unknown tokenizer.ggml.model 't5'"),
    ],
)
def test_a_file_that_asks_for_what_cannot_be_is_refused(
    keys: dict[str, Any], told: str, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    save_gguf(tmp_path / "x.gguf", build("llama", {"kv_heads": 2}), tokenizer, "F32")
    with pytest.raises(UserError, match=told) as caught:
        load_gguf(edited(tmp_path / "x.gguf", keys))
    assert "\n" not in str(caught.value)


def test_keys_that_ask_for_nothing_are_passed_over(tmp_path: Path, tokenizer: Tokenizer) -> None:
    save_gguf(tmp_path / "x.gguf", build("llama", {}), tokenizer, "F32")
    nothing = {"attention.causal": True, "expert_count": 0, "rope.scaling.type": "none", "tensor_data_layout": "any"}
    load_gguf(edited(tmp_path / "x.gguf", {f"llama.{key}": value for key, value in nothing.items()}))


@pytest.mark.parametrize(
    ("tensors", "told"),
    [
        ({"blk.1.ffn_up.weight": None}, "lacks the tensor 'blk.1.ffn_up.weight'"),
        ({"blk.1.ffn_gate_inp.weight": torch.ones(8, 64)}, "'blk.1.ffn_gate_inp.weight', for which"),
        ({"blk.1.ffn_up.weight": torch.ones(96, 65)}, r"has shape \[96, 65\]; the metadata call for \[96, 64\]"),
        ({"token_embd.weight": torch.ones(200, 64)}, "259 tokens|264 tokens"),
        ({"output_norm.weight": torch.full((64,), torch.nan)}, "'output_norm.weight' holds NaN"),
        ({"rope_freqs.weight": torch.linspace(1, 8, 8)}, "not as Llama 3.1 does"),
        ({"rope_freqs.weight": torch.ones(8)}, None),
    ],
)
def test_a_file_whose_tensors_are_not_the_models_is_refused(
    tensors: dict[str, Tensor | None], told: str | None, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    model = build("llama", {"kv_heads": 2})
    save_gguf(tmp_path / "x.gguf", model, tokenizer, "F32")
    if told is None:
        assert torch.equal(load_gguf(edited(tmp_path / "x.gguf", {}, tensors))(tokens()), model(tokens()))
        return
    with pytest.raises(UserError, match=told):
        load_gguf(edited(tmp_path / "x.gguf", {}, tensors))


def test_without_the_gguf_package_plain_formats_work_and_others_say_what_to_install(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build("llama", {})
    save_gguf(tmp_path / "blocks.gguf", model, tokenizer, "Q8_0")
    monkeypatch.setitem(sys.modules, "gguf", None)
    for kind in ("F32", "F16", "BF16"):
        save_gguf(tmp_path / "x.gguf", model, tokenizer, kind)
        load_gguf(tmp_path / "x.gguf")
    with pytest.raises(UserError, match=r"Q4_0 weights needs the package 'gguf'.*hornbook\[formats\]"):
        save_gguf(tmp_path / "y.gguf", model, tokenizer, "Q4_0")
    with pytest.raises(UserError, match=r"Q8_0 weights needs the package 'gguf'"):
        load_gguf(tmp_path / "blocks.gguf")
    assert not (tmp_path / "y.gguf").exists()


# --- number formats


def test_the_layout_of_every_number_format_is_ggmls() -> None:
    for name, layout in TYPES.items():
        number = gguf.GGMLQuantizationType[name]
        assert layout == (number, *gguf.GGML_QUANT_SIZES[number]), name


@pytest.mark.parametrize("kind", TYPES)
def test_every_number_format_reads_as_the_gguf_package_says(kind: str, tmp_path: Path) -> None:
    number, layout = gguf.GGMLQuantizationType[kind], TYPES[kind]
    blocks = np.random.default_rng(0).integers(0, 256, (3, 2, 2 * layout.size), dtype=np.uint8)
    if kind == "F32":
        blocks = np.random.default_rng(0).normal(size=(3, 2, 2)).astype(np.float32).view(np.uint8)
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "any")
    writer.add_tensor("first", np.ones(3, np.float32))
    writer.add_tensor("x", blocks, raw_dtype=number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = GGUFFile(tmp_path / "x.gguf")
    assert (file.tensors["x"].kind, file.tensors["x"].shape) == (kind, (3, 2, 2 * layout.block))
    with np.errstate(all="ignore"):
        expected = gguf.quants.dequantize(blocks, number).reshape(3, 2, -1)
    assert np.array_equal(file.read("x").numpy(), expected, equal_nan=True)
    assert file.read("first").tolist() == [1, 1, 1]


@pytest.mark.parametrize("kind", WRITTEN)
def test_a_tensor_is_converted_in_parts_as_in_one_piece(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensor = torch.randn(37, 64)
    write(tmp_path / "whole.gguf", {}, [("x", (37, 64), kind, lambda: tensor)])
    whole = GGUFFile(tmp_path / "whole.gguf").read("x")
    monkeypatch.setattr("hornbook.formats.gguf_file.CHUNK", 64 * 5)
    write(tmp_path / "parts.gguf", {}, [("x", (37, 64), kind, lambda: tensor)])
    assert (tmp_path / "parts.gguf").read_bytes() == (tmp_path / "whole.gguf").read_bytes()
    assert torch.equal(GGUFFile(tmp_path / "parts.gguf").read("x"), whole)


# --- a real model


@needs_data("smollm2-135m/reference-greedy.json")
def test_smollm2_gives_the_reference_logits_and_its_greedy_ids() -> None:
    folder = DATA / "smollm2-135m"
    reference = json.loads((folder / "reference-greedy.json").read_text())
    model = load_gguf(folder / "SmolLM2-135M-Instruct.Q4_1.gguf")
    assert model.tokenizer.encode(reference["prompt"]) == reference["prompt_ids"]
    cache = model.make_cache(1, 40)
    ids = reference["prompt_ids"]
    with torch.inference_mode():
        logits = model(torch.tensor([ids]), cache)[0, -1]
        top = logits.topk(5)
        assert top.indices.tolist() == [id for id, _ in reference["top5_next"]]
        assert np.allclose(top.values.numpy(), [value for _, value in reference["top5_next"]], atol=2e-2)
        found = [int(logits.argmax())]
        while len(found) < len(reference["greedy_ids"]):
            found.append(int(model(torch.tensor([found[-1:]]), cache)[0, -1].argmax()))
    assert found == reference["greedy_ids"]
    assert model.tokenizer.decode(found) == reference["greedy_text"]
    assert "<|im_start|>" in model.tokenizer.config["chat_template"]
