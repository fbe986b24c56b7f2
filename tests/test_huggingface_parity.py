"""Our Transformers are Hugging Face's: same logits, same files, in both directions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hornbook import checkpoint, models
from hornbook.config import RopeScaling, TransformerConfig
from hornbook.errors import UserError
from hornbook.formats.huggingface import COMMON, from_hf_config, names, to_hf_config
from hornbook.generation.stream import stream_tokens
from hornbook.layers.model import LanguageModel
from hornbook.layers.norms import make_norm
from hornbook.layers.positions import rotary_angles
from hornbook.layers.transformer import Transformer
from hornbook.text.tokenizer_training import train_tokenizer
from hornbook.text.tokenizers import Tokenizer

transformers = pytest.importorskip("transformers")

SIZE: dict[str, Any] = {"dim": 32, "layers": 3, "heads": 4, "mlp": 40, "embedding_dim": 0}
ODD: dict[str, list[Any]] = {
    "mlp": [0],
    "kv_heads": [1, 2],
    "head_dim": [10],
    "tied": [True, False],
    "norm_eps": [1e-2],
    "rope_theta": [5e5],
    "rotary_share": [0.5, 1.0],
    "parallel": [False],
    "pre_norm": [False],
    "embedding_dim": [16],
    "window": [None, 9],
    "qkv_bias": [True, False],
    "mlp_bias": [True, False],
}
"""What is tried of each field that a family's CONFIG table can spell."""
STRETCHED = [RopeScaling("linear", 4.0), RopeScaling("llama3", 8.0, low=1.0, high=4.0, original=16)]
FAMILIES = [
    name
    for name in models.families()
    if issubclass(models.family(name).Model, Transformer)
    and not models.family(name).HF["model_type"].startswith("hornbook_")
]


def variants() -> dict[str, tuple[str, dict[str, Any]]]:
    """Every family as it is, and with every value of ODD that its table can spell."""
    small = {"pre_norm": False, "embedding_dim": 16}
    found: dict[str, tuple[str, dict[str, Any]]] = {
        "opt-350m": ("opt", small),
        "opt-350m untied": ("opt", small | {"tied": False}),
        "bert headless": ("bert", {"masked_head": False}),
    }
    for name in FAMILIES:
        found[name] = (name, {})
        for ours in map(names, models.family(name).CONFIG.values()):
            for value in ODD.get(ours[0], []):
                found[f"{name} {ours[0]}={value}"] = (name, dict.fromkeys(ours, value))
        if config_of(name, {}, 100).positions == "rotary":
            found |= {f"{name} {scaling.kind}": (name, {"rope_scaling": scaling}) for scaling in STRETCHED}
    return found


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer("bytes", [])


def config_of(family: str, changes: dict[str, Any], vocab: int) -> TransformerConfig:
    """The tiny size of a family, with its own parts."""
    tiny = next(iter(models.family(family).SIZES.values()))
    assert isinstance(tiny, TransformerConfig)
    return tiny.replace(
        **(SIZE | {"kv_heads": 0, "head_dim": 0, "context": 48, "bos": 1, "eos": 2, "pad": 3} | changes),
        vocab=vocab,
        unrotated=(1,) if tiny.unrotated else (),
    )


VARIANTS = variants()
GIVING = {name: variant for name, variant in VARIANTS.items() if name != "bert headless"}
CAUSAL = {name: variant for name, variant in GIVING.items() if variant[0] != "bert"}
FEW = [name for name in GIVING if name in (*FAMILIES, "opt-350m") or "window" in name or "kv_heads=2" in name]


