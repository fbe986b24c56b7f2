"""lm-evaluation-harness on models of ours finds, item by item, what its own class for transformers finds."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers import stream, tiny_model
from hornbook import models
from hornbook.checkpoint import load, save_model
from hornbook.cli import main
from hornbook.errors import UserError
from hornbook.evaluation.harness import harness
from hornbook.layers.model import LanguageModel
from hornbook.text.tokenizer_training import train_tokenizer

pytest.importorskip("lm_eval")
pytest.importorskip("transformers")

TEXT = "the cat sat on the mat, the dog on the log.\nWho sat? The cat.\nA naïve café: 1,234 mice — and   spaces\n"
CONTEXT = 48
PAIRS = [
    ("the cat", " sat on the mat"),
    ("the cat ", "sat on the mat"),  # the space goes over to the continuation
    ("the cat", " s"),
    ("the cat", " t"),  # read together with the one before
    ("", "the dog"),
    ("", "<|endoftext|>the dog"),
    ("<|endoftext|>the cat", " <|endoftext|> on"),
    (TEXT * 3, " the cat"),
    ("the cat", " " + "sat " * 11),
    ("A naïve", " café — and   spaces"),
]
TEXTS = ["the cat", TEXT, TEXT * 4, "a", "café <|endoftext|> the"]
WRITTEN = [
    ("the cat", {"until": ["\n"], "max_gen_toks": 12}),
    ("Who sat? " * 20, {"until": [" ", "t"], "max_gen_toks": 20}),
    ("Who", {"until": ".", "max_gen_toks": 20, "do_sample": False, "temperature": 0.0}),
    ("A naïve", {"until": [], "max_gen_toks": 30}),
    ("the dog on the", {"until": ["the", "on"], "max_new_tokens": 9}),
]


class Item:
    """A request, as far as models look at it."""

    def __init__(self, *args: Any) -> None:
        self.args = args


def make(folder: Path, family: str, framed: bool) -> Path:
    """A tiny model with random weights; `framed`: the tokeniser puts a token before every text."""
    tokenizer = train_tokenizer("bpe", [TEXT * 4], 290)
    if framed:
        from tokenizers.processors import TemplateProcessing

        name = tokenizer.specials.bos or ""
        special = [(name, tokenizer.bos)]
        tokenizer.core.post_processor = TemplateProcessing(single=f"{name} $A", special_tokens=special)  # type: ignore[assignment]
    torch.manual_seed(0)
    first = next(iter(models.family(family).SIZES.values()))
    ends = {"vocab": tokenizer.vocab, "bos": tokenizer.bos, "eos": tokenizer.eos, "pad": tokenizer.eos}
    model = models.build(first.replace(dim=32, layers=2, heads=4, kv_heads=4, mlp=48, context=CONTEXT, **ends))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter * 4 if parameter.ndim > 1 else parameter)
    save_model(folder, model, tokenizer)
    return folder


@pytest.fixture(scope="module", params=[("llama", True), ("gpt2", False)], ids=["llama, framed", "gpt2"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """The harness's own class, and ours, on one folder."""
    from lm_eval.models.huggingface import HFLM

    from hornbook.evaluation.harness_model import HarnessModel

    folder = make(tmp_path_factory.mktemp("tiny"), *request.param)
    theirs = HFLM(str(folder), device="cpu", dtype="float32", batch_size=3, max_length=CONTEXT)
    return theirs, HarnessModel(load(folder, text=True), batch=4)


NEAR = 1e-3
"""Sums of at most 100 log-probabilities of size 10, each computed in float32."""


def test_continuations_have_the_harness_s_log_probabilities_and_are_greedy_where_it_says_so(pair) -> None:
    theirs, ours = pair
    letters = [(text, letter) for text in TEXT.split() for letter in " acdehnost,.\n"]
    requests = [Item(*args) for args in (*PAIRS, *letters)]
    wanted, found = theirs.loglikelihood(requests, disable_tqdm=True), ours.loglikelihood(requests, disable_tqdm=True)
    assert [nats for nats, _ in found] == pytest.approx([nats for nats, _ in wanted], abs=NEAR)
    assert [likeliest for _, likeliest in found] == [likeliest for _, likeliest in wanted]
    assert {likeliest for _, likeliest in found} == {True, False}


def test_whole_texts_have_the_harness_s_log_probabilities(pair) -> None:
    theirs, ours = pair
    requests = [Item(text) for text in TEXTS]
    wanted = theirs.loglikelihood_rolling(requests, disable_tqdm=True)
    assert ours.loglikelihood_rolling(requests, disable_tqdm=True) == pytest.approx(wanted, abs=NEAR)


