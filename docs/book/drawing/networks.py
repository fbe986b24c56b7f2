"""The pictures of chapters 3 to 9."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import hornbook
from drawing.common import BLUE, GREEN, INK, ORANGE, QUIET, arrow, counted
from hornbook import models
from hornbook.inspection.lens import attention_weights
from hornbook.layers import initialise
from hornbook.layers.model import LanguageModel
from hornbook.layers.positions import rotary_angles, rotate
from hornbook.log import read_log
from hornbook.models.ngram import NGramConfig
from hornbook.pictures.recurrence import held_out, reaches

TINY: dict[str, Any] = {"layers": 2, "dim": 128, "heads": 4, "context": 128}
SENTENCE = "Return the list of the keys, and the values of the list."

Log = list[dict[str, Any]]


def taught(size: str, steps: int, **settings: Any) -> tuple[LanguageModel, Log]:
    """A model after so many steps on the default corpus, and what its run wrote down; its folder is gone afterwards."""
    usual = {"batch": 8, "warmup": 20, "eval_tokens": 4000, "compile": "no", "attention": "fused"}
    with tempfile.TemporaryDirectory() as folder:
        run = f"{folder}/run"
        hornbook.train(size, steps=steps, out=run, **usual | settings)
        return hornbook.load(run), read_log(run)


def scores(log: Log) -> tuple[list[int], list[float], list[float]]:
    """Tokens read, seconds and bits per byte at each evaluation."""
    read = {line["step"]: line["tokens"] for line in log if "tokens" in line}
    seen = [line for line in log if "validation_bits_per_byte" in line]
    bits = [line["validation_bits_per_byte"] for line in seen]
    return [read[line["step"]] for line in seen], [line["seconds"] for line in seen], bits


def reach() -> Figure:
    """How far back a recurrent model's gradient goes: as it begins, and after a hundred steps."""
    figure, panels = plt.subplots(1, 2, sharey=True, figsize=(7.2, 3.2))
    kinds = {"tanh, PyTorch's weights": QUIET, "tanh, orthogonal": GREEN, "GRU": ORANGE, "LSTM": BLUE}
    vocab = counted()[2]
    for (name, colour), cell in zip(kinds.items(), ("tanh", "tanh", "gru", "lstm"), strict=True):
        with usual_weights("PyTorch" in name):
            torch.manual_seed(0)
            begun = models.build(models.find_size("rnn-tiny").replace(cell=cell, vocab=vocab)).eval()
            later, _ = taught("rnn-tiny", 100, cell=cell, context=64, eval_every=100)
        for axes, model in zip(panels, (begun, later), strict=True):
            norms = reaches(model, held_out(later)).numpy()
            axes.plot(range(len(norms)), norms / norms[0], color=colour, label=name)
    for axes, title in zip(panels, ("as it begins", "after 100 steps"), strict=True):
        axes.set(xlabel="tokens back", yscale="log", title=title, ylim=(1e-10, 3))
    panels[0].set_ylabel("gradient, against the nearest token's")
    panels[1].legend(frameon=False, fontsize=8, loc="lower left")
    return figure


@contextlib.contextmanager
def usual_weights(wanted: bool) -> Iterator[None]:
    """Recurrent matrices drawn as PyTorch does, uniformly, instead of orthogonal."""
    ours = initialise.initialise_recurrent
    if wanted:
        initialise.initialise_recurrent = lambda module: module.reset_parameters()  # type: ignore[assignment]
    try:
        yield
    finally:
        initialise.initialise_recurrent = ours


def pattern() -> Figure:
    """Where two heads of a small trained model look: one at the token before, one farther back."""
    model, _ = taught("llama-tiny", 200, mlp=352, eval_every=200, **TINY)
    assert model.config.bos is not None
    ids = [model.config.bos, *model.tokenizer.encode(SENTENCE)]
    names = ["start", *(model.tokenizer.piece(i).strip() or "_" for i in ids[1:])]
    heads = [(layer, head) for layer in range(TINY["layers"]) for head in range(TINY["heads"])]
    seen = [attention_weights(model, torch.tensor(ids), *place) for place in heads]
    near = max(seen, key=lambda weights: float(weights.diagonal(-1)[1:].mean()))
    far = max(seen, key=lambda weights: float(weights.tril(-2)[3:, 1:].amax(1).mean()))
    figure, panels = plt.subplots(1, 2, sharey=True, figsize=(8.0, 4.0), layout="constrained")
    hidden = np.triu(np.ones((len(ids), len(ids)), bool), 1)
    titles = "most drawn to the token before", "most drawn farther back"
    for axes, weights, title in zip(panels, (near, far), titles, strict=True):
        image = axes.imshow(np.ma.masked_where(hidden, weights.numpy()), cmap="Blues", vmin=0, vmax=0.7)
        axes.set_xticks(range(len(ids)), names, rotation=90, fontsize=8)
        axes.set(xlabel="looks at", title=title)
    panels[0].set_yticks(range(len(ids)), names, fontsize=8)
    panels[0].set_ylabel("token")
    figure.colorbar(image, ax=panels, shrink=0.8, label="weight", extend="max")
    return figure


