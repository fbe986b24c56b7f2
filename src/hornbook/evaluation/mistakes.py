"""Mistakes worth a look: where a model was sure and wrong, or its text furthest from what was asked."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from hornbook.atomic import write_json
from hornbook.evaluation.judging import Judged
from hornbook.scoring.classes import calibration_curve, confusion
from hornbook.tasks import Asked, Choice, Dialogue, Labelled, LastWord, Preference
from hornbook.tasks.classify import class_names, complete

LONGEST = 600
"""Characters of a text that are shown."""
KEPT, SAMPLES, POINTS = 20, 5, 2000
"""What a run keeps of an evaluation: mistakes, outputs, and lengths with their marks."""
FOLDER = "evaluations"
BEST = {"sentence_chrf": 100.0, "log_prob": math.inf}
"""Marks whose highest value is not 1; of a conversation's likelihood there is none."""


def mistakes(judged: Judged, most: int) -> list[dict[str, Any]]:
    """The worst examples, the worst first: text, truth, output, and how sure or how far off it was."""
    order = sorted(range(len(judged.examples)), key=lambda i: badness(judged, i), reverse=True)
    return [told(judged, i) for i in order if not is_right(judged, i)][:most]


def is_right(judged: Judged, i: int) -> bool:
    """Whether there is nothing to mend: by the headline, or where that is no mark of an example by the first one."""
    mark = judged.marks[i]
    name = judged.task.headline if judged.task.headline in mark else next(iter(mark))
    return mark[name] >= BEST.get(name, 1.0)


def badness(judged: Judged, i: int) -> float:
    """The larger, the worse; comparable within a task."""
    example, output = judged.examples[i], judged.outputs[i]
    if isinstance(example, Labelled):
        return -float(output.get(example.label, 0.0))
    if isinstance(example, Choice):
        each = per_character(example, output)
        return max(each) - each[example.answer]
    if isinstance(example, LastWord):
        return -float(output[0])
    if isinstance(example, Dialogue):
        return -output[0] / max(1, output[1])
    if isinstance(example, Preference):
        return float(output[1] - output[0])
    return -next(iter(judged.marks[i].values()))


def per_character(example: Choice, output: Any) -> list[float]:
    """What the headline chooses by: the log-probability of each ending over its length."""
    return [nats / len(end) for (nats, _), end in zip(output, example.endings, strict=True)]


def told(judged: Judged, i: int) -> dict[str, Any]:
    """One example in words."""
    example, output = judged.examples[i], judged.outputs[i]
    if isinstance(example, Labelled):
        taken = max(output, key=output.__getitem__)
        said = {"text": short(example.text), "truth": example.label, "prediction": taken}
        return said | {"confidence": f"{output[taken]:.3f}"}
    if isinstance(example, Choice):
        taken = max(range(len(output)), key=per_character(example, output).__getitem__)
        said = {"text": short(example.prompt), "truth": example.endings[example.answer]}
        said |= {"prediction": example.endings[taken]}
        return said | {"confidence": f"{badness(judged, i):.3f} nats a character more"}
    if isinstance(example, LastWord):
        return {"text": short(example.prompt), "truth": example.word, "log-probability": f"{output[0]:.2f}"}
    if isinstance(example, Asked):
        said = {name: short(value) for name, value in example.fields.items()}
        return said | {"truth": short(example.answer), "output": short(str(output))} | figures(judged, i)
    if isinstance(example, Dialogue):
        return {message["role"]: short(message["content"]) for message in example.messages} | figures(judged, i)
    said = {"text": short(example.messages[-1]["content"]), "chosen": short(example.chosen)}
    return said | {"rejected": short(example.rejected), "nats for the wrong one": f"{badness(judged, i):.2f}"}


def figures(judged: Judged, i: int) -> dict[str, str]:
    return {name.replace("_", " "): f"{value:.3f}" for name, value in judged.marks[i].items()}


def short(text: str) -> str:
    """The beginning and the end of a long text."""
    half = LONGEST // 2
    return text if len(text) <= LONGEST else f"{text[:half]} [...] {text[-half:]}"


def details(judged: Judged) -> dict[str, Any]:
    """All that a page shows of an evaluation."""
    found = judged.summary() | {"mistakes": mistakes(judged, KEPT), "lengths": lengths(judged)}
    found["mark"] = next(iter(judged.marks[0]))
    if judged.task.kind is Labelled:
        names = class_names(judged.examples)
        known = [complete(output, names) for output in judged.outputs]
        labels = list(known[0])
        chances = [[output[label] for label in labels] for output in known]
        truth = [example.label for example in judged.examples]
        matrix = confusion(chances, labels, truth).tolist()
        curve = [vars(point) for point in calibration_curve(chances, labels, truth)]
        return found | {"labels": labels, "confusion": matrix, "calibration": curve}
    step = max(1, len(judged.examples) // SAMPLES)
    return found | {"samples": [told(judged, i) for i in range(0, len(judged.examples), step)][:SAMPLES]}


def lengths(judged: Judged) -> list[tuple[int, float]]:
    """(characters of the input, first mark) of at most POINTS examples, evenly chosen."""
    kept = np.linspace(0, len(judged.examples) - 1, min(POINTS, len(judged.examples))).astype(int)
    return [(size(judged.examples[i]), float(next(iter(judged.marks[i].values())))) for i in kept]


def size(example: Any) -> int:
    """Characters of what is read."""
    if isinstance(example, Asked):
        return sum(map(len, example.fields.values()))
    if isinstance(example, Dialogue | Preference):
        return sum(len(message["content"]) for message in example.messages)
    return len(example.text if isinstance(example, Labelled) else example.prompt)


def keep(judged: Judged, run: str) -> Path | None:
    """Write the details into a run's folder, for its page; nowhere where `run` is no run of ours."""
    folder = Path(run).expanduser()
    if not (folder / "train.json").is_file():
        return None
    path = folder / FOLDER / f"{judged.task.name}-{judged.split}.json"
    try:
        path.parent.mkdir(exist_ok=True)
        write_json(path, details(judged))
    except OSError:  # a folder that is only read: the page will do without
        return None
    return path
