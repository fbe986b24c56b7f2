"""Tokenisers out of GGUF metadata, and byte-level BPE into it.

The keys `tokenizer.ggml.*` hold the pieces (tokens, their types and scores, merges, the ids of special tokens) but not
the rules: those go by name. `model` is "gpt2" (byte-level BPE, cut into words first as `pre` says), "llama"
(SentencePiece's BPE by scores) or "bert" (WordPiece). What the names mean is llama.cpp's src/llama-vocab.cpp.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from hornbook.errors import UserError, unknown
from hornbook.formats.gguf_file import named, shown
from hornbook.formats.gguf_vocabulary import CONTROL, NORMAL, UNUSED, USER_DEFINED, Vocabulary
from hornbook.text.fast import GPT2, LLAMA3
from hornbook.text.tokenizers import Tokenizer

SPACE = "▁"
"""How SentencePiece spells a space."""


class Cut(NamedTuple):
    """How a text is cut into words before byte-level BPE."""

    words: Callable[[], pre_tokenizers.PreTokenizer]
    whole: bool = False
    """A word that is a token is taken as it is, whatever the merges say."""
    composed: bool = False
    """Characters are composed first (NFC). The models' own files say so; llama.cpp leaves it out."""
    opened: bool = False
    """A text is framed by bos where the file does not say."""


def split(*patterns: str) -> pre_tokenizers.PreTokenizer:
    """Cut by each pattern in turn, then spell bytes."""
    cuts = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
    return pre_tokenizers.Sequence([*cuts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def gpt2() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False)


def digits() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), gpt2()])


def llama3() -> pre_tokenizers.PreTokenizer:
    return split(LLAMA3)


def qwen2() -> pre_tokenizers.PreTokenizer:
    return split(LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}"))


def fallback() -> pre_tokenizers.PreTokenizer:
    """What llama.cpp does where a file names no rule."""
    return split(r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", r"[0-9][0-9][0-9]")


CUTS = {
    "gpt-2": Cut(gpt2),
    "phi-2": Cut(gpt2),
    "roberta-bpe": Cut(gpt2),
    "mpt": Cut(gpt2, composed=True),
    "olmo": Cut(gpt2, composed=True),
    "smollm": Cut(digits),
    "starcoder": Cut(digits),
    "refact": Cut(digits),
    "codeshell": Cut(digits),
    "command-r": Cut(digits, composed=True),
    "llama-bpe": Cut(llama3, whole=True, opened=True),
    "llama3": Cut(llama3, whole=True, opened=True),
    "llama-v3": Cut(llama3, whole=True, opened=True),
    "dbrx": Cut(llama3),
    "smaug-bpe": Cut(llama3),
    "qwen2": Cut(qwen2, composed=True),
    "deepseek-r1-qwen": Cut(qwen2, composed=True),
    "default": Cut(fallback),
}
"""`tokenizer.ggml.pre` -> rule. Where several names mean one rule, the first is written."""


def read_tokenizer(metadata: Mapping[str, Any]) -> Tokenizer:
    """The tokeniser that a GGUF file's metadata describe; UserError for one that is not built here or is damaged."""
    kind = metadata.get("tokenizer.ggml.model")
    if kind in (None, "none", "no_vocab"):
        raise UserError("the GGUF file brings no tokeniser (no tokenizer.ggml.model)")
    if not isinstance(kind, str) or kind not in READERS:
        raise unknown("tokenizer.ggml.model", named(kind), READERS)
    vocabulary = Vocabulary(metadata)
    try:
        core, before, after = READERS[kind](vocabulary)
        add_special(core, vocabulary)
        frame(core, before, after)
    except UserError:
        raise
    except Exception as error:  # the library raises plain Exception for whatever it cannot build
        raise UserError(f"the tokeniser in the GGUF file cannot be built: {shown(str(error))}") from None
    template = metadata.get("tokenizer.chat_template")
    config: dict[str, Any] = {"chat_template": template} if isinstance(template, str) else {}
    return Tokenizer(core, vocabulary.specials, config)


Framed = tuple[tokenizers.Tokenizer, list[str | None], list[str | None]]
"""A tokeniser, and the special tokens that stand before and after a text."""


def byte_level(vocabulary: Vocabulary) -> Framed:
    """GPT-2's kind (Radford et al. 2019, section 2.2)."""
    name = vocabulary.metadata.get("tokenizer.ggml.pre", "default")
    if not isinstance(name, str) or name not in CUTS:
        raise unknown("tokenizer.ggml.pre", named(name), CUTS)
    cut = CUTS[name]
    vocabulary.drop_padding()
    ids = vocabulary.model_ids()
    core = tokenizers.Tokenizer(models.BPE(vocab=ids, merges=vocabulary.merges(ids), ignore_merges=cut.whole))
    if cut.composed:
        core.normalizer = normalizers.NFC()
    core.pre_tokenizer = cut.words()
    core.decoder = decoders.ByteLevel()
    return core, *vocabulary.frame(bos=cut.opened)


def sentencepiece(vocabulary: Vocabulary) -> Framed:
    """SentencePiece's BPE (Kudo and Richardson 2018): the pair that makes the best-scored token is merged first; a
    character without a token becomes its bytes."""
    vocabulary.usual(bos=1, eos=2, unk=0)
    prefix = vocabulary.flag("add_space_prefix", True)
    core = tokenizers.Tokenizer(
        models.BPE(
            vocab=vocabulary.ids,
            merges=vocabulary.scored_merges(),
            unk_token=vocabulary.specials.unk,
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    spell = normalizers.Replace(" ", SPACE)
    core.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), spell]) if prefix else spell
    unspell = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    core.decoder = decoders.Sequence([*unspell, *([decoders.Strip(" ", 1, 0)] if prefix else [])])
    return core, *vocabulary.frame(bos=True)


