"""Mistakes around the model: its ids on disk, its tokeniser, its config."""

from __future__ import annotations

import copy
import dataclasses
import tempfile
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import tokenizers

from hornbook import models
from hornbook.data import shards
from hornbook.data.batches import Batches
from hornbook.layers.model import LanguageModel
from hornbook.mistakes.piece import HONEST, MISTAKEN, Figure, Measured, Piece, swapped
from hornbook.mistakes.school import CONTEXT, fresh, honest, in_memory, loss_of, topics
from hornbook.text.tokenizer_files import Specials
from hornbook.text.tokenizer_training import END, PAD, UNK, train_tokenizer
from hornbook.text.tokenizers import Tokenizer


class Narrow:
    """numpy, whose every integer of 32 bits has 16."""

    uint32 = np.uint16

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


def in_16_bits(model: LanguageModel) -> AbstractContextManager[None]:
    return swapped((shards, "np", Narrow()))


@cache
def large_tokenizer() -> Tokenizer:
    """As many ids as Llama 3's has, words of no meaning."""
    count = models.find_size("llama-3-8b").vocab
    words = [END, PAD, UNK, *(f"w{i}" for i in range(count - 3))]
    core = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=UNK))
    return Tokenizer(core, Specials(END, END, PAD, UNK))


def with_many_ids() -> LanguageModel:
    t = large_tokenizer()
    model = fresh(vocab=t.vocab, bos=t.bos, eos=t.eos, pad=t.pad, dim=16)
    model.tokenizer = t
    return model


def wrong_ids() -> float:
    """Share of a tokeniser's ids that come back from disk as others."""
    t = large_tokenizer()
    ids = np.arange(t.vocab)
    with tempfile.TemporaryDirectory(prefix="hornbook-museum-") as folder:
        path = Path(folder) / "ids.safetensors"
        shards.write_shard(path, iter([("text", ids)]), t, {"version": shards.VERSION})
        found = np.array(shards.read_shard(path, {"version": shards.VERSION}).tokens[1:-1])
    return float((found != ids).mean())


def measure_16_bits(steps: int) -> Measured:
    fair = wrong_ids()
    with in_16_bits(fresh()):
        found = wrong_ids()
    count = large_tokenizer().vocab
    figures = (
        Figure(f"share of Llama 3's {count:,} ids that come back as others", found, MISTAKEN),
        Figure("share in as many bits as they need", fair, HONEST),
    )
    return Measured(figures, found > fair == 0)


@cache
def other_tokenizer() -> Tokenizer:
    """The same 256 bytes and as many ids in all, in another order."""
    return train_tokenizer("bpe", [], 259)


def anothers(model: LanguageModel) -> AbstractContextManager[None]:
    return swapped((model, "tokenizer", other_tokenizer()))


def measure_other(steps: int) -> Measured:
    model = honest(steps)
    losses = {}
    for t in (model.tokenizer, other_tokenizer()):
        text = in_memory(topics("validation"), t)
        losses[t.hash] = loss_of(model, Batches(text, 64, CONTEXT, seed=0).get(0))
    found, fair = losses[other_tokenizer().hash], losses[model.tokenizer.hash]
    figures = (
        Figure("loss with another tokeniser of as many ids, nats a byte", found, MISTAKEN),
        Figure("loss with the model's own", fair, HONEST),
        Figure("loss of knowing nothing at all, ln 259", float(np.log(259))),
    )
    return Measured(figures, found > fair)


SETTINGS = {"context": CONTEXT, "layers": 2, "heads": 4, "dim": 64}


def bare(settings: dict[str, Any], annotated: bool) -> type[Any]:
    """A dataclass with these values, with annotations or without."""
    kinds = {"__annotations__": {name: type(value) for name, value in settings.items()}} if annotated else {}
    return dataclasses.dataclass(type("Configuration", (), settings | kinds))


def without_fields(model: LanguageModel) -> AbstractContextManager[None]:
    """The model's config as such a class: its values can be read, and are no fields."""
    config = model.config
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    own = {name: what for kind in reversed(type(config).__mro__) for name, what in vars(kind).items()}
    methods = {name: what for name, what in own.items() if isinstance(what, FunctionType | property) and name[0] != "_"}
    return swapped((model, "config", bare(values | methods | {"replace": changed}, annotated=False)()))


def changed(config: Any, **changes: Any) -> Any:
    """A copy with other values, which a class without fields cannot be given."""
    other = copy.copy(config)
    vars(other).update(changes)
    return other


def can_be_set(kind: type[Any]) -> int:
    """How many of the settings can be chosen."""
    count = 0
    for name, value in SETTINGS.items():
        try:
            count += getattr(kind(**{name: 2 * value}), name) == 2 * value
        except TypeError:
            continue
    return count


def measure_bare(steps: int) -> Measured:
    found, fair = (can_be_set(bare(SETTINGS, annotated)) for annotated in (False, True))
    figures = (
        Figure(f"settings of {len(SETTINGS)} that can be chosen: each is a TypeError", found, MISTAKEN),
        Figure("settings that can be chosen, with annotations", fair, HONEST),
        Figure("settings that its repr and a saved file would hold", len(dataclasses.fields(bare(SETTINGS, False)))),
    )
    return Measured(figures, found == 0 < fair)


PIECES = (
    Piece(
        "uint16",
        "Token ids in 16 bits",
        "Ids from 65,536 on do not fit into 16 bits: numpy's astype takes what remains of a division by 65,536 and "
        "says nothing. The text on disk is then another one.",
        "In none of the five tutorials; in scripts that store GPT-2's 50,257 ids as uint16, which is right, and are "
        "then used with a larger vocabulary.",
        "It trains, on text of which rare words are replaced by common ones.",
        "stored ids",
        in_16_bits,
        measure_16_bits,
        with_many_ids,
    ),
    Piece(
        "other-tokeniser",
        "Another model's tokeniser",
        "Ids mean nothing by themselves: with another tokeniser every id stands for another piece of text, and the "
        "tokens that begin and end texts are others.",
        "OPT from scratch, A4 to A6: GPT-2's tokeniser. OPT has its own ids, with </s> = 2 in front of every text.",
        "Nothing fails, because nearly all ids exist in both. A model taught from scratch learns; one that was "
        "loaded talks nonsense.",
        "special tokens",
        anothers,
        measure_other,
    ),
    Piece(
        "bare-config",
        "A config dataclass without annotations",
        "A dataclass makes fields of annotated names only. Without annotations they are attributes of the class: "
        "there is nothing to give to it, its repr is empty, and what is saved of it holds nothing.",
        "GPT-2 124M, D9: GPTConfiguration, which D10 to D12 build the model from.",
        "The model is built with the defaults, and all is well until someone wants another size.",
        "save and load",
        without_fields,
        measure_bare,
    ),
)
