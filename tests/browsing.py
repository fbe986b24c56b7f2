"""A Chromium that tests drive, and what axe finds wrong with a page in it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]


@contextlib.contextmanager
def started() -> Iterator[Any]:
    """A browser, through Playwright; the test is skipped where either is missing."""
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if CHROMIUM is None:
        pytest.skip("needs a Chromium on the PATH")
    with api.sync_playwright() as play:
        found = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()


def faults(browser: Any, page: Path, leave_out: tuple[str, ...] = ()) -> list[str]:
    """What axe finds in a page in light and in dark, each with the first element that has it."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python").Axe()
    found = []
    for scheme in ("light", "dark"):
        with contextlib.closing(browser.new_context(color_scheme=scheme, viewport={"width": 1200, "height": 900})) as c:
            visit = c.new_page()
            visit.goto(page.resolve().as_uri())
            violations = axe.run(visit).response["violations"]
        found += [f"{scheme} {v['id']}: {v['nodes'][0]['html']}" for v in violations if v["id"] not in leave_out]
    return found