def both_sides() -> Figure:
    """What a hidden token costs chapter 2's bigram model, which sees some of its neighbours."""
    train, held, vocab = counted()
    places = np.arange(1, len(held) - 1, 8)
    left, goal, right = (torch.from_numpy(held[places + shift]) for shift in (-1, 0, 1))
    alone, after = following(train, vocab, 1)[0], following(train, vocab, 2)
    views = {
        "nothing": alone.expand(len(goal), -1),
        "the token before": after[left],
        "the token after": alone + after[:, right].T,
        "both": after[left] + after[:, right].T,
    }
    figure, axes = plt.subplots(figsize=(6.4, 2.2))
    for row, (name, logits) in enumerate(views.items()):
        bits = float(torch.nn.functional.cross_entropy(logits, goal)) / np.log(2)
        axes.barh(row, bits, color=ORANGE if name == "both" else BLUE, height=0.6)
        axes.text(bits + 0.1, row, f"{bits:.1f}", va="center", color=INK)
    axes.set_yticks(range(len(views)), list(views))
    axes.set(xlabel="bits of surprise at a hidden token", ylabel="it sees")
    axes.invert_yaxis()
    return figure


def following(tokens: np.ndarray, vocab: int, order: int) -> torch.Tensor:
    """(V,V) log-probabilities: what follows each token, by a counted model."""
    model = models.build(NGramConfig("ngram", vocab=vocab, order=order))
    model.fit(tokens)
    return torch.cat([model(ids[:, None])[:, -1] for ids in torch.arange(vocab).split(512)]).float()


def block() -> Figure:
    """GPT-2's block: a stream, and two sub-layers that read from it and add to it."""
    figure, axes = plt.subplots(figsize=(6.4, 2.4))
    arrow(axes, (0, 2), (12, 2), BLUE, 3)
    for start, name in ((0.8, "attention"), (6.6, "MLP")):
        end = start + 4.6
        axes.plot([start, start, end], [2, 0.5, 0.5], color=INK)
        arrow(axes, (end, 0.5), (end, 1.75), INK, 1)
        boxed(axes, start + 1.1, 0.5, "norm", "round,pad=0.5", INK)
        boxed(axes, start + 3.2, 0.5, name, "round,pad=0.5", INK)
        boxed(axes, end, 2, "+", "circle,pad=0.2", BLUE)
    axes.text(0, 2.35, "the residual stream", color=BLUE)
    axes.set(xlim=(-0.1, 12.2), ylim=(-0.1, 2.7))
    axes.axis("off")
    return figure


def boxed(axes: Axes, x: float, y: float, words: str, style: str, colour: str) -> None:
    box = {"boxstyle": style, "facecolor": "white", "edgecolor": colour}
    axes.text(x, y, words, ha="center", va="center", color=INK, bbox=box, zorder=3)


def opt_and_gpt2() -> Figure:
    """Two families over what they read, and over the time that it takes them."""
    figure, panels = plt.subplots(1, 2, sharey=True, figsize=(7.2, 3.0))
    for size, colour in (("gpt2-tiny", BLUE), ("opt-tiny", ORANGE)):
        tokens, seconds, bits = scores(taught(size, 150, eval_every=15, **TINY)[1])
        panels[0].plot([count / 1000 for count in tokens], bits, color=colour, marker="o", markersize=3)
        name = size.removesuffix("-tiny").upper().replace("GPT2", "GPT-2")
        panels[1].plot(seconds, bits, color=colour, marker="o", markersize=3, label=name)
    panels[0].set(xlabel="thousand tokens read", ylabel="bits per byte")
    panels[1].set(xlabel="seconds")
    panels[1].legend(frameon=False)
    return figure


def rotary() -> Figure:
    """The product of a query and an equal key, against how far apart they stand, for three of a head's pairs."""
    width, most = 64, 100
    distances = torch.arange(most + 1)[None]
    figure, axes = plt.subplots()
    for pair, colour in ((0, QUIET), (8, BLUE), (18, ORANGE)):
        x = torch.zeros(1, 1, 1, width)
        x[..., pair] = 1
        turned = rotate(x.expand(1, 1, most + 1, width), rotary_angles(distances, width, 10000.0))
        once_round = 2 * np.pi * 10000.0 ** (2 * pair / width)
        told = f"pair {pair}: once round in {once_round:,.0f} tokens"
        axes.plot(distances[0], (turned * x).sum(-1)[0, 0], color=colour, lw=1 if pair == 0 else 2, label=told)
    axes.set(xlabel="tokens between query and key", ylabel="their product", ylim=(-1.1, 1.1))
    figure.legend(*axes.get_legend_handles_labels(), frameon=False, fontsize=8, ncols=3, loc="outside upper center")
    return figure


def course() -> Figure:
    """A run whose learning rate goes down at the end, and the same run whose rate does not."""
    small = {"tokenizer": "bytes", "layers": 1, "dim": 64, "heads": 2, "mlp": 176, "context": 64}
    figure, panels = plt.subplots(2, 1, sharex=True, height_ratios=(2.2, 1), figsize=(6.4, 3.8))
    for schedule, colour, words in (("constant", QUIET, "the rate stays up"), ("wsd", BLUE, "the rate goes down")):
        rate = {"optimizer": "adamw", "lr": 0.01, "schedule": schedule}
        _, log = taught("llama-tiny", 500, eval_every=25, **small, **rate)
        seen = [(line["step"], line["validation_bits_per_byte"]) for line in log if "validation_bits_per_byte" in line]
        rates = [(line["step"], line["lr"]) for line in log if "lr" in line]
        panels[0].plot(*zip(*seen, strict=True), color=colour, marker="o", markersize=3, label=words)
        panels[1].plot(*zip(*rates, strict=True), color=colour)
    panels[0].set(ylabel="bits per byte")
    panels[0].legend(frameon=False)
    panels[1].set(xlabel="steps", ylabel="learning rate", ylim=(0, None))
    return figure


PICTURES: dict[str, Callable[[], Figure]] = {
    "reach": reach,
    "pattern": pattern,
    "both-sides": both_sides,
    "block": block,
    "opt-and-gpt2": opt_and_gpt2,
    "rotary": rotary,
    "course": course,
}
