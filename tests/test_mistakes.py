"""The museum: each mistake costs what is told of it, is found by the check that it names, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import hornbook
from doctor_subject import BYTES, IDS
from helpers import tiny_model
from hornbook.cli import main
from hornbook.data.batches import NO_TARGET
from hornbook.doctor.certificate import CHECKS
from hornbook.doctor.finding import FAIL, PASS
from hornbook.errors import UserError
from hornbook.layers.class_head import give_class_head
from hornbook.lessons import Lessons
from hornbook.mistakes import MUSEUM, find, school
from hornbook.mistakes.piece import HONEST, MISTAKEN, Figure, swapped
from hornbook.mistakes.telling import lines, told
from hornbook.report.museum_page import render_museum
from hornbook.tasks import Labelled, Task

STEPS = 100
"""At which every difference already has its direction: there are 200 in a real measurement."""
QUICK = ["uint16", "bare-config", "lost-place"]
"""Those that need no training."""


@pytest.mark.parametrize("name", MUSEUM)
def test_the_check_that_a_mistake_names_finds_it_and_passes_without_it(name: str, tmp_path: Path) -> None:
    piece = MUSEUM[name]
    assert piece.check in CHECKS
    if piece.check == "hugging face":
        pytest.importorskip("transformers")
    for planted, verdict in ((True, FAIL), (False, PASS)):
        folder = tmp_path / str(planted)
        folder.mkdir()
        found = piece.finding(planted, folder)
        assert found.verdict == verdict, found.meaning
        assert "broke off" not in found.meaning, found.meaning


@pytest.mark.slow
@pytest.mark.parametrize("name", MUSEUM)
def test_a_mistake_costs_what_is_told_of_it(name: str) -> None:
    torch.manual_seed(0)
    measured = MUSEUM[name].measure(STEPS)
    assert measured.holds, measured.figures
    kinds = {figure.kind for figure in measured.figures}
    assert {MISTAKEN, HONEST} <= kinds


def test_every_measurement_may_be_the_first_one() -> None:
    """What one piece has taught another finds taught: alone, each must be able to teach."""
    for name in MUSEUM:
        for value in vars(school).values():
            if hasattr(value, "cache_clear"):
                value.cache_clear()
        assert MUSEUM[name].measure(3).figures


@pytest.mark.parametrize(
    "name", ["no-mask", "post-norm", "shared-norm", "relu-on-attention", "unused-heads", "left-pads"]
)
def test_a_mistake_is_only_there_while_it_is_planted(name: str) -> None:
    model = MUSEUM[name].patient()
    tokens, segments = torch.arange(24).reshape(2, 12) + 60, torch.ones(2, 12, dtype=torch.int64)
    segments[:, :4] = 0
    before, parts = model(tokens, segments=segments), dict(model.named_modules())
    with hornbook.plant(name, model):
        assert not torch.equal(model(tokens, segments=segments)[:, 4:], before[:, 4:]) or name == "shared-norm"
    assert torch.equal(model(tokens, segments=segments), before)
    assert dict(model.named_modules()) == parts


def test_a_model_of_one_s_own_gets_the_mistake_too() -> None:
    model = tiny_model("qwen3")
    x = torch.arange(12)[None] + 3
    changed = x.clone()
    changed[0, -1] = 1
    with hornbook.plant("no-mask", model):
        assert not torch.allclose(model(x)[:, :-1], model(changed)[:, :-1])
    assert torch.allclose(model(x)[:, :-1], model(changed)[:, :-1])


@pytest.mark.parametrize(
    ("name", "family", "needs"),
    [
        ("no-mask", "ngram", "attention"),
        ("no-scale", "rnn", "attention"),
        ("unused-heads", "llama", "heads that have keys of their own"),
        ("unused-heads", "qwen3", "heads that have keys of their own"),
        ("unused-heads", "rnn_attention", "heads that have keys of their own"),
        ("post-norm", "rnn", "blocks with two norms"),
        ("shared-norm", "ngram", "blocks with two norms"),
        ("relu-on-attention", "rnn_attention", "blocks with two norms"),
        ("left-pads", "ngram", "positions"),
        ("beyond-the-table", "llama", "a table of positions"),
        ("beyond-the-table", "rnn", "a table of positions"),
    ],
)
def test_a_mistake_that_a_model_has_no_place_for_is_refused(name: str, family: str, needs: str) -> None:
    with pytest.raises(UserError, match=f"'{name}' needs {needs}.* lacks"):
        hornbook.plant(name, tiny_model(family))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32])
def test_a_planted_attention_takes_every_number_format_and_drops_what_it_did(kind: torch.dtype) -> None:
    model = tiny_model("gpt2", dropout=0.5).to(kind).train()
    for part in model.modules():  # of what is dropped only attention's weights are left
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    x = torch.arange(12)[None] + 3
    with hornbook.plant("no-scale", model):
        assert model(x).isfinite().all()
        assert not torch.equal(model(x), model(x))
        model.eval()
        assert torch.equal(model(x), model(x))


def test_a_class_is_taught_where_the_mistake_reads_it() -> None:
    model = give_class_head(tiny_model("gpt2", **IDS), ("a", "b"))
    model.tokenizer = BYTES
    lessons = Lessons(model, Task("t", Labelled, lambda split: iter(()), dict, "accuracy"), 32)
    places = []
    for planted in (False, True):
        with hornbook.plant("first-token", model) if planted else contextlib.nullcontext():
            piece = lessons.labelled(Labelled("hello", "b"))
        assert piece is not None
        places.append((piece.targets != NO_TARGET).nonzero()[0].tolist())
    assert places == [[len(piece.tokens) - 1], [0]]


def test_a_page_that_cannot_be_written_is_refused_before_any_measuring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("hornbook.mistakes.telling.told", lambda *_: pytest.fail("it was measured"))
    with pytest.raises(SystemExit, match="2"):
        main(["mistakes", "--all", "--out", str(tmp_path)])
    assert "is a folder: name a file for the page" in capsys.readouterr().err


def test_what_was_swapped_is_put_back_after_an_error() -> None:
    class Thing:
        kept = 1

    thing = Thing()
    with pytest.raises(ZeroDivisionError), swapped((thing, "kept", 2), (Thing, "kept", 3)):
        1 / (thing.kept - Thing.kept + 1)
    assert (vars(thing), Thing.kept) == ({}, 1)


def test_every_piece_says_what_where_and_how_it_looks() -> None:
    tutorials = ("OPT from scratch", "Llama 3 from scratch", "GPT overview", "GPT-2 124M", "OPT-1.3B in 8 bit")
    for name, piece in MUSEUM.items():
        assert re.fullmatch(r"[a-z0-9-]+", name)
        assert all(text.endswith(".") for text in (piece.what, piece.seen, piece.looks))
        assert any(t in piece.seen for t in tutorials) or piece.seen.startswith("In none of the five tutorials")


def test_an_unknown_mistake_is_answered_with_those_that_exist() -> None:
    with pytest.raises(UserError, match=r"Did you mean 'no-mask'\?"):
        find("nomask")


def test_figures_read_as_people_write_them() -> None:
    shown = [Figure("share of it", 0.4891), Figure("loss", 2.41807), Figure("ids", 128256), Figure("far", 40971.3)]
    assert [figure.text for figure in shown] == ["48.9 %", "2.418", "128,256", "40,971"]


def test_the_page_has_every_piece_with_its_figures_and_loads_nothing() -> None:
    found = [told(MUSEUM[name], STEPS) for name in QUICK]
    about = {
        "command": "hornbook mistakes --all",
        "text": "t",
        "steps": STEPS,
        "seconds": 2.0,
        "machine": "m",
        "date": "d",
    }
    page = render_museum(found, about)
    for piece in found:
        assert f'id="{piece["name"]}"' in page
        assert all(figure["text"] in page.replace("\u00a0", " ") for figure in piece["figures"])
    assert "48.9" in page
    assert not re.search(r"(src|href)=\"(?!#|data:)", page)
    assert "<script" not in page
    found[0]["holds"] = False
    assert "This time" in render_museum(found, about)


def test_the_command_lists_tells_and_writes_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    main(["mistakes"])
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed] == list(MUSEUM)
    main(["mistakes", "--json"])
    assert [json.loads(line)["name"] for line in capsys.readouterr().out.splitlines()] == list(MUSEUM)
    main(["mistakes", "uint16"])
    assert "48.9 %" in capsys.readouterr().out
    main(["mistakes", "uint16", "--json"])
    assert json.loads(capsys.readouterr().out)["caught"] == "FAIL"
    for name in set(MUSEUM) - set(QUICK):
        monkeypatch.delitem(MUSEUM, name)
    main(["mistakes", "--all", "--out", str(tmp_path / "new" / "museum.html")])
    assert capsys.readouterr().out.rstrip().endswith("museum.html")
    assert "Token ids in 16 bits" in (tmp_path / "new" / "museum.html").read_text()
    main(["mistakes", "--all", "--json", "--out", str(tmp_path / "again.html")])
    told = capsys.readouterr()
    assert all(json.loads(line) for line in told.out.splitlines())
    assert told.err.rstrip().endswith("again.html")


@pytest.mark.parametrize("words", [["no-mask", "--all"], ["no-mask", "--out", "x.html"], ["no-mask", "--steps", "1"]])
def test_settings_that_do_not_go_together_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["mistakes", *words])
    assert ended.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_difference_that_is_not_there_is_said() -> None:
    found: dict[str, Any] = told(MUSEUM["lost-place"], STEPS) | {"holds": False}
    assert any("more --steps" in line for line in lines(found))


def test_the_page_of_the_docs_names_every_piece() -> None:
    text = (Path(__file__).parent.parent / "docs" / "mistakes.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([a-z0-9-]+)` \|", text, re.MULTILINE)) == set(MUSEUM)
