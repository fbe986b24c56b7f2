"""`hornbook prepare`: a corpus as a folder of shards, written in parallel, that training reads from anywhere.

    corpus.json      what there is, written last;  tokenizer/    what its ids mean
    prepare.json     what was asked for
    train/00000.safetensors    a part, as data/shards.py has it
    train/00000.json           that it is whole, and of which text

The parts of a split, joined so that the separator at a joint counts once, are what one shard of it all would be.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from hornbook.config import Prepare
from hornbook.data.encoding import Done, setup_of
from hornbook.data.engines import Engine, Processes, Rays, carried_out
from hornbook.data.parts import Digests, Part, cut
from hornbook.data.places import Place
from hornbook.data.prepared import FACTS, FORM
from hornbook.data.shards import separator_of
from hornbook.errors import UserError
from hornbook.proc import read_kilobytes
from hornbook.progress import Bar, say
from hornbook.text.corpora import Corpus, open_corpus
from hornbook.text.fast import THREADS
from hornbook.text.space import gigabytes, require_space
from hornbook.text.splits import SPLITS
from hornbook.text.tokenizer_store import obtain_tokenizer
from hornbook.text.tokenizer_training import KINDS
from hornbook.text.tokenizers import Tokenizer, load_tokenizer

PLAN = "prepare.json"
SAMPLE = 1_000_000
"""Bytes of text by which it is judged how many tokens there will be."""
OUTSIDE = ("text",)
"""What a part's own record says beyond corpus.json."""


@dataclass
class Preparation:
    """What was done."""

    parts: dict[str, list[dict[str, Any]]]
    """By split, as corpus.json lists them."""
    duplicates: dict[str, int]
    """Documents left out by split; empty without --dedup."""
    again: int = 0
    """Parts that were there already."""
    peak: int = 0
    """The most bytes that this process had in memory, 0 where the system does not say."""
    worker_peak: int = 0
    """The same of the largest worker."""


@dataclass
class Progress:
    """How far it is, for the bar."""

    total: float
    read: int = 0
    encoded: int = 0
    began: float = field(default_factory=time.monotonic)

    def show(self, bar: Bar, size: int, done_now: bool) -> None:
        self.read += size
        self.encoded += size * done_now
        total = math.inf if math.isnan(self.total) else max(self.total, self.read)
        rate = self.encoded / max(1e-3, time.monotonic() - self.began) / 1e6
        bar.show(self.read, total, f"{gigabytes(self.read)}  {rate:.1f} MB/s")


def prepare_corpus(settings: Prepare) -> Preparation:
    """Write, or carry on, a prepared corpus. Raises UserError; KeyboardInterrupt leaves the parts that are whole."""
    corpus, place = open_corpus(settings.data, settings.column), Place(settings.out)
    earlier = plan_in(place)
    tokenizer = chosen_tokenizer(settings, corpus, place, earlier)
    plan = {
        "version": FORM,
        "asked": [settings.tokenizer, settings.vocab],
        "tokenizer": tokenizer.hash,
        "part_size": settings.part_bytes,
        "dedup": settings.dedup,
    }
    check_plan(earlier, plan, place)
    duplicates: Counter[str] = Counter()
    parts = cut(corpus.stream(), settings.part_bytes, Digests() if settings.dedup else None, duplicates)
    if (first := next(parts, None)) is None:
        raise UserError(f"there is no document in {corpus.name}")
    say(f"{corpus.name}: {corpus.licence}; {corpus.source}")
    if earlier is None:
        check_room(place, first, corpus.volume(), tokenizer)
    with place.held():
        check_plan(plan_in(place), plan, place)
        place.write(PLAN, (json.dumps(plan) + "\n").encode())
        save_tokenizer(tokenizer, place)
        found = encode_all(settings, chain([first], parts), corpus, place, tokenizer)
        if settings.dedup:
            found.duplicates = {name: duplicates[name] for name in SPLITS if name in found.parts or duplicates[name]}
        place.write(FACTS, told(found, corpus, tokenizer))
    found.peak = read_kilobytes("/proc/self/status", "VmHWM")
    return found


def encode_all(
    settings: Prepare, parts: Iterator[Part], corpus: Corpus, place: Place, tokenizer: Tokenizer
) -> Preparation:
    """Have all parts that are not there yet encoded."""
    whole, progress, done = records_in(place), Progress(corpus.volume()), dict[str, dict[str, Any]]()
    found = Preparation({}, {})
    if whole:
        say(f"{place.name} has {len(whole)} whole part{'s' * (len(whole) > 1)}: they are not done again")

    def missing(bar: Bar) -> Iterator[Part]:
        for part in parts:
            record = whole.pop(f"{part.name}.json", None)
            if record is None:
                yield part
                continue
            if record["text"] != part.fingerprint:
                raise other_text(place, part.name)
            done[record["file"]] = record
            found.again += 1
            progress.show(bar, len(part.text), done_now=False)

    with Bar(f"preparing {corpus.name}") as bar, closing(worked_off(settings, missing(bar), place, tokenizer)) as ended:
        for one in ended:
            done[one.record["file"]] = one.record
            found.worker_peak = max(found.worker_peak, one.peak)
            progress.show(bar, one.record["text_bytes"], done_now=True)
    if whole:
        raise other_text(place, next(iter(whole)).removesuffix(".json"))
    for split in SPLITS:
        names = sorted((name for name in done if name.startswith(f"{split}/")), key=lambda name: (len(name), name))
        if names:
            found.parts[split] = [{k: v for k, v in done[n].items() if k not in OUTSIDE} for n in names]
    return found


