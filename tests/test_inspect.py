"""`hornbook inspect` says exactly what a model is made of, and takes no memory for it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn

import hornbook
from helpers import VOCAB, stream, tiny_config, tiny_model
from hornbook import models
from hornbook.checkpoint import save_model
from hornbook.cli import main
from hornbook.config import Inspect
from hornbook.errors import UserError
from hornbook.formats.huggingface import export_weights, to_hf_config
from hornbook.inspection.anatomy import Anatomy, dissect
from hornbook.inspection.grid import drawn
from hornbook.inspection.names import form, spans
from hornbook.inspection.page import shown
from hornbook.inspection.tree import leaves, parts_of
from hornbook.layers.class_head import give_class_head
from hornbook.text.tokenizer_training import train_tokenizer
from terminal import on_terminal

FAMILIES = models.families()


def tiny(family: str, **changes: object) -> Anatomy:
    model = tiny_model(family, **changes)
    return Anatomy(family, model, 16)


def printed(capfd: pytest.CaptureFixture[str], *words: str) -> str:
    main(["inspect", *words])
    return capfd.readouterr().out


def folder_of(config: Any, folder: Path) -> str:
    """A folder with a config.json and nothing else."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(to_hf_config(config)))
    return str(folder)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_number_of_a_model_is_in_one_row_of_its_tree(family: str) -> None:
    found = tiny(family)
    assert found.parameters == found.model.parameter_count()
    assert sum(part.parameters for part in found.parts if not part.depth) == found.parameters
    assert found.whole.bytes == sum(t.nbytes for t in found.model.state_dict().values())
    assert sum(part.parameters for part in found.kinds.values()) == found.parameters
    assert "other" not in found.kinds


@pytest.mark.parametrize("family", FAMILIES)
def test_the_formula_comes_out_at_the_number_of_parameters(family: str) -> None:
    found = tiny(family)
    assert found.formula.value == found.parameters
    for text in (found.formula.numbers, found.formula.sums):
        python = text.replace(",", "").replace(" x ", " * ").replace("^", "**")
        assert eval(python) == found.parameters  # arithmetic that this test's own model wrote


@pytest.mark.parametrize("family", FAMILIES)
def test_three_times_the_arithmetic_of_all_rows_is_that_of_training(family: str) -> None:
    found = tiny(family)
    assert 3 * sum(part.flops for part in leaves(found.parts)) == found.model.flops_per_token(16)


def test_looking_back_over_recurrent_states_costs_scores_and_mixing() -> None:
    model = tiny_model("rnn_attention")
    assert model.flops_per_token(16) == tiny_model("rnn").flops_per_token(16) + 6 * 2 * 32 * 32 + 6 * 16 * 32


def test_a_classifier_has_no_head_of_words_any_more() -> None:
    model = tiny_model("gpt2", tied=True)
    before = model.flops_per_token(16)
    give_class_head(model, ("a", "b"))
    assert model.flops_per_token(16) == before - 6 * VOCAB * 32 + 6 * 2 * 32
    assert not any(part.path == "output" for part in parts_of(model, 16))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_names_are_those_of_the_files_with_their_shapes(family: str) -> None:
    found = tiny(family)
    stored = {name: tuple(tensor.shape) for name, tensor in export_weights(found.model).items()}
    ours = {name: tuple(tensor.shape) for name, tensor in found.model.state_dict().items()}
    told: dict[str, tuple[int, ...]] = {}
    for name in found.names:
        if "tied" in name.marks:
            continue
        first, last = (name.layers.split("-") * 2)[:2] if name.layers else ("0", "0")
        for i in range(int(first), int(last) + 1):
            told[name.theirs.replace("{i}", str(i))] = name.their_shape
            for our, shape in zip(name.ours, name.our_shapes, strict=True):
                assert ours.pop(our.replace("{i}", str(i))) == shape
    assert told == stored
    assert not ours


