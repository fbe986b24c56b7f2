"""Is the model what its config says, and does each part do its work?"""

from __future__ import annotations

import torch
from torch import nn

from hornbook.doctor.finding import FAIL, PASS, Finding, NotApplicable
from hornbook.doctor.subject import Subject
from hornbook.errors import UserError
from hornbook.layers import class_head

AFTER = 4
"""Padding behind the text that a class is read from."""


def parameters(s: Subject) -> Finding:
    """As many numbers as a model of this config has: two parts that share one tensor have fewer."""
    wanted, found = s.blank().parameter_count(), s.model.parameter_count()
    if found == wanted:
        return Finding(PASS, "parameters: as many as the config asks for", float(found))
    return Finding(FAIL, f"parameters, where the config asks for {wanted:,}: parts share a tensor, or lack one", found)


def heads(s: Subject) -> Finding:
    """As many patterns of attention as heads."""
    wanted, found = s.heads, s.attention_sums()
    if wanted is None or not found:
        raise NotApplicable("no heads to count")
    count = {each.shape[1] for each in found}
    if count == {wanted}:
        return Finding(PASS, "every layer attends in as many ways as the config has heads", float(wanted))
    return Finding(FAIL, f"ways to attend in a layer; the config has {wanted} heads, which are not used", min(count))


@torch.no_grad()
def too_long(s: Subject) -> Finding:
    """A row that is longer than the table of positions must be refused."""
    if not s.place_table:
        return Finding(PASS, "positions do not come from a table that could end")
    try:
        s.model.hidden(s.rows(1, s.config.context + 1))
    except UserError:
        return Finding(PASS, "one token more than there are positions for is refused", float(s.config.context))
    told = "tokens are read where there are positions for one less: those behind the table's end get a wrong one"
    return Finding(FAIL, told, float(s.config.context + 1))


def training_mode(s: Subject) -> Finding:
    """Dropout must be on while training, and off after: two passes then differ, and now agree."""
    if not any(isinstance(module, nn.Dropout) and module.p > 0 for module in s.model.modules()):
        return Finding(PASS, "there is no dropout to be switched on")
    b, modes = s.examples(2, s.width - 1), [(module, module.training) for module in s.model.modules()]
    loss = s.objective(s.model)
    try:
        with torch.random.fork_rng(devices=[]):
            loss.train()
            first, second = (float(loss(*b.arguments)[0]) for _ in range(2))
    finally:
        for module, mode in modes:
            module.training = mode
    if first == second:
        return Finding(FAIL, "two passes in training are the same: the model stays in evaluation mode", 0.0)
    return Finding(PASS, "dropout is on while training: by so many nats do two passes differ", abs(first - second))


def class_place(s: Subject) -> Finding:
    """The position that a class is read from must have seen a text's last token, and with it all of the text."""
    x, last = s.rows(1, s.width).repeat(2, 1), s.width - min(AFTER, s.width // 2) - 1
    segments = torch.ones_like(x)
    segments[:, last + 1 :] = 0
    x[1, last] = (x[1, last] + 1) % s.config.vocab
    place = int(class_head.judged_places(x, segments, s.model.causal)[0])
    before, after = s.model.hidden(x, segments=segments)[:, place]
    if torch.equal(before, after):
        return Finding(FAIL, f"is where a class is read from, of a text of {last + 1} tokens: it is too early", place)
    return Finding(PASS, "where a class is read from, all of a text has been seen", float(place))
