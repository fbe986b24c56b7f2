"""What a request says -> token ids, within the limits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from hornbook.errors import UserError
from hornbook.generation.stream import prompt_ids, source_of
from hornbook.layers.model import LanguageModel
from hornbook.serving.refusals import Refusal, invalid
from hornbook.serving.requests import ChatRequest, CompletionRequest, RenderRequest
from hornbook.serving.site import Served, Site
from hornbook.text.chat import Rendered, chat_ids, rendered

T = TypeVar("T")

TOO_LONG = "context_length_exceeded"


class Prompt(NamedTuple):
    ids: list[int]
    text: str
    """As `echo` gives it back."""
    source: int = 0
    """How many ids are a source."""


async def elsewhere(site: Site, function: Callable[[], T]) -> T:
    """Run in a thread of its own; a UserError becomes a refusal."""
    try:
        return await asyncio.get_running_loop().run_in_executor(site.pool, function)
    except UserError as error:
        raise invalid(str(error)) from None


async def completion_prompts(site: Site, served: Served, asked: CompletionRequest) -> list[Prompt]:
    require_writing(served)
    return await elsewhere(site, lambda: [read(served, text) for text in asked.texts])


def read(served: Served, said: str | list[int]) -> Prompt:
    model = served.model
    if isinstance(said, str):
        ids = known(model, prompt_ids(model, said))
        return Prompt(ids, said, source_of(model, ids))
    return Prompt(known(model, said), model.tokenizer.decode(said), source_of(model, said))


def known(model: LanguageModel, ids: list[int]) -> list[int]:
    """The same ids; UserError for one that the model has no row for, as a tokeniser made for another may give."""
    if (largest := max(ids, default=0)) >= model.config.vocab:
        raise UserError(f"token id {largest}: the vocabulary has 0 to {model.config.vocab - 1}")
    return ids


async def read_text(site: Site, served: Served, said: str | list[int]) -> Prompt:
    prompt = await elsewhere(site, lambda: read(served, said))
    if not prompt.ids:
        raise invalid("the text is empty, and this model has no token that opens a text", "text")
    return prompt


async def chat_prompt(site: Site, served: Served, asked: ChatRequest) -> list[Prompt]:
    messages = conversation(served, asked)
    return await elsewhere(site, lambda: [Prompt(chat_ids(served.model.tokenizer, messages), "")])


async def render_prompt(site: Site, served: Served, asked: RenderRequest) -> Rendered:
    messages, answer = conversation(served, asked), asked.add_generation_prompt is not False
    return await elsewhere(site, lambda: rendered(served.model.tokenizer, messages, answer))


def conversation(served: Served, asked: ChatRequest | RenderRequest) -> list[dict[str, str]]:
    """The messages; Refusal where the model was not taught to converse."""
    require_writing(served)
    if not served.chat:
        raise invalid(
            f"{served.name} has no chat template: it continues texts, it was not taught to converse. "
            "Use /v1/completions",
            "model",
            "no_chat_template",
        )
    return [said.message for said in asked.messages]


def require_writing(served: Served) -> None:
    """Refusal for a model that tells classes apart."""
    if served.model.config.labels:
        raise invalid(f"{served.name} tells classes apart, and writes nothing: use /v1/classify", "model", "no_tokens")


def new_tokens(site: Site, served: Served, prompts: list[Prompt], wanted: int | None) -> int:
    """How many new tokens an answer may have; None wants what context and memory have. Refusal for more than can be."""
    limits, longest = site.settings, max(len(prompt.ids) - prompt.source for prompt in prompts)
    given = max(len(prompt.ids) for prompt in prompts)
    if not all(prompt.ids for prompt in prompts):
        raise invalid("the prompt is empty, and this model has no token that opens a text", "prompt")
    if limits.max_prompt is not None and given > limits.max_prompt:
        raise too_long(f"the prompt has {given} tokens; this server takes {limits.max_prompt}")
    most = served.context if limits.max_tokens is None else limits.max_tokens
    room = served.context - longest
    if wanted is not None and wanted > most:
        raise invalid(f"{wanted} new tokens: this server gives at most {most}", "max_tokens")
    if room < (1 if wanted is None else wanted):
        asked = "" if wanted is None else f" and {wanted} new ones"
        raise too_long(f"{longest} tokens of prompt{asked} do not fit into the context of {served.context}")
    longest_row = getattr(served.worker.engine, "longest", served.context)
    return max(1, min(room, most, longest_row - given)) if wanted is None else wanted


def too_long(message: str, field: str = "prompt") -> Refusal:
    return invalid(message, field, TOO_LONG)
