"""HellaSwag (Zellers et al. 2019): how does a scene, or a set of instructions, go on? One of four endings is the true
one, three were written by a machine.

Two protocols. `harness` is that of EleutherAI's lm-evaluation-harness (task hellaswag, version 1), by which published
figures compare: the prompt is `label: context`, the part of the context that the ending continues begins with a
capital, marks such as [title] go; its acc is our accuracy, its acc_norm our accuracy_per_character. `plain` leaves the
texts as they are; by it (accuracy_per_token) the tutorials that retrain GPT-2 measure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

from hornbook.errors import UserError, unknown
from hornbook.tasks import Choice, Source, Task, no_file, require, require_split
from hornbook.tasks.multiple_choice import choices
from hornbook.text.files import records
from hornbook.text.published import obtain

LICENCE = "MIT"
PROTOCOLS = ("harness", "plain")
REVISION = "a29ff8e9a04bba4bd6588223785ce105328adc57"
ADDRESSES = (
    f"https://raw.githubusercontent.com/rowanz/hellaswag/{REVISION}/data",
    f"https://cdn.jsdelivr.net/gh/rowanz/hellaswag@{REVISION}/data",
)
FILES = {  # split: name, SHA-256
    "train": ("hellaswag_train.jsonl", "dae5e69249868cb9fe4e23ff925c60b66169564cfb7072d793cd7356a2b69f8d"),
    "validation": ("hellaswag_val.jsonl", "0aa3b88843990f3f10a97b9575c94d7b71fb2205240ba04ae4884d9e9c992588"),
}
SAMPLES = {"train": "train-sample-1000.jsonl", "validation": "val-sample-1000.jsonl"}


def task(source: Source) -> Task:
    """The published set; the option `protocol` is harness unless given."""
    no_file(source, "hellaswag", "multiple-choice")
    require(source, "hellaswag", options=("protocol",))
    protocol = source.options.get("protocol", "harness")
    if protocol not in PROTOCOLS:
        raise unknown("protocol", protocol, PROTOCOLS)
    return choices("hellaswag", partial(examples, protocol), splits=tuple(FILES), chance=0.25)


def examples(protocol: str, split: str) -> Iterator[Choice]:
    """The items of a split: 10,042 to validate on, 39,905 to train on; the answers of the test split are not public.

    They come from $HORNBOOK_DATA/hellaswag (the published file, or a sample) or are downloaded. A sample that lacks the
    labels gives prompts without them, so that its figures are near to the harness's, not equal.
    """
    require_split(split, "hellaswag", tuple(FILES))
    name, sha256 = FILES[split]
    path = obtain("hellaswag", name, ADDRESSES, sha256, also=(SAMPLES[split],))
    for row in records(str(path)):
        try:
            yield choice(row, protocol)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise UserError(f"{row.where} is no item of HellaSwag: {type(error).__name__} {error}") from None


def choice(row: dict[str, Any], protocol: str) -> Choice:
    """One line of the published file."""
    answer, endings = int(row["label"]), tuple(map(str, row["endings"]))
    endings[answer]  # an IndexError for a label that no ending has
    if protocol == "plain":
        return Choice(row["ctx"], endings, answer)
    prompt = row["ctx"]
    if "ctx_a" in row:
        prompt = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
    return Choice(clean(prompt), tuple(map(clean, endings)), answer)


def clean(text: str) -> str:
    """Without the marks that WikiHow's pages left, as the harness does it, whatever spaces remain."""
    unmarked = re.sub(r"\[[^]]*\]", "", text.strip().replace(" [title]", ". "))
    return unmarked.replace("  ", " ")
