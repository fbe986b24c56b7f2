"""The book cannot lie: its code is the package's, and its commands and snippets run, on tiny budgets."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"


def refreshing():
    """docs/refresh.py, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("refresh", DOCS / "refresh.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["refresh"] = module
    spec.loader.exec_module(module)
    return module


refresh = refreshing()
CHAPTERS = refresh.chapters()
every_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)


@every_chapter
def test_code_in_a_chapter_is_the_package_s_own(path: Path) -> None:
    page = path.read_text(encoding="utf-8")
    assert refresh.with_source(page) == page, "python docs/refresh.py"
    assert len(refresh.CODE.findall(page)) == page.count("<!-- code:"), "a mark without its block"


@pytest.mark.slow
@every_chapter
def test_a_chapter_s_commands_and_snippets_run(path: Path, tmp_path: Path) -> None:
    outputs = refresh.run_page(path.read_text(encoding="utf-8"), tmp_path, refresh.smaller, 300)
    assert outputs


@every_chapter
def test_a_chapter_has_all_its_parts(path: Path) -> None:
    page = path.read_text(encoding="utf-8")
    for part in ("## Try it", "## Exercises", "## What tutorials get wrong", "## References"):
        assert part in page, part
    assert page.count("<details>") == page.count("</details>") >= 2, "exercises have answers"


@every_chapter
def test_pictures_and_links_of_a_chapter_lead_somewhere(path: Path) -> None:
    prose = re.sub(r"```.*?```|`[^`\n]+`", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)", prose):
        if "://" not in target:
            assert (path.parent / target).exists(), target


def test_a_block_s_source_is_found_by_its_name() -> None:
    assert refresh.source_of("layers/mlp.py", "relu").startswith("def relu(x: Tensor)")
    assert refresh.source_of("layers/mlp.py", "MLP.forward").startswith("def forward(self")
    with pytest.raises(KeyError, match="no_such_thing"):
        refresh.source_of("layers/mlp.py", "no_such_thing")


def test_outputs_take_the_place_of_old_ones_and_budgets_shrink(tmp_path: Path) -> None:
    said = "```sh\necho one\n```\n\n```text\nold\n```\n\n"
    page = said + "```python\nx = 2\nprint(x)\n```\n\n```python\nprint(x + 1)\n```\n\n```text\n```\n"
    outputs = refresh.run_page(page, tmp_path)
    assert outputs == ["one\n", "2\n", "3\n"]
    assert refresh.with_outputs(page, outputs).count("```text\n") == 2
    assert "```text\none\n```" in refresh.with_outputs(page, outputs)
    assert "```text\n3\n```" in refresh.with_outputs(page, outputs)
    assert refresh.smaller("hornbook train x --minutes 5 --steps 300") == "hornbook train x --minutes 0.02 --steps 2"
    with pytest.raises(RuntimeError, match="ended with 3"):
        refresh.run_page("```sh\nexit 3\n```\n", tmp_path)
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        refresh.run_page("```python\n1 / 0\n```\n", tmp_path)


@pytest.mark.slow
def test_the_book_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", str(DOCS), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for path in CHAPTERS:
        built = (tmp_path / "book" / f"{path.stem}.html").read_text(encoding="utf-8")
        assert "<math" in built, "formulas are drawn without a script"
        assert not re.search(r"<(script|link|img)[^>]+(src|href)=.https?:", built), "it needs no network"
