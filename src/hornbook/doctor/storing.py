"""Is a model the same after it was stored, and in the hands of others?"""

from __future__ import annotations

import torch

from hornbook.doctor.finding import FAIL, ROUNDING, Finding, decide, gap
from hornbook.doctor.subject import Subject


def save_and_load(s: Subject) -> Finding:
    """Written as a model folder and read again: every bit of every tensor, the config, the tokeniser."""
    again, wrong = s.read(s.folder), []
    before, after = s.model.state_dict(), again.state_dict()
    if before.keys() != after.keys():
        return Finding(FAIL, f"other tensors come back: {sorted(before.keys() ^ after.keys())[:3]}")
    wrong += [name for name, tensor in before.items() if not torch.equal(tensor, after[name])]
    if wrong:
        return Finding(FAIL, f"{len(wrong)} tensors come back changed, such as {wrong[0]}", float(len(wrong)))
    if again.config.resolved() != s.config.resolved():
        return Finding(FAIL, "the config comes back changed")
    if s.stores_tokenizer and s.tokenizer is not None:
        back = getattr(again, "tokenizer", None)
        if back is None or back.hash != s.tokenizer.hash:
            return Finding(FAIL, "the tokeniser comes back changed, or not at all")
    x = s.rows(1, s.width)
    return decide(
        gap(again(x), s.model(x)),
        0.0,
        "stored and loaded again it is the same, bit for bit",
        "stored and loaded again it has the same tensors and gives other logits: something of it is not stored",
    )


def hugging_face(s: Subject) -> Finding:
    """The same weights in both classes, ours and Hugging Face's: positions, rotations, masks, norms all show."""
    x = s.rows(1, min(128, s.config.context))
    theirs, name = s.counterpart(x)
    return decide(
        gap(s.model(x), theirs),
        ROUNDING,
        f"the logits are those of {name}",
        f"the logits are not those of {name}: positions, rotations, scaling or masks differ",
    )
