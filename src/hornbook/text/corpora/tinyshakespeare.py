"""Tiny Shakespeare (Karpathy 2015): 1.1 MB of plays. A document is 20 speeches in a row; the first 90 % are to train
on, the next 5 % to validate, the last 5 % to test. Joined, the documents are the file."""

from __future__ import annotations

import hashlib

from hornbook.errors import UserError
from hornbook.text.corpus import Corpus
from hornbook.text.downloads import download
from hornbook.text.home import data_folder, home

SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
ADDRESSES = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
    "https://cdn.jsdelivr.net/gh/karpathy/char-rnn@master/data/tinyshakespeare/input.txt",
)
SPEECHES = 20


def corpus() -> Corpus:
    """The corpus; nothing is read or downloaded before its first document is asked for."""
    source = "karpathy/char-rnn on GitHub, or $HORNBOOK_DATA/tinyshakespeare"
    return Corpus("tinyshakespeare", "public domain", source, _documents)


def _documents(split: str) -> list[str]:
    speeches = _text().split("\n\n")
    whole = [speech + "\n\n" for speech in speeches[:-1]] + speeches[-1:]
    groups = ["".join(whole[at : at + SPEECHES]) for at in range(0, len(whole), SPEECHES)]
    first, second = len(groups) * 90 // 100, len(groups) * 95 // 100
    return {"train": groups[:first], "validation": groups[first:second], "test": groups[second:]}[split]


def _text() -> str:
    folder = data_folder()
    file = folder / "tinyshakespeare" / "input.txt" if folder else None
    if file is None or not file.is_file():
        try:
            target = home() / "tinyshakespeare" / "input.txt"
            file = download(ADDRESSES, target, SHA256)
        except UserError as error:
            raise UserError(f"{error}. Or name a folder with tinyshakespeare/input.txt in HORNBOOK_DATA.") from None
    data = file.read_bytes()
    if (found := hashlib.sha256(data).hexdigest()) != SHA256:
        raise UserError(f"{file} has sha256 {found[:12]}..., not {SHA256[:12]}...: it is not the original")
    return data.decode()
