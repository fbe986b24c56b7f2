"""What a model must be given before it can learn to converse: a template, and the tokens in it."""

from __future__ import annotations

import re

import torch

from hornbook.adapt.vocabulary import grow
from hornbook.config import Finetune
from hornbook.errors import UserError
from hornbook.layers.model import LanguageModel
from hornbook.progress import say
from hornbook.text.chat_templates import TEMPLATES
from hornbook.text.tokenizers import Tokenizer

PAD = "<|pad|>"
BUSY = re.compile(r"begin|start|end|[be]o[smt]|</?s>|sep|cls|user|assistant|system|tool", re.IGNORECASE)
"""In names of special tokens that may open, end or tell something, whatever a model's config says of them."""
IDLE = re.compile(r"pad|(reserved|unused|extra)", re.IGNORECASE)
"""In names of those that are for padding, or for nothing yet."""


def teach_pad(model: LanguageModel, settings: Finetune, classes: bool = False) -> None:
    """Give a model whose padding is missing, or is a token that ends texts, one of its own. In place.

    Padding is never learnt here, whatever its id; but programs that know padding by its id would hide those ends, and
    take the wrong position of a padded row for its last. Where the embedding does not learn, a special token that is
    of no use takes its place. What tells `classes` keeps what its base has, which is where PEFT looks padding up; a
    base without any gets at worst the token that ends texts, as no batch could be read else.
    """
    c = model.config
    ends = {None, c.eos, c.bos, *c.stops}
    if c.pad not in ends:
        return
    if not settings.lora and model.quantization is None:
        grow(model, [PAD])
        pad_with(model, PAD)
        say(f"a token of its own for padding: {PAD}")
        return
    token = spare(model) or (model.tokenizer.specials.eos if classes else None)
    if token and not (classes and c.pad is not None):
        pad_with(model, token)
    if model.config.pad in ends:
        found = "missing" if model.config.pad is None else "a token that ends texts"
        say(f"no token can be added to a model whose embedding does not learn: padding is {found}")
    else:
        say(f"a token that the model had no use for is for padding: {model.tokenizer.specials.pad}")


def pad_with(model: LanguageModel, token: str) -> None:
    """Let a token of the tokeniser's be the padding. In place."""
    old = model.tokenizer
    model.tokenizer = Tokenizer(old.core, old.specials._replace(pad=token), old.config)
    model.config = model.config.replace(pad=model.tokenizer.pad)


def spare(model: LanguageModel) -> str | None:
    """The name of a special token that opens, ends, hides and spells nothing, best one for padding; None where there is
    none."""
    t, c = model.tokenizer, model.config
    templates = " ".join([str(t.config.get("chat_template", "")), *(template.jinja for template in TEMPLATES.values())])
    taken = {c.bos, c.eos, *c.stops, t.bos, t.eos, t.unk, t.mask}
    added = sorted(t.core.get_added_tokens_decoder().items())
    names = [token.content for id, token in added if token.special and id < c.vocab and id not in taken]
    free = [name for name in names if name not in templates and not BUSY.search(name)]
    return min(free, key=idleness, default=None)


def idleness(name: str) -> int:
    """0 for a name that says padding, 1 for one that says nothing, 2 for any other."""
    found = IDLE.search(name)
    return 2 if found is None else int(found[1] is not None)


@torch.no_grad()
def teach_words(model: LanguageModel, settings: Finetune) -> None:
    """Give a model the chat template that settings ask for, and the special tokens in it. In place.

    UserError where tokens would be new and could not be learnt.
    """
    old = model.tokenizer
    name = settings.template
    if name == "own":
        if "chat_template" in old.config:
            return
        name = "plain"
    template = TEMPLATES[name]
    new = [token for token in template.tokens if old.core.token_to_id(token) is None]
    if new and (settings.lora or model.quantization is not None):
        raise UserError(
            f"--template {name} needs new tokens ({', '.join(new)}), and the embedding that would hold them does not "
            "learn here: take --template plain, or train all weights"
        )
    if template.end is None and model.config.eos is None:
        raise UserError(f"--template {name} ends turns with the token that ends texts, and this model has none")
    if new:
        grow(model, new)
        say(f"{len(new)} new tokens: {', '.join(new)}")
    tokenizer = model.tokenizer
    model.tokenizer = Tokenizer(
        tokenizer.core, tokenizer.specials, tokenizer.config | {"chat_template": template.jinja}
    )
    if template.end is not None:
        end = model.tokenizer.core.token_to_id(template.end)
        stops = {*model.config.stops, end} - {model.config.eos}
        model.config = model.config.replace(stops=tuple(sorted(stops)))
