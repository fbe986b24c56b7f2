"""Trials of our own recipe: one setting changed at a time, the same wall-clock, several seeds.

    python benchmarks/recipe_trials.py [--minutes 5] [--seeds 0 1 2] [--only base adamw-0.002 ...]

Every trial is `hornbook train` on WikiText-2 in a process of its own, scored on the whole validation split afterwards.
The settings of one seed take turns before the next seed begins, so that a slow hour of the machine meets all of them.
What was measured is kept in --out: the same command carries on, with further settings too. docs/log.md has the tables.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from hornbook.checkpoint import load
from hornbook.data.shards import open_split
from hornbook.evaluation.score import score
from hornbook.run import read_log
from hornbook.text.corpora import open_corpus
from hornbook.text.tokenizer_store import obtain_tokenizer
from peers.rounds import Kept, carry_on
from training_against_peers import SYSTEM, environment, here, measured_peak

CORPUS, VOCAB = "wikitext-2", 8192
TRIALS = {
    "base": "",
    "lr-0.002": "--lr 0.002",
    "lr-0.004": "--lr 0.004",
    "lr-0.016": "--lr 0.016",
    "adamw-0.002": "--optimizer adamw --lr 0.002",
    "adamw-0.004": "--optimizer adamw --lr 0.004",
    "batch-8": "--batch 8 --lr 0.0057",
    "batch-32": "--batch 32",
    "linear": "--schedule linear",
    "cosine": "--schedule cosine",
    "decay-0": "--weight-decay 0",
    "dropout-0.1": "--dropout 0.1",
    "dropout-0.2": "--dropout 0.2",
    "context-128": "--context 128 --batch 32",
    "context-512": "--context 512 --batch 8",
    "vocab-4096": "--vocab 4096",
    "vocab-2048": "--vocab 2048",
    "layers-2": "--layers 2",
    "layers-6": "--layers 6",
    "layers-6-lr-0.004": "--layers 6 --lr 0.004",
    "layers-6-dropout-0.1": "--layers 6 --dropout 0.1",
    "width-192": "--dim 192 --heads 3 --kv-heads 3 --mlp 768",
    "width-384": "--dim 384 --heads 6 --kv-heads 3 --mlp 1536",
    "width-384-dropout-0.1": "--dim 384 --heads 6 --kv-heads 3 --mlp 1536 --dropout 0.1",
    "width-384-dropout-0.2": "--dim 384 --heads 6 --kv-heads 3 --mlp 1536 --dropout 0.2",
}
"""Flags that are added to the preset's recipe; a later flag wins."""


class Entry(NamedTuple):
    """One trial: the seed is the round."""

    round: int
    trial: str
    minutes: float

    def __str__(self) -> str:
        return f"{self.trial}, {self.minutes:g} minutes, seed {self.round}"


def main() -> None:
    given = options()
    kept = Kept(given.out, Entry, {"machine": here(), "preset": given.preset})
    trials = [Entry(seed, trial, given.minutes) for seed in given.seeds for trial in given.only]
    for entry in [entry for entry, known in kept.runs.items() if known["flags"] != TRIALS.get(entry.trial)]:
        del kept.runs[entry]  # measured when the trial of that name was another one
    todo = [entry for entry in trials if entry not in kept.runs]
    told = "{bits_per_byte:.4f} bits per byte, {steps:,} steps".format_map
    stopped = carry_on(todo, kept, measured_peak, partial(run, given=given), told)
    print("\n".join(["", *table(kept, given.preset)]))
    sys.exit(130 if stopped else 0)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", choices=list(TRIALS), default=list(TRIALS), metavar="TRIAL")
    parser.add_argument("--preset", default="hornbook-tiny")
    parser.add_argument("--out", type=Path, default=Path("runs/recipe-trials.json"))
    return parser.parse_args()


def run(entry: Entry, given: argparse.Namespace) -> dict[str, Any]:
    """Train one, and score it with the context that it was trained for; its folder is taken away again."""
    settings = command(given.preset, entry)
    vocab = int(settings[len(settings) - 1 - settings[::-1].index("--vocab") + 1])
    corpus = open_corpus(CORPUS, "text")
    shard = open_split(corpus, obtain_tokenizer("bpe", corpus, vocab), "validation")
    folder = given.out.with_name(f"{given.out.stem}-at-work")
    shutil.rmtree(folder, ignore_errors=True)
    began = time.time()
    line = [sys.executable, "-m", "hornbook", *settings, "--out", str(folder)]
    done = subprocess.run(line, env=environment(SYSTEM), capture_output=True, text=True)
    if done.returncode:
        return {"error": f"left out ({(done.stderr.strip().splitlines() or ['no word'])[-1]})"}
    last = [one for one in read_log(folder) if "tokens" in one][-1]
    model = load(folder)
    found = score(model, shard).summary()
    shutil.rmtree(folder)
    return entry._asdict() | {
        "flags": TRIALS[entry.trial],
        "bits_per_byte": found["bits_per_byte"],
        "parameters": model.parameter_count(),
        "steps": last["step"],
        "tokens": last["tokens"],
        "wall_seconds": time.time() - began,
    }


def command(preset: str, entry: Entry) -> list[str]:
    """The words behind `hornbook`."""
    words = ["train", preset, "--data", CORPUS, "--vocab", str(VOCAB), "--minutes", f"{entry.minutes:g}"]
    return [*words, "--seed", str(entry.round), *shlex.split(TRIALS[entry.trial])]


def table(kept: Kept, preset: str) -> list[str]:
    """A line a trial: bits per byte over its seeds, the best mean first."""
    head = f"{'trial':<24}{'minutes':>8}{'seeds':>7}{'bits per byte':>15}{'lowest':>9}{'highest':>9}"
    lines = [f"{preset} on {CORPUS}, validation split; {here()}", head + f"{'M tokens':>10}{'parameters':>12}"]
    known = {entry[1:]: kept.of(*entry[1:]) for entry in kept.runs}

    def mean(runs: list[dict[str, Any]]) -> float:
        return statistics.mean(one["bits_per_byte"] for one in runs)

    for (trial, minutes), runs in sorted(known.items(), key=lambda one: (one[0][1], mean(one[1]))):
        bits = [one["bits_per_byte"] for one in runs]
        sizes = f"{min(bits):>9.4f}{max(bits):>9.4f}{statistics.mean(one['tokens'] for one in runs) / 1e6:>10.2f}"
        figures = f"{minutes:>8g}{len(runs):>7}{mean(runs):>15.4f}{sizes}{runs[0]['parameters'] / 1e6:>10.2f} M"
        lines.append(f"{trial:<24}{figures}")
    return lines


if __name__ == "__main__":
    main()
