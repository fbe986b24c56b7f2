"""Tokenisers out of GGUF metadata give the published ids, and go back into it."""

from __future__ import annotations

import heapq
import json
import os
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import AddedToken, Regex, decoders, normalizers, pre_tokenizers, processors
from tokenizers import models as cores

from helpers import needs_data
from hornbook.errors import UserError
from hornbook.formats.gguf_file import GGUFFile
from hornbook.formats.gguf_tokenizer import CUTS, read_tokenizer, write_tokenizer
from hornbook.formats.gguf_vocabulary import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED
from hornbook.text.byte_alphabet import CHAR_OF
from hornbook.text.fast import LLAMA3
from hornbook.text.tokenizer_files import Specials
from hornbook.text.tokenizer_training import train_tokenizer
from hornbook.text.tokenizers import Tokenizer, load_tokenizer

DATA = Path(os.environ.get("HORNBOOK_DATA", "."))
VECTORS = DATA / "tokenizer-vectors"

TEXT = "The hornbook's 26 letters, 1450, 333: café,\n\n\tnaïve   façades & 日本語 — 👩‍🚀! we'LL, I'm <s></s> <0x41>\r\n"


def vectors(name: str) -> tuple[list[str], list[list[int]]]:
    """Texts, and their ids as Hugging Face gives them, without special tokens."""
    texts = Path(f"{VECTORS / name}.inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")
    lines = Path(f"{VECTORS / name}.out").read_text().split("\n")
    return texts, [[int(id) for id in line.split()] for line in lines[: len(texts)]]


# --- published vocabularies


@needs_data("tokenizer-vectors")
@pytest.mark.parametrize("name", ["gpt-2", "mpt", "llama-spm", "bert-bge"])
def test_a_published_vocabulary_gives_the_published_ids(name: str) -> None:
    file = f"ggml-vocab-{name}.gguf"
    tokenizer = read_tokenizer(GGUFFile(VECTORS / file).metadata)
    texts, expected = vectors(file)
    assert len(texts) > 40
    assert [tokenizer.encode(text) for text in texts] == expected
    if name != "bert-bge":
        for text in texts:
            assert tokenizer.decode(tokenizer.encode(text)) == text


@needs_data("tokenizer-vectors")
@pytest.mark.parametrize("name", ["gpt-2", "mpt", "llama-spm", "bert-bge"])
def test_the_names_of_special_tokens_in_a_text_are_ordinary_text(name: str) -> None:
    tokenizer = read_tokenizer(GGUFFile(VECTORS / f"ggml-vocab-{name}.gguf").metadata)
    special = {id for id, token in tokenizer.core.get_added_tokens_decoder().items() if token.special}
    assert special
    names = [tokenizer.core.id_to_token(id) for id in special] + ["<0x41>", "<s>", "</s>", "[SEP]"]
    for text in ("", " ", "x"):
        for token in names:
            assert not set(tokenizer.encode(text + token + text)) & special - {tokenizer.unk}
            if name != "bert-bge":
                assert tokenizer.decode(tokenizer.encode(text + token + text)) == text + token + text


@needs_data("tokenizer-vectors", "gpt2-bpe")
def test_gpt2_from_gguf_is_gpt2_from_openais_files() -> None:
    tokenizer, openais = read_tokenizer(GGUFFile(VECTORS / "ggml-vocab-gpt-2.gguf").metadata), load_tokenizer(
        DATA / "gpt2-bpe"
    )  # fmt: skip
    assert tokenizer.core.get_vocab() == openais.core.get_vocab()
    assert (tokenizer.bos, tokenizer.eos, tokenizer.vocab) == (openais.bos, openais.eos, openais.vocab)
    assert tokenizer.engine == openais.engine == "tiktoken"
    long = TEXT * 2000
    assert tokenizer.encode(long) == openais.encode(long)


@needs_data("smollm2-135m")
def test_smollm2s_tokeniser_frames_nothing_and_writes_digits_apart() -> None:
    tokenizer = read_tokenizer(GGUFFile(DATA / "smollm2-135m" / "SmolLM2-135M-Instruct.Q4_1.gguf").metadata)
    assert tokenizer.pieces("in 1984") == ["in", " ", "1", "9", "8", "4"]
    assert tokenizer.encode_framed("The capital") == tokenizer.encode("The capital")
    assert (tokenizer.piece(1), tokenizer.decode([1, 504, 2])) == ("<|im_start|>", "The")
    assert 1 not in tokenizer.encode("<|im_start|>user")
    again = read_tokenizer(write_tokenizer(tokenizer))
    assert (again.hash, again.specials, again.config) == (tokenizer.hash, tokenizer.specials, tokenizer.config)


