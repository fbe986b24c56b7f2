"""Tokeniser files as others write them, read into the form that we keep."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors

from hornbook.errors import UserError
from hornbook.small_files import read_bytes, read_object, read_text


class Specials(NamedTuple):
    """The names of the special tokens; None for one that a tokeniser does not have."""

    bos: str | None = None
    eos: str | None = None
    pad: str | None = None
    unk: str | None = None
    mask: str | None = None


# Where no tokenizer_config.json says which token is which, these names do, first match first.
USUAL = Specials(
    bos="<s> <|begin_of_text|> <bos> [CLS] <|endoftext|> </s>",
    eos="<|endoftext|> </s> <|end_of_text|> <eos> [SEP]",
    pad="<|pad|> <pad> [PAD] <|finetune_right_pad_id|>",
    unk="<|unk|> <unk> [UNK]",
    mask="<|mask|> <mask> [MASK]",
)
VOCABULARIES = ("encoder.json", "vocab.json", "gpt2-vocab.json")
MERGES = ("vocab.bpe", "merges.txt", "gpt2-merges.txt")


def read_folder(path: Path) -> tuple[tokenizers.Tokenizer, Specials, dict[str, Any]]:
    """The tokeniser, its specials and its other settings. `path` is a folder or a tokenizer.json."""
    folder = path if path.is_dir() else path.parent
    definition = path / "tokenizer.json" if path.is_dir() else path
    if definition.is_file():
        return _hugging_face(definition, folder)
    vocabulary = next((folder / name for name in VOCABULARIES if (folder / name).is_file()), None)
    merges = next((folder / name for name in MERGES if (folder / name).is_file()), None)
    if not vocabulary or not merges:
        raise UserError(
            f"there is no tokeniser in {folder}: it needs tokenizer.json, or encoder.json and vocab.bpe, "
            "or vocab.json and merges.txt"
        )
    return _byte_level(read_object(vocabulary), _merges(merges), folder / "dict.txt")


def _hugging_face(file: Path, folder: Path) -> tuple[tokenizers.Tokenizer, Specials, dict[str, Any]]:
    try:
        core = tokenizers.Tokenizer.from_buffer(read_bytes(file))
    except UserError:
        raise
    except Exception as error:  # the library raises plain Exception for whatever it cannot read
        raise UserError(f"{file} is not a tokenizer.json: {str(error).splitlines()[0]}") from None
    config: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            config |= read_object(folder / name)
    template = folder / "chat_template.jinja"
    if template.is_file():
        config["chat_template"] = read_text(template)
    if (usual := usual_template(config.pop("chat_template", None))) is not None:
        config["chat_template"] = usual
    names = core.get_vocab(with_added_tokens=True)
    if config:
        stated = [config.get(f"{key}_token") for key in Specials._fields]
        chosen = [token.get("content") if isinstance(token, dict) else token for token in stated]
        return core, Specials(*(token if token in names else None for token in chosen)), config
    added = {token.content for token in core.get_added_tokens_decoder().values()}
    return core, _usual(added), config


def usual_template(stated: object) -> str | None:
    """A chat template, or of several the one called "default", as transformers has it; None where there is none."""
    if isinstance(stated, list):
        named = {each.get("name"): each.get("template") for each in stated if isinstance(each, dict)}
        stated = named.get("default")
    return stated if isinstance(stated, str) else None


def _usual(names: set[str]) -> Specials:
    return Specials(*(next((name for name in (usual or "").split() if name in names), None) for usual in USUAL))


def _byte_level(
    vocabulary: dict[str, int], merges: list[tuple[str, str]], dictionary: Path
) -> tuple[tokenizers.Tokenizer, Specials, dict[str, Any]]:
    """GPT-2's tokeniser from its two files; with fairseq's dict.txt, OPT's, which has GPT-2's merges and other ids."""
    opt = dictionary.is_file() or "<s>" in vocabulary
    if opt and "<s>" not in vocabulary:
        vocabulary = _renumbered(vocabulary, dictionary)
    core = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    if not opt:
        core.add_special_tokens([AddedToken("<|endoftext|>", normalized=False)])
        core.post_processor = processors.ByteLevel(trim_offsets=False)
        return core, Specials(bos="<|endoftext|>", eos="<|endoftext|>"), {}
    core.add_special_tokens([AddedToken(name, normalized=False) for name in ("<s>", "<pad>", "</s>", "<unk>")])
    # OPT opens every sequence with </s>, the token that also ends it.
    core.post_processor = processors.TemplateProcessing(single="</s> $A", special_tokens=[("</s>", vocabulary["</s>"])])
    return core, Specials(bos="</s>", eos="</s>", pad="<pad>", unk="<unk>"), {}


def _renumbered(vocabulary: dict[str, int], dictionary: Path) -> dict[str, int]:
    """fairseq's ids: four special tokens, then the lines of dict.txt, each of which names a token by GPT-2's id."""
    token_of = {str(id): token for token, id in vocabulary.items()}
    result = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    for line in read_text(dictionary).splitlines():
        name = line.split()[0]
        result[token_of.get(name, name)] = len(result)
    return result


def _merges(file: Path) -> list[tuple[str, str]]:
    lines = read_text(file).split("\n")
    pairs = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    if wrong := next((pair for pair in pairs if len(pair) != 2), None):
        raise UserError(f"{file} is not a list of merges: '{' '.join(wrong)}' is not a pair")
    return [(left, right) for left, right in pairs]
