"""Every recipe in examples/ runs, on tiny settings."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hornbook.checkpoint import save_model
from test_finetune import reviews
from test_lessons import talker
from test_talk import TEMPLATE

RECIPES = sorted((Path(__file__).parent.parent / "examples").glob("*.sh"))
SIZES = ["--layers", "1", "--dim", "16", "--context", "32", "--batch", "4"]
TINY = [*SIZES, "--heads", "2", "--steps", "2"]
CHANGES = {
    "bigram.sh": [],
    "ladder-wikitext-2.sh": ["--minutes", "0.01", "--vocab", "300", "--rungs", "bigram", "rnn-tiny"],
    "rnn-attention.sh": [*SIZES, "--epochs", "0.02"],
    "gpt2-wikitext.sh": [*SIZES, "--heads", "2", "--epochs", "0.02"],
    "opt-wikitext.sh": [*SIZES, "--heads", "2", "--epochs", "0.02"],
    "my-own-text.sh": [*SIZES, "--heads", "2", "--minutes", "0.02"],
    "multi30k.sh": [],
    "summaries.sh": [],
    "summarise-documents.sh": ["--tokens", "5"],
    "chat-offline.sh": ["--tokens", "5"],
    "gpt2-positions.sh": [],
}
SHORT = {
    "LEARN": "--steps 2 --vocab 300",
    "TUNE": "--steps 2 --batch 1 --context 32 --eval-examples 2",
    "VOCAB": "280",
    "LETTERS": "60",
}
"""Budgets of the recipes that teach a task."""


def few_tasks(folder: Path) -> Path:
    """A folder for HORNBOOK_DATA with three items of HellaSwag's form."""
    (folder / "hellaswag").mkdir(parents=True)
    item = {"ctx": "A man climbs. he", "endings": ["falls.", "sings a song.", "reads.", "is a roof."], "label": 0}
    (folder / "hellaswag" / "hellaswag_val.jsonl").write_text(f"{json.dumps(item)}\n" * 3)
    (folder / "imdb").mkdir()
    for part in ("train", "test"):
        rows = [{"text": f"film {part} {n} was {'good' if n % 2 else 'bad'}", "label": n % 2} for n in range(60)]
        (folder / "imdb" / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "cnn-dailymail").mkdir()
    news = [{"article": f"It rained in town {n}. People stayed in.", "highlights": f"Rain in {n}."} for n in range(40)]
    for name in ("train-100.jsonl", "validation-1000.jsonl"):
        (folder / "cnn-dailymail" / name).write_text("".join(json.dumps(row) + "\n" for row in news))
    (folder / "multi30k").mkdir()
    for part in ("train", "val", "test_2016_flickr"):
        for language, words in (("de", "Ein Hund"), ("en", "A dog")):
            with gzip.open(folder / "multi30k" / f"{part}.{language}.gz", "wt") as file:
                file.write("".join(f"{words} {n}.\n" for n in range(30)))
    return folder


def tiny(folder: Path, family: str = "llama", template: str = "") -> str:
    """The folder of a tiny model, with a chat template where one is given."""
    model = talker(family, context=200)
    if template:
        model.tokenizer.config["chat_template"] = template
    save_model(folder, model, model.tokenizer)
    return str(folder)


def own(recipe: str, folder: Path) -> dict[str, str]:
    """What a recipe has otherwise than the others."""
    if recipe == "classify-csv.sh":
        return {"DATA": str(reviews(folder / "reviews.csv")), "TEXT": "review", "LABEL": "stars", "MODEL": ""}
    if recipe in ("summarise-documents.sh", "chat-offline.sh"):
        return {"MODEL": tiny(folder / "chat", template=TEMPLATE)}
    return {"MODEL": tiny(folder / "model", "gpt2" if recipe == "gpt2-positions.sh" else "llama")}


LONG = ("opt-for-work.sh", "summaries.sh", "classify-csv.sh")
"""Recipes of many commands, which take half a minute even so."""


@pytest.mark.parametrize(
    "recipe",
    [pytest.param(path, marks=pytest.mark.slow if path.name in LONG else (), id=path.name) for path in RECIPES],
)
def test_a_recipe_runs(recipe: Path, text_folder: Path, tmp_path: Path) -> None:
    tokenizer = tmp_path / "tokenizer"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    settings = {"DATA": str(text_folder), "OUT": str(tmp_path / "run"), "TOKENIZER": str(tokenizer), "PATH": path}
    settings["HORNBOOK_DATA"] = str(few_tasks(tmp_path / "data"))
    settings |= SHORT | own(recipe.name, tmp_path)
    make = [sys.executable, "-m", "hornbook", "tokenize", str(text_folder), "--vocab", "300", "--out", str(tokenizer)]
    subprocess.run(make, check=True, capture_output=True)
    command = ["sh", str(recipe), *CHANGES.get(recipe.name, TINY)]
    environment = os.environ | settings
    done = subprocess.run(command, env=environment, input="Hello", capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(recipe.read_text().splitlines()) < 30
