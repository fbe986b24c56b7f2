"""Data sets of the Hugging Face Hub: their parquet files, verified against the Hub's own hashes.

The hashes that the Hub states at first use are pinned in `pins.json` beside the files; whatever is downloaded later
must have them, from whichever mirror it comes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from hornbook.atomic import write_text
from hornbook.errors import UserError, missing_extra
from hornbook.text.downloads import NETWORK_ERRORS, download, open_url, reason
from hornbook.text.files import read_documents
from hornbook.text.home import home

MIRRORS = ("https://huggingface.co", "https://hf-mirror.com")


def rows(
    dataset: str,
    folder: str,
    split: str,
    column: str = "text",
) -> Iterator[str]:
    """The text column of a data set's split, downloaded on first use. `dataset` is owner/name, `folder` one inside
    it."""
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise missing_extra("pyarrow", "hub", f"reading {dataset}") from None
    files = parquet_files(dataset, folder, split)
    return (text for file in files for text in read_documents(str(file), column))


def parquet_files(dataset: str, folder: str, split: str) -> list[Path]:
    """The local copies of a split's parquet files, in order."""
    place = home() / "hub" / dataset
    pins = _pins(place / folder / "pins.json", dataset, folder)
    names = sorted(name for name in pins if name.startswith(f"{split}-"))
    if not names:
        raise UserError(f"{dataset} has no {split} split in {folder}. Its files: {', '.join(sorted(pins))}.")
    return [
        download(
            [f"{mirror}/datasets/{dataset}/resolve/main/{folder}/{name}" for mirror in mirrors()],
            place / folder / name,
            pins[name],
        )
        for name in names
    ]


def mirrors() -> tuple[str, ...]:
    """Where the Hub is asked: `$HF_ENDPOINT` alone where it is set, else its own address and then its mirrors."""
    given = os.environ.get("HF_ENDPOINT")
    return (given.rstrip("/"),) if given else MIRRORS


def _pins(file: Path, dataset: str, folder: str) -> dict[str, str]:
    """File name -> SHA-256 of a data set's parquet files: as pinned, or as the Hub states them now."""
    if file.is_file():
        return json.loads(file.read_text(encoding="utf-8"))
    reasons = []
    for mirror in mirrors():
        url = f"{mirror}/api/datasets/{dataset}/tree/main/{folder}"
        try:
            with open_url(url) as response:
                entries = json.load(response)
            pins = {
                Path(entry["path"]).name: entry["lfs"]["oid"] for entry in entries if entry["path"].endswith(".parquet")
            }
        except (*NETWORK_ERRORS, ValueError, KeyError, TypeError) as error:
            odd = isinstance(error, (KeyError, TypeError))
            reasons.append(reason(url, "its answer is not the Hub's" if odd else error))
            continue
        write_text(file, json.dumps(pins, indent=1, sort_keys=True))
        return pins
    raise UserError(f"cannot reach the Hub for {dataset}: {'; '.join(reasons)}")
