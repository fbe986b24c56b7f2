"""Our own recipe for small budgets: Llama, and what made it learn more in a few minutes on a small machine.

Heads norm their queries and keys (Qwen3), and the MLP is two matrices around a squared ReLU (So et al. 2021, "Primer")
instead of three around a gate. Each part is kept for what it measured: the table is in docs/log.md.
"""

from __future__ import annotations

from functools import partial

from hornbook.layers.transformer import Transformer
from hornbook.models import llama, qwen3

Model = Transformer

size = partial(llama.size, family="hornbook", query_norm=True, activation="relu2", gated=False, tied=True)

SIZES = {
    "hornbook-tiny": size(256, 4, 4, 2, 1024, 256),
    "hornbook-small": size(256, 6, 4, 2, 1024, 256),
}

RECIPE = llama.RECIPE | {"lr": 0.008}
"""Trials: docs/log.md."""

HF = {"model_type": "hornbook_transformer", "architectures": ["HornbookTransformerForCausalLM"]}

CONFIG = {key: ours for key, ours in llama.CONFIG.items() if ours != "context"} | {"context_length": "context"}

WEIGHTS = {f"model.{ours}": ours for ours in qwen3.WEIGHTS.values()}
