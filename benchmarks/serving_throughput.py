"""What serving costs: new tokens a second from `hornbook serve` beside the same engine with nothing around it.

    python benchmarks/serving_throughput.py [--streams 16] [--rounds 5] [--new 128]

The engine alone, clients that stream, and clients that wait for the whole answer take turns in every round: as many
requests at once, each of 32 tokens of prompt that never came before and 128 new ones, greedily, on a random model of
GPT-2's 124M shape in bfloat16 without an end token. Seconds run from the first request to the last answer's end,
prompts included. The engine alone makes ids, the server text. The clients are one process with plain sockets and share
the cores with the server: what they cost is included, and told. The model is made once and kept in --out.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import random
import statistics
import string
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import tokenizers
import torch

from hornbook import models
from hornbook.atomic import folder_written_aside
from hornbook.checkpoint import load, save_model
from hornbook.config import Sampling
from hornbook.generation.answers import Request
from hornbook.generation.engine import Engine
from hornbook.generation.swift import quicken
from hornbook.layers.model import LanguageModel
from hornbook.text.byte_alphabet import CHAR_OF
from hornbook.text.tokenizer_files import Specials
from hornbook.text.tokenizers import Tokenizer
from peers.making import SHAPES
from training_against_peers import here

PROMPT = 32
"""Tokens."""
WAYS = ("engine alone", "streaming clients", "waiting clients")


class Turn(NamedTuple):
    """One way's part of a round."""

    tokens: int
    seconds: float
    clients: float = 0.0
    """CPU seconds of the clients."""

    @property
    def speed(self) -> float:
        return self.tokens / self.seconds


def main() -> None:
    given = options()
    folder = run_folder(given.out / given.shape, given.shape)
    model = load(folder, "cpu", "bfloat16")
    del model.tokenizer  # ids are all that the engine alone makes
    quicken(model)
    fresh = prompts(model.config.vocab)
    print(f"{here()}: {given.shape}, {given.streams} at once, {PROMPT} tokens of prompt, {given.new} new ones")
    found: dict[str, list[Turn]] = {way: [] for way in WAYS}
    with server(folder, given.streams) as address:
        for number in range(given.rounds + 1):
            for way in WAYS:
                texts = [next(fresh) for _ in range(given.streams)]
                turn = alone(model, texts, given.new) if way == WAYS[0] else served(address, way, texts, given.new)
                if number:  # the first round warms up
                    found[way].append(turn)
            if number:
                print(f"round {number}: " + ", ".join(f"{way} {found[way][-1].speed:,.0f}" for way in WAYS), flush=True)
    print("\n".join(table(found)))


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=16, help="requests at once")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--new", type=int, default=128, help="tokens of each answer")
    parser.add_argument("--shape", choices=list(SHAPES), default="gpt2")
    parser.add_argument("--out", type=Path, default=Path("runs/bench-serving"), help="folder for the model")
    return parser.parse_args()


def run_folder(folder: Path, shape: str) -> Path:
    """The shape's random model with a tokeniser as large as its vocabulary, made where it is missing."""
    if not folder.exists():
        torch.manual_seed(0)
        config = SHAPES[shape]
        with folder_written_aside(folder) as aside:
            save_model(aside, models.build(config).bfloat16(), letters(config.vocab), "bfloat16")
    return folder


def letters(vocab: int) -> Tokenizer:
    """A byte-level tokeniser whose further tokens are two letters, then four: about as long as those of English."""
    pairs = [a + b for a in string.ascii_lowercase for b in string.ascii_lowercase]
    merges = [(a, b) for parts in (string.ascii_lowercase, pairs) for a in parts for b in parts][: vocab - 256]
    ids = {char: byte for byte, char in CHAR_OF.items()} | {a + b: 256 + i for i, (a, b) in enumerate(merges)}
    core = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=ids, merges=merges))
    core.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = tokenizers.decoders.ByteLevel()
    return Tokenizer(core, Specials())


