"""Training speed and memory on this CPU: ours beside transformers' Trainer, nanoGPT, LitGPT and a plain PyTorch loop.

    python benchmarks/training_against_peers.py [--shapes A B] [--rounds 3] [--only hornbook trainer ...]

The peers are installed into .venv-peers (1.5 GB); one that cannot be had is left out. Every run is a process of its
own, and the runs of a round take turns, so that a slow minute of the machine meets all of them. Beside the system's
allocator the peers also run with glibc's thresholds in the environment (what Hornbook sets by itself), and all with
tcmalloc where it is installed. All train GPT-2's architecture on random tokens in memory, without dropout, with AdamW
but for the line that says Muon; their parameters are compared. What was measured is kept in --out: the same command
carries on.
"""

from __future__ import annotations

import argparse
import ctypes.util
import hashlib
import os
import statistics
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any, NamedTuple

import torch

from hornbook import machine
from peers.measuring import SHAPES
from peers.rounds import Kept, asked, carry_on

HERE = Path(__file__).resolve().parent
ENVIRONMENT = HERE.parent / ".venv-peers"
LITGPT = "litgpt==0.5.13"
LOOPS = {
    "hornbook": "Hornbook, AdamW",
    "hornbook-muon": "Hornbook, Muon",
    "trainer": "Trainer, its defaults (float32)",
    "trainer-fast": "Trainer, bf16 + compile",
    "nanogpt": "nanoGPT's loop as shipped (float32)",
    "nanogpt-fast": "nanoGPT's loop, bf16 + compile",
    "litgpt": "LitGPT, bf16-mixed + compile",
    "plain": "plain loop, bf16 + compile, fused",
    "plain-written": "the same, attention written out",
}
OURS = ("hornbook", "hornbook-muon")
SYSTEM, THRESHOLDS, TCMALLOC = "system", "thresholds", "tcmalloc"
ALLOCATORS = {
    SYSTEM: "as its user would run it",
    THRESHOLDS: "with the same allocator",
    TCMALLOC: "where both have tcmalloc",
}
SET = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1), "MALLOC_TOP_PAD_": str(64 * 2**20)}


class Entry(NamedTuple):
    """One process: in which round, on what shape, with which loop and allocator."""

    round: int
    shape: str
    loop: str
    allocator: str

    def __str__(self) -> str:
        return f"round {self.round}, shape {self.shape}, {LOOPS[self.loop]}, {self.allocator} allocator"


def main() -> None:
    given = options()
    python = install()
    kept = Kept(given.out, Entry, {"machine": here(), "steps": given.steps})
    todo = [entry for entry in entries(given) if entry not in kept.runs]
    told = "{:,.0f} tokens/s, {:.2f} GB".format
    stopped = carry_on(
        todo,
        kept,
        measured_peak,
        lambda entry: run(entry, python, given),
        lambda answer: told(speed(answer), answer["peak_bytes"] / 1e9),
    )
    for shape in given.shapes:
        print("\n".join(["", *table(shape, kept)]))
    sys.exit(130 if stopped else 0)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=["A", "B"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10, help="steps measured after two of warm-up")
    parser.add_argument("--seconds", type=float, default=25, help="no further step is begun after so many")
    parser.add_argument("--only", nargs="+", choices=list(LOOPS), default=list(LOOPS), metavar="LOOP")
    present = [SYSTEM, THRESHOLDS, *([TCMALLOC] if tcmalloc() else [])]
    parser.add_argument("--allocators", nargs="+", choices=present, default=present)
    parser.add_argument("--out", type=Path, default=Path("runs/bench-train.json"))
    return parser.parse_args()


def here() -> str:
    """What measurements are only comparable on."""
    return f"{machine.processor()}, {machine.cores()} cores, torch {torch.__version__}"


def entries(given: argparse.Namespace) -> list[Entry]:
    """All runs, in the order in which they take turns. Ours sets the thresholds by itself."""
    return [
        Entry(number, shape, loop, allocator)
        for number in range(1, given.rounds + 1)
        for shape in given.shapes
        for loop in given.only
        for allocator in given.allocators
        if not (loop in OURS and allocator == THRESHOLDS)
    ]


def install() -> Path:
    """The Python of the peers' environment, made first where it is missing or of other requirements."""
    wanted = HERE / "peers" / "requirements.txt"
    digest = hashlib.sha256(wanted.read_bytes() + LITGPT.encode()).hexdigest()[:12]
    python, done = ENVIRONMENT / "bin" / "python", ENVIRONMENT / f"ready-{digest}"
    if done.exists():
        return python
    print(f"installing the peers into {ENVIRONMENT.name}: a few minutes")
    try:
        if not python.exists():
            venv.create(ENVIRONMENT, with_pip=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"no environment for the peers: {error}")
        return python
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    whole = [subprocess.run([*pip, *what]).returncode == 0 for what in (["-r", str(wanted)], ["--no-deps", LITGPT])]
    if all(whole):
        done.touch()
    else:
        print("not all of the peers could be installed: going on with the others")
    return python


def tcmalloc() -> str | None:
    """The library to preload, where it is installed."""
    return ctypes.util.find_library("tcmalloc_minimal") or ctypes.util.find_library("tcmalloc")


