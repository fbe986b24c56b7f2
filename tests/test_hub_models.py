"""Models from a fake of the Hub on this machine: the right files, once, and one line where it refuses."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from folders import TOKENIZER, folder_of, same, speaking, store, tensors_of
from hornbook.adapt.lora import adapt, adapters
from hornbook.checkpoint import load
from hornbook.config import Adapter, Import
from hornbook.errors import UserError
from hornbook.exchange import import_model
from hornbook.formats.peft_base import weights_hash
from hornbook.formats.sources import published

constants = pytest.importorskip("huggingface_hub.constants")

COMMITS = {"main": "a" * 40, "older": "b" * 40}


class FakeHub:
    """Repositories as the Hub serves them: their facts, their trees, their files; `refused` answers with errors."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, dict[str, bytes]]] = {}
        """Repository -> commit -> file -> content."""
        self.refused: dict[str, tuple[int, str]] = {}
        """Repository -> status and the Hub's word for it."""
        self.asked: Counter[str] = Counter()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(body=True)

            def do_HEAD(self) -> None:
                self.answer(body=False)

            def answer(self, body: bool) -> None:
                status, headers, content = fake.reply(self.path.split("?")[0])
                if body and status == 200:
                    fake.asked[self.path.split("?")[0].rsplit("/", 1)[-1]] += 1
                self.send_response(status)
                for key, value in headers.items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content if body else b"")

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def add(self, repo: str, folder: Path, revision: str = "main", **more: bytes) -> None:
        files = {path.name: path.read_bytes() for path in folder.iterdir()} | more
        self.repos.setdefault(repo, {})[COMMITS[revision]] = files

    def reply(self, path: str) -> tuple[int, dict[str, str], bytes]:
        parts = path.strip("/").split("/")
        api = parts[:2] == ["api", "models"]
        owner, name, *rest = parts[2:] if api else parts
        repo = f"{owner}/{name}"
        if repo in self.refused:
            status, word = self.refused[repo]
            return status, {"X-Error-Code": word, "X-Error-Message": word}, b"{}"
        if repo not in self.repos:
            return 404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "not found"}, b"{}"
        revision = rest[1] if len(rest) > 1 else "main"
        commit = COMMITS.get(revision, revision)
        if commit not in self.repos[repo]:
            return 404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "no such revision"}, b"{}"
        files = self.repos[repo][commit]
        if api and rest[:1] == ["tree"]:
            return 200, {}, json.dumps([self.entry(name, files) for name in files]).encode()
        if api:
            siblings = [{"rfilename": name, "size": len(content)} for name, content in files.items()]
            return 200, {}, json.dumps({"id": repo, "sha": commit, "siblings": siblings}).encode()
        content = files["/".join(rest[2:])]
        return 200, {"X-Repo-Commit": commit, "ETag": f'"{self.entry(rest[2], files)["oid"]}"'}, content

    @staticmethod
    def entry(name: str, files: dict[str, bytes]) -> dict[str, Any]:
        from hashlib import sha1

        return {"type": "file", "path": name, "size": len(files[name]), "oid": sha1(files[name]).hexdigest()}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    fake = FakeHub()
    monkeypatch.setenv("HF_ENDPOINT", fake.address)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    for name in ("HF_TOKEN", "http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield fake
    fake.server.shutdown()
    fake.server.server_close()


def test_a_published_name_is_downloaded_once_and_then_found_without_a_network(
    hub: FakeHub, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = speaking()
    hub.add(published()["gpt2"], folder_of(model, tmp_path / "theirs"))
    assert same(load("gpt2"), model)
    told = capfd.readouterr().err
    total = sum(path.stat().st_size for path in (tmp_path / "theirs").iterdir())
    assert f"openai-community/gpt2: downloading 5 files, {total / 1e6:,.1f} MB" in told
    assert hub.asked["model.safetensors"] == 1
    assert same(load("gpt2"), model)
    assert hub.asked["model.safetensors"] == 1
    assert "downloading" not in capfd.readouterr().err
    hub.server.shutdown()
    hub.server.server_close()
    assert load("gpt2").tokenizer.encode("a b") == TOKENIZER.encode("a b")


def test_import_from_the_hub_leaves_files_and_no_links(hub: FakeHub, tmp_path: Path) -> None:
    model = speaking("opt")
    hub.add("someone/small", folder_of(model, tmp_path / "theirs"))
    arrival = import_model(Import("hf:someone/small", str(tmp_path / "out")))
    assert "bit-identical" in arrival.verified
    assert not any(path.is_symlink() for path in (tmp_path / "out").iterdir())
    assert same(load(tmp_path / "out"), model)


def test_a_folder_saved_by_transformers_arrives_with_the_same_logits(hub: FakeHub, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    import torch

    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=258, n_embd=24, n_layer=2, n_head=4))
    theirs.eval().save_pretrained(tmp_path / "theirs")
    TOKENIZER.save(tmp_path / "theirs")
    hub.add(published()["gpt2"], tmp_path / "theirs")
    import_model(Import("gpt2", str(tmp_path / "out")))
    x = torch.randint(258, (2, 30))
    with torch.inference_mode():
        # float32 sums of at most a hundred terms below 1, in another order
        torch.testing.assert_close(load(tmp_path / "out")(x), theirs(x).logits, rtol=0, atol=1e-5)


def test_a_revision_is_taken_where_one_is_named(hub: FakeHub, tmp_path: Path) -> None:
    new, old = speaking(seed=1), speaking(seed=2)
    hub.add("someone/small", folder_of(new, tmp_path / "new"))
    hub.add("someone/small", folder_of(old, tmp_path / "old"), revision="older")
    assert same(load("hf:someone/small"), new)
    assert same(load("hf:someone/small@older"), old)
    assert same(load(f"hf:someone/small@{COMMITS['older']}"), old)


@pytest.mark.parametrize("form", ["safetensors", "sharded safetensors", "pickle", "sharded pickle"])
def test_only_settings_tokenisers_and_the_best_form_of_the_weights_are_fetched(
    form: str, hub: FakeHub, tmp_path: Path
) -> None:
    model = speaking()
    theirs = folder_of(model, tmp_path / "theirs")
    tensors = tensors_of(theirs)
    store(theirs, tensors, form)
    if "safetensors" in form:
        store(tmp_path, tensors, "pickle")
        (tmp_path / "pytorch_model.bin").rename(theirs / "pytorch_model.bin")
    more = {"modeling_gpt2.py": b"raise SystemExit", "flax_model.msgpack": b"x", "README.md": b"x"}
    hub.add("someone/small", theirs, **more)
    assert same(load("hf:someone/small"), model)
    assert not {*more} & set(hub.asked)
    fetched = {name for name in hub.asked if name.endswith((".safetensors", ".bin"))}
    end = ".safetensors" if "safetensors" in form else ".bin"
    assert {Path(name).suffix for name in fetched} == {end}
    assert len(fetched) == (2 if "sharded" in form else 1)


@pytest.mark.parametrize(
    ("refusal", "told"),
    [
        ((404, "RepoNotFound"), "has no model someone/small, or it is private: check the name, or log in with"),
        ((403, "GatedRepo"), "someone/small is gated: accept its terms at http"),
        ((401, "RepoNotFound"), "log in with `hf auth login`"),
        ((503, "Busy"), "cannot download someone/small from http"),
    ],
)
def test_a_refusal_of_the_hub_is_one_line_that_says_what_to_do(
    refusal: tuple[int, str], told: str, hub: FakeHub, tmp_path: Path
) -> None:
    hub.refused["someone/small"] = refusal
    with pytest.raises(UserError) as error:
        import_model(Import("hf:someone/small", str(tmp_path / "out")))
    assert told in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_revision_that_is_not_there_is_told(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("someone/small", folder_of(speaking(), tmp_path / "theirs"))
    with pytest.raises(UserError, match="someone/small has no revision 'newest'"):
        load("hf:someone/small@newest")


def test_a_repository_without_weights_is_told(hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    hub.add("someone/data", tmp_path / "theirs", **{"train.txt": b"x", "config.json": b"{}"})
    with pytest.raises(UserError, match=r"holds no model\.safetensors and no pytorch_model\.bin"):
        load("hf:someone/data")
    assert hub.asked["config.json"] == 0


def test_without_a_network_one_line_names_the_alternative(hub: FakeHub, tmp_path: Path) -> None:
    hub.server.shutdown()
    hub.server.server_close()
    with pytest.raises(UserError, match=r"cannot download openai-community/gpt2 .* give its path") as error:
        load("gpt2")
    assert "\n" not in str(error.value)


def test_a_disk_without_room_is_told_before_anything_is_fetched(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    hub.add("someone/small", folder_of(speaking(), tmp_path / "theirs"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(UserError, match=r"someone/small takes .* GB free"):
        load("hf:someone/small")
    assert hub.asked["model.safetensors"] == 0


def test_without_huggingface_hub_the_extra_is_named(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"downloading openai-community/gpt2 needs the package 'huggingface_hub'"):
        load("gpt2")
    assert not hub.asked


def test_an_adapter_comes_with_the_base_that_it_names(hub: FakeHub, tmp_path: Path) -> None:
    base = folder_of(speaking("gpt2"), tmp_path / "base")
    hub.add("someone/base", base)
    model = adapt(load(base), Adapter(rank=2, base="hf:someone/base", sha256=weights_hash(base)))
    with torch.no_grad():
        for module in adapters(model).values():
            module.B.fill_(0.1)
    hub.add("someone/adapter", folder_of(model, tmp_path / "adapter", None))
    again = load("hf:someone/adapter")
    assert same(again, model)
    assert again.tokenizer.encode("a b")
    hub.server.shutdown()
    hub.server.server_close()
    assert same(load("hf:someone/adapter"), model)
