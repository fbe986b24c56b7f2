"""Does the tokeniser give the text back, and does it belong to the model?"""

from __future__ import annotations

from hornbook.doctor.finding import FAIL, PASS, WARN, Finding, NotApplicable
from hornbook.doctor.sample_text import AWKWARD, TEXT
from hornbook.doctor.subject import Subject
from hornbook.text.tokenizers import Tokenizer


def tokenizer_of(s: Subject) -> Tokenizer:
    if s.tokenizer is None:
        raise NotApplicable("there is no tokeniser that can be read")
    return s.tokenizer


def round_trip(s: Subject) -> Finding:
    """Text -> ids -> text, for white space, emoji, accents, other alphabets."""
    tokenizer, texts = tokenizer_of(s), (TEXT, *AWKWARD)
    lost = [text for text in texts if not tokenizer.restores(text)]
    if not lost:
        return Finding(PASS, f"{len(texts)} awkward texts come back as they were", 0.0)
    exact = s.ours and tokenizer.kind in ("bpe", "bytes")
    meaning = (
        f"{len(lost)} of {len(texts)} texts do not come back, such as {lost[0][:24]!r}: no bits per byte for those"
    )
    return Finding(FAIL if exact else WARN, meaning, float(len(lost)))


def special_text(s: Subject) -> Finding:
    """A special token's name inside a text must be cut like any other characters; unknown words may be unknown."""
    tokenizer = tokenizer_of(s)
    added = tokenizer.core.get_added_tokens_decoder()
    special = {id: token.content for id, token in added.items() if token.special and id != tokenizer.unk}
    taken = [name for id, name in special.items() if id in tokenizer.encode(f"a{name}b {name} c")]
    if not taken:
        return Finding(PASS, f"the names of {len(special)} special tokens are ordinary text in a text", 0.0)
    meaning = f"a text that contains {taken[0]!r} gets the special token: users can forge the ends of texts and turns"
    return Finding(FAIL if s.ours else WARN, meaning, float(len(taken)))


def special_tokens(s: Subject) -> Finding:
    """Which ids open, close and fill up texts, and that the model and its tokeniser agree on it."""
    c, worse = s.config, FAIL if s.ours else WARN
    ids = {name: getattr(c, name) for name in ("bos", "eos", "pad") if getattr(c, name) is not None}
    for name, id in ids.items():
        if not 0 <= id < c.vocab:
            return Finding(FAIL, f"{name} is {id}, outside of the {c.vocab:,} ids", float(id))
    if s.model.causal and c.eos is None:
        return Finding(worse, "there is no token that ends a text: generation never stops by itself")
    if c.pad is not None and c.pad == c.eos:
        told = f"padding is the end of text ({c.eos}): where padding bears no loss by its id, stopping is never learnt"
        return Finding(worse, told, float(c.pad))
    theirs = {} if s.tokenizer is None else {name: getattr(s.tokenizer, name) for name in ("eos", "pad")}
    for name, id in theirs.items():
        if None not in (id, ids.get(name)) and id != ids[name]:
            told = f"{name} is {ids[name]} to the model and {id} to the tokeniser"
            return Finding(worse, told, float(ids[name]))
    return Finding(PASS, ", ".join(f"{name} {id}" for name, id in ids.items()) or "none, and none needed")


def vocabulary(s: Subject) -> Finding:
    """Every id has a row in the model; spare rows are stated, half of them spare is odd."""
    tokenizer, rows = tokenizer_of(s), s.config.vocab
    if tokenizer.vocab > rows:
        told = (
            f"the tokeniser gives out {tokenizer.vocab:,} ids and the model has {rows:,}: they do not belong together"
        )
        return Finding(FAIL, told, float(tokenizer.vocab))
    spare = rows - tokenizer.vocab
    told = f"ids, and {rows:,} rows in the model" + (f", {spare:,} of them unused" if spare else "")
    if tokenizer.vocab < rows / 2:
        return Finding(WARN, f"{told}: is this the right tokeniser?", float(tokenizer.vocab))
    return Finding(PASS, told, float(tokenizer.vocab))
