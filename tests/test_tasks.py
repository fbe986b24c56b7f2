"""Tasks: the harness's prompts, endings scored together as one by one, marks and intervals."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
import torch

import hornbook
from helpers import needs_data, tiny_config, tiny_model
from hornbook import models
from hornbook.checkpoint import save_model
from hornbook.commands import evaluate as evaluate_command
from hornbook.config import Evaluate
from hornbook.errors import UserError
from hornbook.evaluation.choices import choice_log_probs
from hornbook.evaluation.judging import judge, mean_figure
from hornbook.evaluation.references import REFERENCES, references
from hornbook.evaluation.watched import task_figures
from hornbook.layers.model import LanguageModel
from hornbook.scoring.choices import score_choice
from hornbook.scoring.intervals import wilson
from hornbook.tasks import Choice, Source, Task, hellaswag, open_task, task_names
from hornbook.text import published
from hornbook.text.tokenizer_training import train_tokenizer

DATA = os.environ.get("HORNBOOK_DATA")

ROOF = {
    "ind": 24,
    "activity_label": "Roof shingle removal",
    "ctx_a": "A man is sitting on a roof.",
    "ctx_b": "he",
    "ctx": "A man is sitting on a roof. he",
    "label": 3,
    "endings": ["is using wrap.", "is ripping level tiles off.", "is holding a cube.", "starts pulling up roofing."],
}
WIKIHOW = {
    "activity_label": "Health",
    "ctx_a": "[header] How to sleep [title] Lie down. [step] Close  your eyes.",
    "ctx_b": "",
    "ctx": "[header] How to sleep [title] Lie down. [step] Close  your eyes.",
    "label": "0",
    "endings": ["[substeps] Rest. [title] Breathe.", "Jump.", "Run [fast] away.", "Sing."],
}


class Letters:
    """Characters as ids 3 to 39; a capital is its letter behind id 4, so that some pairs begin alike."""

    config: ClassVar[dict[str, str]] = {}

    def encode(self, text: str) -> list[int]:
        return [id for char in text for id in ([4] if char.isupper() else []) + [5 + ord(char.lower()) % 35]]

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]


class Pairs(Letters):
    """Two characters are one token, counted from the text's end: how a prompt is cut depends on its ending."""

    def encode(self, text: str) -> list[int]:
        first = len(text) % 2
        parts = [text[:first], *(text[i : i + 2] for i in range(first, len(text), 2))]
        return [5 + sum(map(ord, part)) % 35 for part in parts if part]


EXAMPLES = [
    Choice("the cat sat on", ("the mat", "a dog that barked at it", "Mat", "mats"), 0),
    Choice("a", ("b", "cc", "ddd", "eeee"), 2),
    Choice("one two three four five six", ("seven", "seven eight"), 1),
    Choice("Words", ("in a row " * 3, "or", "not at all, whatever", "x"), 3),
]


def one_by_one(model: LanguageModel, example: Choice) -> list[tuple[float, int]]:
    """Every row by itself, its logits as a whole: as lm-evaluation-harness cuts and sums."""
    found = []
    prompt = model.tokenizer.encode(example.prompt)
    for ending in example.endings:
        whole = model.tokenizer.encode(f"{example.prompt} {ending}")
        count = len(whole) - len(prompt)
        row = torch.tensor([whole[-(model.config.context + 1) :]])
        with torch.no_grad():
            logits = model(row[:, :-1]).double().log_softmax(-1)
        chosen = logits[0].gather(1, row[0, 1:, None])[-count:, 0]
        found.append((float(chosen.sum()), count))
    return found


@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral", "opt", "rnn", "rnn_attention", "ngram"])
@pytest.mark.parametrize("batch", [1, 3, 32])
def test_endings_scored_together_are_scored_as_one_by_one(family: str, batch: int) -> None:
    model = tiny_model(family)
    for tokenizer in (Letters(), Pairs()):
        model.tokenizer = tokenizer  # type: ignore[assignment]
        found = choice_log_probs(model, EXAMPLES, batch)
        for example, ours in zip(EXAMPLES, found, strict=True):
            theirs = one_by_one(model, example)
            assert [tokens for _, tokens in ours] == [tokens for _, tokens in theirs]
            # sums of at most 30 log-probabilities of size 10, each computed in float32
            assert [nats for nats, _ in ours] == pytest.approx([nats for nats, _ in theirs], abs=1e-3)


