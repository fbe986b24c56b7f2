"""The server speaks OpenAI's language: the official client finds every option that it names."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import openai
import pytest
import torch

from hornbook.config import Sampling, Serve
from hornbook.errors import UserError
from hornbook.generation.answers import Request
from hornbook.generation.engine import Engine
from hornbook.generation.stream import prompt_ids
from hornbook.serving import responses
from hornbook.serving.keys import Keys, hashed, read_keys
from hornbook.serving.run import may_bind, named
from hornbook.text.chat import chat_ids
from serving_site import Running, events, rung, running

RUNGS = ("ngram", "rnn", "llama")
KEY = "a-key-that-is-long-enough"
HELLO = [{"role": "user", "content": "The statement"}]


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    models = {name: rung(name) for name in RUNGS} | {"plain": rung("gpt2", chat=False)}
    with running(models) as found:
        yield found


@pytest.fixture(scope="module")
def client(server: Running) -> openai.OpenAI:
    return server.client()


def alone(server: Running, name: str, ids: list[int], tokens: int, sample: int = 0, **more: Any) -> str:
    """What the engine writes with nobody else there."""
    stops = more.pop("stops", ())
    request = Request(ids, tokens, Sampling(**{"temperature": 0.0} | more), sample, stops)
    return "".join(piece.text for piece in Engine(server.site.served[name].model).stream(request))


def ids_of(server: Running, name: str, text: str) -> list[int]:
    return prompt_ids(server.site.served[name].model, text)


def post(server: Running, body: Any, path: str = "/v1/completions", **more: Any) -> httpx.Response:
    headers = {"content-type": "application/json", **more.pop("headers", {})}
    return server.http.post(path, content=json.dumps(body), headers=headers, **more)


# Completions


@pytest.mark.parametrize("name", RUNGS)
def test_a_completion_is_what_the_engine_writes_streamed_or_not(server: Running, client, name: str) -> None:
    asked = {"model": name, "prompt": "The statement", "max_tokens": 30, "temperature": 0}
    wanted = alone(server, name, ids_of(server, name, "The statement"), 30)
    whole = client.completions.create(**asked)
    assert (whole.choices[0].text, whole.choices[0].index, whole.object) == (wanted, 0, "text_completion")
    pieces = list(client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert "".join(piece.choices[0].text for piece in pieces[:-1]) == wanted
    assert [piece.choices[0].finish_reason for piece in pieces[:-1]][-1] == whole.choices[0].finish_reason
    assert len({piece.id for piece in pieces}) == 1
    assert pieces[-1].choices == []
    assert pieces[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens


def test_a_prompt_may_be_a_text_ids_or_a_list_of_either(server: Running, client) -> None:
    texts = ["The statement", "An expression"]
    ids = [ids_of(server, "llama", text) for text in texts]
    wanted = [alone(server, "llama", one, 12) for one in ids]
    for prompt in (texts, ids):
        found = client.completions.create(model="llama", prompt=prompt, max_tokens=12, temperature=0)
        assert [choice.text for choice in found.choices] == wanted
        assert [choice.index for choice in found.choices] == [0, 1]
    assert found.usage.prompt_tokens == sum(map(len, ids))
    one = client.completions.create(model="llama", prompt=ids[0], max_tokens=12, temperature=0)
    assert one.choices[0].text == wanted[0]


def test_a_seed_gives_the_same_choices_again_each_its_own(server: Running, client) -> None:
    asked = {"model": "ngram", "prompt": ["The ", "An "], "max_tokens": 20, "n": 2, "seed": 7}
    first, second = (client.completions.create(**asked) for _ in range(2))
    texts = [choice.text for choice in first.choices]
    assert texts == [choice.text for choice in second.choices]
    assert texts[0] != texts[1]
    assert texts[2] != texts[3]
    ids = [ids_of(server, "ngram", prompt) for prompt in asked["prompt"]]
    assert texts == [alone(server, "ngram", one, 20, k, temperature=1.0, seed=7) for one in ids for k in range(2)]
    other = client.completions.create(**{**asked, "seed": -7})
    assert texts != [choice.text for choice in other.choices]
    streamed: dict[int, str] = {}
    for piece in client.completions.create(**asked, stream=True):
        streamed[piece.choices[0].index] = streamed.get(piece.choices[0].index, "") + piece.choices[0].text
    assert [streamed[number] for number in range(4)] == texts


def test_without_a_seed_each_answer_is_another(client) -> None:
    found = {client.completions.create(model="ngram", prompt="The ", max_tokens=30).choices[0].text for _ in range(3)}
    assert len(found) == 3


@pytest.mark.parametrize(
    "dials",
    [
        {"temperature": 0.5},
        {"top_p": 0.3},
        {"frequency_penalty": 1.5},
        {"presence_penalty": -1.5},
        {"logit_bias": {"65": 50.0}},
        {"top_k": 2},
        {"min_p": 0.2},
        {"typical_p": 0.3},
        {"repetition_penalty": 1.5},
        {"no_repeat_ngram": 2},
    ],
    ids=lambda dials: next(iter(dials)),
)
def test_every_dial_reaches_the_engine(server: Running, client, dials: dict[str, Any]) -> None:
    ours = {key: {65: 50.0} if key == "logit_bias" else value for key, value in dials.items()}
    ids = ids_of(server, "ngram", "The ")
    wanted = alone(server, "ngram", ids, 30, **{"temperature": 1.0, "seed": 3} | ours)
    assert wanted != alone(server, "ngram", ids, 30, temperature=1.0, seed=3)
    theirs = {"temperature", "top_p", "frequency_penalty", "presence_penalty", "logit_bias"}
    given = dials if set(dials) <= theirs else {"extra_body": dials}
    found = client.completions.create(model="ngram", prompt="The ", max_tokens=30, seed=3, **given)
    assert found.choices[0].text == wanted


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_text_ends_the_answer_and_is_not_shown(server: Running, client, stream: bool) -> None:
    whole = alone(server, "ngram", ids_of(server, "ngram", "The "), 40)
    stop = whole[10:13]
    asked = {"model": "ngram", "prompt": "The ", "max_tokens": 40, "temperature": 0, "logprobs": 0}
    found = client.completions.create(**asked, stop=["never there", stop], stream=stream)
    choices = [piece.choices[0] for piece in found] if stream else found.choices
    assert "".join(choice.text for choice in choices) == whole[: whole.index(stop)]
    assert choices[-1].finish_reason == "stop"
    tokens = [token for choice in choices for token in choice.logprobs.tokens]
    assert "".join(tokens) == whole[: whole.index(stop)]


def test_an_answer_that_is_cut_says_length(client) -> None:
    found = client.completions.create(model="llama", prompt="The ", max_tokens=3)
    assert (found.choices[0].finish_reason, found.usage.completion_tokens) == ("length", 3)
    assert client.completions.create(model="llama", prompt="The ").usage.completion_tokens <= 16


@pytest.mark.parametrize("name", RUNGS)
def test_log_probabilities_are_the_model_s(server: Running, client, name: str) -> None:
    model, ids = server.site.served[name].model, ids_of(server, name, "The state")
    asked = {"model": name, "prompt": "The state", "max_tokens": 8, "temperature": 0, "logprobs": 3}
    found = client.completions.create(**asked, echo=True).choices[0]
    told = found.logprobs
    pieces = Engine(model).stream(Request(ids, 8, Sampling(temperature=0.0), logprobs=3))
    new = [chosen for piece in pieces for chosen in piece.chosen]
    line = torch.tensor([ids])
    wanted = model.log_prob(line[:, :-1], line[:, 1:])[0].tolist() + [chosen.logprob for chosen in new]
    assert told.token_logprobs[0] is None
    assert told.top_logprobs[0] is None
    assert told.token_logprobs[1:] == pytest.approx(wanted, abs=1e-3)
    assert told.tokens == [model.tokenizer.piece(token) for token in (*ids, *(chosen.token for chosen in new))]
    assert [max(table, key=table.get) for table in told.top_logprobs[len(ids) :]] == told.tokens[len(ids) :]  # greedy
    assert all(3 <= len(table) <= 4 for table in told.top_logprobs[1:])
    assert told.text_offset[: len(ids)] == [0, *range(9)]
    assert found.text.startswith("The state")
    again = client.completions.create(**asked).choices[0].logprobs
    assert again.token_logprobs == pytest.approx(told.token_logprobs[len(ids) :], abs=1e-3)


def test_log_probabilities_in_a_stream_are_those_of_the_whole(client) -> None:
    asked = {"model": "ngram", "prompt": "The ", "max_tokens": 20, "seed": 2, "n": 2, "logprobs": 3, "echo": True}
    whole = client.completions.create(**asked)
    pieces = [piece.choices[0] for piece in client.completions.create(**asked, stream=True)]
    for choice in whole.choices:
        told = [piece.logprobs for piece in pieces if piece.index == choice.index]
        for column in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
            assert [entry for one in told for entry in getattr(one, column)] == getattr(choice.logprobs, column)


def test_echo_without_new_tokens_scores_a_text(server: Running, client) -> None:
    model = server.site.served["llama"].model
    ids = ids_of(server, "llama", "The statement that " * 8)
    found = client.completions.create(model="llama", prompt=[ids, ids[:9]], max_tokens=0, logprobs=1, echo=True)
    for choice, one in zip(found.choices, (ids, ids[:9]), strict=True):
        wanted = model.log_prob(torch.tensor([one[:-1]]), torch.tensor([one[1:]]))[0].tolist()
        assert choice.logprobs.token_logprobs[1:] == pytest.approx(wanted, abs=1e-3)
        assert (choice.finish_reason, choice.text) == ("length", model.tokenizer.decode(one))
    assert found.usage.completion_tokens == 0
    pieces = client.completions.create(model="llama", prompt=ids, max_tokens=0, logprobs=1, echo=True, stream=True)
    told = [number for piece in pieces for number in piece.choices[0].logprobs.token_logprobs]
    assert told == found.choices[0].logprobs.token_logprobs
    plain = client.completions.create(model="llama", prompt="ab", max_tokens=0)
    assert (plain.choices[0].text, plain.choices[0].finish_reason) == ("", "length")


def test_an_echo_comes_first_in_a_stream(server: Running, client) -> None:
    pieces = client.completions.create(model="llama", prompt="ab", max_tokens=5, temperature=0, echo=True, stream=True)
    found = [piece.choices[0].text for piece in pieces]
    assert found[0] == "ab"
    assert "".join(found) == "ab" + alone(server, "llama", ids_of(server, "llama", "ab"), 5)


def test_a_prompt_that_comes_again_is_not_read_again(client) -> None:
    asked = {"model": "llama", "prompt": "A rather long prompt, so that it is worth to keep.", "max_tokens": 4}
    first, second = (client.completions.create(**asked).usage for _ in range(2))
    assert second.prompt_tokens_details.cached_tokens >= first.prompt_tokens - 1
    assert second.prompt_tokens == first.prompt_tokens


# Chat


@pytest.mark.parametrize("name", RUNGS)
def test_chat_continues_the_model_s_own_template(server: Running, client, name: str) -> None:
    talk = [{"role": "system", "content": "Be brief."}, *HELLO]
    wanted = alone(server, name, chat_ids(server.site.served[name].model.tokenizer, talk), 20)
    asked = {"model": name, "messages": talk, "max_tokens": 20, "temperature": 0}
    whole = client.chat.completions.create(**asked)
    assert whole.choices[0].message.content == wanted
    assert whole.choices[0].message.role == "assistant"
    pieces = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert pieces[0].choices[0].delta.role == "assistant"
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces[:-1]) == wanted
    assert pieces[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert pieces[-1].usage.prompt_tokens == whole.usage.prompt_tokens


def test_messages_may_come_in_parts_and_from_a_developer(client) -> None:
    parts = [{"type": "text", "text": "The "}, {"type": "text", "text": "statement"}]
    asked = {"model": "llama", "max_completion_tokens": 9, "temperature": 0}
    one = client.chat.completions.create(messages=[{"role": "system", "content": "x"}, *HELLO], **asked)
    two = client.chat.completions.create(
        messages=[{"role": "developer", "content": "x"}, {"role": "user", "content": parts}], **asked
    )
    assert one.choices[0].message.content == two.choices[0].message.content


def test_chat_without_a_limit_fills_the_context(server: Running, client) -> None:
    found = client.chat.completions.create(model="rnn", messages=HELLO, temperature=0)
    assert found.usage.total_tokens == 256 or found.choices[0].finish_reason == "stop"
    assert found.usage.total_tokens <= 256


@pytest.mark.parametrize("stream", [False, True])
def test_chat_tells_log_probabilities_with_bytes(client, stream: bool) -> None:
    asked = {"model": "ngram", "messages": HELLO, "max_tokens": 12, "temperature": 0, "stream": stream}
    found = client.chat.completions.create(**asked, logprobs=True, top_logprobs=2, n=2)
    choices = [piece.choices[0] for piece in found] if stream else found.choices
    rows = [row for choice in choices if choice.index == 1 and choice.logprobs for row in choice.logprobs.content]
    text = "".join((c.delta.content or "") if stream else c.message.content for c in choices if c.index == 1)
    assert bytes(byte for row in rows for byte in row.bytes).decode() == text
    for row in rows:
        assert len(row.top_logprobs) == 2
        assert row.logprob == row.top_logprobs[0].logprob <= 0
        assert row.top_logprobs[0].logprob >= row.top_logprobs[1].logprob


@pytest.mark.parametrize("stream", [False, True])
def test_chat_keeps_to_stop_texts_choices_seed_and_usage(server: Running, client, stream: bool) -> None:
    ids = chat_ids(server.site.served["ngram"].model.tokenizer, HELLO)
    stop = alone(server, "ngram", ids, 40, temperature=1.0, seed=5)[8:10]
    wanted = [alone(server, "ngram", ids, 40, k, temperature=1.0, seed=5, stops=(stop,)) for k in range(3)]
    asked = {"model": "ngram", "messages": HELLO, "max_tokens": 40, "seed": 5, "n": 3, "stop": stop}
    if stream:
        pieces = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
        choices, usage = [piece.choices[0] for piece in pieces[:-1]], pieces[-1].usage
    else:
        whole = client.chat.completions.create(**asked)
        choices, usage = whole.choices, whole.usage
    texts = ["", "", ""]
    for choice in choices:
        texts[choice.index] += (choice.delta.content or "") if stream else choice.message.content
    assert texts == wanted
    assert [choice.finish_reason for choice in choices if choice.index == 0][-1] == "stop"
    assert (usage.prompt_tokens, usage.total_tokens) == (len(ids), len(ids) + usage.completion_tokens)
    assert usage.completion_tokens >= sum(map(len, wanted)) + len(stop) - 1


def test_the_client_s_own_helper_for_streams_understands_ours(client) -> None:
    asked = {"model": "ngram", "messages": HELLO, "seed": 1, "stop": "e"}  # it takes an answer that is cut as an error
    with client.chat.completions.stream(**asked, logprobs=True) as stream:
        kinds = {event.type for event in stream}
        found = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done", "logprobs.content.delta"} <= kinds
    assert found.choices[0].message.content == client.chat.completions.create(**asked).choices[0].message.content


def test_the_asynchronous_client_gets_the_same(server: Running, client) -> None:
    asked = {"model": "ngram", "prompt": "The ", "max_tokens": 20}
    wanted = [client.completions.create(**asked, seed=seed).choices[0].text for seed in range(4)]

    async def ask(other: openai.AsyncOpenAI, seed: int) -> str:
        pieces = await other.completions.create(**asked, seed=seed, stream=True)
        return "".join([piece.choices[0].text async for piece in pieces])

    async def everybody() -> list[str]:
        async with openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="none") as other:
            return await asyncio.gather(*(ask(other, seed) for seed in range(4)))

    assert asyncio.run(everybody()) == wanted


def test_a_model_without_a_template_says_so(client) -> None:
    with pytest.raises(openai.BadRequestError, match="no chat template") as error:
        client.chat.completions.create(model="plain", messages=HELLO)
    assert error.value.code == "no_chat_template"


# The forms


def test_models_are_listed_and_found(client) -> None:
    listed = {model.id: model for model in client.models.list()}
    assert set(listed) == {*RUNGS, "plain"}
    assert (listed["plain"].chat, listed["rnn"].chat, listed["rnn"].owned_by) == (False, True, "hornbook")
    assert client.models.retrieve("rnn").id == "rnn"
    with pytest.raises(openai.NotFoundError, match="there is no model 'x'"):
        client.models.retrieve("x")
    with pytest.raises(openai.NotFoundError, match="there is no model 'x'") as error:
        client.completions.create(model="x", prompt="a")
    assert error.value.code == "model_not_found"


@pytest.mark.parametrize("more", [{}, {"logprobs": 2}, {"echo": True, "logprobs": 0}, {"n": 2, "best_of": 2}])
def test_completions_have_the_shape_that_is_described(server: Running, more: dict[str, Any]) -> None:
    body = {"model": "ngram", "prompt": "The ", "max_tokens": 5, **more}
    responses.Completion.model_validate_json(post(server, body).content)
    stream = post(server, {**body, "stream": True, "stream_options": {"include_usage": True}})
    assert stream.headers["content-type"].startswith("text/event-stream")
    *pieces, last = events(stream.text)
    assert last == "[DONE]"
    for piece in pieces:
        responses.Completion.model_validate(piece)
    assert [piece["usage"] is None for piece in pieces] == [True] * (len(pieces) - 1) + [False]


@pytest.mark.parametrize("more", [{}, {"logprobs": True, "top_logprobs": 2}, {"n": 2}])
def test_chats_have_the_shape_that_is_described(server: Running, more: dict[str, Any]) -> None:
    body = {"model": "ngram", "messages": HELLO, "max_tokens": 5, **more}
    path = "/v1/chat/completions"
    responses.ChatCompletion.model_validate_json(post(server, body, path).content)
    *pieces, last = events(post(server, {**body, "stream": True}, path).text)
    assert last == "[DONE]"
    for piece in pieces:
        responses.ChatChunk.model_validate(piece)
        assert "usage" not in piece


def test_null_is_the_default_everywhere(server: Running) -> None:
    from hornbook.serving.requests import ChatRequest, CompletionRequest

    for shape, needed, path in (
        (CompletionRequest, {"prompt": "a"}, "/v1/completions"),
        (ChatRequest, {"messages": HELLO}, "/v1/chat/completions"),
    ):
        nulls = {name: None for name in shape.model_fields if name not in needed}
        found = post(server, nulls | needed | {"model": "llama"}, path)
        assert found.status_code == 200, found.text


def test_unknown_fields_are_ignored(client) -> None:
    found = client.completions.create(model="rnn", prompt="a", max_tokens=1, user="me", extra_body={"no_such": [1]})
    assert found.choices


WRONG = [
    ({"prompt": None}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": [1, "a"]}, "prompt"),
    ({"prompt": [[]]}, "prompt"),
    ({"prompt": [True]}, "prompt"),
    ({"prompt": [-1]}, "prompt"),
    ({"prompt": [10**6]}, "token id"),
    ({"prompt": [10**30]}, "prompt"),
    ({"prompt": "half of a pair: \ud800"}, "prompt"),
    ({"prompt": "x" * 400}, "context"),
    ({"max_tokens": 250, "prompt": "a" * 20}, "context"),
    ({"max_tokens": 257}, "at most 256"),
    ({"max_tokens": -1}, "max_tokens"),
    ({"max_tokens": 2.5}, "max_tokens"),
    ({"max_tokens": 10**400}, "max_tokens"),
    ({"max_tokens": "5"}, "max_tokens"),
    ({"temperature": -0.1}, "temperature"),
    ({"temperature": 2.1}, "temperature"),
    ({"temperature": "hot"}, "temperature"),
    ({"temperature": math.nan}, "temperature"),
    ({"temperature": math.inf}, "temperature"),
    ({"temperature": 10**400}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"top_p": 1.5}, "top_p"),
    ({"top_k": -1}, "top_k"),
    ({"min_p": -math.inf}, "min_p"),
    ({"typical_p": 0}, "typical_p"),
    ({"repetition_penalty": 0}, "repetition_penalty"),
    ({"frequency_penalty": 3}, "frequency_penalty"),
    ({"presence_penalty": math.nan}, "presence_penalty"),
    ({"no_repeat_ngram": -1}, "no_repeat_ngram"),
    ({"logit_bias": {"a": 1}}, "logit_bias"),
    ({"logit_bias": {"-1": 1}}, "logit_bias"),
    ({"logit_bias": {"5": 101}}, "logit_bias"),
    ({"logit_bias": {"5": math.nan}}, "logit_bias"),
    ({"logit_bias": {"999999": 1}}, "vocabulary"),
    ({"logit_bias": {str(i): 1 for i in range(301)}}, "logit_bias"),
    ({"seed": 2**64}, "seed"),
    ({"seed": 0.5}, "seed"),
    ({"n": 0}, "n:"),
    ({"n": 129}, "n:"),
    ({"n": 100}, "at most"),
    ({"stop": ""}, "stop"),
    ({"stop": ["a", ""]}, "stop"),
    ({"stop": ["a"] * 17}, "stop"),
    ({"logprobs": -1}, "logprobs"),
    ({"logprobs": 21}, "logprobs"),
    ({"logprobs": True}, "logprobs"),
    ({"best_of": 3}, "best_of"),
    ({"suffix": "end"}, "suffix"),
    ({"stream": "yes"}, "stream"),
    ({"model": 5}, "model"),
    ({"model": None}, "model is missing"),
]


@pytest.fixture(scope="module")
def table() -> Iterator[Running]:
    with running({"llama": rung("llama"), "few": rung("rnn")}) as found:
        yield found


@pytest.mark.parametrize(("wrong", "said"), WRONG, ids=lambda value: str(value)[:40])
def test_wrong_requests_are_refused_in_openai_s_form(table: Running, wrong: dict[str, Any], said: str) -> None:
    body = json.dumps({"model": "llama", "prompt": "a", "max_tokens": 4} | wrong)
    for stream in (False, True):
        found = table.http.post(
            "/v1/completions",
            content=body[:-1] + (', "stream": true}' if stream and "stream" not in wrong else "}"),
            headers={"content-type": "application/json"},
            timeout=60,
        )
        assert found.status_code == 400, found.text
        responses.Error.model_validate(found.json())
        assert said in found.json()["error"]["message"]
        assert found.json()["error"]["type"] == "invalid_request_error"


def test_settings_that_rule_out_every_token_are_to_blame(table: Running) -> None:
    """Three tokens can follow, and none may come twice."""
    model = table.site.served["few"].model
    model.head = lambda hidden: hidden[..., :1] * 0 + torch.where(torch.arange(261) < 3, 0.0, -math.inf)
    body = {"model": "few", "prompt": [9], "no_repeat_ngram": 1, "max_tokens": 9}
    found = post(table, body)
    assert (found.status_code, "rules out every token" in found.text) == (400, True)
    assert "rules out every token" in post(table, {**body, "stream": True}).text


WRONG_CHATS = [
    ({"messages": []}, "messages"),
    ({"messages": "hello"}, "messages"),
    ({"messages": [{"role": "wizard", "content": "a"}]}, "messages"),
    ({"messages": [{"role": "user"}]}, "messages"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "messages"),
    ({"messages": [{"role": "user", "content": "\udfff"}]}, "messages"),
    ({"top_logprobs": 2}, "needs logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"logprobs": 2}, "logprobs"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"messages": [{"role": "user", "content": "x" * 400}]}, "context"),
    ({"temperature": math.nan}, "temperature"),
    ({"presence_penalty": -math.inf}, "presence_penalty"),
    ({"n": -1}, "n:"),
    ({"max_completion_tokens": -5}, "max_completion_tokens"),
]


@pytest.mark.parametrize("stream", [False, True])
def test_the_client_raises_what_openai_s_errors_say(table: Running, stream: bool) -> None:
    client = table.client()
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model="llama", messages=HELLO, temperature=-1, stream=stream)
    assert (error.value.param, error.value.type) == ("temperature", "invalid_request_error")
    with pytest.raises(openai.BadRequestError) as error:
        client.completions.create(model="llama", prompt="x" * 400, stream=stream)
    assert (error.value.param, error.value.code) == ("prompt", "context_length_exceeded")


@pytest.mark.parametrize(("wrong", "said"), WRONG_CHATS, ids=lambda value: str(value)[:40])
def test_wrong_conversations_are_refused(table: Running, wrong: dict[str, Any], said: str) -> None:
    found = post(table, {"model": "llama", "messages": HELLO, "max_tokens": 4} | wrong, "/v1/chat/completions")
    assert found.status_code == 400, found.text
    assert said in found.json()["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"5",
        b'{"prompt": "\xff\xfe"}',
        b'{"model": "llama", "prompt": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        b'{"model": "llama", "prompt": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
        b'{"model": "llama", "prompt": "a", "max_tokens": ' + b"9" * 10_000 + b"}",
        b'{"model": "llama", "prompt": ' + b"[" * 700 + b"]" * 700 + b"}",
    ],
    ids=["empty", "torn", "list", "number", "not utf-8", "deep lists", "deep objects", "long number", "lists"],
)
def test_bodies_that_are_no_request_are_refused(table: Running, body: bytes) -> None:
    kind = {"content-type": "application/json"}
    found = table.http.post("/v1/completions", content=body, headers=kind, timeout=60)
    assert found.status_code == 400
    responses.Error.model_validate(found.json())


def test_a_body_must_be_sent_as_json(table: Running) -> None:
    """A page of another site may send text/plain without asking; JSON it may not."""
    for headers in ({"content-type": "text/plain"}, {}):
        found = table.http.post("/v1/completions", content=b'{"prompt": "a"}', headers=headers)
        assert (found.status_code, "application/json" in found.json()["error"]["message"]) == (400, True)


def test_unknown_paths_and_methods_are_errors_of_the_same_form(table: Running) -> None:
    for found, status in ((table.http.get("/v2"), 404), (table.http.get("/v1/completions"), 405)):
        assert found.status_code == status
        responses.Error.model_validate(found.json())
    assert found.headers["allow"] == "POST"


def test_one_model_need_not_be_named() -> None:
    with running({"only": rung("rnn")}) as server:
        assert post(server, {"prompt": "a", "max_tokens": 1}).json()["model"] == "only"


def test_a_browser_gets_one_page_that_may_load_nothing_from_elsewhere(server: Running, monkeypatch, tmp_path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<!doctype html><title>Hornbook</title>")
    monkeypatch.setattr("hornbook.serving.app.PAGE", page)
    found = server.http.get("/")
    assert (found.status_code, found.text) == (200, page.read_text())
    assert found.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in found.headers["content-security-policy"]


# Who may come in


def test_with_keys_nobody_else_is_answered() -> None:
    with running({"rnn": rung("rnn")}, Keys({hashed(KEY), hashed("sha256:" + "0" * 64)})) as server:
        assert server.client(KEY).completions.create(model="rnn", prompt="a", max_tokens=1).choices
        for stream in (False, True):
            with pytest.raises(openai.AuthenticationError) as error:
                server.client("wrong").chat.completions.create(model="rnn", messages=HELLO, stream=stream)
            assert (error.value.code, error.value.type) == ("invalid_api_key", "authentication_error")
        for key in ("none", "wrong", KEY[:-1], KEY + "x", "0" * 64):
            paths = (("GET", "/v1/models"), ("POST", "/v1/completions"), ("GET", "/metrics"), ("GET", "/x"))
            for method, path in paths:
                found = server.http.request(method, path, headers={"authorization": f"Bearer {key}"})
                assert (found.status_code, found.json()["error"]["code"]) == (401, "invalid_api_key")
        assert server.http.get("/v1/models", headers={"authorization": f"Basic {KEY}"}).status_code == 401
        assert server.http.get("/v1/models", headers={"authorization": f"bearer {KEY}"}).status_code == 200
        assert server.http.get("/health").status_code == 200
        described = server.http.get("/openapi.json").json()
        assert described["paths"]["/v1/models"]["get"]["security"]
        text = server.logged()
        assert KEY not in text
        assert hashed(KEY).hex()[:8] in text


def test_keys_are_read_from_a_file_and_the_environment(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# of this machine\n\n{KEY}\nsha256:{hashed('another-long-api-key').hex()}\n")
    monkeypatch.setenv("HORNBOOK_API_KEYS", "from-the-environment, and-one-more-of-these")
    keys = read_keys(str(file))
    accepted = (KEY, "another-long-api-key", "from-the-environment", "and-one-more-of-these")
    assert all(keys.holder(f"Bearer {key}") for key in accepted)
    assert not keys.holder("Bearer # of this machine")
    for text, said in (
        ("short\n", "16"),
        ("# none\n", "no API key"),
        ("sha256:xyz\n", "64"),
        ("schlüssel-1234567890\n", "ASCII"),
    ):
        file.write_text(text)
        with pytest.raises(UserError, match=said):
            read_keys(str(file))
    with pytest.raises(UserError, match="no-such"):
        read_keys("no-such")


@pytest.mark.parametrize(
    "wrong",
    [{"rows": -1}, {"timeout": math.nan}, {"max_body": math.inf}, {"queue": -1}, {"memory": 0}, {"port": 2**16}],
)
def test_limits_that_are_none_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong)).replace("_", "-")):
        Serve(("x",), **wrong)


def test_an_open_address_needs_keys_or_consent() -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1"):
        with pytest.raises(UserError, match="API keys"):
            may_bind(Serve(("x",), host=host), Keys(set()))
        may_bind(Serve(("x",), host=host, open=True), Keys(set()))
        may_bind(Serve(("x",), host=host), Keys({hashed(KEY)}))
    for host in ("127.0.0.1", "localhost", "::1"):
        may_bind(Serve(("x",), host=host), Keys(set()))


def test_a_name_of_another_site_does_not_lead_here(server: Running) -> None:
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "[2001:db8::1]:80", ""):
        found = server.http.get("/v1/models", headers={"host": host})
        assert found.status_code == 403, host
    for host in ("localhost", "localhost:99", "127.0.0.1", "[::1]", "[::1]:8000"):
        assert server.http.get("/v1/models", headers={"host": host}).status_code == 200, host


def test_pages_of_other_origins_are_let_in_by_name_only(server: Running) -> None:
    asks = {"origin": "https://a.example", "access-control-request-method": "POST"}
    asks["access-control-request-headers"] = "content-type, authorization"
    refused = server.http.options("/v1/completions", headers=asks)
    assert "access-control-allow-origin" not in refused.headers
    with running({"rnn": rung("rnn")}, cors=("https://a.example",)) as other:
        allowed = other.http.options("/v1/completions", headers=asks)
        assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, "https://a.example")
        again = other.http.options("/v1/completions", headers={**asks, "origin": "https://b.example"})
        assert "access-control-allow-origin" not in again.headers
        wrong = post(other, {"prompt": 5}, headers={"origin": "https://a.example"})
        assert (wrong.status_code, wrong.headers["access-control-allow-origin"]) == (400, "https://a.example")


def test_runs_are_served_by_their_folder_s_name_or_a_chosen_one(tmp_path) -> None:
    (tmp_path / "a=b").mkdir()
    here = named(("runs/x", "y=runs/x", "hf:owner/z@main", "w.gguf"))
    assert here == {"x": "runs/x", "y": "runs/x", "z": "hf:owner/z@main", "w": "w.gguf"}
    with pytest.raises(UserError, match="two runs are called x"):
        named(("runs/x", "other/x"))
    with pytest.raises(UserError, match="cannot be a model's name"):
        named((f"n={tmp_path}", str(tmp_path / "a=b")))


# What is told of it


def test_health_and_figures(server: Running) -> None:
    health = server.http.get("/health")
    assert (health.status_code, health.json()["status"]) == (200, "ok")
    responses.Health.model_validate(health.json())
    before = figures(server)
    post(server, {"model": "rnn", "prompt": "abc", "max_tokens": 5, "temperature": 0, "logit_bias": {"70": 100}})
    post(server, {"model": "rnn", "prompt": 7})
    after = figures(server)
    name = 'hornbook_requests_total{path="/v1/completions",status="%d"}'
    assert after[name % 200] == before.get(name % 200, 0) + 1
    assert after[name % 400] == before.get(name % 400, 0) + 1
    new = 'hornbook_tokens_total{model="rnn",kind="new"}'
    assert after[new] == before.get(new, 0) + 5
    assert after['hornbook_answers_running{model="rnn"}'] == 0
    assert after['hornbook_engine_up{model="rnn"}'] == 1
    first = 'hornbook_first_token_seconds_bucket{model="rnn",le="+Inf"}'
    assert after[first] == after['hornbook_first_token_seconds_count{model="rnn"}'] == before.get(first, 0) + 1


def test_while_it_shuts_down_nothing_new_is_taken() -> None:
    with running({"rnn": rung("rnn")}) as server:
        server.site.draining = True
        found = post(server, {"prompt": "a"})
        assert (found.status_code, found.json()["error"]["code"]) == (503, "shutting_down")
        assert found.headers["retry-after"] == "1"
        health = server.http.get("/health")
        assert (health.status_code, health.json()["status"]) == (503, "shutting down")


def test_an_engine_that_does_not_run_is_told() -> None:
    with running({"rnn": rung("rnn")}) as server:
        server.site.served["rnn"].worker.stop()
        assert post(server, {"prompt": "a"}).status_code == 503
        assert server.http.get("/health").json() == {"status": "failing", "models": {"rnn": False}}


def figures(server: Running) -> dict[str, float]:
    """/metrics, each line of it in Prometheus' form."""
    found, kinds = {}, set()
    for line in server.http.get("/metrics").text.splitlines():
        if line.startswith("# "):
            kinds.add(line.split()[2])
            continue
        match = re.fullmatch(r'([a-z_]+)(\{([a-z_]+="[^"]*",?)*\})? (-?[0-9.e+]+)', line)
        assert match, line
        assert re.sub("_(bucket|sum|count)$", "", match[1]) in kinds
        found[match[1] + (match[2] or "")] = float(match[4])
    return found


def test_the_log_is_json_and_tells_no_prompts_unless_asked() -> None:
    model = rung("rnn")
    for shown in (False, True):
        with running({"rnn": model}, log_prompts=shown) as server:
            post(server, {"prompt": "a secret thing", "max_tokens": 2})
            post(server, {"messages": [{"role": "user", "content": "a secret thing"}]}, "/v1/chat/completions")
            post(server, {"prompt": "a secret thing", "temperature": "a secret thing"})
            post(server, {"prompt": ["a secret thing", 5]})
            lines = server.lines()
            assert [line["status"] for line in lines if line["event"] == "request"] == [200, 200, 400, 400]
            assert {"time", "id", "client", "path", "seconds", "model", "prompt_tokens", "new_tokens"} <= set(lines[0])
            assert ("a secret thing" in server.logged()) == shown


def test_answers_carry_the_id_that_the_log_has(server: Running) -> None:
    found = post(server, {"model": "rnn", "prompt": "a", "max_tokens": 1}).headers["x-request-id"]
    assert server.lines()[-1]["id"] == found
