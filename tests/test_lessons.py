"""How examples are spelled: what is learnt of them, what is cut, and that pieces say what they should."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from tokenizers import decoders, pre_tokenizers, processors
from tokenizers import models as token_models

from helpers import tiny_config
from hornbook import models
from hornbook.adapt.vocabulary import grow
from hornbook.config import Finetune
from hornbook.data.batches import NO_TARGET
from hornbook.data.packing import Piece
from hornbook.errors import UserError
from hornbook.evaluation.choices import choice_log_probs
from hornbook.evaluation.judging import read
from hornbook.layers.class_head import give_class_head
from hornbook.layers.model import LanguageModel
from hornbook.lessons import Lessons, kept, spelled
from hornbook.tasks import Asked, Choice, Dialogue, Labelled, LastWord, Preference, Task
from hornbook.text.chat import chat_ids, with_template
from hornbook.text.chat_templates import TEMPLATES
from hornbook.text.tokenizer_files import Specials
from hornbook.text.tokenizers import Tokenizer
from hornbook.training.teaching import teach_pad, teach_words


def byte_tokenizer(pad: str | None = "<|pad|>") -> Tokenizer:
    """Every byte is a token; one separator, and padding."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = tokenizers.Tokenizer(token_models.BPE({char: i for i, char in enumerate(alphabet)}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(["<|endoftext|>", *([pad] if pad else [])])
    return Tokenizer(core, Specials("<|endoftext|>", "<|endoftext|>", pad))


def talker(family: str = "llama", pad: str | None = "<|pad|>", context: int = 200) -> LanguageModel:
    """Tiny, with a tokeniser of bytes."""
    tokenizer = byte_tokenizer(pad)
    ids = {"vocab": tokenizer.vocab, "bos": tokenizer.eos, "eos": tokenizer.eos, "pad": tokenizer.pad}
    model = models.build(tiny_config(family).replace(**ids, context=context)).eval()
    model.tokenizer = tokenizer
    return model


def task(kind: type, **fields: Any) -> Task:
    def none(split: str) -> Iterator[Any]:
        return iter(())

    return Task("t", kind, none, lambda example, output: {}, "accuracy", **fields)


ASKED: dict[str, Any] = {"plain": "{a}\n\nIn short:", "chat": "Shorten:\n\n{a}", "long": "a", "tokens": 20}


def learnt(model: LanguageModel, piece: Piece | None) -> str:
    """What a piece teaches, as text; special tokens by their names."""
    assert piece is not None
    return text_of(model, piece.targets[piece.targets != NO_TARGET])


def text_of(model: LanguageModel, ids: Any) -> str:
    return model.tokenizer.core.decode([int(i) for i in ids], skip_special_tokens=False)


def test_only_the_answer_of_a_question_is_learnt_and_the_token_that_ends_it() -> None:
    model = talker()
    piece = Lessons(model, task(Asked, **ASKED), 200).piece(Asked({"a": "A long story."}, "Short."))
    assert learnt(model, piece) == " Short.<|endoftext|>"
    assert piece is not None
    assert text_of(model, piece.tokens) == "<|endoftext|>A long story.\n\nIn short: Short."
    at = int(np.argmax(piece.targets != NO_TARGET))
    assert text_of(model, piece.tokens[: at + 1]).endswith("In short:")  # what predicts the answer's first token


def test_the_prompt_when_measured_is_the_one_that_was_learnt() -> None:
    model = talker()
    lessons, example = Lessons(model, task(Asked, **ASKED), 200), Asked({"a": "word " * 60}, "Short.")
    piece, (prompt, source) = lessons.piece(example), lessons.prompt(example)
    assert piece is not None
    assert piece.tokens[: len(prompt)].tolist() == prompt
    assert source == 0


@pytest.mark.parametrize(
    ("rule", "first", "last"), [("head", "ab", "op"), ("tail", "kl", "yz"), ("head+tail", "ab", "yz")]
)
def test_a_long_text_is_cut_by_the_rule_that_is_asked_for(rule: str, first: str, last: str) -> None:
    model, alphabet = talker(), "abcdefghijklmnopqrstuvwxyz"
    lessons = Lessons(model, task(Asked, **{**ASKED, "plain": "{a}:", "tokens": 4}), 22, rule)
    prompt, _ = lessons.prompt(Asked({"a": alphabet}, "x"))
    shown = text_of(model, prompt[1:-1])
    assert len(prompt) == 18
    assert shown.startswith(first)
    assert shown.endswith(last)
    assert lessons.counts.cut == 1
    assert f"{rule} of them is kept" in lessons.counts.told(rule, 22)


