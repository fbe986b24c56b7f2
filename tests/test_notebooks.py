"""The chapters' notebooks: what a reader may run is a cell, and a notebook runs in a kernel of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from test_book import CHAPTERS, DOCS, refresh

pytest.importorskip("jupytext")
nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")


@pytest.fixture(scope="module")
def notebooks():
    """docs/notebooks.py, beside docs/refresh.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS))
        patch.setitem(sys.modules, "refresh", refresh)
        import notebooks

        yield notebooks


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_notebook_has_a_cell_for_every_block_of_its_chapter_and_no_outputs(path: Path, notebooks, tmp_path) -> None:
    made = notebooks.notebook(path, tmp_path)
    nbformat.validate(made)
    code = [cell.source for cell in made.cells if cell.cell_type == "code"]
    page = path.read_text(encoding="utf-8")
    assert [text.removeprefix("%%sh\n").strip() for text in code] == [b.text.strip() for b in refresh.blocks(page)]
    assert [text.startswith("%%sh\n") for text in code] == [block.kind == "sh" for block in refresh.blocks(page)]
    assert not any(cell.get("outputs") for cell in made.cells)
    text = "\n".join(cell.source for cell in made.cells if cell.cell_type == "markdown")
    assert "<!--" not in text
    shown = [name.split(".")[-1] for _, _, name, *_ in refresh.CODE.findall(page) if name[0].islower()]
    assert [name for name in shown if f"def {name}" not in text and f"{name} = " not in text] == []


def test_links_of_a_notebook_lead_back_to_the_book(notebooks, tmp_path: Path) -> None:
    made = notebooks.notebook(CHAPTERS[0], tmp_path)
    links = [link for cell in made.cells for link in notebooks.re.findall(r"\]\((?!http)([^)#\s]+)", cell.source)]
    assert links
    assert all((tmp_path / link).resolve().exists() for link in links)


@pytest.mark.slow
def test_a_notebook_runs_in_a_clean_kernel(notebooks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    made = notebooks.notebook(CHAPTERS[0], tmp_path)
    for cell in made.cells:
        cell.source = refresh.smaller(cell.source)
    nbclient.NotebookClient(made, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = [cell.outputs for cell in made.cells if cell.cell_type == "code"]
    assert all(printed)
