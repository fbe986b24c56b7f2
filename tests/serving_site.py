"""A server on a free port of this machine, in a thread of the test's own process, and models to serve."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx2 as httpx
import numpy as np
import openai
import torch

from helpers import tiny_config, tiny_model
from hornbook import models
from hornbook.config import Serve
from hornbook.layers.class_head import give_class_head
from hornbook.layers.model import LanguageModel
from hornbook.serving.keys import Keys
from hornbook.serving.logs import Log
from hornbook.serving.run import Server, server_of, site_of
from hornbook.serving.site import Site
from hornbook.text.tokenizer_training import train_tokenizer
from hornbook.text.tokenizers import Tokenizer

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokenizer(chat: bool = True) -> Tokenizer:
    """Bytes, with two more special tokens and a chat template."""
    made = train_tokenizer("bytes", [])
    made.core.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    return Tokenizer(made.core, made.specials, {"chat_template": TEMPLATE} if chat else {})


def rung(family: str, chat: bool = True, **changes: Any) -> LanguageModel:
    """A tiny model of a family that speaks in bytes: counted on English, or random."""
    t = tokenizer(chat)
    ids = {"vocab": t.vocab, "bos": t.bos, "eos": t.eos, "pad": t.pad, "context": 256} | changes
    if family == "ngram":
        from pydoc_data.topics import topics

        model = models.build(tiny_config("ngram", **{"order": 5} | ids))
        text = "".join(topics[key] for key in sorted(topics)[:12])
        model.fit(np.array([t.bos, *t.encode(text), t.eos]))
        model.eval()
    else:
        model = tiny_model(family, **ids)
    model.tokenizer = t
    return model


LABELS = ("bad", "good", "a/b \u2603")


def classifier(family: str) -> LanguageModel:
    """A random one, which tells three classes apart."""
    torch.manual_seed(1)
    model = give_class_head(rung(family), LABELS)
    assert model.class_head is not None
    for parameter in model.class_head.parameters():
        torch.nn.init.normal_(parameter)
    return model.eval()


def slowed(model: LanguageModel, seconds: float) -> LanguageModel:
    """The same model, taking its time for every pass."""
    hidden = model.hidden

    def late(*arguments: Any, **more: Any) -> Any:
        time.sleep(seconds)
        return hidden(*arguments, **more)

    model.hidden = late  # type: ignore[method-assign]
    return model


@dataclass
class Running:
    """A server that runs."""

    address: tuple[str, int]
    site: Site
    server: Server
    log: io.StringIO
    http: httpx.Client

    @property
    def url(self) -> str:
        return "http://{}:{}".format(*self.address)

    def client(self, key: str = "none", **more: Any) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.url + "/v1", api_key=key, max_retries=0, timeout=60, **more)

    def open_answers(self) -> int:
        """Of all models: running, reading, or waiting."""
        engines = [served.worker.engine for served in self.site.served.values()]
        return sum(len(e.running) + len(e.reading) + len(e.waiting) for e in engines)

    def idle(self) -> bool:
        """Whether no answer is open, and every place was given back."""
        return self.open_answers() == 0 and not any(served.worker.open for served in self.site.served.values())

    def logged(self) -> str:
        """The log of all that was answered: a line is written after its answer went out, and by another thread."""
        until(lambda: not self.server.server_state.tasks)
        self.site.log("mark", mark=(mark := f"mark {len(self.log.getvalue())}"))
        until(lambda: mark in self.log.getvalue())
        return "".join(line for line in self.log.getvalue().splitlines(keepends=True) if '"event": "mark"' not in line)

    def lines(self) -> list[dict[str, Any]]:
        """The same, read."""
        return [json.loads(line) for line in self.logged().splitlines()]


@contextlib.contextmanager
def running(models: dict[str, LanguageModel], keys: Keys | None = None, **settings: Any) -> Iterator[Running]:
    given = Serve(tuple(models), **{"memory": 0.5, "reuse": 0.05, "grace": 1.0} | settings)
    log = io.StringIO()
    site = site_of(models, given, keys or Keys(set()), Log(log))
    server, listener = server_of(site), socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    address = listener.getsockname()[:2]
    client = httpx.Client(base_url="http://{}:{}".format(*address), timeout=60)
    try:
        until(lambda: server.started)
        yield Running(address, site, server, log, client)
    finally:
        client.close()
        server.should_exit = True
        thread.join()
        site.log.close()


def until(holds: Callable[[], Any], seconds: float = 20.0) -> None:
    """Wait for something; the test fails where it does not come."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


def events(body: str) -> list[Any]:
    """The objects of a stream of server-sent events, and its last word."""
    found = [line.removeprefix("data: ") for line in body.split("\n\n") if line]
    return [entry if entry == "[DONE]" else json.loads(entry) for entry in found]
