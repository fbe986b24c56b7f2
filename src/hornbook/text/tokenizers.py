"""Text to ids and back: one class around a `tokenizers.Tokenizer`, whatever its kind and wherever it came from.

What a text says is text: a special token's name inside it is cut like any other characters, and only data code places
separators. A tokeniser is stored as `tokenizer.json` with a `tokenizer_config.json` that transformers reads.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers.processors import ByteLevel, TemplateProcessing
from tokenizers.processors import Sequence as Sequenced

from hornbook.atomic import write_text
from hornbook.errors import UserError
from hornbook.text.byte_alphabet import unspell
from hornbook.text.fast import FastEncoder
from hornbook.text.tokenizer_files import Specials, read_folder

LONG = 100_000  # characters from which the fast engine is worth its check


class Tokenizer:
    """A tokeniser with its special ids. Built by `train_tokenizer` and `load_tokenizer`."""

    def __init__(self, core: tokenizers.Tokenizer, specials: Specials, config: dict[str, Any] | None = None) -> None:
        self.core = core
        self.core.encode_special_tokens = True  # special-token strings in a text are ordinary text
        self.core.no_truncation()
        self.core.no_padding()
        self.specials = specials
        self.config = config or {}
        ids = core.get_vocab(with_added_tokens=True)
        self.vocab: int = max(ids.values()) + 1
        """Number of ids V, added tokens included; all ids are below it."""
        self.bos, self.eos, self.pad, self.unk, self.mask = (ids.get(name) if name else None for name in specials)

    def encode(self, text: str) -> list[int]:
        """The ids of a text, with no special token added. UserError for what is no UTF-8."""
        check_text(text)
        if len(text) >= LONG:
            return self.encode_batch([text])[0]
        return self.core.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text. Long input goes through the fast engine where that gives the same ids for a sample of
        it."""
        return fast.encode_batch(texts) if (fast := self._proven(texts)) else self._encode_slowly(texts)

    def encode_arrays(self, texts: Sequence[str]) -> Sequence[NDArray[np.integer] | list[int]]:
        """The same ids: by the fast engine in one thread, as arrays, which saves making Python's numbers; where that
        engine is not right, as lists."""
        return fast.encode_arrays(texts) if (fast := self._proven(texts)) else self._encode_slowly(texts)

    def _proven(self, texts: Sequence[str]) -> FastEncoder | None:
        """The fast engine, where the input is long and a sample of it has the same ids."""
        if sum(map(len, texts)) >= LONG and (fast := self._fast):
            chosen = texts[:: max(1, len(texts) // 16)]
            sample = [text[at : at + 1000] for text in chosen for at in (0, len(text) // 2)]
            if fast.encode_batch(sample) == self._encode_slowly(sample):
                return fast
            self._fast = None
        return None

    def encode_framed(self, text: str) -> list[int]:
        """The ids of a text between the special tokens that the tokeniser's own template puts around it, if it has
        one."""
        check_text(text)
        return self.core.encode(text, add_special_tokens=True).ids

    def framing(self, before: Sequence[int], after: Sequence[int]) -> Tokenizer:
        """One that puts these special tokens around a text where it is asked for a framed one, as transformers ask by
        default; the same one where it does already, or does not know them."""
        core = tokenizers.Tokenizer.from_str(self.core.to_str())
        names = {id: core.id_to_token(id) for id in (*before, *after)}
        if None in names.values() or self.encode_framed("a") == [*before, *self.encode("a"), *after]:
            return self
        template = TemplateProcessing(
            single=[*(names[id] for id in before), "$A", *(names[id] for id in after)],
            special_tokens=[(name, id) for id, name in names.items()],
        )
        same_text = isinstance(core.post_processor, ByteLevel)  # it only says where in a text each token stands
        core.post_processor = Sequenced([core.post_processor, template]) if same_text else template
        return Tokenizer(core, self.specials, self.config)

    def _encode_slowly(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self.core.encode_batch_fast(list(texts), add_special_tokens=False)]

    @cached_property
    def _fast(self) -> FastEncoder | None:
        return FastEncoder.build(self._definition)

    @property
    def engine(self) -> str:
        """What encodes long texts: `tiktoken`, `bytes` or, where no faster one is proven equal, `tokenizers`."""
        return self._fast.name if self._fast else "tokenizers"

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids; special tokens are skipped."""
        return self.core.decode(list(ids), skip_special_tokens=True)

    def pieces(self, text: str) -> list[str]:
        """How a text is cut, for people: one string an id. Bytes that are no whole character show as \\xNN."""
        return [self.piece(id) for id in self.encode(text)]

    def piece(self, id: int) -> str:
        """An id for people: its text, a special token's name, or \\xNN for bytes that are no whole character."""
        part = self.token_bytes(id)
        return part.decode("utf-8", errors="backslashreplace") if part else self.core.id_to_token(id) or ""

    def token_bytes(self, id: int) -> bytes | None:
        """The bytes that an id adds to the text: b"" for a special token, None where an id alone does not say.

        Where it is never None, joining the bytes of ids and decoding them as UTF-8 gives the text, so that it can be
        streamed.
        """
        if added := self._added.get(id):
            return b"" if added.special else added.content.encode()
        token = self.core.id_to_token(id)
        if token is None:
            return b""
        if self._decoder == "ByteLevel":
            return unspell(token)
        return token.encode() if self._decoder == "Fuse" else None

    @cached_property
    def byte_sizes(self) -> NDArray[np.int64] | None:
        """(V,): how many bytes each id adds to the text; None where an id alone does not say."""
        pieces = [self.token_bytes(id) for id in range(self.vocab)]
        return None if None in pieces else np.array([len(piece or b"") for piece in pieces], np.int64)

    def restores(self, text: str) -> bool:
        """Whether decoding gives back exactly the text that was encoded."""
        return self.decode(self.encode(text)) == text

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the tokenizer.json in canonical form: equal hashes mean equal ids."""
        canonical = json.dumps(self._definition, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    @cached_property
    def kind(self) -> str:
        """`bpe`, `word`, `char` or `bytes`; for other people's also `wordpiece` and `unigram`."""
        model = self._definition["model"]
        if model["type"] == "BPE":
            return "bpe" if model["merges"] else "bytes"
        if model["type"] == "WordLevel":
            words = [word for word in model["vocab"] if word not in self.specials]
            return "char" if all(len(word) == 1 for word in words) and self._decoder == "Fuse" else "word"
        return model["type"].lower()

    @cached_property
    def _definition(self) -> dict[str, Any]:
        return json.loads(self.core.to_str())

    @cached_property
    def _decoder(self) -> str | None:
        decoder = self._definition["decoder"]
        return decoder and decoder["type"]

    @cached_property
    def _added(self) -> dict[int, tokenizers.AddedToken]:
        return self.core.get_added_tokens_decoder()

    def save(self, folder: str | Path, context: int | None = None) -> None:
        """Writes tokenizer.json and tokenizer_config.json, from which transformers' AutoTokenizer gives the same ids,
        whatever model's config.json lies beside them. `context` becomes model_max_length."""
        folder = Path(folder)
        config = {key: value for key, value in self.config.items() if key not in OURS}
        # Without its class named, transformers builds the class of the model's family, which drops what it does not
        # expect.
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
        config["clean_up_tokenization_spaces"] = False
        config |= {f"{key}_token": name for key, name in self.specials._asdict().items() if name}
        if context or "model_max_length" in self.config:
            config["model_max_length"] = context or self.config["model_max_length"]
        text = json.dumps(config, indent=2, ensure_ascii=False, sort_keys=True)
        write_text(folder / "tokenizer_config.json", text + "\n")
        whole = self.core.to_str(pretty=True)
        write_text(folder / "tokenizer.json", whole)  # last, for where it is the other one is taken to be too


OURS = {"tokenizer_class", "auto_map", "tokenizer_file", "name_or_path", "backend", "clean_up_tokenization_spaces"}
OURS |= {
    "bos_token",
    "eos_token",
    "pad_token",
    "unk_token",
    "mask_token",
    "add_bos_token",
    "add_eos_token",
    "add_prefix_space",
}
OURS |= {"added_tokens_decoder", "model_max_length", "vocab_file", "merges_file", "special_tokens_map_file"}


def load_tokenizer(path: str | Path) -> Tokenizer:
    """The tokeniser in a folder (or the tokenizer.json itself): a Hugging Face folder, GPT-2's encoder.json and
    vocab.bpe (or vocab.json and merges.txt), or OPT's files. Raises UserError for anything else."""
    path = Path(path).expanduser()
    if not path.exists():
        raise UserError(f"there is no tokeniser at {path}: no such file or folder")
    try:
        return Tokenizer(*read_folder(path))
    except UserError:
        raise
    except Exception as error:  # whatever a damaged file brings the library to
        raise UserError(f"cannot read the tokeniser in {path}: {type(error).__name__}, {str(error)[:120]}") from None


def check_text(text: str) -> None:
    """UserError for a text with half characters, as Python makes them of bytes that are no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError("the text has bytes that are not UTF-8: give it in UTF-8") from None
