"""Whatever clients, models and systems do, the server answers right or refuses, and never mixes two users' texts."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2 as httpx
import openai
import pytest
import torch

from folders import TOKENIZER, folder_of
from hornbook import machine
from hornbook.cli import main
from hornbook.config import Sampling
from hornbook.generation.answers import Request
from hornbook.generation.engine import Engine
from hornbook.generation.stream import prompt_ids
from hornbook.layers.model import LanguageModel
from hornbook.serving import connections
from hornbook.serving.keys import Keys, hashed
from serving_site import Running, classifier, events, rung, running, slowed, tokenizer, until


def head(server: Running, length: int | None, path: str = "/v1/completions") -> bytes:
    """The head of a POST; without a length, of one in chunks."""
    size = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
    return f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{size}\r\n\r\n".encode()


def asking(server: Running, **body: Any) -> socket.socket:
    """A connection on which a request has been sent, for tokens that never end a text, and nothing read."""
    content = json.dumps({"prompt": "The ", "logit_bias": {"70": 100}, **body}).encode()
    line = socket.create_connection(server.address, timeout=30)
    line.sendall(head(server, len(content)) + content)
    return line


def answer(line: socket.socket) -> bytes:
    """All that comes until the server closes the connection, or is silent."""
    found = b""
    with contextlib.suppress(TimeoutError, ConnectionError):
        while part := line.recv(65536):
            found += part
    return found


def works(server: Running) -> None:
    """The server answers as if nothing had been."""
    body = {"model": next(iter(server.site.served)), "prompt": "a", "max_tokens": 2}
    found = server.http.post("/v1/completions", json=body)
    assert found.status_code == 200, found.text


def alone(model: LanguageModel, prompt: str, tokens: int, **dials: Any) -> str:
    request = Request(prompt_ids(model, prompt), tokens, Sampling(**{"temperature": 0.0} | dials))
    return "".join(piece.text for piece in Engine(model).stream(request))


# Clients that go away


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_vanishes_frees_its_row_at_once(stream: bool) -> None:
    with running({"m": slowed(rung("llama"), 0.1)}, rows=1, queue=1) as server:
        line = asking(server, max_tokens=240, stream=stream)
        until(lambda: server.open_answers() == 1)
        if stream:
            assert b"200 OK" in line.recv(100)
        waiting = asking(server, max_tokens=240, stream=stream)
        until(lambda: server.open_answers() == 2)
        line.close()
        waiting.close()
        until(server.idle, 8.0)  # 240 tokens would take 24 seconds
        works(server)
        assert [line["status"] for line in server.lines() if line["event"] == "request"][:2] == [499, 499]


def test_a_client_that_closes_its_side_of_the_line_frees_its_row_too() -> None:
    with running({"m": slowed(rung("llama"), 0.1)}, rows=1, queue=1) as server:
        with asking(server, max_tokens=240, stream=True) as line:
            assert b"200 OK" in line.recv(100)
            line.shutdown(socket.SHUT_WR)
            until(server.idle, 8.0)
            answer(line)  # to its end
        works(server)


def test_a_client_that_leaves_while_its_prompt_is_scored_or_its_body_awaited_costs_nothing() -> None:
    with running({"m": slowed(rung("llama"), 0.2)}) as server:
        line = asking(server, prompt=[5] * 255, echo=True, logprobs=0, max_tokens=0)
        until(lambda: server.site.served["m"].worker.open == 1)
        line.close()
        torn = socket.create_connection(server.address)
        torn.sendall(head(server, 1000) + b"{")
        torn.close()
        until(lambda: not server.site.cases)
        until(lambda: not server.site.served["m"].worker.readings)
        assert server.site.served["m"].worker.open == 0
        works(server)


# Two users


def test_under_load_each_gets_what_it_would_get_alone() -> None:
    models = {name: rung(name) for name in ("llama", "ngram", "rnn")}
    prompts = [f"{word} number {i}: " for i in range(12) for word in ("The", "An", "If")]
    wanted = {(name, prompt): alone(model, prompt, 24) for name, model in models.items() for prompt in prompts}

    def ask(case: tuple[str, str], client: openai.OpenAI, stream: bool) -> str:
        name, prompt = case
        asked = {"model": name, "prompt": prompt, "max_tokens": 24, "temperature": 0}
        if not stream:
            return client.completions.create(**asked).choices[0].text
        return "".join(piece.choices[0].text for piece in client.completions.create(**asked, stream=True))

    with running(models, rows=8, queue=100) as server, ThreadPoolExecutor(24) as pool:
        client = server.client()
        found = [(case, pool.submit(ask, case, client, k % 2 == 0)) for k, case in enumerate(wanted)]
        for case, future in found:
            assert future.result() == wanted[case], case


def test_whoever_vanishes_beside_them_others_get_their_own_text() -> None:
    """Rows leave and join at every moment."""
    model = rung("llama")
    wanted = {prompt: alone(model, prompt, 60) for prompt in (f"Number {i} says " for i in range(24))}
    model = slowed(model, 0.002)

    def ask(number: int, prompt: str, client: openai.OpenAI) -> str:
        asked = {"model": "m", "prompt": prompt, "max_tokens": 60, "temperature": 0}
        text = ""
        with client.completions.create(**asked, stream=True) as pieces:
            for count, piece in enumerate(pieces):
                text += piece.choices[0].text
                if number % 3 and count == 5 * (number % 7):
                    break
        return text

    with running({"m": model}, rows=6, queue=100) as server, ThreadPoolExecutor(12) as pool:
        client = server.client()
        found = [pool.submit(ask, number, prompt, client) for number, prompt in enumerate(wanted)]
        for number, (text, future) in enumerate(zip(wanted.values(), found, strict=True)):
            assert text.startswith(future.result()), number
            assert number % 3 or text == future.result()
        until(lambda: not server.site.cases)
        statuses = {line["status"] for line in server.lines() if line["event"] == "request"}
        assert statuses == {200, 499}


# Room and time


def test_beyond_the_queue_requests_are_told_to_come_again() -> None:
    with running({"m": slowed(rung("llama"), 0.1)}, rows=1, queue=1) as server:
        lines = [asking(server, max_tokens=200) for _ in range(2)]
        until(lambda: server.open_answers() == 2)
        found = server.http.post("/v1/completions", json={"prompt": "a"})
        assert (found.status_code, found.headers["retry-after"]) == (429, "1")
        assert (found.json()["error"]["type"], found.json()["error"]["code"]) == ("rate_limit_error", "queue_full")
        with pytest.raises(openai.RateLimitError):
            server.client().completions.create(model="m", prompt="a", stream=True)
        more = server.http.post("/v1/completions", json={"prompt": "a", "n": 3})
        assert more.status_code == 400
        for line in lines:
            line.close()
        until(server.idle)
        works(server)


@pytest.mark.parametrize("stream", [False, True])
def test_who_waits_too_long_for_a_turn_is_told(stream: bool) -> None:
    with running({"m": slowed(rung("llama"), 0.02)}, rows=1, queue=5, queue_timeout=1.0) as server:
        line = asking(server, max_tokens=200)
        until(lambda: server.open_answers() == 1)
        found = server.http.post("/v1/completions", json={"prompt": "a", "stream": stream})
        assert (found.status_code, found.json()["error"]["code"]) == (503, "overloaded")
        line.settimeout(20)
        assert b"200 OK" in line.recv(1000)  # who had its turn stays


def test_an_answer_that_takes_too_long_is_ended() -> None:
    with running({"m": slowed(rung("llama"), 0.05)}, timeout=2.0) as server:
        body = {"prompt": "a", "max_tokens": 200, "logit_bias": {"70": 100}}
        found = server.http.post("/v1/completions", json=body)
        assert (found.status_code, found.json()["error"]["code"]) == (504, "timeout")
        *pieces, last = events(server.http.post("/v1/completions", json={**body, "stream": True}).text)
        assert (last, pieces[-1]["error"]["code"]) == ("[DONE]", "timeout")
        assert pieces[0]["choices"]
        with pytest.raises(openai.APIError, match="longer than this server allows"):
            list(server.client().completions.create(model="m", **body, stream=True))
        until(server.idle)


def test_limits_of_prompts_and_answers_are_kept() -> None:
    with running({"m": rung("llama")}, max_prompt=10, max_tokens=5) as server:
        client = server.client()
        assert client.completions.create(model="m", prompt="a" * 9, max_tokens=5).choices
        for wrong, said in (({"prompt": "a" * 10}, "takes 10"), ({"prompt": "a", "max_tokens": 6}, "at most 5")):
            with pytest.raises(openai.BadRequestError, match=said):
                client.completions.create(model="m", **({"max_tokens": 5} | wrong))


# Bodies and connections


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_a_hundred_megabytes_is_refused_and_not_kept(chunked: bool) -> None:
    with running({"m": rung("llama")}, max_body=0.1) as server:
        before, block = machine.resident_memory(), b"x" * 10**6
        with socket.create_connection(server.address, timeout=30) as line:
            line.sendall(head(server, None if chunked else 10**8))
            with contextlib.suppress(ConnectionError):
                for _ in range(100):
                    line.sendall(b"%x\r\n%s\r\n" % (len(block), block) if chunked else block)
                if chunked:
                    line.sendall(b"0\r\n\r\n")
            line.settimeout(2)
            found = answer(line)
        assert b" 413 " in found.split(b"\r\n")[0]
        assert b"body_too_large" in found
        assert machine.resident_memory() - before < 50e6
        works(server)


def test_a_body_just_above_the_limit_is_refused() -> None:
    with running({"m": rung("llama")}, max_body=0.001) as server:
        found = server.http.post("/v1/completions", content=b'{"prompt": "%s"}' % (b"x" * 2000))
        assert found.status_code == 413
        works(server)


def test_a_body_that_is_wrong_a_million_times_is_refused_for_the_first() -> None:
    with running({"m": rung("llama")}) as server:
        before, kind = machine.resident_memory(), {"content-type": "application/json"}
        bodies = (b'{"prompt": [' + b"null," * 380_000 + b"1]}", b'{"prompt": [' + b"[0]," * 450_000 + b"1]}")
        for body in bodies:
            found = server.http.post("/v1/completions", content=body, headers=kind)
            assert (found.status_code, found.json()["error"]["param"]) == (400, "prompt")
        assert machine.resident_memory() - before < 150e6  # an error for each would take 500 MB


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections without a request are cut off soon after the time for one."""
    monkeypatch.setattr(connections, "KEEP_ALIVE", 0.2)
    monkeypatch.setattr(connections, "SLACK", 0.8)


