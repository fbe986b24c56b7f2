"""Generation speed on this CPU: ours beside transformers' `generate` and llama.cpp, at 16, 8 and 4 bits.

    python benchmarks/generation_against_peers.py [--shapes gpt2 llama] [--batch 1 16] [--rounds 3] [--only NAME ...]

Every run is a process of its own, and the runs of a round take turns, so that a slow minute of the machine meets all
of them: 32 tokens of prompt, another one in each row, and 128 new ones, greedily; three generations after one of
warm-up. The models are made here, of random weights in bfloat16 without an end token, once; all read the same, and
their logits are compared. The peers are installed into .venv-peers; llama-cpp-python, which may have to be built (15
minutes on 2 cores), is left out where it cannot be had. What was measured is kept in --out: the same command carries
on.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from hornbook import machine
from peers.generating import NEW, PROMPT
from peers.making import SHAPES, Ask, gguf_path, gguf_weights, make_gguf, model_folder
from peers.rounds import Kept, asked, carry_on
from training_against_peers import SYSTEM, environment, here, install

LLAMA_CPP = "llama-cpp-python==0.3.36"
WHOLE_TILES = "-DCMAKE_CXX_FLAGS=-fno-dse"
"""GCC 12 otherwise drops most of the tile configuration that llama.cpp's AMX kernels write, and these die: its
`_tile_loadconfig` says that it reads 8 bytes of the 64."""


class Generator(NamedTuple):
    """A line of the table."""

    title: str
    bits: int
    """Of most weights; the ratios compare those of the same 16, 8 or 4."""
    file: str = ""
    """The GGUF file that it reads; otherwise the model folder."""


GENERATORS = {
    "hornbook-bf16": Generator("Hornbook, bf16", 16),
    "hornbook-int8": Generator("Hornbook, int8", 8),
    "hornbook-int4": Generator("Hornbook, int4", 4),
    "transformers": Generator("transformers, float32", 16),
    "transformers-bf16": Generator("transformers, bf16", 16),
    "transformers-static": Generator("transformers, bf16, static, compiled", 16),
    "llama-bf16": Generator("llama.cpp, BF16", 16, "BF16"),
    "llama-f16": Generator("llama.cpp, F16", 16, "F16"),
    "llama-q8_0": Generator("llama.cpp, Q8_0", 8, "Q8_0"),
    "llama-q4_0": Generator("llama.cpp, Q4_0", 4, "Q4_0"),
}
REFERENCE = "transformers"
"""Whose logits the others' are compared with."""


class Entry(NamedTuple):
    """One process: in which round, what shape, how many rows at once, with which generator."""

    round: int
    shape: str
    rows: int
    name: str

    def __str__(self) -> str:
        return f"round {self.round}, {self.shape}, batch {self.rows}, {GENERATORS[self.name].title}"


def main() -> None:
    given = options()
    python = install()
    pythons = {"transformers": python, "llama": given.llama_python, "hornbook": Path(sys.executable)}
    if given.llama_python is None and any(GENERATORS[name].file for name in given.only):
        pythons["llama"] = install_llama(python)
    names = [name for name in given.only if pythons[name.partition("-")[0]] is not None]
    facts = {"machine": here(), "prompt": PROMPT, "new": NEW}
    kept = Kept(given.out / "results.json", Entry, facts)
    todo = [entry for entry in entries(given, names) if entry not in kept.runs]
    stopped = carry_on(
        todo,
        kept,
        measured_reading,
        lambda entry: run(entry, pythons, given),
        lambda answer: f"{decoding(answer):,.1f} tokens/s",
    )
    for name in given.shapes:
        for rows in given.batch:
            print("\n".join(["", *table(name, rows, kept)]))
    print(FOOT.format(f"{kept.peak / 1e9:.1f}"))
    sys.exit(130 if stopped else 0)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=["gpt2", "llama"])
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 16], metavar="ROWS")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--repeats", type=int, default=3, help="generations measured in a process, after one of warm-up"
    )
    parser.add_argument("--only", nargs="+", choices=list(GENERATORS), default=list(GENERATORS), metavar="NAME")
    parser.add_argument("--llama-python", type=Path, help="a Python that has llama_cpp; default that of .venv-peers")
    parser.add_argument("--out", type=Path, default=Path("runs/bench-generate"), help="folder for models and results")
    return parser.parse_args()


