"""A ladder as it might have been measured: realistic summaries and logs, made without training anything."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hornbook.report.page import Rung

DOCUMENTS = 38
BYTES = np.random.default_rng(7).integers(400, 9000, DOCUMENTS)
HARDNESS = np.random.default_rng(8).normal(0, 0.25, DOCUMENTS)

FACTS: dict[str, Any] = {
    "title": "The ladder on python-docs",
    "command": "hornbook ladder python-docs --minutes 0.8",
    "hornbook": "0.1.0",
    "python": "3.11.9",
    "torch": "2.11.0",
    "machine": "2 cores (x86-64, bf16), 8 GB of memory",
    "corpus": "python-docs: 2.4 MB in 412 documents, sha256 5f2c9d0e71ab, PSF licence",
    "tokenizer": "bpe, 4,096 entries (sha256 91aa0c4d33f0)",
    "prompt": "The ",
    "seed": 0,
    "minutes": 0.8,
    "date": "2026-01-31 12:00",
}


def validation(bits: float, noise: float = 0.02, seed: int = 0) -> dict[str, Any]:
    """A summary of scores that come to exactly `bits` per byte; documents stray from it."""
    stray = HARDNESS + np.random.default_rng(seed).normal(0, noise, DOCUMENTS)
    stray -= (stray * BYTES).sum() / BYTES.sum()
    nats = (bits + stray) * BYTES * math.log(2)
    total, size = float(nats.sum()), int(BYTES.sum())
    return {
        "bits_per_byte": bits,
        "bits_per_byte_interval": [bits - 0.09, bits + 0.08],
        "word_perplexity": math.exp(min(total / (size / 6), 700)),
        "token_perplexity": math.exp(total / (size / 3.5)),
        "documents": DOCUMENTS,
        "bytes": size,
        "context": 256,
        "stride": 128,
        "document_nats": nats.tolist(),
        "document_bytes": BYTES.tolist(),
    }


def counted(name: str, bits: float, parameters: int = 90_000) -> Rung:
    summary = {
        "model": name,
        "family": "ngram",
        "parameters": parameters,
        "seconds": 0.9,
        "tokens": 640_000,
        "sample": "The Return a string of the object is not a name, and the file.",
        "validation": validation(bits, seed=len(name)),
        "data": "python-docs",
    }
    return Rung(name, summary, [{"step": 0, "seconds": 0.9, "sample": summary["sample"]}])


def neural(name: str, bits: float, speed: float = 9000, noise: float = 0.02, tail: float = 0.35) -> Rung:
    """A trained rung whose curves fall to `bits`; the larger `tail`, the more they still fall at the end."""
    summary = {
        "model": name,
        "parameters": 3_400_000,
        "seconds": 48.2,
        "steps": 120,
        "tokens": int(speed * 48),
        "tokens_per_second": speed,
        "flops": speed * 48 * 2.1e7,
        "sample": "The following example of the `Path` object is returned.\n\n    >>> print(x)\n    1\nThe second",
        "validation": validation(bits, noise, seed=sum(map(ord, name))),
        "data": "python-docs",
    }
    return Rung(name, summary, curves(bits, summary["steps"], tail, sum(map(ord, name))))


def curves(bits: float, steps: int, tail: float, seed: int) -> list[dict[str, Any]]:
    noise = np.random.default_rng(seed).normal(0, 0.12, steps + 1)
    lines = []
    for step in range(1, steps + 1):
        seconds = 1.5 + 46.5 * step / steps
        above = 4.2 * math.exp(-step / 14) + tail * (steps - step) / steps
        lines.append(
            {"step": step, "loss": bits * 2.4 + above + noise[step], "seconds": seconds, "tokens": step * 4096}
        )
        if step % (steps // 10) == 0:
            now = bits + 0.02 + above / 2.4
            lines.append({"step": step, "seconds": seconds, "validation_bits_per_byte": now, "sample": "The x"})
    return lines


def encoder(name: str = "bert-tiny") -> Rung:
    lines = [{"step": k, "loss": 8.3 - k / 40, "seconds": k / 2.5, "tokens": k * 600} for k in range(1, 121)]
    summary = {
        "model": name,
        "family": "bert",
        "parameters": 4_200_000,
        "seconds": 48.1,
        "steps": 120,
        "tokens": 72_000,
        "tokens_per_second": 1500.0,
        "flops": 1e12,
        "sample": None,
        "pseudo_perplexity": 214.7,
        "data": "python-docs",
    }
    return Rung(name, summary, [*lines, {"step": 120, "seconds": 48.0, "validation_masked_loss": 5.37}])


def whole_ladder() -> list[Rung]:
    return [
        counted("bigram", 2.412),
        counted("5gram", 1.981, 2_100_000),
        neural("rnn", 2.034, 14_000, tail=0.12),
        neural("rnn-attention", 2.051, 11_000, tail=0.15),
        encoder(),
        neural("gpt2-tiny", 2.187, 7600),
        neural("opt-tiny", 2.196, 7700),
        neural("llama-tiny", 2.104, 8400),
    ]
