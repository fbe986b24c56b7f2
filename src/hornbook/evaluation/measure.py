"""From a run and the name of a text to scores: what `hornbook evaluate` does before it prints."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from hornbook import machine
from hornbook.checkpoint import load
from hornbook.config import Evaluate
from hornbook.data.masking import mask_token
from hornbook.data.sources import open_source
from hornbook.evaluation.pseudo import pseudo_perplexity
from hornbook.evaluation.score import Scores, score
from hornbook.layers.model import LanguageModel
from hornbook.progress import Bar


@contextlib.contextmanager
def multiplied_in(precision: str, device: str | None) -> Iterator[None]:
    """Products within are of that precision; everything else stays as it is."""
    if precision == "float32":
        yield
        return
    place = torch.device(machine.check_device(str(device or machine.pick_device())))
    with torch.autocast(place.type, getattr(torch, precision)):
        yield


def measure(settings: Evaluate, model: LanguageModel | None = None) -> Scores:
    """Score a run on a split of a corpus."""
    model = model or load(settings.run, settings.device, text=True)
    shard = open_source(settings.corpus, settings.column).shard(settings.part, model.tokenizer)
    with Bar("evaluating") as bar:
        return score(model, shard, settings.context, settings.stride, settings.batch, settings.limit, bar.show)


def measure_encoder(settings: Evaluate, model: LanguageModel) -> float:
    """An encoder's pseudo-perplexity on a split of a corpus."""
    shard = open_source(settings.corpus, settings.column).shard(settings.part, model.tokenizer)
    return pseudo_perplexity(model, shard, mask_token(model.tokenizer))