def test_gpt2_is_taken_apart_as_it_is_known() -> None:
    found = hornbook.inspect("gpt2")
    assert found.parameters == 124_439_808
    assert found.formula.letters == "V D + T D + L (12 D^2 + 13 D) + 2 D"
    assert found.formula.numbers == "50,257 x 768 + 1,024 x 768 + 12 x (12 x 768^2 + 13 x 768) + 2 x 768"
    assert found.formula.sums == "38,597,376 + 786,432 + 85,054,464 + 1,536"
    assert {kind: part.parameters for kind, part in found.kinds.items()} == {
        "embeddings": 50257 * 768,
        "positions": 1024 * 768,
        "attention": 12 * (4 * 768**2 + 4 * 768),
        "MLP": 12 * (8 * 768**2 + 5 * 768),
        "norms": 12 * 4 * 768 + 2 * 768,
        "head": 0,
    }


@pytest.mark.parametrize(
    ("size", "letters"),
    [
        ("opt-1.3b", "V D + T D + 2 D + L (12 D^2 + 13 D) + 2 D"),
        ("llama-2-7b", "V D + L (4 D^2 + 3 D M + 2 D) + D + V D"),
        ("llama-3-8b", "V D + L (2 D^2 + 2 D G K + 3 D M + 2 D) + D + V D"),
        ("llama-tiny", "V D + L (2 D^2 + 2 D G K + 3 D M + 2 D) + D"),
        ("bert-base", "V D + T D + 6 D + L (12 D^2 + 13 D) + D^2 + D + V"),
        ("rnn", "V D + 8 D^2 + 8 D + V D"),
        ("trigram", "2 (V + 1) + 2 N2 + N3"),
    ],
)
def test_each_family_has_the_formula_that_one_derives_by_hand(size: str, letters: str) -> None:
    def terms(text: str) -> list[str]:
        return sorted(text.replace("2 V D", "V D + V D").split(" + "))

    assert terms(hornbook.inspect(size).formula.letters) == terms(letters)


def test_heads_of_their_own_width_are_spelt_out() -> None:
    config = tiny_config("llama").replace(dim=32, heads=4, kv_heads=2, head_dim=12, mlp=48, layers=3)
    letters = Anatomy("x", models.build(config), 8).formula.letters
    assert "L (2 D H K + 2 D G K + 3 D M + 2 D)" in letters


def test_equal_layers_are_one_row_and_unequal_ones_are_not() -> None:
    model = models.build(tiny_config("gpt2", layers=5))
    assert [part.path for part in parts_of(model, 8) if part.module == "Block"] == ["blocks.0-4"]
    assert isinstance(model.blocks, nn.ModuleList)
    model.blocks[2].mlp.up = nn.Linear(32, 60)  # type: ignore[union-attr]
    rows = [part for part in parts_of(model, 8) if part.module == "Block"]
    assert [part.path for part in rows] == ["blocks.0-1", "blocks.2", "blocks.3-4"]
    assert sum(part.parameters for part in rows) == sum(p.numel() for p in model.blocks.parameters())


def test_a_tied_head_is_counted_once_and_marked() -> None:
    tied, untied = tiny("llama", tied=True), tiny("llama", tied=False)
    assert untied.parameters - tied.parameters == 40 * 32
    (head,) = (part for part in tied.parts if part.kind == "head")
    assert (head.tied_to, head.parameters, head.bytes, head.flops) == ("embedding", 0, 0, 2 * 40 * 32)
    assert not any(part.tied_to for part in untied.parts)


def test_a_tensor_that_two_modules_share_is_counted_once_and_marked() -> None:
    model = tiny_model("llama", tied=False)
    model.output.weight = model.embedding.weight  # type: ignore[union-attr]
    (head,) = (part for part in parts_of(model, 8) if part.kind == "head")
    assert (head.tied_to, head.parameters) == ("embedding", 0)


def test_the_largest_model_is_built_without_any_memory() -> None:
    found = hornbook.inspect("opt-66b")
    assert all(tensor.is_meta for tensor in found.model.state_dict().values())
    assert found.parameters == found.model.parameter_count() > 65e9
    assert [part.path for part in found.parts if part.module == "Block"] == ["blocks.0-63"]


def test_inspecting_leaves_the_random_numbers_alone() -> None:
    state = torch.get_rng_state()
    str(hornbook.inspect("gpt2-tiny"))
    assert torch.equal(state, torch.get_rng_state())