@pytest.mark.usefixtures("impatient")
def test_connections_that_bring_no_request_in_time_are_cut_off() -> None:
    with running({"m": rung("llama")}, read_timeout=1.0) as server:
        silent, half = (socket.create_connection(server.address, timeout=20) for _ in range(2))
        half.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: local")
        slow = socket.create_connection(server.address, timeout=20)
        slow.sendall(head(server, 1000) + b'{"prompt"')
        assert b" 408 " in answer(slow).split(b"\r\n")[0]
        works(server)
        for line in (silent, half):
            with contextlib.suppress(ConnectionError):
                assert line.recv(100) == b""


@pytest.mark.usefixtures("impatient")
def test_a_client_that_drips_its_request_is_cut_off() -> None:
    with running({"m": rung("llama")}, read_timeout=1.0) as server:
        line = socket.create_connection(server.address, timeout=20)

        def drip() -> bool:
            """Whether the connection is closed."""
            try:
                line.sendall(b"X")
            except OSError:
                return True
            time.sleep(0.1)
            return False

        until(drip)


def test_a_client_that_does_not_read_is_cut_off() -> None:
    model = rung("ngram", context=8192)
    with running({"m": model}, write_timeout=1.0) as server:
        with socket.socket() as line:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            line.connect(server.address)
            body = {"prompt": "The ", "max_tokens": 8000, "stream": True, "logprobs": 20, "n": 8}
            content = json.dumps(body).encode()
            line.sendall(head(server, len(content)) + content)
            until(lambda: server.open_answers() > 0)
            until(server.idle, 60)
            until(lambda: not server.site.cases)
            statuses = [entry["status"] for entry in server.lines() if entry["event"] == "request"]
            assert statuses == [499]
        works(server)


