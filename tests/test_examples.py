"""Every recipe in examples/ runs, on tiny settings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

RECIPES = sorted((Path(__file__).parent.parent / "examples").glob("*.sh"))
SMALL = ["--layers", "1", "--dim", "16", "--context", "32", "--batch", "4", "--steps", "2"]
TINY = [*SMALL, "--heads", "2"]
CHANGES = {
    "bigram.sh": [],
    "ladder-wikitext-2.sh": ["--minutes", "0.01", "--vocab", "300", "--rungs", "bigram", "rnn-tiny"],
    "rnn-attention.sh": SMALL,
}


def few_tasks(folder: Path) -> Path:
    """A folder for HORNBOOK_DATA with three items of HellaSwag's form."""
    (folder / "hellaswag").mkdir(parents=True)
    item = {"ctx": "A man climbs. he", "endings": ["falls.", "sings a song.", "reads.", "is a roof."], "label": 0}
    (folder / "hellaswag" / "hellaswag_val.jsonl").write_text(f"{json.dumps(item)}\n" * 3)
    return folder


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_a_recipe_runs(recipe: Path, text_folder: Path, tmp_path: Path) -> None:
    tokenizer = tmp_path / "tokenizer"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    settings = {"DATA": str(text_folder), "OUT": str(tmp_path / "run"), "TOKENIZER": str(tokenizer), "PATH": path}
    settings["HORNBOOK_DATA"] = str(few_tasks(tmp_path / "data"))
    make = [sys.executable, "-m", "hornbook", "tokenize", str(text_folder), "--vocab", "300", "--out", str(tokenizer)]
    subprocess.run(make, check=True, capture_output=True)
    command = ["sh", str(recipe), *CHANGES.get(recipe.name, TINY)]
    done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(recipe.read_text().splitlines()) < 30
