"""What a client may ask: the bodies of requests, as OpenAI has them, and what they mean to the engine.

Unknown fields are ignored. Numbers must be numbers of JSON: no strings, no NaN, no infinity.
"""

from __future__ import annotations

import secrets
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from hornbook.config import Sampling


def unicode(text: str) -> str:
    """JSON can spell half of a surrogate pair, which is no character; ValueError for a text with one."""
    text.encode()  # UnicodeEncodeError is a ValueError
    return text


def whole(value: Any, depth: int = 2) -> Any:
    """1.0 is an integer in JSON; a number that is read as such may stand for either. In lists of lists at most."""
    if isinstance(value, list):
        numbers = depth and value and isinstance(value[0], int | float | list)
        return [whole(one, depth - 1) for one in value] if numbers else value
    return int(value) if isinstance(value, float) and value.is_integer() else value


Text = Annotated[str, AfterValidator(unicode)]
Short = Annotated[Text, Field(min_length=1, max_length=1000)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
TokenIds = Annotated[list[TokenId], Field(min_length=1, fail_fast=True)]  # not an error for each of a million
MOST_TEXTS = 128
"""Prompts in a request, and choices for one."""
MOST_BIASES = 300
COLD = 1e-5
"""Temperatures below it are 0, and smaller shares of probability are as good as it: float32 would make them 0."""

DIALS = ("temperature", "top_p", "top_k", "min_p", "typical_p", "no_repeat_ngram")
PENALTIES = ("frequency_penalty", "presence_penalty", "repetition_penalty")
"""Fields that requests and `config.Sampling` call the same."""


class Shape(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


class StreamOptions(Shape):
    include_usage: bool | None = False


class Named(Shape):
    """What every request has. Null is the default everywhere."""

    model: Text | None = Field(None, max_length=500, description="May be left out where one model is served.")

    @model_validator(mode="before")
    @classmethod
    def read(cls, body: Any) -> Any:
        return {name: whole(value) for name, value in body.items()} if isinstance(body, dict) else body


class Asked(Named):
    """What completions and chat have in common."""

    n: int | None = Field(1, ge=1, le=MOST_TEXTS, description="Choices for each prompt.")
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    stop: Short | Annotated[list[Short], Field(max_length=16)] | None = None
    seed: int | None = Field(
        None, ge=-(2**63), lt=2**63, description="The same seed gives the same text; without one, each is another."
    )
    temperature: float | None = Field(1.0, ge=0, le=2)
    top_p: float | None = Field(1.0, gt=0, le=1)
    frequency_penalty: float | None = Field(0.0, ge=-2, le=2)
    presence_penalty: float | None = Field(0.0, ge=-2, le=2)
    logit_bias: (
        Annotated[
            dict[Annotated[str, Field(pattern=r"^[0-9]{1,9}$")], Annotated[float, Field(ge=-100, le=100)]],
            Field(max_length=MOST_BIASES, json_schema_extra={"additionalProperties": False}),
        ]
        | None
    ) = Field(None, description="Added to the logits of tokens, by their ids.")
    top_k: int | None = Field(0, ge=0, lt=2**31, description="Draw from the k likeliest tokens only; 0 for all.")
    min_p: float | None = Field(0.0, ge=0, le=1)
    typical_p: float | None = Field(1.0, gt=0, le=1)
    repetition_penalty: float | None = Field(1.0, ge=0.01, le=100)
    no_repeat_ngram: int | None = Field(0, ge=0, le=1000, description="No run of so many tokens may come twice.")

    @model_validator(mode="before")
    @classmethod
    def read(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        if isinstance(body.get("logit_bias"), dict) and len(body["logit_bias"]) > MOST_BIASES:
            raise ValueError(f"logit_bias: at most {MOST_BIASES} tokens")
        return {name: whole(value) for name, value in body.items()}

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def choices(self) -> int:
        """For each prompt."""
        return 1 if self.n is None else self.n

    @property
    def wants_usage(self) -> bool:
        """At the end of a stream."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def sampling(self) -> Sampling:
        """The engine's settings; a request without a seed gets one that nobody can guess."""
        names = (*DIALS, *PENALTIES)
        given: dict[str, Any] = {name: value for name in names if (value := getattr(self, name)) is not None}
        given["logit_bias"] = {int(token): value for token, value in (self.logit_bias or {}).items()}
        if given.get("temperature", 1.0) < COLD:
            given["temperature"] = 0.0
        given |= {name: max(given[name], COLD) for name in ("top_p", "typical_p") if name in given}
        return Sampling(**given, seed=secrets.randbits(63) if self.seed is None else self.seed % 2**63)


class CompletionRequest(Asked):
    """A text to be continued."""

    prompt: (
        Text
        | Annotated[list[Text], Field(min_length=1, max_length=MOST_TEXTS, fail_fast=True)]
        | TokenIds
        | Annotated[list[TokenIds], Field(min_length=1, max_length=MOST_TEXTS, fail_fast=True)]
    )
    max_tokens: int | None = Field(16, ge=0, lt=2**31, description="New tokens for each choice, at most.")
    echo: bool | None = Field(False, description="Give the prompt back before the new text.")
    logprobs: int | None = Field(None, ge=0, le=20, description="Alternatives to report for each token.")
    best_of: int | None = Field(None, ge=1, le=MOST_TEXTS, description="Not offered: leave it out.")
    suffix: str | None = Field(None, description="Not offered.")

    @model_validator(mode="after")
    def possible(self) -> CompletionRequest:
        if self.best_of is not None and self.best_of != self.choices:
            raise ValueError("best_of is not offered: ask for n choices with logprobs, and take the best")
        if self.suffix:
            raise ValueError("suffix is not offered: these models continue texts, they do not fill in gaps")
        return self

    @property
    def alternatives(self) -> int | None:
        """To report with each token; None for no log-probabilities."""
        return self.logprobs

    @property
    def texts(self) -> list[str | list[int]]:
        """The prompts, each a text or its token ids."""
        if isinstance(self.prompt, str) or isinstance(self.prompt[0], int):
            return [self.prompt]
        return list(self.prompt)


class TextPart(Shape):
    type: Literal["text"]
    text: Text


class Said(Shape):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[TextPart], Field(max_length=100)]

    @property
    def message(self) -> dict[str, str]:
        """As chat templates know it."""
        said = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": said}


Messages = Annotated[list[Said], Field(min_length=1, max_length=1000)]


class ChatRequest(Asked):
    """A conversation that the model is to go on with."""

    messages: Messages
    max_tokens: int | None = Field(
        None, ge=1, lt=2**31, description="New tokens at most; default what there is room for."
    )
    max_completion_tokens: int | None = Field(None, ge=1, lt=2**31, description="OpenAI's newer name of max_tokens.")
    logprobs: bool | None = False
    top_logprobs: int | None = Field(None, ge=0, le=20, description="Alternatives for each token; needs logprobs.")

    @model_validator(mode="after")
    def possible(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        return self

    @property
    def alternatives(self) -> int | None:
        """To report with each token; None for no log-probabilities."""
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def limit(self) -> int | None:
        """New tokens; None for as many as there is room for."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


class RenderRequest(Named):
    """A conversation, to be seen as the model reads it."""

    messages: Messages
    add_generation_prompt: bool | None = Field(True, description="Up to where the model's next message begins.")


class ClassifyRequest(Named):
    """Texts, to be told apart."""

    input: Text | Annotated[list[Text], Field(min_length=1, max_length=MOST_TEXTS)]

    @property
    def texts(self) -> list[str]:
        return [self.input] if isinstance(self.input, str) else self.input


class InspectRequest(Named):
    """A text, to be looked at layer by layer."""

    text: Text | TokenIds
    lens: bool | None = Field(True, description="The logit lens.")
    top: int | None = Field(5, ge=1, le=10, description="Tokens that it tells at each place.")
    layer: int | None = Field(None, ge=0, lt=2**31, description="The attention of this layer, counted from 0.")
    head: int | None = Field(None, ge=0, lt=2**31, description="The head of that layer, counted from 0; default 0.")