def test_a_client_that_reads_slowly_gets_all_and_holds_up_nobody() -> None:
    with running({"m": rung("ngram", context=2048)}) as server:
        body = {"prompt": "The ", "max_tokens": 1000, "seed": 1, "logprobs": 5}
        body |= {"logit_bias": {str(TOKENIZER.eos): -100}}
        whole = server.http.post("/v1/completions", json=body).json()["choices"][0]["text"]
        content = json.dumps({**body, "stream": True}).encode()
        with socket.socket() as line:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            line.connect(server.address)
            line.sendall(head(server, len(content)) + content)
            response, found = http.client.HTTPResponse(line), b""
            response.begin()
            for _ in range(50):
                found += response.read(1000)
                works(server)
            found += response.read()
    *pieces, last = events(found.decode())
    assert ("".join(piece["choices"][0]["text"] for piece in pieces), last) == (whole, "[DONE]")


def test_bytes_that_are_no_text_in_paths_and_headers_are_refused() -> None:
    with running({"m": rung("ngram")}, Keys({hashed("a-key-that-is-long-enough")})) as server:
        for path, key, status in (
            (b"/v1/models/%ff%fe", b"a-key-that-is-long-enough", b" 404 "),
            (b"/v1/models/\xff", b"a-key-that-is-long-enough", b" 40"),
            (b"/v1/models", b"\xff\xfe", b" 401 "),
        ):
            with socket.create_connection(server.address, timeout=10) as line:
                line.sendall(b"GET %s HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer %s\r\n\r\n" % (path, key))
                assert status in line.recv(200).split(b"\r\n")[0]
        assert server.http.get("/health").status_code == 200


