"""Progress: one line in a terminal that is never too long, a bar in a notebook, plain lines elsewhere."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from hornbook import progress
from hornbook.progress import Bar, fitted, in_notebook

NOTE = "step 12,345  loss 3.456  1.34 bits per byte  9,400 tokens/s  61 % MFU  1.20 GB"


@pytest.mark.parametrize("columns", [40, 60, 80, 100, 200])
def test_a_terminal_shows_one_line_with_the_time_left_whatever_its_width(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=columns, soft_wrap=True, markup=False)
    monkeypatch.setattr(progress, "console", console)
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(isatty=lambda: True))
    clock = iter(range(0, 100_000, 36))
    bar = Bar("llama-tiny")
    assert bar.live is not None
    bar.live.get_time = lambda: float(next(clock))
    for done in range(1, 9):  # 36 seconds a percent
        bar.show(done, 100, NOTE)
    lines = ["".join(s.text for s in line).rstrip() for line in console.render_lines(bar.live.get_renderable())]
    (shown,) = [line for line in lines if line]
    assert len(shown) <= columns
    assert "llama-tiny" in shown
    assert shown.endswith(("0:55:12", "0:54:36"))
    assert ("loss 3.456" in shown) == (columns >= 60)
    assert ("1.20 GB" in shown) == (columns == 200)


def test_a_note_loses_its_last_parts_first() -> None:
    assert fitted("step 5  loss 3.2  9,400 tokens/s", 100) == "step 5  loss 3.2  9,400 tokens/s"
    assert fitted("step 5  loss 3.2  9,400 tokens/s", 20) == "step 5  loss 3.2"
    assert fitted("step 5  loss 3.2", 6) == "step 5"
    assert fitted("step 5  loss 3.2", 4) == "ste…"
    assert fitted("", 10) == ""


class FakeDisplay:
    """What IPython.display gives, as far as a bar uses it."""

    def __init__(self) -> None:
        self.shown: list[dict[str, str]] = []

    def display(self, bundle: dict[str, str], raw: bool, display_id: bool) -> Any:
        assert raw
        assert display_id
        self.shown.append(bundle)
        return SimpleNamespace(update=lambda bundle, raw: self.shown.append(bundle))


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> FakeDisplay:
    display = FakeDisplay()
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return display


def test_a_notebook_has_a_bar_that_is_drawn_anew_in_its_place(notebook: FakeDisplay) -> None:
    with Bar("training") as bar:
        bar.spoke = 0.0
        bar.show(1, 4, "loss <3>")
        bar.show(2, 4, "too soon to be drawn")
        bar.show(3, 4, "loss 2")
        with Bar("evaluating", every=0.0) as inner:
            assert inner.cell is None  # one bar at a time
    assert [shown["text/plain"].split("  ")[2] for shown in notebook.shown] == ["loss <3>", "loss 2"]
    assert 'value="0.2500"' in notebook.shown[0]["text/html"]
    assert "&lt;3&gt;" in notebook.shown[0]["text/html"]
    assert not Bar.live_one


def test_a_bar_that_was_shown_nothing_draws_nothing(notebook: FakeDisplay) -> None:
    with Bar("training"):
        pass
    assert notebook.shown == []


@pytest.mark.parametrize("shell", [None, SimpleNamespace()])
def test_ipython_in_a_terminal_or_merely_imported_is_no_notebook(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert not in_notebook()
    monkeypatch.delitem(sys.modules, "IPython")
    assert not in_notebook()


def test_elsewhere_plain_lines_are_written_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar("training", every=0.0) as bar:
        bar.show(1, 4, "loss 3")
        bar.show(2, 4, "loss 2")
    first, second = capsys.readouterr().err.splitlines()
    assert first == "training   25 %  loss 3  ? left"
    assert second == "training   50 %  loss 2  0 s left"


def test_work_of_unknown_length_is_told_without_a_share(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Bar("preparing", every=0.0) as bar:
        bar.show(10, float("inf"), "1.2 GB")
    assert capsys.readouterr().err.strip() == "preparing  1.2 GB"
