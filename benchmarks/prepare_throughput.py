"""How fast a text is prepared: `hornbook prepare`, by processes and by Ray, against tiktoken's encode_ordinary_batch
with the same vocabulary on as many threads, which encodes the same documents from memory and writes nothing.

python benchmarks/prepare_throughput.py [--megabytes 1000] [--workers 2] [--tokenizer FOLDER] [--engines processes ray]

The text is the standard library's source, again and again, each document with its number. `--folder` keeps it, and the
corpora, for a second run or a look.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from itertools import count
from multiprocessing import get_context
from pathlib import Path

import tiktoken

from hornbook.config import Prepare
from hornbook.data.preparing import prepare_corpus
from hornbook.text.fast import THREADS, _pattern, _ranks
from hornbook.text.stdlib import modules
from hornbook.text.tokenizer_training import train_tokenizer
from hornbook.text.tokenizers import load_tokenizer

AT_ONCE = 64_000_000
"""Bytes of text that tiktoken is given at once."""
AT_HAND = ["processes", *(["ray"] if find_spec("ray") else [])]
"""Engines that are installed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--megabytes", type=float, default=1000)
    parser.add_argument("--workers", type=int, default=THREADS)
    parser.add_argument("--tokenizer", help="a folder; default: a byte-level BPE trained on the same source")
    parser.add_argument("--vocab", type=int, default=16384)
    parser.add_argument("--part-size", default="64MB")
    parser.add_argument("--engines", nargs="+", default=AT_HAND, choices=["processes", "ray"])
    parser.add_argument("--folder", type=Path)
    settings = parser.parse_args()
    if settings.folder:
        settings.folder.mkdir(parents=True, exist_ok=True)
        return compare(settings, settings.folder)
    with tempfile.TemporaryDirectory(prefix="hornbook-") as folder:
        compare(settings, Path(folder))


def compare(settings: argparse.Namespace, folder: Path) -> None:
    """Times all, prints a line each, and whether the engines wrote the same."""
    place = folder / "tokenizer"
    if settings.tokenizer:
        tokenizer = load_tokenizer(settings.tokenizer)
    else:
        tokenizer = train_tokenizer("bpe", sources(), settings.vocab)
    tokenizer.save(place)
    text = folder / f"text-{settings.megabytes:g}.jsonl"
    size = written(text, settings.megabytes * 1e6)
    print(f"{size / 1e6:,.0f} MB of text, a vocabulary of {tokenizer.vocab:,}, {settings.workers} workers", flush=True)
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:  # its lists are not to count as memory of ours
        least = pool.submit(encoded_by_tiktoken, text, place, settings.workers).result()
    print(f"{'tiktoken, threads':<24} {size / 1e6 / least:7.1f} MB/s", flush=True)
    for engine in settings.engines:
        out = folder / engine
        shutil.rmtree(out, ignore_errors=True)
        how = {"workers": settings.workers, "part_size": settings.part_size, "engine": engine}
        given = Prepare(str(text), str(out), str(place), **how)
        began = time.perf_counter()
        found = prepare_corpus(given)
        took = time.perf_counter() - began
        print(
            f"{'prepare, ' + engine:<24} {size / 1e6 / took:7.1f} MB/s   {least / took:5.2f} of tiktoken   peak memory "
            f"{found.peak / 1e6:,.0f} MB, of the largest worker {found.worker_peak / 1e6:,.0f} MB",
            flush=True,
        )
    if len(settings.engines) > 1:
        same = len({everything(folder / engine) for engine in settings.engines}) == 1
        print(f"all files are {'the same, bit for bit' if same else 'DIFFERENT'}")
        sys.exit(not same)


def written(file: Path, wanted: float) -> int:
    """Write the text; its bytes, without what JSON adds."""
    texts, size = sources(), 0
    with open(file, "w", encoding="utf-8") as lines:
        for number in count():
            text = f"# document {number}\n{texts[number % len(texts)]}"
            lines.write(json.dumps({"text": text}) + "\n")
            size += len(text.encode())
            if size >= wanted:
                return size
    raise AssertionError


def sources() -> list[str]:
    """The standard library's."""
    return [path.read_text(encoding="utf-8", errors="replace") for path in modules().values()]


def batches(file: Path) -> Iterator[list[str]]:
    """The documents, so many at once."""
    batch, size = [], 0
    with open(file, encoding="utf-8") as lines:
        for line in lines:
            batch.append(json.loads(line)["text"])
            size += len(line)
            if size >= AT_ONCE:
                yield batch
                batch, size = [], 0
    yield batch


def encoded_by_tiktoken(file: Path, place: Path, threads: int) -> float:
    """Seconds for the encoding alone."""
    definition = json.loads(load_tokenizer(place).core.to_str())
    pattern, ranks = _pattern(definition["pre_tokenizer"]), _ranks(definition["model"])
    assert pattern is not None, "take a byte-level BPE: tiktoken knows no other"
    assert ranks is not None, "take a byte-level BPE: tiktoken knows no other"
    encoding = tiktoken.Encoding("theirs", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    took = 0.0
    for batch in batches(file):
        began = time.perf_counter()
        encoding.encode_ordinary_batch(batch, num_threads=threads)
        took += time.perf_counter() - began
    return took


def everything(folder: Path) -> str:
    """The sums of all parts, and corpus.json."""
    return (folder / "corpus.json").read_text()


if __name__ == "__main__":
    main()
