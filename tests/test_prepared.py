"""A corpus that was prepared: one stream whatever its parts, the same wherever it lies, through a cache that keeps its
bound; and what is wrong with it, or with its server, in one line."""

from __future__ import annotations

import hashlib
import importlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from hornbook.config import Evaluate, Train
from hornbook.data import blocks, prepared, remote
from hornbook.data.batches import Batches
from hornbook.data.blocks import Cache, usual_cache
from hornbook.data.loader import AHEAD, Loader
from hornbook.data.prepared import Prepared
from hornbook.data.shards import Shard, read_shard
from hornbook.errors import UserError
from hornbook.evaluation.measure import measure
from hornbook.log import read_log
from hornbook.text.corpora import open_corpus
from hornbook.text.downloads import sha256_of
from hornbook.text.tokenizer_training import train_tokenizer
from hornbook.training.pretrain import train
from prepared_folder import files_of, served, texts, write_part, write_prepared

fsspec = pytest.importorskip("fsspec")
BYTES = train_tokenizer("bytes", [])
TINY = {
    "model": "gpt2-tiny",
    "layers": 1,
    "dim": 32,
    "heads": 2,
    "context": 32,
    "batch": 4,
    "steps": 12,
    "eval_every": 6,
}
TINY |= {"precision": "float32", "device": "cpu", "compile": "no", "attention": "written-out", "threads": 1}
TINY |= {"float32_matmul": "highest"}
BLOCK = 512


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three parts to train on, two to validate on."""
    folder = tmp_path_factory.mktemp("corpora") / "cats"
    documents = texts(60)
    parts = [documents[:25], documents[25:26], documents[26:]]
    write_prepared(folder, {"train": parts, "validation": [texts(9, 1), texts(8, 2)], "test": []})
    return folder


@pytest.fixture(scope="module")
def whole(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Shard:
    """What the parts to train on must come to: one shard of all documents."""
    folder = tmp_path_factory.mktemp("whole")
    write_part(folder, "one", texts(60), BYTES)
    return read_shard(folder / "one", {})


@pytest.fixture
def in_memory(corpus: Path) -> Iterator[str]:
    """The corpus in fsspec's own memory."""
    system = fsspec.filesystem("memory")
    system.pipe({f"/store/cats/{name}": content for name, content in files_of(corpus).items()})
    yield "memory://store/cats"
    system.rm("/store", recursive=True)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", 10**6)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is said of servers."""
    lines: list[str] = []
    monkeypatch.setattr(remote, "say", lines.append)
    return lines


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def size(cache: Cache) -> int:
    """Bytes of all blocks, those being written included."""
    return sum(path.stat().st_size for path in cache.folder.iterdir() if not path.name.startswith(".claim"))


def same(ours: Shard, whole: Shard) -> None:
    assert len(ours.tokens) == ours.length == len(whole.tokens)
    assert np.array_equal(np.asarray(ours.tokens), whole.tokens)
    assert ours.documents == whole.documents
    for name in ("starts", "document_bytes", "document_words"):
        assert np.array_equal(getattr(ours, name), getattr(whole, name)), name
    assert (ours.vocab, ours.separator, ours.restorable) == (whole.vocab, whole.separator, whole.restorable)


def test_the_stream_of_the_parts_is_that_of_one_shard(corpus: Path, whole: Shard) -> None:
    same(Prepared(str(corpus)).shard("train", BYTES), whole)


@pytest.mark.parametrize("block", [64, BLOCK, 2**20])
def test_it_is_the_same_stream_from_elsewhere_in_blocks_of_any_size(
    in_memory: str, whole: Shard, cache: Cache, block: int
) -> None:
    same(Prepared(in_memory, cache=cache, block=block).shard("train", BYTES), whole)


@pytest.mark.parametrize("far", [False, True])
def test_tokens_are_found_by_places_and_slices_as_in_an_array(
    far: bool, corpus: Path, in_memory: str, whole: Shard, cache: Cache
) -> None:
    found = Prepared(in_memory if far else str(corpus), cache=cache, block=64).shard("train", BYTES).tokens
    wanted, random = np.asarray(whole.tokens), np.random.default_rng(0)
    for shape in ((0,), (3,), (4, 7), (2, 3, 5)):
        index = random.integers(-len(wanted), len(wanted), shape)
        assert np.array_equal(found[index], wanted[index])
        assert found[index].shape == shape
        assert found[index].dtype == wanted.dtype
    joints = np.flatnonzero(wanted == whole.separator)
    for at in joints.tolist():
        assert np.array_equal(found[at - 3 : at + 4], wanted[at - 3 : at + 4])
        assert found[at] == whole.separator
    for part in (slice(None), slice(5, 5), slice(-9, None), slice(10, 900, 7), slice(9, 2), slice(None, None, -1)):
        assert np.array_equal(found[part], wanted[part])
    for wrong in (len(wanted), -len(wanted) - 1):
        with pytest.raises(IndexError):
            found[wrong]