@needs_data("tokenizer-vectors")
def test_llama_2s_vocabulary_opens_a_text_and_keeps_its_special_ids() -> None:
    tokenizer = read_tokenizer(GGUFFile(VECTORS / "ggml-vocab-llama-spm.gguf").metadata)
    assert (tokenizer.bos, tokenizer.eos, tokenizer.unk, tokenizer.vocab) == (1, 2, 0, 32000)
    assert tokenizer.encode_framed("Hello") == [1, *tokenizer.encode("Hello")]
    bert = read_tokenizer(GGUFFile(VECTORS / "ggml-vocab-bert-bge.gguf").metadata)
    assert (bert.bos, bert.eos, bert.pad, bert.unk, bert.mask) == (101, 102, 0, 100, 103)
    assert bert.encode_framed("hello") == [101, *bert.encode("hello"), 102]


# --- byte-level BPE


def byte_level(**keys: Any) -> dict[str, Any]:
    """A small byte-level vocabulary: bytes, a few merges, a token that is always found, and special ones."""
    merges = ["h e", "l l", "he ll", "hell o", "Ġ hello", "3 3", "' s", "L L"]
    tokens = [*CHAR_OF.values(), *(merge.replace(" ", "") for merge in merges), "<think>", "<s>", "</s>"]
    types = [NORMAL] * (len(tokens) - 3) + [USER_DEFINED, CONTROL, CONTROL]
    values = {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": tokens,
        "token_type": types,
        "merges": merges,
        "bos_token_id": len(tokens) - 2,
        "eos_token_id": len(tokens) - 1,
    } | keys
    return {f"tokenizer.ggml.{key}": value for key, value in values.items() if value is not None}


@pytest.mark.parametrize("pre", CUTS)
def test_every_known_rule_goes_in_and_out_with_the_same_ids(pre: str) -> None:
    tokenizer = read_tokenizer(byte_level(pre=pre) | {"tokenizer.chat_template": "{{ messages }}"})
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT
    written = write_tokenizer(tokenizer)
    assert CUTS[written["tokenizer.ggml.pre"]] == CUTS[pre]
    again = read_tokenizer(written)
    assert (again.hash, again.specials, again.config) == (tokenizer.hash, tokenizer.specials, tokenizer.config)
    assert again.encode(TEXT) == tokenizer.encode(TEXT)
    assert again.encode_framed("hello") == tokenizer.encode_framed("hello")


@pytest.mark.parametrize(
    ("pre", "words"),
    [
        ("gpt-2", ["I", "'m", " 1984", "'", "LL", "\n\n", " x", " …!"]),
        ("smollm", ["I", "'m", " ", "1", "9", "8", "4", "'", "LL", "\n\n", " x", " …!"]),
        ("llama-bpe", ["I", "'m", " ", "198", "4", "'LL", "\n\n", " x", " …!"]),
        ("qwen2", ["I", "'m", " ", "1", "9", "8", "4", "'LL", "\n\n", " x", " …!"]),
        ("default", ["I", "'", "m", " ", "198", "4", "'", "LL", "\n\n", " x", " ", "…!"]),
    ],
)
def test_texts_are_cut_into_words_as_each_rule_says(pre: str, words: list[str]) -> None:
    text = "I'm 1984'LL\n\n x …!"
    assert [text[start:end] for _, (start, end) in CUTS[pre].words().pre_tokenize_str(text)] == words


def test_a_file_without_a_rule_is_cut_as_llama_cpp_cuts_it() -> None:
    assert read_tokenizer(byte_level(pre=None)).hash == read_tokenizer(byte_level(pre="default")).hash


def test_tokens_that_stand_for_themselves_are_found_and_special_ones_are_not() -> None:
    tokenizer = read_tokenizer(byte_level())
    think, bos, eos = 264, 265, 266
    assert think in tokenizer.encode("a<think>b")
    assert not {bos, eos} & set(tokenizer.encode("a<s>b</s>"))
    assert tokenizer.decode([bos, *tokenizer.encode("<think>hello"), eos]) == "<think>hello"
    assert (tokenizer.bos, tokenizer.eos, tokenizer.pad, tokenizer.vocab) == (bos, eos, None, 267)