def wordpiece(vocabulary: Vocabulary) -> Framed:
    """BERT's: lower-cased words, cut greedily into the longest pieces. The file marks pieces that begin a word, BERT
    those that do not."""
    vocabulary.rename(continued)
    vocabulary.usual(bos=101, eos=102, unk=100, pad=0, mask=103)
    specials = vocabulary.specials
    if specials.unk is None:
        raise UserError("the WordPiece tokeniser in the GGUF file has no token for unknown words")
    core = tokenizers.Tokenizer(models.WordPiece(vocab=vocabulary.ids, unk_token=specials.unk))
    core.normalizer = normalizers.BertNormalizer(lowercase=True)
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece()
    return core, [specials.bos], [specials.eos]


def continued(token: str) -> str:
    """GGUF's spelling of a WordPiece -> BERT's: what begins a word bare, what goes on with ##."""
    if token.startswith("[") and token.endswith("]"):
        return token
    return token[1:] if token.startswith(SPACE) and token != SPACE else "##" + token


READERS = {"gpt2": byte_level, "llama": sentencepiece, "bert": wordpiece}


def add_special(core: tokenizers.Tokenizer, vocabulary: Vocabulary) -> None:
    """Give the tokens that no text makes their names, and those that are always one token, such as runs of spaces."""
    core.add_tokens(
        [AddedToken(token, special=special, normalized=False) for token, special in vocabulary.added()],
    )
    wrong = [token for token, id in vocabulary.ids.items() if core.token_to_id(token) != id]
    if wrong:
        raise UserError(f"the tokeniser in the GGUF file cannot be built: {shown(wrong[0])} would change its id")


def frame(core: tokenizers.Tokenizer, before: list[str | None], after: list[str | None]) -> None:
    """Have `encode_framed` put special tokens around a text."""
    names = [*filter(None, before), "$A", *filter(None, after)]
    if len(names) > 1:
        pairs = [(name, core.token_to_id(name)) for name in dict.fromkeys(names) if name != "$A"]
        core.post_processor = processors.TemplateProcessing(single=names, special_tokens=pairs)


def write_tokenizer(tokenizer: Tokenizer) -> dict[str, Any]:
    """Metadata from which llama.cpp (and `read_tokenizer`) gives the same ids. Only for byte-level BPE whose rule for
    words llama.cpp has a name for; UserError for others."""
    definition = json.loads(tokenizer.core.to_str())
    model = definition["model"]
    name = name_of_cut(tokenizer, definition)
    added = tokenizer.core.get_added_tokens_decoder()
    tokens = [tokenizer.core.id_to_token(id) for id in range(tokenizer.vocab)]
    types = [
        UNUSED if token is None else NORMAL if id not in added else CONTROL if added[id].special else USER_DEFINED
        for id, token in enumerate(tokens)
    ]
    values: dict[str, Any] = {
        "model": "gpt2",
        "pre": name,
        "tokens": [f"[PAD{id}]" if token is None else token for id, token in enumerate(tokens)],
        "token_type": types,
        "merges": [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]],
    }
    ids = {key: getattr(tokenizer, field) for key, field in SPECIAL_IDS.items()}
    values |= {key: id for key, id in ids.items() if id is not None} | framing(tokenizer)
    result = {f"tokenizer.ggml.{key}": value for key, value in values.items()}
    template = tokenizer.config.get("chat_template")
    return result | ({"tokenizer.chat_template": template} if isinstance(template, str) else {})


SPECIAL_IDS = {
    "bos_token_id": "bos",
    "eos_token_id": "eos",
    "padding_token_id": "pad",
    "unknown_token_id": "unk",
    "mask_token_id": "mask",
}


def name_of_cut(tokenizer: Tokenizer, definition: dict[str, Any]) -> str:
    """The name under which llama.cpp knows this tokeniser's rule for words."""
    model, decoder = definition["model"], definition["decoder"] or {}
    if model["type"] != "BPE" or decoder.get("type") != "ByteLevel":
        raise UserError(
            f"GGUF is written with byte-level BPE tokenisers only, and this one is of kind '{tokenizer.kind}': "
            "use the Hugging Face folder"
        )
    if not model["merges"] and not definition["normalizer"]:
        return "gpt-2"  # every byte is its own token, however the text is cut
    for name, cut in CUTS.items():
        other = tokenizers.Tokenizer(models.BPE())
        other.pre_tokenizer = cut.words()
        theirs = plain(json.loads(other.to_str())["pre_tokenizer"])
        normal = {"type": "NFC"} if cut.composed else None
        if (theirs, normal, cut.whole) == (
            plain(definition["pre_tokenizer"]),
            definition["normalizer"],
            bool(model.get("ignore_merges")),
        ):
            return name
    raise UserError(
        f"llama.cpp has no name for the way in which this tokeniser cuts words (known here: {', '.join(CUTS)}): "
        "use the Hugging Face folder"
    )


def plain(cut: Any) -> Any:
    """A pre-tokeniser's definition without what changes no id."""
    if isinstance(cut, dict):
        return {key: plain(value) for key, value in cut.items() if key != "trim_offsets"}
    return [plain(part) for part in cut] if isinstance(cut, list) else cut


def framing(tokenizer: Tokenizer) -> dict[str, bool]:
    """Whether the tokeniser's own template puts bos before a text and eos after it."""
    framed, bare = tokenizer.encode_framed("a"), tokenizer.encode("a")
    for opened, closed in itertools.product((False, True), repeat=2):
        if framed == [tokenizer.bos] * opened + bare + [tokenizer.eos] * closed:
            return {"add_bos_token": opened, "add_eos_token": closed}
    return {"add_bos_token": False, "add_eos_token": False}
