"""How fast long texts are encoded: tiktoken's engine against the tokenizers library, on the same text, with equal ids.

python benchmarks/text_encoding.py [CORPUS] [--megabytes 16] [--vocab 8192]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

from hornbook.text.corpora import open_corpus
from hornbook.text.tokenizer_training import train_tokenizer

ROUNDS = 3


def main() -> None:
    """Trains a byte-level BPE, encodes the corpus both ways, prints MB/s and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("corpus", nargs="?", default="python-code")
    parser.add_argument("--megabytes", type=float, default=16)
    parser.add_argument("--vocab", type=int, default=8192)
    settings = parser.parse_args()

    texts, size = [], 0
    for text in open_corpus(settings.corpus).documents("train"):
        texts.append(text)
        size += len(text.encode())
        if size >= settings.megabytes * 1e6:
            break
    start = time.perf_counter()
    tokenizer = train_tokenizer("bpe", texts, vocab=settings.vocab)
    print(f"training a vocabulary of {tokenizer.vocab:,} on {size / 1e6:.1f} MB: {time.perf_counter() - start:.1f} s")

    ways = {
        f"ours ({tokenizer.engine})": lambda: tokenizer.encode_batch(texts),
        "tokenizers": lambda: [e.ids for e in tokenizer.core.encode_batch_fast(texts, add_special_tokens=False)],
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    found = {}
    for _ in range(ROUNDS):  # in turns, so that a slow minute of the machine meets both
        for name, encode in ways.items():
            start = time.perf_counter()
            found[name] = encode()
            seconds[name].append(time.perf_counter() - start)

    fast, slow = (statistics.median(each) for each in seconds.values())
    for name, each in seconds.items():
        print(f"{name:>16}: {size / 1e6 / statistics.median(each):6.1f} MB/s, the median of {ROUNDS}")
    ours, theirs = found.values()
    equal = ours == theirs
    print(f"ratio: {slow / fast:.2f}, ids {'equal' if equal else 'DIFFERENT'}")
    sys.exit(not equal)


if __name__ == "__main__":
    main()
