"""The pictures of chapters 10 to 18."""

from __future__ import annotations

import math
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

import hornbook
from drawing.common import BLUE, GREEN, INK, ORANGE, QUIET, arrow
from hornbook import models
from hornbook.adapt.packing import Scheme
from hornbook.adapt.quantized import KINDS
from hornbook.config import Sampling, Train
from hornbook.data.batches import Batches
from hornbook.data.shards import open_split
from hornbook.evaluation.score import Scores, score
from hornbook.generation.answers import Request
from hornbook.generation.engine import Engine
from hornbook.generation.sampling import candidates
from hornbook.generation.stream import prompt_ids
from hornbook.generation.swift import quicken
from hornbook.inspection.lens import depths, streams, unembed
from hornbook.layers.model import LanguageModel
from hornbook.models.ngram import NGramConfig
from hornbook.scoring.intervals import wilson
from hornbook.text.corpora import open_corpus
from hornbook.text.tokenizer_store import obtain_tokenizer
from hornbook.text.tokenizers import Tokenizer
from hornbook.training.callbacks import Callback, Moment
from hornbook.training.optimizers import Optimizers
from hornbook.training.prepare import resolve_config

ROOT = Path(hornbook.__file__).parents[2]
"""The repository, whose tables some pictures draw."""


def counting(tokenizer: Tokenizer, order: int = 5) -> LanguageModel:
    """An n-gram model of the default corpus."""
    ids = {"bos": tokenizer.eos, "eos": tokenizer.eos, "pad": tokenizer.pad}
    model = models.build(NGramConfig("ngram", vocab=tokenizer.vocab, order=order, **ids))
    model.fit(np.asarray(open_split(open_corpus("python-docs", "text"), tokenizer, "train").tokens))
    model.tokenizer = tokenizer
    return model


def trained(
    kind: str,
    vocab: int | None,
    steps: int,
    rate: float,
    settled: bool = True,
    rows: int = 16,
    context: int = 64,
    **sizes: int,
) -> tuple[LanguageModel, list[float]]:
    """A model after some steps on the default corpus, without a run's folder or evaluations, and its losses in nats."""
    corpus = open_corpus("python-docs", "text")
    tokenizer = obtain_tokenizer(kind, corpus, vocab)
    torch.manual_seed(0)
    model = models.build(resolve_config(Train("llama-tiny", context=context, **sizes), tokenizer))
    model.tokenizer = tokenizer
    optimizers = Optimizers("muon", model, rate, 0.1, 0.95)
    batches = Batches(open_split(corpus, tokenizer, "train"), rows, context, seed=0)
    losses = []
    for step in range(steps):
        batch = batches.get(step)
        loss = model.nats(*batch.arguments) / batch.count
        loss.backward()
        optimizers.step(min(1.0, (step + 1) / 10, (steps - step) / (0.4 * steps) if settled else 1.0))
        losses.append(float(loss.detach()))
    return model.eval(), losses


def table_rows(page: str, heading: str) -> list[list[str]]:
    """The rows of the first table behind a heading in one of the repository's pages, without its head."""
    lines = (ROOT / page).read_text(encoding="utf-8").split(heading, 1)[1].splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("|"))
    table = lines[first:]
    last = next((i for i, line in enumerate(table) if not line.startswith("|")), len(table))
    return [[cell.strip().replace("**", "") for cell in line.strip("|").split("|")] for line in table[2:last]]


def units() -> Figure:
    """One way of counting over five vocabularies, in two units."""
    corpus, found = open_corpus("python-docs", "text"), dict[str, Scores]()
    for vocab in (259, 512, 1024, 4096, 8192):
        tokenizer = obtain_tokenizer("bytes" if vocab == 259 else "bpe", corpus, vocab)
        name = "bytes" if vocab == 259 else f"{vocab:,} tokens"
        found[name] = score(counting(tokenizer), open_split(corpus, tokenizer, "validation"))
    figure, panels = plt.subplots(1, 2, sharey=True, figsize=(7.2, 2.8))
    units = {"token perplexity": [s.token_perplexity for s in found.values()]}
    units["bits per byte"] = [s.bits_per_byte or math.nan for s in found.values()]
    for axes, (unit, values), colour in zip(panels, units.items(), (QUIET, BLUE), strict=True):
        axes.barh(list(found), values, color=colour, height=0.6)
        for row, value in enumerate(values):
            axes.text(
                value, row, f" {value:.3g}" if unit == "token perplexity" else f" {value:.2f}", va="center", color=INK
            )
        axes.set(xlabel=unit, xlim=(0, 1.18 * max(values)))
    panels[0].invert_yaxis()
    return figure


