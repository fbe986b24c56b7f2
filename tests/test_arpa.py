import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers import needs_data
from hornbook.errors import UserError
from hornbook.formats.arpa import read_arpa, write_arpa
from hornbook.models.ngram import NGram, NGramConfig

WORDS = ["</s>", "<unk>", "the", "cat", "sat", "on", "mat", "dög", "never"]
EOS = 0

SMALL = r"""some words before the data are allowed

\data\
ngram 1=5
ngram 2=3
ngram 3=2

\1-grams:
-0.5	a	-0.25
-99	<s>	-0.125
-0.75	b	0.5
-1.5	</s>
-2	<unk>

\2-grams:
-0.25	<s> a	-0.0625
-0.5	a b
-0.125	b a	-0.3

\3-grams:
-0.1	<s> a b
-0.2	b a a

\end\
"""


def random_stream(seed: int = 0, documents: int = 80) -> np.ndarray:
    draw = np.random.default_rng(seed)
    stream = [EOS]
    for _ in range(documents):
        stream += [*(2 + draw.zipf(1.6, draw.integers(0, 8)) % (len(WORDS) - 3)).tolist(), EOS]
    return np.array(stream)


def fitted(order: int, smoothing: str = "kneser-ney", **fields) -> NGram:
    fields = {"vocab": len(WORDS), "bos": EOS, "eos": EOS} | fields
    model = NGram(NGramConfig("ngram", order=order, smoothing=smoothing, **fields))
    model.fit(random_stream())
    return model


def sentences(model: NGram, words: list[str], seed: int = 3, count: int = 40) -> list[list[str]]:
    """Random words, <unk> among them where the model knows it."""
    draw, plain = np.random.default_rng(seed), [word for word in words if word != "</s>"]
    return [draw.choice(plain, draw.integers(0, 12)).tolist() for _ in range(count)]


def scores(model: NGram, words: list[str], sentence: list[str]) -> list[float]:
    """log10 p of each word and of the end."""
    assert model.config.eos is not None
    ids = [model.config.eos, *(words.index(word) for word in sentence), model.config.eos]
    text = torch.tensor([ids])
    return (model.log_prob(text[:, :-1], text[:, 1:])[0] / math.log(10)).tolist()


def assert_kenlm_agrees(path: Path, model: NGram, words: list[str]) -> None:
    kenlm = pytest.importorskip("kenlm", reason="the kenlm package is not installed")
    peer = kenlm.Model(str(path))
    assert peer.order == model.config.order
    for sentence in sentences(model, words):
        expected = [score for score, _, _ in peer.full_scores(" ".join(sentence))]
        assert scores(model, words, sentence) == pytest.approx(expected, abs=1e-4), sentence


@pytest.mark.parametrize("order", range(2, 7))  # KenLM refuses unigram models, and is built for orders up to 6
def test_kenlm_scores_what_we_write_as_we_do(order, tmp_path):
    model = fitted(order)
    write_arpa(model, tmp_path / "m.arpa", WORDS)
    assert_kenlm_agrees(tmp_path / "m.arpa", model, WORDS)


def test_kenlm_scores_our_add_one_bigram_as_we_do(tmp_path):
    model = fitted(2, "add-k")
    write_arpa(model, tmp_path / "m.arpa", WORDS)
    assert_kenlm_agrees(tmp_path / "m.arpa", model, WORDS)


@pytest.mark.parametrize("order", range(1, 8))
def test_writing_and_reading_gives_the_same_model(order, tmp_path):
    model = fitted(order)
    write_arpa(model, tmp_path / "m.arpa", WORDS)
    again, words = read_arpa(tmp_path / "m.arpa")
    assert words == WORDS
    assert again.config.entries == model.config.entries
    text = torch.from_numpy(random_stream(5))[None]
    torch.testing.assert_close(again(text), model(text), rtol=1e-5, atol=1e-5)


def test_a_probability_of_zero_is_minus_99(tmp_path):
    model = fitted(2, "mle")
    write_arpa(model, tmp_path / "m.arpa", WORDS)
    again, _ = read_arpa(tmp_path / "m.arpa")
    text = torch.from_numpy(random_stream(5))[None]
    torch.testing.assert_close(again(text).exp(), model(text).exp(), rtol=1e-5, atol=1e-6)
    assert again(text).min().item() <= -99 * math.log(10)


def test_a_small_file_by_hand(tmp_path):
    (tmp_path / "m.arpa").write_text(SMALL)
    model, words = read_arpa(tmp_path / "m.arpa")
    assert words == ["a", "b", "</s>", "<unk>"]
    assert model.config.eos == model.config.bos == 2
    assert scores(model, words, ["a", "b", "a"]) == pytest.approx([-0.25, -0.1, -0.125, -0.3 - 0.25 - 1.5], abs=1e-6)
    assert scores(model, words, ["b", "a", "a"]) == pytest.approx([-0.125 - 0.75, -0.125, -0.2, -0.25 - 1.5], abs=1e-6)


