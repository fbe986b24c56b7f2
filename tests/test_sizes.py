"""docs/sizes.md is exact: every count agrees with transformers' own models, and the page with the code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from hornbook import models
from hornbook.formats.huggingface import to_hf_config
from hornbook.inspection.configs import find_config
from hornbook.inspection.sizes import COMMAND, section, sizes_page, write

transformers = pytest.importorskip("transformers")

PAGE = Path(__file__).parent.parent / "docs" / "sizes.md"


def gpt2(width: int, layers: int, heads: int) -> Any:
    return transformers.GPT2Config(n_embd=width, n_layer=layers, n_head=heads)


def opt(width: int, layers: int, heads: int, **rest: Any) -> Any:
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads, "ffn_dim": 4 * width}
    return transformers.OPTConfig(**{"word_embed_proj_dim": width} | sizes | rest)


def llama(width: int, layers: int, heads: int, kv_heads: int, mlp: int, vocab: int, tied: bool = False) -> Any:
    return transformers.LlamaConfig(
        vocab_size=vocab,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        intermediate_size=mlp,
        tie_word_embeddings=tied,
    )


def bert(width: int, layers: int, heads: int) -> Any:
    return transformers.BertConfig(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=4 * width
    )


PUBLISHED = {  # the config.json of each, as its authors published it, and the count of its weights
    "gpt2": (lambda: gpt2(768, 12, 12), 124_439_808),
    "gpt2-medium": (lambda: gpt2(1024, 24, 16), 354_823_168),
    "gpt2-large": (lambda: gpt2(1280, 36, 20), 774_030_080),
    "gpt2-xl": (lambda: gpt2(1600, 48, 25), 1_557_611_200),
    "opt-125m": (lambda: opt(768, 12, 12), 125_239_296),
    "opt-350m": (lambda: opt(1024, 24, 16, word_embed_proj_dim=512, do_layer_norm_before=False), 331_196_416),
    "opt-1.3b": (lambda: opt(2048, 24, 32), 1_315_758_080),
    "opt-2.7b": (lambda: opt(2560, 32, 32), 2_651_596_800),
    "opt-6.7b": (lambda: opt(4096, 32, 32), 6_658_473_984),
    "opt-13b": (lambda: opt(5120, 40, 40), 12_853_473_280),
    "opt-30b": (lambda: opt(7168, 48, 56), 29_974_540_288),
    "opt-66b": (lambda: opt(9216, 64, 72), 65_719_701_504),
    "llama-2-7b": (lambda: llama(4096, 32, 32, 32, 11008, 32000), 6_738_415_616),
    "llama-2-13b": (lambda: llama(5120, 40, 40, 40, 13824, 32000), 13_015_864_320),
    "llama-2-70b": (lambda: llama(8192, 80, 64, 8, 28672, 32000), 68_976_648_192),
    "llama-3-8b": (lambda: llama(4096, 32, 32, 8, 14336, 128256), 8_030_261_248),
    "llama-3-70b": (lambda: llama(8192, 80, 64, 8, 28672, 128256), 70_553_706_496),
    "llama-3.1-8b": (lambda: llama(4096, 32, 32, 8, 14336, 128256), 8_030_261_248),
    "llama-3.2-1b": (lambda: llama(2048, 16, 32, 8, 8192, 128256, True), 1_235_814_400),
    "llama-3.2-3b": (lambda: llama(3072, 28, 24, 8, 8192, 128256, True), 3_212_749_824),
    "tinyllama-1.1b": (lambda: llama(2048, 22, 32, 4, 5632, 32000), 1_100_048_384),
    "smollm2-135m": (lambda: llama(576, 30, 9, 3, 1536, 49152, True), 134_515_008),
    "smollm2-360m": (lambda: llama(960, 32, 15, 5, 2560, 49152, True), 361_821_120),
    "smollm2-1.7b": (lambda: llama(2048, 24, 32, 32, 8192, 49152, True), 1_711_376_384),
    "bert-base": (lambda: bert(768, 12, 12), 109_514_298),
    "bert-large": (lambda: bert(1024, 24, 16), 335_174_458),
}

KNOWN_COUNTS = {  # as their model cards or files have them
    "mistral-7b": 7_241_732_096,
    "mistral-7b-0.3": 7_248_023_552,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-7b": 7_615_616_512,
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
    "gemma-2b": 2_506_172_416,
    "gemma-7b": 8_537_680_896,
    "pythia-14m": 14_067_712,
    "pythia-70m": 70_426_624,
    "pythia-160m": 162_322_944,
    "pythia-410m": 405_334_016,
    "pythia-1b": 1_011_781_632,
    "pythia-1.4b": 1_414_647_808,
    "pythia-2.8b": 2_775_208_960,
    "pythia-6.9b": 6_857_302_016,
    "pythia-12b": 11_846_072_320,
    "gpt-neox-20b": 20_554_567_680,
    "smollm3-3b": 3_075_098_624,
}


def count(config: Any) -> int:
    """Parameters of transformers' own model, built without memory."""
    masked = config.model_type == "bert"
    auto = transformers.AutoModelForMaskedLM if masked else transformers.AutoModelForCausalLM
    with torch.device("meta"):
        return sum(p.numel() for p in auto.from_config(config).parameters())


@pytest.fixture(scope="module")
def page() -> str:
    return sizes_page()


def counts(page: str) -> dict[str, int]:
    """Name -> parameters, as a page states them."""
    rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| ")]
    found: dict[str, int] = {}
    for row in rows:
        if row[0] == "size":
            place = row.index("parameters")
        elif not row[0].startswith("-"):
            found[row[0]] = int(row[place].replace(",", ""))
    return found


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes_have_the_counts_of_their_published_configs(name: str, page: str) -> None:
    config, number = PUBLISHED[name]
    assert counts(page)[name] == number
    assert count(config()) == number


def test_other_published_sizes_have_the_counts_of_their_model_cards(page: str) -> None:
    stated = counts(page)
    assert {name: stated.get(name) for name in KNOWN_COUNTS} == KNOWN_COUNTS


def test_every_size_has_as_many_parameters_as_transformers_model_of_its_config(page: str) -> None:
    known = transformers.models.auto.configuration_auto.CONFIG_MAPPING_NAMES
    for name, number in counts(page).items():
        spelled = to_hf_config(find_config(name))
        if spelled["model_type"] in known:  # the others are only ours
            assert count(transformers.CONFIG_MAPPING[spelled["model_type"]](**spelled)) == number, name


def test_the_page_in_docs_is_what_the_code_gives(page: str) -> None:
    same = PAGE.exists() and PAGE.read_text(encoding="utf-8") == page
    assert same, f"docs/sizes.md is not up to date: write it anew with `{COMMAND}`"


def test_the_page_has_every_size(page: str) -> None:
    assert counts(page).keys() == models.sizes().keys()
    assert "| 124,439,808 | 117M |" in page


def test_a_new_size_is_on_the_page_by_being_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(models.family("gpt2").SIZES, "gpt2-nano", models.find_size("gpt2-tiny").replace(layers=1))
    assert "| `gpt2-nano` | 1 |" in "\n".join(section("gpt2"))


def test_the_command_writes_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hornbook.inspection.sizes.sizes_page", lambda: "a page\n")
    write(str(tmp_path / "docs" / "sizes.md"))
    assert (tmp_path / "docs" / "sizes.md").read_text() == "a page\n"