def test_wide_tokens_come_as_they_are(tmp_path: Path, cache: Cache) -> None:
    words = [f"w{n}" for n in range(66_000)]
    tokenizer = train_tokenizer("word", [" ".join(words)])
    assert tokenizer.vocab > 2**16
    ids = [tokenizer.encode(" ".join(words[n::1000])) for n in range(4)]
    parts = [[" ".join(words[n::1000])] for n in range(4)]
    write_prepared(tmp_path / "wide", {"train": parts}, tokenizer)
    fsspec.filesystem("memory").pipe({f"/wide/{k}": v for k, v in files_of(tmp_path / "wide").items()})
    stream = [tokenizer.eos, *(token for one in ids for token in [*one, tokenizer.eos])]
    for place in (str(tmp_path / "wide"), "memory://wide"):
        found = Prepared(place, cache=cache, block=64).shard("train", tokenizer).tokens
        assert found.dtype == np.uint32
        assert found[:].tolist() == stream


def test_batches_are_the_same_from_parts_here_and_elsewhere(
    corpus: Path, in_memory: str, whole: Shard, cache: Cache
) -> None:
    near = Prepared(str(corpus)).shard("train", BYTES)
    far = Prepared(in_memory, cache=cache, block=BLOCK).shard("train", BYTES)
    samplers = [Batches(shard, 4, 16, seed=5, apart=True) for shard in (whole, near, far)]
    for k in (0, 1, 7, 40, 1000):
        wanted, *others = (sampler.get(k) for sampler in samplers)
        for other in others:
            for ours, theirs in zip(vars(other).values(), vars(wanted).values(), strict=True):
                assert ours is theirs is None or torch.equal(ours, theirs)


def test_what_the_next_steps_read_is_fetched_before_they_do(in_memory: str, cache: Cache) -> None:
    tokens = Prepared(in_memory, cache=cache, block=64).shard("train", BYTES)
    sampler = Batches(tokens, 2, 16, seed=0)
    assert sampler.far
    loader = Loader(sampler.get, 2, torch.device("cpu"), foresight=sampler)
    loader.get(0)
    fetcher, deadline = tokens.pieces.parts[0].fetcher, time.monotonic() + 60  # type: ignore[attr-defined]
    while loader.foreseen == 0 or fetcher.under_way:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    loader.close()
    tokens.pieces.parts[0].fetcher.store.system = None  # type: ignore[attr-defined]  # nothing can be asked any more
    for k in range(2 * (AHEAD + 2)):
        sampler.get(k)
    with pytest.raises(AttributeError):
        [sampler.get(k) for k in range(2 * (AHEAD + 2), 200)]


def test_a_run_is_the_same_from_here_and_from_elsewhere(corpus: Path, in_memory: str, tmp_path: Path) -> None:
    logs, models = [], []
    for name, data in (("near", str(corpus)), ("far", in_memory)):
        summary = train(Train(data=data, out=str(tmp_path / name), **TINY))
        logs.append([(line.get("loss"), line.get("validation_loss")) for line in read_log(tmp_path / name)])
        models.append((tmp_path / name / "last" / "model.safetensors").read_bytes())
        assert summary["data"] == "cats"
        assert summary["validation"]["documents"] == 17
    assert logs[0] == logs[1]
    assert models[0] == models[1]


def test_a_run_is_scored_on_a_prepared_text_as_on_the_text(corpus: Path, in_memory: str, tmp_path: Path) -> None:
    train(Train(model="bigram", data=in_memory, out=str(tmp_path / "run")))
    lines = [json.dumps({"text": text}) for text in (*texts(9, 1), *texts(8, 2))]
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "validation.jsonl").write_text("\n".join(lines))
    (tmp_path / "text" / "train.jsonl").write_text(json.dumps({"text": "something else"}))
    found = [
        measure(Evaluate(str(tmp_path / "run"), data)) for data in (str(corpus), in_memory, str(tmp_path / "text"))
    ]
    assert len(found[0].nats) == 17
    for scores in found[1:]:
        assert np.array_equal(scores.nats, found[0].nats)
        assert scores.bits_per_byte == found[0].bits_per_byte


