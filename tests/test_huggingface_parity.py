"""Our GPT-2, OPT, Llama and BERT are Hugging Face's: same logits, same files, in both directions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hornbook import checkpoint, models
from hornbook.config import ModelConfig, TransformerConfig
from hornbook.errors import UserError
from hornbook.formats.huggingface import from_hf_config, to_hf_config
from hornbook.generation.stream import stream_tokens
from hornbook.layers.model import LanguageModel
from hornbook.layers.positions import rotary_angles
from hornbook.text.tokenizer_training import train_tokenizer
from hornbook.text.tokenizers import Tokenizer

transformers = pytest.importorskip("transformers")

SIZE: dict[str, Any] = {"dim": 24, "layers": 3, "heads": 4, "mlp": 40}
VARIANTS = {
    "gpt2": ("gpt2", {}),
    "gpt2 with the usual inner width": ("gpt2", {"mlp": None}),
    "opt": ("opt", {}),
    "opt, untied": ("opt", {"tied": False}),
    "llama, untied": ("llama", {"kv_heads": 4, "tied": False}),
    "llama with grouped queries, tied": ("llama", {"kv_heads": 2, "tied": True}),
    "llama with wide heads and slow rotation": ("llama", {"kv_heads": 1, "head_dim": 10, "rope_theta": 5e5}),
    "bert": ("bert", {}),
}
CAUSAL = {name: variant for name, variant in VARIANTS.items() if variant[0] != "bert"}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer("bytes", [])


def config_of(family: str, changes: dict[str, Any], vocab: int) -> ModelConfig:
    """The tiny size of a family, with its own parts."""
    tiny = next(iter(models.family(family).SIZES.values()))
    assert isinstance(tiny, TransformerConfig)
    return tiny.replace(
        **(SIZE | {"kv_heads": None, "context": 48, "bos": 1, "eos": 2, "pad": 3} | changes), vocab=vocab
    )


def spread(model: torch.nn.Module, scale: float) -> None:
    """Weights so large, norms and biases so uneven, that every one of them shows in the logits."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if p.ndim == 1:
                p.copy_(0.3 * noise + (0 if name.endswith("bias") else 1))
            else:
                p.copy_(noise * scale)


def build(family: str, changes: dict[str, Any], vocab: int, scale: float = 0.2) -> LanguageModel:
    model = models.build(config_of(family, changes, vocab)).eval()
    spread(model, scale)
    return model


def theirs_in(folder: Path) -> Any:
    """What transformers makes of a folder; fails when it misses, or has no place for, any tensor."""
    kind = json.loads((folder / "config.json").read_text())["architectures"][0]
    auto = transformers.AutoModelForMaskedLM if "MaskedLM" in kind else transformers.AutoModelForCausalLM
    model, info = auto.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32, output_loading_info=True
    )
    assert not any(info.values()), info
    return model.eval()


def tokens_of(vocab: int, rows: int = 3, width: int = 32) -> Tensor:
    return torch.randint(4, vocab, (rows, width), generator=torch.Generator().manual_seed(1))


def difference(ours: Tensor, theirs: Tensor) -> float:
    assert float(theirs.std()) > 0.3, "logits so small that they prove little"
    return float((ours - theirs).abs().max())