def test_a_thousand_connections_are_survived(request: pytest.FixtureRequest) -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    hard = before[1]
    if hard != resource.RLIM_INFINITY and hard < 3000:
        pytest.skip("the system does not let this process hold 1,000 connections from both sides")
    with running({"m": rung("ngram")}, connections=900) as server:
        request.addfinalizer(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, before))
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(3000, before[0]), hard))
        lines = [socket.create_connection(server.address, timeout=30) for _ in range(1000)]
        until(lambda: len(server.server.server_state.connections) == 900)
        lines[999].settimeout(5)
        assert b" 503 " in answer(lines[999])
        for line in lines[:900]:
            line.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert all(b" 200 " in line.recv(100) for line in lines[:900])
        for line in lines:
            line.close()
        until(lambda: not server.server.server_state.connections)
        works(server)


def test_nonsense_on_the_line_is_no_harm() -> None:
    with running({"m": rung("ngram")}) as server:
        for nonsense in (b"\x00\xff" * 500 + b"\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET " + b"x" * 100_000):
            with socket.create_connection(server.address, timeout=2) as line:
                with contextlib.suppress(ConnectionError):
                    line.sendall(nonsense)
                assert b"200 OK" not in answer(line)
        works(server)


# Models that fail


@pytest.mark.parametrize("stream", [False, True])
def test_an_exception_of_the_model_ends_the_answers_not_the_server(stream: bool) -> None:
    model = slowed(rung("llama"), 0.005)
    with running({"m": model}) as server:
        good = model.hidden
        passes = iter(range(10**6))

        def failing(*arguments: Any, **more: Any) -> Any:
            if next(passes) >= 30:
                raise MemoryError("no room")
            return good(*arguments, **more)

        model.hidden = failing  # type: ignore[method-assign]
        body = {"prompt": "a", "max_tokens": 50, "n": 3, "logit_bias": {"70": 100}, "stream": stream}
        found = server.http.post("/v1/completions", json=body)
        error = events(found.text)[-2] if stream else found.json()
        assert found.status_code == (200 if stream else 500)
        assert error["error"]["type"] == "server_error"
        scored = {"prompt": "abc", "max_tokens": 0, "echo": True, "logprobs": 0}
        assert server.http.post("/v1/completions", json=scored).status_code == 500
        assert any(line["event"] == "error" and "no room" in line["error"] for line in server.lines())
        model.hidden = good  # type: ignore[method-assign]
        works(server)
        assert server.http.get("/health").status_code == 200


def test_answers_that_find_no_room_beside_others_end_and_give_their_places_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    good = Engine.make_room

    def full(engine: Engine, answers: Any) -> Any:
        if engine.running:
            raise MemoryError("no room")
        return good(engine, answers)

    monkeypatch.setattr(Engine, "make_room", full)
    with running({"m": slowed(rung("llama"), 0.01)}) as server:
        first = asking(server, max_tokens=200)
        until(lambda: bool(server.site.served["m"].worker.engine.running))
        found = server.http.post("/v1/completions", json={"prompt": "b", "max_tokens": 200, "no_repeat_ngram": 9})
        assert (found.status_code, "the model failed" in found.text) == (500, True)
        first.close()
        until(server.idle)
        works(server)


def test_logits_that_are_no_numbers_are_told_as_an_error() -> None:
    model = rung("llama")
    with running({"m": model}) as server:
        good, model.head = model.head, lambda hidden: good(hidden) * float("nan")  # type: ignore[method-assign]
        found = server.http.post("/v1/completions", json={"prompt": "a"})
        assert (found.status_code, found.json()["error"]["type"]) == (500, "server_error")
        model.head = good  # type: ignore[method-assign]
        works(server)


