"""Runs side by side in the terminal: what differs, what they reached, and what does not compare."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

import hornbook
from folders import folder_of, speaking
from hornbook.checkpoint import load
from hornbook.cli import main
from hornbook.comparing import compare_runs, reading
from hornbook.config import Compare
from hornbook.errors import UserError
from hornbook.evaluation.sentences import score_sentence
from hornbook.layers.model import LanguageModel
from hornbook.report import wording
from hornbook.report.comparison import TEXTS, TOKENISERS, UNKNOWN
from hornbook.text.tokenizer_training import train_tokenizer
from test_report_run import make


def trained(folder: Path, bits: float = 2.0, model: LanguageModel | None = None, **settings: Any) -> Path:
    """A run as its files tell of it, with a tiny random model in it."""
    make(folder, bits, **settings)
    return folder_of(model or speaking("gpt2"), folder)


def measured_on_another_text(folder: Path) -> Path:
    summary = json.loads((folder / "summary.json").read_text())
    summary["validation"]["document_bytes"][0] += 1
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def rows_of(found: object) -> dict[str, str]:
    return {line.split("  ")[0]: line for line in str(found).splitlines() if "  " in line}


def compared(*folders: Path, text: str | None = None) -> Any:
    return compare_runs(Compare(tuple(map(str, folders)), text, "cpu"))


def test_figures_stand_beside_each_other_with_the_difference_and_its_interval(tmp_path: Path) -> None:
    found = compared(trained(tmp_path / "a", 2.1), trained(tmp_path / "b", 2.0))
    rows = rows_of(found)
    assert rows["Bits per byte"].split()[-2:] == ["2.100", "2.000"]
    assert "0.100 (" in rows["More than the best"]
    assert "Tokens/s" in rows
    assert "Parameters" in rows
    told = " ".join(str(found).split())
    assert "b needs 2.000 bits" in told
    assert "b is best: it leads a by 0.100 bits per byte" in told


def test_only_what_differs_is_told_of_settings_and_models(tmp_path: Path) -> None:
    wide = speaking("gpt2", mlp=64, layers=3)
    rows = rows_of(compared(trained(tmp_path / "a", lr=0.01), trained(tmp_path / "b", model=wide)))
    assert rows["lr"].split() == ["lr", "0.01", "0.002"]
    assert rows["mlp"].split() == ["mlp", "48", "64"]
    assert rows["layers"].split() == ["layers", "2", "3"]
    assert "heads" not in rows
    assert "seed" not in rows
    assert rows["trained on"].split()[2:] == ["python-docs", "python-docs"]


def test_with_one_tokeniser_token_perplexities_are_shown(tmp_path: Path) -> None:
    found = compared(trained(tmp_path / "a"), trained(tmp_path / "b", 2.2))
    assert "Token perplexity" in rows_of(found)
    assert TOKENISERS not in found.runs.notes


def test_perplexities_of_different_tokenisers_are_not_compared_and_that_is_said(tmp_path: Path) -> None:
    found = compared(trained(tmp_path / "a"), trained(tmp_path / "b", tokenizer_hash="cd" * 32))
    rows = rows_of(found)
    assert "Token perplexity" not in rows
    assert "Bits per byte" in rows
    assert TOKENISERS in found.runs.notes
    assert "only bits per byte" in " ".join(str(found).split())


def test_a_tokeniser_that_is_not_known_is_not_taken_for_the_same(tmp_path: Path) -> None:
    folders = [make(tmp_path / name, tokenizer_hash=None) for name in "ab"]
    found = compared(*folders)
    assert "Token perplexity" not in rows_of(found)
    assert UNKNOWN in found.runs.notes


def test_scores_on_different_texts_are_not_ranked(tmp_path: Path) -> None:
    found = compared(trained(tmp_path / "a", 2.1), measured_on_another_text(trained(tmp_path / "b")))
    assert TEXTS in found.runs.notes
    told = " ".join(str(found).split())
    assert "is best" not in told
    assert not {"More than the best", "Token perplexity"} & set(rows_of(found))


def test_a_text_has_its_log_probability_and_what_comes_next_by_each_model(tmp_path: Path) -> None:
    folders = trained(tmp_path / "a"), trained(tmp_path / "b", model=speaking("llama"))
    found = compared(*folders, text="The fox")
    for folder, each in zip(folders, found.readings, strict=True):
        wanted = score_sentence(load(folder, text=True), "The fox").log_prob
        assert each.sentence.log_prob == pytest.approx(wanted)
        assert each.bits_per_byte == pytest.approx(-wanted / math.log(2) / 7)
        shares = [share for _, share in each.likeliest]
        assert shares == sorted(shares, reverse=True)
        assert len(shares) == 5
    assert f"{found.readings[1].sentence.log_prob:.4f}" in rows_of(found)["log-probability, nats"]


def test_what_comes_next_is_what_the_walk_says(tmp_path: Path) -> None:
    folder = trained(tmp_path / "a", model=speaking("llama"))
    walked = hornbook.inspect(str(folder), "The fox").likeliest(5)[0].best
    mine = reading(load(folder, text=True), "The fox").likeliest
    assert [piece for piece, _ in mine] == [piece for piece, _ in walked]
    assert [share for _, share in mine] == pytest.approx([share for _, share in walked], abs=1e-5)


@pytest.mark.parametrize(
    ("family", "changes", "told"),
    [
        ("bert", {}, "both sides"),
        ("gpt2", {"labels": ("bad", "good")}, "tells classes apart"),
    ],
)
def test_models_without_a_probability_of_a_text_are_said_to_have_none(
    family: str, changes: dict[str, Any], told: str, tmp_path: Path
) -> None:
    other = folder_of(speaking(family, **changes), tmp_path / "b")
    found = compared(trained(tmp_path / "a"), other, text="The fox")
    assert found.readings[1].sentence is None
    assert told in found.readings[1].note
    assert rows_of(found)["bits per byte"].split()[-1] == "–"
    assert found.readings[0].sentence is not None


def test_n_grams_and_encoder_decoders_read_the_text_too(tmp_path: Path) -> None:
    folders = [folder_of(speaking(family), tmp_path / family) for family in ("ngram", "transformer", "rnn")]
    found = compared(*folders, text="The fox")
    assert all(each.sentence is not None and each.likeliest for each in found.readings)
    assert "without a source" in found.readings[1].note


def test_without_bits_per_byte_there_is_no_difference_in_them(tmp_path: Path) -> None:
    folders = trained(tmp_path / "a", 2.1), trained(tmp_path / "b", 2.0)
    summary = json.loads((folders[1] / "summary.json").read_text())
    summary["validation"]["bits_per_byte"] = None
    (folders[1] / "summary.json").write_text(json.dumps(summary))
    rows = rows_of(compared(*folders))
    assert rows["Bits per byte"].split()[-1] == "–"
    assert "More than the best" not in rows or rows["More than the best"].split()[-1] == "–"


def test_a_tokeniser_that_does_not_give_a_text_back_has_no_bits_of_it(tmp_path: Path) -> None:
    words = train_tokenizer("word", ["the fox is the fox"])
    ids = {"vocab": words.vocab, "bos": words.bos, "eos": words.eos, "pad": words.pad}
    found = reading(load(folder_of(speaking("gpt2", **ids), tmp_path / "x", words), text=True), "the cow")
    assert found.bits_per_byte is None
    assert "does not give the text back" in found.note


def test_a_text_as_long_as_the_context_can_be_read(tmp_path: Path) -> None:
    model = load(folder_of(speaking("gpt2"), tmp_path / "x"), text=True)
    text = "a" * model.config.context
    assert len(model.tokenizer.encode(text)) == model.config.context
    found = reading(model, text)
    assert found.sentence is not None
    assert found.likeliest


def test_words_that_a_tokeniser_does_not_know_are_named(tmp_path: Path) -> None:
    words = train_tokenizer("word", ["the fox is the fox"])
    ids = {"vocab": words.vocab, "bos": words.bos, "eos": words.eos, "pad": words.pad}
    folder = folder_of(speaking("gpt2", **ids), tmp_path / "x", words)
    assert "does not know" in reading(load(folder, text=True), "the cow").note


def test_a_model_folder_that_is_no_run_stands_beside_a_run(tmp_path: Path) -> None:
    found = compared(trained(tmp_path / "a"), folder_of(speaking("llama"), tmp_path / "b"))
    assert rows_of(found)["family"].split()[1:] == ["gpt2", "llama"]
    assert rows_of(found)["Bits per byte"].split()[-1] == "–"
    count = hornbook.inspect(str(tmp_path / "b")).parameters
    assert rows_of(found)["Parameters"].split("  ")[-1].strip() == wording.count(count)


def test_of_models_of_two_kinds_sizes_are_told_and_not_every_field(tmp_path: Path) -> None:
    rows = rows_of(compared(*(folder_of(speaking(family), tmp_path / family) for family in ("gpt2", "ngram"))))
    assert rows["order"].split() == ["order", "–", "3"]
    assert rows["dim"].split() == ["dim", "32", "–"]
    assert "norm_eps" not in rows


def test_a_folder_of_runs_stands_for_all_of_them(tmp_path: Path) -> None:
    make(tmp_path / "a")
    make(tmp_path / "b", finished=False, share=0.5)
    found = compared(tmp_path)
    assert found.runs.names == ["a", "b"]
    assert "so far" in rows_of(found)["Bits per byte"]


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_runs_are_refused(count: int, tmp_path: Path) -> None:
    folders = [make(tmp_path / "a")] * count
    with pytest.raises(UserError, match="compare needs two runs"):
        compared(*folders)


def test_json_has_every_figure_exact_and_what_compares(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folders = trained(tmp_path / "a", 2.1, lr=0.01), trained(tmp_path / "b", 2.0, model=speaking("llama"))
    main(["compare", *map(str, folders), "--text", "The fox", "--device", "cpu", "--json"])
    told = json.loads(capfd.readouterr().out)
    first, second = told["runs"]
    assert (told["same_text"], told["same_tokenizer"]) == (True, True)
    assert first["figures"]["bits_per_byte"] == 2.1
    assert first["more_than_the_best"][0] == pytest.approx(0.1)
    assert second["more_than_the_best"] is None
    assert (first["settings"]["lr"], second["settings"]["lr"]) == (0.01, 0.002)
    assert (first["model"]["family"], second["model"]["family"]) == ("gpt2", "llama")
    assert first["text"]["log_prob"] < 0
    assert len(second["text"]["next"]) == 5


def test_the_command_prints_tables(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folders = trained(tmp_path / "a"), trained(tmp_path / "b", 2.2)
    main(["compare", *map(str, folders)])
    assert capfd.readouterr().out.rstrip("\n") == str(hornbook.compare(*map(str, folders)))
