"""TinyStories (Eldan and Li 2023): 2.1 million stories in the words of small children, one document a story; train and
validation only. A sample of 0.9 MB in $HORNBOOK_DATA/tinystories-sample is taken instead where there is one: it does
not mark where stories end, so that it is cut into blocks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from hornbook.errors import UserError
from hornbook.text.corpus import Corpus
from hornbook.text.home import data_folder
from hornbook.text.hub import rows
from hornbook.text.splits import cut_one_document

LICENCE = "CDLA-Sharing-1.0"
DATASET = "roneneldan/TinyStories"
SAMPLE = "tinystories-sample/tiny_stories.txt"
SAMPLE_SHA256 = "c56cfd24fb1c542b141a396184b822a4db3672abdb4c49c6aa843171c5e822a5"


def corpus() -> Corpus:
    """The corpus; nothing is read or downloaded before its first document is asked for."""
    folder = data_folder()
    if folder and (folder / SAMPLE).is_file():
        file = folder / SAMPLE
        sample = "a sample of 0.9 MB without story ends"
        return Corpus("tinystories", LICENCE, sample, lambda split: cut_one_document(_sample(file))[split])

    def read(split: str) -> Iterable[str]:
        try:
            return rows(DATASET, "data", split)
        except UserError as error:
            raise UserError(f"{error}. Or name a folder with {SAMPLE} in HORNBOOK_DATA.") from None

    source = f"{DATASET} on the Hugging Face Hub"
    return Corpus("tinystories", LICENCE, source, read, lambda: ("train", "validation"))


def _sample(file: Path) -> str:
    data = file.read_bytes()
    if (found := hashlib.sha256(data).hexdigest()) != SAMPLE_SHA256:
        raise UserError(
            f"{file} has sha256 {found[:12]}..., not {SAMPLE_SHA256[:12]}...: it is not the sample known here"
        )
    return data.decode()