def test_a_question_whose_answer_is_cut_away_is_not_learnt_and_counted() -> None:
    model = talker()
    told = {**ASKED, "plain": "{a}\n\nQuestion: {q}\nAnswer:", "quoted": True}
    lessons = Lessons(model, task(Asked, **told), 90)
    fields = {"a": "The ship left in May. " * 3 + "It came home in June.", "q": "When?"}
    there, gone, never = Asked(fields, "May"), Asked(fields, "June"), Asked(fields, "In summer")
    assert [example for example, _ in lessons.fitting([there, gone, never])] == [there, never]
    assert "1 are left out, as their answer is in what is cut away" in lessons.counts.told(lessons.cut, 90)
    assert "do not fit" not in lessons.counts.told(lessons.cut, 90)
    asked = Asked({**fields, "q": "Was it in June?"}, "June")
    assert lessons.piece(asked) is None  # that the question has the word does not count


def test_what_is_kept_of_ids_is_never_more_than_asked_for() -> None:
    for rule in ("head", "tail", "head+tail"):
        for most in range(1, 12):
            assert len(kept(list(range(10)), most, rule)) == min(10, most)
    assert kept(list(range(10)), 5, "head+tail") == [0, 1, 2, 8, 9]


@pytest.mark.parametrize("rule", ["head", "tail", "head+tail"])
@pytest.mark.parametrize("letter", ["ü", "語", "😀", "\ufffd"])
def test_no_character_is_cut_in_two(letter: str, rule: str) -> None:
    """Every byte is a token here; whatever is left of a character would be read as U+FFFD."""
    model, most = talker(), len(letter.encode())
    for context in range(40, 40 + most):
        lessons = Lessons(model, task(Asked, **{**ASKED, "plain": "{a}:", "tokens": 4}), context, rule)
        prompt, _ = lessons.prompt(Asked({"a": f"{letter * 20}."}, "x"))
        shown = text_of(model, prompt[1:])
        assert shown.strip(".:") == letter * shown.count(letter)
        assert context - 4 - 2 * most < len(prompt) <= context - 4  # no more is lost than what was cut in two


def test_an_answer_that_is_too_long_is_cut_without_an_end_and_counted() -> None:
    model = talker()
    lessons = Lessons(model, task(Asked, **ASKED), 200)
    piece = lessons.piece(Asked({"a": "story"}, "x" * 50))
    assert learnt(model, piece) == " " + "x" * 19
    assert lessons.counts.shortened == 1


def test_examples_whose_fixed_words_fill_the_context_are_left_out_and_counted() -> None:
    model = talker()
    lessons = Lessons(model, task(Asked, **{**ASKED, "plain": "fixed " * 20 + "{a}"}), 60)
    assert lessons.piece(Asked({"a": "story"}, "Short.")) is None
    with pytest.raises(UserError, match="none of the 1 examples"):
        lessons.pieces([Asked({"a": "story"}, "Short.")])
    assert lessons.counts.skipped == 1


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_a_class_stands_where_it_is_read_from(family: str) -> None:
    model = give_class_head(talker(family), ("bad", "good"))
    lessons = Lessons(model, task(Labelled), 30)
    piece = lessons.piece(Labelled("a film " * 20, "good"))
    assert piece is not None
    assert len(piece) == 30
    assert int(np.flatnonzero(piece.targets != NO_TARGET)[0]) == (29 if model.causal else 0)
    assert piece.targets.max() == 1
    with pytest.raises(UserError, match="'fine' is none that this model was taught: bad, good"):
        lessons.piece(Labelled("a film", "fine"))


def test_an_encoder_reads_a_text_between_the_tokens_that_its_tokeniser_puts_around_it() -> None:
    model = give_class_head(talker("bert"), ("bad", "good"))
    core = model.tokenizer.core
    ends = [(name, core.token_to_id(name)) for name in ("<|endoftext|>", "<|pad|>")]
    core.post_processor = processors.TemplateProcessing("<|endoftext|> $A <|pad|>", special_tokens=ends)
    lessons = Lessons(model, task(Labelled), 12, "head+tail")
    assert text_of(model, lessons.text_ids("abc")) == "<|endoftext|>abc<|pad|>"
    assert text_of(model, lessons.text_ids("abcdefghijklmnopq")) == "<|endoftext|>abcdemnopq<|pad|>"


