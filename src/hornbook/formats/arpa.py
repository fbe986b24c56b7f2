"""ARPA files: the plain-text form in which KenLM, SRILM and others keep n-gram models.

A section a length; a line is log10 p, the words, and log10 of the back-off weight (0 where it is left out). Three words
are special: </s> is our `eos` as a prediction; <s> is a separator (`bos` or `eos`) as context and is never predicted;
<unk>, where a file has it, is a word like any other. A probability of 0 is written as -99, as everybody does, and
stays 1e-99 when read.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hornbook.atomic import written_aside
from hornbook.errors import UserError
from hornbook.layers.ngram_counts import Table
from hornbook.models.ngram import MAX_ORDER, NGram, NGramConfig

START, END = "<s>", "</s>"
ZERO = -99.0
LN10 = math.log(10)


def write_arpa(model: NGram, path: str | Path, words: list[str]) -> None:
    """Write `model` with words[i] for token id i; the file appears whole or not at all.

    `eos` is written as </s>. Where `bos` is another id it is only ever context, so predictions of it are left out.
    Raises UserError when words do not fit the model, or cannot stand in an ARPA file, and for an 'add-k' model above
    order 2, which no back-off weights describe.
    """
    c = model.config
    if c.smoothing == "add-k" and c.order > 2:
        raise UserError(f"an add-k model of order {c.order} is no back-off model: ARPA can hold add-k of order 1 and 2")
    names = spelled(model, words)
    with written_aside(path) as aside, aside.open("w", encoding="utf-8", newline="\n") as file:
        write_sections(model, file, names)


def spelled(model: NGram, words: list[str]) -> list[str]:
    """The name of every word of the model, its context word <s> last."""
    c = model.config
    if len(words) != c.vocab:
        raise UserError(f"{len(words)} words were given for a vocabulary of {c.vocab}")
    names = [*words, START]
    if c.eos is not None:
        names[c.eos] = END
    if c.bos is not None and c.bos != c.eos:
        names[c.bos] = START
    seen: dict[str, int] = {}
    for i, name in enumerate(names):
        if not name or any(space in name for space in " \t\n\r\0"):
            raise UserError(f"word {i}, {name!r}, is empty or holds white space, which ARPA files cannot express")
        if seen.setdefault(name, i) != i and not (name == START and i == c.vocab and seen[name] == c.bos):
            raise UserError(
                f"words {seen[name]} and {i} are both written {name!r}: an ARPA file cannot tell them apart"
            )
    return names


def write_sections(model: NGram, file: TextIO, names: list[str]) -> None:
    c = model.config
    base = c.vocab + 1
    keys = [np.arange(base), *(model.get_buffer(f"keys_{k}").cpu().numpy() for k in range(2, c.order + 1))]
    unwritten = c.bos if c.bos is not None and c.bos != c.eos else -1
    kept = [np.flatnonzero(level % base != unwritten).tolist() for level in keys]
    file.write("\\data\\\n")
    file.writelines(f"ngram {k}={len(rows)}\n" for k, rows in enumerate(kept, start=1))
    grams = names
    for k, (level, rows) in enumerate(zip(keys, kept, strict=True), start=1):
        if k > 1:
            ends = zip((level // base).tolist(), (level % base).tolist(), strict=True)
            grams = [f"{grams[prefix]} {names[word]}" for prefix, word in ends]
        probs = np.minimum(log10(model.get_buffer(f"log_probs_{k}")), 0.0)  # rounding may have gone above 1
        if k == 1:
            probs[-1] = ZERO
        scores, rest = probs.tolist(), written(model.get_buffer(f"backoffs_{k}")) if k < c.order else [""] * len(level)
        file.write(f"\n\\{k}-grams:\n")
        file.writelines(f"{scores[i]:.9g}\t{grams[i]}{rest[i]}\n" for i in rows)
    file.write("\n\\end\\\n")


def log10(natural: Tensor) -> NDArray[np.float64]:
    return np.maximum(natural.cpu().numpy().astype(np.float64) / LN10, ZERO)


def written(backoffs: Tensor) -> list[str]:
    """Back-off weights as they end a line; each of the few different ones is spelled once."""
    values, rows = np.unique(log10(backoffs), return_inverse=True)
    spellings = [f"\t{value:.9g}" for value in values.tolist()]
    return [spellings[row] for row in rows.tolist()]


def read_arpa(path: str | Path) -> tuple[NGram, list[str]]:
    """The model in an ARPA file, and its words: token id i is words[i], in the file's order, without <s>.

    `bos` and `eos` are the id of </s> (None without one). Raises UserError, with the line's number, for a malformed
    file. Orders above 7 are refused.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no ARPA file {path}")
    with path.open(encoding="utf-8", newline="\n") as file:
        try:
            return Reader(file, path).read()
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is not UTF-8: {error.reason} at byte {error.start} of a block") from None


