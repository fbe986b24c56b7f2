"""The walk is the model: its steps, made anew one after the other, give the model's logits, for every family."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import hornbook
from helpers import VOCAB, stream, tiny_model
from hornbook.adapt.lora import adapt
from hornbook.adapt.quantization import quantize
from hornbook.checkpoint import save_model
from hornbook.cli import main
from hornbook.config import Adapter, Inspect, Quantization
from hornbook.errors import UserError
from hornbook.inspection.activations import record
from hornbook.inspection.arithmetic import using_kernel
from hornbook.inspection.backoff import Counted
from hornbook.inspection.grid import drawn, html, plain
from hornbook.inspection.walk import walk
from hornbook.inspection.walk_page import as_json, shown
from hornbook.layers.attention import materialised
from hornbook.layers.class_head import give_class_head
from hornbook.layers.model import LanguageModel
from hornbook.text.corpora import open_corpus
from hornbook.text.tokenizer_training import train_tokenizer
from test_activations import CHANGES, SOURCED, made, passed, source, tokens

ALL: dict[str, tuple[str, dict[str, Any]]] = CHANGES | {
    "norm and scale of embeddings": ("gpt2", {"embedding_norm": True, "embedding_scale": True}),
    "parallel, learned": ("gpt_neox", {"positions": "learned"}),
    "rnn of three layers": ("rnn", {"layers": 3, "tied": True}),
    "4-gram, add-one": ("ngram", {"order": 4, "smoothing": "add-k"}),
    "unigram": ("ngram", {"order": 1}),
}
NEURAL = [name for name in CHANGES if CHANGES[name][0] != "ngram"]
DOCUMENTS = torch.tensor([[1] * 4 + [2] * 6 + [0] * 2])
CASES = [
    *(pytest.param(name, None, id=name) for name in ALL),
    *(pytest.param(name, source(), id=f"{name}, from a source") for name in SOURCED),
    *(pytest.param(name, DOCUMENTS, id=f"{name}, documents") for name in ("gpt2", "llama", "bert")),
]


def of(name: str) -> LanguageModel:
    return made(name) if name in CHANGES else tiny_model(ALL[name][0], **ALL[name][1])


def equals_the_model(model: LanguageModel, segments: torch.Tensor | None = None) -> None:
    x = tokens()
    found = walk(model, x[0], None if segments is None else segments[0])
    again = found.recomputed()
    for step in found.steps:
        assert torch.equal(again[step.name], step.value), step.name
    with using_kernel(model, materialised):
        assert torch.equal(again[found.steps[-1].name], passed(model, x, segments))
    fused = passed(model, x, segments)
    scale = max(1.0, float(fused.abs().max()))
    torch.testing.assert_close(again[found.steps[-1].name] / scale, fused / scale, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "segments"), CASES)
@torch.no_grad()
def test_the_steps_made_anew_are_the_model_bit_for_bit(name: str, segments: torch.Tensor | None) -> None:
    equals_the_model(of(name), segments)


@pytest.mark.parametrize("name", NEURAL)
@torch.no_grad()
def test_so_they_are_in_8_bits(name: str) -> None:
    model = made(name)
    quantize(model, Quantization("int8"))
    equals_the_model(model, source() if name in SOURCED else None)


@pytest.mark.parametrize("how", [Quantization("int8", 0, outliers=6.0), Quantization("int4"), Quantization("nf4", 64)])
@torch.no_grad()
def test_so_they_are_in_other_few_bits(how: Quantization) -> None:
    model = tiny_model("llama", dim=64, mlp=128)
    quantize(model, how)
    equals_the_model(model)


@torch.no_grad()
def test_so_they_are_with_an_adapter_on() -> None:
    model = adapt(tiny_model("opt"), Adapter(rank=4))
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    equals_the_model(model.eval())


@pytest.mark.parametrize("name", ALL)
@torch.no_grad()
def test_the_walk_leaves_out_no_name(name: str) -> None:
    model, x = of(name), tokens()
    found = set(record(model, x))
    if name in SOURCED:
        found.remove("hidden")
    assert found <= {step.name for step in walk(model, x[0]).steps}


@torch.no_grad()
def test_what_a_step_is_made_of_is_shown_before_it() -> None:
    """A step that reads anything else would not find it among the values so far."""
    found = walk(tiny_model("llama"), tokens()[0])
    values: dict[str, torch.Tensor] = {}
    for step in found.steps:
        values = {name: value.clone() for name, value in values.items()} | {step.name: step.recompute(values)}
    assert torch.equal(values["logits"], found["logits"].value)


@torch.no_grad()
def test_a_changed_step_changes_what_follows_from_it() -> None:
    found = walk(tiny_model("gpt2"), tokens()[0])
    values = found.recomputed()
    for step in found.steps[3:-1]:
        values[step.name] = values[step.name] + torch.randn(step.shape)
    assert not torch.allclose(found["logits"].recompute(values), found["logits"].value)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@torch.no_grad()
def test_the_gates_are_those_that_led_to_the_states(cell: str) -> None:
    values = walk(tiny_model("rnn", cell=cell), tokens()[0]).recomputed()
    at = {name.removeprefix("layers.1."): value for name, value in values.items() if name.startswith("layers.1.")}
    if cell == "lstm":
        states = at["output_gate"] * at["cell"].tanh()
    else:
        before = torch.cat([torch.zeros_like(at["state"][:, :1]), at["state"][:, :-1]], 1)
        states = (1 - at["update_gate"]) * at["candidate"] + at["update_gate"] * before
    torch.testing.assert_close(states, at["state"], rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("smoothing", "order"), [("kneser-ney", 3), ("kneser-ney", 5), ("add-k", 3), ("mle", 2), ("kneser-ney", 1)]
)
@torch.no_grad()
def test_the_ways_of_a_counted_model_multiply_out_to_its_probabilities(smoothing: str, order: int) -> None:
    model = tiny_model("ngram", smoothing=smoothing, order=order)
    ids = stream(30, seed=4).tolist()
    found = walk(model, ids)
    shares = model(torch.tensor([ids])).softmax(-1)[0]
    assert [way.token for way in found.ways[:-1]] == ids[1:]
    assert found.ways[-1].token == int(shares[-1].argmax())
    for way in found.ways:
        assert math.isclose(way.probability, float(shares[way.place - 1, way.token]), rel_tol=1e-4, abs_tol=1e-9)


def test_followers_are_the_different_tokens_that_were_counted() -> None:
    model = tiny_model("ngram", order=2)
    ids, counted = [5, 7, 9], stream().tolist()
    for way in walk(model, ids).ways:
        after = {b for a, b in itertools.pairwise(counted) if a == ids[way.place - 1]}
        assert way.way[0].followers == len(after)
        assert way.way[0].found == (way.token in after)


@pytest.mark.parametrize("smoothing", ["mle", "add-k"])
def test_counts_are_those_from_which_the_probabilities_follow(smoothing: str) -> None:
    model, text = tiny_model("ngram", order=3, smoothing=smoothing), stream()
    found = dataclasses.replace(walk(model, text[:25].tolist()), counted=Counted(text, model))
    for way in found.ways:
        last = way.way[0] if smoothing == "add-k" else way.way[-1]
        assert last.times is not None
        assert last.hits is not None
        share = (last.hits + 1) / (last.times + VOCAB) if smoothing == "add-k" else last.hits / last.times
        assert math.isclose(way.probability, share, rel_tol=1e-5)


def test_a_run_s_counts_come_from_the_tokens_that_it_was_trained_on(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("HORNBOOK_HOME", str(tmp_path / "home"))
    (tmp_path / "x.txt").write_text("the cat sat on the mat. the dog chased the cat. " * 50)
    out = str(tmp_path / "run")
    hornbook.train("bigram", data=str(tmp_path / "x.txt"), tokenizer="char", out=out)
    found = hornbook.inspect(out, text="at")
    assert found.ways[-2].piece == "t"
    text = "".join(open_corpus(str(tmp_path / "x.txt"), "text").documents("train"))
    assert (found.ways[-2].way[0].times, found.ways[-2].way[0].hits) == (text.count("a"), text.count("at"))
    assert "so followed" in str(found)


def test_figures_are_those_of_the_values() -> None:
    step = walk(tiny_model("gpt2"), tokens()[0])["blocks.0.mlp.up"]
    assert step.shape == (1, 12, 48)
    assert step.mean == pytest.approx(float(step.value.mean()))
    assert step.deviation == pytest.approx(float(step.value.std(correction=0)))
    assert step.norm == pytest.approx(float(step.value.square().sum().sqrt()))
    assert step.first(3) == step.value[0, 0, :3].tolist()


def test_a_narrow_terminal_is_told_once_what_each_step_is() -> None:
    found = walk(tiny_model("gpt2"), tokens()[0])
    tables = [block for block in shown(found, wide=False) if not isinstance(block, str)]
    steps, told = tables[1], dict(tables[2].rows)
    assert [row[0] for row in steps.rows] == [step.name for step in found.steps]
    assert "q k / sqrt(K)" in told["attention.scores"]
    assert set(told) == {re.sub(r"^blocks\.\d\.", "", step.name) for step in found.steps}


def test_equal_layers_are_folded_unless_all_or_one_is_asked_for() -> None:
    found = walk(tiny_model("gpt2", layers=6), tokens()[0])

    def steps(**how: Any) -> list[str]:
        return [row[0] for block in shown(found, **how) if not isinstance(block, str) for row in block.rows]

    folded = steps()
    assert "blocks 1 to 4" in folded
    assert {"blocks.0.mlp.up", "blocks.3.output", "blocks.5.mlp.up"} <= set(folded)
    assert "blocks.3.mlp.up" not in folded
    assert {step.name for step in found.steps} <= set(steps(everything=True))
    assert "blocks.3.mlp.up" in (one := steps(layer=3))
    assert not {"blocks.0.mlp.up", "blocks.4.output"} & set(one)
    with pytest.raises(UserError, match="no layer 6: this model has 0 to 5"):
        shown(found, layer=6)


@pytest.mark.parametrize("name", ALL)
def test_every_walk_can_be_shown_drawn_and_told(name: str) -> None:
    found = walk(of(name), tokens()[0])
    assert "tokens" in str(found)
    with Console(width=100, record=True, force_terminal=True, file=open("/dev/null", "w")) as console:
        for block in shown(found):
            console.print(drawn(block, console.width))
    told = json.loads(json.dumps(as_json(found), allow_nan=False))
    assert [step["name"] for step in told["steps"]] == [step.name for step in found.steps]
    best = told["predictions"][0]["likeliest"]
    assert all(0 <= each["probability"] <= 1 for each in best)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "x"
    tokenizer = train_tokenizer("bytes", [])
    model = tiny_model("llama", vocab=tokenizer.vocab, bos=tokenizer.bos, eos=tokenizer.eos, pad=tokenizer.pad)
    save_model(folder, model, tokenizer)
    return folder


def test_the_command_walks_through_a_text(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    main(["inspect", str(run), "A fox <b>"])
    told = capfd.readouterr().out
    for words in ("'x'", "blocks.0.attention.pattern", "1 x 4 x 10 x 10", "final_norm", "logits", "after '>'"):
        assert words in told
    main(["inspect", str(run), "A fox <b>", "--layer", "1", "--json", "--bits", "8"])
    told = json.loads(capfd.readouterr().out)
    assert {step["name"].split(".")[1] for step in told["steps"]} == {"1"}
    assert told["tokens"][1]["piece"] == "A"


def test_python_gives_the_walk_and_a_page_in_a_notebook(run: Path) -> None:
    found = hornbook.inspect(str(run), "A fox <b>")
    assert found.pieces[1:4] == ("A", " ", "f")
    page = found._repr_html_()
    assert "blocks.0.attention.pattern" in page
    assert "&lt;" in page
    assert "<b>" not in page
    assert "<table>" in hornbook.inspect("gpt2-tiny")._repr_html_()
    assert html(["a < b"]) == "<pre>a &lt; b</pre>"


def test_the_python_of_its_page_runs(run: Path, tmp_path: Path, monkeypatch: Any) -> None:
    page = (Path(__file__).parent.parent / "docs" / "inspect.md").read_text()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "x").symlink_to(run)
    for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(code, {})
    assert (tmp_path / "fox.safetensors").is_file()


def test_an_encoder_decoder_s_text_is_a_source(tmp_path: Path) -> None:
    tokenizer = train_tokenizer("bytes", [])
    model = tiny_model("transformer", vocab=tokenizer.vocab, bos=tokenizer.bos, eos=tokenizer.eos, pad=tokenizer.pad)
    model.tokenizer = tokenizer
    found = walk(model, "abc")
    assert found["segments"].value.tolist() == [[-1, -1, -1, 1]]
    assert found["blocks.0.cross_attention.pattern"].shape == (1, 4, 1, 3)
    assert found.recomputed()["logits"].equal(found["logits"].value)


def test_names_of_classes_from_a_folder_do_nothing_to_a_terminal() -> None:
    model = tiny_model("gpt2")
    give_class_head(model, ("good", "a\x1b[2J\nb"))
    found = walk(model, [3, 4, 5])
    told = plain(shown(found, wide=False))
    assert "\x1b" not in told
    assert "a\\x1b[2J\\nb" in told


def test_what_cannot_be_walked_through_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="a token at least"):
        walk(tiny_model("gpt2"), [])
    with pytest.raises(UserError, match="one document at a time"):
        walk(tiny_model("rnn"), [3, 4], torch.tensor([1, 2]))
    with pytest.raises(UserError, match="there is no layer 0: this model has none"):
        shown(walk(tiny_model("ngram"), [3, 4]), layer=0)
    with pytest.raises(UserError, match="is for the walk through a text"):
        Inspect("gpt2", layer=3)
    with pytest.raises(UserError, match="leave out the text"):
        Inspect("gpt2", "a", names=True)
