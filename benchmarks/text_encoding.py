"""How fast long texts are encoded: tiktoken's engine against the tokenizers library, on the same text, with equal ids.

python benchmarks/text_encoding.py [CORPUS] [--megabytes 16] [--vocab 8192]
"""

from __future__ import annotations

import argparse
import time

from hornbook.text.corpora import open_corpus
from hornbook.text.tokenizer_training import train_tokenizer


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

    start = time.perf_counter()
    fast = tokenizer.encode_batch(texts)
    fast_seconds = time.perf_counter() - start
    start = time.perf_counter()
    slow = [encoding.ids for encoding in tokenizer.core.encode_batch_fast(texts, add_special_tokens=False)]
    slow_seconds = time.perf_counter() - start

    print(f"{tokenizer.engine:>10}: {size / 1e6 / fast_seconds:6.1f} MB/s")
    print(f"tokenizers: {size / 1e6 / slow_seconds:6.1f} MB/s")
    print(f"ratio: {slow_seconds / fast_seconds:.2f}, ids {'equal' if fast == slow else 'DIFFERENT'}")


if __name__ == "__main__":
    main()