@pytest.mark.parametrize("length", [40, 47, 48, 49, 60, 200])
def test_a_prompt_too_long_loses_its_beginning(length: int) -> None:
    model = tiny_model("llama")
    model.tokenizer = Letters()  # type: ignore[assignment]
    example = Choice("abcdefghij" * 20, ("k", "lm nopq", "r" * 20), 0)
    example = Choice(example.prompt[:length], example.endings, 0)
    ours, theirs = choice_log_probs(model, [example, EXAMPLES[0]])[0], one_by_one(model, example)
    assert [nats for nats, _ in ours] == pytest.approx([nats for nats, _ in theirs], abs=1e-3)


def test_an_ending_longer_than_the_context_is_scored_on_its_last_tokens() -> None:
    model = tiny_model("llama")
    model.tokenizer = Letters()  # type: ignore[assignment]
    long = Choice("a b", ("c" * 100, "d"), 0)
    ours = choice_log_probs(model, [long])[0]
    assert [tokens for _, tokens in ours] == [model.config.context, 2]
    assert all(math.isfinite(nats) for nats, _ in ours)


def test_scores_are_those_of_the_transformers_library(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = train_tokenizer("bpe", [f"{e.prompt} {' '.join(e.endings)}" for e in EXAMPLES] * 2, 280)
    torch.manual_seed(0)
    model = models.build(tiny_config("gpt2", vocab=tokenizer.vocab, bos=tokenizer.eos, eos=tokenizer.eos)).eval()
    model.tokenizer = tokenizer
    save_model(tmp_path / "m", model, tokenizer)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m").eval()
    cut = transformers.AutoTokenizer.from_pretrained(tmp_path / "m")
    for example, ours in zip(EXAMPLES, choice_log_probs(model, EXAMPLES), strict=True):
        start = len(cut(example.prompt).input_ids)
        for ending, (nats, tokens) in zip(example.endings, ours, strict=True):
            ids = torch.tensor([cut(f"{example.prompt} {ending}").input_ids])
            with torch.no_grad():
                logits = theirs(ids).logits[0, start - 1 : -1].log_softmax(-1)
            assert tokens == ids.shape[1] - start
            assert nats == pytest.approx(float(logits.gather(1, ids[0, start:, None]).sum()), abs=1e-4)


def test_an_encoder_is_refused_and_a_model_keeps_its_mode() -> None:
    with pytest.raises(UserError, match="sees both sides"):
        choice_log_probs(tiny_model("bert"), EXAMPLES)
    model = tiny_model("llama", dropout=0.5)
    model.tokenizer = Letters()  # type: ignore[assignment]
    model.train()
    assert choice_log_probs(model, EXAMPLES) == choice_log_probs(model, EXAMPLES)
    assert model.training


# --- marks


def test_marks_are_for_the_sum_and_for_the_sum_by_length() -> None:
    example = Choice("p", ("aa", "bbbbbbbb", "cccc"), 1)
    marks = score_choice(example, [(-2.0, 1), (-6.0, 2), (-8.0, 8)])
    # sums: the first; per character -1, -0.75, -2: the second; per token -2, -3, -1: the third
    assert marks == {"accuracy": 0.0, "accuracy_per_character": 1.0, "accuracy_per_token": 0.0}


def test_the_interval_of_a_share_is_wilsons() -> None:
    assert wilson(0.5, 100) == pytest.approx((0.403832, 0.596168), abs=1e-6)
    assert wilson(0.0, 10) == pytest.approx((0.0, 0.277533), abs=1e-6)
    assert wilson(1.0, 10) == pytest.approx((0.722467, 1.0), abs=1e-6)
    share = mean_figure([1.0] * 3000 + [0.0] * 7042)
    assert share.value == pytest.approx(0.2987, abs=1e-4)
    assert share.high - share.low == pytest.approx(2 * 1.96 * math.sqrt(0.2987 * 0.7013 / 10042), rel=0.01)


# --- HellaSwag


def test_every_file_in_the_folder_is_a_task() -> None:
    assert "hellaswag" in task_names()
    own = {"answer", "chat", "classify", "instruct", "multiple-choice", "prefer", "summarise", "translate"}
    for name in task_names():
        if name in own:
            with pytest.raises(UserError, match="needs a file of yours"):
                open_task(name)
            continue
        task = open_task(name)
        assert isinstance(task, Task)
        assert task.name == name
        assert task.headline
        assert task.splits
    assert open_task("hellaswag").chance == 0.25
    with pytest.raises(UserError, match="Did you mean 'hellaswag'"):
        open_task("helaswag")


def test_prompts_are_those_of_the_harness() -> None:
    roof = hellaswag.choice(ROOF, "harness")
    assert roof.prompt == "Roof shingle removal: A man is sitting on a roof. He"
    assert roof.endings == tuple(ROOF["endings"])
    assert roof.answer == 3
    wikihow = hellaswag.choice(WIKIHOW, "harness")
    assert wikihow.prompt == "Health: How to sleep. Lie down. Close your eyes."
    # it strips first and then takes the marks away, so that a space stays, and puts a full stop behind a full stop
    assert wikihow.endings == (" Rest.. Breathe.", "Jump.", "Run away.", "Sing.")
    assert wikihow.answer == 0


def test_the_plain_protocol_leaves_texts_as_they_are() -> None:
    plain = hellaswag.choice(WIKIHOW, "plain")
    assert plain.prompt == WIKIHOW["ctx"]
    assert plain.endings == tuple(WIKIHOW["endings"])


def test_a_sample_without_labels_gives_the_cleaned_context() -> None:
    row = {key: value for key, value in ROOF.items() if key not in ("ctx_a", "ctx_b", "activity_label")}
    assert hellaswag.choice(row, "harness").prompt == "A man is sitting on a roof. he"


@pytest.fixture
def few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "data" / "hellaswag"
    folder.mkdir(parents=True)
    (folder / "hellaswag_val.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (ROOF, WIKIHOW) * 3))
    monkeypatch.setenv("HORNBOOK_DATA", str(tmp_path / "data"))
    return folder


def items(split: str = "validation", protocol: str = "harness") -> Iterator[Choice]:
    return open_task("hellaswag", Source(options={"protocol": protocol})).examples(split)


def test_figures_for_a_run_are_shares_of_the_first_items(few: Path) -> None:
    model = tiny_model("llama", context=200)
    model.tokenizer = Letters()  # type: ignore[assignment]
    task = open_task("hellaswag")
    judged, first = judge(model, task, "validation"), judge(model, task, "validation", limit=1)
    assert (len(judged.marks), len(first.marks)) == (6, 1)
    assert judged.figures["accuracy"].value == pytest.approx(sum(mark["accuracy"] for mark in judged.marks) / 6)
    figures = task_figures(model, ["hellaswag"], limit=4)
    assert set(figures) == {f"hellaswag_accuracy{end}" for end in ("", "_per_character", "_per_token")}
    assert all(isinstance(value, float) and 0 <= value <= 1 for value in figures.values())
    assert figures["hellaswag_accuracy"] == sum(mark["accuracy"] for mark in judged.marks[:4]) / 4


def test_a_model_that_knows_the_answers_is_right(few: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama", context=200)
    model.tokenizer = Letters()  # type: ignore[assignment]

    def knowing(model: LanguageModel, examples: list[Choice], **rest: object) -> list[list[tuple[float, int]]]:
        return [[(-1.0 if i == e.answer else -99.0, 3) for i in range(4)] for e in examples]

    monkeypatch.setattr("hornbook.evaluation.judging.choice_log_probs", knowing)
    assert set(task_figures(model, ["hellaswag"]).values()) == {1.0}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("nonsense", "is not JSON: Expecting value"),
        ('{"label": 1}', "is no item of HellaSwag: KeyError 'endings'"),
        ('{"label": 4, "ctx": "a", "endings": ["b", "c", "d", "e"]}', "is no item of HellaSwag: IndexError"),
        ("[]", "is no JSON object"),
        ('{"label": "", "ctx": "a", "endings": []}', "is no item of HellaSwag: ValueError"),
    ],
)
def test_a_line_that_is_no_item_is_named(few: Path, line: str, told: str) -> None:
    (few / "hellaswag_val.jsonl").write_text(json.dumps(ROOF) + "\n" + line + "\n")
    with pytest.raises(UserError, match=rf"line 2 of .*hellaswag_val.jsonl {told}") as error:
        list(items())
    assert "\n" not in str(error.value)


def test_splits_without_answers_and_unknown_protocols_are_refused() -> None:
    with pytest.raises(UserError, match=r"no test split with answers. It has: train, validation"):
        next(items("test"))
    with pytest.raises(UserError, match=r"unknown protocol 'harnes'. Did you mean 'harness'"):
        next(items(protocol="harnes"))


def test_the_published_file_is_downloaded_with_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HORNBOOK_DATA", raising=False)
    asked = []

    def fake(urls: list[str], target: Path, sha256: str) -> Path:
        asked.append((urls[0], sha256))
        raise UserError("cannot download hellaswag_val.jsonl: no network")

    monkeypatch.setattr(published, "download", fake)
    with pytest.raises(UserError, match=r"no network. Or name a folder with hellaswag/hellaswag_val.jsonl in HORNBOOK"):
        next(items())
    assert asked[0][0].endswith("/rowanz/hellaswag/a29ff8e9a04bba4bd6588223785ce105328adc57/data/hellaswag_val.jsonl")
    assert asked[0][1].startswith("0aa3b88843990f3f")


@needs_data("hellaswag")
def test_the_sample_at_hand_has_a_thousand_items() -> None:
    for split in ("train", "validation"):
        found = list(items(split))
        assert len(found) in (1000, 10042, 39905)
        assert all(len(item.endings) == 4 for item in found)
        shares = [sum(item.answer == k for item in found) / len(found) for k in range(4)]
        assert min(shares) > 0.2


# --- the command


def test_the_evaluate_command_takes_a_task(few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(tmp_path / "run")
    tokenizer = train_tokenizer("bytes", [])
    save_model(Path(run), models.build(tiny_config("gpt2", vocab=tokenizer.vocab, context=200)), tokenizer)
    evaluate_command(Evaluate(run, "hellaswag", device="cpu"))
    told = capsys.readouterr().out
    assert "accuracy per character" in told
    assert "6 examples" in told
    evaluate_command(Evaluate(run, "hellaswag", device="cpu", json=True, limit=4, protocol="tutorial"))
    found = json.loads(capsys.readouterr().out)
    assert found["examples"] == 4
    figure = found["figures"]["accuracy_per_token"]
    assert figure["low"] <= figure["value"] <= figure["high"]
    assert "random choice" in found["baselines"]
    scores = hornbook.evaluate(run, "hellaswag", device="cpu", limit=4)
    assert len(scores.examples) == 4


# --- reference levels


def test_reference_levels_are_figures_of_runs_and_name_their_protocol_and_source() -> None:
    own = {f"hellaswag_{p}accuracy{end}" for p in ("", "plain_") for end in ("", "_per_character", "_per_token")}
    for reference in REFERENCES:
        assert reference.figure in own | {"validation_loss", "validation_bits_per_byte"}
        assert reference.protocol
        assert reference.source
    assert [r.value for r in references("hellaswag_accuracy_per_character")] == [0.3114]
    assert references("validation_loss", "wikitext-2", 50257) == []
    assert references("validation_loss", "fineweb-edu", 8192) == []
    assert [r.value for r in references("validation_loss", "fineweb-edu-1", 50257)] == [3.2924]
