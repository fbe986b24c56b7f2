"""`hornbook inspect RUN "text" --pictures FOLDER`: all pictures that there are of a model, as files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from hornbook.checkpoint import load
from hornbook.config import Inspect
from hornbook.errors import UserError
from hornbook.inspection.lens import attention_size
from hornbook.layers.model import LanguageModel
from hornbook.pictures.attention import attention, attention_overview
from hornbook.pictures.heads import heads
from hornbook.pictures.histograms import activations, weights
from hornbook.pictures.neighbours import neighbours
from hornbook.pictures.norms import stream_norms
from hornbook.pictures.positions import positions
from hornbook.pictures.predictions import lens, token_surprise
from hornbook.pictures.recurrence import reach, recurrent_attention
from hornbook.pictures.style import plotting, save
from hornbook.pictures.timelapse import roughness_by_step, time_lapse_of_attention, time_lapse_of_positions
from hornbook.report.record import short_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Album:
    """What is asked for, and the model."""

    settings: Inspect
    model: LanguageModel

    @property
    def text(self) -> str:
        """UserError where there is none."""
        if self.settings.text is None:
            raise UserError(f'it needs a text: hornbook inspect {self.settings.model} "The fox" --pictures FOLDER')
        return self.settings.text

    @property
    def folder(self) -> Path:
        assert self.settings.pictures is not None
        return Path(self.settings.pictures).expanduser()

    @cached_property
    def run(self) -> Path:
        return Path(self.settings.model).expanduser()

    def still(self, name: str, draw: Callable[[], Figure]) -> Iterator[Path]:
        """A picture as a .png file, an .svg file, or both."""
        figure = draw()
        kinds = ("png", "svg") if self.settings.format == "both" else (self.settings.format or "png",)
        for kind in kinds:
            yield save(figure, self.folder / f"{name}.{kind}")


def attentions(album: Album) -> Iterator[Path]:
    """All heads of all layers on one page, then those of single layers: the first, the middle and the last one, unless
    one or all are asked for."""
    count, wanted = attention_size(album.model)[0], album.settings.layer
    layers = {0, count // 2, count - 1} if not album.settings.all else range(count)
    if wanted is None:
        yield from album.still("attention", lambda: attention_overview(album.model, album.text))
    for layer in sorted(layers) if wanted is None else [wanted]:
        name = f"attention-{layer:0{len(str(count - 1))}}"
        yield from album.still(name, lambda layer=layer: attention(album.model, album.text, layer))  # type: ignore[misc]


def reaching(album: Album) -> Iterator[Path]:
    """The model's, and those of the runs that are to be set beside it."""
    against = [Path(run) for run in album.settings.against]
    models = [album.model, *(load(str(run), text=True) for run in against)]
    named = dict(zip(short_names([album.run, *against]), models, strict=True))
    yield from album.still("reach", lambda: reach(named))


def lapses(album: Album) -> Iterator[Path]:
    """Of learned positions, and, with a text, of attention. UserError where neither can be."""
    why = None
    try:
        yield time_lapse_of_positions(album.run, album.folder / "time-lapse-positions.gif")
    except UserError as error:
        why = error
    if album.settings.text is not None:
        yield time_lapse_of_attention(album.run, album.settings.text, album.folder / "time-lapse-attention.gif")
    elif why is not None:
        raise why


DRAW: dict[str, Callable[[Album], Iterator[Path]]] = {
    "attention": attentions,
    "heads": lambda album: album.still("heads", lambda: heads(album.model)),
    "lens": lambda album: album.still("lens", lambda: lens(album.model, album.text)),
    "surprise": lambda album: album.still("surprise", lambda: token_surprise(album.model, album.text)),
    "norms": lambda album: album.still("norms", lambda: stream_norms(album.model, album.text)),
    "positions": lambda album: album.still("positions", lambda: positions(album.model)),
    "neighbours": lambda album: album.still("neighbours", lambda: neighbours(album.model, album.text)),
    "weights": lambda album: album.still("weights", lambda: weights(album.model)),
    "activations": lambda album: album.still("activations", lambda: activations(album.model, album.text)),
    "look-back": lambda album: album.still("look-back", lambda: recurrent_attention(album.model, album.text)),
    "reach": reaching,
    "roughness": lambda album: album.still("roughness", lambda: roughness_by_step(album.run)),
    "time-lapse": lapses,
}
"""Every name of `config.Picture`."""


def draw(settings: Inspect) -> Iterator[tuple[str, Path | str]]:
    """Write pictures; each one's name with its file, as soon as that is there, or with why there is none of this model.

    A picture that was asked for by name and cannot be had is a UserError.
    """
    plotting()
    album = Album(settings, load(settings.model, text=True, bits=settings.bits))
    for name in settings.picture or DRAW:
        try:
            for path in DRAW[name](album):
                yield name, path
        except UserError as error:
            if settings.picture:
                raise UserError(f"--picture {name}: {error}") from None
            yield name, str(error)