def test_the_right_ending_and_the_last_word_are_learnt() -> None:
    model = talker()
    assert learnt(model, Lessons(model, task(Choice), 99).piece(Choice("I eat", ("rocks", "bread"), 1))) == " bread"
    assert learnt(model, Lessons(model, task(LastWord), 99).piece(LastWord("I eat", "bread"))) == " bread"


ENDINGS = Choice("I eat", ("rocks", "bread and butter", "it"), 1)


@pytest.mark.parametrize("context", [99, 20, 8])
def test_an_ending_is_learnt_as_it_is_measured(context: int) -> None:
    """Encoded with its prompt, nothing before them, the beginning cut: the log-probability is the same."""
    model = talker(context=context)
    lessons = Lessons(model, task(Choice), context)
    piece = lessons.piece(ENDINGS)
    assert piece is not None
    assert text_of(model, piece.tokens) == "I eat bread and butter"[-context - 1 : -1]
    measured, count = choice_log_probs(model, [ENDINGS])[0][1]
    ((nats, learnt, _),) = read(model, [piece], lambda done, total: None)
    assert (nats, learnt) == (pytest.approx(measured, abs=1e-4), count)
    assert lessons.counts.cut == (context < 21)
    assert "tail of them is kept" in lessons.counts.told(lessons.cut, context) or context == 99


def test_what_merges_across_the_space_is_learnt_as_it_is_measured() -> None:
    """A token that the prompt ends with and the ending begins with would be lost if they were encoded apart."""
    model = talker()
    core = model.tokenizer.core
    core.add_tokens(["t b"])
    for example, kind in ((ENDINGS, Choice), (LastWord("I eat", "bread"), LastWord)):
        piece = Lessons(model, task(kind), 99).piece(example)
        assert piece is not None
        assert core.token_to_id("t b") in piece.tokens


TALK = Dialogue(
    (
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi!"},
        {"role": "user", "content": "Bye"},
        {"role": "assistant", "content": "Farewell."},
    )
)
ENDS = {"plain": "<|endoftext|>", "chatml": "<|im_end|>", "llama3": "<|eot_id|>"}
BEGINNINGS = {"plain": " ", "chatml": "", "llama3": ""}


@pytest.mark.parametrize("name", TEMPLATES)
def test_only_what_the_assistant_says_is_learnt_with_its_ends(name: str) -> None:
    model = talker(context=400)
    teach_words(model, Finetune("m", "d", template=name))  # type: ignore[arg-type]
    piece = Lessons(model, task(Dialogue), 400).piece(TALK)
    turns = (f"{BEGINNINGS[name]}{said}{ENDS[name]}" for said in ("Hi!", "Farewell."))
    assert learnt(model, piece) == "".join(turns)
    end = model.tokenizer.core.token_to_id(ENDS[name])
    assert end in {model.config.eos, *model.config.stops}  # or an answer would not stop there


@pytest.mark.parametrize("name", TEMPLATES)
def test_transformers_spells_a_conversation_alike(name: str, tmp_path: Any) -> None:
    transformers = pytest.importorskip("transformers")
    model = talker()
    teach_words(model, Finetune("m", "d", template=name))  # type: ignore[arg-type]
    model.tokenizer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    messages = [dict(message) for message in TALK.messages]
    found = theirs.apply_chat_template(messages[:-1], tokenize=True, add_generation_prompt=True, return_dict=False)
    assert list(found) == chat_ids(model.tokenizer, messages[:-1])
    whole = theirs.apply_chat_template(messages, tokenize=True, return_dict=False)
    assert list(whole) == chat_ids(model.tokenizer, messages, answer=False)


def test_the_oldest_exchanges_of_a_long_conversation_go_and_the_system_s_words_stay() -> None:
    model = talker()
    lessons = Lessons(model, task(Dialogue), 60)
    piece = lessons.piece(TALK)
    assert piece is not None
    assert text_of(model, piece.tokens).startswith("<|endoftext|>Be kind.\n\nUser: Bye")
    assert lessons.counts.cut == 1
    assert Lessons(model, task(Dialogue), 20).piece(TALK) is None


