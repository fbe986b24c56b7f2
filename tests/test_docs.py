"""The README cannot lie: its commands and its Python run as they stand there, with smaller budgets."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from helpers import needs_data
from hornbook import models
from hornbook.text.corpora import corpus_names
from test_finetune import reviews

README = (Path(__file__).parent.parent / "README.md").read_text()
SMALLER = {
    "ladder": ["--minutes", "0.02", "--rungs", "bigram", "gpt2-tiny"],
    "train llama-tiny": ["--minutes", "0.03"],
    "generate": ["--tokens", "10"],
    "mistakes": ["--steps", "20"],
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("readme")


@pytest.mark.slow
def test_the_commands_run_in_order_and_then_the_python(workplace: Path) -> None:
    """One test: what comes later needs the runs of what comes before."""
    tour = next(block for block in blocks("sh") if "hornbook ladder" in block)
    for line in tour.splitlines():
        words = shlex.split(line, comments=True)
        extra = next((more for start, more in SMALLER.items() if " ".join(words[1:]).startswith(start)), [])
        command = [sys.executable, "-m", "hornbook", *words[1:], *extra]
        done = subprocess.run(command, cwd=workplace, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, line + done.stderr
        assert done.stdout.strip()
    reviews(workplace / "reviews.csv")
    block = next(block for block in blocks("sh") if "hornbook finetune" in block)
    for line in block.splitlines():
        extra = ["--steps", "3"] if "finetune" in line else []
        command = [sys.executable, "-m", "hornbook", *shlex.split(line)[1:], *extra]
        done = subprocess.run(command, cwd=workplace, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, line + done.stderr
        assert "TF-IDF" in done.stdout
    for code in blocks("python"):
        done = subprocess.run([sys.executable, "-c", code], cwd=workplace, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr


@needs_data("wikitext-2")
def test_the_tutorial_protocol_runs(workplace: Path) -> None:
    command = [sys.executable, "-m", "hornbook", "evaluate", "bigram", "wikitext-2", "--protocol", "tutorial"]
    assert "1,933.53" in subprocess.run(command, capture_output=True, text=True, timeout=300).stdout


def test_every_rung_and_corpus_that_the_readme_names_exists() -> None:
    table = README.split("| rung | what it is |")[1].split("\n\n")[0]
    named = {name for name in re.findall(r"`([\w.-]+)`", table) if name != "..."}
    assert len(named) > 10
    assert named <= set(models.sizes())
    corpora = re.findall(r"`([\w-]+)`", README.split("a corpus by name (")[1].split(")")[0])
    assert sorted(corpora) == sorted(corpus_names())


def test_make_targets_that_the_readme_names_exist() -> None:
    makefile = (Path(__file__).parent.parent / "Makefile").read_text()
    for target in re.findall(r"make ([\w-]+)", README):
        assert f"\n{target}:" in makefile


def test_every_pinned_version_is_for_every_python_that_the_project_takes() -> None:
    """Distributions ship early patch releases: Debian 12 has 3.11.2."""
    root = Path(__file__).parent.parent
    oldest = tomllib.loads((root / "pyproject.toml").read_text())["project"]["requires-python"].removeprefix(">=")
    pins = [Requirement(line) for line in (root / "constraints.txt").read_text().splitlines() if line[:1].isalpha()]
    wanted = {pin.name: metadata.metadata(pin.name)["Requires-Python"] for pin in pins if installed(pin.name)}
    assert len(wanted) > 50
    assert {name: each for name, each in wanted.items() if not SpecifierSet(each or "").contains(f"{oldest}.0")} == {}


def installed(name: str) -> bool:
    """Whether a distribution is installed."""
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True
