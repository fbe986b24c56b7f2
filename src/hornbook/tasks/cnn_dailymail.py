"""CNN/DailyMail (Hermann et al. 2015; See et al. 2017, version 3.0.0): news, and their highlights, a sentence a line.

287,113 articles to train on, 13,368 to validate and 11,490 to test on, from the Hub; or from train.jsonl,
validation.jsonl and test.jsonl in $HORNBOOK_DATA/cnn-dailymail. Where that folder has a sample and none of these, 1,000
articles of the validation split and 100 of train, the 1,000 are divided by the hash of their text: 800 to train on, 100
to validate and 100 to test on, whatever the seed; the 100 of train are trained on too. Validation and test are
shuffled: as published, one newspaper comes before the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hornbook.tasks import SPLITS, Asked, Source, Task, no_file, require, require_split
from hornbook.tasks.summarise import article, pairs, summaries
from hornbook.text.files import Row, records
from hornbook.text.published import hub_rows, local
from hornbook.text.rows import shuffled, split_rows

LICENCE = "for research; the articles are their publishers'"
DATASET, FOLDER, VERSION = "abisee/cnn_dailymail", "cnn-dailymail", "3.0.0"
SAMPLE = "validation-1000.jsonl"
MORE = "train-100.jsonl"


def task(source: Source) -> Task:
    """The published set."""
    no_file(source, "cnn-dailymail", "summarise")
    require(source, "cnn-dailymail")
    return summaries("cnn-dailymail", examples)


def examples(split: str) -> Iterator[Asked]:
    """The articles of a split."""
    require_split(split, "cnn-dailymail", SPLITS)
    if path := local(FOLDER, *files(split)):
        found = both(records(str(path)))
    elif (sample := local(FOLDER, SAMPLE)) and not any(local(FOLDER, *files(name)) for name in SPLITS):
        return iter(divided(str(sample), split))
    else:
        found = both(hub_rows(DATASET, VERSION, split, f"{FOLDER}/{split}.jsonl"))
    return found if split == "train" else iter(shuffled(found))


def files(split: str) -> tuple[str, str]:
    """What a whole split is called."""
    return f"{split}.jsonl", f"{split}.jsonl.gz"


def divided(sample: str, split: str) -> list[Asked]:
    """A split of the sample."""
    rows = list(both(records(sample)))
    found = split_rows(rows, split, key=article, name=sample)
    more = local(FOLDER, MORE) if split == "train" else None
    return found + [one for one in both(records(str(more))) if one not in rows] if more else found


def both(rows: Iterable[Row]) -> Iterator[Asked]:
    """The examples that have an article and highlights: all but a few."""
    return (example for example in pairs(rows, "article", "highlights") if example is not None)
