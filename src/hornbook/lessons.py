"""Examples -> ids: how a task is put to a model, in training and when it is measured, by the same rules.

What is too long is cut by the task's rule, and what becomes useless by that is left out; both are counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from hornbook.data.batches import NO_TARGET
from hornbook.data.packing import Piece
from hornbook.errors import UserError, listing
from hornbook.generation.sampling import ends
from hornbook.generation.stream import prompt_ids
from hornbook.layers import class_head
from hornbook.layers.model import LanguageModel
from hornbook.tasks import Asked, Choice, Dialogue, Labelled, LastWord, Message, Preference, Task
from hornbook.text.chat import chat_ids, with_template
from hornbook.text.tokenizers import Tokenizer


@dataclass
class Counts:
    """What became of the examples so far."""

    read: int = 0
    cut: int = 0
    """Of which a part was left out, by the rule."""
    shortened: int = 0
    """Whose answers are longer than the task allows: they do not come to their end."""
    skipped: int = 0
    """Of which nothing would have been left to learn."""
    lost: int = 0
    """Of those, whose answer stood in what was cut away."""

    def told(self, rule: str, most: int) -> str:
        """In a line; empty where there is nothing to tell."""
        said = [f"{self.cut:,} of {self.read:,} texts are longer than {most:,} tokens: {rule} of them is kept"]
        said = said if self.cut else []
        said += [f"{self.shortened:,} answers are cut before their end"] if self.shortened else []
        said += [f"{self.lost:,} are left out, as their answer is in what is cut away"] if self.lost else []
        rest = self.skipped - self.lost
        said += [f"{rest:,} examples do not fit at all and are left out"] if rest else []
        return "; ".join(said)


@dataclass
class Lessons:
    """Puts examples of one task to one model."""

    model: LanguageModel
    task: Task
    context: int
    """Tokens that an example may have."""
    cut: str = ""
    """head, tail or head+tail; the task's own rule where nothing is said. Of endings and last words always the tail."""
    counts: Counts = field(default_factory=Counts)

    def __post_init__(self) -> None:
        self.cut = "tail" if self.task.kind in (Choice, LastWord) else self.cut or self.task.cut
        self.tokenizer, self.config = self.model.tokenizer, self.model.config
        if self.task.kind in (Dialogue, Preference):
            self.tokenizer = with_template(self.tokenizer)
        self.converses = "chat_template" in self.tokenizer.config

    def pieces(self, examples: Iterable[Any]) -> list[Piece]:
        """What is to be learnt from examples. UserError where nothing is."""
        return [piece for _, piece in self.fitting(examples)]

    def fitting(self, examples: Iterable[Any]) -> list[tuple[Any, Piece]]:
        """The examples that fit, each with what is to be learnt from it. UserError where none does."""
        found = []
        for example in examples:
            self.counts.read += 1
            piece = self.piece(example)
            if piece is None:
                self.counts.skipped += 1
            else:
                found.append((example, piece))
        if not found:
            raise UserError(
                f"none of the {self.counts.read:,} examples of {self.task.name} fits into rows of {self.context:,} "
                "tokens with anything left to learn: take a longer --context"
            )
        return found

    def piece(self, example: Any) -> Piece | None:
        """One example; None where it does not fit."""
        if isinstance(example, Labelled):
            return self.labelled(example)
        if isinstance(example, Asked):
            fields = self.cut_fields(example)
            if self.task.quoted and self.loses(example, fields):
                self.counts.lost += 1
                return None
            prompt, source = self.asked(fields)
            return self.learnt(prompt, self.answer(example.answer, fields, prompt), source)
        if isinstance(example, Choice):
            return self.ending(example.prompt, example.endings[example.answer])
        if isinstance(example, LastWord):
            return self.ending(example.prompt, example.word, least=1)
        if isinstance(example, Dialogue):
            return self.dialogue(example.messages)
        assert isinstance(example, Preference)
        return self.preference(example)

    def text_ids(self, text: str) -> list[int]:
        """A text to be classified, cut to the context; an encoder's between what its tokeniser puts around it."""
        ids = self.tokenizer.encode(text)
        before, after = self.frame
        room = self.context - len(before) - len(after)
        if len(ids) > room:
            self.counts.cut += 1
        return [*before, *kept(ids, room, self.cut), *after]

    @cached_property
    def frame(self) -> tuple[list[int], list[int]]:
        return frame(self.model)

    def labelled(self, example: Labelled) -> Piece | None:
        """The class stands at the position that it is read from."""
        ids = self.text_ids(example.text)
        if not ids:
            return None
        if example.label not in self.config.labels:
            raise UserError(
                f"the label {example.label!r} is none that this model was taught: {listing(self.config.labels, 20)}"
            )
        targets = np.full(len(ids), NO_TARGET, np.int32)
        row = torch.tensor([ids])
        place = int(class_head.judged_places(row, torch.ones_like(row), self.model.causal)[0])
        targets[place] = self.config.labels.index(example.label)
        return Piece(np.array(ids, np.int32), targets)

    def opened(self, ids: list[int]) -> list[int]:
        """With what the model's documents open with."""
        return [*prompt_ids(self.model, ""), *ids]

    def prompt(self, example: Asked) -> tuple[list[int], int]:
        """The ids after which the answer comes, and how many of them are an encoder's source."""
        return self.asked(self.cut_fields(example))

    def cut_fields(self, example: Asked) -> Any:
        """The fields, of which the long one is cut until the prompt leaves the task's room for an answer."""
        fields: Any = example.fields
        room = self.context - min(self.task.tokens, self.context // 2)
        ids, _ = self.asked(fields)
        long = example.fields.get(self.task.long, "")
        if len(ids) > room and long:
            self.counts.cut += 1
        words = self.tokenizer.encode(long)
        while len(ids) > room and words:
            words = kept_whole(self.tokenizer, words, max(0, len(words) - (len(ids) - room)), self.cut)
            fields = {**example.fields, self.task.long: self.tokenizer.decode(words)}
            ids, _ = self.asked(fields)
        return fields

    def loses(self, example: Asked, fields: Any) -> bool:
        """Whether the answer stood in the long field, and stands no more in what is left of it."""
        whole, left = example.fields[self.task.long], fields[self.task.long]
        if left == whole or example.answer not in whole:
            return False
        return self.tokenizer.decode(self.tokenizer.encode(example.answer)).strip() not in left

    def asked(self, fields: Any) -> tuple[list[int], int]:
        if self.model.reads_source:
            ids = self.tokenizer.encode(
                fields[self.task.long] if len(fields) == 1 else self.task.plain.format(**fields)
            )
            return [*ids, self.start], len(ids)
        if self.converses:
            return chat_ids(self.tokenizer, self.said(fields)), 0
        return self.opened(self.tokenizer.encode(self.task.plain.format(**fields))), 0

    def said(self, fields: Any) -> list[dict[str, str]]:
        """What a model that converses is asked."""
        return [{"role": "user", "content": self.task.chat.format(**fields)}]

    @property
    def start(self) -> int:
        """What an encoder-decoder begins to write after. UserError where there is none."""
        if self.config.bos is None:
            raise UserError("this model has no token that opens a text, behind which its answers could begin")
        return self.config.bos

    @cached_property
    def end(self) -> int:
        """The token that ends an answer, in the model's own template that which ends the assistant's turn.

        UserError where there is none.
        """
        if not self.converses:
            if self.config.eos is None:
                raise UserError("this model has no token that ends a text: answers would never end")
            return self.config.eos
        said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        whole = chat_ids(self.tokenizer, said, answer=False)
        found = [i for i in whole if i in ends(self.config)]
        if not found or whole[-len(self.tokenizer.encode("b")) :] == self.tokenizer.encode("b"):
            raise UserError("the chat template does not end the assistant's turn with a token that ends texts")
        return found[-1]

    def answer(self, text: str, fields: Any, prompt: list[int]) -> list[int]:
        """An answer to the prompt of these fields with its end, cut to what the task allows."""
        if self.model.reads_source:
            words = [*self.tokenizer.encode(text), self.end]
        elif self.converses:
            words = self.turn(self.said(fields), prompt, text)
        else:
            words = [*self.tokenizer.encode(f" {text}"), self.end]
        most = min(self.task.tokens, self.context // 2)
        if len(words) > most:
            self.counts.shortened += 1
        return words[:most]

    def turn(self, said: list[dict[str, str]], prompt: list[int], text: str) -> list[int]:
        """The assistant's turn behind a conversation and its ids, up to the token that ends it, as the template spells
        it; the text as it is where the template then spells otherwise what was said before."""
        whole = chat_ids(self.tokenizer, [*said, {"role": "assistant", "content": text}], answer=False)
        new, closing = whole[len(prompt) :], ends(self.config)
        last = next((at for at, token in enumerate(new, start=1) if token in closing), None)
        if whole[: len(prompt)] != prompt or last is None:
            return [*self.tokenizer.encode(text), self.end]
        return new[:last]

    def ending(self, prompt: str, right: str, least: int = 0) -> Piece | None:
        """What a text ends with, `least` tokens or more, in the form in which it is measured: both encoded together,
        with nothing before them. Of what is too long the beginning goes."""
        (row,) = encode_choice(self.tokenizer, Choice(prompt, (right,), 0))
        ids, scored = fitted(row, self.context)
        self.counts.cut += len(ids) < len(row[0])
        before = len(ids) - max(scored, least)
        return self.learnt(ids[:before], ids[before:])

    def learnt(self, prompt: Sequence[int], answer: Sequence[int], source: int = 0) -> Piece | None:
        """A prompt, of which the first `source` tokens go to an encoder, and what is learnt after it; None where both
        do not fit."""
        ids = [*prompt, *answer]
        if len(ids) - 1 > self.context or not answer or not prompt:
            return None
        targets = np.array([NO_TARGET] * (len(prompt) - 1) + list(answer), np.int32)
        segments = None
        if source:
            segments = np.where(np.arange(len(ids) - 1) < source, -1, 1).astype(np.int32)
        return Piece(np.array(ids[:-1], np.int32), targets, segments)

    def dialogue(self, messages: Sequence[Message]) -> Piece | None:
        """What the assistant says is learnt, with the token that ends each turn. Of a conversation that is too long the
        oldest exchanges go."""
        said = [dict(message) for message in messages]
        first = int(said[0]["role"] == "system")
        while True:
            ids, mask = spelled(self.tokenizer, said, ends(self.config))
            if len(ids) - 1 <= self.context:
                break
            if len(said) - first <= 2:
                return None
            if len(said) == len(messages):
                self.counts.cut += 1
            del said[first : first + 2]
        targets = np.where(mask[1:], ids[1:], NO_TARGET).astype(np.int32)
        return Piece(np.array(ids[:-1], np.int32), targets) if mask[1:].any() else None

    def preference(self, example: Preference) -> Piece | None:
        """Both answers, as two segments; each with its own copy of the conversation."""
        parts = []
        for number, answer in enumerate((example.chosen, example.rejected), start=1):
            said = [dict(message) for message in example.messages]
            prompt = chat_ids(self.tokenizer, said)
            part = self.learnt(prompt, self.turn(said, prompt, answer.strip()))
            if part is None:
                return None
            parts.append(replace(part, segments=np.full(len(part), number, np.int32)))
        one, other = parts
        return Piece(*(np.concatenate([getattr(one, name), getattr(other, name)]) for name in ARRAYS))


def frame(model: LanguageModel) -> tuple[list[int], list[int]]:
    """What stands before and after a text to be classified: for a decoder what its documents open with, for an encoder
    what its tokeniser puts around a text, if anything."""
    before, after = prompt_ids(model, ""), list[int]()
    if not model.causal:
        ids, whole = model.tokenizer.encode("a"), model.tokenizer.encode_framed("a")
        at = next((n for n in range(len(whole) - len(ids) + 1) if whole[n : n + len(ids)] == ids), 0)
        at = at if ids else len(whole) // 2  # a tokeniser that does not know the letter: [CLS] before, [SEP] after
        before, after = whole[:at] or before, whole[at + len(ids) :]
    return before, after


ARRAYS = ("tokens", "targets", "segments")


Row = tuple[list[int], int]
"""The ids of a prompt with an ending, and how many of them at the end are scored."""


def encode_choice(tokenizer: Tokenizer, example: Choice) -> list[Row]:
    """A row for each ending, however long. Training learns the right one in this form too."""
    prompt, *whole = tokenizer.encode_batch([example.prompt, *(f"{example.prompt} {e}" for e in example.endings)])
    return [(ids, min(len(ids) - len(prompt), len(ids) - 1)) for ids in whole]


def fitted(row: Row, context: int) -> Row:
    """The end of a row, at most one token longer than the context."""
    ids, scored = row
    return ids[-context - 1 :], min(scored, context)


def kept(ids: list[int], most: int, rule: str) -> list[int]:
    """At most so many of the ids: the first, the last, or half of each with the first one more (Sun et al. 2019)."""
    if len(ids) <= most:
        return ids
    first, last = shares(most, rule)
    return ids[:first] + ids[len(ids) - last :]


def shares(most: int, rule: str) -> tuple[int, int]:
    """How many of the first and of the last ids are kept."""
    last = {"tail": most, "head+tail": most // 2}.get(rule, 0)
    return most - last, last


def kept_whole(tokenizer: Tokenizer, ids: list[int], most: int, rule: str) -> list[int]:
    """`kept`, with a few ids less where a character would be cut in two: UTF-8 has four bytes of one at most."""
    if len(ids) <= most:
        return ids
    text, size = tokenizer.decode(ids), len(ids)
    first, last = shares(most, rule)
    heads = (n for n in range(first, max(-1, first - 4), -1) if text.startswith(tokenizer.decode(ids[:n])))
    tails = (n for n in range(last, max(-1, last - 4), -1) if text.endswith(tokenizer.decode(ids[size - n :])))
    return ids[: next(heads, first)] + ids[size - next(tails, last) :]


def spelled(tokenizer: Tokenizer, messages: Sequence[Message], close: set[int | None]) -> tuple[np.ndarray, np.ndarray]:
    """The ids of a conversation, and which of them the assistant says, its ends of turns included.

    UserError for a template that spells what was said otherwise once more is said.
    """
    ids = chat_ids(tokenizer, [dict(message) for message in messages], answer=False)
    mask = np.zeros(len(ids), bool)
    for place, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = chat_ids(tokenizer, [dict(m) for m in messages[:place]])
        after = chat_ids(tokenizer, [dict(m) for m in messages[: place + 1]], answer=False)
        if ids[: len(before)] != before or ids[: len(after)] != after:
            raise UserError(
                "the chat template spells earlier turns otherwise once more is said: it cannot be learnt. "
                "--template chatml (or plain, which adds no tokens) teaches another one in its place"
            )
        stop = next((at + 1 for at in range(len(before), len(after)) if ids[at] in close), len(after))
        mask[len(before) : stop] = True
    return np.array(ids), mask
