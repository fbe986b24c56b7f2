"""WikiText-2 from scratch in 5, 15 and 60 minutes: bits per byte by our recipe, nanoGPT's and the Trainer's default.

    python benchmarks/wikitext_recipes.py [--minutes 5 15 60] [--preset hornbook-small] [--seeds 0 1 2]

All three get the same tokens (a BPE of 8,192 entries trained by Hornbook) and the same wall-clock, from the start of
their process on: imports and compilation count, scoring does not. Each model is then scored by Hornbook's own
evaluation on the whole validation split, with the context that it was trained for. nanoGPT's is the recipe of its
README for computers without a GPU; the Trainer trains GPT-2 in the preset's sizes (see benchmarks/peers/recipes.py).
What was measured is kept in --out: the same command carries on.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from hornbook import models
from hornbook.atomic import write_json
from hornbook.checkpoint import load
from hornbook.config import ModelConfig, TransformerConfig
from hornbook.data.shards import Shard, open_split
from hornbook.evaluation.score import Scores, score
from hornbook.layers.model import LanguageModel
from hornbook.progress import duration
from hornbook.run import read_log
from hornbook.text.corpora import open_corpus
from hornbook.text.tokenizer_store import obtain_tokenizer
from hornbook.text.tokenizers import Tokenizer
from peers.gpt import GPT
from peers.measuring import Shape
from peers.recipes import LAPTOP
from training_against_peers import SYSTEM, environment, here, install

RECIPES = {
    "ours": "Hornbook, {preset}",
    "nanogpt": "nanoGPT, its recipe for small computers",
    "trainer": "Trainer, its defaults, GPT-2 of the same sizes",
}
CORPUS, VOCAB = "wikitext-2", 8192
STARTING = """
from hornbook.training import pretrain
from hornbook.data.shards import open_split
from hornbook.text.corpora import open_corpus
from hornbook.text.tokenizer_store import obtain_tokenizer
corpus = open_corpus("wikitext-2", "text")
tokenizer = obtain_tokenizer("bpe", corpus, 8192)
for split in ("train", "validation"):
    open_split(corpus, tokenizer, split)
"""
"""What `hornbook train` does before it looks at the clock."""


class Entry(NamedTuple):
    recipe: str
    minutes: float
    seed: int


class Setting(NamedTuple):
    """What all runs share."""

    given: argparse.Namespace
    tokenizer: Tokenizer
    shards: dict[str, Shard]
    python: Path
    """Of the peers' environment."""
    starting: float
    """Seconds that ours takes before its own clock starts."""


class NanoGPT(LanguageModel):
    """nanoGPT's model as one that can be scored."""

    def __init__(self, folder: Path, vocab: int) -> None:
        super().__init__()
        from safetensors.torch import load_file

        self.gpt = GPT(Shape(vocab=vocab, **LAPTOP), bias=False, tanh=False)
        self.gpt.load_state_dict(load_file(folder / "model.safetensors"))
        self.config = ModelConfig("nanogpt", vocab=vocab, context=LAPTOP["context"])

    def log_prob(self, tokens: torch.Tensor, targets: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        logits = self.gpt(tokens).transpose(1, 2)
        return -torch.nn.functional.cross_entropy(logits, targets, reduction="none", ignore_index=-100)


def main() -> None:
    given = options()
    sizes_of(given.preset)
    corpus = open_corpus(CORPUS, "text")
    tokenizer = obtain_tokenizer("bpe", corpus, VOCAB)
    shards = {split: open_split(corpus, tokenizer, split) for split in ("train", "validation")}
    setting = Setting(given, tokenizer, shards, install(), starting_seconds())
    path, facts = given.out / "results.json", told_facts(given)
    kept = read(path, facts)
    entries = [Entry(r, m, s) for s in given.seeds for m in sorted(given.minutes) for r in given.recipes]
    todo = [entry for entry in entries if entry not in kept]
    print(f"{len(todo)} runs to do, {len(kept)} kept: about {duration(sum(60 * e.minutes + 40 for e in todo))}")
    stopped = False
    try:
        for number, entry in enumerate(todo, 1):
            print(f"[{number}/{len(todo)}] {entry.recipe}, {entry.minutes:g} minutes, seed {entry.seed}", flush=True)
            found = run(entry, setting)
            if "error" in found:
                print(f"  left out: {found['error']}")
                continue
            kept[entry] = entry._asdict() | found
            write_json(path, {"facts": facts, "runs": list(kept.values())})
            print(f"  {found['bits_per_byte']:.4f} bits per byte, {found['tokens'] / 1e6:.1f} M tokens", flush=True)
    except KeyboardInterrupt:
        stopped = True
        print(f"\nstopped; {len(kept)} runs are kept in {path}, and the same command carries on")
    print("\n".join(["", *table(given, kept)]))
    sys.exit(130 if stopped else 0)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, nargs="+", default=[5, 15, 60])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--recipes", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--preset", default="hornbook-small", help="ours: a named size with its recipe")
    parser.add_argument("--flags", default="", help="ours: further flags of hornbook train, as one word")
    parser.add_argument("--out", type=Path, default=Path("runs/wikitext-recipes"))
    return parser.parse_args()


def sizes_of(preset: str) -> tuple[int, int, int, int]:
    """Layers, width, heads, context."""
    config = models.find_size(preset)
    if not isinstance(config, TransformerConfig):
        sys.exit(f"{preset} is no Transformer: GPT-2 cannot have its sizes")
    return config.layers, config.dim, config.heads, config.context


