"""Four models on 1 to 1,024 GPUs, and published runs beside what plans say of them: the page docs/plan.md.

python -m hornbook.planning.page docs/plan.md       writes it anew
"""

from __future__ import annotations

import dataclasses
import sys

from hornbook.atomic import write_text
from hornbook.config import Plan
from hornbook.errors import UserError
from hornbook.inspection.grid import sized, wrapped
from hornbook.planning.devices import GPUS, NODE, USABLE
from hornbook.planning.plan import DRAW, Forecast, make
from hornbook.planning.published import RUNS, Published
from hornbook.planning.scaling_laws import ORIGINAL, REFIT, SCOPE
from hornbook.planning.telling import many, span

COMMAND = "python -m hornbook.planning.page docs/plan.md"
MODELS = {"gpt2": "10B", "gpt2-xl": "33.6B", "llama-3-8b": "15T", "llama-3-70b": "15T"}
NUMBERS = (1, 8, 64, 256, 1024)

INTRODUCTION = [
    "# Planning a run",
    "`hornbook plan llama-3-8b --tokens 15T --gpu h100:512 --recompute` says, before anything is started, whether a "
    "model fits, what lies in each device's memory, how long training takes, what it costs, and how good the model "
    "will be. Without `--gpu` it plans for this machine: in about three seconds it takes a few real steps, with the "
    "choices that `hornbook train` would make, of as much of the model as that allows. `--json` gives all of "
    "it to a program; in "
    'Python, `hornbook.plan("llama-3-8b", tokens="15T", gpu="h100:512", recompute=True)`.',
    "MODEL is a named size, a run, or a `config.json`. `--parallel` is `data` (every device holds all), "
    "`shard` (ZeRO-3: weights, gradients and optimiser divided), `hybrid` (divided inside a machine of eight, "
    "copied between machines); `auto` takes the first of data and shard that fits. `--tensor 8` "
    "divides each matrix; `--recompute` keeps one tensor a block. What does not fit says what would.",
    "## Where the figures come from",
    "- **Memory** follows the engine: weights, gradients and optimiser in float32, bfloat16 copies for the products, "
    "the logits of 2,048 positions at a time. What a pass keeps for its gradients is counted on tensors that "
    "have shapes and no numbers, by running the model's own code. Gradients of data parallel training are "
    "taken to lie where they are sent from (`gradient_as_bucket_view`); sharded weights are taken to be "
    "gathered in bfloat16, two blocks at a time, and gradients to be divided after every batch, as "
    "`fully_shard` does with a mixed precision policy. Without one, autocast's copies stay until the backward "
    f"pass is done: two bytes a parameter more. Of a GPU's memory {USABLE:.0%} may be taken.",
    "- **Time** is the model's operations (`flops_per_token`, causal attention counted half) over `--mfu`, 40 "
    "%, of the data sheet's peak; blocks that are computed again count a third more. Bytes sent are those of "
    f"rings, over NVLink inside a machine of {NODE} and its network beyond. Data parallel traffic is hidden "
    "behind the arithmetic as far as it is shorter; tensor parallel traffic is waited for. There are no "
    "pipelines, failures, evaluations or checkpoints in it.",
    f"- **Cost** is the price of the table below, or `--price`; **energy** {DRAW:.0%} of the boards' power, without "
    "hosts and cooling.",
    f"- **Loss**: {REFIT.name} ({REFIT.source}), beside the fit as first printed ({ORIGINAL.source}): {SCOPE}. "
    "Compute-optimal tokens are given by approach 1 of Hoffmann et al. (20 a parameter) and by approach 3, refitted. "
    "Models that many will run are trained on far more: a smaller model for longer, as Llama 3 8B on 1,868 tokens a "
    "parameter.",
    "On this machine memory is the peak resident one: that of the process, and the tensors' as counted, times what the "
    "allocator took in the probe beyond them. A compiled step is counted as 0.7 of an eager one, and the "
    "compiler's own memory is not counted. `benchmarks/plan_agreement.py` compares both figures with real runs: "
    "of five, time was met within 2 %, memory within 13 % "
    "([log](log.md)).",
]


def plan_page() -> str:
    """The text of docs/plan.md."""
    parts = [text if text.startswith("#") else wrapped(text) for text in INTRODUCTION]
    parts += ["## 1 to 1,024 H100", wrapped(LEGEND), plan_table()]
    parts += ["## Published runs", wrapped(COMPARED), published_table(), wrapped(REMARK)]
    parts += ["## GPUs", wrapped(PRICES), gpu_table(), f"This page is made by `{COMMAND}`."]
    return "\n\n".join(parts) + "\n"