def entries(given: argparse.Namespace, names: list[str]) -> list[Entry]:
    """All runs, in the order in which they take turns."""
    return [
        Entry(number, shape, rows, name)
        for number in range(1, given.rounds + 1)
        for shape in given.shapes
        for rows in given.batch
        for name in names
    ]


def install_llama(python: Path) -> Path | None:
    """The peers' Python where it has llama_cpp, which is installed first where it can be; None otherwise."""
    present = [str(python), "-c", "import llama_cpp"]
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--prefer-binary"]
    building = os.environ | {"CMAKE_ARGS": os.environ.get("CMAKE_ARGS", WHOLE_TILES)}
    try:
        if subprocess.run(present, capture_output=True).returncode == 0:
            return python
        print(f"installing {LLAMA_CPP}: 15 minutes where it has to be built")
        if subprocess.run([*pip, LLAMA_CPP], env=building).returncode == 0:
            return python
    except OSError as error:
        print(error)
    print("llama-cpp-python could not be installed: going on without llama.cpp (--llama-python names a Python with it)")
    return None


def measured_reading() -> float:
    """Bytes a second that are read from memory, measured in a process of its own."""
    command = [sys.executable, "-m", "peers.reading"]
    settings = environment(SYSTEM) | {"THP_MEM_ALLOC_ENABLE": "1"}
    done = subprocess.run(command, env=settings, capture_output=True, text=True)
    return float(done.stdout) if done.returncode == 0 else 0.0


def run(entry: Entry, pythons: dict[str, Path | None], given: argparse.Namespace) -> dict[str, Any]:
    """What one process answers, or its error in a line."""
    program, folder = entry.name.partition("-")[0], model_folder(given.out, entry.shape)
    module = "peers.ours_generating" if program == "hornbook" else "peers.generators"
    usual = [f"--rows={entry.rows}", f"--repeats={given.repeats}", f"--threads={machine.cores()}"]

    def ask(name: str, source: Path) -> dict[str, Any]:
        return asked([str(pythons[program]), "-m", module, name, str(source), *usual], environment(SYSTEM))

    answer = llama(folder, GENERATORS[entry.name].file, ask) if program == "llama" else ask(entry.name, folder)
    return entry._asdict() | answer


def llama(folder: Path, kind: str, ask: Ask) -> dict[str, Any]:
    """llama.cpp with a model's file of a kind; once more without AMX where it died."""
    path = gguf_path(folder, kind)
    if error := make_gguf(folder, kind, ask).get("error"):
        return {"error": error}
    answer = ask("llama", path)
    if "died" in (error := answer.get("error", "")):
        remark = f"without AMX, for with it {error.removeprefix('left out (').removesuffix(')')}"
        answer = ask("llama-no-amx", path) | {"remark": remark}
    return answer | {"weights": gguf_weights(path)}


def decoding(run: dict[str, Any]) -> float:
    """Tokens a second of all rows together once each has its first: the median of a run's generations."""
    left = run["rows"] * NEW - run["early"]
    return statistics.median(left / (total - first) for first, total in run["seconds"])


def overall(run: dict[str, Any]) -> float:
    """New tokens a second, reading the prompts included."""
    return statistics.median(run["rows"] * NEW / total for _, total in run["seconds"])


def first_token(run: dict[str, Any]) -> float:
    """Seconds until every row has a token."""
    return statistics.median(first for first, _ in run["seconds"])


def middle(runs: list[dict[str, Any]], figure: Callable[[dict[str, Any]], float] = decoding) -> float:
    """The median over rounds."""
    return statistics.median(map(figure, runs))


