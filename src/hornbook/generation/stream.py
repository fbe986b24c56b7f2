"""Tokens one after the other, and their text as soon as it is whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from hornbook.config import Generate
from hornbook.errors import UserError
from hornbook.generation.choose import choose
from hornbook.layers.model import LanguageModel
from hornbook.text.chat import chat_ids
from hornbook.text.tokenizers import Tokenizer


@torch.inference_mode()
def stream_tokens(
    model: LanguageModel,
    prompt: Sequence[int],
    tokens: int = 100,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    cached: bool = True,
) -> Iterator[int]:
    """New token ids, until the end-of-text token (not given out) or `tokens` of them.

    When the model's context is full, its newer half is read again as a fresh context. Raises UserError for an encoder,
    and for a prompt longer than the context.
    """
    if not model.causal:
        raise UserError(f"a {model.config.family} model fills in gaps; it cannot continue a text")
    if not prompt:
        raise UserError("the prompt is empty, and this model has no token that opens a text")
    context, ends = model.config.context, {model.config.eos, *model.config.stops}
    if len(prompt) > context:
        raise UserError(f"the prompt has {len(prompt)} tokens and the context {context}: shorten the prompt")
    device = next(iter(model.state_dict().values())).device
    generator = torch.Generator().manual_seed(seed)
    ids, unread = list(prompt), list(prompt)
    length = min(context, len(prompt) + tokens)  # a cache for 131,072 tokens can take more memory than the model
    cache = model.make_cache(1, length) if cached else None
    forbidden = [i for i in (model.config.pad,) if i is not None]
    for _ in range(tokens):
        if len(ids) > context:
            ids = unread = ids[-max(1, context // 2) :]
            cache = model.make_cache(1, context) if cached else None
        read = torch.tensor([unread if cached else ids], device=device)
        logits = model.head(model.hidden(read, cache)[:, -1])
        logits[:, forbidden] = float("-inf")
        token = int(choose(logits, temperature, top_k, top_p, generator))
        if token in ends:
            return
        yield token
        unread = [token]
        ids.append(token)


def stream_text(tokens: Iterator[int], tokenizer: Tokenizer) -> Iterator[str]:
    """The text of a token stream in pieces, none of which ends inside a character."""
    ids: list[int] = []
    shown = ""
    for token in tokens:
        ids.append(token)
        text = tokenizer.decode(ids)
        if text.startswith(shown) and not text.endswith("\ufffd"):
            yield text[len(shown) :]
            shown = text
    if (text := tokenizer.decode(ids)) != shown:
        yield text[len(shown) :]


def prompt_ids(model: LanguageModel, text: str) -> list[int]:
    """The ids of a prompt, opened as the training documents were.

    Where one token both opens and closes documents (ours, GPT-2's, OPT's) it comes first; elsewhere what the
    tokeniser's own template puts in front, which may be nothing.
    """
    ids, c = model.tokenizer.encode(text), model.config
    if c.bos == c.eos:
        return [*([] if c.bos is None else [c.bos]), *ids]
    framed = model.tokenizer.encode_framed(text)
    if not ids:
        return framed[:-1] if framed[-1:] == [c.eos] else framed
    before = next((n for n in range(len(framed) - len(ids) + 1) if framed[n : n + len(ids)] == ids), 0)
    return framed[:before] + ids


def continuation(model: LanguageModel, prompt: str, settings: Generate) -> Iterator[str]:
    """What the model writes after `prompt`, in pieces. Raises UserError as `stream_tokens` does."""
    s = settings
    ids = chat_ids(model.tokenizer, [{"role": "user", "content": prompt}]) if s.chat else prompt_ids(model, prompt)
    tokens = stream_tokens(model, ids, s.tokens, s.temperature, s.top_k, s.top_p, s.seed)
    return stream_text(tokens, model.tokenizer)
