"""The four WikiText corpora (Merity et al. 2016): Good and Featured articles of Wikipedia, one document an article.

`-2` and `-103` are the tokenised forms, in which rare words are `<unk>`; `-raw` has the articles' own text. Joined, the
documents are the original file, byte for byte.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator
from pathlib import Path

from hornbook.errors import UserError
from hornbook.text.corpus import Corpus
from hornbook.text.files import decode
from hornbook.text.home import data_folder
from hornbook.text.hub import rows

LICENCE = "CC BY-SA 3.0"
DATASET = "Salesforce/wikitext"
PARTS = {"train": "train", "validation": "valid", "test": "test"}
BLANK = " \n"

# SHA-256 of the original files, where one was at hand to compute it.
KNOWN = {
    ("wikitext-2", "train"): "9e9fa1ad55b1c2c95b08e37dd8e653f638fac2c6de904b79e813611eefbc985f",
    ("wikitext-2", "validation"): "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8",
    ("wikitext-2-raw", "validation"): "4cd0f6876d07a413aa911261ff6d363c72d757d47f0fdd6015702014c89cb9c7",
}


def wikitext_corpus(name: str) -> Corpus:
    """The corpus `wikitext-2`, `wikitext-2-raw`, `wikitext-103` or `wikitext-103-raw`."""
    source = f"{DATASET} ({name}-v1) on the Hugging Face Hub, or $HORNBOOK_DATA/{name}"
    return Corpus(name, LICENCE, source, lambda split: articles(_lines(name, split)))


def _lines(name: str, split: str) -> Iterable[str]:
    file = _local(name, split)
    if file is None:
        try:
            # The Hub's rows are the lines, of which it has emptied those of white space.
            lines: Iterable[str] = (row or BLANK for row in rows(DATASET, f"{name}-v1", split))
        except UserError as error:
            part = PARTS[split]
            raise UserError(f"{error}. Or name a folder with {name}/{part}.txt in HORNBOOK_DATA.") from None
        text, origin = None, "from the Hub"
    else:
        text, origin = decode(file.read_bytes(), str(file)), f"in {file}"
        lines = io.StringIO(text, newline="\n")
    if expected := KNOWN.get((name, split)):
        text = "".join(lines) if text is None else text
        if (found := hashlib.sha256(text.encode()).hexdigest()) != expected:
            raise UserError(f"the {split} text of {name} {origin} has sha256 {found[:12]}..., not {expected[:12]}...")
        return io.StringIO(text, newline="\n")  # cut at line feeds alone
    return lines


def _local(name: str, split: str) -> Path | None:
    """The split's file in $HORNBOOK_DATA, under either of the names that it goes by."""
    folder = data_folder()
    if folder is None:
        return None
    part = PARTS[split]
    names = (f"{part}.txt", f"wiki.{part}.{'raw' if name.endswith('-raw') else 'tokens'}")
    return next((folder / name / file for file in names if (folder / name / file).is_file()), None)


def articles(lines: Iterable[str]) -> Iterator[str]:
    """Lines put together to articles. One begins at a title, ` = Title = ` between blank lines; what stands before the
    first title belongs to the first article, and the blank line before a title to the title."""
    article: list[str] = []
    begun, blank_before, waiting = False, True, ""
    for line in lines:
        if waiting and line.strip() == "":  # a title, and a blank line after it
            if begun:
                opening = [article.pop()] if article and not article[-1].strip() else []
                yield "".join(article)
                article = opening
            begun = True
        if waiting:
            article.append(waiting)
            waiting = ""
        if blank_before and _is_title(line):
            waiting = line
        else:
            article.append(line)
        blank_before = line.strip() == ""
    if article or waiting:
        yield "".join(article) + waiting


def _is_title(line: str) -> bool:
    return line.startswith(" = ") and line.endswith(" = \n") and not line.startswith(" = = ") and len(line) > 6
