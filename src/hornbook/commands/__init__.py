"""What the commands print: each does its work through the package and shows the result. `cli.py` finds them here."""

from __future__ import annotations

from hornbook.commands.evaluating import evaluate
from hornbook.commands.files import export, import_model, quantize
from hornbook.commands.judging import compare, doctor, report
from hornbook.commands.learning import finetune, train
from hornbook.commands.looking import inspect, mistakes
from hornbook.commands.planning import bench, plan
from hornbook.commands.series import ladder, morph, sweep
from hornbook.commands.speaking import generate, serve
from hornbook.commands.texts import prepare, tokenize

__all__ = [
    "bench",
    "compare",
    "doctor",
    "evaluate",
    "export",
    "finetune",
    "generate",
    "import_model",
    "inspect",
    "ladder",
    "mistakes",
    "morph",
    "plan",
    "prepare",
    "quantize",
    "report",
    "serve",
    "sweep",
    "tokenize",
    "train",
]