def test_texts_are_written_as_the_harness_has_transformers_write_them(pair) -> None:
    theirs, ours = pair
    for args in WRITTEN:  # by themselves: what it fills rows up with would count among the tokens of a context
        assert ours.generate_until([Item(*args)]) == theirs.generate_until([Item(*args)], disable_tqdm=True)
    alone = [ours.generate_until([Item(*args)])[0] for args in WRITTEN]
    assert ours.generate_until([Item(*args) for args in WRITTEN]) == alone
    assert any(alone)


def test_what_cannot_be_done_in_generating_is_refused(pair) -> None:
    _, ours = pair
    with pytest.raises(UserError, match="48"):
        ours.generate_until([Item("the", {"max_gen_toks": CONTEXT})])
    with pytest.raises(UserError, match="typical"):
        ours.generate_until([Item("the", {"max_gen_toks": 2, "typical": 0.3})])


def test_texts_can_be_drawn_too(pair) -> None:
    _, ours = pair
    drawn = {"max_gen_toks": 8, "do_sample": True, "temperature": 1.5, "top_p": 0.95}
    assert len(ours.generate_until([Item("the cat", drawn)])[0]) > 0


ITEMS = [
    {"question": "Who sat?", "choices": ["the cat", "the dog on the log", "mice"], "answer": 0},
    {"question": "the dog on", "choices": ["a mat", "the log", "1,234"], "answer": 1},
    {"question": "A naïve", "choices": ["mat", "dog", "café"], "answer": 2},
]


def settings(folder: Path, name: str, **changes: Any) -> dict[str, Any]:
    """A task over a file of ours."""
    data = folder / "items.jsonl"
    data.write_text("".join(json.dumps(item) + "\n" for item in ITEMS), encoding="utf-8")
    own = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_target": "answer",
        "doc_to_choice": "choices",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    }
    return own | changes


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a task of ours; the harness's own are not looked at, which takes seconds."""
    from lm_eval.tasks import TaskManager

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(
        "hornbook.evaluation.harness.task_manager",
        lambda include: TaskManager(include_path=str(include or folder), include_defaults=False),
    )
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "mine.yaml").write_text(json.dumps(settings(tmp_path, "tiny_choice")), encoding="utf-8")
    return folder


def test_a_task_s_results_are_those_that_the_harness_finds_by_itself(tmp_path: Path, tasks: Path) -> None:
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    folder = make(tmp_path / "run", "llama", False)
    written = settings(tmp_path, "tiny_text", output_type="generate_until", generation_kwargs={"max_gen_toks": 5})
    written |= {"doc_to_target": "{{choices[answer]}}", "metric_list": [{"metric": "exact_match"}]}
    asked = ["tiny_choice", {key: value for key, value in written.items() if key != "doc_to_choice"}]
    ours = harness(str(folder), asked, include=tasks, device="cpu", samples=True)
    manager = lm_eval.tasks.TaskManager(include_path=str(tasks), include_defaults=False)
    model = HFLM(str(folder), device="cpu", dtype="float32", batch_size=2, max_length=CONTEXT)
    theirs = lm_eval.simple_evaluate(model, tasks=asked, task_manager=manager, bootstrap_iters=10)
    assert set(ours.figures) == set(theirs["results"]) == {"tiny_choice", "tiny_text"}
    assert ours.figures["tiny_choice"]["acc"] == theirs["results"]["tiny_choice"]["acc,none"]
    assert ours.figures["tiny_choice"]["acc_norm_stderr"] == theirs["results"]["tiny_choice"]["acc_norm_stderr,none"]
    for task in ("tiny_choice", "tiny_text"):
        for mine, other in zip(ours.samples[task], theirs["samples"][task], strict=True):
            assert mine["arguments"] == other["arguments"]
            if task == "tiny_text":
                assert mine["resps"] == other["resps"]
            else:
                nats = [[found[0][0] for found in sample["resps"]] for sample in (mine, other)]
                assert nats[0] == pytest.approx(nats[1], abs=NEAR)
    assert "|tiny_choice|" in ours.table.replace(" ", "")


