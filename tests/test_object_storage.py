"""Training from an S3 server, on loopback: what it reads is what lies there, however long the server is away; and what
cannot be mended by waiting is said at once, in one line."""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from hornbook.config import Train
from hornbook.data import remote
from hornbook.data.batches import Batches
from hornbook.data.blocks import Cache
from hornbook.data.loader import Loader
from hornbook.data.prepared import Prepared
from hornbook.errors import UserError
from hornbook.log import read_log
from hornbook.text.tokenizer_training import train_tokenizer
from hornbook.training.pretrain import train
from prepared_folder import files_of, texts, write_prepared
from test_prepared import TINY, one_line

s3fs = pytest.importorskip("s3fs")
moto = pytest.importorskip("moto.server", reason="needs moto and flask")
BYTES = train_tokenizer("bytes", [])
SHORT = (0.1,) * 100


class Server:
    """An S3 server that can be stopped, and started again at the same port with what it holds."""

    def __init__(self) -> None:
        self.port = 0
        self.start()

    def start(self) -> None:
        self.process = moto.ThreadedMotoServer("127.0.0.1", self.port, verbose=False)
        self.process.start()
        self.port = self.process.get_host_and_port()[1]

    def stop(self) -> None:
        self.process.stop()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpora") / "cats"
    write_prepared(folder, {"train": [texts(40), texts(30, 1)], "validation": [texts(9, 2)]})
    return folder


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def server(running: Server, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """With the corpus in s3://much/cats, and keys for it in the environment."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", running.address)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    s3fs.S3FileSystem.clear_instance_cache()
    system = s3fs.S3FileSystem()
    if not system.exists("much/cats/corpus.json"):
        system.mkdir("much")
        system.pipe({f"much/cats/{name}": content for name, content in files_of(corpus).items()})
    s3fs.S3FileSystem.clear_instance_cache()
    yield running
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(remote, "say", lines.append)
    return lines


def test_a_run_from_s3_is_that_from_the_folder(server: Server, corpus: Path, tmp_path: Path) -> None:
    for name, data in (("near", str(corpus)), ("far", "s3://much/cats")):
        train(Train(data=data, out=str(tmp_path / name), **TINY))
    logs = [
        [(line.get("loss"), line.get("validation_loss")) for line in read_log(tmp_path / n)] for n in ("near", "far")
    ]
    assert logs[0] == logs[1]


def test_a_server_that_was_away_is_asked_again_and_nothing_is_lost(
    server: Server, corpus: Path, tmp_path: Path, said: list[str]
) -> None:
    far = Prepared("s3://much/cats", SHORT, Cache(tmp_path / "cache", 10**6), 256).shard("train", BYTES)
    near = Prepared(str(corpus)).shard("train", BYTES)
    here, there = (Batches(shard, 4, 16, seed=0) for shard in (near, far))
    loader = Loader(there.get, 1, torch.device("cpu"), foresight=there)
    server.stop()
    timer = threading.Timer(2.0, server.start)
    timer.start()
    try:
        found = [loader.get(step).batches[0] for step in range(60)]
    finally:
        timer.join()
        loader.close()
    for step, batch in enumerate(found):
        assert torch.equal(batch.tokens, here.get(step).tokens)
    assert [line.split(" (")[0] for line in said] == ["s3://much/cats does not answer", "s3://much/cats answers again"]
    assert "Could not connect" in said[0]


def test_a_server_that_stays_away_ends_the_run_in_one_line(
    server: Server, tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "PAUSES", (0.05, 0.05))
    server.stop()
    try:
        with pytest.raises(UserError, match=r"s3://much/cats has not answered for 0 s .*: the same command carries on"):
            train(Train(data="s3://much/cats", out=str(tmp_path / "run"), **TINY))
    finally:
        server.start()
    assert len(said) == 1


def test_keys_that_are_refused_are_told_of_at_once(
    server: Server, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask_for_keys(after: float) -> None:
        words = {"Content-Type": "text/plain"}
        request = urllib.request.Request(f"{server.address}/moto-api/reset-auth", str(after).encode(), words)
        urllib.request.urlopen(request).close()

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "wrong")
    ask_for_keys(0)
    try:
        with pytest.raises(
            UserError, match=r"cannot read s3://much/cats/corpus\.json: .*Access Key Id .*AWS_ACCESS_KEY_ID"
        ) as error:
            Prepared("s3://much/cats")
    finally:
        ask_for_keys(float("inf"))
    one_line(error)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(UserError, match="Unable to locate credentials") as error:
        Prepared("s3://much/cats")
    one_line(error)
    assert said == []


@pytest.mark.parametrize("place", ["s3://nowhere/cats", "s3://much/dogs", "s3://Not_A_Bucket/cats"])
def test_a_bucket_or_a_folder_that_is_not_there_is_told_of_at_once(place: str, server: Server, said: list[str]) -> None:
    with pytest.raises(UserError, match=f"cannot read {place}/corpus.json: ") as error:
        Prepared(place)
    one_line(error)
    assert said == []


def test_whole_tokens_come_from_s3(server: Server, corpus: Path, tmp_path: Path) -> None:
    shards = [
        Prepared(p, cache=Cache(tmp_path / "c", 10**6)).shard("train", BYTES) for p in (str(corpus), "s3://much/cats")
    ]
    assert np.array_equal(*(np.asarray(shard.tokens) for shard in shards))