def test_a_word_named_like_a_special_token_is_no_special_token_where_words_are_taken_whole() -> None:
    tokens = [*byte_level()["tokenizer.ggml.tokens"], "PAD"]
    types = [*byte_level()["tokenizer.ggml.token_type"], CONTROL]
    tokenizer = read_tokenizer(byte_level(pre="llama-bpe", tokens=tokens, token_type=types, padding_token_id=267))
    assert tokenizer.pad == 267
    assert tokenizer.pieces("PAD") == ["P", "A", "D"]
    assert tokenizer.pieces(" hello") == [" hello"]


def test_padding_of_the_table_is_no_part_of_the_tokeniser() -> None:
    tokens = [*byte_level()["tokenizer.ggml.tokens"], "[PAD267]", "[PAD268]"]
    types = [*byte_level()["tokenizer.ggml.token_type"], UNUSED, UNUSED]
    assert read_tokenizer(byte_level(tokens=tokens, token_type=types)).hash == read_tokenizer(byte_level()).hash


@pytest.mark.parametrize(
    ("keys", "framed"),
    [
        ({}, []),
        ({"add_bos_token": True}, ["bos"]),
        ({"add_eos_token": True}, ["eos"]),
        ({"add_bos_token": True, "add_eos_token": True}, ["bos", "eos"]),
        ({"pre": "llama-bpe"}, ["bos"]),
        ({"pre": "llama-bpe", "add_bos_token": False}, []),
    ],
)
def test_a_text_is_framed_as_the_file_says(keys: dict[str, Any], framed: list[str]) -> None:
    tokenizer = read_tokenizer(byte_level(**keys))
    before, after = [tokenizer.bos] * ("bos" in framed), [tokenizer.eos] * ("eos" in framed)
    assert tokenizer.encode_framed("hello") == [*before, *tokenizer.encode("hello"), *after]
    again = read_tokenizer(write_tokenizer(tokenizer))
    assert again.encode_framed("hello") == tokenizer.encode_framed("hello")


def test_special_ids_that_are_no_tokens_are_passed_over() -> None:
    tokenizer = read_tokenizer(byte_level(bos_token_id=2**32 - 1, padding_token_id=-1, eos_token_id="x"))
    assert tokenizer.specials == Specials()


# --- SentencePiece


def pieces(seed: int = 0) -> dict[str, Any]:
    """A SentencePiece vocabulary of random merges of a few letters, with scores that fall."""
    chooser = random.Random(seed)
    made = list("▁abc'é")
    while len(made) < 60:
        piece = chooser.choice(made) + chooser.choice(made)
        if piece not in made and len(piece) < 9:
            made.append(piece)
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *made]
    types = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * len(made)]
    scores = [0.0] * 259 + [-float(place) for place in range(len(made))]
    values = {"model": "llama", "tokens": tokens, "token_type": types, "scores": scores}
    return {f"tokenizer.ggml.{key}": value for key, value in values.items()}


def merged_by_score(text: str, metadata: dict[str, Any]) -> list[int]:
    """SentencePiece's rule, spelled out: always merge the two neighbours that make the best-scored piece, leftmost
    first."""
    tokens, scores = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.scores"]
    score = {
        token: scores[id] for id, token in enumerate(tokens) if metadata["tokenizer.ggml.token_type"][id] == NORMAL
    }
    parts = list("▁" + text.replace(" ", "▁")) if text else []
    while options := [(-score[a + b], place) for place, (a, b) in enumerate(pairwise(parts)) if a + b in score]:
        _, place = heapq.nsmallest(1, options)[0]
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    ids = {token: id for id, token in enumerate(tokens)}
    return [id for part in parts for id in ([ids[part]] if part in ids else [3 + byte for byte in part.encode()])]


