"""What the book's pictures have in common: colours, the default corpus, boxes and arrows."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from hornbook.data.shards import open_split
from hornbook.text.corpora import open_corpus
from hornbook.text.tokenizer_store import obtain_tokenizer

FOLDER = Path(__file__).parent.parent / "pictures"
INK, QUIET, BLUE, ORANGE, GREEN = "#333333", "#8a8a8a", "#2a6f97", "#d1702a", "#4c8c4a"
plt.rcParams |= {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": QUIET,
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.hashsalt": "hornbook",
    "savefig.facecolor": "white",
    "svg.fonttype": "none",
    "figure.figsize": (6.4, 3.2),
}


def counted() -> tuple[np.ndarray, np.ndarray, int]:
    """The default corpus as tokens: to train on, to validate on, and the vocabulary's size."""
    corpus = open_corpus("python-docs", "text")
    tokenizer = obtain_tokenizer("bpe", corpus, None)
    parts = [np.asarray(open_split(corpus, tokenizer, split).tokens) for split in ("train", "validation")]
    return parts[0].astype(np.int64), parts[1].astype(np.int64), tokenizer.vocab


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str, width: float) -> None:
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": colour, "lw": width, "shrinkA": 0})
