"""/v1/chat/render: a conversation in the model's own template. /v1/chat/completions: the message that comes next."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.responses import Response

from hornbook.serving.answering import Job, Json
from hornbook.serving.logprobs import Placed, Spelling, chat_logprobs
from hornbook.serving.prompts import chat_prompt, new_tokens, render_prompt
from hornbook.serving.refusals import json_response
from hornbook.serving.requests import ChatRequest, RenderRequest
from hornbook.serving.site import Case, Site


class Chat:
    """How messages are written."""

    prefix, whole, piece = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def logprobs(self, spelling: Spelling, placed: Sequence[Placed]) -> Json:
        return chat_logprobs(spelling, placed)

    def choice(self, text: str, logprobs: Json | None, finish: str | None) -> Json:
        message = {"role": "assistant", "content": text, "refusal": None}
        return {"message": message, "logprobs": logprobs, "finish_reason": finish}

    def opening(self, text: str, logprobs: Json | None) -> Json | None:
        return {"delta": {"role": "assistant", "content": text}, "logprobs": None, "finish_reason": None}

    def bit(self, text: str, logprobs: Json | None, finish: str | None) -> Json:
        return {"delta": {"content": text} if text else {}, "logprobs": logprobs, "finish_reason": finish}


async def converse(site: Site, case: Case, asked: ChatRequest) -> Response:
    """Refusal for what cannot be answered."""
    served = site.find(asked.model)
    order = site.order(case, served, asked.choices)
    prompts = await chat_prompt(site, served, asked)
    tokens = new_tokens(site, served, prompts, asked.limit)
    return await Job(site, case, served, asked, Chat(), order, prompts, tokens, asked.alternatives).answer()


async def render(site: Site, case: Case, asked: RenderRequest) -> Response:
    """What the model would read. It takes a place as an answer does. Refusal for what cannot be rendered."""
    served = site.find(asked.model)
    order = site.order(case, served, 1)
    found = await render_prompt(site, served, asked)
    order.check(())
    if site.settings.log_prompts:
        case.notes["prompts"] = [found.text]
    return json_response(found._asdict())