@pytest.mark.parametrize("instead", ["chatml", "plain"])
def test_a_template_that_rewrites_what_was_said_is_refused_and_what_it_suggests_works(instead: str) -> None:
    model = talker()
    jinja = "{% for m in messages %}{{ m['content'] if loop.last else 'earlier' }}{% endfor %}"
    model.tokenizer = with_template(model.tokenizer, jinja)
    said = [dict(message) for message in TALK.messages]
    with pytest.raises(UserError, match=f"spells earlier turns otherwise.*--template .*{instead}"):
        spelled(model.tokenizer, said, {model.config.eos})
    teach_words(model, Finetune("m", "d", template=instead))  # type: ignore[arg-type]
    _, mask = spelled(model.tokenizer, said, {model.config.eos, *model.config.stops})
    assert mask.any()


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_preference_is_two_segments_with_the_same_prompt(name: str) -> None:
    model = talker(context=400)
    teach_words(model, Finetune("m", "d", template=name))  # type: ignore[arg-type]
    pair = Preference(({"role": "user", "content": "Hello"},), "Hi!", "Go away.")
    piece = Lessons(model, task(Preference), 400).piece(pair)
    assert piece is not None
    assert set(piece.own.tolist()) == {1, 2}
    prompt = chat_ids(model.tokenizer, [dict(message) for message in pair.messages])
    for number, answer in ((1, "Hi!"), (2, "Go away.")):
        at = piece.own == number
        half = Piece(piece.tokens[at], piece.targets[at])
        assert learnt(model, half) == f"{BEGINNINGS[name]}{answer}{ENDS[name]}"  # as in a conversation
        assert half.tokens[: len(prompt)].tolist() == prompt


@pytest.mark.parametrize("name", TEMPLATES)
def test_an_answer_is_spelled_as_the_template_spells_the_assistant_s_turn(name: str) -> None:
    model = talker(context=400)
    teach_words(model, Finetune("m", "d", template=name))  # type: ignore[arg-type]
    piece = Lessons(model, task(Asked, **ASKED), 400).piece(Asked({"a": "A long story."}, "Short."))
    assert learnt(model, piece) == f"{BEGINNINGS[name]}Short.{ENDS[name]}"


def test_an_answer_in_a_template_that_rewrites_what_was_said_is_learnt_as_it_is() -> None:
    model = talker()
    jinja = "{% for m in messages %}{{ m['content'] if loop.last else 'x' }}{% endfor %}{{ eos_token }}"
    model.tokenizer = with_template(model.tokenizer, jinja)
    piece = Lessons(model, task(Asked, **ASKED), 200).piece(Asked({"a": "A long story."}, "Short."))
    assert learnt(model, piece) == "Short.<|endoftext|>"


def test_an_encoder_is_given_every_field_of_a_question() -> None:
    model = talker("transformer")
    fields = {"context": "It rains.", "question": "What falls?"}
    asked = task(Asked, plain="{context}\nQ: {question}", chat="", long="context", tokens=20)
    ids, source = Lessons(model, asked, 200).prompt(Asked(fields, "Rain."))
    assert text_of(model, ids[:source]) == "It rains.\nQ: What falls?"
    model.config = model.config.replace(bos=None)
    with pytest.raises(UserError, match="no token that opens a text"):
        Lessons(model, asked, 200).prompt(Asked(fields, "Rain."))


def test_new_tokens_begin_as_the_mean_of_all_and_change_no_other_logit() -> None:
    for family in ("llama", "gpt2", "bert"):
        model = talker(family)
        rows = torch.tensor([[5, 6, 7]])
        before, vocab = model(rows), model.config.vocab
        mean = model.embedding.weight.mean(0)
        grow(model, ["<|one|>", "<|two|>"])
        after = model(rows)
        assert after.shape[-1] == vocab + 2 == model.config.vocab == model.tokenizer.vocab
        assert torch.equal(after[..., :vocab], before)
        assert torch.allclose(model.embedding.weight[-1], mean, atol=1e-6)
        assert model.tokenizer.core.id_to_token(vocab) == "<|one|>"


