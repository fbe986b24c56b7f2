"""Fixtures: an own cache folder, and a small real text."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing of the user's cache is read or written."""
    os.environ["HORNBOOK_HOME"] = str(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 90 kB of English in 40 files: sections of the language reference that every Python carries."""
    from pydoc_data.topics import topics

    folder = tmp_path_factory.mktemp("text")
    for number, key in enumerate(sorted(topics)[:40]):
        (folder / f"{number:02d}.txt").write_text(topics[key][:4000], encoding="utf-8")
    return folder