# --- what is not as corpus.json says


def altered(corpus: Path, folder: Path, change: Callable[[Path, dict], None]) -> Path:
    """A copy of the corpus after `change(folder, corpus.json)`."""
    for name, content in files_of(corpus).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    facts = json.loads((folder / "corpus.json").read_text())
    change(folder, facts)
    (folder / "corpus.json").write_text(json.dumps(facts))
    return folder


def longer(folder: Path, facts: dict) -> None:
    with open(folder / "train/00001.safetensors", "ab") as file:
        file.write(b"x")


def shorter(folder: Path, facts: dict) -> None:
    path = folder / "train/00001.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def other_content(folder: Path, facts: dict) -> None:
    path = folder / "train/00001.safetensors"
    content = bytearray(path.read_bytes())
    content[-60] ^= 1  # a token
    path.write_bytes(content)


def other_part(folder: Path, facts: dict) -> None:
    """A shard of the same size that belongs to another tokeniser."""
    path = folder / "train/00001.safetensors"
    path.write_bytes(path.read_bytes().replace(BYTES.hash.encode(), b"0" * 64))


def gone(folder: Path, facts: dict) -> None:
    (folder / "train/00001.safetensors").unlink()


@pytest.mark.parametrize("far", [False, True])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (longer, r"00001.safetensors has [\d,]+ bytes, and corpus.json says [\d,]+: prepare the corpus again"),
        (shorter, r"00001.safetensors has [\d,]+ bytes, and corpus.json says"),
        (other_content, "00001.safetensors has not the SHA-256 that corpus.json says"),
        (other_part, "00001.safetensors is not the part that corpus.json tells of|has not the SHA-256"),
        (gone, "cannot read .*00001.safetensors"),
    ],
)
def test_a_part_that_is_not_what_it_should_be_is_told_of(
    far: bool, change: Callable[[Path, dict], None], words: str, corpus: Path, tmp_path: Path, cache: Cache
) -> None:
    folder = altered(corpus, tmp_path / "copy", change)
    place = str(folder)
    if far:
        fsspec.filesystem("memory").pipe({f"/{tmp_path.name}/{k}": v for k, v in files_of(folder).items()})
        place = f"memory://{tmp_path.name}"
    with pytest.raises(UserError, match=words) as error:
        np.asarray(Prepared(place, cache=cache, block=BLOCK).shard("train", BYTES).tokens)
    one_line(error)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder, facts: facts.update(version="2"), "is of version '2', not 1"),
        (lambda folder, facts: facts.pop("splits"), "is not what hornbook prepare writes .*splits.* is missing"),
        (lambda folder, facts: facts["splits"]["train"][0].update(file="../x"), "is not a file in the folder"),
        (lambda folder, facts: facts["splits"]["train"][0].update(tokens=10**9), "has not the room of"),
        (lambda folder, facts: facts["splits"]["train"][0].update(size=2**40), "has not the room of"),
        (lambda folder, facts: facts["splits"]["train"][0].update(sha256="no"), "the SHA-256 of .* is none"),
        (lambda folder, facts: facts["splits"]["train"][0].update(size=-1), "are none"),
        (lambda folder, facts: facts.update(separator=10**6), "do not go together"),
        (lambda folder, facts: facts.update(splits=3), "is not what hornbook prepare writes"),
        (lambda folder, facts: facts["splits"].pop("validation"), "has no validation split. It has: train"),
    ],
)
def test_a_corpus_json_that_says_something_else_is_told_of(
    change: Callable[[Path, dict], None], words: str, corpus: Path, tmp_path: Path
) -> None:
    folder = altered(corpus, tmp_path / "copy", change)
    with pytest.raises(UserError, match=words) as error:
        Prepared(str(folder)).shard("validation", BYTES)
    one_line(error)


