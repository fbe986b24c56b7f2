"""The shapes of what is answered, for the OpenAPI description; the tests hold every answer against them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Ended = Literal["stop", "length"]
"""The model or a stop text ended it, or the limit of new tokens did."""


class Sent(BaseModel):
    model_config = ConfigDict(extra="forbid")


class CachedTokens(Sent):
    cached_tokens: int = Field(description="Tokens of the prompts that did not have to be read again.")


class Usage(Sent):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens


class TokenLogprobs(Sent):
    """A completion's tokens; None for the first of an echoed prompt, which nothing predicts."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class Alternative(Sent):
    token: str
    logprob: float
    bytes: list[int] | None


class ChatLogprob(Alternative):
    top_logprobs: list[Alternative]


class ChatLogprobs(Sent):
    content: list[ChatLogprob]
    refusal: None


class CompletionChoice(Sent):
    index: int
    text: str
    logprobs: TokenLogprobs | None
    finish_reason: Ended | None = Field(description="Null only in a stream, before the last piece.")


class Completion(Sent):
    """A whole answer, or a piece of one in a stream, whose last piece has the usage and no choices."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: Usage | None = None


class Message(Sent):
    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(Sent):
    index: int
    message: Message
    logprobs: ChatLogprobs | None
    finish_reason: Ended


class ChatCompletion(Sent):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage


class Delta(Sent):
    role: Literal["assistant"] | None = None
    content: str | None = None


class ChatPiece(Sent):
    index: int
    delta: Delta
    logprobs: ChatLogprobs | None
    finish_reason: Ended | None


class ChatChunk(Sent):
    """A piece of an answer in a stream."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatPiece]
    usage: Usage | None = None


class Rendered(Sent):
    """A conversation in the model's template."""

    text: str = Field(description="Special tokens stand in it by their names.")
    ids: list[int]


class TextUsage(Sent):
    prompt_tokens: int = Field(description="Tokens of the texts that were read.")
    total_tokens: int


class ClassifiedText(Sent):
    index: int
    label: str = Field(description="The likeliest class.")
    classes: dict[str, float] = Field(description="The probability of each, the likeliest first.")
    note: str | None = Field(description="What was left out of a text that is longer than the context.")


class Classification(Sent):
    """Which class each text is of."""

    object: Literal["list"]
    model: str
    data: list[ClassifiedText]
    usage: TextUsage


class LogitLens(Sent):
    layers: list[str]
    top: list[list[list[tuple[int, float]]]] = Field(
        description="For each layer and each token the ids that are likeliest to come next, with their probabilities."
    )


class Weights(Sent):
    layer: int
    head: int
    weights: list[list[float]] = Field(description="A row for each token: how it weighs itself and those before it.")


class Inspection(Sent):
    """What stands inside the model when it reads a text."""

    model: str
    ids: list[int] = Field(description="What was read: the last tokens of the text.")
    left_out: int = Field(description="How many tokens stand before them, and were not read.")
    names: dict[str, str] = Field(description="What the tokens that occur here are called, by their ids.")
    lens: LogitLens | None
    attention: Weights | None


class Attention(Sent):
    layers: int
    heads: int = Field(description="In each layer.")


class Model(Sent):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    family: str
    context: int = Field(description="Tokens of prompt and answer together.")
    chat: bool = Field(description="Whether it has a chat template.")
    lens: bool = Field(description="Whether /v1/inspect has layers to look at.")
    attention: Attention | None = Field(description="What there is of it for /v1/inspect.")
    classes: list[str] | None = Field(description="That it tells apart by /v1/classify; null where it writes texts.")


class Models(Sent):
    object: Literal["list"]
    data: list[Model]


class Health(Sent):
    status: Literal["ok", "shutting down", "failing"]
    models: dict[str, bool] = Field(description="Whether each model's engine runs.")


class ErrorDetails(Sent):
    message: str
    type: str
    param: str | None
    code: str | None


class Error(Sent):
    error: ErrorDetails


ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": Error, "description": "The request cannot be answered as it stands."},
    401: {"model": Error, "description": "No key, or a wrong one."},
    403: {"model": Error, "description": "The Host header names another machine."},
    404: {"model": Error, "description": "There is no such model."},
    408: {"model": Error, "description": "The request did not come in time."},
    413: {"model": Error, "description": "The body is too large."},
    429: {"model": Error, "description": "The queue is full; Retry-After says when to come again."},
    500: {"model": Error, "description": "The model could not go on."},
    503: {"model": Error, "description": "Waited too long for a turn, or the server is shutting down."},
    504: {"model": Error, "description": "The answer took too long."},
}