def test_what_has_no_chance_at_all_is_told_in_numbers_that_json_has() -> None:
    with running({"m": rung("ngram", smoothing="mle")}) as server:
        body = {"prompt": "The statement", "max_tokens": 5, "logprobs": 20, "temperature": 0}
        found = server.http.post("/v1/completions", json=body).json()["choices"][0]["logprobs"]
        assert min(min(table.values()) for table in found["top_logprobs"]) == -9999.0


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's list of threads")
def test_an_engine_that_rests_keeps_no_threads_of_its_own() -> None:
    """Those of OpenMP, which would slow down the engines of other models."""

    def others() -> int:
        return len(list(Path("/proc/self/task").iterdir())) - threading.active_count()

    model, found = slowed(rung("rnn"), 0), []
    hidden = model.hidden

    def counting(*arguments: Any, **more: Any) -> Any:
        torch.set_num_threads(3)
        torch.ones(10**6).exp()
        found.append(others())
        return hidden(*arguments, **more)

    threads, model.hidden = torch.get_num_threads(), counting  # type: ignore[method-assign]
    try:
        with running({"m": model}) as server:
            works(server)
            until(lambda: others() <= max(found) - 2)
            works(server)
    finally:
        torch.set_num_threads(threads)


# The process


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("served")
    for name in ("llama", "ngram"):
        folder_of(rung(name), root / name, tokenizer())
    return root