@needs_data("kenlm")
@pytest.mark.parametrize("name", ["test.arpa", "test_nounk.arpa", "toy0.arpa", "toy1.arpa"])
def test_files_of_kenlm_score_as_kenlm_does(name):
    path = Path(os.environ["HORNBOOK_DATA"]) / "kenlm" / name
    model, words = read_arpa(path)
    assert_kenlm_agrees(path, model, words)


def test_a_bos_of_its_own_is_the_context_word(tmp_path):
    model = NGram(NGramConfig("ngram", vocab=5, order=3, bos=0, eos=1))
    model.fit(np.array([0, 2, 3, 1, 0, 3, 2, 4, 1]))
    write_arpa(model, tmp_path / "m.arpa", ["<bos>", "<eos>", "a", "b", "c"])
    again, words = read_arpa(tmp_path / "m.arpa")
    assert words == ["</s>", "a", "b", "c"]
    expected = model.log_prob(torch.tensor([[0, 2, 3]]), torch.tensor([[2, 3, 1]]))
    found = again.log_prob(torch.tensor([[0, 1, 2]]), torch.tensor([[1, 2, 0]]))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\\data\\", "\\date\\", "line 3: expected \\data\\"),
        ("ngram 2=3", "ngram 3=3", "line 5: expected 'ngram 2=COUNT'"),
        ("ngram 2=3", "ngram 2=4", "line 19: the section \\2-grams: ends before the 4"),
        ("ngram 2=3", "ngram 2=2", "line 18: expected \\3-grams:, found"),
        ("ngram 2=3", "ngram 2=999999999999999", "ends before the 999999999999999"),
        ("-0.5	a b", "-0.5	a c", "line 17: the word 'c' is not among"),
        ("-0.5	a b", "-0.5	a", "line 17: expected a number, 2 words"),
        ("-0.5	a b", "-o.5	a b", "line 17: expected numbers"),
        ("-0.5	a b", "0.5	a b", "line 17: log10"),
        ("-0.5	a b", "nan	a b", "line 17: log10"),
        ("-0.5	a b", "-0.5	b a", "line 18: this n-gram stands here for the second time"),
        ("-0.75	b	0.5", "-0.75	a	0.5", "line 11: the word 'a' stands here for the second time"),
        ("-0.2	b a a", "-0.2	b b a", "line 22: the words before the last"),
        ("\\end\\", "", "cut off"),
        ("\\2-grams:", "\\3-grams:", "line 15: expected \\2-grams:"),
    ],
)
def test_a_malformed_file_gives_one_line_with_its_place(old, new, message, tmp_path):
    (tmp_path / "m.arpa").write_text(SMALL.replace(old, new, 1))
    with pytest.raises(UserError) as error:
        read_arpa(tmp_path / "m.arpa")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_no_arpa_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="no ARPA file"):
        read_arpa(tmp_path / "none.arpa")
    for content, message in ((b"", "no ARPA file"), (b"\xff\xfe\x00", "not UTF-8"), (b"some text\n", "no ARPA file")):
        (tmp_path / "m.arpa").write_bytes(content)
        with pytest.raises(UserError, match=message):
            read_arpa(tmp_path / "m.arpa")


def test_an_order_above_seven_is_refused(tmp_path):
    (tmp_path / "m.arpa").write_text("\\data\\\n" + "".join(f"ngram {k}=1\n" for k in range(1, 9)) + "\n")
    with pytest.raises(UserError, match="order 8; possible are 1 to 7"):
        read_arpa(tmp_path / "m.arpa")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (WORDS[:-1], "8 words were given for a vocabulary of 9"),
        ([*WORDS[:-1], "two words"], "white space"),
        ([*WORDS[:-1], ""], "is empty"),
        ([*WORDS[:-1], "cat"], "both written 'cat'"),
        ([*WORDS[:-1], "<s>"], "both written '<s>'"),
    ],
)
def test_words_that_arpa_cannot_hold_are_refused(words, message, tmp_path):
    with pytest.raises(UserError, match=message):
        write_arpa(fitted(2), tmp_path / "m.arpa", words)
    assert not list(tmp_path.iterdir())


def test_add_k_above_order_two_is_no_back_off_model(tmp_path):
    with pytest.raises(UserError, match="no back-off model"):
        write_arpa(fitted(3, "add-k"), tmp_path / "m.arpa", WORDS)


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    (tmp_path / "m.arpa").write_text("old")

    def full(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_arpa(fitted(2), tmp_path / "m.arpa", WORDS)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("m.arpa", "old")]


def test_unicode_spaces_belong_to_words(tmp_path):
    words = [*WORDS[:-2], "non\u00a0breaking", "line\u2028separator"]
    write_arpa(fitted(3), tmp_path / "m.arpa", words)
    assert read_arpa(tmp_path / "m.arpa")[1] == words


def test_an_empty_section_and_windows_line_ends_are_read(tmp_path):
    text = "\\data\\\nngram 1=2\nngram 2=0\n\n\\1-grams:\n-0.1\ta\t0\n-1\t</s>\n\n\\2-grams:\n\n\\end\\\n"
    (tmp_path / "m.arpa").write_bytes(text.replace("\n", "\r\n").encode())
    model, words = read_arpa(tmp_path / "m.arpa")
    assert scores(model, words, ["a"]) == pytest.approx([-0.1, -1])
