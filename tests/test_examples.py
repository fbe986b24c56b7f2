"""Every recipe in examples/ runs, on tiny settings."""

from __future__ import annotations

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


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_a_recipe_runs(recipe: Path, text_folder: Path, tmp_path: Path) -> None:
    tokenizer = tmp_path / "tokenizer"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    settings = {"DATA": str(text_folder), "OUT": str(tmp_path / "run"), "TOKENIZER": str(tokenizer), "PATH": path}
    make = [sys.executable, "-m", "hornbook", "tokenize", str(text_folder), "--vocab", "300", "--out", str(tokenizer)]
    subprocess.run(make, check=True, capture_output=True)
    command = ["sh", str(recipe), *CHANGES.get(recipe.name, TINY)]
    done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(recipe.read_text().splitlines()) < 30
