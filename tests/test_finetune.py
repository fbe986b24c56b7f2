"""From examples to a model that was taught: every kind of task, interrupted, adapted, measured, and refused."""

from __future__ import annotations

import csv
import dataclasses
import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import hornbook
from hornbook.checkpoint import load, save_model
from hornbook.cli import main
from hornbook.config import Evaluate, Finetune
from hornbook.data.batches import Batch
from hornbook.errors import UserError
from hornbook.evaluation.judging import judge
from hornbook.evaluation.wanted import settled, wanted_task
from hornbook.lessons import Lessons
from hornbook.log import read_log
from hornbook.report.record import open_records
from hornbook.training import batch_size
from hornbook.training.callbacks import Moment
from hornbook.training.engine import Engine
from hornbook.training.finetune import finetune, require_whole
from hornbook.training.task_work import balanced
from test_lessons import with_specials

GOOD, BAD = ["good", "great", "lovely", "fine", "superb"], ["bad", "awful", "poor", "boring", "weak"]
WORDS = [
    "the",
    "film",
    "was",
    "and",
    "it",
    "had",
    "a",
    "plot",
    "with",
    "actors",
    "who",
    "played",
    "scenes",
    "in",
    "town",
]
QUICK: dict[str, Any] = {
    "vocab": 300,
    "compile": "no",
    "precision": "float32",
    "attention": "fused",
    "threads": 1,
    "float32_matmul": "highest",
    "device": "cpu",
    "context": 64,
    "batch": 2,
    "warmup": 2,
}