def reviews() -> Figure:
    """The accuracies of docs/tasks.md with their intervals, and how wide one is on few reviews."""
    rows = [(row[0].split(",")[0], float(row[1]), 25_000) for row in table_rows("docs/tasks.md", "**IMDb")]
    figure, axes = plt.subplots(figsize=(6.4, 2.4))
    for place, (_, share, count) in enumerate(rows):
        low, high = wilson(share, count)
        axes.plot([100 * low, 100 * high], [place, place], color=BLUE, linewidth=5, solid_capstyle="butt")
        axes.plot(100 * share, place, "o", color="white", markeredgecolor=BLUE, markersize=6)
        low, high = wilson(share, 200)
        axes.plot([100 * low, 100 * high], [place + 0.25, place + 0.25], color=QUIET, linewidth=1.5)
        axes.annotate(f"{share:.1%}", (100 * share, place), (0, 7), textcoords="offset points", ha="center", color=INK)
    axes.set(xlabel="accuracy, %", yticks=range(len(rows)), xlim=(40, 100), ylim=(len(rows) - 0.4, -0.6))
    axes.set_yticklabels([name for name, _, _ in rows])
    for colour, width, words in ((BLUE, 5, "95 % interval, 25,000 reviews"), (QUIET, 1.5, "the same share of 200")):
        axes.plot([], [], color=colour, linewidth=width, label=words)
    axes.legend(frameon=False, fontsize=8, loc="upper right")
    return figure


def cuts() -> Figure:
    """What temperature does to the probabilities of one step, and where the cuts fall."""
    model = counting(obtain_tokenizer("bpe", open_corpus("python-docs", "text"), None))
    logits = model(torch.tensor([prompt_ids(model, "Return the ")]))[:, -1]
    figure, axes = plt.subplots()
    for temperature, colour in ((0.5, GREEN), (1.0, BLUE), (2.0, ORANGE)):
        chances = candidates(logits, [[]], [[]], Sampling(temperature=temperature)).softmax(-1)[0].sort(descending=True)
        axes.plot(range(1, len(chances.values) + 1), chances.values, color=colour, label=f"temperature {temperature:g}")
    settings = {"top-p 0.9": Sampling(top_p=0.9), "top-k 10": Sampling(top_k=10), "min-p 0.05": Sampling(min_p=0.05)}
    for height, (name, setting) in zip((0.5, 0.16, 0.05), settings.items(), strict=True):
        count = int(candidates(logits, [[]], [[]], setting).isfinite().sum())
        axes.axvline(count + 0.5, color=QUIET, linewidth=1, linestyle="--")
        axes.text(count + 0.5, height, f" {name}: {count}", color=INK, fontsize=8)
    axes.set(xscale="log", yscale="log", xlabel="token, by its rank", ylabel="probability", ylim=(1e-7, 1.3))
    axes.legend(frameon=False, fontsize=8, loc="lower left")
    return figure


def errors() -> Figure:
    """How far numbers move by the way they are kept: normal ones, and some among them ten times as large."""
    torch.manual_seed(0)
    plain = torch.randn(512, 1024)
    spiked = torch.where(torch.rand(plain.shape) < 0.002, 10 * plain, plain)
    ways = {
        "int8, one scale a row": Scheme("int8", 0),
        "int8": Scheme("int8", 32),
        "int4": Scheme("int4", 32),
        "int4, symmetric": Scheme("int4", 32, symmetric=True),
        "nf4": Scheme("nf4", 64),
        "nf4, scales in 8 bits": Scheme("nf4", 64, double=True),
    }
    figure, axes = plt.subplots(figsize=(6.4, 2.8))
    labels = []
    for place, (name, scheme) in enumerate(ways.items()):
        kind, found = KINDS[scheme.kind], []
        for numbers, colour in ((plain, BLUE), (spiked, ORANGE)):
            parts = kind.encode(numbers, scheme)
            rows = {n: p.repeat_interleave(256, 0) if n in ("steps", "means") else p for n, p in parts.items()}
            error = float((kind.decode(rows, scheme) - numbers).norm() / numbers.norm())
            found.append(100 * error)
            axes.plot(100 * error, place, "o", color=colour, zorder=3)
        axes.plot(found, [place, place], color=QUIET, linewidth=1)
        bits = 8 * sum(part.nbytes for part in parts.values()) / plain.numel()
        labels.append(f"{name}: {bits:.3g} bits")
    axes.set(xlabel="relative error, %", xscale="log", yticks=range(len(labels)), ylim=(len(labels) - 0.5, -0.5))
    axes.set_yticklabels(labels)
    axes.set_xticks([0.5, 1, 2, 5, 10, 20], ["0.5", "1", "2", "5", "10", "20"])
    axes.minorticks_off()
    for colour, name in ((BLUE, "normal numbers"), (ORANGE, "one in 500 ten times as large")):
        axes.plot([], [], "o", color=colour, label=name)
    axes.legend(frameon=False, fontsize=8, loc="upper right")
    return figure