@contextlib.contextmanager
def process(*words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`hornbook serve` with these words, and its address."""
    command = [sys.executable, "-m", "hornbook", "serve", *words, "--port", "0", "--memory", "0.1"]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert started.stdout is not None
        line = started.stdout.readline()
        assert " at http://" in line, started.communicate(timeout=20)
        yield started, line.split(" at ")[1].split()[0]
    finally:
        started.kill()
        started.communicate()


def test_serve_outlives_its_folders_and_ends_by_sigterm(folders: Path, tmp_path: Path) -> None:
    shutil.copytree(folders / "llama", tmp_path / "llama")
    with process(str(tmp_path / "llama"), f"words={folders / 'ngram'}") as (server, url):
        shutil.rmtree(tmp_path / "llama")
        client = openai.OpenAI(base_url=url + "/v1", api_key="none")
        assert [model.id for model in client.models.list()] == ["llama", "words"]
        for name in ("llama", "words"):
            talk = [{"role": "user", "content": "a"}]
            assert client.chat.completions.create(model=name, messages=talk, max_tokens=3).choices
        client.close()
        server.send_signal(signal.SIGTERM)
        _, err = server.communicate(timeout=20)
        assert server.returncode == 0, err
        lines = err.splitlines()
        begun = next(number for number, line in enumerate(lines) if '"event": "start"' in line)
        assert all(json.loads(line)["event"] for line in lines[begun:])


@pytest.mark.parametrize("grace", ["120", "0.1"])
def test_sigterm_under_load_lets_answers_finish_until_the_deadline(folders: Path, grace: str) -> None:
    with process(str(folders / "llama"), "--grace", grace, "--rows", "4") as (server, url):
        client = openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0)

        def ask(stream: bool) -> str:
            asked = {"model": "llama", "prompt": "a", "max_tokens": 250, "logit_bias": {"70": 100}, "n": 2}
            try:
                found = client.completions.create(**asked, stream=stream)
                choices = [piece.choices[0] for piece in found] if stream else found.choices
                return choices[-1].finish_reason
            except openai.APIError as error:
                return "told" if "shutting down" in str(error) else repr(error)

        def waiting() -> int:
            return int(re.search(r"\nhornbook_answers_waiting{.*} (\d+)", figures.get(url + "/metrics").text)[1])

        with ThreadPoolExecutor(16) as pool, httpx.Client() as figures:
            found = [pool.submit(ask, k % 2 == 0) for k in range(16)]
            until(lambda: waiting() >= 10)
            server.send_signal(signal.SIGTERM)
            ends = [future.result(timeout=150) for future in found]
        assert set(ends) == {"length"} if grace == "120" else "told" in ends and set(ends) <= {"told", "length"}
        with pytest.raises(openai.APIConnectionError):
            client.models.list()
        _, err = server.communicate(timeout=60)
        assert server.returncode == 0, err


def test_what_cannot_be_served_is_told_in_one_line(folders: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for words, said in (
            (["--host", "0.0.0.0"], "API keys"),
            (["--port", port], "--port 0 takes a free one"),
            (["no-such-run", "--port", "0"], "there is no run"),
            ([str(folders / "llama")], "two runs are called llama"),
            (["--rows", "0"], "--rows is 0"),
            (["--host", "no.such.host.invalid", "--open"], "cannot serve at"),
        ):
            with pytest.raises(SystemExit) as leaving:
                main(["serve", str(folders / "llama"), *words])
            told = capfd.readouterr().err
            assert (leaving.value.code, said in told, len(told.splitlines())) == (2, True, 1), told


# Under load


NEVER_ENDS = {TOKENIZER.eos: -100.0}


async def load(server: Running, wanted: dict[str, str], seconds: float) -> list[int]:
    """A client for each prompt that streams its text again and again, for so long; the tokens that each has got."""
    got, end = [0] * len(wanted), time.monotonic() + seconds
    limits = httpx.Limits(max_connections=len(wanted), max_keepalive_connections=len(wanted))

    async def ask(client: httpx.AsyncClient, number: int, prompt: str) -> None:
        body = {"prompt": prompt, "max_tokens": 40, "stream": True, "seed": number, "logit_bias": NEVER_ENDS}
        body |= {"stream_options": {"include_usage": True}}
        while time.monotonic() < end:
            async with client.stream("POST", server.url + "/v1/completions", json=body) as found:
                assert found.status_code == 200, await found.aread()
                *pieces, usage, last = events((await found.aread()).decode())
            assert "".join(piece["choices"][0]["text"] for piece in pieces) == wanted[prompt]
            assert last == "[DONE]"
            got[number] += usage["usage"]["completion_tokens"]

    async with httpx.AsyncClient(limits=limits, timeout=60) as client:
        await asyncio.gather(*(ask(client, number, prompt) for number, prompt in enumerate(wanted)))
    return got


@pytest.mark.parametrize("seconds", [5, pytest.param(120, marks=pytest.mark.slow)])
def test_64_streams_at_a_time_get_their_own_texts_fairly_in_bounded_memory(seconds: float) -> None:
    model, prompts = rung("llama"), [f"Client {number}: " for number in range(64)]
    dials: dict[str, Any] = {"temperature": 1.0, "logit_bias": NEVER_ENDS}
    wanted = {prompt: alone(model, prompt, 40, seed=number, **dials) for number, prompt in enumerate(prompts)}
    with running({"m": model}, rows=16, queue=64, queue_timeout=60.0) as server:
        asyncio.run(load(server, wanted, min(seconds / 5, 5)))
        before = machine.resident_memory()
        got = asyncio.run(load(server, wanted, seconds))
        assert machine.resident_memory() - before < 60e6
        assert min(got) > (0.5 if seconds > 60 else 0.2) * max(got)
        assert server.open_answers() == 0
        assert not server.site.cases


@pytest.mark.slow
@pytest.mark.parametrize(
    ("models", "flags", "answered"),
    [
        (("llama", "ngram"), (), {"/v1/completions", "/v1/chat/completions"}),
        (("apart",), ("--include-path", "/v1/classify"), {"/v1/classify"}),
    ],
)
def test_schemathesis_finds_no_fault_in_the_description(
    models: tuple[str, ...], flags: tuple[str, ...], answered: set[str], tmp_path: Path
) -> None:
    """Requests made from the OpenAPI description, right and wrong ones: no server error, no undocumented answer."""
    served = {name: classifier("llama") if name == "apart" else rung(name) for name in models}
    with running(served, rows=8) as server:
        command = [sys.executable, "-m", "schemathesis.cli", "run", server.url + "/openapi.json", "--seed", "1"]
        command += ["--checks", "all", "--exclude-checks", "positive_data_acceptance", "--max-examples", "60"]
        command += ["--request-timeout", "30", "--no-color", *flags]
        done = subprocess.run(command, capture_output=True, text=True, timeout=500, cwd=tmp_path)
        assert done.returncode == 0, done.stdout[-6000:]
        statuses = {(line["path"], line["status"]) for line in server.lines() if line["event"] == "request"}
        assert {(path, 200) for path in answered} <= statuses
        if models != ("apart",):
            works(server)