def prompts(vocab: int) -> Iterator[list[int]]:
    """Each another one, so that nothing is known of it from an earlier one."""
    draw = random.Random(0)
    while True:
        yield [draw.randrange(vocab) for _ in range(PROMPT)]


def alone(model: LanguageModel, texts: list[list[int]], new: int) -> Turn:
    engine, start = Engine(model, rows=len(texts)), time.perf_counter()
    answers = [engine.submit(Request(text, new, Sampling(temperature=0))) for text in texts]
    while engine.busy:
        engine.step()
    return Turn(sum(len(answer.new) for answer in answers), time.perf_counter() - start)


@contextlib.contextmanager
def server(folder: Path, rows: int) -> Iterator[tuple[str, int]]:
    """`hornbook serve` in a process of its own, at this address."""
    words = ["serve", str(folder), "--dtype", "bfloat16", "--port", "0", "--rows", str(rows), "--device", "cpu"]
    process = subprocess.Popen([sys.executable, "-m", "hornbook", *words], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        if " at " not in (line := process.stdout.readline()):
            sys.exit("hornbook serve ended before it listened: its error stands above")
        url = line.split(" at ")[1].split()[0]
        yield url.split("/")[2].split(":")[0], int(url.rsplit(":", 1)[1])
    finally:
        process.terminate()
        process.wait()


def served(address: tuple[str, int], way: str, texts: list[list[int]], new: int) -> Turn:
    """All texts asked for at once; how many tokens the server says that it made."""
    bodies = [body(text, new, way == WAYS[1]) for text in texts]
    start, used = time.perf_counter(), time.process_time()
    answers = asyncio.run(asked(address, bodies))
    seconds, used = time.perf_counter() - start, time.process_time() - used
    return Turn(sum(map(new_tokens, answers)), seconds, used)


def body(text: list[int], new: int, stream: bool) -> bytes:
    """A whole HTTP request."""
    wanted = {"prompt": text, "max_tokens": new, "temperature": 0, "stream": stream}
    content = json.dumps(wanted | ({"stream_options": {"include_usage": True}} if stream else {})).encode()
    head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json"
    return f"{head}\r\ncontent-length: {len(content)}\r\n\r\n".encode() + content


class Client(asyncio.Protocol):
    """Sends a request, and keeps what comes until the server closes the connection."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.parts: list[bytes] = []
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.parts.append(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.done.set_result(b"".join(self.parts))


async def asked(address: tuple[str, int], requests: list[bytes]) -> list[bytes]:
    loop = asyncio.get_running_loop()
    opened = [loop.create_connection(functools.partial(Client, request), *address) for request in requests]
    clients = [client for _, client in await asyncio.gather(*opened)]
    return await asyncio.gather(*(client.done for client in clients))


def new_tokens(answer: bytes) -> int:
    """What the usage at the end of an answer says."""
    assert answer.startswith(b"HTTP/1.1 200"), answer[:500]
    return int(answer.rpartition(b'"completion_tokens":')[2].partition(b",")[0])


def table(found: dict[str, list[Turn]]) -> list[str]:
    """Medians over the rounds; ratios within each round, to the engine alone."""
    lines = [f"\n{'':<20}{'tokens/s':>10}{'lowest':>9}{'highest':>9}{'of engine':>11}{'clients, CPU':>14}"]
    for way, turns in found.items():
        speeds = [turn.speed for turn in turns]
        shares = [turn.speed / base.speed for turn, base in zip(turns, found[WAYS[0]], strict=True)]
        cpu = statistics.median(turn.clients / turn.seconds for turn in turns)
        figures = f"{statistics.median(speeds):>10,.0f}{min(speeds):>9,.0f}{max(speeds):>9,.0f}"
        lines.append(f"{way:<20}{figures}{statistics.median(shares):>11.1%}{cpu:>13.1%}")
    return lines


if __name__ == "__main__":
    main()
