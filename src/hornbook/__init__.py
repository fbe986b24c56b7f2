"""Hornbook: every classic language model, from counting word pairs to Llama 3, on one small codebase.

    import hornbook
    hornbook.train("llama-tiny", data="python-docs", minutes=1, out="runs/x")
    model = hornbook.load("runs/x")             # model(tokens (B,T)) -> logits (B,T,V)
    print(hornbook.generate("runs/x", "The"))

Every verb takes the fields of its settings class in `hornbook.config`; nothing heavy is imported before it is called.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from hornbook.comparing import Comparison
    from hornbook.compression import Compressed
    from hornbook.data.preparing import Preparation
    from hornbook.doctor.finding import Finding
    from hornbook.evaluation.judging import Judged
    from hornbook.evaluation.score import Scores
    from hornbook.exchange import Arrival
    from hornbook.inspection.anatomy import Anatomy
    from hornbook.inspection.walk import Walk
    from hornbook.inspection.words import WordPair
    from hornbook.layers.model import LanguageModel
    from hornbook.planning.plan import Forecast
    from hornbook.report.page import Rung
    from hornbook.training.callbacks import Callback

if not os.environ.keys() & {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}:
    os.environ["GOMP_SPINCOUNT"] = "10000"  # read when torch is loaded: see docs/engine.md, "Beside other work"

__version__ = "0.1.0"
__all__ = [
    "benchmark",
    "climb",
    "compare",
    "evaluate",
    "examine",
    "export",
    "finetune",
    "generate",
    "import_model",
    "inspect",
    "load",
    "morph",
    "plan",
    "plant",
    "prepare",
    "quantize",
    "sweep",
    "train",
]


def load(source: str, device: str | None = None, dtype: str | None = None, bits: int | None = None) -> LanguageModel:
    """The model of a run, a Hugging Face folder, a .gguf file, or the Hub's `gpt2` or `hf:owner/name`.

    `model(tokens (B,T))` gives logits, `model.tokenizer` cuts text. Weights become float32 where `dtype` says nothing,
    and with `bits` (8 or 4) matrices are quantised as they are read: the model in full is never held.
    """
    from hornbook.checkpoint import load

    return load(source, device, dtype, bits=bits)


def prepare(data: str, out: str, **fields: Any) -> Preparation:
    """Text to tokens in the folder, or at the address, `out`, which `train(data=out)` takes (fields of
    `config.Prepare`)."""
    from hornbook.config import Prepare
    from hornbook.data.preparing import prepare_corpus

    return prepare_corpus(Prepare(data, out, **fields))


def train(model: str = "", callbacks: Sequence[Callback] = (), **fields: Any) -> dict[str, Any]:
    """Train a rung (fields of `config.Train`); returns its summary. Callbacks are called with a `Moment` each time.

    With `like`, a run's folder, all that is not given is as it was there, the model too.
    """
    from hornbook.config import Train
    from hornbook.training.like import like
    from hornbook.training.pretrain import train

    given = fields | ({"model": model} if model else {})
    run = given.pop("like", None)
    return train(like(run, **given) if run else Train(**given), callbacks)


def finetune(model: str, data: str, callbacks: Sequence[Callback] = (), **fields: Any) -> dict[str, Any]:
    """Teach a model a task, or what a file holds (fields of `config.Finetune`); returns the run's summary."""
    from hornbook.config import Finetune
    from hornbook.training.finetune import finetune

    return finetune(Finetune(model, data, **fields), callbacks)


def evaluate(run: str, data: str | None = None, **fields: Any) -> Scores | Judged:
    """Score a run on a corpus, or on a task (fields of `config.Evaluate`; sentences: `evaluation.sentences`).

    Without `data`, on what it learnt from, else on python-docs.
    """
    from hornbook.checkpoint import load
    from hornbook.config import Evaluate
    from hornbook.errors import UserError
    from hornbook.evaluation.judging import judge
    from hornbook.evaluation.measure import measure, multiplied_in
    from hornbook.evaluation.wanted import settled

    settings = Evaluate(run, data, **fields)
    if settings.harness:
        raise UserError("evaluate scores a corpus or a task; for the harness there is evaluation.harness.harness")
    settings, task = settled(settings)
    if task is None and (settings.text or settings.protocol != "honest"):
        raise UserError("evaluate scores a corpus; for sentences there is evaluation.sentences.score_sentence")
    with multiplied_in(settings.precision, settings.device):
        if task is None:
            return measure(settings)
        model = load(run, settings.device, text=True)
        how = settings.context, settings.cut or "", settings.baselines
        return judge(model, task, settings.split or "test", settings.limit, *how)


