"""The encoder's own figure: pseudo-perplexity (Salazar et al. 2020), reported apart.

Each of a sample of tokens is hidden in its turn and predicted from both sides. As it sees the future, it is no
probability of the text and cannot be compared with the other rungs.
"""

from __future__ import annotations

import numpy as np
import torch

from hornbook.data.batches import NO_TARGET
from hornbook.data.shards import Shard
from hornbook.evaluation.score import cut_windows, exponential, gather
from hornbook.layers.model import LanguageModel


@torch.inference_mode()
def pseudo_perplexity(model: LanguageModel, shard: Shard, mask: int, sample: int = 1024, batch: int = 32) -> float:
    """exp(mean nats) over `sample` tokens, spread evenly over the split's texts, each hidden alone in its window."""
    device = next(model.parameters()).device
    windows = list(cut_windows(shard, model.config.context, model.config.context))
    ends = np.cumsum([w.scored for w in windows])
    opening = [end - w.scored for end, w in zip(ends, windows, strict=True) if w.start == shard.starts[w.document] - 1]
    own = np.setdiff1d(np.arange(ends[-1]), opening)  # but for the separators that documents begin with
    places = own[np.unique(np.linspace(0, len(own) - 1, min(sample, len(own))).astype(int))]
    model.eval()
    nats = 0.0
    for first in range(0, len(places), batch):
        some = places[first : first + batch]
        which = np.searchsorted(ends, some, side="right")
        rows = [windows[i] for i in which]
        tokens, _ = gather(shard, rows)
        row = torch.arange(len(rows))
        at = torch.from_numpy(some - np.array([ends[i] - windows[i].length for i in which]))
        real = (torch.arange(tokens.shape[1]) < torch.tensor([w.length for w in rows])[:, None]).long()
        targets = torch.full_like(tokens, NO_TARGET)
        targets[row, at] = tokens[row, at]
        tokens[row, at] = mask
        nats -= float(model.log_prob(tokens.to(device), targets.to(device), segments=real.to(device)).sum())
    return exponential(nats / len(places))