def reviews(path: Path, count: int = 120, skew: int = 2) -> Path:
    """Rows with a review and its stars; every `skew`-th is a good one."""
    draw = random.Random(0)
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["review", "stars"])
        for number in range(count):
            kind = number % skew == 0
            words = [draw.choice(WORDS) for _ in range(draw.randint(3, 12))]
            words += [draw.choice(GOOD if kind else BAD) for _ in range(3)]
            draw.shuffle(words)
            rows.writerow([" ".join(words), "5" if kind else "1"])
    return path


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def settings(data: Path, out: Path, model: str = "gpt2-tiny", **changes: Any) -> Finetune:
    kind = {"text": "review", "label": "stars"} if data.suffix == ".csv" else {}
    return Finetune(model, str(data), **(QUICK | kind | {"out": str(out)} | changes))


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A classifier, and the reviews that it learnt from."""
    folder = tmp_path_factory.mktemp("taught")
    data = reviews(folder / "reviews.csv")
    finetune(settings(data, folder / "run", epochs=6))
    return folder / "run", data


def test_a_table_of_reviews_becomes_a_classifier_that_beats_the_majority(taught: tuple[Path, Path]) -> None:
    run, data = taught
    model = load(run)
    assert model.config.labels == ("1", "5")
    task = wanted_task(settings(data, run))
    found = judge(model, task, "test")
    assert found.headline > 0.9
    assert found.headline > found.others["majority class"]["accuracy"].value
    low, high = found.figures["accuracy"].low, found.figures["accuracy"].high
    assert low is not None
    assert high is not None
    assert low < found.headline <= high


def test_what_is_learnt_is_kept_where_the_task_s_own_score_was_best(taught: tuple[Path, Path]) -> None:
    run, _ = taught
    lines = [line for line in read_log(run) if "validation_accuracy" in line]
    best = int((run / "best").resolve().name)
    assert max(line["validation_accuracy"] for line in lines) == next(
        line["validation_accuracy"] for line in lines if line["step"] == best
    )
    summary = json.loads((run / "summary.json").read_text())
    assert summary["scores"]["figures"]["accuracy"]["value"] == max(line["validation_accuracy"] for line in lines)
    assert list(summary["scores"]["baselines"]) == ["majority class", "TF-IDF + logistic regression"]


def test_of_equal_scores_the_lower_loss_is_kept(taught: tuple[Path, Path]) -> None:
    run, _ = taught
    lines = [line for line in read_log(run) if "validation_accuracy" in line]
    wanted = min(lines, key=lambda line: (-line["validation_accuracy"], line["validation_log_loss"]))
    assert sum(line["validation_accuracy"] == wanted["validation_accuracy"] for line in lines) > 1
    assert int((run / "best").resolve().name) == wanted["step"]
    (record,) = open_records([run])
    assert record.best is not None
    assert record.best["step"] == wanted["step"]


def test_preferences_keep_the_checkpoint_of_the_best_score_of_equal_ones_that_of_the_lowest_loss(
    tmp_path: Path,
) -> None:
    rows = [
        {"prompt": row["article"], "chosen": row["highlights"], "rejected": draw} for row in pairs() for draw in BAD
    ]
    data = jsonl(tmp_path / "p.jsonl", rows)
    finetune(settings(data, tmp_path / "run", steps=15, eval_every=3, lr=0.01))
    lines = [line for line in read_log(tmp_path / "run") if "validation_accuracy" in line]
    wanted = min(lines, key=lambda line: (-line["validation_accuracy"], line["validation_loss"]))
    assert int((tmp_path / "run" / "best").resolve().name) == wanted["step"]
    (record,) = open_records([tmp_path / "run"])
    assert record.best is not None
    assert (record.evaluated, record.best["step"]) == ("validation_accuracy", wanted["step"])


def test_a_run_that_is_killed_and_carries_on_ends_as_one_that_was_not(tmp_path: Path) -> None:
    data = reviews(tmp_path / "r.csv", 60)
    whole = settings(data, tmp_path / "whole", steps=8, eval_every=2)

    class Stop(Exception):
        pass

    def stop(moment: Moment) -> None:
        if moment.event == "save" and moment.step == 4:
            raise Stop

    finetune(whole)
    broken = dataclasses.replace(whole, out=str(tmp_path / "broken"))
    with pytest.raises(Stop):
        finetune(broken, [stop])
    finetune(broken)
    one, other = load(tmp_path / "whole").state_dict(), load(tmp_path / "broken").state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_patience_ends_a_run_whose_score_does_not_rise(tmp_path: Path) -> None:
    data = reviews(tmp_path / "r.csv", 60)
    summary = finetune(settings(data, tmp_path / "run", steps=40, eval_every=1, patience=2, lr=0.0))
    assert summary["steps"] == 3


def test_a_classifier_is_adapted_on_top_of_a_run_and_the_base_stays(taught: tuple[Path, Path], tmp_path: Path) -> None:
    base, data = taught
    before = load(base).state_dict()
    finetune(settings(data, tmp_path / "run", str(base), lora=4, vocab=None, epochs=1))
    assert (tmp_path / "run" / "adapter_model.safetensors").is_file()
    assert all(torch.equal(before[name], tensor) for name, tensor in load(base).state_dict().items())
    task = wanted_task(settings(data, base))
    assert judge(load(tmp_path / "run"), task, "test", baselines=False).headline > 0.9


@pytest.mark.parametrize("pad", [None, "<|endoftext|>"])
def test_transformers_reads_several_texts_at_once_by_an_adapted_classifier(pad: str | None, tmp_path: Path) -> None:
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    base = with_specials(pad=pad)
    save_model(tmp_path / "base", base, base.tokenizer)
    data = reviews(tmp_path / "r.csv", 40)
    finetune(settings(data, tmp_path / "run", str(tmp_path / "base"), vocab=None, lora=4, steps=4, lr=0.01))
    config = transformers.AutoConfig.from_pretrained(tmp_path / "run")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", config=config)
    theirs = peft.PeftModel.from_pretrained(theirs, tmp_path / "run").eval()
    model = load(tmp_path / "run")
    lessons = Lessons(model, wanted_task(settings(data, tmp_path / "run")), 64)
    rows = [lessons.text_ids(text) for text in ("good", "a long and awful film", "weak plot")]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "run")
    batch = tokenizer.pad({"input_ids": rows}, return_tensors="pt", padding_side="right")
    assert batch["input_ids"].shape[1] > len(rows[0])
    with torch.no_grad():
        found = theirs(**batch).logits
        for row, logits in zip(rows, found, strict=True):
            last = model.hidden(torch.tensor([row]))[:, -1]
            assert torch.allclose(model.class_logits(last)[0], logits, atol=1e-5)


@pytest.mark.parametrize("family", ["gpt2-tiny", "llama-tiny", "bert-tiny"])
def test_a_pipeline_of_transformers_reads_a_text_as_the_classifier_learnt_it(family: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    data = reviews(tmp_path / "r.csv", 40)
    finetune(settings(data, tmp_path / "run", family, steps=3, lr=0.01))
    model = load(tmp_path / "run")
    lessons = Lessons(model, wanted_task(settings(data, tmp_path / "run")), 64)
    classify = transformers.pipeline("text-classification", model=str(tmp_path / "run"), top_k=None)
    for text in ("a lovely film", "boring"):
        ids = lessons.text_ids(text)
        assert classify.tokenizer(text)["input_ids"] == ids
        place = -1 if model.causal else 0
        with torch.no_grad():
            ours = model.class_logits(model.hidden(torch.tensor([ids]))[:, place])[0].softmax(0)
        theirs = {found["label"]: found["score"] for found in classify([text])[0]}
        assert [theirs[label] for label in model.config.labels] == pytest.approx(ours.tolist(), abs=1e-5)


def test_rare_classes_count_as_much_as_frequent_ones_when_balanced() -> None:
    weights = balanced(("a", "b"), ["a"] * 9 + ["b"])
    assert weights == [pytest.approx(10 / 18), 5.0]
    assert weights[0] * 9 + weights[1] == pytest.approx(10)


def test_an_encoder_learns_balanced_classes_and_is_adapted(tmp_path: Path) -> None:
    """A tenth of the reviews are good ones: to call all of them bad would be right nine times of ten."""
    data = reviews(tmp_path / "r.csv", 200, skew=10)
    run = tmp_path / "run"
    balanced = {"class_weights": "balanced", "lr": 2e-3}
    summary = finetune(settings(data, run, "bert-tiny", epochs=3, eval_every=15, **balanced))
    assert summary["scores"]["figures"]["macro_f1"]["value"] > 0.8
    assert json.loads((run / "train.json").read_text())["class_weights"] == "balanced"
    first = next(line["loss"] for line in read_log(run) if "loss" in line)
    assert abs(first - 0.6931) > 0.1  # ln 2, were all classes to count alike: the head knows nothing yet
    adapted = settings(data, tmp_path / "adapted", str(run), lora=4, vocab=None, steps=2)
    finetune(adapted)
    assert (tmp_path / "adapted" / "adapter_model.safetensors").is_file()
    assert judge(load(tmp_path / "adapted"), wanted_task(adapted), "test", baselines=False).headline > 0.8


def test_checkpoints_are_chosen_by_what_the_model_writes_where_that_is_asked(tmp_path: Path) -> None:
    data = jsonl(tmp_path / "p.jsonl", pairs(30))
    finetune(settings(data, tmp_path / "run", steps=4, eval_every=2, eval_examples=3, score_generated=True))
    lines = [line for line in read_log(tmp_path / "run") if "validation_rougeLsum" in line]
    assert [line["step"] for line in lines] == [2, 4]


def pairs(count: int = 60) -> list[dict[str, Any]]:
    draw = random.Random(0)
    found = []
    for _ in range(count):
        words = [draw.choice(WORDS) for _ in range(draw.randint(3, 6))]
        found.append({"article": " ".join(words), "highlights": words[0]})
    return found


@pytest.mark.parametrize(
    "model", ["gpt2-tiny", "transformer-tiny", pytest.param("rnn-attention", marks=pytest.mark.slow)]
)
def test_texts_are_learnt_to_be_written_and_end_by_themselves(model: str, tmp_path: Path) -> None:
    data = jsonl(tmp_path / "p.jsonl", pairs())
    small = {} if model == "rnn-attention" else {"lr": 0.004}
    summary = finetune(settings(data, tmp_path / "run", model, epochs=12, eval_examples=6, **small))
    losses = [line["validation_loss"] for line in read_log(tmp_path / "run") if "validation_loss" in line]
    assert min(losses) < 0.7 * losses[0]
    assert summary["scores"]["ended"] >= 3
    assert "lead-3" in summary["scores"]["baselines"]
    assert isinstance(summary["sample"], str)


def test_conversations_are_learnt_and_the_folder_can_be_talked_to(tmp_path: Path) -> None:
    rows = [
        {"messages": [{"role": "user", "content": f"{word} {mood}"}, {"role": "assistant", "content": reply}]}
        for word in WORDS[:8]
        for moods, reply in ((GOOD, "How nice"), (BAD, "What a pity"))
        for mood in moods
    ]
    data = jsonl(tmp_path / "c.jsonl", rows)
    summary = finetune(settings(data, tmp_path / "run", template="chatml", epochs=3, eval_examples=4, lr=0.004))
    model = load(tmp_path / "run")
    assert "<|im_start|>" in model.tokenizer.config["chat_template"]
    assert model.tokenizer.core.token_to_id("<|im_end|>") in {model.config.eos, *model.config.stops}
    assert summary["scores"]["figures"]["perplexity"]["value"] < 2
    for mood, reply in (("film great", "How nice"), ("town awful", "What a pity")):  # and no word more
        assert hornbook.generate(str(tmp_path / "run"), mood, chat=True, temperature=0, tokens=20) == reply


def test_preferences_raise_the_better_answers_above_the_others(tmp_path: Path) -> None:
    base = jsonl(
        tmp_path / "c.jsonl",
        [
            {"messages": [{"role": "user", "content": f"{word}?"}, {"role": "assistant", "content": word}]}
            for word in WORDS * 3
        ],
    )
    finetune(settings(base, tmp_path / "base", epochs=1, eval_examples=4))
    rows = [
        {"prompt": f"{word}?", "chosen": "yes " + draw, "rejected": "no " + draw} for word in WORDS for draw in GOOD
    ]
    data = jsonl(tmp_path / "p.jsonl", rows)
    summary = finetune(
        settings(data, tmp_path / "run", str(tmp_path / "base"), vocab=None, steps=10, lr=0.001, beta=1.0)
    )
    first = next(line for line in read_log(tmp_path / "run") if "loss" in line)
    assert first["loss"] == pytest.approx(0.6931, abs=2e-3)  # ln 2: the model and its reference are one
    assert summary["validation_reward_accuracy"] > 0.9
    assert summary["validation_reward_margin"] > 0


@pytest.mark.parametrize(
    ("model", "rows"), [("bert-tiny", "reviews"), ("gpt2-tiny", "reviews"), ("transformer-tiny", "pairs")]
)
def test_an_automatic_batch_is_tried_on_what_is_learnt(
    model: str, rows: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[str] = []
    whole = batch_size.speed

    def speed(engine: Engine, batch: Batch) -> float:
        seen.append(type(engine.objective).__name__)
        return whole(engine, batch)

    monkeypatch.setattr(batch_size, "speed", speed)
    monkeypatch.setattr(batch_size, "MOST", 2)
    data = reviews(tmp_path / "r.csv") if rows == "reviews" else jsonl(tmp_path / "p.jsonl", pairs(30))
    finetune(settings(data, tmp_path / "run", model, batch="auto", steps=1, eval_examples=2))
    assert seen == 2 * ["ClassObjective" if rows == "reviews" else "Objective"]
    assert json.loads((tmp_path / "run" / "train.json").read_text())["batch"] in (1, 2)


def test_what_cannot_learn_a_task_says_so(taught: tuple[Path, Path], tmp_path: Path) -> None:
    run, data = taught
    rows = jsonl(tmp_path / "p.jsonl", pairs(12))
    for attempt, words in (
        (settings(rows, tmp_path / "x", str(run), vocab=None), "writes nothing"),
        (settings(rows, tmp_path / "x", "bert-tiny"), "fills in gaps"),
        (settings(data, tmp_path / "x", "bigram"), "counted"),
        (settings(data, tmp_path / "x", lora=4), "fresh"),
        (settings(data, tmp_path / "x", label="star"), "Its columns: review, stars"),
        (settings(tmp_path / "no.csv", tmp_path / "x"), "no.csv"),
        (settings(data, tmp_path / "x", task="sumarise"), "Did you mean 'summarise'"),
        (settings(data, tmp_path / "x", template="chatml"), "--template is for conversations and preferences"),
        (settings(rows, tmp_path / "x", class_weights="balanced"), "--class-weights is for classes"),
        (settings(data, tmp_path / "x", score_generated=True), "--score-generated is for written answers"),
        (settings(data, tmp_path / "x", beta=0.2), "--beta is for preferences"),
    ):
        with pytest.raises(UserError, match=words):
            finetune(attempt)
        assert not (tmp_path / "x" / "train.json").exists()


def test_matrices_that_are_split_are_refused_where_whole_ones_are_measured(tmp_path: Path) -> None:
    rows, split = jsonl(tmp_path / "p.jsonl", pairs(12)), {"tensor": 2}
    asked = settings(rows, tmp_path / "x", **split)
    with pytest.raises(UserError, match=r"--tensor splits matrices.* measured on whole ones"):
        require_whole(asked, wanted_task(asked))
    named = settings(reviews(tmp_path / "r.csv"), tmp_path / "x", **split)
    require_whole(named, wanted_task(named))


@pytest.mark.parametrize(
    ("task", "row", "module", "package"),
    [
        ("classify", {"text": "a film", "label": "good"}, "sklearn", "scikit-learn"),
        ("summarise", {"article": "a film", "summary": "good"}, "rouge_score", "rouge-score"),
        ("translate", {"source": "ein Film", "target": "a film"}, "sacrebleu", "sacrebleu"),
    ],
)
def test_a_package_that_the_scores_need_is_asked_for_before_any_work(
    task: str, row: dict[str, str], module: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = jsonl(tmp_path / "data.jsonl", [row])
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr("hornbook.training.finetune.prepare", lambda *_: pytest.fail("work was done"))
    with pytest.raises(UserError, match=rf"'{package}': .*hornbook\[tasks\]"):
        finetune(settings(data, tmp_path / "run", task=task))
    with pytest.raises(UserError, match=rf"'{package}'"):
        settled(Evaluate("some-run", str(data), task=task))
    if task == "classify":  # its own figures need nothing
        assert settled(Evaluate("some-run", str(data), task=task, baselines=False))[1]


def told_of(run: Path, capsys: pytest.CaptureFixture[str], *more: str) -> float:
    """The log loss that `hornbook evaluate RUN --json` prints."""
    main(["evaluate", str(run), "--json", *more])
    return float(json.loads(capsys.readouterr().out)["figures"]["log_loss"]["value"])


def test_the_command_line_teaches_measures_and_shows_mistakes(
    taught: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run, data = taught
    main(["evaluate", str(run)])
    assert "classify, test: 12 examples\n" in capsys.readouterr().out
    exact, rounded = (told_of(run, capsys, *more) for more in ((), ("--precision", "bfloat16")))
    assert 0 < abs(exact - rounded) < 0.05 * exact  # eight bits of every factor: 0.4 % each
    main(["evaluate", str(run), "--precision", "bfloat16"])
    assert "12 examples; computed in bfloat16" in capsys.readouterr().out
    main(["evaluate", str(run), str(data), "--split", "all", "--show", "2", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["examples"] == 120
    assert found["baselines"]["majority class"]["accuracy"]["value"] == 0.5
    kept = json.loads((run / "evaluations" / "classify-all.json").read_text())
    assert sum(map(sum, kept["confusion"])) == 120
    wrong = 120 - sum(kept["confusion"][i][i] for i in range(2))
    assert len(found["mistakes"]) == min(2, wrong)
    with pytest.raises(SystemExit) as leaving:
        main(["generate", str(run), "The film"])
    assert leaving.value.code == 2
    assert "tells classes apart" in capsys.readouterr().err


def test_where_there_are_no_mistakes_a_line_says_so(
    taught: tuple[Path, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hornbook.evaluation.mistakes.is_right", lambda *_: True)
    main(["evaluate", str(taught[0]), "--limit", "5", "--show", "3"])
    assert capsys.readouterr().out.endswith("no mistakes to show: every example is right\n")
    main(["evaluate", str(taught[0]), "--limit", "5"])
    assert "no mistakes" not in capsys.readouterr().out


def test_translations_are_scored_with_sacrebleu_s_signature(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sacrebleu")
    data = jsonl(tmp_path / "pairs.jsonl", [{"source": f"eins {n}", "target": f"one {n}"} for n in range(30)])
    summary = finetune(settings(data, tmp_path / "run", tokenizer="bytes", vocab=None, steps=1, eval_examples=2))
    bleu = "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:"
    assert summary["scores"]["signatures"]["bleu"].startswith(bleu)
    main(["evaluate", str(tmp_path / "run")])
    assert f"bleu: {bleu}" in capsys.readouterr().out