def test_whoever_waits_is_told_what_ended_the_reading(
    in_memory: str, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, waited_for = Prepared(in_memory, cache=cache, block=BLOCK), threading.Event()

    def read(store: remote.Store, file: str, begin: int, end: int, stopped: threading.Event) -> bytes:
        if file.startswith("validation"):
            waited_for.set()
            stopped.wait(60)
            raise remote.Stopped("reading was stopped")
        waited_for.wait(60)
        raise UserError(f"cannot read {file}: it is gone")

    train, validation = (corpus.shard(split, BYTES) for split in ("train", "validation"))
    monkeypatch.setattr(remote.Store, "read_span", read)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(np.asarray, validation.tokens)
        waited_for.wait(60)
        for reading in (lambda: np.asarray(train.tokens), lambda: waiting.result(60)):
            with pytest.raises(UserError, match=r"cannot read train.* it is gone"):
                reading()


def test_a_folder_that_was_not_finished_is_neither_a_corpus_nor_text(corpus: Path, tmp_path: Path) -> None:
    folder = altered(corpus, tmp_path / "copy", lambda folder, facts: None)
    with pytest.raises(UserError, match="tokens and no text"):
        open_corpus(str(folder))
    (folder / "corpus.json").unlink()
    with pytest.raises(UserError, match=r"has no corpus\.json, so it is not finished"):
        train(Train(data=str(folder), out=str(tmp_path / "run"), **TINY))


def test_a_part_here_is_summed_once_until_it_changes(
    corpus: Path, tmp_path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, summed = altered(corpus, tmp_path / "copy", lambda folder, facts: None), []
    monkeypatch.setattr(prepared, "sha256_of", lambda path: summed.append(path.name) or sha256_of(path))
    for _ in range(2):
        Prepared(str(folder), cache=cache).shard("train", BYTES)
    assert len(summed) == 3
    for path in cache.folder.iterdir():
        blocks.os.utime(path, (1, 1))
    Prepared(str(folder), cache=cache).shard("train", BYTES)
    marks = [path for path in cache.folder.iterdir() if "-here-" in path.name]
    assert len(marks) >= 1
    assert any(path.stat().st_mtime > 1 for path in marks), "used, so that others give way before them"
    other_content(folder, {})
    with pytest.raises(UserError, match="has not the SHA-256"):
        Prepared(str(folder), cache=cache).shard("train", BYTES)


def test_the_tokeniser_comes_with_the_corpus_and_another_is_refused(
    corpus: Path, in_memory: str, tmp_path: Path
) -> None:
    other = train_tokenizer("char", ["the cat sat on a mat"])
    other.save(tmp_path / "other")
    for given in ({"tokenizer": "char"}, {"tokenizer": str(tmp_path / "other")}, {"vocab": 300}):
        with pytest.raises(UserError, match=r"cats was prepared with a tokeniser of 259 ids \(bytes\), which") as error:
            train(Train(data=in_memory, out=str(tmp_path / "run"), **TINY | given))
        one_line(error)
    with pytest.raises(UserError, match="was prepared with another tokeniser than the model's"):
        Prepared(str(corpus)).shard("train", other)
    for given in ({"tokenizer": "bytes"}, {"tokenizer": str(corpus / "tokenizer")}, {"vocab": 259}):
        train(
            Train(
                data=str(corpus),
                out=str(tmp_path / f"run{next(iter(given.values()))!s:.3}"),
                **TINY | given | {"steps": 1},
            )
        )


# --- the cache


def test_the_cache_never_exceeds_its_bound(in_memory: str, whole: Shard, tmp_path: Path, monkeypatch) -> None:
    cache, sizes = Cache(tmp_path / "cache", 6 * (BLOCK + 32)), []
    real = blocks.os.replace

    def watched(aside: object, path: object) -> None:
        sizes.append(size(cache))
        real(aside, path)
        sizes.append(size(cache))

    monkeypatch.setattr(blocks.os, "replace", watched)
    shard = Prepared(in_memory, cache=cache, block=BLOCK).shard("train", BYTES)
    assert np.array_equal(np.asarray(shard.tokens), whole.tokens)
    sampler = Batches(shard, 4, 16, seed=0)
    assert all(torch.equal(sampler.get(k).tokens, Batches(whole, 4, 16, seed=0).get(k).tokens) for k in range(20))
    assert len(sizes) > 40  # far more blocks than it can hold
    assert max(sizes) <= cache.bound + len(b"9999")  # the file that says how much there is


def test_the_blocks_unused_for_longest_give_way(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 10 * 132)
    for n in range(10):
        cache.store(f"b{n}", bytes([n]) * 100)
        blocks.os.utime(tmp_path / f"b{n}", (n, n))
    cache.read("b0")  # used just now
    assert cache.store("new", b"x" * 100)
    assert cache.store("newer", b"x" * 100)
    kept = sorted(path.name for path in tmp_path.iterdir() if path.name[0] != ".")
    assert kept == ["b0", *(f"b{n}" for n in range(3, 10)), "new", "newer"]
    assert not cache.store("huge", b"x" * 2000)


def test_a_damaged_block_is_fetched_anew(in_memory: str, whole: Shard, tmp_path: Path) -> None:
    first = Prepared(in_memory, cache=Cache(tmp_path / "cache", 10**6), block=BLOCK)
    np.asarray(first.shard("train", BYTES).tokens)
    files = [p for p in (tmp_path / "cache").iterdir() if not p.name.startswith(".") and p.stat().st_size > 100]
    for n, path in enumerate(files):
        content = bytearray(path.read_bytes())
        content[40] ^= 255
        path.write_bytes(content if n % 2 else content[:20])
    again = Prepared(in_memory, cache=Cache(tmp_path / "cache", 10**6), block=BLOCK)
    assert np.array_equal(np.asarray(again.shard("train", BYTES).tokens), whole.tokens)


def full(*paths: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_disk_that_takes_no_more_stops_nothing(in_memory: str, whole: Shard, cache: Cache, monkeypatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(blocks, "say", lines.append)
    monkeypatch.setattr(
        blocks.os, "replace", lambda *paths: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    shard = Prepared(in_memory, cache=cache, block=BLOCK).shard("train", BYTES)
    assert np.array_equal(np.asarray(shard.tokens), whole.tokens)
    assert len([line for line in lines if "takes no more (No space left on device)" in line]) == 1


def test_a_file_system_without_locks_keeps_its_blocks(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")

    def refused(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refused)
    assert cache.store("a", b"block")
    assert cache.read("a") == b"block"


def test_a_size_for_the_cache_is_taken_and_nonsense_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HORNBOOK_CACHE", "1.5GB")
    assert usual_cache().bound == 1_500_000_000
    monkeypatch.setenv("HORNBOOK_CACHE", "much")
    with pytest.raises(UserError, match="HORNBOOK_CACHE much: it must be a size, such as 64MB"):
        usual_cache()


READER = """
import hashlib, sys
from pathlib import Path
import numpy as np
from hornbook.data.blocks import Cache
from hornbook.data.prepared import Prepared
corpus = Prepared(sys.argv[1], cache=Cache(Path(sys.argv[2]), int(sys.argv[3])), block=512)
shard = corpus.shard("train", corpus.tokenizer)
print(hashlib.sha256(np.asarray(shard.tokens).tobytes()).hexdigest())
"""


def test_two_processes_share_a_cache_and_fetch_each_block_once(corpus: Path, whole: Shard, tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    with served(corpus) as (address, asked):
        words = [sys.executable, "-c", READER, address, str(tmp_path / "cache"), "1000000"]
        started = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
        told = [process.communicate(timeout=120) for process in started]
    wanted = hashlib.sha256(np.asarray(whole.tokens).tobytes()).hexdigest()
    assert [out.strip() for out, _ in told] == [wanted] * 2, told
    spans = [line for line in asked if line.endswith(tuple(f"bytes={n}-{n + 511}" for n in range(0, 20_000, 512)))]
    assert len(spans) == len(set(spans)) > 10


def test_a_server_that_sends_whole_files_only_is_told_of(corpus: Path, cache: Cache) -> None:
    pytest.importorskip("aiohttp")
    with served(corpus, ranges=False) as (address, _), pytest.raises(UserError, match="sends whole files") as error:
        np.asarray(Prepared(address, cache=cache, block=BLOCK).shard("train", BYTES).tokens)
    one_line(error)


def test_an_address_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("s3fs", "fsspec.core"):
        with monkeypatch.context() as patched:
            patched.setitem(sys.modules, name, None)
            importlib.import_module("fsspec.registry")._registry.pop("s3", None)
            with pytest.raises(UserError, match=r"pip install 'hornbook\[cluster\]'") as error:
                Prepared("s3://bucket/corpus")
            one_line(error)
    with pytest.raises(UserError, match="cannot read nowhere://x: Protocol not known"):
        Prepared("nowhere://x")