def measured_peak() -> float:
    """FLOP/s of bfloat16 products, the best ever seen here, measured in a process of its own."""
    code = "import torch; from hornbook import machine; from hornbook.text.home import home; "
    code += "print(machine.reference_peak('cpu', torch.bfloat16, home() / 'machine.json').flops)"
    done = subprocess.run([sys.executable, "-c", code], env=environment(SYSTEM), capture_output=True, text=True)
    return float(done.stdout) if done.returncode == 0 else 0.0


def environment(allocator: str) -> dict[str, str]:
    """This one's, without what it says of threads, devices and allocators, and with the allocator."""
    ours = (*SET, "LD_PRELOAD", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    chosen = {SYSTEM: {}, THRESHOLDS: SET, TCMALLOC: {"LD_PRELOAD": tcmalloc() or ""}}[allocator]
    paths = os.pathsep.join([str(HERE), *filter(None, [kept.get("PYTHONPATH")])])
    return kept | {"CUDA_VISIBLE_DEVICES": "", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": paths} | chosen


def run(entry: Entry, python: Path, given: argparse.Namespace) -> dict[str, Any]:
    """What one process answers, or its error in a line."""
    program, module = (sys.executable, "peers.ours") if entry.loop in OURS else (str(python), "peers.loops")
    command = [program, "-m", module, entry.loop, entry.shape, f"--steps={given.steps}", f"--seconds={given.seconds}"]
    answer = asked(command, environment(entry.allocator))
    if "error" not in answer and answer["tcmalloc"] != (entry.allocator == TCMALLOC):
        return {"error": "left out (tcmalloc could not be preloaded)"}
    return entry._asdict() | answer


def speed(run: dict[str, Any]) -> float:
    """Tokens a second: the median of a run's steps."""
    return SHAPES[run["shape"]].tokens / statistics.median(run["seconds"])


def middle(runs: list[dict[str, Any]]) -> float:
    """Tokens a second: the median over rounds."""
    return statistics.median(map(speed, runs))


def table(shape: str, kept: Kept) -> list[str]:
    """What was measured of a shape, and the ratios of ours to the others."""
    known = {(loop, a): runs for loop in LOOPS for a in ALLOCATORS if (runs := kept.of(shape, loop, a))}
    if not known:
        return [f"shape {shape}: nothing measured"]
    threads = " or ".join(sorted({str(run["threads"]) for runs in known.values() for run in runs}))
    flops, ours = SHAPES[shape].flops_per_token, known.get((OURS[0], SYSTEM))
    head = f"{'loop':<37}{'allocator':<12}{'tokens/s':>9}{'lowest':>9}{'highest':>9}{'GB':>7}{'of peak':>9}"
    lines = [
        f"shape {shape}: {SHAPES[shape]}, {threads} threads, parameters equal within 1 %",
        head + f"{'first steps':>13}{'rounds':>8}{'ours / it':>11}",
    ]
    for (loop, allocator), runs in known.items():
        speeds, most = [speed(run) for run in runs], statistics.median(run["peak_bytes"] for run in runs) / 1e9
        peak = f"{middle(runs) * flops / kept.peak:>9.1%}" if kept.peak else f"{'-':>9}"
        first = statistics.median(run["first_seconds"] for run in runs)
        ratio = f"{middle(ours) / middle(runs):>11.2f}" if ours else f"{'-':>11}"
        name = "its own" if loop in OURS and allocator == SYSTEM else allocator
        figures = f"{middle(runs):>9,.0f}{min(speeds):>9,.0f}{max(speeds):>9,.0f}{most:>7.2f}{peak}"
        lines.append(f"{LOOPS[loop]:<37}{name:<12}{figures}{first:>11.1f} s{len(runs):>8}{ratio}")
    return [
        *lines,
        *(ratios(known, ours) if ours else []),
        FOOT.format(f"{kept.peak / 1e12:.3f}", f"{flops / 1e6:.1f}"),
    ]


def ratios(known: dict[tuple[str, str], list[dict[str, Any]]], ours: list[dict[str, Any]]) -> list[str]:
    """Ours to the fastest peer by allocator, and to the Trainer's defaults in speed and memory."""
    peers = {key: runs for key, runs in known.items() if key[0] not in OURS}
    lines = []
    for allocator, words in ALLOCATORS.items():
        rivals = {loop: runs for (loop, a), runs in peers.items() if a == allocator}
        mine = known.get((OURS[0], TCMALLOC), ours) if allocator == TCMALLOC else ours
        if rivals:
            loop = max(rivals, key=lambda name: middle(rivals[name]))
            lines.append(f"  {middle(mine) / middle(rivals[loop]):.2f} x the fastest peer {words}: {LOOPS[loop]}")
    if trainer := peers.get(("trainer", SYSTEM)):
        memory = [statistics.median(run["peak_bytes"] for run in runs) for runs in (ours, trainer)]
        words = f"{middle(ours) / middle(trainer):.2f} x the Trainer's defaults"
        lines.append(f"  {words}, in {memory[0] / memory[1]:.2f} of their memory")
    return ["", *lines]


FOOT = """
tokens/s: the median over rounds of each round's median step, and the lowest and highest round. GB: the most that was
resident. of peak: tokens/s x FLOPs per token / {} TFLOP/s, the best bfloat16 product of 2,048-square matrices seen;
FLOPs per token = 6 (non-embedding matrices + V D) + 6 L T D = {} million. first steps: two, with compilation."""


if __name__ == "__main__":
    main()
