"""/v1/classify, and what a server says of models that tell classes apart."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import torch

from hornbook.checkpoint import save_model
from hornbook.config import Serve
from hornbook.evaluation.sentences import classify_text
from hornbook.serving import responses, run
from serving_site import LABELS, Running, classifier, rung, running, until

HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    models = {"decoder": classifier("llama"), "encoder": classifier("bert"), "rnn": classifier("rnn")}
    with running({**models, "writer": rung("gpt2")}) as found:
        yield found


def post(server: Running, path: str = "/v1/classify", **body: Any) -> httpx.Response:
    return server.http.post(path, content=json.dumps(body), headers={"content-type": "application/json"})


def refused(found: httpx.Response, said: str) -> None:
    assert found.status_code == 400, found.text
    responses.Error.model_validate_json(found.content)
    assert said in found.json()["error"]["message"]


@pytest.mark.parametrize("name", ["decoder", "encoder", "rnn"])
def test_the_server_tells_classes_as_evaluate_does(server: Running, name: str) -> None:
    texts = ["a lovely film", "dull", "a lovely film"]
    found = post(server, model=name, input=texts)
    responses.Classification.model_validate_json(found.content)
    model = server.site.served[name].model
    for number, (one, text) in enumerate(zip(found.json()["data"], texts, strict=True)):
        wanted = classify_text(model, text).classes
        assert one["classes"] == pytest.approx(wanted)
        assert (one["index"], one["label"], one["note"]) == (number, next(iter(wanted)), None)
    assert found.json()["usage"]["prompt_tokens"] == sum(map(len, texts))  # a byte is a token
    assert post(server, model=name, input=texts[0]).json()["data"] == found.json()["data"][:1]


def test_a_text_that_is_longer_than_the_context_is_cut_and_that_is_said(server: Running) -> None:
    found = post(server, model="decoder", input="x" * 300).json()
    assert "longer than 256 tokens" in found["data"][0]["note"]
    assert found["usage"]["prompt_tokens"] == 256


def test_a_text_is_cut_as_it_was_in_learning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = classifier("llama")
    save_model(tmp_path / "m", model, model.tokenizer)
    known = {"task_name": "classify", "context_of_examples": 20, "cut": "tail"}
    (tmp_path / "m" / "train.json").write_text(json.dumps(known))
    sites: list[Any] = []
    monkeypatch.setattr(run.gc, "freeze", lambda: None)
    monkeypatch.setattr(run, "allow_connections", lambda count: None)
    monkeypatch.setattr(run, "server_of", lambda site, ready: sites.append(site) or Stopped())
    run.serve(Serve((str(tmp_path / "m"),), port=0))
    with running({"m": model}) as server:
        server.site.served["m"].taught = sites[0].served["m"].taught
        text = "abcdefghij" * 4
        found = post(server, input=text).json()
    (one,) = found["data"]
    assert found["usage"]["prompt_tokens"] == 20
    assert one["classes"] == pytest.approx(classify_text(model, text, 20, "tail").classes)
    assert one["classes"] != pytest.approx(classify_text(model, text).classes)
    assert "tail of them is kept" in one["note"]


class Stopped:
    """In the place of a server that nobody is to reach."""

    def run(self, sockets: Any) -> None:
        return


def test_models_tell_their_classes(server: Running) -> None:
    listed = {one["id"]: one for one in server.http.get("/v1/models").json()["data"]}
    responses.Models.model_validate_json(server.http.get("/v1/models").content)
    assert listed["decoder"]["classes"] == list(LABELS)
    assert listed["writer"]["classes"] is None
    assert not listed["decoder"]["lens"]
    assert not listed["decoder"]["chat"]
    assert listed["writer"]["chat"]
    assert listed["decoder"]["attention"]
    assert server.http.get("/health").json()["status"] == "ok"
    assert server.http.get("/metrics").status_code == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": "a"}),
        ("/v1/chat/completions", {"messages": HELLO}),
        ("/v1/chat/render", {"messages": HELLO}),
    ],
)
@pytest.mark.parametrize("name", ["decoder", "encoder"])
def test_what_tells_classes_apart_writes_nothing_and_says_where_to_ask(
    server: Running, name: str, path: str, body: dict[str, Any]
) -> None:
    refused(post(server, path, model=name, **body), f"{name} tells classes apart, and writes nothing: use /v1/classify")


def test_it_has_no_lens_but_attention(server: Running) -> None:
    refused(post(server, "/v1/inspect", model="decoder", text="abc"), "it predicts no tokens")
    found = post(server, "/v1/inspect", model="decoder", text="abc", lens=False, layer=0)
    assert len(found.json()["attention"]["weights"]) == len(found.json()["ids"])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (
            {"model": "writer", "input": "a"},
            "writer writes texts, and tells no classes apart; decoder, encoder, rnn can",
        ),
        ({"model": "decoder"}, "input"),
        ({"model": "decoder", "input": []}, "input: a text, or a list of up to 128"),
        ({"model": "decoder", "input": ["a"] * 129}, "input: a text, or a list of up to 128"),
        ({"model": "decoder", "input": [1, 2]}, "input: a text, or a list of up to 128"),
        ({"model": "decoder", "input": ["a", ""]}, "there is no token in the text"),
    ],
)
def test_wrong_questions_are_refused(server: Running, wrong: dict[str, Any], said: str) -> None:
    refused(post(server, **wrong), said)


def test_limits_hold_for_texts_too() -> None:
    with running({"m": classifier("llama")}, max_prompt=10) as server:
        refused(post(server, input="x" * 11), "the text has 11 tokens; this server takes 10")
        assert post(server, input="x" * 10).status_code == 200
        until(server.idle)


def test_figures_that_are_no_numbers_are_told_as_an_error() -> None:
    model = classifier("llama")
    for parameter in model.class_head.parameters():  # type: ignore[union-attr]
        torch.nn.init.constant_(parameter, float("nan"))
    with running({"m": model}) as server:
        assert post(server, input="abc").status_code == 500
        until(server.idle)