@pytest.mark.parametrize("seed", range(8))
def test_pieces_are_merged_in_the_order_of_their_scores(seed: int) -> None:
    metadata, chooser = pieces(seed), random.Random(seed)
    tokenizer = read_tokenizer(metadata)
    for _ in range(150):
        text = "".join(chooser.choice(" aabbcc'éö") for _ in range(chooser.randrange(30)))
        assert tokenizer.encode(text) == merged_by_score(text, metadata), text
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_special_and_byte_tokens_are_no_product_of_merging() -> None:
    metadata = pieces()
    more = ["</", "s", ">", "s>", "<", "/", "<0", "x", "4", "1>", "0", "1", "x4", "x41>", "<|e", "nd|>", "<|end|>"]
    for key, fill in (("token_type", NORMAL), ("scores", -99.0)):
        metadata[f"tokenizer.ggml.{key}"] += [fill] * len(more)
    metadata["tokenizer.ggml.tokens"] += more
    tokenizer = read_tokenizer(metadata | {"tokenizer.ggml.eos_token_id": len(metadata["tokenizer.ggml.tokens"]) - 1})
    for name, id in (("</s>", 2), ("<0x41>", 3 + 0x41), ("<|end|>", tokenizer.eos)):
        assert tokenizer.core.token_to_id(name) == id
        assert id not in tokenizer.encode(name)
        assert tokenizer.decode(tokenizer.encode(name)) == name


@needs_data("tokenizer-vectors", "tinyshakespeare")
def test_llama_2s_pieces_are_merged_in_the_order_of_their_scores() -> None:
    metadata, chooser = GGUFFile(VECTORS / "ggml-vocab-llama-spm.gguf").metadata, random.Random(0)
    tokenizer = read_tokenizer(metadata)
    words = (DATA / "tinyshakespeare" / "input.txt").read_text()[:20000].split(" ")
    for _ in range(60):
        text = " ".join(chooser.choice(words) for _ in range(8)) + chooser.choice(
            ["", "   ", "aaaaaaa", "日本語", "\0"]
        )
        assert tokenizer.encode(text) == merged_by_score(text, metadata), text


def test_the_space_before_a_text_is_left_out_where_the_file_says_so() -> None:
    metadata = pieces() | {"tokenizer.ggml.add_space_prefix": False, "tokenizer.ggml.add_bos_token": False}
    tokenizer = read_tokenizer(metadata)
    assert tokenizer.core.normalizer.normalize_str("a b") == "a▁b"
    assert tokenizer.decode(tokenizer.encode(" a b")) == " a b"
    assert tokenizer.encode_framed("a") == tokenizer.encode("a")


# --- writing


def test_our_own_byte_pairs_and_bytes_go_in_and_out(tmp_path: Path) -> None:
    for tokenizer in (train_tokenizer("bpe", [TEXT * 9], vocab=300), train_tokenizer("bytes", [])):
        again = read_tokenizer(write_tokenizer(tokenizer))
        assert again.encode(TEXT) == tokenizer.encode(TEXT)
        assert (again.specials, again.vocab) == (tokenizer.specials, tokenizer.vocab)
        assert {again.piece(id) for id in range(again.vocab)} == {tokenizer.piece(id) for id in range(again.vocab)}


def test_a_tokenizer_json_in_llama_3s_form_is_known_by_its_rule() -> None:
    theirs = read_tokenizer(byte_level(pre="llama-bpe"))
    core = tokenizers.Tokenizer(
        cores.BPE(vocab={t: i for i, t in enumerate(byte_level()["tokenizer.ggml.tokens"][:-3])},
                  merges=[tuple(m.split()) for m in byte_level()["tokenizer.ggml.merges"]], ignore_merges=True)
    )  # fmt: skip
    split = pre_tokenizers.Split(Regex(LLAMA3), "isolated")
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=False)
    core.pre_tokenizer = pre_tokenizers.Sequence([split, level])
    core.decoder = decoders.ByteLevel()
    core.add_tokens([AddedToken("<think>", normalized=False)])
    core.add_special_tokens(["<s>", "</s>"])
    template = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 265)])
    core.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    written = write_tokenizer(Tokenizer(core, Specials("<s>", "</s>")))
    assert written["tokenizer.ggml.pre"] == "llama-bpe"
    assert written["tokenizer.ggml.add_bos_token"] is True
    assert read_tokenizer(written).hash == theirs.hash