def test_a_model_without_padding_of_its_own_gets_it() -> None:
    model = talker(pad=None)
    teach_pad(model, Finetune("m", "d"))
    assert model.config.pad == model.tokenizer.pad == model.config.vocab - 1
    assert model.config.pad not in {model.config.eos, *model.config.stops}
    again = dataclasses.replace(model.config)
    teach_pad(model, Finetune("m", "d"))
    assert model.config == again


LIKE_SMOLLM2 = ("<|im_start|>", "<|im_end|>", "<|eot_id|>", "<file_sep>", "<gh_stars>", "<filename>")


def with_specials(*names: str, pad: str | None, template: str = "") -> LanguageModel:
    """A model that has these special tokens, and pads with one of them, or with none."""
    model = grow(talker(pad=None), names)
    old = model.tokenizer
    model.tokenizer = Tokenizer(old.core, old.specials._replace(pad=pad), {"chat_template": template})
    model.config = model.config.replace(pad=model.tokenizer.pad)
    return model


@pytest.mark.parametrize(
    ("names", "template", "taken"),
    [
        (LIKE_SMOLLM2, "", "<gh_stars>"),
        (LIKE_SMOLLM2, "{{ '<gh_stars>' }}", "<filename>"),
        ((*LIKE_SMOLLM2, "<|reserved_special_token_0|>"), "", "<|reserved_special_token_0|>"),
        ((*LIKE_SMOLLM2, "<|reserved_special_token_0|>", "<|vision_pad|>"), "", "<|vision_pad|>"),
        (LIKE_SMOLLM2[:4], "", "<|endoftext|>"),
    ],
)
def test_where_no_token_can_be_added_padding_is_one_that_ends_and_says_nothing(
    names: tuple[str, ...], template: str, taken: str
) -> None:
    """`taken` is the one that ends texts where there is no other: then all stays as it is."""
    model = with_specials(*names, pad="<|endoftext|>", template=template)
    weights, vocab = model.embedding.weight.clone(), model.config.vocab
    teach_pad(model, Finetune("m", "d", lora=8))
    assert model.tokenizer.specials.pad == taken
    assert model.config.pad == model.tokenizer.pad == model.tokenizer.core.token_to_id(taken)
    assert model.config.vocab == vocab
    assert torch.equal(model.embedding.weight, weights)


def test_a_token_at_which_generation_stops_is_not_for_padding() -> None:
    model = with_specials("<odd>", "<other>", pad=None)
    model.config = model.config.replace(stops=(model.tokenizer.core.token_to_id("<odd>"),))
    teach_pad(model, Finetune("m", "d", lora=8))
    assert model.tokenizer.specials.pad == "<other>"


def test_an_adapted_classifier_pads_as_its_base_does_or_at_worst_with_the_end_of_texts() -> None:
    for names, pad, found in (
        (LIKE_SMOLLM2, "<|endoftext|>", "<|endoftext|>"),
        (LIKE_SMOLLM2, None, "<gh_stars>"),
        ((), None, "<|endoftext|>"),
    ):
        model = with_specials(*names, pad=pad)
        teach_pad(model, Finetune("m", "d", lora=8), classes=True)
        assert model.tokenizer.specials.pad == found
        assert model.config.pad == model.tokenizer.core.token_to_id(found)


def test_a_template_with_new_tokens_is_refused_where_they_could_not_be_learnt() -> None:
    with pytest.raises(UserError, match="needs new tokens"):
        teach_words(talker(), Finetune("m", "d", template="chatml", lora=8))


def test_a_model_that_converses_is_asked_in_its_own_template() -> None:
    model = talker()
    teach_words(model, Finetune("m", "d", template="chatml"))
    piece = Lessons(model, task(Asked, **ASKED), 200).piece(Asked({"a": "A story."}, "Short."))
    assert learnt(model, piece) == "Short.<|im_end|>"
    assert piece is not None
    assert text_of(model, piece.tokens).startswith("<|im_start|>user\nShorten:\n\nA story.<|im_end|>\n")


def test_an_encoder_decoder_reads_what_is_asked_about_as_its_source() -> None:
    model = talker("transformer")
    piece = Lessons(model, task(Asked, **ASKED), 200).piece(Asked({"a": "Ein Hund."}, "A dog."))
    assert piece is not None
    source = piece.own < 0
    assert text_of(model, piece.tokens[source]) == "Ein Hund."
    assert text_of(model, piece.tokens[~source]) == "<|endoftext|>A dog."
    assert learnt(model, piece) == "A dog.<|endoftext|>"