def told_facts(given: argparse.Namespace) -> dict[str, Any]:
    return {"machine": here(), "preset": given.preset, "flags": given.flags}


def read(path: Path, facts: dict[str, Any]) -> dict[Entry, dict[str, Any]]:
    """What is kept; the program ends where it was measured otherwise."""
    if not path.exists():
        return {}
    known = json.loads(path.read_text())
    if known["facts"] != facts:
        sys.exit(f"{path} was measured otherwise ({known['facts']}): choose another --out, or delete it")
    return {Entry(run["recipe"], run["minutes"], run["seed"]): run for run in known["runs"]}


def starting_seconds() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", STARTING], env=environment(SYSTEM), check=True, capture_output=True)
    return time.perf_counter() - began


def run(entry: Entry, setting: Setting) -> dict[str, Any]:
    """Train by one recipe in a process of its own, and score what came out."""
    folder = setting.given.out / f"{entry.recipe}-{entry.minutes:g}-{entry.seed}"
    shutil.rmtree(folder, ignore_errors=True)
    began = time.time()
    found = ours(entry, setting, folder) if entry.recipe == "ours" else theirs(entry, setting, folder)
    if "error" in found:
        return found
    model = NanoGPT(folder, setting.tokenizer.vocab) if entry.recipe == "nanogpt" else load(folder)
    scores = score(model, setting.shards["validation"])
    return found | {"wall_seconds": time.time() - began} | figures(scores, model)


def figures(scores: Scores, model: LanguageModel) -> dict[str, Any]:
    known = scores.summary()
    names = ("bits_per_byte", "bits_per_byte_interval", "token_perplexity", "targets", "context", "stride")
    return {name: known[name] for name in names} | {"parameters": model.parameter_count()}


def ours(entry: Entry, setting: Setting, folder: Path) -> dict[str, Any]:
    """`hornbook train`, whose minutes begin when it has text and model: so many seconds less."""
    minutes = entry.minutes - setting.starting / 60
    command = [sys.executable, "-m", "hornbook", "train", setting.given.preset, "--data", CORPUS, "--vocab", str(VOCAB)]
    command += ["--minutes", f"{minutes:.4f}", "--seed", str(entry.seed), "--out", str(folder)]
    command += shlex.split(setting.given.flags)
    done = subprocess.run(command, env=environment(SYSTEM), stdout=subprocess.DEVNULL)
    if done.returncode:
        return {"error": f"hornbook train ended with {done.returncode}"}
    last = [line for line in read_log(folder) if "tokens" in line][-1]
    return {"steps": last["step"], "tokens": last["tokens"], "seconds": last["seconds"] + setting.starting}


def theirs(entry: Entry, setting: Setting, folder: Path) -> dict[str, Any]:
    """A recipe of benchmarks/peers/recipes.py."""
    folder.mkdir(parents=True)
    for split, shard in setting.shards.items():
        np.save(folder / f"{split}.npy", np.asarray(shard.tokens))
    setting.tokenizer.save(folder)
    sizes = list(map(str, sizes_of(setting.given.preset)))
    command = [str(setting.python), "-m", "peers.recipes", entry.recipe, str(folder), f"--began={time.time()}"]
    command += [f"--seconds={60 * entry.minutes}", f"--vocab={setting.tokenizer.vocab}", f"--seed={entry.seed}"]
    began = time.time()
    try:
        done = subprocess.run([*command, "--sizes", *sizes], env=environment(SYSTEM), stdout=subprocess.PIPE, text=True)
    except OSError as error:
        return {"error": str(error)}
    if done.returncode:
        return {"error": f"{entry.recipe} ended with {done.returncode}"}
    return json.loads(done.stdout.splitlines()[-1]) | {"seconds": time.time() - began}


def table(given: argparse.Namespace, kept: dict[Entry, dict[str, Any]]) -> list[str]:
    """Bits per byte by minutes and recipe: the mean over seeds, and how far ours is ahead of the best other."""
    head = f"{'recipe':<48}{'minutes':>8}{'bits per byte':>15}{'seeds':>21}{'parameters':>12}{'M tokens':>10}"
    lines = [f"{CORPUS}, validation split; {here()}", head]
    for minutes in sorted({entry.minutes for entry in kept}):
        means = {}
        for recipe, name in RECIPES.items():
            runs = [run for e, run in kept.items() if (e.recipe, e.minutes) == (recipe, minutes)]
            if not runs:
                continue
            bits = [run["bits_per_byte"] for run in runs]
            means[recipe] = statistics.mean(bits)
            over = f"{len(bits)}: {min(bits):.4f} to {max(bits):.4f}" if len(bits) > 1 else "one"
            tokens, size = statistics.mean(run["tokens"] for run in runs) / 1e6, runs[0]["parameters"] / 1e6
            figures_ = f"{means[recipe]:>15.4f}{over:>21}{size:>10.1f} M{tokens:>10.1f}"
            lines.append(f"{name.format(preset=given.preset):<48}{minutes:>8g}{figures_}")
        others = [value for recipe, value in means.items() if recipe != "ours"]
        if "ours" in means and others:
            lines.append(f"  ours is {1 - means['ours'] / min(others):.1%} below the best of the others")
    return lines


if __name__ == "__main__":
    main()
