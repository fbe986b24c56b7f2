"""Pages can be used with a keyboard and read by a screen reader, as far as axe can tell."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import hornbook
from browsing import faults, started
from hornbook.mistakes import find
from hornbook.mistakes.telling import facts, told
from hornbook.report.morph_page import write_morph
from hornbook.report.museum_page import write_museum
from hornbook.report.page import write_report
from hornbook.report.run_page import write_runs
from ladder_figures import FACTS, whole_ladder
from test_morph import figures

DOCS = Path(__file__).parent.parent / "docs"
THEME = ("region",)
"""What only the theme could mend: a hidden label outside of its landmarks."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with started() as found:
        yield found


def ladder(folder: Path) -> Path:
    write_report(folder / "ladder.html", FACTS, whole_ladder())
    return folder / "ladder.html"


def runs(folder: Path) -> Path:
    text = folder / "text.txt"
    text.write_text("\n\n".join(f"The cat number {i} sat on the mat." for i in range(60)), encoding="utf-8")
    for order in ("bigram", "trigram"):
        hornbook.train(order, data=str(text), vocab=280, out=str(folder / order))
    return write_runs((str(folder / "bigram"), str(folder / "trigram")), str(folder / "runs.html"))


def morph(folder: Path) -> Path:
    return write_morph(folder, figures())


def museum(folder: Path) -> Path:
    return write_museum([told(find("uint16"), 1)], facts(1, 1.0), folder / "museum.html")


@pytest.mark.parametrize("make", [ladder, runs, morph, museum], ids=lambda make: make.__name__)
def test_axe_finds_no_fault_in_a_page_of_results(make: Callable[[Path], Path], browser: Any, tmp_path: Path) -> None:
    assert faults(browser, make(tmp_path)) == []


@pytest.mark.slow
def test_axe_finds_no_fault_in_the_book(browser: Any, tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    subprocess.run([sys.executable, "-m", "sphinx", "-q", "-b", "html", str(DOCS), str(tmp_path)], check=True)
    names = ("index", "tutorials", "inspect", "tasks")
    chapters = sorted((tmp_path / "book").glob("*.html"))[1::4]  # a few: they are made alike
    for page in [*chapters, *(tmp_path / f"{name}.html" for name in names)]:
        assert faults(browser, page, THEME) == [], page.name
