"""/v1/completions: a text, and what the model makes of it."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.responses import Response

from hornbook.serving.answering import Job, Json
from hornbook.serving.logprobs import Placed, Spelling, completion_logprobs
from hornbook.serving.prompts import completion_prompts, new_tokens
from hornbook.serving.requests import CompletionRequest
from hornbook.serving.site import Case, Site


class Completions:
    """How completions are written."""

    prefix, whole, piece = "cmpl", "text_completion", "text_completion"

    def logprobs(self, spelling: Spelling, placed: Sequence[Placed]) -> Json:
        return completion_logprobs(spelling, placed)

    def choice(self, text: str, logprobs: Json | None, finish: str | None) -> Json:
        return {"text": text, "logprobs": logprobs, "finish_reason": finish}

    def opening(self, text: str, logprobs: Json | None) -> Json | None:
        return self.choice(text, logprobs, None) if text or (logprobs and logprobs["tokens"]) else None

    def bit(self, text: str, logprobs: Json | None, finish: str | None) -> Json:
        return self.choice(text, logprobs, finish)


async def complete(site: Site, case: Case, asked: CompletionRequest) -> Response:
    """Refusal for what cannot be answered."""
    served = site.find(asked.model)
    order = site.order(case, served, len(asked.texts) * asked.choices)
    prompts = await completion_prompts(site, served, asked)
    tokens = new_tokens(site, served, prompts, 16 if asked.max_tokens is None else asked.max_tokens)
    echo = bool(asked.echo)
    return await Job(
        site, case, served, asked, Completions(), order, prompts, tokens, asked.alternatives, echo
    ).answer()
