"""Class heads: what they read, what a folder says of them, and that Hugging Face's classes agree."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from folders import folder_of, speaking
from helpers import EOS, PAD, tiny_model
from hornbook import models
from hornbook.adapt.lora import adapt, merge
from hornbook.adapt.quantization import prepare, quantization_of
from hornbook.checkpoint import load, save_model
from hornbook.cli import main
from hornbook.config import Adapter
from hornbook.errors import UserError
from hornbook.formats.config_json import read_config
from hornbook.generation.engine import Engine
from hornbook.layers.class_head import give_class_head, judged_places
from hornbook.layers.model import LanguageModel
from hornbook.training.objective import ClassObjective

LABELS = ("neg", "neutral", "pos")
NEURAL = [name for name in models.families() if not tiny_model(name).counted]


def classifier(family: str) -> LanguageModel:
    """Tiny, with a head that says something."""
    model = give_class_head(tiny_model(family), LABELS)
    with torch.no_grad():
        for parameter in model.class_head.parameters():  # type: ignore[union-attr]
            parameter.normal_()
    return model


def judged(model: LanguageModel, tokens: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
    hidden = model.hidden(tokens, segments=segments)
    places = judged_places(tokens, segments, model.causal)
    return model.class_logits(hidden[torch.arange(len(tokens)), places])


ROWS = torch.tensor([[5, 6, 7, 8, 9, 10], [11, 12, 13, PAD, PAD, PAD]])
SEGMENTS = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])


@pytest.mark.parametrize("family", NEURAL)
def test_a_fresh_head_finds_every_class_as_likely(family: str) -> None:
    model = give_class_head(tiny_model(family), LABELS)
    targets = torch.full_like(ROWS, -100)
    targets[0, -1 if model.causal else 0] = 2
    nats, count = ClassObjective(model)(ROWS, targets, SEGMENTS)
    assert int(count) == 1
    assert float(nats.detach()) == pytest.approx(math.log(3), rel=1e-6)


@pytest.mark.parametrize("family", NEURAL)
def test_a_classifier_comes_back_as_it_was_saved(family: str, tmp_path: Path) -> None:
    model = classifier(family)
    save_model(tmp_path / "m", model, None)
    back = load(tmp_path / "m")
    assert back.config.labels == LABELS
    assert torch.equal(judged(model, ROWS, SEGMENTS), judged(back, ROWS, SEGMENTS))
    assert sum(p.numel() for p in back.parameters()) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    "family", [name for name in NEURAL if not models.family(name).HF["model_type"].startswith("hornbook")]
)
def test_hugging_face_classifies_a_padded_batch_alike(family: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = classifier(family)
    save_model(tmp_path / "m", model, None)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "m").eval()
    assert list(theirs.config.id2label.values()) == list(LABELS)
    with torch.no_grad():
        found = theirs(ROWS, attention_mask=SEGMENTS).logits
    assert torch.allclose(found, judged(model, ROWS, SEGMENTS), atol=2e-5)


def test_the_class_is_read_from_the_last_real_token_of_a_decoder_and_an_encoder_s_first() -> None:
    assert judged_places(ROWS, SEGMENTS, causal=True).tolist() == [5, 2]
    assert judged_places(ROWS, SEGMENTS, causal=False).tolist() == [0, 0]


def test_a_classifier_predicts_no_tokens_and_says_so() -> None:
    model = classifier("llama")
    for attempt in (lambda: model(ROWS), lambda: Engine(model), lambda: model.require_tokens()):
        with pytest.raises(UserError, match="tells classes apart"):
            attempt()


SAID = {"gpt2": "tells classes apart", "bert": "fills in gaps"}


@pytest.mark.parametrize("family", SAID)
@pytest.mark.parametrize("command", [["generate", "RUN", "a"], ["chat", "RUN"]])
def test_what_writes_text_refuses_a_classifier_in_one_line(
    family: str, command: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("hello\n"))
    folder = folder_of(give_class_head(speaking(family), LABELS), tmp_path / "m")
    with pytest.raises(SystemExit) as stop:
        main([str(folder) if word == "RUN" else word for word in command])
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("hornbook: ")]
    assert stop.value.code == 2
    assert SAID[family] in line


def test_a_counted_model_gets_no_class_head() -> None:
    with pytest.raises(UserError, match="counted"):
        give_class_head(tiny_model("ngram"), LABELS)


def test_a_foreign_classifier_without_named_labels_has_numbered_ones(tmp_path: Path) -> None:
    save_model(tmp_path / "m", classifier("llama"), None)
    spelled = json.loads((tmp_path / "m" / "config.json").read_text())
    del spelled["id2label"], spelled["label2id"]
    (tmp_path / "m" / "config.json").write_text(json.dumps(spelled | {"num_labels": 3}))
    assert read_config(tmp_path / "m").labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    (tmp_path / "m" / "config.json").write_text(json.dumps(spelled | {"id2label": {"0": "only"}}))
    with pytest.raises(UserError, match="two or more"):
        read_config(tmp_path / "m")
    (tmp_path / "m" / "config.json").write_text(json.dumps(spelled | {"problem_type": "multi_label_classification"}))
    with pytest.raises(UserError, match="problem_type multi_label_classification: only single_label"):
        read_config(tmp_path / "m")


def test_a_class_head_stays_as_it_is_when_the_rest_is_quantised() -> None:
    model = classifier("llama")
    how = quantization_of(8)
    assert how is not None
    assert isinstance(prepare(model, how).class_head.output, nn.Linear)  # type: ignore[union-attr]


def test_an_adapter_s_folder_holds_the_class_head_for_us_and_for_peft(tmp_path: Path) -> None:
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    base = tiny_model("llama")
    save_model(tmp_path / "base", base, None)
    model = adapt(base, Adapter(4, 8.0, base=str(tmp_path / "base")))
    give_class_head(model, LABELS)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.1 if "class_head" not in name else 1.0)
    save_model(tmp_path / "adapter", model, None)
    mine = judged(model, ROWS, SEGMENTS)
    assert torch.allclose(judged(load(tmp_path / "adapter"), ROWS, SEGMENTS), mine, atol=1e-6)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=3)
    whole = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter").eval()
    whole.config.pad_token_id = PAD
    with torch.no_grad():
        assert torch.allclose(whole(ROWS, attention_mask=SEGMENTS).logits, mine, atol=2e-5)
    assert torch.allclose(judged(merge(model), ROWS, SEGMENTS), mine, atol=1e-5)
    assert EOS not in ROWS
