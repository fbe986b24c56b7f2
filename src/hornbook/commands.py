"""What the commands print: each does its work through the package and shows the result."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table

from hornbook.config import Evaluate, Generate, Train

console = Console(highlight=False, soft_wrap=True)


def train(settings: Train) -> None:
    """`hornbook train`."""
    from hornbook.training.interrupt import Interrupted
    from hornbook.training.pretrain import resolve
    from hornbook.training.pretrain import train as pretrain

    out = resolve(settings).out
    try:
        summary = pretrain(settings)
    except Interrupted:
        print(f"hornbook: stopped and saved in {out}; the same command carries on from there", file=sys.stderr)
        sys.exit(130)
    if "validation" in summary:
        print_scores({summary["model"]: summary["validation"]})
    else:
        print(f"pseudo-perplexity {summary['pseudo_perplexity']:.2f} (sees both sides: not comparable)")
    print(out)


def evaluate(settings: Evaluate) -> None:
    """`hornbook evaluate`."""
    raise NotImplementedError


def generate(settings: Generate) -> None:
    """`hornbook generate`."""
    from hornbook.checkpoint import load
    from hornbook.generation.stream import prompt_ids, stream_text, stream_tokens

    prompt = sys.stdin.read() if settings.prompt == "-" else settings.prompt
    model = load(settings.run, settings.device)
    tokenizer = model.tokenizer
    ids = prompt_ids(model, tokenizer, prompt)
    for sample in range(settings.samples):
        tokens = stream_tokens(
            model, ids, settings.tokens, settings.temperature, settings.top_k, settings.top_p, settings.seed + sample
        )
        print(prompt, end="", flush=True)
        for piece in stream_text(tokens, tokenizer):
            print(piece, end="", flush=True)
        print()


def print_scores(rows: dict[str, dict]) -> None:
    """A table of summaries."""
    table = Table(box=None, pad_edge=False)
    for name in ("model", "bits per byte", "95 % interval", "word perplexity", "token perplexity"):
        table.add_column(name, justify="left" if name == "model" else "right")
    for name, s in rows.items():
        bits, interval = s["bits_per_byte"], s["bits_per_byte_interval"]
        table.add_row(
            name,
            "-" if bits is None else f"{bits:.4f}",
            "-" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}",
            f"{s['word_perplexity']:,.2f}",
            f"{s['token_perplexity']:,.2f}",
        )
    console.print(table)
