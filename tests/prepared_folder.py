"""A prepared corpus as `hornbook prepare` leaves it, made without it; and servers that have one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from hornbook.data.shards import VERSION, write_shard
from hornbook.text.tokenizer_training import train_tokenizer
from hornbook.text.tokenizers import Tokenizer

SIZES = (5, 1, 17, 40, 8, 3, 11, 2, 90, 30, 6, 25)


def texts(count: int, seed: int = 0) -> list[str]:
    """Documents of a few words each, all different."""
    return [f"{seed}.{n} " + "the cat sat on a mat " * (1 + SIZES[(n + seed) % len(SIZES)] // 3) for n in range(count)]


def write_prepared(
    folder: Path, splits: dict[str, Sequence[Sequence[str]]], tokenizer: Tokenizer | None = None
) -> dict[str, Any]:
    """Write a corpus: split -> the documents of each part. Returns corpus.json."""
    tokenizer = tokenizer or train_tokenizer("bytes", [])
    facts: dict[str, Any] = {"version": "1", "name": folder.name, "licence": "none", "source": "a test", "splits": {}}
    facts |= {"tokenizer": tokenizer.hash, "vocab": tokenizer.vocab, "separator": tokenizer.eos}
    for split, parts in splits.items():
        facts["splits"][split] = [
            write_part(folder, f"{split}/{number:05d}.safetensors", documents, tokenizer)
            for number, documents in enumerate(parts)
        ]
    tokenizer.save(folder / "tokenizer")
    (folder / "corpus.json").write_text(json.dumps(facts))
    return facts


def write_part(folder: Path, file: str, documents: Sequence[str], tokenizer: Tokenizer) -> dict[str, Any]:
    encoded = [(text, tokenizer.encode(text)) for text in documents]
    write_shard(folder / file, iter(encoded), tokenizer, {"version": VERSION, "tokenizer": tokenizer.hash})
    content = (folder / file).read_bytes()
    return {
        "file": file,
        "tokens": 1 + sum(len(ids) + 1 for _, ids in encoded),
        "documents": len(documents),
        "text_bytes": sum(len(text.encode()) for text in documents),
        "restorable": True,
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def files_of(folder: Path) -> dict[str, bytes]:
    """Path in the folder -> content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextlib.contextmanager
def served(folder: Path, ranges: bool = True) -> Iterator[tuple[str, list[str]]]:
    """(the address of a folder over HTTP, the requests so far); without `ranges` it sends whole files only."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = folder / self.path.strip("/")
            if not path.is_file():
                return self.send_error(404)
            content, wanted = path.read_bytes(), self.headers.get("Range", "")
            partly = ranges and wanted.startswith("bytes=")
            if partly:
                first, last = wanted.removeprefix("bytes=").split("-")
                content = content[int(first) : int(last) + 1 if last else None]
            if self.command == "GET":
                asked.append(f"{self.path} {wanted}")
            self.send_response(206 if partly else 200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Accept-Ranges", "bytes" if ranges else "none")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET

        def log_message(self, *words: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
