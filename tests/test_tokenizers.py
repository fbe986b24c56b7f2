"""Tokenisers: every text comes back, special names in a text stay text, and others' libraries read the same ids."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path

import pytest
import tiktoken
import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from helpers import needs_data
from hornbook.errors import UserError
from hornbook.text import fast as fast_module
from hornbook.text.byte_alphabet import BYTE_OF, CHAR_OF
from hornbook.text.fast import GPT2, LLAMA3, FastEncoder
from hornbook.text.show import coloured, separated, summary, usage
from hornbook.text.tokenizer_files import Specials
from hornbook.text.tokenizer_training import train_tokenizer
from hornbook.text.tokenizers import Tokenizer, load_tokenizer

DATA = Path(os.environ.get("HORNBOOK_DATA", "."))

TEXT = (
    " \n = The Hornbook = \n \n The hornbook was a primer for children , a <unk> sheet of 26 letters .\n"
    "It's what they've read; we'll read it too: 1450, 1632 and 1900.\t"
    "Cafés, naïve façades & 日本語 — 👩‍🚀!\n\n\n  Two  spaces. "
) * 8
NAMES = ["<|endoftext|>", "<|pad|>", "<|unk|>", "<|mask|>"]

FLAGS = {
    "bpe": {"vocab": 300},
    "word": {},
    "word apart": {"digits": True},
    "word lossy": {"nfd": True, "lower": True, "strip_accents": True, "split": "punctuation"},
    "word at white space": {"split": "whitespace"},
    "word framed": {"template": "[CLS] $A [SEP]"},
    "char": {},
    "bytes": {},
}
LOSSLESS = ["bpe", "word", "word apart", "word framed", "char", "bytes"]


def trained(name: str) -> Tokenizer:
    return train_tokenizer(name.split()[0], [TEXT], **FLAGS[name])


@pytest.fixture(params=FLAGS)
def tokenizer(request) -> Tokenizer:
    return trained(request.param)


# --- what every kind does


@pytest.mark.parametrize("name", LOSSLESS)
def test_a_text_of_known_words_comes_back_exactly(name):
    tokenizer = trained(name)
    assert tokenizer.restores(TEXT)
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT


@pytest.mark.parametrize("name", ["bpe", "bytes"])
def test_bytes_restore_every_text_even_one_never_seen(name):
    text = "\0\x7f\u00a0\u00ad Ωmega \U0010ffff\r\n\t  " + "".join(map(chr, range(0x20, 0x250)))
    assert trained(name).restores(text)


def test_lossy_words_say_that_they_do_not_restore():
    assert not trained("word lossy").restores("Café")
    assert not trained("word").restores("a word never seen")


@pytest.mark.parametrize("before", ["", " ", "x", "x ", "1", "\n"])
@pytest.mark.parametrize("after", ["", " ", "x", "1", "\n"])
def test_special_names_in_a_text_are_ordinary_text(tokenizer, before, after):
    special = {id for id, token in tokenizer.core.get_added_tokens_decoder().items() if token.special}
    for name in [*NAMES, *(name for name in tokenizer.specials if name)]:
        found = set(tokenizer.encode(before + name + after))
        assert found & special <= {tokenizer.unk}  # an unknown word is unknown; no name becomes its own id
        if tokenizer.unk is None:
            assert tokenizer.decode(tokenizer.encode(before + name + after)) == before + name + after


@pytest.mark.parametrize("kind", ["word", "char"])
@pytest.mark.parametrize("split", ["spaces", "whitespace", "punctuation"])
def test_special_names_seen_in_training_are_words_with_ids_of_their_own(kind, split):
    text = " ".join(NAMES) + "".join(NAMES) + "\n".join(NAMES)
    tokenizer = train_tokenizer(kind, [text], **({"split": split} if kind == "word" else {}))
    assert not set(tokenizer.encode(text)) & {tokenizer.eos, tokenizer.pad, tokenizer.unk, tokenizer.mask}
    assert tokenizer.restores(text) or split != "spaces"


def test_special_ids_differ_and_lie_below_the_vocabulary(tokenizer):
    assert tokenizer.bos is not None
    assert tokenizer.eos is not None
    ids = [tokenizer.eos, tokenizer.pad, tokenizer.mask, tokenizer.unk]
    given = [id for id in ids if id is not None]
    assert len(given) == len(set(given)) == (3 if tokenizer.kind in ("bpe", "bytes") else 4)
    assert max(given) < tokenizer.vocab
    assert max(tokenizer.encode(TEXT)) < tokenizer.vocab
    assert tokenizer.decode(given) == ""


def test_a_saved_tokeniser_is_the_same_when_loaded(tokenizer, tmp_path):
    tokenizer.save(tmp_path, context=128)
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        again = load_tokenizer(path)
        assert (again.hash, again.kind, again.vocab) == (tokenizer.hash, tokenizer.kind, tokenizer.vocab)
        assert again.specials == tokenizer.specials
        assert again.encode(TEXT) == tokenizer.encode(TEXT)
        assert again.encode_framed("The hornbook") == tokenizer.encode_framed("The hornbook")
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["model_max_length"] == 128


def test_a_tokeniser_is_whole_before_it_is_taken_for_whole(tmp_path, monkeypatch):
    """tokenizer.json is looked for; power that is lost in between leaves a file more, and none too few."""
    written = []
    monkeypatch.setattr("hornbook.text.tokenizers.write_text", lambda path, text: written.append(path.name))
    train_tokenizer("bytes", []).save(tmp_path)
    assert written == ["tokenizer_config.json", "tokenizer.json"]


def test_training_twice_gives_the_same_tokeniser(tokenizer, request):
    name = request.node.callspec.params["tokenizer"]
    assert trained(name).hash == tokenizer.hash


def test_many_texts_at_once_are_encoded_like_each_alone(tokenizer):
    texts = [TEXT, "", "The", TEXT * 60, " \n"]
    assert tokenizer.encode_batch(texts) == [
        tokenizer.core.encode(text, add_special_tokens=False).ids for text in texts
    ]
    assert tokenizer.encode_batch([]) == []


def test_bytes_of_ids_can_be_streamed_where_a_token_states_them(tokenizer):
    parts = [tokenizer.token_bytes(id) for id in tokenizer.encode(TEXT)]
    if tokenizer._decoder is None:
        assert set(parts) == {None}
    else:
        assert b"".join(part or b"" for part in parts) == TEXT.encode()
    assert tokenizer.token_bytes(tokenizer.eos) == b""


@pytest.mark.parametrize("family", ["gpt2", "opt", "llama", "bert"])
def test_transformers_gives_our_ids_inside_a_folder_of_any_family(tokenizer, tmp_path, family):
    transformers = pytest.importorskip("transformers")
    tokenizer.save(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family, "vocab_size": tokenizer.vocab}))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.encode(TEXT, add_special_tokens=False) == tokenizer.encode(TEXT)
    assert theirs.encode("The hornbook") == tokenizer.encode_framed("The hornbook")
    assert theirs.decode(tokenizer.encode(TEXT), skip_special_tokens=True) == tokenizer.decode(tokenizer.encode(TEXT))
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (
        tokenizer.bos,
        tokenizer.eos,
        tokenizer.pad,
    )
    assert (theirs.unk_token_id, theirs.mask_token_id) == (tokenizer.unk, tokenizer.mask)


# --- training


def test_words_flags_do_what_they_say():
    def words(text: str, **flags) -> list[str]:
        return train_tokenizer("word", [text], **flags).pieces(text)

    assert words("The  cat\nsat") == ["The", " ", " cat", "\n", "sat"]
    assert words("Café", lower=True) == ["café"]
    assert words("Café", nfd=True) == ["Cafe\u0301"]
    assert words("Café", strip_accents=True) == ["Cafe"]
    assert words("in 1632", digits=True) == ["in", " ", "1", "6", "3", "2"]
    assert words("yes, <unk> no", split="whitespace") == ["yes,", "<unk>", "no"]
    assert words("yes, no", split="punctuation") == ["yes", ",", "no"]


def test_a_template_frames_a_text_and_names_begin_and_end():
    tokenizer = trained("word framed")
    ids = tokenizer.encode_framed(" The hornbook")
    assert ids == [tokenizer.bos, *tokenizer.encode(" The hornbook"), tokenizer.eos]
    assert tokenizer.specials[:2] == ("[CLS]", "[SEP]")
    with pytest.raises(UserError, match="no template"):
        train_tokenizer("word", [TEXT], template="[CLS] [SEP]")


def test_tokenised_wikitext_has_one_token_a_word_and_one_a_line():
    line = " The hornbook was a primer , a <unk> sheet . \n"
    tokenizer = train_tokenizer("word", [line])
    assert len(tokenizer.encode(line)) == len(line.split()) + 1
    assert tokenizer.restores(line)


@pytest.mark.parametrize(("kind", "asked"), [("bpe", 100_000), ("word", 5000), ("char", 5000)])
def test_more_vocabulary_than_the_corpus_supports_is_refused_with_the_number_it_supports(kind, asked):
    with pytest.raises(UserError, match=r"supports a vocabulary of (\d+), not ") as error:
        train_tokenizer(kind, [TEXT], vocab=asked)
    supported = int(str(error.value).split("vocabulary of ")[1].split(",")[0])
    assert train_tokenizer(kind, [TEXT], vocab=supported).vocab == supported


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("bpc", [TEXT]), "unknown kind of tokeniser 'bpc'. Did you mean 'bpe'"),
        (("bpe", [TEXT], 100), "too small"),
        (("word", [TEXT], 4), "too small"),
        (("bytes", [TEXT], 300), "has 259 ids"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_line(arguments, message):
    with pytest.raises(UserError, match=message):
        train_tokenizer(*arguments)


def test_an_option_of_another_kind_is_refused():
    with pytest.raises(UserError, match="has no option lower"):
        train_tokenizer("bpe", [TEXT], vocab=300, lower=True)


def test_the_byte_alphabet_is_that_of_the_library():
    assert set(BYTE_OF) == set(pre_tokenizers.ByteLevel.alphabet())
    assert [CHAR_OF[byte] for byte in (0x20, 0x0A, 0x41)] == ["\u0120", "\u010a", "A"]


# --- loading


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "no tokeniser in"),
        ({"tokenizer.json": "{"}, "is not a tokenizer.json"),
        ({"vocab.json": "[", "merges.txt": ""}, "not JSON"),
    ],
)
def test_a_folder_without_a_readable_tokeniser_is_refused_in_one_line(tmp_path, content, message):
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message) as error:
        load_tokenizer(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("stated", "kept"),
    [
        ([{"name": "tool_use", "template": "a"}, {"name": "default", "template": "b"}], "b"),
        ([{"name": "tool_use", "template": "a"}], None),
        (["odd"], None),
        (None, None),
        ("c", "c"),
    ],
)
def test_of_several_chat_templates_the_default_is_taken(stated, kept, tmp_path):
    train_tokenizer("bytes", []).save(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": stated}))
    assert load_tokenizer(tmp_path).config.get("chat_template") == kept
    assert ("chat_template" in load_tokenizer(tmp_path).config) == (kept is not None)


def test_a_missing_tokeniser_is_refused():
    with pytest.raises(UserError, match="no such file or folder"):
        load_tokenizer("nowhere")


def test_gpt2_files_of_either_name_give_the_trained_ids(tmp_path):
    definition = json.loads(trained("bpe").core.to_str())["model"]
    for folder, vocabulary, merges in (("openai", "encoder.json", "vocab.bpe"), ("hf", "vocab.json", "merges.txt")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / vocabulary).write_text(json.dumps(definition["vocab"]))
        lines = ["#version: 0.2", *(" ".join(merge) for merge in definition["merges"]), ""]
        (tmp_path / folder / merges).write_text("\n".join(lines), encoding="utf-8")
        loaded = load_tokenizer(tmp_path / folder)
        assert loaded.encode(TEXT) == trained("bpe").encode(TEXT)
        assert loaded.bos == loaded.eos == definition["vocab"]["<|endoftext|>"]


def test_fairseqs_dictionary_renumbers_gpt2s_ids(tmp_path):
    vocabulary = {char: byte for byte, char in CHAR_OF.items()}
    (tmp_path / "encoder.json").write_text(json.dumps(vocabulary))
    (tmp_path / "vocab.bpe").write_text("")
    (tmp_path / "dict.txt").write_text("".join(f"{id} 9\n" for id in reversed(range(256))) + "madeupword0000 0\n")
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.encode("A") == [4 + 255 - 65]
    assert (tokenizer.bos, tokenizer.pad, tokenizer.eos, tokenizer.unk, tokenizer.vocab) == (2, 1, 2, 3, 261)


@needs_data("opt-bpe")
def test_opts_files_give_the_published_ids():
    tokenizer = load_tokenizer(DATA / "opt-bpe")
    text = "The quick brown fox jumps over the lazy dog"
    assert tokenizer.encode(text) == [133, 2119, 6219, 23602, 13855, 81, 5, 22414, 2335]
    assert tokenizer.encode_framed(text)[0] == 2
    assert (tokenizer.bos, tokenizer.pad, tokenizer.eos, tokenizer.unk, tokenizer.vocab) == (2, 1, 2, 3, 50265)


@needs_data("gpt2-bpe", "tokenizer-vectors")
def test_gpt2_gives_the_expected_ids_of_the_test_vectors():
    tokenizer = load_tokenizer(DATA / "gpt2-bpe")
    file = DATA / "tokenizer-vectors" / "ggml-vocab-gpt-2.gguf"
    texts = Path(f"{file}.inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")
    rows = [[int(id) for id in line.split()] for line in Path(f"{file}.out").read_text().split("\n")]
    assert len(texts) > 40
    fast = FastEncoder.build(tokenizer._definition)
    assert fast is not None
    assert tokenizer._encode_slowly(texts) == rows[: len(texts)]
    assert fast.encode_batch(texts) == rows[: len(texts)]


@needs_data("gpt2-bpe", "wikitext-2-raw")
def test_gpt2_equals_tiktoken_built_from_openais_file():
    lines = (DATA / "gpt2-bpe" / "vocab.bpe").read_text(encoding="utf-8").split("\n")[1:-1]
    singles = {bytes([BYTE_OF[char]]): id for id, char in enumerate(CHAR_OF[byte] for byte in _openai_order())}
    merged = (bytes(BYTE_OF[char] for char in line.replace(" ", "")) for line in lines)
    ranks = singles | {token: 256 + place for place, token in enumerate(merged)}
    theirs = tiktoken.Encoding("gpt2", pat_str=GPT2, mergeable_ranks=ranks, special_tokens={})
    tokenizer = load_tokenizer(DATA / "gpt2-bpe")
    text = (DATA / "wikitext-2-raw" / "wiki.valid.raw").read_text(encoding="utf-8")[:300_000]
    assert tokenizer._encode_slowly([text])[0] == theirs.encode_ordinary(text) == tokenizer.encode(text)


def _openai_order() -> list[int]:
    return sorted(range(256), key=lambda byte: (ord(CHAR_OF[byte]) >= 256, ord(CHAR_OF[byte])))


@needs_data("wikitext-2")
def test_words_restore_the_whole_tokenised_wikitext():
    text = (DATA / "wikitext-2" / "valid.txt").read_text(encoding="utf-8")
    tokenizer = train_tokenizer("word", [text])
    assert tokenizer.restores(text)
    assert len(tokenizer.encode(text)) == 217_646


# --- the fast engine


def llama3_like() -> Tokenizer:
    core = tokenizers.Tokenizer(models.BPE(ignore_merges=True))
    split = pre_tokenizers.Split(Regex(LLAMA3), "isolated")
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        [TEXT], trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    return Tokenizer(core, Specials())


FORMS = ["a{c}b {c}{c} 1{c}2", "\n{c}.'{c} I'{c}e x'R{c}", " {c}'{c} ", "{c}\n{c}\r\n", "  {c}  {c}{c}  x"]


def prove_cuts_equal(tokenizer: Tokenizer, characters: list[str]) -> None:
    fast = FastEncoder.build(tokenizer._definition)
    assert fast is not None
    assert fast.name == "tiktoken"
    for form in FORMS:
        texts = [
            "".join(form.replace("{c}", c) for c in characters[at : at + 512]) for at in range(0, len(characters), 512)
        ]
        assert fast.encode_batch(texts) == tokenizer._encode_slowly(texts)


@pytest.mark.parametrize("make", [lambda: trained("bpe"), llama3_like], ids=["gpt2", "llama3"])
def test_tiktoken_cuts_like_tokenizers_around_a_character_of_every_kind(make):
    seen: dict[str, list[str]] = {}
    for character in map(chr, [*range(1, 0xD800), *range(0xE000, 0x20000)]):
        seen.setdefault(unicodedata.category(character), []).append(character)
    few = [character for category in seen.values() for character in category[:60] + category[-20:]]
    prove_cuts_equal(make(), few)


@pytest.mark.slow
@pytest.mark.parametrize("make", [lambda: trained("bpe"), llama3_like], ids=["gpt2", "llama3"])
def test_tiktoken_cuts_like_tokenizers_around_every_character_of_the_planes_in_use(make):
    used = [code for code in range(1, 0x40000) if not 0xD800 <= code < 0xE000]
    empty_or_private = range(0x40000, 0x110000, 61)  # no character there has been given a meaning yet
    prove_cuts_equal(make(), [chr(code) for code in [*used, *empty_or_private]])


@pytest.mark.parametrize("make", [lambda: trained("bpe"), llama3_like], ids=["gpt2", "llama3"])
@pytest.mark.parametrize("part", range(1, 30))
def test_a_long_text_cut_for_the_threads_has_the_ids_of_the_whole(make, part, monkeypatch):
    monkeypatch.setattr(fast_module, "PART", part)
    tokenizer = make()
    text = (TEXT[: len(TEXT) // 8] + "It 's a 1 b 22 c.\n x\r\n y ! ?  z \n 'm  're,  no  ") * 20
    fast = FastEncoder.build(tokenizer._definition)
    assert fast is not None
    assert fast.encode_batch([text, "", text[5:]]) == tokenizer._encode_slowly([text, "", text[5:]])


def test_a_pretokeniser_that_is_not_proven_equal_goes_without_the_fast_engine():
    tokenizer = trained("bpe")
    tokenizer.core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    other = Tokenizer(tokenizer.core, tokenizer.specials)
    assert other.engine == "tokenizers"
    assert trained("word").engine == "tokenizers"
    assert trained("bytes").engine == "bytes"


def test_an_engine_that_differs_on_the_sample_is_given_up():
    tokenizer = trained("bpe")
    expected = tokenizer._encode_slowly([TEXT * 200])[0]
    wrong = FastEncoder.build(tokenizer._definition)
    assert wrong is not None
    assert wrong._ids is not None
    wrong._ids[:] = 7
    tokenizer._fast = wrong
    assert tokenizer.encode(TEXT * 200) == expected
    assert tokenizer.engine == "tokenizers"


# --- shown to people


def test_a_cut_text_is_shown_with_bars_which_a_terminal_colours_too():
    tokenizer = train_tokenizer("word", ["The cat|sat \n on it"])
    assert separated(tokenizer, "The cat|sat \n on dogs") == "The| cat\\|sat| \\n| on|<|unk|>".replace(
        "<|unk|>", "<\\|unk\\|>"
    )
    assert coloured(tokenizer, "The cat|sat").plain == separated(tokenizer, "The cat|sat") == "The| cat\\|sat"
    assert len(coloured(tokenizer, "The cat|sat").spans) == 2
    assert trained("bytes").pieces("é") == ["\\xc3", "\\xa9"]


def test_usage_counts_bytes_tokens_unused_and_unknown():
    tokenizer = train_tokenizer("word", ["The cat sat"])
    found = usage(tokenizer, ["The dog", "The cat"])
    assert (found.size, found.tokens, found.unknown, found.restored) == (14, 4, 1, False)
    assert [tokenizer.piece(id) for id in found.unused] == [" sat"]
    assert found.bytes_per_token == 3.5
    assert "1 unused entries: ' sat'" in summary(tokenizer, found)
