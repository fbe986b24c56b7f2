"""A real model (SmolLM2-135M, from GGUF) is itself here, answers, and is itself again wherever it is written."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
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
    assert "Paris" in continuation(model, "What is the capital of France?", settings)


@pytest.mark.slow
def test_the_doctor_finds_nothing_wrong(folder: Path) -> None:
    findings = hornbook.examine(str(folder))
    assert [finding.name for finding in findings if finding.verdict == "FAIL"] == []
    assert sum(finding.verdict == "PASS" for finding in findings) > 15


LLAMA_CPP = """
import json, sys
import llama_cpp
model = llama_cpp.Llama(sys.argv[1], n_ctx=256, logits_all=True, verbose=False)
for text in sys.argv[2:]:
    ids = model.tokenize(text.encode(), add_bos=False, special=False)
    model.reset()
    model.eval(ids)
    print(json.dumps([ids, [float(x) for x in model.scores[len(ids) - 1]]]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_llama_cpp_agrees_about_a_file_that_we_write(kind: str, folder: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("llama_cpp") is None:
        pytest.skip("llama-cpp-python is not installed (it is built from source)")
    model, texts = load(folder), [PROMPT, "In the year 1066", "def fibonacci(n):\n"]
    hornbook.export(str(folder), str(tmp_path / "x.gguf"), type=kind)
    # In a process of its own: its threads and PyTorch's do not live together.
    command = [sys.executable, "-c", LLAMA_CPP, str(tmp_path / "x.gguf"), *texts]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == -signal.SIGILL:
        pytest.skip("this build of llama.cpp calls for instructions that this processor does not let it use")
    for text, line in zip(texts, done.stdout.splitlines(), strict=True):
        ids, logits = json.loads(line)
        assert ids == model.tokenizer.encode(text)
        with torch.inference_mode():
            ours = model(torch.tensor([ids]))[0, -1]
        theirs = torch.tensor(logits)
        assert int(theirs.argmax()) == int(ours.argmax())
        assert set(ours.topk(3).indices.tolist()) <= set(theirs.topk(5).indices.tolist())
