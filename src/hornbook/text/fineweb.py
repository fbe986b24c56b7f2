"""FineWeb-Edu (Penedo et al. 2024): web pages that a classifier found educational; its sample of 10 billion tokens.

9,672,101 pages in 14 parquet files. To validate on are the first 5,000 of the first file, or the first tenth of a small
file, so that measuring needs one file only; to train on are all others.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hornbook.atomic import write_json
from hornbook.progress import Bar, say
from hornbook.text.corpus import Corpus, Measure
from hornbook.text.home import data_folder, home
from hornbook.text.hub import mirrors
from hornbook.text.resuming import download_resuming, is_whole, part_of
from hornbook.text.row_groups import rows, texts
from hornbook.text.space import gigabytes, require_space

DATASET = "HuggingFaceFW/fineweb-edu"
REVISION = "87f09149ef4734204d70ed1d046ddc9ca3f2b8f9"
FOLDER = "sample/10BT"
LICENCE = "ODC-By 1.0, under Common Crawl's terms of use"
HELD_OUT = 5000
"""Documents to validate on, about 5 million tokens."""

FILES = {  # name: bytes, SHA-256
    "000_00000.parquet": (2152819114, "b1ba7b2ce4cb5ea6ef42dca40263eabb85f37700d01693a68e9b30a31d78e871"),
    "001_00000.parquet": (2152222432, "3fcf2dc69cd52503986276d3d2d26a8c356d0f2ea28a0de4fdbda8cf87755693"),
    "002_00000.parquet": (2151796315, "547ae182d132c9f06b6ce63149567208ea9f57630bfd9b1a2938e504f0c9ebd7"),
    "003_00000.parquet": (2152437524, "22184e6eb25759ddd97783751ffc73e1705dfa2542e630dae1f2a8bac8ee6ddb"),
    "004_00000.parquet": (2152338550, "33557ddd87a07a4ae6fcaf7a4789c7b484e5cc0c273ca12a65b74200e6d8748b"),
    "005_00000.parquet": (2152189947, "e08d79927ecb377786572cd854817c748ceb8880878b1a0eb91abf8c85d505ea"),
    "006_00000.parquet": (2152689867, "554fa2613c9261d6c9c396caab881de3160175794c6c3e1856bf28a0e9cb9b76"),
    "007_00000.parquet": (2150686637, "4b7d1f697d4afff7f5f65cb7aa4d83acc6db716da4d46ea23399d0c50608c6e3"),
    "008_00000.parquet": (2151274846, "a6d9dcc0c72ecd7c7f0173c2d06b3a4249a2ccaa94961469d1a522ca689bbf1a"),
    "009_00000.parquet": (2151913277, "f836cd3c70b95776699eb6c356b2dbf702816e25dcf39992f5c80a29029d23c3"),
    "010_00000.parquet": (2152798864, "e5a2eae25f057f0856a10bfae314c6ca8ea8bb08456d2131e9e89b2b8305e2f6"),
    "011_00000.parquet": (2152323681, "db71cf0425bb3d1813a09f12ff1acd6dabdfb91a2e4f141960254ee5a7f036e7"),
    "012_00000.parquet": (2152069689, "08b47a3e1c25161f796d2f8dbf99ccf60affdebdcea4910833d0d5783315551f"),
    "013_00000.parquet": (540632672, "b393f51fefab26cd6f4c8f65707c1924f6666c4961a0ebebe04bb57f7ec832de"),
}


@dataclass
class LargeCorpus(Corpus):
    """A corpus whose measures are kept on disk: reading tens of gigabytes takes minutes."""

    key: Callable[[str], str] = str
    """What tells the text of a split from all others, without reading it."""
    rows: Callable[[str], int] = len
    """Documents in a split, for the bar."""

    def measure(self, split: str) -> Measure:
        if split not in self._measures:
            name = hashlib.sha256(self.key(split).encode()).hexdigest()[:16]
            file = home() / "measures" / f"{self.name}-{split}-{name}.json"
            if not file.exists():
                with Bar(f"reading {self.name} {split}") as bar:
                    write_json(file, self.watched(bar).measure(split))
            self._measures[split] = Measure(*json.loads(file.read_text()))
        return self._measures[split]

    def watched(self, bar: Bar) -> Corpus:
        """The same corpus, which shows how far it has been read."""

        def read(split: str) -> Iterator[str]:
            total = self.rows(split)
            for number, text in enumerate(self.read(split)):
                if number % 1000 == 0:
                    bar.show(number, total, f"{number:,} documents")
                yield text

        return Corpus(self.name, self.licence, self.source, read, self.find_splits)


def fineweb_corpus(name: str, count: int) -> Corpus:
    """The first `count` files as a corpus: of the Hub, or of $HORNBOOK_DATA/fineweb-edu where that has any."""

    def files(split: str) -> list[Path]:
        return obtain(name, 1 if split == "validation" else count)

    def key(split: str) -> str:
        facts = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files(split)]
        return json.dumps([split, held_out(files(split)[0]), facts])

    def count_rows(split: str) -> int:
        held = held_out(files(split)[0])
        return held if split == "validation" else sum(map(rows, files(split))) - held

    def read(split: str) -> Iterator[str]:
        return documents(split, files(split))

    source = f"{DATASET} (sample-10BT) on the Hugging Face Hub, or the .parquet files in $HORNBOOK_DATA/fineweb-edu"
    return LargeCorpus(name, LICENCE, source, read, lambda: ("train", "validation"), key=key, rows=count_rows)


def obtain(name: str, count: int) -> list[Path]:
    """The first `count` files, those of $HORNBOOK_DATA first, downloaded where they are missing."""
    folder = data_folder()
    if folder and (local := sorted((folder / "fineweb-edu").rglob("*.parquet"))):
        return local[:count]
    place, names = home() / "hub" / DATASET / FOLDER, list(FILES)[:count]
    missing = [file for file in names if not is_whole(place / file, FILES[file][0])]
    if missing:
        parts = [part_of(place / file) for file in missing]
        size = sum(FILES[file][0] for file in missing) - sum(p.stat().st_size for p in parts if p.exists())
        smaller = "take fineweb-edu-1 (2.15 GB), " if count > 1 else ""
        require_space(place, size, f"downloading {name}", smaller)
        say(f"{name}: downloading {len(missing)} of {count} files, {gigabytes(size)}, to {place}; {LICENCE}")
    base = f"datasets/{DATASET}/resolve/{REVISION}/{FOLDER}"
    return [
        download_resuming([f"{mirror}/{base}/{file}" for mirror in mirrors()], place / file, *FILES[file])
        for file in names
    ]


def documents(split: str, files: list[Path]) -> Iterator[str]:
    """The documents of a split, in the order of the files."""
    held = held_out(files[0])
    if split == "validation":
        yield from texts(files[0], 0, held)
        return
    yield from texts(files[0], held)
    for file in files[1:]:
        yield from texts(file)


def held_out(file: Path) -> int:
    """How many of the first file's rows are to validate on."""
    return min(HELD_OUT, rows(file) // 10)