def test_a_folder_needs_nothing_but_its_config(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = folder_of(models.find_size("gpt2-medium"), tmp_path / "theirs")
    told = json.loads(printed(capfd, folder, "--layers", "--json"))
    assert told["parameters"] == 354_823_168
    assert told["paper"]["states"] == "345M"


def test_a_counted_run_shows_what_was_counted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tokenizer = train_tokenizer("bytes", [])
    model = models.build(tiny_config("ngram", vocab=tokenizer.vocab))
    model.fit(stream())
    save_model(tmp_path, model, tokenizer)
    told = json.loads(printed(capfd, str(tmp_path), "--json"))
    entries = told["config"]["entries"]
    assert min(entries) > 100
    assert told["parameters"] == 2 * entries[0] + 2 * entries[1] + entries[2]
    assert {part["path"]: part["shapes"] for part in told["parts"]}["keys_3"] == [[entries[2]]]
    assert told["kinds"]["keys"] == {"parameters": 0, "share": 0, "bytes": 8 * sum(entries[1:]), "flops": 0}
    assert "grow with the text" not in printed(capfd, str(tmp_path))
    assert "grow with the text" in printed(capfd, "trigram")


@pytest.mark.parametrize(
    ("size", "stated", "exact"),
    [
        ("gpt2", "117M", "124,439,808"),
        ("gpt2-medium", "345M", "354,823,168"),
        ("gpt2-large", "762M", "774,030,080"),
        ("gpt2-xl", "1542M", "1,557,611,200"),
    ],
)
def test_the_paper_s_sizes_stand_beside_the_exact_ones_and_come_of_gpt1_s_vocabulary(
    size: str, stated: str, exact: str, capfd: pytest.CaptureFixture[str]
) -> None:
    for flag in ("--names", "--layers"):
        assert f"The paper states {stated}; exact are {exact}." in printed(capfd, size, flag)
    other = hornbook.inspect(size, vocab=40478)
    assert f"{other.parameters / 1e6:.0f}M" == stated
    assert other.paper == ("", "")


def test_names_of_gpt2_say_what_is_fused_transposed_and_tied() -> None:
    names = {name.theirs.removeprefix("transformer."): name for name in hornbook.inspect("gpt2").names}
    fused = names["h.{i}.attn.c_attn.weight"]
    assert (fused.their_shape, fused.layers, fused.marks) == ((768, 2304), "0-11", ("fused", "transposed"))
    assert [name.rsplit(".", 2)[1] for name in fused.ours] == ["query", "key", "value"]
    assert names["h.{i}.attn.c_attn.bias"].marks == ("fused",)
    assert names["h.{i}.attn.c_proj.weight"].marks == ("transposed",)  # though it is square
    assert names["h.{i}.mlp.c_fc.weight"].their_shape == (768, 3072)
    assert names["wte.weight"].marks == names["h.{i}.ln_1.weight"].marks == ()
    head = names["lm_head.weight"]
    assert (head.their_shape, head.ours, head.marks) == ((50257, 768), ("embedding.weight",), ("tied",))


def test_the_legend_explains_every_abbreviation_of_gpt2() -> None:
    found = hornbook.inspect("gpt2-tiny")
    pieces = {piece for name in found.names for piece in name.theirs.split(".")}
    explained = {short for entry in found.legend for short in entry.split(", ")}
    assert pieces - {"transformer", "{i}", "weight", "bias"} <= explained


@pytest.mark.parametrize("family", [f for f in FAMILIES if not hasattr(models.family(f), "on_import")])
def test_a_family_that_stores_as_we_do_has_nothing_transposed(family: str) -> None:
    assert not {mark for name in tiny(family).names for mark in name.marks} & {"transposed", "reordered", "changed"}


def test_a_stored_form_is_told_by_its_numbers() -> None:
    ours = torch.arange(9.0).view(3, 3)
    assert form(ours, ours.clone()) == ()
    assert form(ours, ours.T) == ("transposed",)
    assert form(ours, ours[[1, 0, 2]]) == ("reordered",)
    assert form(ours, ours + 1) == ("changed",)


def test_numbers_of_layers_are_folded_into_spans() -> None:
    assert spans([0, 1, 2, 3]) == "0-3"
    assert spans([0, 2, 3, 7]) == "0, 2-3, 7"
    assert spans([]) == ""


def test_a_size_without_a_vocabulary_gets_one_and_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    assert "takes the vocabulary of its tokeniser; here that has 4,096 ids" in printed(capfd, "gpt2-tiny")
    assert hornbook.inspect("gpt2-tiny", vocab=5000).parameters - hornbook.inspect("gpt2-tiny").parameters == 904 * 256


def test_a_longer_row_costs_only_attention_more() -> None:
    short, long = (hornbook.inspect("gpt2", context=context) for context in (512, 1024))
    gap = {kind: part.flops - short.kinds[kind].flops for kind, part in long.kinds.items()}
    assert {kind for kind, more in gap.items() if more} == {"attention"}
    assert gap["attention"] == 12 * 2 * 512 * 768  # a layer: 4 T D for scores and mixing, half of it masked


@pytest.mark.parametrize("flag", ["--layers", "--names"])
def test_what_goes_into_a_pipe_is_whole(flag: str) -> None:
    command = [sys.executable, "-m", "hornbook", "inspect", "gpt2", flag]
    environment = {**os.environ, "COLUMNS": "40"}
    out = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    assert "\u2026" not in out
    assert "\x1b" not in out
    assert max(map(len, out.splitlines())) > 80
    words = ["blocks.0-11", "124,439,808"] if flag == "--layers" else ["transformer.h.{i}.attn.c_attn.weight", "0-11"]
    assert all(word in out for word in words)
    assert not any(line.endswith(" ") for line in out.splitlines())


def test_a_narrow_terminal_cuts_nothing() -> None:
    console = Console(width=60, force_terminal=True, color_system=None)
    with console.capture() as capture:
        for block in shown(hornbook.inspect("gpt2")):
            console.print(drawn(block, console.width))
    assert "\u2026" not in capture.get()
    squeezed = re.sub(r"\s", "", capture.get())
    assert "124,439,808" in squeezed
    assert squeezed.count("12 x 768^2".replace(" ", "")) == 1


def test_a_terminal_of_usual_width_breaks_no_name() -> None:
    out = re.sub(r"\x1b\[[0-9;]*m", "", on_terminal("inspect", "gpt2", "--names", columns=120))
    assert max(map(len, out.splitlines())) <= 120
    found = hornbook.inspect("gpt2")
    words = {word for name in found.names for word in (name.theirs, *name.ours)}
    assert words <= set(out.split())


def test_json_holds_layers_names_or_both(capfd: pytest.CaptureFixture[str]) -> None:
    both = json.loads(printed(capfd, "opt-tiny", "--layers", "--names", "--json"))
    assert {"parts", "kinds", "formula", "names", "legend"} <= set(both)
    assert "parts" not in json.loads(printed(capfd, "opt-tiny", "--names", "--json"))
    assert "names" not in json.loads(printed(capfd, "opt-tiny", "--json"))
    assert both["formula"]["value"] == both["parameters"]


def test_what_cannot_be_inspected_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = folder_of(models.find_size("gpt2"), tmp_path / "theirs")
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    for source, vocab, told in (
        ("gpt-2", None, "Did you mean 'gpt2'?"),
        ("runs/none", None, "no run or model folder 'runs/none'"),
        (str(tmp_path), None, "config.json"),
        (str(tmp_path / "model.gguf"), None, "hornbook import"),
        (folder, 100, "--vocab"),
    ):
        with pytest.raises(UserError, match=re.escape(told)):
            dissect(Inspect(source, vocab=vocab))
    with pytest.raises(UserError, match="above 0"):
        Inspect("gpt2", vocab=0)


@pytest.mark.parametrize("sizes", [{"hidden_size": 10**9}, {"num_attention_heads": 10**9, "head_dim": 10**9}])
def test_sizes_that_no_model_can_have_are_refused_in_one_line(sizes: dict[str, int], tmp_path: Path) -> None:
    folder = Path(folder_of(models.find_size("llama-3-8b"), tmp_path / "theirs"))
    spelled = json.loads((folder / "config.json").read_text()) | sizes | {"intermediate_size": 10**9, "head_dim": 10**9}
    (folder / "config.json").write_text(json.dumps(spelled))
    with pytest.raises(UserError, match="describes a model that cannot be") as error:
        dissect(Inspect(str(folder)))
    assert "\n" not in str(error.value)


def test_printing_it_shows_layers_and_names() -> None:
    text = str(hornbook.inspect("llama-3-8b"))
    for words in ("llama-3-8b: Llama", "blocks.0-31", "32 x Block", "8,030,261,248", "model.layers.{i}.mlp"):
        assert words in text