def spread(model: torch.nn.Module, scale: float) -> None:
    """Weights so large, norms and biases so uneven, that every one of them shows in the logits."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            noise = torch.randn(p.shape, generator=generator)
            if p.ndim == 1:
                p.add_(0.3 * noise)  # around the 0 or 1 that it starts at
            else:
                p.copy_(noise * scale)


def build(family: str, changes: dict[str, Any], vocab: int, scale: float = 0.15) -> LanguageModel:
    model = models.build(config_of(family, changes, vocab)).eval()
    spread(model, scale)
    return model


def theirs_in(folder: Path) -> Any:
    """What transformers makes of a folder; fails when it misses, or has no place for, any tensor."""
    kind = json.loads((folder / "config.json").read_text())["architectures"][0]
    auto = transformers.AutoModelForMaskedLM if "MaskedLM" in kind else transformers.AutoModelForCausalLM
    headless = kind == "BertModel"
    model, info = (transformers.BertModel if headless else auto).from_pretrained(
        folder,
        attn_implementation="eager",
        dtype=torch.float32,
        output_loading_info=True,
        **({"add_pooling_layer": False} if headless else {}),
    )
    assert not any(info.values()), info
    return model.eval()


def tokens_of(vocab: int, rows: int = 3, width: int = 32) -> Tensor:
    return torch.randint(4, vocab, (rows, width), generator=torch.Generator().manual_seed(1))


def difference(ours: Tensor, theirs: Tensor) -> float:
    assert float(theirs.std()) > 0.3, "logits so small that they prove little"
    return float((ours - theirs).abs().max())


@pytest.mark.parametrize("variant", GIVING)
@torch.inference_mode()
def test_a_folder_that_we_write_gives_the_same_logits_and_layers_in_transformers(
    variant: str, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    model = build(*VARIANTS[variant], tokenizer.vocab)
    checkpoint.save_model(tmp_path, model, tokenizer)
    tokens, layers = tokens_of(tokenizer.vocab), []
    for block in model.blocks:  # type: ignore[union-attr]
        block.register_forward_hook(lambda block, given, x: layers.append(x))
    theirs = theirs_in(tmp_path)(tokens, output_hidden_states=True)
    assert difference(model(tokens), theirs.logits) < 1e-5
    for ours, hidden in zip(layers[:-1], theirs.hidden_states[1:-1], strict=True):
        assert float((ours - hidden).abs().max()) < 1e-5


@torch.inference_mode()
def test_a_sentence_encoder_gives_the_hidden_states_of_bert(tmp_path: Path, tokenizer: Tokenizer) -> None:
    torch.manual_seed(0)
    theirs = transformers.BertModel(their_config("bert"))
    spread(theirs, 0.15)
    theirs.eval().save_pretrained(tmp_path)
    tokenizer.save(tmp_path)
    ours, tokens = checkpoint.load(tmp_path), tokens_of(258)
    assert difference(ours.hidden(tokens), theirs(tokens).last_hidden_state) < 1e-5
    with pytest.raises(UserError, match="without a masked-token head"):
        ours(tokens)


@pytest.mark.parametrize("variant", FEW)
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


def their_class(family: str) -> Any:
    """transformers' config class of a family."""
    return type(transformers.AutoConfig.for_model(models.family(family).HF["model_type"]))


def their_config(family: str) -> Any:
    """A config of theirs with small sizes and everything else left at its default."""
    sizes = {
        "vocab": 258,
        "dim": 32,
        "layers": 2,
        "heads": 4,
        "kv_heads": 4,
        "mlp": 40,
        "embedding_dim": 32,
        "head_dim": 8,
        "pad": 3,
    }
    table = COMMON | models.family(family).CONFIG
    return their_class(family)(**{key: sizes[ours] for key, ours in table.items() if ours in sizes})


