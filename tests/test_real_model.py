"""A real model (SmolLM2-135M, from GGUF) is itself here, answers, and is itself again wherever it is written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

import hornbook
from hornbook.checkpoint import load
from hornbook.config import Generate
from hornbook.generation.stream import continuation, prompt_ids, stream_tokens

PROMPT = "The three primary colours are"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model as a Hugging Face folder of ours."""
    files = sorted(Path(os.environ.get("HORNBOOK_DATA", "nowhere"), "smollm2-135m").glob("*.gguf"))
    if not files:
        pytest.skip("HORNBOOK_DATA names no folder with smollm2-135m")
    target = tmp_path_factory.mktemp("smollm2") / "run"
    hornbook.import_model(str(files[0]), str(target))
    return target


@pytest.mark.slow
def test_transformers_writes_the_same_text(folder: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = load(folder)
    ids = prompt_ids(model, PROMPT)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert tokenizer(PROMPT)["input_ids"] == ids
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder)
    found = theirs.generate(torch.tensor([ids]), max_new_tokens=30, do_sample=False)[0, len(ids) :].tolist()
    assert list(stream_tokens(model, ids, 30, temperature=0)) == found


@pytest.mark.slow
def test_a_question_is_answered_through_the_models_own_template(folder: Path) -> None:
    model = load(folder)
    settings = Generate("", chat=True, tokens=12, temperature=0)
    assert "Paris" in "".join(continuation(model, "What is the capital of France?", settings))


@pytest.mark.slow
def test_the_doctor_finds_nothing_wrong(folder: Path) -> None:
    findings = hornbook.examine(str(folder))
    assert [finding.name for finding in findings if finding.verdict == "FAIL"] == []
    assert sum(finding.verdict == "PASS" for finding in findings) > 15