@pytest.mark.parametrize("words", [["tiny_choice,other"], ["tiny_choice", "other"], ["tiny_choice,", "other"]])
def test_names_of_tasks_go_to_the_harness_with_commas_or_spaces_between_and_so_does_the_batch(
    words: list[str], tmp_path: Path, tasks: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from hornbook.evaluation import harness_model

    batches = []

    class Watched(harness_model.HarnessModel):
        def __init__(self, model: LanguageModel, batch: int) -> None:
            super().__init__(model, batch)
            batches.append(batch)

    monkeypatch.setattr(harness_model, "HarnessModel", Watched)
    (tasks / "other.yaml").write_text(json.dumps(settings(tmp_path, "other")), encoding="utf-8")
    folder = make(tmp_path / "run", "gpt2", False)
    main(["evaluate", str(folder), "--harness", *words, "--batch", "2", "--device", "cpu", "--json"])
    assert set(json.loads(capsys.readouterr().out)) == {"tiny_choice", "other"}
    assert batches == [2]


def test_no_name_at_all_is_no_task_of_the_harness(tmp_path: Path, tasks: Path) -> None:
    with pytest.raises(UserError, match="no task of lm-evaluation-harness is named"):
        harness("runs/x", [","], include=tasks)


def test_a_loaded_model_is_scored_on_a_few_items(tmp_path: Path, tasks: Path) -> None:
    model = load(make(tmp_path / "run", "gpt2", False), text=True)
    found = harness(model, ["tiny_choice"], limit=2, fewshot=1, include=tasks, samples=True)
    assert len(found.samples["tiny_choice"]) == 2
    prompt = str(found.samples["tiny_choice"][0]["arguments"])
    assert prompt.count("\\n\\n") >= 1


def test_questions_go_through_a_chat_template_where_that_is_wanted(tmp_path: Path, tasks: Path) -> None:
    model = load(make(tmp_path / "run", "gpt2", False), text=True).train()
    model.tokenizer.config["chat_template"] = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    found = harness(model, ["tiny_choice"], chat=True, include=tasks, samples=True)
    asked = [str(sample["arguments"]) for sample in found.samples["tiny_choice"]]
    assert all(f"<user>{item['question']}" in text for item, text in zip(ITEMS, asked, strict=True))
    assert model.training


def test_tasks_that_are_unknown_or_without_data_are_named(tmp_path: Path, tasks: Path) -> None:
    model = load(make(tmp_path / "run", "gpt2", False), text=True)
    with pytest.raises(UserError, match=r"unknown task of lm-evaluation-harness 'tiny_choise'.*'tiny_choice'"):
        harness(model, ["tiny_choise"], include=tasks)
    gone = settings(tmp_path, "tiny_gone", dataset_kwargs={"data_files": {"test": str(tmp_path / "none.jsonl")}})
    with pytest.raises(UserError, match="cannot be had"):
        harness(model, [gone], include=tasks)


def test_the_harness_s_own_tasks_are_known_beside_those_of_a_folder(tmp_path: Path) -> None:
    from hornbook.evaluation.harness import task_manager

    (tmp_path / "mine.yaml").write_text(json.dumps(settings(tmp_path, "tiny_choice")), encoding="utf-8")
    assert {"hellaswag", "arc_easy", "lambada_openai", "tiny_choice"} <= set(task_manager(tmp_path).all_tasks)


def test_a_chat_goes_through_the_model_s_own_template(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    from hornbook.evaluation.harness_model import HarnessModel

    model = load(make(tmp_path, "gpt2", False), text=True)
    template = "{% for m in messages %}<|endoftext|>{{ m.role }}: {{ m.content }}\n{% endfor %}"
    model.tokenizer.config["chat_template"] = template + "{% if add_generation_prompt %}assistant:{% endif %}"
    model.tokenizer.save(tmp_path)
    ours, theirs = HarnessModel(model), AutoTokenizer.from_pretrained(tmp_path)
    said = [{"role": "user", "content": "Who sat?"}, {"role": "assistant", "content": "The"}]
    for count, opened in ((1, True), (2, False)):
        how = {"tokenize": False, "add_generation_prompt": opened, "continue_final_message": not opened}
        text = theirs.apply_chat_template(said[:count], **how)
        assert ours.apply_chat_template(said[:count], opened) == text
        assert ours.tok_encode(text) == theirs.encode(text)
    assert ours.chat_template() == model.tokenizer.config["chat_template"]


@pytest.mark.parametrize("family", ["rnn", "ngram"])
def test_rungs_that_only_we_have_answer_too(family: str) -> None:
    from hornbook.evaluation.harness_model import HarnessModel

    tokenizer = train_tokenizer("bytes", [])
    model: LanguageModel = tiny_model(family, vocab=tokenizer.vocab, bos=tokenizer.bos, eos=tokenizer.eos)
    if model.counted:
        model.fit(stream())
    model.tokenizer = tokenizer
    found = HarnessModel(model, 2).loglikelihood([Item("ab", " cd"), Item("a", "b"), Item("", "abc")], True)
    ids = torch.tensor([[tokenizer.bos, *tokenizer.encode("abc")]])
    with torch.no_grad():
        wanted = model.log_prob(ids[:, :-1], ids[:, 1:]).sum()
    assert found[2][0] == pytest.approx(float(wanted), abs=1e-4)


def test_an_encoder_is_refused() -> None:
    from hornbook.evaluation.harness_model import HarnessModel

    with pytest.raises(UserError, match="sees both sides"):
        HarnessModel(tiny_model("bert"))


def test_a_harness_that_is_missing_is_named_with_its_extra(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(UserError, match=r"hornbook\[eval\]"):
        harness("runs/x", ["hellaswag"])