LEGEND = (
    "Each at 40 % while computing, in bfloat16, with the family's optimiser of `hornbook train`; recompute "
    "where it does not fit without. Rows are those that a device computes at once; the share of the peak has "
    "waiting for other devices in it."
)
COMPARED = (
    "The hours of all GPUs together, as published, and as the same arithmetic has them at the utilisation that was "
    "stated with them (in which communication is contained)."
)
REMARK = (
    "No utilisation was published for Llama 3 8B. Its hours amount to what the last column says, less than "
    "half of what was stated for the 405B, so that a plan at 40 % expects 0.42 of them: the card's hours "
    "contain more than the steps of one run, or the run was far less efficient. For the 70B, too, only the "
    "405B's range is known."
)
PRICES = (
    "`src/hornbook/planning/devices.py`: to be edited as prices change. Link and network are bytes a second for each "
    "GPU, one way."
)


def markdown(heads: list[str], rows: list[list[str]], words: int = 1) -> str:
    """A table whose first columns are words."""
    line = ["---"] * words + ["---:"] * (len(heads) - words)
    return "\n".join(f"| {' | '.join(row)} |" for row in [heads, line, *rows])


def plan_table() -> str:
    heads = ["model", "tokens", "GPUs", "sharding", "memory a GPU", "rows", "a step", "time", "of peak", "cost", "kWh"]
    rows = [row(name, tokens, number) for name, tokens in MODELS.items() for number in NUMBERS]
    return markdown(heads, rows, 1)


def row(name: str, tokens: str, number: int) -> list[str]:
    """One plan, or that there is none."""
    start = [f"`{name}`", tokens, f"{number:,}"]
    found = possible(name, tokens, number)
    if isinstance(found, str):
        return [*start, found, *["-"] * 7]
    f = found
    return [
        *start,
        f.layout.sharding + (", recompute" if f.recompute else ""),
        sized(f.memory.peak),
        f"{f.rows:,}",
        many(f.step_tokens),
        span(f.seconds),
        f"{f.mfu:.0%}",
        f"${f.cost:,.0f}",
        f"{f.energy:,.0f}",
    ]


def possible(name: str, tokens: str, number: int) -> Forecast | str:
    """The plan, with recompute where it takes that; or that it does not fit."""
    asked = Plan(name, tokens, gpu=f"h100:{number}")
    try:
        return make(asked)
    except UserError as error:
        text = str(error)
    try:
        return make(dataclasses.replace(asked, recompute=True))
    except UserError:
        return f"does not fit ({text.rpartition('What fits: ')[2]} does)"


def published_table() -> str:
    heads = ["run", "tokens", "stated utilisation", "GPU-hours", "predicted", "ratio", "hours amount to"]
    return (
        markdown(heads, [published_row(run) for run in RUNS])
        + "\n\n"
        + "\n".join(f"- {run.what.partition(',')[0]}: {run.source}" for run in RUNS)
    )


def published_row(run: Published) -> list[str]:
    expected = run.predicted
    figures = ["-", "-"] if expected is None else [f"{expected:,.1f}", f"{expected / run.hours:.2f}"]
    return [run.what, many(run.tokens), run.stated, f"{run.hours:,.1f}", *figures, f"{run.implied:.0%}"]


def gpu_table() -> str:
    heads = ["GPU", "bfloat16", "memory", "bandwidth", "link", "network", "power", "an hour", "price from"]
    rows = [
        [
            f"`{name}`",
            f"{g.flops / 1e12:,.0f} TFLOP/s",
            sized(int(g.memory)),
            f"{g.bandwidth / 1e9:,.0f} GB/s",
            f"{g.link / 1e9:,.0f} GB/s",
            f"{g.network / 1e9:.3g} GB/s",
            f"{g.power:,.0f} W",
            "-" if g.price is None else f"${g.price:.2f}",
            g.priced or "none known: --price",
        ]
        for name, g in GPUS.items()
    ]
    return markdown(heads, rows)


def write(path: str) -> None:
    """Write the page to a file, whole or not at all."""
    page = plan_page()
    write_text(path, page)


if __name__ == "__main__":
    write(sys.argv[1])
