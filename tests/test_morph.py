"""`hornbook morph`: one change a stage, figures that are those of the runs, a page that says no more than they do."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers import VOCAB
from hornbook import machine, models, morphing
from hornbook.checkpoint import load, save_model
from hornbook.cli import main
from hornbook.config import Morph, Train
from hornbook.errors import UserError
from hornbook.models.morph import CHANGES, SIZES, recipes
from hornbook.morphing import morph, row, start
from hornbook.report.morph_chart import verdict
from hornbook.report.morph_page import morph_table, render_morph
from hornbook.scoring.intervals import student
from hornbook.text.tokenizer_training import train_tokenizer
from hornbook.training.interrupt import Interrupted
from test_report import Reader

WAY = [name for name, change in CHANGES.items() if not change.aside]


def parts(name: str, *without: str) -> dict[str, Any]:
    """The fields of a named size, all sizes written out, but for its family."""
    fields = dataclasses.asdict(models.find_size(name).resolved())
    return {key: value for key, value in fields.items() if key not in ("family", *without)}


def summary(bits: float, tokens: float = 1000.0, memory: float | None = 5e8) -> dict[str, Any]:
    figures = {"parameters": 4_273_664, "tokens": tokens, "tokens_per_second": tokens / 24, "peak_memory": memory}
    return {"validation": {"bits_per_byte": bits}, **figures}


# --- the stages


@pytest.mark.parametrize("name", CHANGES)
def test_a_stage_differs_from_the_one_it_begins_with_in_what_it_states_and_in_nothing_else(name: str) -> None:
    before, _ = start(name, CHANGES)
    if before is None:
        assert name == "gpt2"
        return
    one, other = parts(f"morph-{before}"), parts(f"morph-{name}")
    changed = {key: value for key, value in other.items() if value != one[key]}
    assert changed == CHANGES[name].fields
    old, new = recipes()[f"morph-{before}"], recipes()[f"morph-{name}"]
    assert {key: value for key, value in new.items() if value != old[key]} == CHANGES[name].recipe
    assert CHANGES[name].fields or CHANGES[name].recipe


def test_the_way_passes_the_rungs_that_it_is_named_after() -> None:
    assert parts("morph-gpt2") == parts("gpt2-tiny")
    assert parts("morph-relu", "position_offset") == parts("opt-tiny", "position_offset")
    assert parts("morph-grouped", "mlp") == parts("llama-tiny", "mlp")
    assert parts(f"morph-{WAY[-1]}") == parts("hornbook-tiny")
    assert recipes()[f"morph-{WAY[-1]}"] == models.family("hornbook").RECIPE


def test_the_gated_mlp_has_as_many_weights_as_the_plain_one() -> None:
    plain, gated = (SIZES[f"morph-{name}"].mlp * n for name, n in (("rotary", 2), ("gated", 3)))
    assert abs(gated / plain - 1) < 0.01


@pytest.mark.parametrize("name", CHANGES)
def test_every_stage_is_saved_whole_and_reads_in_pieces_as_at_once(name: str, tmp_path: Path) -> None:
    tokenizer = train_tokenizer("bytes", [])
    ends = {"vocab": tokenizer.vocab, "bos": tokenizer.bos, "eos": tokenizer.eos, "pad": tokenizer.pad}
    config = SIZES[f"morph-{name}"].replace(dim=32, layers=2, mlp=48, context=48, **ends)
    torch.manual_seed(0)
    model = models.build(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    save_model(tmp_path, model, tokenizer)
    again, x = load(tmp_path), torch.randint(3, VOCAB, (2, 20))
    assert again.config.resolved() == model.config.resolved()
    assert torch.equal(again(x), model(x))
    cache = model.make_cache(2, 24)
    found = torch.cat([model(part, cache) for part in x.split([7, 1, 12], dim=1)], 1)
    torch.testing.assert_close(found, model(x), rtol=0, atol=2e-5)


# --- the figures


def test_intervals_are_student_s() -> None:
    low, high = student([1.9, 2.0, 2.1]) or (0, 0)
    assert low == pytest.approx(2 - 4.303 * 0.1 / 3**0.5)
    assert high == pytest.approx(2 + 4.303 * 0.1 / 3**0.5)
    assert student([2.0]) is None
    many = [float(n % 2) for n in range(40)]
    low, high = student(many) or (0, 0)
    assert high - low > 2 * 2.02 * 0.506 / 40**0.5  # the quantile for 40 is 2.02: ours may be wider, never narrower


def test_a_change_is_taken_seed_by_seed() -> None:
    runs = {"gpt2": [summary(b) for b in (2.0, 2.1, 2.3)], "relu": [summary(b) for b in (1.9, 2.0, 2.1)]}
    found = row("relu", runs)
    assert found["bits_per_byte"] == pytest.approx(2.0)
    assert found["change"] == pytest.approx(-0.4 / 3)
    half = 4.303 * 0.057735 / 3**0.5  # differences of -0.1, -0.1 and -0.2 deviate by 0.0577
    assert found["change_interval"] == pytest.approx((-0.4 / 3 - half, -0.4 / 3 + half), abs=1e-5)
    assert row("gpt2", runs)["change"] is None


def test_a_stage_begins_with_the_last_one_on_the_way_and_tells_what_was_left_out() -> None:
    assert start("sinusoids", CHANGES) == ("gpt2", [])
    assert start("relu", CHANGES) == ("gpt2", [])
    assert start("muon", CHANGES) == ("grouped", [])
    assert start("rotary", ["gpt2", "post-norm", "rotary"]) == ("gpt2", ["relu", "rms-norm", "no-biases"])
    assert start("rotary", ["post-norm", "rotary"]) == (None, [])


def test_memory_that_is_not_the_run_s_own_is_not_told() -> None:
    runs = {"gpt2": [summary(2.0), summary(2.1, memory=None)]}
    assert row("gpt2", runs)["peak_memory"] is None
    assert morph_table({"stages": [row("gpt2", runs)]})[1][-1] == "–"


def test_the_peak_of_memory_begins_anew_for_each_run() -> None:
    machine.keep_freed_memory()
    block = torch.ones(75_000_000)  # 300 MB
    high = machine.peak_memory()
    del block
    if not machine.forget_peak(torch.device("cpu")):
        pytest.skip("this system keeps its peak")
    assert machine.peak_memory() < high - 200e6


# --- the page


def figures(seeds: int = 3, **more: Any) -> dict[str, Any]:
    """A small morph: ReLU gains, no biases is open, a head of its own costs."""
    bits = {
        "gpt2": [2.0, 2.1, 2.3],
        "post-norm": [9.0, 9.1, 9.3],
        "relu": [1.9, 2.001, 2.199],
        "no-biases": [1.95, 1.99, 2.18],
    }
    tokens = {"gpt2": 1000.0, "relu": 1200.0, "no-biases": 1150.0, "post-norm": 1005.0}
    runs = {name: [summary(b, tokens[name]) for b in found[:seeds]] for name, found in bits.items()}
    facts = {"data": "a text", "command": "hornbook morph --minutes 1", "seeds": [0, 1, 2][:seeds], "minutes": 1.0}
    return {"facts": facts | more, "stages": [row(name, runs) for name in bits]}


def said(found: dict[str, Any]) -> str:
    return " ".join(Reader(render_morph(found)).text.replace("\u00a0", " ").split())


def test_the_page_says_what_is_more_than_chance_and_what_is_not() -> None:
    found = figures()
    assert [verdict(stage) for stage in found["stages"]] == ["", "costs", "gains", "open"]
    text = said(found)
    assert "relu needs 0.100 bits per byte fewer than gpt2 (95 % interval −0.102 to −0.098)." in text
    assert "read 1,200 tokens in its time, 20 % more, which may be part of it." in text
    assert "no-biases cannot be told from relu: the 95 % interval of the difference" in text
    assert "The difference is also that of the changes between: rms-norm." in text
    assert "Nothing is built upon it." in text
    assert "of 2 changes on the way, 1 gained and 1 cannot be told from none." in text


def test_what_rounds_to_nothing_is_not_called_a_gain() -> None:
    runs = {"gpt2": [summary(b) for b in (2.0, 2.1)], "relu": [summary(b - 0.0002) for b in (2.0, 2.1)]}
    assert verdict(row("relu", runs)) == "open"


def test_one_seed_has_no_intervals_and_the_page_says_so() -> None:
    text = said(figures(1))
    assert "whether another would say the same is not known" in text
    assert "One seed cannot say which changes are more than chance." in text
    assert "% interval" not in text


def test_the_chart_has_every_stage_and_keeps_within_its_frame() -> None:
    html = render_morph(figures())
    reader = Reader(html)
    assert len(reader.all("svg")) == 2
    for svg, width in zip(reader.all("svg"), (772, 340), strict=True):
        assert svg["width"] == str(width)
    dots = reader.all("circle")
    assert [dot["class"] for dot in dots[:4]] == ["dot", "ring hollow", "dot", "dot"]
    assert all(0 < float(dot["cx"] or 0) < 772 for dot in dots)
    assert html.count("→") == 2  # post-norm is far off, on both drawings
    names = [a["id"] for _, a in reader.elements if "id" in a]
    assert len(names) == len(set(names))


def test_a_page_of_foreign_words_is_inert_and_refers_to_nothing() -> None:
    found = copy.deepcopy(figures(command="hornbook morph '<script>alert(1)</script>\u202e'", data="<b>x</b>"))
    for stage in found["stages"]:
        stage["words"] = '<img src="http://example.org/x">'
        stage["reaches"] = "<i>"
    html = render_morph(found)
    reader = Reader(html)
    assert not {"script", "img", "b", "i"} & {tag for tag, _ in reader.elements}
    assert "\u202e" not in html
    assert all(not attributes.get("href", "data:,").startswith("http") for _, attributes in reader.elements)
    assert render_morph(found) == html


def test_the_table_has_a_row_a_stage_and_marks_those_aside() -> None:
    head, *rows = morph_table(figures())
    assert head[:3] == ["Stage", "Bits per byte", "Change"]
    assert [cells[0].startswith("aside: ") for cells in rows] == [False, True, False, False]
    assert rows[2][0].endswith(": OPT")
    assert rows[2][2] == "−0.100 (−0.102 to −0.098)"
    assert rows[2][3:] == ["4.27 M", "1,200", "50", "0.500 GB"]


# --- the command


SMALL: dict[str, Any] = {"tokenizer": "bytes", "minutes": 0.004}


class Fake:
    """Trains nothing: remembers what was asked for, and is interrupted in the run of number `stop`."""

    stop = 0

    def __init__(self) -> None:
        self.asked: list[Train] = []

    def __call__(self, settings: Train) -> dict[str, Any]:
        self.asked.append(settings)
        if len(self.asked) == self.stop:
            raise Interrupted
        return summary(2.0 + settings.seed / 10 - ("relu" in settings.model) / 100)


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch) -> Fake:
    fake = Fake()
    monkeypatch.setattr(morphing, "train_alone", fake)
    return fake


def test_an_interrupted_morph_has_a_page_of_its_whole_seeds_and_carries_on(
    text_folder: Path, tmp_path: Path, faked: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["morph", str(text_folder), "--out", str(tmp_path / "m"), "--tokenizer", "bytes", "--seeds", "0", "1"]
    command += ["--stages", "relu", "gpt2"]
    faked.stop = 3
    with pytest.raises(SystemExit) as stop:
        main(command)
    assert stop.value.code == 130
    assert "the same command carries on" in capsys.readouterr().err
    order = [("morph-gpt2", 0), ("morph-relu", 0), ("morph-gpt2", 1)]
    assert [(settings.model, settings.seed) for settings in faked.asked] == order
    assert json.loads((tmp_path / "m" / "morph.json").read_text())["facts"]["seeds"] == [0]
    assert (tmp_path / "m" / "morph.html").exists()
    main(command)
    out = capsys.readouterr().out
    assert "−0.010" in out
    assert out.rstrip().endswith("morph.html")
    found = json.loads((tmp_path / "m" / "morph.json").read_text())
    assert found["facts"]["seeds"] == [0, 1]
    assert found["facts"]["command"].endswith("--seeds 0 1 --stages relu gpt2 --tokenizer bytes")
    assert [stage["name"] for stage in found["stages"]] == ["gpt2", "relu"]
    assert faked.asked[1].optimizer == "adamw"


def test_seeds_and_stages_may_be_added_and_nothing_else(text_folder: Path, tmp_path: Path, faked: Fake) -> None:
    asked: dict[str, Any] = {"data": str(text_folder), "out": str(tmp_path / "m"), **SMALL}
    morph(Morph(**asked, seeds=(0,), stages=("gpt2", "relu")))
    found = morph(Morph(**asked, seeds=(1, 0), stages=("gpt2", "relu", "rotary")))
    assert [stage["name"] for stage in found["stages"]] == ["gpt2", "relu", "rotary"]
    assert len(faked.asked) == 2 + 6
    with pytest.raises(UserError, match=r"minutes was 0\.004 and is now 1"):
        morph(Morph(**asked | {"minutes": 1.0}))


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("--stages rotray", "unknown stage 'rotray'. Did you mean 'rotary'?"),
        ("--seeds 0 0", "has one twice"),
        ("--seeds -1", "numbers from 0 on"),
        ("--minutes 0", "above 0"),
        ("--device tpu", "Possible: cpu"),
        ("--vocab 999999", "999"),
        ("--tokenizer word", "does not restore"),
    ],
)
def test_what_cannot_be_finished_is_not_begun(
    flags: str, told: str, text_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["morph", str(text_folder), "--out", str(tmp_path / "m"), *flags.split()])
    assert stop.value.code == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_folder_of_something_else_is_left_alone(kind: str, text_folder: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    if kind == "folder":
        mine.mkdir()
    (mine / "thesis.txt" if kind == "folder" else mine).write_text("precious")
    with pytest.raises(UserError, match="something else"):
        morph(Morph(str(text_folder), out=str(mine), **SMALL))


def test_two_stages_and_two_seeds_are_trained_once(
    text_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("gpt2", "rms-norm"):
        small = {"dim": 32, "heads": 2, "layers": 1, "mlp": 64, "context": 32}
        monkeypatch.setitem(SIZES, f"morph-{name}", SIZES[f"morph-{name}"].replace(**small))
    settings = Morph(str(text_folder), out=str(tmp_path / "m"), seeds=(0, 1), stages=("gpt2", "rms-norm"), **SMALL)
    found = morph(settings)
    runs = {name: [tmp_path / "m" / f"{name}-{seed}" for seed in (0, 1)] for name in ("gpt2", "rms-norm")}
    for stage in found["stages"]:
        summaries = [json.loads((run / "summary.json").read_text()) for run in runs[stage["name"]]]
        bits = [each["validation"]["bits_per_byte"] for each in summaries]
        assert stage["bits_per_byte"] == pytest.approx(sum(bits) / 2)
        assert stage["tokens"] == sum(each["tokens"] for each in summaries) / 2
    gpt2, rms = found["stages"]
    assert gpt2["parameters"] - rms["parameters"] == 3 * 32
    assert rms["change"] == pytest.approx(rms["bits_per_byte"] - gpt2["bits_per_byte"])
    assert rms["between"] == ["relu"]
    assert load(runs["gpt2"][0]).config.family == "morph"
    stamps = [(run / "summary.json").stat().st_mtime_ns for each in runs.values() for run in each]
    again = morph(settings)
    assert again["stages"] == [dict(stage) for stage in found["stages"]]
    assert stamps == [(run / "summary.json").stat().st_mtime_ns for each in runs.values() for run in each]