@pytest.mark.parametrize("short", [False, True], ids=["all keys", "without their defaults"])
@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_a_folder_that_transformers_writes_gives_the_same_logits_here(
    family: str, short: bool, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    config = their_config(family)
    auto = transformers.AutoModelForMaskedLM if family == "bert" else transformers.AutoModelForCausalLM
    theirs = auto.from_config(config, attn_implementation="eager").eval()
    spread(theirs, 0.15)
    theirs.save_pretrained(tmp_path)
    tokenizer.save(tmp_path)
    if short:
        leave_out_defaults(tmp_path / "config.json", type(config))
    ours = checkpoint.load(tmp_path)
    tokens = tokens_of(258)
    assert difference(ours(tokens), theirs(tokens).logits) < 1e-5
    assert ours.config.context == config.max_position_embeddings
    for name in ("bos", "eos", "pad"):
        theirs_id = getattr(config, f"{name}_token_id")  # a default may lie beyond this small vocabulary
        assert getattr(ours.config, name) == (theirs_id if (theirs_id or 0) < 258 else None)


def leave_out_defaults(path: Path, kind: type) -> None:
    """config.json as transformers 4 wrote it."""
    written, usual = json.loads(path.read_text()), json.loads(json.dumps(kind().to_dict(), default=str))  # type: ignore[attr-defined]
    kept = {k: v for k, v in written.items() if k in ("model_type", "architectures") or usual.get(k, ...) != v}
    assert len(kept) < len(written) / 2
    path.write_text(json.dumps(kept))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_key_that_config_json_leaves_out_means_what_transformers_means(family: str) -> None:
    whole = their_class(family)().to_dict()
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


@pytest.mark.parametrize("variant", [name for name in FEW if name in CAUSAL])
def test_greedy_generation_is_the_same_token_for_token(variant: str, tmp_path: Path, tokenizer: Tokenizer) -> None:
    family, changes = VARIANTS[variant]
    model = build(family, changes | {"eos": None, "context": 64}, tokenizer.vocab, scale=0.5)
    checkpoint.save_model(tmp_path, model, tokenizer)
    prompt = tokens_of(tokenizer.vocab, rows=1, width=8)
    pad = model.config.pad  # which ours never gives
    theirs = theirs_in(tmp_path).generate(prompt, max_new_tokens=50, do_sample=False, suppress_tokens=[pad])
    ours = list(stream_tokens(model, prompt[0].tolist(), 50, temperature=0))
    assert ours == theirs[0, 8:].tolist()
    assert len(ours) == 50
    assert len(set(ours)) > 5, "a text so monotonous that it proves little"


@pytest.mark.parametrize(
    ("family", "change", "told"),
    [
        ("gpt2", {"activation_function": "relu"}, "activation_function 'relu'"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx True"),
        ("opt", {"_remove_final_layer_norm": True}, "_remove_final_layer_norm True"),
        ("qwen2", {"use_sliding_window": True}, "use_sliding_window True"),
        ("gemma", {"hidden_act": "relu"}, "hidden_act 'relu'"),
        ("llama", {"rope_scaling": {"type": "dynamic", "factor": 8.0}}, "'dynamic'"),
        ("llama", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "'yarn'"),
        ("llama", {"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "different layers"),
        ("gemma", {"use_bidirectional_attention": True}, "use_bidirectional_attention True"),
        ("llama", {"is_causal": False}, "both sides"),
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


def test_gemmas_norm_and_scale_round_as_theirs_in_bfloat16() -> None:
    from transformers.models.gemma.modeling_gemma import GemmaModel, GemmaRMSNorm

    x = torch.randn(50, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    ours, theirs = make_norm("rms_plus_one", 64, 1e-6), GemmaRMSNorm(64, 1e-6)
    weight = 0.3 * torch.randn(64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for norm in (ours, theirs):
            norm.weight.copy_(weight)
    assert torch.equal(ours.bfloat16()(x), theirs.bfloat16()(x))
    config = their_config("gemma")
    config.hidden_size = 768  # its square root is no bfloat16
    embedded = GemmaModel(config).bfloat16().embed_tokens
    model = models.build(models.find_size("gemma-tiny").replace(dim=768, layers=1, vocab=258)).bfloat16()
    model.embedding.weight.data.copy_(embedded.weight)  # type: ignore[union-attr,operator]
    tokens = tokens_of(258)
    assert torch.equal(model.embed(tokens, tokens), embedded(tokens))  # type: ignore[operator]


def test_every_end_of_text_that_config_json_lists_stops_generation(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = build("llama", {}, tokenizer.vocab)
    checkpoint.save_model(tmp_path, model, tokenizer)
    prompt = tokens_of(tokenizer.vocab, rows=1, width=8)[0].tolist()
    told = list(stream_tokens(model, prompt, 6, temperature=0))
    spelled = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(spelled | {"eos_token_id": [2, told[3]]}))
    again = checkpoint.load(tmp_path)
    assert list(stream_tokens(again, prompt, 6, temperature=0)) == told[: told.index(told[3])]
    assert to_hf_config(again.config)["eos_token_id"] == [2, told[3]]


def test_rotary_angles_are_the_same_bit_for_bit_far_out() -> None:
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    positions = torch.tensor([[0, 1, 777, 8191, 131071]])
    for scaling in (None, RopeScaling("linear", 4.0), RopeScaling("llama3", 8.0), RopeScaling("llama3", 32.0)):
        size = models.find_size("llama-3.1-8b").replace(dim=256, heads=4, rope_scaling=scaling)
        config = transformers.LlamaConfig(**to_hf_config(size))
        theirs = LlamaRotaryEmbedding(config)(torch.zeros(1), positions)
        for our, their in zip(rotary_angles(positions, 64, 500000.0, scaling), theirs, strict=True):
            assert torch.equal(our[:, 0], their), scaling