def odd(change: str) -> Tokenizer:
    core = read_tokenizer(byte_level()).core
    if change == "cut":
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    else:
        core.normalizer = normalizers.Lowercase()
    return Tokenizer(core, Specials())


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: train_tokenizer("word", ["a b"]), "byte-level BPE tokenisers only, and this one is of kind 'word'"),
        (lambda: train_tokenizer("char", ["a b"]), "this one is of kind 'char'"),
        (lambda: read_tokenizer(pieces()), "this one is of kind 'bpe'"),
        (lambda: odd("cut"), "no name for the way in which this tokeniser cuts words"),
        (lambda: odd("normalizer"), "no name for the way in which this tokeniser cuts words"),
    ],
)
def test_a_tokeniser_that_llama_cpp_does_not_know_is_refused_in_one_line(make: Any, told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        write_tokenizer(make())
    assert "\n" not in str(caught.value)


# --- damage

LONG = {
    "tokenizer.ggml.tokens": [f"{number:1024}" for number in range(300)],
    "tokenizer.ggml.token_type": [NORMAL] * 300,
    "tokenizer.ggml.scores": [0.0] * 300,
}
"""A small file of these costs little; one of 64 MB would take minutes."""


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ({}, "brings no tokeniser"),
        ({"tokenizer.ggml.model": "none"}, "brings no tokeniser"),
        ({"tokenizer.ggml.model": "rwkv"}, r"unknown tokenizer.ggml.model 'rwkv'.*bert, gpt2, llama"),
        (byte_level(pre="gpt-9"), r"unknown tokenizer.ggml.pre 'gpt-9'.*qwen2, refact"),
        (byte_level(tokens=None), "tokenizer.ggml.tokens in the GGUF file is no list of str"),
        (byte_level(tokens=[1, 2]), "no list of str"),
        (byte_level(tokens=[], token_type=[]), "0 tokens"),
        (byte_level(token_type=[1, 1]), "267 tokens and 2 types"),
        (byte_level(tokens=["a"] * 267), "the token 'a' twice"),
        (byte_level(tokens=["a" * 5000, *map(str, range(266))]), "a token of 5,000 characters"),
        (byte_level(merges=None), "tokenizer.ggml.merges"),
        (byte_level(merges=["h e", "zz y"]), "the merge 'zz y'"),
        (byte_level(merges=["he"]), "the merge 'he'"),
        (byte_level(add_bos_token=7), "add_bos_token in the GGUF file is 7"),
        (pieces() | {"tokenizer.ggml.scores": [1.0]}, "not as many scores"),
        (pieces() | {"tokenizer.ggml.scores": [float("nan")] * 319}, "scores that are numbers"),
        (pieces() | LONG, "297 tokens too long to be merged in all ways"),
        ({"tokenizer.ggml.model": "bert", "tokenizer.ggml.tokens": ["▁a", "b"]}, "no token for unknown words"),
    ],
)
def test_a_damaged_tokeniser_is_refused_in_one_line(metadata: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        read_tokenizer(metadata)
    assert "\n" not in str(caught.value)


def test_empty_tokens_get_the_names_that_llama_cpp_gives_them() -> None:
    tokens = [*byte_level()["tokenizer.ggml.tokens"], "", ""]
    types = [*byte_level()["tokenizer.ggml.token_type"], NORMAL, NORMAL]
    tokenizer = read_tokenizer(byte_level(tokens=tokens, token_type=types))
    assert tokenizer.core.token_to_id("[EMPTY_268]") == 268


@pytest.mark.parametrize("seed", range(3))
def test_random_damage_gives_a_tokeniser_or_one_line(seed: int) -> None:
    chooser, sound = random.Random(seed), (byte_level, pieces)[seed % 2]()
    messages: list[str] = []
    for _ in range(60):
        metadata = json.loads(json.dumps(sound))
        key = chooser.choice(list(metadata))
        value = metadata[key]
        if isinstance(value, list) and value and chooser.random() < 0.8:
            value[chooser.randrange(len(value))] = chooser.choice(
                ["", "a", "h e", " ", "▁", "\0", 7, -1, 1e300, None, "<s>"]
            )
        else:
            metadata[key] = chooser.choice([None, "", 7, [], [1], "llama", "gpt2", "bert", True])
        try:
            read_tokenizer(metadata).encode(TEXT)
        except UserError as error:
            messages.append(str(error))
    assert messages
    assert not [message for message in messages if "\n" in message]
