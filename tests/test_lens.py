"""The logit lens and attention weights: what a model holds between its layers, for every family."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from helpers import VOCAB, tiny_model
from hornbook import models
from hornbook.adapt.quantization import quantize
from hornbook.checkpoint import save_model
from hornbook.config import Quantization
from hornbook.errors import UserError
from hornbook.generation.swift import quicken
from hornbook.inspection.lens import attention_size, attention_weights, depths, streams, unembed
from hornbook.layers.model import LanguageModel
from hornbook.text.tokenizer_training import train_tokenizer

NEURAL = [name for name in models.families() if not models.family(name).Model.counted]
CHANGES: dict[str, tuple[str, dict[str, Any]]] = {name: (name, {}) for name in NEURAL} | {
    "opt-350m": ("opt", {"pre_norm": False, "embedding_dim": 16}),
    "rnn of one tanh layer": ("rnn", {"layers": 1, "cell": "tanh"}),
    "rnn of three GRU layers": ("rnn", {"layers": 3, "cell": "gru"}),
}
LOOKING_BACK = [name for name in CHANGES if CHANGES[name][0] != "rnn"]
CLOSE = {"rtol": 0, "atol": 2e-5}
"""float32 sums of at most a few hundred terms of size 1, in another order: about 100 roundings of 6e-8 (times 3)."""


def made(name: str) -> LanguageModel:
    family, changes = CHANGES[name]
    return tiny_model(family, **changes)


def tokens(length: int = 20) -> torch.Tensor:
    return torch.randint(3, VOCAB, (length,), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", CHANGES)
@torch.no_grad()
def test_the_last_depth_is_what_the_model_predicts(name: str) -> None:
    model, x = made(name), tokens()
    found = streams(model, x)
    assert len(found) == len(depths(model))
    torch.testing.assert_close(unembed(model, found[-1]), model(x[None])[0], **CLOSE)
    for earlier in found[:-1]:
        assert unembed(model, earlier).shape == (20, VOCAB)
        assert not torch.allclose(unembed(model, earlier), unembed(model, found[-1]))


@pytest.mark.parametrize("kind", ["bfloat16", "int8", "int4"])
@pytest.mark.parametrize("length", [3, 20])
@torch.no_grad()
def test_it_is_so_for_models_as_they_are_served(kind: str, length: int) -> None:
    """In few bits, and by the kernels for few rows."""
    model = tiny_model("llama", dim=64, mlp=96).bfloat16()
    if kind != "bfloat16":
        quantize(model, Quantization(kind))
    quicken(model)
    x = tokens(length)
    torch.testing.assert_close(unembed(model, streams(model, x)[-1]), model(x[None])[0].float(), **CLOSE)
    sums = attention_weights(model, x, 0, 0).sum(-1)
    torch.testing.assert_close(sums, torch.ones(length), rtol=0, atol=length * 2**-9)  # each weight rounded to bfloat16


@pytest.mark.parametrize("name", CHANGES)
@torch.no_grad()
def test_looking_leaves_the_model_as_it_was(name: str) -> None:
    model, x = made(name), tokens()
    before = model(x[None])
    streams(model, x)
    if name in LOOKING_BACK:
        attention_weights(model, x, 0, 0)
    assert torch.equal(model(x[None]), before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@torch.no_grad()
def test_a_model_without_its_last_blocks_predicts_what_the_lens_shows_there(family: str) -> None:
    model, x = tiny_model(family, layers=3), tokens()
    found = streams(model, x)
    for kept in (2, 1):
        model.blocks = model.blocks[:kept]
        torch.testing.assert_close(unembed(model, found[kept]), model(x[None])[0], **CLOSE)


@torch.no_grad()
def test_the_inner_states_of_a_recurrent_model_are_those_of_fewer_layers() -> None:
    whole, x = tiny_model("rnn", layers=3), tokens()
    found = streams(whole, x)
    for layers in (1, 2):
        part = tiny_model("rnn", layers=layers)
        part.load_state_dict({name: whole.state_dict()[name] for name in part.state_dict()})
        torch.testing.assert_close(unembed(whole, found[layers]), part(x[None])[0], **CLOSE)


@pytest.mark.parametrize("name", LOOKING_BACK)
@torch.no_grad()
def test_every_row_of_attention_sums_to_1_and_looks_where_it_may(name: str) -> None:
    model, x = made(name), tokens()
    layers, heads = attention_size(model)
    for layer in range(layers):
        for head in range(heads):
            found = attention_weights(model, x, layer, head)
            torch.testing.assert_close(found.sum(-1), torch.ones(20), **CLOSE)
            assert bool((found >= 0).all())
            if model.causal:
                assert not found.triu(1).any()
            if window := getattr(model.config, "window", None):
                assert not found.tril(-window).any()


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@torch.no_grad()
def test_transformers_has_the_same_states_and_weights(family: str, tmp_path) -> None:
    transformers = pytest.importorskip("transformers")
    changes = {"kv_heads": 2} if family == "llama" else {}
    tokenizer = train_tokenizer("bytes", [])
    model, x = tiny_model(family, vocab=tokenizer.vocab, **changes), tokens()
    save_model(tmp_path, model, tokenizer)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    out = theirs(x[None], output_attentions=True, output_hidden_states=True)
    for ours, there in zip(streams(model, x)[:-1], out.hidden_states[:-1], strict=True):
        torch.testing.assert_close(ours, there[0], **CLOSE)
    for layer, there in enumerate(out.attentions):
        for head in range(there.shape[1]):
            torch.testing.assert_close(attention_weights(model, x, layer, head), there[0, head], **CLOSE)


def test_what_a_model_does_not_have_is_refused() -> None:
    counted, recurrent = tiny_model("ngram"), tiny_model("rnn")
    for look in (depths, attention_size, lambda model: streams(model, tokens())):
        with pytest.raises(UserError, match=r"no (layers|attention)"):
            look(counted)
    with pytest.raises(UserError, match="no attention"):
        attention_weights(recurrent, tokens(), 0, 0)
    with pytest.raises(UserError, match="no layer 2 of attention in this model: it has 0 to 1"):
        attention_weights(tiny_model("llama"), tokens(), 2, 0)
    with pytest.raises(UserError, match="no head -1"):
        attention_weights(tiny_model("llama"), tokens(), 0, -1)


def test_the_hooks_go_where_the_model_fails() -> None:
    model = tiny_model("gpt2")
    with pytest.raises(UserError, match="context"):
        streams(model, tokens(49))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