def generate(run: str, prompt: str, **fields: Any) -> str:
    """What a run writes after `prompt` (fields of `config.Generate`), without the prompt; one sample a call."""
    from hornbook.config import Generate
    from hornbook.generation.stream import continuation
    from hornbook.generation.swift import opened

    settings = Generate(run, prompt, **fields)
    return continuation(opened(settings), prompt, settings)


def import_model(source: str, run: str, **fields: Any) -> Arrival:
    """Write any source that `load` takes as a folder of ours, and verify it (fields of `config.Import`)."""
    from hornbook.config import Import
    from hornbook.exchange import import_model

    return import_model(Import(source, run, **fields))


def export(run: str, target: str, **fields: Any) -> Arrival:
    """Write a model as a Hugging Face folder, GGUF or ARPA file, and verify it (fields of `config.Export`)."""
    from hornbook.config import Export
    from hornbook.exchange import export_model

    return export_model(Export(run, target, **fields))


def quantize(run: str, kind: str, **fields: Any) -> Compressed:
    """Write a run with its matrices in 8 or 4 bits, and say what that costs (fields of `config.Quantize`)."""
    from hornbook.compression import quantize_run
    from hornbook.config import Quantize

    return quantize_run(Quantize(run, kind, **fields))


def examine(run: str, **fields: Any) -> list[Finding]:
    """What `hornbook doctor` finds in a run (fields of `config.Doctor`): one finding a check."""
    from hornbook.config import Doctor
    from hornbook.doctor.certificate import examine

    return list(examine(Doctor(run, **fields)))


def inspect(model: str, text: str | None = None, **fields: Any) -> Anatomy | Walk | WordPair:
    """What a named size, run or folder is made of: `.parameters`, `.kinds`, `.parts`, `.formula`, `.names`; printable.

    Its weights are not read. Fields: `vocab` and `context` of `config.Inspect`. With a text, a run or whatever `load`
    takes is walked through, step by step: `.steps`, `.likeliest()`, `.recomputed()`; field: `bits`. With `compare_word`
    and `beside`, another text, the word's hidden states in both are compared: `.depths`. `diagram`, a path, and
    `pictures`, a folder, are drawn beside.
    """
    from hornbook.config import Inspect
    from hornbook.inspection.anatomy import dissect

    settings = Inspect(model, text, **fields)
    if settings.pictures is not None:
        from hornbook.pictures.album import draw

        list(draw(settings))
    if text is None:
        found = dissect(settings)
        if settings.diagram is not None:
            from hornbook.report.diagram import write_diagram

            write_diagram(found, settings.diagram)
        return found
    if settings.compare_word is not None:
        from hornbook.inspection.words import compared

        return compared(settings)
    from hornbook.inspection.walk import walk_through

    return walk_through(settings)


def compare(*runs: str, **fields: Any) -> Comparison:
    """Two runs or more side by side (fields of `config.Compare`): figures, differences, with a text what each makes of
    it; printable."""
    from hornbook.comparing import compare_runs
    from hornbook.config import Compare

    return compare_runs(Compare(runs, **fields))


def plan(model: str, tokens: str, **fields: Any) -> Forecast:
    """Memory, time, cost and loss of a run that has not begun (fields of `config.Plan`); `summary()` has it all."""
    from hornbook.config import Plan
    from hornbook.planning.plan import make

    return make(Plan(model, tokens, **fields))


def benchmark(**fields: Any) -> dict[str, Any]:
    """What this machine can do (fields of `config.Bench`): what `hornbook bench --json` prints."""
    from hornbook.bench import findings, gathered
    from hornbook.config import Bench

    return gathered(list(findings(Bench(**fields))))


def morph(data: str = "python-docs", **fields: Any) -> dict[str, Any]:
    """What each part between GPT-2 and Llama 3 is worth (fields of `config.Morph`): facts, and a row a stage."""
    from hornbook.config import Morph
    from hornbook.morphing import morph

    return morph(Morph(data, **fields))


def sweep(model: str, over: Sequence[str], **fields: Any) -> dict[str, Any]:
    """Search settings, as in `over=["lr=1e-4..1e-2"]` (fields of `config.Sweep`): facts, and a row a trial."""
    from hornbook.config import Sweep
    from hornbook.sweeping import sweep

    return sweep(Sweep(model, over=(over,) if isinstance(over, str) else tuple(over), **fields))


def plant(mistake: str, model: LanguageModel) -> AbstractContextManager[Any]:
    """`with hornbook.plant("no-mask", model):` has a mistake of the museum in the model, or in what is done with it.

    UserError for a model that lacks the part in which it is made.
    """
    from hornbook.mistakes import find

    return find(mistake).planted(model)


def climb(**fields: Any) -> list[Rung]:
    """Climb every rung on one text (fields of `config.Ladder`)."""
    from hornbook.config import Ladder
    from hornbook.ladder import climb

    return climb(Ladder(**fields))
