"""What the server tells of a model's inside: conversations in their template, the logit lens, attention."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import pytest
import torch

from hornbook.generation.stream import prompt_ids
from hornbook.inspection.lens import attention_weights, streams, unembed
from hornbook.serving import responses
from hornbook.serving.keys import Keys, hashed
from hornbook.text import rendering
from hornbook.text.chat import rendered
from serving_site import Running, rung, running, slowed, tokenizer, until

KEY = "a-key-that-is-long-enough"
HELLO = [{"role": "user", "content": "The statement"}]
RUNGS = ("ngram", "rnn", "rnn_attention", "llama")
PATHS = {"/v1/chat/render": {"messages": HELLO}, "/v1/inspect": {"text": "abc"}}


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running({name: rung(name) for name in RUNGS} | {"plain": rung("gpt2", chat=False)}) as found:
        yield found


def post(server: Running, path: str, **body: Any) -> httpx.Response:
    return server.http.post(path, content=json.dumps(body), headers={"content-type": "application/json"})


def refused(found: httpx.Response, *said: str) -> None:
    assert found.status_code == 400, found.text
    responses.Error.model_validate_json(found.content)
    for words in said:
        assert words in found.json()["error"]["message"]


# A conversation in its template


@pytest.mark.parametrize("answer", [True, False, None])
def test_a_conversation_is_shown_as_the_model_reads_it(server: Running, answer: bool | None) -> None:
    more = {} if answer is None else {"add_generation_prompt": answer}
    found = post(server, "/v1/chat/render", model="llama", messages=HELLO, **more)
    responses.Rendered.model_validate_json(found.content)
    wanted = rendered(server.site.served["llama"].model.tokenizer, HELLO, answer is not False)
    assert found.json() == {"text": wanted.text, "ids": wanted.ids}
    assert wanted.text.startswith("<|im_start|>user\nThe statement<|im_end|>\n")
    assert wanted.text.endswith("assistant\n") == (answer is not False)


def test_what_is_rendered_is_what_a_chat_reads(server: Running) -> None:
    ids = post(server, "/v1/chat/render", model="ngram", messages=HELLO).json()["ids"]
    asked = {"model": "ngram", "max_tokens": 20, "temperature": 0}
    text = post(server, "/v1/completions", prompt=ids, **asked).json()["choices"][0]["text"]
    said = post(server, "/v1/chat/completions", messages=HELLO, **asked).json()
    assert (said["choices"][0]["message"]["content"], said["usage"]["prompt_tokens"]) == (text, len(ids))


def test_conversations_that_cannot_be_rendered_are_refused(server: Running) -> None:
    refused(post(server, "/v1/chat/render", model="plain", messages=HELLO), "no chat template")
    refused(post(server, "/v1/chat/render", model="llama", messages=[]), "messages")
    refused(post(server, "/v1/chat/render", model="llama"), "messages")
    refused(post(server, "/v1/chat/render", model="llama", messages=[{"role": "tool", "content": "x"}]), "messages")
    assert post(server, "/v1/chat/render", model="none", messages=HELLO).status_code == 404


def test_a_template_that_does_not_end_is_one_line_and_the_server_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    model, speaking = rung("rnn"), rung("rnn")
    endless = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    model.tokenizer = tokenizer()
    model.tokenizer.config["chat_template"] = endless
    with running({"endless": model, "rnn": speaking}) as server:
        assert post(server, "/v1/chat/render", model="rnn", messages=HELLO).status_code == 200
        monkeypatch.setattr(rendering, "PATIENCE", 1.0)
        for path in ("/v1/chat/render", "/v1/chat/completions"):
            refused(post(server, path, model="endless", messages=HELLO), "chat template does not work: it ran for more")
        monkeypatch.setattr(rendering, "PATIENCE", 20.0)  # a busy machine may start the next process slowly
        assert post(server, "/v1/chat/render", model="rnn", messages=HELLO).status_code == 200


# The lens


@pytest.mark.parametrize("name", ["rnn", "rnn_attention", "llama", "plain"])
def test_the_lens_tells_the_likeliest_tokens_of_every_layer(server: Running, name: str) -> None:
    model = server.site.served[name].model
    found = post(server, "/v1/inspect", model=name, text="The statement", top=3)
    responses.Inspection.model_validate_json(found.content)
    told = found.json()
    ids = prompt_ids(model, "The statement")
    assert (told["ids"], told["left_out"], told["attention"]) == (ids, 0, None)
    states = streams(model, torch.tensor(ids))
    assert len(told["lens"]["layers"]) == len(told["lens"]["top"]) == len(states)
    for layer, state in zip(told["lens"]["top"], states, strict=True):
        best = unembed(model, state).softmax(-1).topk(3)
        assert [[token for token, _ in row] for row in layer] == best.indices.tolist()
        shares = torch.tensor([[share for _, share in row] for row in layer])
        torch.testing.assert_close(shares, best.values, rtol=1e-3, atol=0)
    used = {token for layer in told["lens"]["top"] for row in layer for token, _ in row} | set(ids)
    assert told["names"] == {str(token): model.tokenizer.piece(token) for token in used}


def test_the_last_layer_is_what_a_completion_says(server: Running) -> None:
    told = post(server, "/v1/inspect", model="llama", text="The statement", top=1).json()
    (token, share), *_ = told["lens"]["top"][-1][-1]
    asked = {"model": "llama", "prompt": "The statement", "max_tokens": 1, "temperature": 0, "logprobs": 0}
    said = post(server, "/v1/completions", **asked).json()["choices"][0]["logprobs"]
    assert said["tokens"] == [told["names"][str(token)]]
    assert said["token_logprobs"][0] == pytest.approx(torch.tensor(share).log().item(), abs=1e-3)


def test_attention_is_told_of_one_head(server: Running) -> None:
    model, ids = server.site.served["llama"].model, list(range(65, 95))
    told = post(server, "/v1/inspect", model="llama", text=ids, lens=False, layer=1, head=3).json()
    assert (told["lens"], told["attention"]["layer"], told["attention"]["head"]) == (None, 1, 3)
    wanted = attention_weights(model, torch.tensor(ids), 1, 3)
    for number, row in enumerate(told["attention"]["weights"]):
        torch.testing.assert_close(torch.tensor(row), wanted[number, : number + 1], rtol=1e-3, atol=1e-6)
        assert sum(row) == pytest.approx(1, abs=1e-2)
    one = post(server, "/v1/inspect", model="rnn_attention", text="ab", layer=0).json()
    assert (one["attention"]["head"], len(one["attention"]["weights"])) == (0, len(one["ids"]))


def test_of_a_long_text_the_last_tokens_are_read_and_the_answer_stays_small(server: Running) -> None:
    text = "a long text " * 4000
    found = post(server, "/v1/inspect", model="llama", text=text, top=10, layer=0)
    told, ids = found.json(), prompt_ids(server.site.served["llama"].model, text)
    assert (told["ids"], told["left_out"]) == (ids[-128:], len(ids) - 128)
    assert len(told["attention"]["weights"]) == 128
    assert len(found.content) < 200_000


def test_models_tell_what_can_be_looked_at_and_refuse_the_rest(server: Running) -> None:
    listed = {model["id"]: model for model in server.http.get("/v1/models").json()["data"]}
    for model in listed.values():
        responses.Model.model_validate(model)
    assert {name: model["lens"] for name, model in listed.items()} == {name: name != "ngram" for name in listed}
    assert listed["llama"]["attention"] == {"layers": 2, "heads": 4}
    assert listed["rnn_attention"]["attention"] == {"layers": 1, "heads": 1}
    assert listed["rnn"]["attention"] is listed["ngram"]["attention"] is None
    refused(post(server, "/v1/inspect", model="ngram", text="a"), "no layers to look at")
    refused(post(server, "/v1/inspect", model="rnn", text="a", layer=0), "no attention")
    refused(post(server, "/v1/inspect", model="ngram", text="a", lens=False, layer=0), "no attention")
    refused(post(server, "/v1/inspect", model="llama", text="a", layer=2), "no layer 2", "0 to 1")
    refused(post(server, "/v1/inspect", model="llama", text="a", layer=0, head=4), "no head 4", "0 to 3")
    plain = post(server, "/v1/inspect", model="ngram", text="a", lens=False).json()
    assert (plain["lens"], plain["attention"], len(plain["ids"])) == (None, None, 2)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({}, "text"),
        ({"text": None}, "text: a text, or its token ids"),
        ({"text": ["a"]}, "text"),
        ({"text": []}, "text"),
        ({"text": [10**6]}, "token id"),
        ({"text": "half of a pair: \ud800"}, "text"),
        ({"text": "a", "top": 0}, "top"),
        ({"text": "a", "top": 11}, "top"),
        ({"text": "a", "layer": -1}, "layer"),
        ({"text": "a", "layer": 0, "head": 0.5}, "head"),
        ({"text": "a", "lens": "yes"}, "lens"),
    ],
    ids=str,
)
def test_wrong_questions_are_refused(server: Running, wrong: dict[str, Any], said: str) -> None:
    refused(post(server, "/v1/inspect", model="llama", **wrong), said)


def test_null_is_the_default(server: Running) -> None:
    nulls = dict.fromkeys(("lens", "top", "layer", "head"))
    plain = post(server, "/v1/inspect", model="llama", text="abc")
    assert post(server, "/v1/inspect", model="llama", text="abc", **nulls).json() == plain.json()
    assert len(plain.json()["lens"]["top"][0][0]) == 5


# With others


def test_answers_under_way_go_on_while_a_model_is_looked_at() -> None:
    """And neither changes what the other finds."""
    with running({"m": slowed(rung("llama"), 0.01)}) as server:
        asked = {"prompt": "The ", "max_tokens": 60, "temperature": 0}
        wanted, seen = (post(server, path, **body).json() for path, body in (("/v1/completions", asked), INSIDE))
        with server.http.stream("POST", "/v1/completions", json={**asked, "stream": True}) as stream:
            lines = stream.iter_lines()
            next(lines)
            for _ in range(3):
                assert post(server, *INSIDE[:1], **INSIDE[1]).json() == seen
            text = "".join(json.loads(line[6:])["choices"][0]["text"] for line in lines if line.startswith("data: {"))
    assert wanted["choices"][0]["text"].endswith(text)


INSIDE = ("/v1/inspect", {"text": "The statement", "layer": 0})


@pytest.mark.parametrize("path", PATHS)
def test_without_a_key_nobody_looks_inside(path: str) -> None:
    with running({"rnn": rung("rnn")}, Keys({hashed(KEY)})) as server:
        assert post(server, path, **PATHS[path]).status_code == 401
        found = server.http.post(path, json=PATHS[path], headers={"authorization": f"Bearer {KEY}"})
        assert found.status_code == 200


@pytest.mark.parametrize("path", PATHS)
def test_they_keep_to_the_limits_of_other_requests(path: str) -> None:
    with running({"rnn": slowed(rung("rnn", eos=None), 0.05)}, rows=1, queue=0, max_body=0.01, max_prompt=9) as server:
        large = {
            name: [{"role": "user", "content": "x" * 20_000}] if name == "messages" else "x" * 20_000
            for name in PATHS[path]
        }
        assert post(server, path, **large).status_code == 413
        with server.http.stream(
            "POST", "/v1/completions", json={"prompt": "a", "max_tokens": 90, "stream": True}
        ) as one:
            lines = one.iter_lines()  # held: an iterator that is thrown away closes its connection, which frees the row
            next(lines)
            found = post(server, path, **PATHS[path])
            assert (found.status_code, found.headers["retry-after"]) == (429, "1")
        until(lambda: server.site.served["rnn"].worker.open == 0)
        assert post(server, path, **PATHS[path]).status_code == 200
        if path == "/v1/inspect":
            assert len(post(server, path, text="a longer text").json()["ids"]) == 9


def test_they_are_counted_and_log_no_text_unless_asked() -> None:
    for shown in (False, True):
        with running({"llama": rung("llama")}, log_prompts=shown) as server:
            post(server, "/v1/inspect", text="a secret thing")
            post(server, "/v1/chat/render", messages=[{"role": "user", "content": "a secret thing"}])
            lines = [line for line in server.lines() if line["event"] == "request"]
            assert [(line["path"], line["status"], line["model"]) for line in lines] == [
                ("/v1/inspect", 200, "llama"),
                ("/v1/chat/render", 200, "llama"),
            ]
            assert lines[0]["prompt_tokens"] == 15
            assert ("a secret thing" in server.logged()) == shown
            told = server.http.get("/metrics").text
            assert 'hornbook_requests_total{path="/v1/inspect",status="200"} 1' in told
            assert 'hornbook_requests_total{path="/v1/chat/render",status="200"} 1' in told
            assert 'hornbook_tokens_total{model="llama",kind="prompt"} 15' in told


def test_figures_that_are_no_numbers_are_told_as_an_error() -> None:
    model = rung("llama")
    with torch.no_grad():
        model.blocks[1].mlp.down.weight.fill_(float("nan"))
    with running({"llama": model}) as server:
        found = post(server, "/v1/inspect", text="abc")
        assert (found.status_code, found.json()["error"]["type"]) == (500, "server_error")
        assert "numbers" in server.logged()
        assert post(server, "/v1/inspect", text="abc", lens=False).status_code == 200
