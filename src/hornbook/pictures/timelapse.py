"""A run's saved models one after the other: how smooth its position embeddings become, and pictures that move."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hornbook.atomic import written_aside
from hornbook.checkpoint import load
from hornbook.errors import UserError
from hornbook.layers.model import LanguageModel
from hornbook.pictures.attention import hidden_future, overview, weights
from hornbook.pictures.positions import columns, extent, roughness, roughness_drawn, table, table_drawn
from hornbook.pictures.reading import read
from hornbook.pictures.style import as_png
from hornbook.run import CHECKPOINTS, NAME, SNAPSHOTS, age

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FRAMES, PAUSE, LAST = 40, 200, 2000
"""Pictures at most; milliseconds that each is seen, and the last one."""
DPI = 70


def saved_models(run: str | Path) -> dict[int, Path]:
    """Model folders of a run by step: its snapshots, and the checkpoints that it still has. UserError for fewer than
    two."""
    run = Path(run).expanduser()
    folders = [
        path for part in (SNAPSHOTS, CHECKPOINTS) for path in (run / part).glob("*") if NAME.fullmatch(path.name)
    ]
    found = {age(path)[0]: path for path in sorted(folders, key=age)}
    if len(found) < 2:
        raise UserError(
            f"{run} has saved {len(found)} model{'s' * (len(found) != 1)}, and what training changes shows from two "
            "on: train it with --snapshots 50"
        )
    return dict(sorted(found.items()))


def spread(found: dict[int, Path], most: int = FRAMES) -> dict[int, Path]:
    """At most so many of them, evenly spread, the first and the last among them."""
    steps = list(found)
    places = torch.linspace(0, len(steps) - 1, min(most, len(steps))).round().long().unique()
    return {steps[place]: found[steps[place]] for place in places.tolist()}


def tables(run: str | Path) -> dict[int, Tensor]:
    """The position embeddings (T,D) of a run by step. UserError where they are not learnt."""
    found = spread(saved_models(run))
    first = load(next(iter(found.values())))
    table(first)
    if getattr(first, "positions", None) is None:
        raise UserError("the positions of this model are not learnt: they are the same at every step")
    return {step: table(load(folder)) for step, folder in found.items()}


def roughnesses(run: str | Path) -> dict[int, float]:
    """Of a run's position embeddings, by step."""
    return {step: roughness(values) for step, values in tables(run).items()}


def roughness_by_step(run: str | Path) -> Figure:
    """How smooth a run's position embeddings become. UserError where it has saved fewer than two models."""
    return roughness_drawn(roughnesses(run))


def time_lapse_of_positions(run: str | Path, path: str | Path) -> Path:
    """Write a run's position embeddings by step as an animated GIF, colours and axes the same throughout."""
    found = tables(run)
    limit = max(map(extent, found.values()))
    swing = 1.05 * max(float(values[:, columns(values.shape[1])].abs().max()) for values in found.values())
    drawn = (table_drawn(v, f"Position embeddings, step {step:,}", limit, swing) for step, v in found.items())
    return animate([as_png(figure, DPI) for figure in drawn], path)


def time_lapse_of_attention(run: str | Path, text: str | Sequence[int] | Tensor, path: str | Path) -> Path:
    """Write the attention of all layers and heads over a text, by step, as an animated GIF."""
    frames = []
    for step, folder in spread(saved_models(run)).items():
        model = load(folder)
        reading = read(named(model, run, text), text)
        maps = hidden_future(weights(model, reading.tokens), model.causal)
        frames.append(as_png(overview(maps, reading.note, f"Attention, step {step:,}"), DPI))
    return animate(frames, path)


def named(model: LanguageModel, run: str | Path, text: object) -> LanguageModel:
    """The model, with a tokeniser where a text is to be cut."""
    if isinstance(text, str) and not hasattr(model, "tokenizer"):
        raise UserError(f"the models in {run} came without a tokeniser: give token ids")
    return model


def animate(frames: Sequence[bytes], path: str | Path) -> Path:
    """Write PNG files, all of one size, as an endless GIF, whole or not at all."""
    from PIL import Image

    some: dict[str, Any] = {
        "colors": 255,
        "method": Image.Quantize.MAXCOVERAGE,
        "dither": Image.Dither.NONE,
    }  # thin lines keep theirs
    images = [Image.open(io.BytesIO(frame)).convert("RGB").quantize(**some) for frame in frames]
    pauses = [PAUSE] * (len(images) - 1) + [LAST]
    with written_aside(path) as aside:
        images[0].save(aside, "GIF", save_all=True, append_images=images[1:], duration=pauses, loop=0)
    return Path(path)