def worked_off(settings: Prepare, parts: Iterator[Part], place: Place, tokenizer: Tokenizer) -> Generator[Done]:
    """What came of each part. The engine is begun with the first."""
    if (first := next(parts, None)) is None:
        return
    setup, engine = setup_of(place, tokenizer), None
    try:
        engine = started(settings, setup)
        for one in carried_out(chain([first], parts), engine):
            if place.folder is not None and not (place.folder / one.record["file"]).exists():
                raise UserError(
                    f"{place.name} is another folder for some workers: name one on a shared disk, or s3://..."
                )
            yield one
    finally:
        if engine is not None:
            engine.close()


def started(settings: Prepare, setup: Any) -> Engine:
    if settings.engine == "ray":
        return Rays(settings.workers, THREADS, setup)
    return Processes(settings.workers or THREADS, setup)


def chosen_tokenizer(settings: Prepare, corpus: Corpus, place: Place, earlier: dict[str, Any] | None) -> Tokenizer:
    """The one that is asked for. What was trained for this place already is not trained again."""
    trained = (earlier or {}).get("asked") == [settings.tokenizer, settings.vocab]
    if trained and settings.tokenizer in KINDS:
        return saved_tokenizer(place)
    tokenizer = obtain_tokenizer(settings.tokenizer, corpus, settings.vocab)
    separator_of(tokenizer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, place: Place) -> None:
    with tempfile.TemporaryDirectory(prefix="hornbook-") as folder:
        tokenizer.save(folder)
        for file in sorted(Path(folder).iterdir(), reverse=True):  # tokenizer.json, by which it is known, comes last
            place.write(f"tokenizer/{file.name}", file.read_bytes())


def saved_tokenizer(place: Place) -> Tokenizer:
    with tempfile.TemporaryDirectory(prefix="hornbook-") as folder:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (Path(folder) / name).write_bytes(place.read(f"tokenizer/{name}"))
        return load_tokenizer(folder)


def plan_in(place: Place) -> dict[str, Any] | None:
    """What was asked for in a place where something was prepared before. UserError where something else is there."""
    names = place.names()
    if PLAN not in names:
        if names:
            raise UserError(f"{place.name} holds other things, {min(names)} say: give the name of a new folder")
        return None
    return read_json(place, PLAN)


def check_plan(earlier: dict[str, Any] | None, plan: dict[str, Any], place: Place) -> None:
    """UserError where a place has parts that this plan would not make."""
    words = {"version": "by another version", "tokenizer": "with another tokeniser"}
    words["part_size"] = f"with --part-size {(earlier or plan).get('part_size')}"
    words["dedup"] = f"with{'' if (earlier or plan).get('dedup') else 'out'} --dedup"
    for key, difference in words.items():
        if earlier is not None and earlier.get(key) != plan[key]:
            raise UserError(f"{place.name} was begun {difference}: ask for the same, or choose another --out")


def records_in(place: Place) -> dict[str, dict[str, Any]]:
    """The records of the parts that are whole, by name."""
    names = place.names()
    found = {}
    for name in names:
        if name.startswith(tuple(f"{split}/" for split in SPLITS)) and name.endswith(".json"):
            record = read_json(place, name)
            if names.get(record.get("file", "")) == record.get("size"):
                found[name] = record
    return found


def read_json(place: Place, name: str) -> dict[str, Any]:
    try:
        found = json.loads(place.read(name))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UserError(f"{place.name}/{name} is damaged: remove {place.name}, and prepare the corpus again")
    return found


def other_text(place: Place, part: str) -> UserError:
    return UserError(f"{place.name} has parts of another text, {part} say: choose another --out, or remove it")


def check_room(place: Place, first: Part, volume: float, tokenizer: Tokenizer) -> None:
    """UserError where the disk of a folder has no room for all tokens, judged by the beginning of the first part."""
    if place.folder is None:
        return
    text = first.text[:SAMPLE].decode(errors="ignore")
    tokens = len(tokenizer.encode(text)) / len(text.encode())
    share = len(first.ends) / len(first.text)  # documents to a byte
    width = 2 if tokenizer.vocab <= 2**16 else 4
    size = max(len(first.text), 0 if math.isnan(volume) else volume)
    require_space(place.folder, size * ((tokens + share) * width + 24 * share), f"{place.name}: the corpus as tokens")


def told(found: Preparation, corpus: Corpus, tokenizer: Tokenizer) -> bytes:
    """corpus.json."""
    facts: dict[str, Any] = {"version": FORM, "name": corpus.name, "licence": corpus.licence, "source": corpus.source}
    facts |= {"tokenizer": tokenizer.hash, "vocab": tokenizer.vocab, "separator": tokenizer.eos, "splits": found.parts}
    if found.duplicates:
        facts["duplicates"] = found.duplicates
    return (json.dumps(facts, indent=1) + "\n").encode()
