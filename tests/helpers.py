"""What several test files build on."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from hornbook import models
from hornbook.config import ModelConfig, TransformerConfig
from hornbook.layers.model import LanguageModel

VOCAB, EOS, PAD, MASK = 40, 0, 1, 2


def needs_data(*names: str) -> pytest.MarkDecorator:
    """For a test that reads these files or folders of HORNBOOK_DATA: without them it is skipped."""
    folder = os.environ.get("HORNBOOK_DATA")
    missing = [name for name in names if not (folder and (Path(folder) / name).exists())]
    return pytest.mark.skipif(bool(missing), reason=f"HORNBOOK_DATA names no folder with {', '.join(missing)}")


def tiny_config(family: str, **changes: object) -> ModelConfig:
    """The family's first size, made tiny."""
    base = next(iter(models.family(family).SIZES.values()))
    config = base.replace(vocab=VOCAB, context=48, bos=EOS, eos=EOS, pad=PAD)
    if isinstance(config, TransformerConfig):
        config = config.replace(dim=32, layers=2, heads=4, mlp=48, window=config.window and 7)
    elif hasattr(config, "dim"):
        config = config.replace(dim=32, layers=2)
    elif hasattr(config, "order"):
        config = config.replace(order=3)
    return config.replace(**changes)


def stream(length: int = 400, seed: int = 0) -> np.ndarray:
    """Token ids with separators among them, some pairs likelier than others."""
    random = np.random.default_rng(seed)
    table = random.dirichlet([0.1] * (VOCAB - 3), VOCAB)
    ids = [EOS]
    for _ in range(length - 2):
        ids.append(EOS if ids[-1] != EOS and random.random() < 0.05 else 3 + random.choice(VOCAB - 3, p=table[ids[-1]]))
    return np.array([*ids, EOS])


def tiny_model(family: str, seed: int = 0, **changes: object) -> LanguageModel:
    """A tiny model of the family in evaluation mode, with weights large enough to matter; a counted one is fitted."""
    torch.manual_seed(seed)
    model = models.build(tiny_config(family, **changes))
    if model.counted:
        model.fit(stream())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter * 3 if parameter.ndim > 1 else parameter + 0.2 * torch.randn_like(parameter))
    return model.eval()