@pytest.mark.parametrize("variant", VARIANTS)
@torch.inference_mode()
def test_a_folder_that_we_write_gives_the_same_logits_in_transformers(
    variant: str, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    model = build(*VARIANTS[variant], tokenizer.vocab)
    checkpoint.save_model(tmp_path, model, tokenizer)
    tokens = tokens_of(tokenizer.vocab)
    assert difference(model(tokens), theirs_in(tmp_path)(tokens).logits) < 1e-5


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("side", ["left", "right"])
@torch.inference_mode()
def test_padding_means_the_same_to_both(variant: str, side: str, tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = build(*VARIANTS[variant], tokenizer.vocab)
    checkpoint.save_model(tmp_path, model, tokenizer)
    tokens = tokens_of(tokenizer.vocab)
    real = torch.arange(32) < torch.tensor([[32], [20], [7]])
    if side == "left":
        real = real.flip(1)
    positions = (real.long().cumsum(1) - 1).clamp(min=0)  # transformers' generate counts so too
    where = {"attention_mask": real.long()} | ({} if "opt" in variant else {"position_ids": positions})
    theirs = theirs_in(tmp_path)(tokens, **where).logits
    assert difference(model(tokens, segments=real.long())[real], theirs[real]) < 1e-5


def their_config(family: str) -> Any:
    """A config of theirs with small sizes and everything else left at its default."""
    common = {"vocab_size": 258, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
    return {
        "gpt2": lambda: transformers.GPT2Config(vocab_size=258, n_embd=24, n_layer=2, n_head=4),
        "opt": lambda: transformers.OPTConfig(**common, ffn_dim=40, word_embed_proj_dim=24),
        "llama": lambda: transformers.LlamaConfig(**common, intermediate_size=40),
        "bert": lambda: transformers.BertConfig(**common, intermediate_size=40),
    }[family]()


@pytest.mark.parametrize("short", [False, True], ids=["all keys", "without their defaults"])
@pytest.mark.parametrize("family", ["gpt2", "opt", "llama", "bert"])
@torch.inference_mode()
def test_a_folder_that_transformers_writes_gives_the_same_logits_here(
    family: str, short: bool, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    config = their_config(family)
    auto = transformers.AutoModelForMaskedLM if family == "bert" else transformers.AutoModelForCausalLM
    theirs = auto.from_config(config, attn_implementation="eager").eval()
    spread(theirs, 0.2)
    theirs.save_pretrained(tmp_path)
    tokenizer.save(tmp_path)
    if short:
        leave_out_defaults(tmp_path / "config.json", type(config))
    ours = checkpoint.load(tmp_path)
    tokens = tokens_of(258)
    assert difference(ours(tokens), theirs(tokens).logits) < 1e-5
    assert ours.config.context == config.max_position_embeddings
    for name in ("bos", "eos", "pad"):
        assert getattr(ours.config, name) == getattr(config, f"{name}_token_id")


def leave_out_defaults(path: Path, kind: type) -> None:
    """config.json as transformers 4 wrote it."""
    written, usual = json.loads(path.read_text()), json.loads(json.dumps(kind().to_dict(), default=str))  # type: ignore[attr-defined]
    kept = {k: v for k, v in written.items() if k in ("model_type", "architectures") or usual.get(k, ...) != v}
    assert len(kept) < len(written) / 2
    path.write_text(json.dumps(kept))


@pytest.mark.parametrize("family", ["gpt2", "opt", "llama", "bert"])
def test_every_key_that_config_json_leaves_out_means_what_transformers_means(family: str) -> None:
    theirs = {"gpt2": "GPT2Config", "opt": "OPTConfig", "llama": "LlamaConfig", "bert": "BertConfig"}[family]
    whole = getattr(transformers, theirs)().to_dict()
    assert from_hf_config({"model_type": family}).resolved() == from_hf_config(whole).resolved()


@pytest.mark.parametrize("variant", VARIANTS)
def test_export_and_import_give_every_bit_back(variant: str, tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = build(*VARIANTS[variant], tokenizer.vocab)
    checkpoint.save_model(tmp_path / "ours", model, tokenizer)
    theirs_in(tmp_path / "ours").save_pretrained(tmp_path / "theirs")
    tokenizer.save(tmp_path / "theirs")
    for folder in ("ours", "theirs"):
        again = checkpoint.load(tmp_path / folder)
        assert again.config.resolved() == model.config.resolved()
        assert again.state_dict().keys() == model.state_dict().keys()
        for name, tensor in model.state_dict().items():
            assert torch.equal(again.state_dict()[name], tensor), name


OLD_NAMES = {
    "gpt2": {"transformer.": ""},
    "opt": {"model.decoder.": "decoder."},
    "bert": {".LayerNorm.weight": ".LayerNorm.gamma", ".LayerNorm.bias": ".LayerNorm.beta"},
}


@pytest.mark.parametrize("family", OLD_NAMES)
def test_files_with_the_names_that_were_published_load_too(family: str, tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = build(family, {}, tokenizer.vocab)
    checkpoint.save_model(tmp_path, model, tokenizer)
    stored = tmp_path / "model.safetensors"
    tensors = load_file(stored)
    for new, old in OLD_NAMES[family].items():
        tensors = {name.replace(new, old): tensor for name, tensor in tensors.items()}
    assert tensors.keys() != load_file(stored).keys()
    save_file(tensors, stored)
    again = checkpoint.load(tmp_path).state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("variant", CAUSAL)
def test_greedy_generation_is_the_same_token_for_token(variant: str, tmp_path: Path, tokenizer: Tokenizer) -> None:
    family, changes = CAUSAL[variant]
    model = build(family, changes | {"eos": None}, tokenizer.vocab, scale=0.5)
    checkpoint.save_model(tmp_path, model, tokenizer)
    prompt = tokens_of(tokenizer.vocab, rows=1, width=8)
    pad = model.config.pad  # which ours never gives
    theirs = theirs_in(tmp_path).generate(prompt, max_new_tokens=30, do_sample=False, suppress_tokens=[pad])
    ours = list(stream_tokens(model, prompt[0].tolist(), 30, temperature=0))
    assert ours == theirs[0, 8:].tolist()
    assert len(ours) == 30
    assert len(set(ours)) > 5, "a text so monotonous that it proves little"


@pytest.mark.parametrize(
    ("family", "change", "told"),
    [
        ("gpt2", {"activation_function": "relu"}, "activation_function 'relu'"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx True"),
        ("opt", {"do_layer_norm_before": False}, "do_layer_norm_before False"),
        ("llama", {"attention_bias": True}, "attention_bias True"),
        ("llama", {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "'llama3'"),
        ("llama", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "'yarn'"),
        ("bert", {"is_decoder": True}, "is_decoder True"),
    ],
)
def test_a_folder_that_asks_for_a_part_we_do_not_have_is_refused(
    family: str, change: dict[str, Any], told: str
) -> None:
    spelled = to_hf_config(config_of(family, {}, 100))
    assert from_hf_config(spelled) is not None
    with pytest.raises(UserError, match=told):
        from_hf_config(spelled | change)


def test_rotary_angles_are_the_same_bit_for_bit_far_out() -> None:
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    config = transformers.LlamaConfig(hidden_size=256, num_attention_heads=4, rope_theta=500000.0)
    positions = torch.tensor([[0, 1, 777, 8191, 131071]])
    theirs = LlamaRotaryEmbedding(config)(torch.zeros(1), positions)
    for our, their in zip(rotary_angles(positions, 64, 500000.0), theirs, strict=True):
        assert torch.equal(our[:, 0], their)
