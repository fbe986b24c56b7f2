"""Every settings class, frozen. One class a command: at once its flags, its Python call, the saved JSON and its docs.

Import them from here; the modules inside only divide them. Nothing here imports torch, so that every `--help` is fast.
Settings are derived once, after parsing.
"""

from __future__ import annotations

from hornbook.config.adapting import GROUPS, Adapter, Quantization
from hornbook.config.checks import above_zero, byte_count, check_pairs, counted, require, zero_or_more
from hornbook.config.evaluating import Evaluate
from hornbook.config.files import Export, Import, Quantize
from hornbook.config.finetuning import Finetune
from hornbook.config.judging import Compare, Doctor, Report
from hornbook.config.learning import MODEL_FIELDS, Learning, Train
from hornbook.config.looking import Inspect, Mistakes, Picture
from hornbook.config.models import ModelConfig, RopeScaling, TransformerConfig
from hornbook.config.planning import Bench, Plan
from hornbook.config.series import Ladder, Morph, Sweep
from hornbook.config.serving import Serve
from hornbook.config.speaking import LARGE, Chat, Generate, Sampling, Speaking
from hornbook.config.texts import Prepare, Tokenize

__all__ = [
    "GROUPS",
    "LARGE",
    "MODEL_FIELDS",
    "Adapter",
    "Bench",
    "Chat",
    "Compare",
    "Doctor",
    "Evaluate",
    "Export",
    "Finetune",
    "Generate",
    "Import",
    "Inspect",
    "Ladder",
    "Learning",
    "Mistakes",
    "ModelConfig",
    "Morph",
    "Picture",
    "Plan",
    "Prepare",
    "Quantization",
    "Quantize",
    "Report",
    "RopeScaling",
    "Sampling",
    "Serve",
    "Speaking",
    "Sweep",
    "Tokenize",
    "Train",
    "TransformerConfig",
    "above_zero",
    "byte_count",
    "check_pairs",
    "counted",
    "require",
    "zero_or_more",
]
