"""The pieces of a tokeniser as GGUF metadata hold them (`tokenizer.ggml.*`), checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from hornbook.errors import UserError
from hornbook.formats.gguf_file import shown
from hornbook.text.tokenizer_files import Specials

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Types of tokens."""
LONGEST = 1024
"""Characters in a token: there are as many ways to merge it."""
MOST_WORK = 1 << 28
"""Characters looked at to find all of these ways, each of which looks at the whole token: 260 times what Llama 2's
32,000 tokens take."""


class Vocabulary:
    """Tokens with their types, merges or scores, and special ids. UserError for what contradicts itself."""

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        self.metadata = metadata
        self.tokens: list[str] = self.several("tokens", str)
        self.types: list[int] = self.several("token_type", int, [NORMAL] * len(self.tokens))
        self.tokens = [token or f"[EMPTY_{id}]" for id, token in enumerate(self.tokens)]  # as llama.cpp names them
        self.check()
        self._usual: dict[str, int] = {}

    def check(self) -> None:
        if not self.tokens or len(self.types) != len(self.tokens):
            raise UserError(f"the GGUF file has {len(self.tokens)} tokens and {len(self.types)} types of tokens")
        self.ids = {token: id for id, token in enumerate(self.tokens)}
        if len(self.ids) != len(self.tokens):
            twice = next(token for id, token in enumerate(self.tokens) if self.ids[token] != id)
            raise UserError(f"the GGUF file has the token {shown(twice)} twice")
        if (longest := max(map(len, self.tokens))) > LONGEST:
            raise UserError(f"the GGUF file has a token of {longest:,} characters; {LONGEST:,} are possible")

    def several(self, key: str, kind: type, missing: list[Any] | None = None) -> list[Any]:
        """The list under a key, all of one kind."""
        values = self.metadata.get(f"tokenizer.ggml.{key}", missing)
        if not isinstance(values, list) or not all(type(value) is kind for value in values):
            raise UserError(f"tokenizer.ggml.{key} in the GGUF file is no list of {kind.__name__}")
        return values

    def flag(self, key: str, missing: bool) -> bool:
        value = self.metadata.get(f"tokenizer.ggml.{key}", missing)
        if not isinstance(value, bool):
            raise UserError(f"tokenizer.ggml.{key} in the GGUF file is {shown(value)}, neither true nor false")
        return value

    def usual(self, **ids: int) -> None:
        """Special ids where the file does not say."""
        self._usual = ids

    def special(self, field: str, *keys: str) -> str | None:
        """The token that the first of `keys` names; ids that are out of range are passed over, as by llama.cpp."""
        stated = [self.metadata.get(f"tokenizer.ggml.{key}_token_id") for key in keys]
        for id in (*stated, self._usual.get(field)):
            if isinstance(id, int) and 0 <= id < len(self.tokens):
                return self.tokens[id]
        return None

    @property
    def specials(self) -> Specials:
        return Specials(
            bos=self.special("bos", "bos", "cls"),
            eos=self.special("eos", "eos", "seperator"),  # the format's own spelling
            pad=self.special("pad", "padding"),
            unk=self.special("unk", "unknown"),
            mask=self.special("mask", "mask"),
        )

    def frame(self, bos: bool) -> tuple[list[str | None], list[str | None]]:
        """The tokens before and after a text; `bos` is what holds where the file does not say."""
        specials = self.specials
        before = [specials.bos] if self.flag("add_bos_token", bos) else []
        return before, [specials.eos] if self.flag("add_eos_token", False) else []

    def rename(self, spelling: Callable[[str], str]) -> None:
        self.tokens = [spelling(token) for token in self.tokens]
        self.check()

    def drop_padding(self) -> None:
        """Leave out unused tokens at the end, which fill a model's table up."""
        while len(self.tokens) > 1 and self.types[-1] == UNUSED:
            del self.ids[self.tokens.pop()], self.types[-1]

    def added(self) -> list[tuple[str, bool]]:
        """(token, whether it is special) of those that no merging makes: special ones, which no text holds, and those
        that are found in a text before anything else."""
        stated = {name for name in self.specials if name}
        return [
            (token, kind != USER_DEFINED or token in stated)
            for token, kind in zip(self.tokens, self.types, strict=True)
            if kind in (UNKNOWN, CONTROL, USER_DEFINED, UNUSED) or token in stated
        ]

    def model_ids(self) -> dict[str, int]:
        """Token -> id without the added ones at the end: whole words are looked up here, and must not find those."""
        added, end = {token for token, _ in self.added()}, len(self.tokens)
        while end and self.tokens[end - 1] in added:
            end -= 1
        return {token: self.ids[token] for token in self.tokens[:end]}

    def merges(self, ids: Mapping[str, int]) -> list[tuple[str, str]]:
        """Pairs of tokens, the first to be merged first."""
        pairs = []
        for merge in self.several("merges", str):
            cut = merge.find(" ", 1)
            left, right = merge[:cut], merge[cut + 1 :]
            if cut < 0 or not {left, right, left + right} <= ids.keys():
                raise UserError(f"the GGUF file has the merge {shown(merge)}, no pair of tokens that makes a token")
            pairs.append((left, right))
        return pairs

    def scored_merges(self) -> list[tuple[str, str]]:
        """Every way to make a token of two, best-scored token first: SentencePiece's order of merging."""
        scores = self.several("scores", float)
        if len(scores) != len(self.tokens) or not all(map(math.isfinite, scores)):
            raise UserError(f"the GGUF file has {len(self.tokens)} tokens and not as many scores that are numbers")
        apart = {token for token, special in self.added() if special}
        mergeable = {token: id for token, id in self.ids.items() if token not in apart and self.types[id] != BYTE}
        if sum(len(token) ** 2 for token in mergeable) > MOST_WORK:
            raise UserError(f"the GGUF file has {len(mergeable):,} tokens too long to be merged in all ways: damaged?")
        ranked = []
        for token, id in mergeable.items():
            for cut in range(1, len(token)):
                left, right = mergeable.get(token[:cut]), mergeable.get(token[cut:])
                if left is not None and right is not None:
                    ranked.append((-scores[id], id, left, right))
        return [(self.tokens[left], self.tokens[right]) for _, _, left, right in sorted(ranked)]