def lens() -> Figure:
    """What a small model would say after each block, for each token of a line."""
    model, _ = trained("bpe", None, steps=110, rate=0.008, rows=8)
    ids = prompt_ids(model, "Return a list of the names of the")
    stood = streams(model, torch.tensor(ids))
    chances = torch.stack([unembed(model, stream) for stream in stood]).softmax(-1).max(-1)
    figure, axes = plt.subplots(figsize=(7.4, 2.6))
    axes.imshow(chances.values, cmap="Blues", vmin=0, vmax=1.2, aspect="auto")
    for (row, column), best in np.ndenumerate(chances.indices.numpy()):
        said = model.tokenizer.piece(int(best)).replace("\n", "\\n").replace(" ", "·")
        colour = "white" if chances.values[row, column] > 0.6 else INK
        axes.text(column, row, said[:9], ha="center", va="center", fontsize=7, color=colour)
    read = ["(start)", *(model.tokenizer.piece(i).replace(" ", "·") for i in ids[1:])]
    axes.set(yticks=range(len(stood)), xticks=range(len(ids)))
    axes.set_yticklabels([f"after {name}" for name in depths(model)])
    axes.set_xticklabels(read)
    axes.set_xlabel("what has been read; · is a space")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def envelope() -> Figure:
    """Bits per byte against operations, for models of four sizes that read a text byte by byte."""
    figure, axes = plt.subplots()
    shapes = {(8, 1): 400, (16, 1): 800, (32, 1): 800, (64, 2): 380}
    for (dim, layers), colour, steps in zip(shapes, (ORANGE, GREEN, BLUE, INK), shapes.values(), strict=True):
        sizes = {
            "dim": dim,
            "layers": layers,
            "heads": max(1, dim // 64),
            "kv_heads": max(1, dim // 64),
            "mlp": 3 * dim,
        }
        model, losses = trained("bytes", None, steps, 0.008, settled=False, **sizes)
        weights = sum(p.numel() for name, p in model.named_parameters() if name.startswith("blocks"))
        width = 15
        smooth = np.convolve(losses, np.ones(width) / width, mode="valid") / math.log(2)
        spent = model.flops_per_token(64) * 16 * 64 * np.arange(width, len(losses) + 1)
        axes.plot(spent, smooth, color=colour, label=f"{layers} x {dim}: {weights:,} weights in blocks")
    axes.set(xscale="log", yscale="log", xlabel="operations", ylabel="bits per byte, of text not yet read")
    axes.set_yticks([2.5, 3, 4, 5, 6], ["2.5", "3", "4", "5", "6"])
    axes.yaxis.set_minor_formatter("")
    axes.legend(frameon=False, fontsize=8)
    return figure


def together() -> Figure:
    """Tokens a second of a model with random weights, over the number of texts that it writes at the same time."""
    torch.manual_seed(0)
    model = models.build(models.find_size("gpt2").replace(vocab=4096, layers=4, bos=None, eos=None)).eval()
    quicken(model)
    counts, speeds = [1, 2, 4, 8, 16], []
    for count in counts:
        engine = Engine(model, rows=count)
        greedy = Sampling(temperature=0.0)
        answers = [engine.submit(Request([1 + n, 2, 3], 40, greedy)) for n in range(count)]
        while any(len(answer.new) < 4 for answer in answers):
            engine.step()
        began, before = time.perf_counter(), sum(len(answer.new) for answer in answers)
        while engine.busy:
            engine.step()
        made = sum(len(answer.new) for answer in answers) - before
        speeds.append(made / (time.perf_counter() - began))
    figure, panels = plt.subplots(1, 2, figsize=(7.2, 2.8))
    each = [speed / count for speed, count in zip(speeds, counts, strict=True)]
    for axes, values, title in zip(panels, (speeds, each), ("all of them together", "each of them"), strict=True):
        axes.plot(counts, values, color=BLUE, marker="o")
        axes.set(xlabel="texts at the same time", title=title, xscale="log", ylim=(0, 1.15 * max(values)))
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.minorticks_off()
    panels[0].set_ylabel("tokens a second")
    return figure


def house() -> Figure:
    """From text to what others can use: the packages, and where a family's file goes."""
    figure, axes = plt.subplots(figsize=(7.4, 3.0))
    rows = [
        [
            ("text/", "text -> tokens"),
            ("data/", "tokens -> batches"),
            ("training/", "batches -> weights"),
            ("runs/x", "a folder"),
        ],
        [
            ("layers/", "norms, attention"),
            ("models/", "YOUR FILE"),
            ("evaluation/", "weights -> figures"),
            ("generation/", "weights -> text"),
        ],
        [
            ("tasks/", "examples of a job"),
            ("adapt/", "LoRA, 8 and 4 bits"),
            ("inspection/", "a look inside"),
            ("serving/", "for others"),
        ],
    ]
    for y, row in enumerate(rows):
        for x, (name, words) in enumerate(row):
            yours = words == "YOUR FILE"
            box = FancyBboxPatch((2.5 * x, -1.3 * y), 2.0, 0.8, boxstyle="round,pad=0.05", linewidth=1.5)
            box.set(facecolor=ORANGE if yours else "white", edgecolor=ORANGE if yours else BLUE)
            axes.add_patch(box)
            axes.text(2.5 * x + 1, -1.3 * y + 0.54, name, ha="center", color="white" if yours else INK, weight="bold")
            axes.text(2.5 * x + 1, -1.3 * y + 0.16, words, ha="center", color="white" if yours else QUIET, fontsize=8)
    arrow(axes, (2.07, 0.4), (2.43, 0.4), QUIET, 1.5)
    arrow(axes, (4.57, 0.4), (4.93, 0.4), QUIET, 1.5)
    arrow(axes, (7.07, 0.4), (7.43, 0.4), QUIET, 1.5)
    arrow(axes, (2.07, -0.9), (2.43, -0.9), QUIET, 1.5)
    arrow(axes, (4.57, -0.43), (5.2, -0.12), QUIET, 1.5)
    arrow(axes, (8.5, -0.08), (8.5, -0.42), QUIET, 1.5)
    arrow(axes, (7.6, -0.08), (6.9, -0.42), QUIET, 1.5)
    axes.set(xlim=(-0.2, 9.7), ylim=(-2.75, 0.95))
    axes.axis("off")
    return figure


def ladder() -> Figure:
    """Size and score of every rung in the README's table."""
    figure, axes = plt.subplots(figsize=(6.8, 3.6))
    aside = {
        "LSTM, 1 x 512": (8, 4),
        "LSTM with attention": (8, -10),
        "GPT-2": (-8, 3),
        "OPT": (-8, -3),
        "Llama": (-8, -5),
    }
    for name, bits, interval, _, parameters, *_ in table_rows("README.md", "## The ladder"):
        low, high = (float(x) for x in interval.split(" to "))
        size = 1e6 * float(parameters.removesuffix(" M"))
        colour = QUIET if "gram" in name else GREEN if "LSTM" in name else BLUE
        axes.plot([size, size], [low, high], color=colour, linewidth=1)
        axes.plot(size, float(bits), "o", color=colour)
        offset = next((where for start, where in aside.items() if name.startswith(start)), (8, -3))
        words, side = re.sub(r", (Kneser-Ney|\d x \d+)$", "", name), "right" if offset[0] < 0 else "left"
        axes.annotate(words, (size, float(bits)), offset, textcoords="offset points", ha=side, color=INK, fontsize=9)
    axes.set(xlabel="numbers kept", ylabel="bits per byte", xscale="log", xlim=(3.5e5, 5e7))
    axes.set_xticks([5e5, 1e6, 2e6, 5e6, 1e7, 2e7], ["0.5 M", "1 M", "2 M", "5 M", "10 M", "20 M"])
    axes.minorticks_off()
    return figure


def watched() -> Figure:
    """What the appendix's first callback sees: how the weights of a small model grow."""
    seen: dict[str, list[float]] = {}
    tiny = {
        "layers": 1,
        "dim": 64,
        "heads": 2,
        "context": 64,
        "tokenizer": "bytes",
        "compile": "no",
        "eval_every": 1000,
    }
    with tempfile.TemporaryDirectory() as folder:
        hornbook.train("gpt2-tiny", steps=120, out=f"{folder}/run", callbacks=[sizes_into(seen)], **tiny)
    figure, axes = plt.subplots()
    shown = {"blocks.0.attention.query.weight": BLUE, "blocks.0.mlp.up.weight": GREEN, "embedding.weight": ORANGE}
    for name, colour in shown.items():
        axes.plot(range(1, len(seen[name]) + 1), seen[name], color=colour, label=name.removesuffix(".weight"))
    axes.set(xlabel="step", ylabel="root mean square of the weights", ylim=(0, None))
    axes.legend(frameon=False, fontsize=8)
    return figure


def sizes_into(seen: dict[str, list[float]]) -> Callback:
    """A callback that notes the root mean square of every matrix after each step."""

    def follow(moment: Moment) -> None:
        if moment.event == "step":
            for name, weights in moment.model.named_parameters():
                if weights.ndim == 2:
                    seen.setdefault(name, []).append(float(weights.detach().square().mean().sqrt()))

    return follow


PICTURES: dict[str, Callable[[], Figure]] = {
    "units": units,
    "reviews": reviews,
    "cuts": cuts,
    "errors": errors,
    "lens": lens,
    "envelope": envelope,
    "streams": together,
    "house": house,
    "ladder": ladder,
    "watched": watched,
}