def table(name: str, rows: int, kept: Kept) -> list[str]:
    """What was measured of a shape at a batch size, and the ratios of ours to the others."""
    known = {g: runs for g in GENERATORS if (runs := kept.of(name, rows, g))}
    title = f"{name}, batch {rows}: {PROMPT} tokens of prompt, {NEW} new ones, vocabulary {SHAPES[name].vocab:,}"
    if not known:
        return [f"{title}: nothing measured"]
    head = f"{'':<38}{'load':>7}{'first':>9}{'tokens/s':>10}{'lowest':>9}{'highest':>9}{'overall':>9}{'GB':>6}"
    lines = [title, f"{head}{'weights':>9}{'GB/s':>7}{'of limit':>10}{'logits':>9}{'rounds':>8}{'ours / it':>11}"]
    for generator, runs in known.items():
        lines.append(line(generator, runs, kept.peak) + against(generator, known))
    remarks = {
        f"  {GENERATORS[g].title}: {run['remark']}" for g, runs in known.items() for run in runs if "remark" in run
    }
    return [*lines, *sorted(remarks), *ratios(known)]


def line(name: str, runs: list[dict[str, Any]], limit: float) -> str:
    speeds, weights = [decoding(run) for run in runs], runs[-1]["weights"]
    read = weights * middle(runs) / runs[-1]["rows"]
    load_seconds, most = (middle(runs, lambda run, key=key: run[key]) for key in ("load_seconds", "peak_bytes"))
    share = f"{read / limit:>10.1%}" if limit and runs[-1]["rows"] == 1 else f"{'-':>10}"
    figures = f"{middle(runs):>10,.1f}{min(speeds):>9,.1f}{max(speeds):>9,.1f}{middle(runs, overall):>9,.1f}"
    times = f"{load_seconds:>5.1f} s{1000 * middle(runs, first_token):>6,.0f} ms"
    bytes_read = f"{weights / 1e6:>6,.0f} MB{read / 1e9:>7.1f}{share}"
    return f"{GENERATORS[name].title:<38}{times}{figures}{most / 1e9:>6.2f}{bytes_read}"


def against(name: str, known: dict[str, list[dict[str, Any]]]) -> str:
    """How far logits are from the reference's, and ours of the same bits divided by this one."""
    logits = f"{'-':>9}"
    if REFERENCE in known:
        logits = f"{difference(known[name][-1]['logits'], known[REFERENCE][-1]['logits']):>9.2%}"
    ours = next((runs for g, runs in known.items() if g in ours_of(name)), None)
    return f"{logits}{len(known[name]):>8}" + (f"{middle(ours) / middle(known[name]):>11.2f}" if ours else f"{'-':>11}")


def ours_of(name: str) -> list[str]:
    """Ours of the same number of bits."""
    return [g for g, what in GENERATORS.items() if g.startswith("hornbook") and what.bits == GENERATORS[name].bits]


def difference(found: list[float], expected: list[float]) -> float:
    """The root of the mean squared difference, as a share of the deviation of what is expected."""
    squares = math.fsum((a - b) ** 2 for a, b in zip(found, expected, strict=True))
    return math.sqrt(squares / len(expected)) / statistics.pstdev(expected)


def ratios(known: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Ours to the fastest of each peer at the same number of bits."""
    lines = [""]
    for ours in (name for name in known if name.startswith("hornbook")):
        for peer in ("transformers", "llama"):
            rivals = [g for g in known if g.startswith(peer) and ours in ours_of(g)]
            if rivals:
                fastest = max(rivals, key=lambda name: middle(known[name]))
                ratio = middle(known[ours]) / middle(known[fastest])
                lines.append(f"  {GENERATORS[ours].title}: {ratio:.2f} x {GENERATORS[fastest].title}")
    return lines


FOOT = """
load: from a file that is in memory already; Hornbook quantises while it loads, llama.cpp maps a file that is
quantised. first: until every row has a token. tokens/s: of all rows together, from then on; the median over rounds of
each round's median generation, and the lowest and highest round. overall: with the prompts. GB: the most that was
resident. weights: what is read for a token. of limit: GB/s of weights / {} GB/s, the fastest read of 2 GiB seen.
logits: the deviation from transformers' in float32, as a share of their own."""


if __name__ == "__main__":
    main()
