"""Downloads from a fake of the Hub on this machine: whole and verified, or not there at all."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hornbook.errors import UserError
from hornbook.progress import Bar
from hornbook.text import hub, wikitext
from hornbook.text.corpora import open_corpus, tinyshakespeare
from hornbook.text.downloads import download

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

LINES = ["", " = First = \n", "", " Some words . \n", "", " = Second = \n", "", " More words . \n"]
FOLDER = "wikitext-103-v1"  # no hash of its text is in the code, so that a small text can stand for it


class FakeHub:
    """Serves files by path; `changes` damages answers on purpose; `asked` counts requests."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.truncated: set[str] = set()
        self.asked: Counter[str] = Counter()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.asked[self.path] += 1
                body = hub.files.get(self.path)
                self.send_response(404 if body is None else 200)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write((body or b"")[: len(body or b"") // 2] if self.path in hub.truncated else body or b"")

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def add_wikitext(self, split: str, *parts: list[str]) -> None:
        tree = f"/api/datasets/{wikitext.DATASET}/tree/main/{FOLDER}"
        entries = json.loads(self.files.get(tree, b"[]"))
        for number, lines in enumerate(parts):
            name = f"{FOLDER}/{split}-{number:05}-of-{len(parts):05}.parquet"
            buffer = io.BytesIO()
            parquet.write_table(pyarrow.table({"text": lines}), buffer)
            data = buffer.getvalue()
            self.files[f"/datasets/{wikitext.DATASET}/resolve/main/{name}"] = data
            entries.append({"type": "file", "path": name, "lfs": {"oid": hashlib.sha256(data).hexdigest()}})
        self.files[tree] = json.dumps(entries).encode()


@pytest.fixture
def fakes(monkeypatch, tmp_path):
    fakes = [FakeHub(), FakeHub()]
    monkeypatch.setattr(hub, "MIRRORS", tuple(fake.address for fake in fakes))
    monkeypatch.setenv("HORNBOOK_HOME", str(tmp_path / "home"))
    for name in ("HF_ENDPOINT", "HORNBOOK_DATA", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield fakes
    for fake in fakes:
        fake.server.shutdown()
        fake.server.server_close()


def left_behind(home: Path) -> list[str]:
    return [path.name for path in home.rglob("*") if path.is_file() and path.name.startswith(".")]


def test_wikitext_comes_from_the_hub_once_and_is_then_read_without_it(fakes, monkeypatch):
    fakes[0].add_wikitext("train", LINES[:4], LINES[4:])
    seen: list[tuple[float, float]] = []
    monkeypatch.setattr(Bar, "show", lambda bar, done, total, note="": seen.append((done, total)))
    corpus = open_corpus("wikitext-103")
    expected = [" \n = First = \n \n Some words . \n", " \n = Second = \n \n More words . \n"]
    assert list(corpus.documents("train")) == expected
    assert seen
    assert all(done == total for done, total in seen)
    before = sum(fakes[0].asked.values())
    assert list(open_corpus("wikitext-103").documents("train")) == expected
    assert sum(fakes[0].asked.values()) == before == 3


def test_a_second_mirror_is_asked_when_the_first_fails_or_lies(fakes, tmp_path):
    for fake in fakes:
        fake.add_wikitext("train", LINES)
    path = next(path for path in fakes[0].files if path.endswith(".parquet"))
    for damage in ("missing", "wrong", "truncated"):
        if damage == "missing":
            good = fakes[0].files.pop(path)
        elif damage == "wrong":
            fakes[0].files[path] = good[:-1] + b"?"
        else:
            fakes[0].files[path] = good
            fakes[0].truncated.add(path)
        for file in (tmp_path / "home").rglob("*.parquet"):
            file.unlink()
        assert len(list(open_corpus("wikitext-103").documents("train"))) == 2
    assert fakes[1].asked[path] == 3
    assert left_behind(tmp_path / "home") == []


@pytest.mark.parametrize("damage", ["wrong", "truncated"])
def test_a_damaged_file_leaves_nothing_behind_and_the_error_says_what_to_do(fakes, tmp_path, damage):
    fakes[0].add_wikitext("train", LINES)
    path = next(path for path in fakes[0].files if path.endswith(".parquet"))
    if damage == "wrong":
        fakes[0].files[path] += b"?"
    else:
        fakes[0].truncated.add(path)
    message = "sha256 is" if damage == "wrong" else "IncompleteRead"
    with pytest.raises(UserError, match=rf"cannot download .*{message}.*HORNBOOK_DATA") as error:
        list(open_corpus("wikitext-103").documents("train"))
    assert "\n" not in str(error.value)
    assert list((tmp_path / "home").rglob("*.parquet")) == []
    assert left_behind(tmp_path / "home") == []


def test_without_a_network_one_line_names_the_alternative(fakes):
    for fake in fakes:
        fake.server.shutdown()
        fake.server.server_close()
    for name, hint in (("wikitext-103", "wikitext-103/train.txt"), ("tinystories", "tiny_stories.txt")):
        with pytest.raises(UserError, match=rf"cannot reach the Hub .*{hint} in HORNBOOK_DATA") as error:
            list(open_corpus(name).documents("train"))
        assert "\n" not in str(error.value)


def test_what_was_pinned_at_first_use_must_come_again(fakes, tmp_path):
    fakes[0].add_wikitext("train", LINES)
    list(open_corpus("wikitext-103").documents("train"))
    for file in (tmp_path / "home").rglob("*.parquet"):
        file.unlink()
    fakes[0].files.clear()
    fakes[0].add_wikitext("train", [*LINES, " changed \n"])
    with pytest.raises(UserError, match="sha256 is"):
        list(open_corpus("wikitext-103").documents("train"))


def test_text_whose_hash_is_in_the_code_is_checked_after_decoding(fakes, monkeypatch):
    monkeypatch.setattr(wikitext, "KNOWN", {("wikitext-103", "train"): hashlib.sha256(b"other").hexdigest()})
    fakes[0].add_wikitext("train", LINES)
    with pytest.raises(UserError, match="the train text of wikitext-103 from the Hub has sha256"):
        list(open_corpus("wikitext-103").documents("train"))
    text = "".join(line or " \n" for line in LINES)
    monkeypatch.setattr(wikitext, "KNOWN", {("wikitext-103", "train"): hashlib.sha256(text.encode()).hexdigest()})
    assert "".join(open_corpus("wikitext-103").documents("train")) == text


def test_an_endpoint_that_the_user_names_is_the_only_one_asked(fakes, monkeypatch):
    fakes[1].add_wikitext("train", LINES)
    monkeypatch.setenv("HF_ENDPOINT", fakes[1].address + "/")
    assert len(list(open_corpus("wikitext-103").documents("train"))) == 2
    assert not fakes[0].asked


def test_a_split_that_the_hub_lacks_lists_its_files(fakes):
    fakes[0].add_wikitext("train", LINES)
    with pytest.raises(UserError, match=r"no test split in wikitext-103-v1. Its files: train-00000"):
        list(open_corpus("wikitext-103").documents("test"))


def test_tiny_shakespeare_is_downloaded_and_checked(fakes, monkeypatch):
    text = "".join(f"Speaker {number}:\nWords.\n\n" for number in range(2000)).encode()
    monkeypatch.setattr(tinyshakespeare, "ADDRESSES", (f"{fakes[0].address}/gone", f"{fakes[1].address}/input.txt"))
    monkeypatch.setattr(tinyshakespeare, "SHA256", hashlib.sha256(text).hexdigest())
    fakes[1].files["/input.txt"] = text
    corpus = open_corpus("tinyshakespeare")
    documents = [document for split in corpus.splits for document in corpus.documents(split)]
    assert "".join(documents).encode() == text
    assert documents[0].count("Speaker") == 20


def test_a_file_that_is_already_there_and_right_is_not_fetched(fakes, tmp_path):
    fakes[0].files["/x"] = b"new"
    target = tmp_path / "x"
    assert download([f"{fakes[0].address}/x"], target, hashlib.sha256(b"new").hexdigest()).read_bytes() == b"new"
    download([f"{fakes[0].address}/x"], target, hashlib.sha256(b"new").hexdigest())
    assert fakes[0].asked["/x"] == 1
