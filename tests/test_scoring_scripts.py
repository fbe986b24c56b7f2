"""ROUGE and BLEU of texts in any script: words are found in all of them, and English figures stay what they were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hornbook.evaluation.judging import judge
from hornbook.scoring.baselines import lead3
from hornbook.scoring.rouge import ANY_SCRIPT, KINDS, rouge_marks
from hornbook.scoring.sentences import sentences
from hornbook.scoring.translation import translation_figures, translation_signatures
from hornbook.scoring.words import mostly_beyond_ascii, mostly_without_spaces, words
from hornbook.tasks import Asked, Source, Task, open_task
from test_lessons import talker

RUSSIAN = ["Кошка сидит на окне.", "Вчера в Москве шёл снег.", "Учёные нашли новую планету."]
CHINESE = ["猫坐在窗台上。", "昨天北京下了大雪。", "科学家发现了一颗新行星。"]
JAPANESE = ["猫が窓に座っている。", "昨日は東京で雪が降った。", "科学者が新しい惑星を見つけた。"]
KOREAN = ["고양이가 창가에 앉아 있다.", "어제 서울에 눈이 내렸다.", "과학자들이 새로운 행성을 발견했다."]
GERMAN = ["Für die Mütter fährt täglich ein Bus.", "Über Österreich hängt Nebel.", "Bären hören gut."]
ENGLISH = ["The cats were sitting on the window.", "It snowed in Moscow.", "3 new planets found: naïve café!"]
SCRIPTS = {"Russian": RUSSIAN, "Chinese": CHINESE, "Japanese": JAPANESE, "Korean": KOREAN}


# words


def test_words_are_found_in_every_script_with_the_marks_that_belong_to_them() -> None:
    assert words("Кошка, ЁЛКА: 3,5 м") == ["кошка", "ёлка", "3", "5", "м"]
    assert words("हिन्दी में।") == ["हिन्दी", "में"]
    assert words("Straße naïve_x don't") == ["straße", "naïve", "x", "don", "t"]
    assert words("한국어 단어.") == ["한국어", "단어"]
    assert words("cafe\u0301 ２０２０") == words("café 2020") == ["café", "2020"]


def test_characters_are_words_where_a_script_has_no_spaces_between_them() -> None:
    assert words("今日はTokyoに。ｶﾞ") == ["今", "日", "は", "tokyo", "に", "ガ"]
    assert words("ที่นี่") == list("ที่นี่")


@pytest.mark.parametrize("texts", [ENGLISH, GERMAN, ["..."], []])
def test_words_with_a_letter_of_ascii_are_not_beyond_it(texts: list[str]) -> None:
    assert not mostly_beyond_ascii(texts)
    assert not mostly_without_spaces(texts)


@pytest.mark.parametrize("script", SCRIPTS)
def test_what_most_words_are_of_decides_for_all_of_them(script: str) -> None:
    texts = SCRIPTS[script]
    assert mostly_beyond_ascii([*texts, "BBC 2020"])
    assert not mostly_beyond_ascii([texts[0], *ENGLISH * 10])
    assert mostly_without_spaces(texts) == (script in ("Chinese", "Japanese"))


@pytest.mark.parametrize(
    "marked",
    [
        "今天下雨。|我们在家！|你呢？|好",
        "他说：“我们赢了。”|大家都笑了！！|真的？！",
        "「勝った。」と彼は言った。|「え？」って。|終わり。",
        "यह घर है।|वह वहाँ गया।",
    ],
)
def test_sentences_end_at_the_stops_of_other_scripts(marked: str) -> None:
    assert sentences(marked.replace("|", "")) == marked.split("|")


def test_three_sentences_of_chinese_are_not_the_whole_article() -> None:
    article = "".join(CHINESE) + "这是第四句。"
    assert lead3([], [Asked({"article": article}, "")]) == [" ".join(CHINESE)]


# rouge


@pytest.mark.parametrize("texts", [ENGLISH, GERMAN], ids=["English", "German"])
def test_rouge_of_texts_in_latin_letters_is_google_s_own_to_the_last_digit(texts: list[str], tmp_path: Path) -> None:
    google = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(list(KINDS), use_stemmer=True)
    task = summaries(tmp_path, texts)
    reference, output = " ".join(texts), f"{texts[1]} {texts[0]} Cat, sit windows."
    wanted = google.score("\n".join(sentences(reference)), "\n".join(sentences(output)))
    assert task.score(Asked({}, reference), output) == {kind: wanted[kind].fmeasure for kind in KINDS}
    assert task.signatures is not None
    assert task.signatures([], []) == {}


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_perfect_summary_is_perfect_in_any_script_and_a_half_right_one_is_between(
    script: str, tmp_path: Path
) -> None:
    pytest.importorskip("rouge_score")
    task, (right, other, _) = summaries(tmp_path, SCRIPTS[script]), SCRIPTS[script]
    assert task.score(Asked({}, right), right) == dict.fromkeys(KINDS, pytest.approx(1.0))
    assert all(0 < mark < 1 for mark in task.score(Asked({}, right), f"{right} {other}").values())
    assert rouge_marks(right, [right]) == dict.fromkeys(KINDS, 0.0)  # by the words of rouge-score


def test_how_summaries_are_compared_is_one_for_all_examples_and_said(tmp_path: Path) -> None:
    pytest.importorskip("rouge_score")
    task = summaries(tmp_path, [*RUSSIAN, "BBC 2020"])
    assert task.score(Asked({}, "The cats sat"), "The cat sat")["rouge1"] == pytest.approx(2 / 3)  # nothing is stemmed
    found = judge(talker(context=400), task, "all", limit=2)
    assert found.summary()["signatures"] == {"rouge": ANY_SCRIPT}
    assert found.others["lead-3"]["rouge1"].value > 0.5


def summaries(folder: Path, texts: list[str]) -> Task:
    """A task over a file of articles that repeat their summaries."""
    return own(folder, "summarise", [{"article": f"{text} {n}", "summary": text} for n, text in enumerate(texts)])


def own(folder: Path, name: str, rows: list[dict[str, str]], **options: str) -> Task:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return open_task(name, Source(str(path), options=options))


# bleu


def translated(folder: Path, texts: list[str], to: str) -> tuple[float, str]:
    """BLEU of a guess that has one sentence of each three right, by the task, and its tokeniser by the signature."""
    pairs = [{"source": f"a {n}", "target": text} for n, text in enumerate(texts)]
    task = own(folder, "translate", pairs, **({"to": to} if to else {}))
    outputs = [texts[0], *(text[: len(text) // 2] + "x" for text in texts[1:])]
    examples: list[Any] = [Asked({}, text) for text in texts]
    assert task.figures is not None
    assert task.signatures is not None
    figure, signature = task.figures(examples, outputs)["bleu"], task.signatures(examples, outputs)["bleu"]
    return figure.value, signature.split("tok:")[1].split("|")[0]


@pytest.mark.parametrize("to", ["zh", "Chinese", "zh-CN", "zh_Hant"])
def test_chinese_is_cut_by_sacrebleu_s_own_rule(to: str, tmp_path: Path) -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    outputs = [CHINESE[0], *(text[: len(text) // 2] + "x" for text in CHINESE[1:])]
    wanted = sacrebleu.BLEU(tokenize="zh").corpus_score(outputs, [CHINESE]).score
    assert translated(tmp_path, CHINESE, to) == (wanted, "zh")
    assert wanted > 10


@pytest.mark.parametrize(("to", "texts", "instead"), [("ja", JAPANESE, "char"), ("ko", KOREAN, "intl")])
def test_where_a_dictionary_is_missing_something_simpler_is_taken_and_signed(
    to: str, texts: list[str], instead: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sacrebleu")
    module = pytest.importorskip(f"sacrebleu.tokenizers.tokenizer_{to}_mecab")
    monkeypatch.setattr(module, "MeCab", None)
    figure, signed = translated(tmp_path, texts, to)
    assert signed == instead
    assert 0 < figure < 100


@pytest.mark.parametrize(("to", "texts"), [("", CHINESE), ("", JAPANESE), ("th", ["ที่นี่สวยงาม", "ฉันรักแมว"])])
def test_targets_without_spaces_are_cut_into_characters_where_nothing_better_is_known(
    to: str, texts: list[str], tmp_path: Path
) -> None:
    pytest.importorskip("sacrebleu")
    figure, signed = translated(tmp_path, texts, to)
    assert signed == "char"
    assert figure > 10


@pytest.mark.parametrize(("to", "texts"), [("de", GERMAN), ("", ENGLISH), ("ru", RUSSIAN), ("Klingon", ENGLISH)])
def test_all_other_languages_are_scored_as_before(to: str, texts: list[str]) -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    outputs, references = [texts[0], texts[0], texts[2]], [[text] for text in texts]
    assert "tok:13a|" in translation_signatures(outputs, references, to)["bleu"]
    found = translation_figures(outputs, references, to)
    assert found["bleu"].value == sacrebleu.corpus_bleu(outputs, [texts]).score
    assert found == translation_figures(outputs, references)
