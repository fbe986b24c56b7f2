"""`hornbook evaluate CLASSIFIER --text`: the classes of one text, as found when a file of texts is measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from folders import folder_of, speaking
from hornbook.checkpoint import load
from hornbook.cli import main
from hornbook.evaluation.judging import put
from hornbook.layers.class_head import give_class_head
from hornbook.tasks import Labelled, Source, open_task
from hornbook.training.finetune import finetune
from test_finetune import reviews, settings

SHORT, LONG = "the film was good", "it was a lovely film " * 30 + "but awful"


@pytest.fixture(scope="module", params=["gpt2", "bert"])
def taught(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier whose data is gone, taught with other rules than the default ones."""
    folder = tmp_path_factory.mktemp("taught")
    data = reviews(folder / "reviews.csv", 60)
    base = str(folder_of(speaking(request.param), folder / "base"))
    finetune(settings(data, folder / "run", base, vocab=None, steps=4, lr=0.01, context=32, cut="tail"))
    data.unlink()
    return folder / "run"


def asked(run: Path, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    capsys.readouterr()
    main(["evaluate", str(run), "--device", "cpu", *more])
    return capsys.readouterr().out


def test_a_text_has_the_classes_that_an_evaluation_of_a_file_finds_for_it(
    taught: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = open_task("classify", Source("nowhere.csv"))
    rows = [Labelled(text, "5") for text in (SHORT, LONG)]
    wanted = put(load(taught, text=True), task, "test", rows, context=32, cut="tail").outputs
    found = json.loads(asked(taught, capsys, "--text", SHORT, "--text", LONG, "--json"))
    assert [row["text"] for row in found] == [SHORT, LONG]
    assert [row["classes"] for row in found] == [pytest.approx(output, abs=1e-6) for output in wanted]
    assert ["note" in row for row in found] == [False, True]
    assert "longer than 32 tokens: tail of them is kept" in found[1]["note"]
    other = json.loads(asked(taught, capsys, "--text", LONG, "--cut", "head", "--context", "20", "--json"))
    assert "longer than 20 tokens: head" in other[0]["note"]
    assert other[0]["classes"] != found[1]["classes"]


def test_the_likeliest_class_comes_first_in_a_table_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = give_class_head(speaking("gpt2"), ("bad", "so so", "good\x1b"))
    torch.nn.init.normal_(model.class_head.output.weight)  # type: ignore[union-attr]
    folder = folder_of(model, tmp_path / "m")
    (row,) = json.loads(asked(folder, capsys, "--text", SHORT, "--json"))
    assert list(row["classes"].values()) == sorted(row["classes"].values(), reverse=True)
    assert sum(row["classes"].values()) == pytest.approx(1)
    told = asked(folder, capsys, "--text", SHORT, "--text", LONG)
    lines = told.split("\n\n")[0].splitlines()
    assert lines[0].split("  ")[0].strip() == repr(SHORT)
    shown = [line.rsplit(maxsplit=1) for line in lines[1:]]
    wanted = [[name.replace("\x1b", "\\x1b"), f"{chance:.4f}"] for name, chance in row["classes"].items()]
    assert [[name.strip(), chance] for name, chance in shown] == wanted
    assert told.count("probability") == 2
    assert f"{LONG[:57]}..." in told
    assert "are longer than 48 tokens: head+tail of them is kept" in told


def test_a_text_without_a_token_is_refused_in_a_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = folder_of(give_class_head(speaking("bert"), ("bad", "good")), tmp_path / "m")
    with pytest.raises(SystemExit):
        main(["evaluate", str(folder), "--text", ""])
    assert capfd.readouterr().err == "hornbook: there is no token in the text\n"
