"""Training from an S3 server on loopback against training from this disk: the loader alone, and real runs.

python benchmarks/object_storage.py [CORPUS] [--model llama-tiny] [--steps 60] [--rounds 2]

Prepares the corpus, starts moto's server, copies the corpus to it, and reads and trains from both places in turn, on
the same rows; every run from S3 begins with an empty cache, unless it says warm. The server takes its time from the
same cores, so that a run's own speed is the lower for it while the cache fills. Needs the extras cluster and test.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import s3fs
import torch

from hornbook.data.batches import Batches
from hornbook.data.blocks import Cache
from hornbook.data.loader import Loader
from hornbook.data.prepared import Prepared

BUCKET = "s3://much/corpus"
CONTEXT, ROWS = 256, 16


@contextlib.contextmanager
def server(folder: Path) -> Iterator[None]:
    """moto's S3 in a process of its own, which the environment then names; the folder is copied to it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.environ |= {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ |= {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "NO_PROXY": "127.0.0.1"}
    try:
        while process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.1)
        system = s3fs.S3FileSystem()
        system.mkdir("much")
        system.put(f"{folder}/", f"{BUCKET.removeprefix('s3://')}/", recursive=True)
        yield
    finally:
        process.terminate()
        process.wait()


def hornbook(home: Path, *words: str) -> None:
    """Run a command. RuntimeError where it fails."""
    surroundings = os.environ | {"HORNBOOK_HOME": str(home)}
    done = subprocess.run([sys.executable, "-m", "hornbook", *words], capture_output=True, text=True, env=surroundings)
    if done.returncode:
        raise RuntimeError(f"hornbook {' '.join(words)}: {done.stderr.strip()}")


def loading(place: str, cache: Cache, steps: int) -> float:
    """Tokens a second that the loader makes, with nothing else to do."""
    corpus = Prepared(place, cache=cache)
    sampler = Batches(corpus.shard("train", corpus.tokenizer), ROWS, CONTEXT, seed=0)
    loader = Loader(sampler.get, 1, torch.device("cpu"), foresight=sampler if sampler.far else None)
    loader.get(0)
    began = time.perf_counter()
    tokens = sum(loader.get(step).tokens for step in range(1, steps + 1))
    seconds = time.perf_counter() - began
    loader.close()
    return tokens / seconds


def training(place: str, folder: Path, home: Path, model: str, steps: int) -> float:
    """Tokens a second of a run, evaluations and the first two steps left out."""
    flags = ("--steps", str(steps), "--eval-every", str(steps), "--eval-tokens", "2000", "--compile", "no")
    sizes = ("--batch", str(ROWS), "--context", str(CONTEXT), "--attention", "fused", "--precision", "float32")
    hornbook(home, "train", model, "--data", place, "--out", str(folder), *flags, *sizes)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps_taken = [line for line in lines if "loss" in line]
    first, last = steps_taken[1], steps_taken[-1]
    return (last["tokens"] - first["tokens"]) / (last["seconds"] - first["seconds"])


def rounds_of(places: dict[str, str], folder: Path, asked: argparse.Namespace) -> dict[str, list[float]]:
    """Label -> what each round measured; the places take turns."""
    found: dict[str, list[float]] = {}
    for number in range(asked.rounds):
        for label, place in places.items():
            name, home = f"{label}-{number}", folder / f"home-{label}-{number}"
            cold = loading(place, Cache(folder / f"cache-{name}", 10**10), asked.loads)
            found.setdefault(f"loader, {label}", []).append(cold)
            if label == "S3":
                warm = loading(place, Cache(folder / f"cache-{name}", 10**10), asked.loads)
                found.setdefault("loader, S3, warm", []).append(warm)
            speed = training(place, folder / name, home, asked.model, asked.steps)
            found.setdefault(f"{asked.model}, {label}", []).append(speed)
            shutil.rmtree(folder / f"cache-{name}")
            shutil.rmtree(home)
    return found


def main() -> None:
    """Prints tokens a second from both places, and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("corpus", nargs="?", default="python-code")
    parser.add_argument("--model", default="llama-tiny")
    parser.add_argument("--steps", type=int, default=60, help="of each run")
    parser.add_argument("--loads", type=int, default=300, help="batches that the loader alone makes")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--tokenizer", default="bytes")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus, home = folder / "corpus", folder / "home"
        words = ("--tokenizer", asked.tokenizer, "--part-size", "4MB", "--out", str(corpus))
        hornbook(home, "prepare", asked.corpus, *words)
        with server(corpus):
            found = rounds_of({"disk": str(corpus), "S3": BUCKET}, folder, asked)
    middle = {label: statistics.median(speeds) for label, speeds in found.items()}
    for label, speeds in found.items():
        beside = middle[f"{label.split(',')[0]}, disk"]
        each = ", ".join(f"{speed:,.0f}" for speed in speeds)
        print(f"{label:<22} {middle[label]:>12,.0f} tokens/s  {middle[label] / beside:6.3f} of the disk's  ({each})")


if __name__ == "__main__":
    main()
