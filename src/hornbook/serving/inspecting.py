"""/v1/inspect: what stands inside a model when it reads a text, by the logit lens and the weights of attention."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from starlette.responses import Response

from hornbook.errors import UserError
from hornbook.inspection.lens import attention_size, attention_weights, depths, streams, unembed
from hornbook.layers.model import LanguageModel
from hornbook.serving.answering import Json
from hornbook.serving.prompts import read_text
from hornbook.serving.refusals import invalid, json_response
from hornbook.serving.requests import InspectRequest
from hornbook.serving.scores import CHUNK
from hornbook.serving.site import Case, Served, Site

MOST = 128
"""Tokens that are looked at: the last ones of a text."""


class Wanted(NamedTuple):
    """What is to be looked at."""

    ids: Sequence[int]
    top: int
    """Tokens at each place of the lens; 0 for no lens."""
    place: tuple[int, int] | None
    """Layer and head whose attention is told."""


async def inspect(site: Site, case: Case, asked: InspectRequest) -> Response:
    """Refusal for what the model does not have."""
    served = site.find(asked.model)
    order = site.order(case, served, 1)
    top = (5 if asked.top is None else asked.top) if asked.lens is None or asked.lens else 0
    place = None if asked.layer is None else (asked.layer, asked.head or 0)
    check(served.model, top, place)
    prompt = await read_text(site, served, asked.text)
    kept = min(MOST, served.context, site.settings.max_prompt or MOST)
    wanted = Wanted(prompt.ids[-kept:], top, place)
    case.notes["prompt_tokens"] = len(wanted.ids)
    if site.settings.log_prompts:
        case.notes["prompts"] = [prompt.text]
    found = await order.read(looked(served.model, wanted))
    left_out = len(prompt.ids) - len(wanted.ids)
    return await asyncio.get_running_loop().run_in_executor(site.pool, written, served, wanted, left_out, found)


def check(model: LanguageModel, top: int, place: tuple[int, int] | None) -> None:
    """Refusal before anything is read."""
    try:
        if top:
            model.require_tokens()
            depths(model)
    except UserError as error:
        raise invalid(str(error), "model", "no_layers") from None
    if place is None:
        return
    try:
        sizes = attention_size(model)
    except UserError as error:
        raise invalid(str(error), "layer", "no_attention") from None
    for field, number, size in zip(("layer", "head"), place, sizes, strict=True):
        if number >= size:
            raise invalid(f"there is no {field} {number} of attention in this model: 0 to {size - 1}", field)


def looked(model: LanguageModel, wanted: Wanted) -> Iterator[Json | None]:
    """None after each piece of work, so that others can be served between two; in the end the figures.

    ValueError where the model does not give numbers.
    """
    tokens, lens, weights = torch.tensor(wanted.ids, device=model.device), [], None
    if wanted.top:
        found = streams(model, tokens)
        yield None
        for stream in found:
            rows: list[Any] = []
            for part in stream.split(CHUNK):
                rows += likeliest(unembed(model, part), wanted.top)
                yield None
            lens.append(rows)
    if wanted.place is not None:
        whole = attention_weights(model, tokens, *wanted.place)
        seen = range(1, len(whole) + 1) if model.causal else [len(whole)] * len(whole)
        weights = [finite(row[:count]) for row, count in zip(whole.tolist(), seen, strict=True)]
    yield {"lens": lens, "weights": weights}


def likeliest(logits: torch.Tensor, top: int) -> list[list[tuple[int, float]]]:
    """logits (T,V) -> for each row the ids of the most probable tokens, with their probabilities."""
    best = logits.softmax(-1).topk(min(top, logits.shape[-1]))
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [list(zip(ids, finite(shares), strict=True)) for ids, shares in pairs]


def finite(numbers: list[float]) -> list[float]:
    """With four digits; ValueError for NaN."""
    if any(number != number for number in numbers):
        raise ValueError("the model's figures are not numbers")
    return [float(f"{number:.4g}") for number in numbers]


def written(served: Served, wanted: Wanted, left_out: int, found: Json) -> Response:
    """The answer; every token is named once."""
    used = {token for layer in found["lens"] for row in layer for token, _ in row} | set(wanted.ids)
    lens = {"layers": depths(served.model), "top": found["lens"]} if wanted.top else None
    attention = None
    if wanted.place is not None:
        attention = {"layer": wanted.place[0], "head": wanted.place[1], "weights": found["weights"]}
    names = {str(token): served.spelling.name(token) for token in sorted(used)}
    head = {"model": served.name, "ids": list(wanted.ids), "left_out": left_out}
    return json_response({**head, "names": names, "lens": lens, "attention": attention})