class Reader:
    """One pass over a file, a section at a time; what it holds is one section's numbers."""

    def __init__(self, file: TextIO, path: Path) -> None:
        self.lines: Iterator[str] = iter(file)
        self.path, self.number = path, 0
        self.ids: dict[str, int] = {}

    def read(self) -> tuple[NGram, list[str]]:
        sizes = self.header()
        tables: list[Table] = []
        for k, size in enumerate(sizes, start=1):
            self.expect(f"\\{k}-grams:")
            tables.append(self.unigrams(size) if k == 1 else self.section(k, size, tables, last=k == len(sizes)))
        self.expect("\\end\\")
        words = [word for word in self.ids if word != START]
        end = self.ids.get(END)
        config = NGramConfig("ngram", vocab=len(words), bos=end, eos=end, order=len(sizes), smoothing="arpa")
        model = NGram(config)
        model.store(tables)
        return model, words

    def header(self) -> list[int]:
        """Number of n-grams of each length."""
        while (line := self.next()) != "\\data\\":
            if line.startswith("\\"):
                raise self.wrong(f"expected \\data\\, found {line!r}")
        sizes: list[int] = []
        while line := self.next(blank=True):
            label, _, count = line.partition("=")
            if label.split() != ["ngram", str(len(sizes) + 1)] or not count.strip().isdecimal() or len(count) > 20:
                raise self.wrong(f"expected 'ngram {len(sizes) + 1}=COUNT', found {line!r}")
            sizes.append(int(count))
        if not 1 <= len(sizes) <= MAX_ORDER:
            raise self.wrong(f"the file has order {len(sizes)}; possible are 1 to {MAX_ORDER}")
        return sizes

    def unigrams(self, size: int) -> Table:
        """Level 1, and the ids of all words; <s> comes last whatever its place in the file."""
        probs, weights = [], []
        for prob, (word,), weight in self.entries(1, size):
            if word in self.ids:
                raise self.wrong(f"the word {word!r} stands here for the second time")
            self.ids[word] = -1
            probs.append(prob)
            weights.append(weight)
        names = list(self.ids)
        if START not in self.ids:
            probs.append(-math.inf)
            weights.append(0.0)
            names.append(START)
        start = names.index(START)
        order = [i for i in range(len(names)) if i != start] + [start]
        self.ids = {names[row]: i for i, row in enumerate(order)}
        return Table(np.arange(len(order)), np.array(probs)[order] * LN10, np.array(weights)[order] * LN10)

    def section(self, k: int, size: int, tables: list[Table], last: bool) -> Table:
        """Level k, its n-grams found in the levels below it by their first k-1 words."""
        first = self.number + 1
        flat, scores, weights = array("q"), array("d"), array("d")
        for prob, words, weight in self.entries(k, size):
            if unknown := [word for word in words if word not in self.ids]:
                raise self.wrong(f"the word {unknown[0]!r} is not among the 1-grams")
            flat.extend([self.ids[word] for word in words])
            scores.append(prob)
            weights.append(weight)
        ids, probs, backoffs = np.array(flat, np.int64).reshape(size, k), np.array(scores), np.array(weights)
        base = len(self.ids)
        rows = ids[:, 0]
        for below, column in zip(tables[1:], ids.T[1:], strict=False):
            rows = self.prefixes(below, rows * base + column, first)
        keys = rows * base + ids[:, -1]
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        if len(twice := np.flatnonzero(keys[1:] == keys[:-1])):
            self.number = first + int(order[twice + 1].min())
            raise self.wrong("this n-gram stands here for the second time")
        return Table(keys, probs[order] * LN10, np.zeros(size) if last else backoffs[order] * LN10)

    def prefixes(self, below: Table, wanted: NDArray[np.int64], first: int) -> NDArray[np.int64]:
        """Rows of n-grams in a lower level; every n-gram must have its beginning there."""
        places = np.searchsorted(below.keys, wanted).clip(max=max(len(below.keys) - 1, 0))
        missing = below.keys[places] != wanted if len(below.keys) else np.ones(len(wanted), bool)
        if missing.any():
            self.number = first + int(np.flatnonzero(missing)[0])
            raise self.wrong("the words before the last are not among the shorter n-grams")
        return places

    def entries(self, k: int, size: int) -> Iterator[tuple[float, list[str], float]]:
        """The lines of a section: log10 p, k words, log10 of the back-off weight."""
        for _ in range(size):
            line = self.next(blank=True)
            fields = line.replace("\t", " ").split(" ")
            if len(fields) not in (k + 1, k + 2):
                if not line or line.startswith("\\"):
                    raise self.wrong(f"the section \\{k}-grams: ends before the {size} n-grams that the header states")
                raise self.wrong(f"expected a number, {k} words and perhaps a number, found {line!r}")
            try:
                prob, weight = float(fields[0]), float(fields[k + 1]) if len(fields) > k + 1 else 0.0
            except ValueError:
                raise self.wrong(f"expected numbers around the words, found {line!r}") from None
            if not prob <= 0 or math.isnan(weight) or weight == math.inf:
                raise self.wrong(f"log10 of a probability and of a weight cannot be {fields[0]} and {weight}")
            yield prob, fields[1 : k + 1], weight

    def expect(self, wanted: str) -> None:
        if (line := self.next()) != wanted:
            raise self.wrong(f"expected {wanted}, found {line!r}")

    def next(self, blank: bool = False) -> str:
        """The next line, without white space at its ends; empty lines are skipped unless asked for."""
        for line in self.lines:
            self.number += 1
            line = line.strip(" \t\r\n")
            if line or blank:
                return line
        raise UserError(f"{self.path} ends after line {self.number}, before \\end\\: it is cut off or no ARPA file")

    def wrong(self, reason: str) -> UserError:
        return UserError(f"{self.path}, line {self.number}: {reason}")
