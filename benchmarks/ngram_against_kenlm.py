"""Our modified Kneser-Ney beside KenLM's: seconds to estimate, perplexity, and the difference of every word's score.

    python benchmarks/ngram_against_kenlm.py TRAIN VALIDATION [--orders 3 5] [--repeat 3]

TRAIN and VALIDATION are files of one tokenised sentence a line; blank lines are dropped, and <unk> in them is an
ordinary word. `lmplz` is run where it is on the PATH (it is built from KenLM's sources). It reads text and writes
ARPA, so the time to set beside it is our whole way from the one file to the other; our counting alone is told apart.
Scores need the package `kenlm`. Times are the best of `--repeat` runs, the two programs taking turns.
"""

from __future__ import annotations

import argparse
import math
import shutil
import subprocess
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hornbook.formats.arpa import read_arpa, write_arpa
from hornbook.models.ngram import NGram, NGramConfig

PLAIN_UNKNOWN = "<UNK>"
"""Stands for <unk> in the text: lmplz refuses the word itself, and keeps it for words that it has not seen."""


def sentences(path: Path) -> Iterator[list[str]]:
    with path.open(encoding="utf-8", newline="\n") as file:
        for line in file:
            if words := [PLAIN_UNKNOWN if word == "<unk>" else word for word in line.split()]:
                yield words


def stream(path: Path, ids: dict[str, int]) -> np.ndarray:
    """sep s1 sep s2 sep ...; new words get the next id."""
    tokens = array("q", [0])
    for words in sentences(path):
        tokens.extend([*(ids.setdefault(word, len(ids)) for word in words), 0])
    return np.array(tokens)


def ours(train: Path, order: int, arpa: Path) -> tuple[NGram, dict[str, int], dict[str, float]]:
    began = time.perf_counter()
    ids = {"</s>": 0, "<unk>": 1}
    tokens = stream(train, ids)
    read = time.perf_counter()
    model = NGram(NGramConfig("ngram", vocab=len(ids), bos=0, eos=0, order=order))
    model.fit(tokens)
    fitted = time.perf_counter()
    write_arpa(model, arpa, list(ids))
    written = time.perf_counter()
    return model, ids, {"read": read - began, "fit": fitted - read, "write": written - fitted, "all": written - began}


def lmplz(program: str, text: Path, order: int, arpa: Path) -> float:
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        command = [program, "-o", str(order), "--text", str(text), "--arpa", str(arpa), "-S", "1G", "-T", folder]
        subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def word_scores(model: NGram, tokens: np.ndarray) -> np.ndarray:
    """log10 p of every word and sentence end of a stream."""
    text = torch.from_numpy(tokens)[None]
    return model.log_prob(text[:, :-1], text[:, 1:])[0].double().numpy() / math.log(10)


def perplexity(log10: np.ndarray) -> float:
    return 10 ** -log10.mean()


def best(rows: list[dict[str, float]]) -> dict[str, float]:
    return min(rows, key=lambda row: row["all"])


def optional(load: Callable[[], Any]) -> Any:
    try:
        return load()
    except ImportError:
        return None


def compare(order: int, train: Path, validation: Path, program: str | None, repeat: int, folder: Path) -> None:
    kenlm = optional(lambda: __import__("kenlm"))
    plain = folder / "plain.txt"
    plain.write_text("".join(" ".join(words) + "\n" for words in sentences(train)), encoding="utf-8")
    mine, theirs, times, their_times = folder / "ours.arpa", folder / "lmplz.arpa", [], []
    for _ in range(repeat):
        model, ids, took = ours(train, order, mine)
        times.append(took)
        if program:
            their_times.append(lmplz(program, plain, order, theirs))
    took, words = best(times), list(ids)
    tokens = stream(validation, dict(ids))
    if tokens.max() >= len(words):
        tokens = np.where(tokens < len(words), tokens, 1)
    scores = word_scores(model, tokens)
    print(f"order {order}: {len(scores):,} words and sentence ends scored")
    parts = f"text {took['read']:.2f}, counts and estimates {took['fit']:.2f}, ARPA {took['write']:.2f}"
    print(f"  ours           {took['all']:6.2f} s, perplexity {perplexity(scores):.4f}  ({parts})")
    if kenlm:
        peer = kenlm.Model(str(mine))
        asked = np.array([s for line in sentences(validation) for s, _, _ in peer.full_scores(" ".join(line))])
        print(f"  ours in kenlm            perplexity {perplexity(asked):.4f}  ({difference(asked, scores)})")
    if not program:
        print("  lmplz is not on the PATH: no time to set beside ours")
        return
    peer_model, peer_words = read_arpa(theirs)
    renumber = {word: i for i, word in enumerate(peer_words)}
    peer_scores = word_scores(peer_model, np.array([renumber[word] for word in words])[tokens])
    fastest = min(their_times)
    apart = difference(peer_scores, scores)
    print(f"  lmplz          {fastest:6.2f} s, perplexity {perplexity(peer_scores):.4f}  ({apart})")
    ratio, without = took["all"] / fastest, (took["read"] + took["fit"]) / fastest
    print(f"  ours / lmplz   {ratio:6.2f}    ({without:.2f} up to the finished model, without our ARPA file)")


def difference(a: np.ndarray, b: np.ndarray) -> str:
    return f"largest difference of a log10 score from ours {np.abs(a - b).max():.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("validation", type=Path)
    parser.add_argument("--orders", type=int, nargs="+", default=[3, 5])
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    for order in given.orders:
        with tempfile.TemporaryDirectory() as folder:
            compare(order, given.train, given.validation, shutil.which("lmplz"), given.repeat, Path(folder))


if __name__ == "__main__":
    main()
