"""`hornbook prepare`: the same parts whoever writes them, whatever dies meanwhile; joined, what one shard would be."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hornbook.cli import main
from hornbook.config import Prepare
from hornbook.data import engines, preparing, shards
from hornbook.data.encoding import Text, encode_part, setup_of
from hornbook.data.engines import Processes
from hornbook.data.parts import Digests, Part, cut
from hornbook.data.places import Place
from hornbook.data.prepared import Prepared
from hornbook.data.preparing import prepare_corpus
from hornbook.data.restoring import Covers, Restores
from hornbook.data.shards import open_split, read_shard
from hornbook.errors import UserError
from hornbook.lock import Lock
from hornbook.text import paths
from hornbook.text.corpora import open_corpus
from hornbook.text.fast import NOBODY_S
from hornbook.text.tokenizer_training import train_tokenizer
from hornbook.text.tokenizers import Tokenizer, load_tokenizer

SIZE = 20_000
"""Bytes of a part."""


def some_documents(count: int, seed: int = 0) -> list[str]:
    """Of 1 to 4,000 characters, none twice, not all of them ASCII."""
    from pydoc_data.topics import topics

    chance, text = random.Random(seed), "".join(topics[key] for key in sorted(topics)[:60])
    cuts = [chance.randrange(len(text) - 4000) for _ in range(count)]
    return [f"{n} ä日\u2028🙂" + text[at : at + chance.randrange(4000)] for n, at in enumerate(cuts)]


def rows(texts: list[str]) -> str:
    return "".join(json.dumps({"id": n, "text": text}) + "\n" for n, text in enumerate(texts))


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 300 kB in 150 rows."""
    file = tmp_path_factory.mktemp("rows") / "text.jsonl"
    file.write_text(rows(some_documents(150)), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer("bpe", some_documents(40), 600).save(folder)
    return folder


@pytest.fixture(scope="module")
def prepared(text: Path, tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The text as two processes prepare it."""
    out = tmp_path_factory.mktemp("prepared") / "corpus"
    prepare(text, tokenizer, out)
    return out


def prepare(text: Path, tokenizer: Path, out: Path, **fields: Any) -> preparing.Preparation:
    given = {"tokenizer": str(tokenizer), "part_size": str(SIZE), "workers": 2}
    return prepare_corpus(Prepare(str(text), str(out), **(given | fields)))


def files(folder: Path) -> dict[str, bytes]:
    """All of them but the lock."""
    found = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def parts(folder: Path, split: str) -> list[shards.Shard]:
    facts = json.loads((folder / "corpus.json").read_text())
    return [read_shard(folder / part["file"], {"tokenizer": facts["tokenizer"]}) for part in facts["splits"][split]]


def texts_of(folder: Path, tokenizer: Path, split: str) -> list[str]:
    """The documents that the parts of a split hold."""
    known = load_tokenizer(tokenizer)
    return [
        known.decode(shard.tokens[begin : end - 1].tolist())
        for shard in parts(folder, split)
        for begin, end in zip(shard.starts, shard.starts[1:], strict=False)
    ]


# --- what is written


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_the_parts_joined_are_what_one_shard_of_the_split_would_be(
    split: str, text: Path, tokenizer: Path, prepared: Path, tmp_path: Path
) -> None:
    known = load_tokenizer(tokenizer)
    whole = open_split(open_corpus(str(text)), known, split, tmp_path)
    found = parts(prepared, split)
    assert len(found) > 5 or split != "train"
    joined = np.concatenate([found[0].tokens, *(shard.tokens[1:] for shard in found[1:])])
    assert joined.dtype == whole.tokens.dtype
    assert np.array_equal(joined, whole.tokens)
    for name in ("document_bytes", "document_words"):
        assert np.array_equal(np.concatenate([getattr(shard, name) for shard in found]), getattr(whole, name)), name
    assert all(shard.restorable for shard in found)
    read = Prepared(str(prepared)).shard(split, known)
    assert np.array_equal(read.tokens[np.arange(len(whole.tokens))], whole.tokens)
    assert np.array_equal(read.starts, whole.starts)


def test_a_part_closes_with_the_document_that_takes_it_to_its_size(prepared: Path) -> None:
    for split in ("train", "validation", "test"):
        for shard in parts(prepared, split)[:-1]:
            assert shard.document_bytes.sum() >= SIZE > shard.document_bytes[:-1].sum()


def test_corpus_json_says_what_the_files_are(prepared: Path, tokenizer: Path, text: Path) -> None:
    facts = json.loads((prepared / "corpus.json").read_text())
    known = load_tokenizer(tokenizer)
    assert facts["tokenizer"] == known.hash == load_tokenizer(prepared / "tokenizer").hash
    assert (facts["version"], facts["vocab"], facts["separator"]) == ("1", known.vocab, known.eos)
    assert facts["name"] == str(text)
    assert "duplicates" not in facts
    for split, listed in facts["splits"].items():
        for number, (part, shard) in enumerate(zip(listed, parts(prepared, split), strict=True)):
            content = (prepared / part["file"]).read_bytes()
            assert part == {
                "file": f"{split}/{number:05d}.safetensors",
                "tokens": len(shard.tokens),
                "documents": shard.documents,
                "text_bytes": shard.document_bytes.sum(),
                "restorable": True,
                "size": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            }


def test_the_number_of_workers_changes_nothing(text: Path, tokenizer: Path, prepared: Path, tmp_path: Path) -> None:
    prepare(text, tokenizer, tmp_path / "x", workers=3)
    assert files(tmp_path / "x") == files(prepared)


def test_a_tokeniser_that_is_not_named_is_trained_and_kept(text: Path, tmp_path: Path, capsys: Any) -> None:
    command = ["prepare", str(text), "--out", str(tmp_path / "x"), "--vocab", "300", "--workers", "1"]
    main(command)
    told = capsys.readouterr()
    assert load_tokenizer(tmp_path / "x" / "tokenizer").vocab == 300
    assert str(tmp_path / "x") in told.out
    assert "peak memory" in told.out or sys.platform != "linux"
    before = files(tmp_path / "x")
    main(command)
    assert files(tmp_path / "x") == before
    assert "whole parts: they are not done again" in capsys.readouterr().err


# --- what dies


def wait_for(condition: Any, process: subprocess.Popen) -> None:
    for _ in range(60_000):
        if condition() or process.poll() is not None:
            return
        time.sleep(0.001)
    raise AssertionError("it never came")


def test_a_preparation_that_is_killed_is_carried_on(
    text: Path, tokenizer: Path, prepared: Path, tmp_path: Path
) -> None:
    out = tmp_path / "x"
    command = [sys.executable, "-m", "hornbook", "prepare", str(text), f"--out={out}", f"--tokenizer={tokenizer}"]
    command += [f"--part-size={SIZE}", "--workers=1"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    wait_for(lambda: len(list(out.glob("train/*.json"))) > 1, process)
    assert process.poll() is None, "it was done before it could be killed"
    process.kill()
    process.wait()
    assert not (out / "corpus.json").exists()
    whole = {path: path.stat().st_mtime_ns for path in out.glob("*/*.json") if path.parent.name != "tokenizer"}
    (out / "train" / f".99.safetensors.{process.pid}.part").write_bytes(b"half")
    found = prepare(text, tokenizer, out)
    assert found.again >= len(whole) > 0
    assert {path: path.stat().st_mtime_ns for path in whole} == whole
    assert files(out) == files(prepared)


def test_what_a_killed_worker_had_in_hand_is_done_again(
    text: Path, tokenizer: Path, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    given: list[str] = []
    real = Processes.start

    def start(self: Processes, part: Part) -> None:
        real(self, part)
        given.append(part.name)
        if len(given) in (1, 4):
            worker = next(worker for worker in self.all if worker.part is part)
            os.kill(worker.process.pid or 0, signal.SIGKILL)

    monkeypatch.setattr(Processes, "start", start)
    prepare(text, tokenizer, tmp_path / "x")
    assert files(tmp_path / "x") == files(prepared)
    assert max(Counter(given).values()) == 2
    assert f"a worker died while it prepared {given[0]}: it is done again" in capsys.readouterr().err


def test_a_part_on_which_every_worker_dies_is_told_of(text: Path, tokenizer: Path, tmp_path: Path) -> None:
    class Deadly:
        workers, part = 1, None

        def __init__(self, *about: Any) -> None: ...

        @property
        def busy(self) -> int:
            return self.part is not None

        def start(self, part: Part) -> None:
            self.part = part

        def wait(self) -> list[tuple[Part, None]]:
            part, self.part = self.part, None
            return [(part, None)]

    with pytest.raises(UserError, match=r"4 workers died .* fewer --workers"):
        list(engines.carried_out(iter([Part("train", 0)]), Deadly()))  # type: ignore[arg-type]


def test_ctrl_c_leaves_whole_parts_and_nothing_half_written(
    text: Path, tokenizer: Path, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    out, real, asked = tmp_path / "x", Processes.wait, []

    def wait(self: Processes) -> Any:
        asked.append(1)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return real(self)

    command = ["prepare", str(text), f"--out={out}", f"--tokenizer={tokenizer}", f"--part-size={SIZE}", "--workers=2"]
    monkeypatch.setattr(Processes, "wait", wait)
    with pytest.raises(SystemExit) as stop:
        main(command)
    assert stop.value.code == 130
    assert "the same command carries on" in capsys.readouterr().err
    assert not list(out.rglob("*.part"))
    monkeypatch.setattr(Processes, "wait", real)
    assert prepare(text, tokenizer, out).again >= 3
    assert files(out) == files(prepared)


# --- duplicates


def test_duplicates_are_left_out_as_by_a_set(tokenizer: Path, tmp_path: Path) -> None:
    some = some_documents(60)
    folder = tmp_path / "splits"
    folder.mkdir()
    given = {
        "train": some[:40] + some[10:20] + [some[0] + " ", some[50], some[58]],
        "validation": [*some[40:52], some[41], some[57]],
        "test": [*some[52:], some[52]],
    }
    for split, texts in given.items():
        (folder / f"{split}.jsonl").write_text(rows(texts), encoding="utf-8")
    found = prepare(folder, tokenizer, tmp_path / "x", dedup=True, workers=1)
    seen: set[str] = set()
    for split in ("test", "validation", "train"):
        kept = [text for text in given[split] if not (text in seen or seen.add(text))]
        assert texts_of(tmp_path / "x", tokenizer, split) == kept, split
        assert found.duplicates[split] == len(given[split]) - len(kept)
    assert found.duplicates == {"train": 12, "validation": 2, "test": 1}
    assert json.loads((tmp_path / "x" / "corpus.json").read_text())["duplicates"] == found.duplicates


def test_digests_are_known_again_as_by_a_set() -> None:
    chance, seen, known = random.Random(0), set(), Digests(room=4)
    some = [bytes(16), *(chance.randbytes(1) * 8 + chance.randbytes(1) * 8 for _ in range(5000))]  # many begin alike
    for digest in [*some, *some[:300]]:
        assert known.add(digest) == (digest not in seen)
        seen.add(digest)
    assert known.count == len(seen) - 1
    assert len(known.table) <= 46 * len(seen)


# --- what is not possible


def refused(capfd: Any, *arguments: object) -> str:
    with pytest.raises(SystemExit) as stop:
        main(["prepare", *map(str, arguments)])
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("hornbook: ")]
    assert stop.value.code == 2
    return line


@pytest.mark.parametrize("size", ["", "0", "-1MB", "large", "1e30", "10XB", "nan"])
def test_a_part_size_of_nonsense_is_refused(size: str, text: Path, tmp_path: Path, capfd: Any) -> None:
    assert "--part-size" in refused(capfd, text, f"--out={tmp_path / 'x'}", f"--part-size={size}")
    assert not (tmp_path / "x").exists()


def test_a_text_without_documents_is_refused(tokenizer: Path, tmp_path: Path, capfd: Any) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": ""}\n')
    line = refused(capfd, tmp_path / "a.jsonl", f"--out={tmp_path / 'x'}", f"--tokenizer={tokenizer}")
    assert "no document" in line
    assert not (tmp_path / "x").exists()


def test_a_folder_that_holds_other_things_is_refused(text: Path, tokenizer: Path, tmp_path: Path, capfd: Any) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert "holds other things, notes.txt" in refused(capfd, text, f"--out={tmp_path}", f"--tokenizer={tokenizer}")
    assert "is a file" in refused(capfd, text, f"--out={tmp_path / 'notes.txt'}", f"--tokenizer={tokenizer}")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_other_wishes_for_the_same_place_are_refused(
    text: Path, tokenizer: Path, prepared: Path, tmp_path: Path, capfd: Any
) -> None:
    shutil.copytree(prepared, out := tmp_path / "x")
    before = files(out)
    same = [text, f"--out={out}", f"--tokenizer={tokenizer}", f"--part-size={SIZE}", "--workers=1"]
    assert "begun with --part-size 20000" in refused(capfd, *same, "--part-size=30kB")
    assert "begun with another tokeniser" in refused(capfd, *same, "--tokenizer=bytes")
    assert "begun without --dedup" in refused(capfd, *same, "--dedup")
    (tmp_path / "longer.jsonl").write_text(text.read_text() + rows(["one more"]))
    (tmp_path / "other.jsonl").write_text(rows(some_documents(150, seed=1)))
    (tmp_path / "shorter.jsonl").write_text(rows(some_documents(150)[:10]))
    for name in ("longer", "other", "shorter"):
        assert "parts of another text" in refused(capfd, tmp_path / f"{name}.jsonl", *same[1:]), name
    assert files(out) == before


def test_a_place_in_use_is_refused(text: Path, tokenizer: Path, tmp_path: Path) -> None:
    (lock := Lock(tmp_path)).take()
    with pytest.raises(UserError, match="is in use by"):
        prepare(text, tokenizer, tmp_path)
    lock.free()


def test_a_disk_too_small_is_noticed_before_anything_is_written(
    text: Path, tokenizer: Path, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = sum(len(content) for name, content in files(prepared).items() if name.endswith(".safetensors"))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, int(0.7 * needed)))
    with pytest.raises(UserError, match=r"the corpus as tokens takes about .* GB"):
        prepare(text, tokenizer, tmp_path / "x")
    assert not (tmp_path / "x").exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, int(1.3 * needed)))
    prepare(text, tokenizer, tmp_path / "x", workers=1)


def text_to_send(part: Part) -> Text:
    return Text(part.name, part.fingerprint, part.ends.tobytes(), bytes(part.text))


def test_a_disk_that_fills_up_is_one_line_and_leaves_no_half_part(
    tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (part,) = cut((("train", text) for text in some_documents(3)), SIZE, None, Counter())
    setup = setup_of(Place(str(tmp_path / "x")), load_tokenizer(tokenizer))

    def full(*about: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shards, "write_stream", full)
    for name in ("TOKENIZERS_PARALLELISM", "RAYON_NUM_THREADS"):
        monkeypatch.setenv(name, "false" if "PAR" in name else "1")
    error = encode_part(text_to_send(part), setup)
    assert isinstance(error, UserError)
    assert "No space left on device" in str(error)
    assert list((tmp_path / "x").rglob("*.*")) == []


def test_ray_is_named_where_it_is_missing(
    text: Path, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'hornbook\[cluster\]'"):
        prepare(text, tokenizer, tmp_path / "x", engine="ray")


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere.invalid:6379"])
def test_a_cluster_that_is_not_there_is_named(address: str) -> None:
    with pytest.raises(UserError, match=f"no Ray cluster at RAY_ADDRESS={address}"):
        engines.check_address(address)


# --- what it rests on


@pytest.mark.parametrize("kind", ["bpe", "bytes", "word", "char"])
def test_arrays_hold_the_ids_that_lists_do(kind: str) -> None:
    known = train_tokenizer(kind, some_documents(30), 500 if kind == "bpe" else None)
    special = known.specials.eos or ""
    odd = ["", f"a{special} b", f"{NOBODY_S} {NOBODY_S}", "x" * 700_000]
    texts = [*some_documents(80, seed=3), *odd]
    found = known.encode_arrays(texts)
    assert [list(map(int, ids)) for ids in found] == known.encode_batch(texts)
    assert all(isinstance(ids, np.ndarray if kind in ("bpe", "bytes") else list) for ids in found)
    assert list(known.encode_arrays(texts[:2])) == known.encode_batch(texts[:2])


@pytest.mark.parametrize("kind", ["bytes", "bpe", "word", "char"])
def test_whether_a_part_restores_its_text_is_judged_as_decoding_does(kind: str, tmp_path: Path) -> None:
    known = train_tokenizer(kind, ["the quick brown fox\n\n  jumps; é 日本"] * 3, 270 if kind == "bpe" else None)
    texts = ["the quick brown fox", "fox jumps", "brown \n é", "quite unknown wörds", "日"]
    for number, text in enumerate(texts):
        ids = known.encode(text)
        for judge in (Restores(known), Covers(known)):
            judge.see(b"the", known.encode("the"))
            judge.see(text.encode(), ids)
            judge.see(b"the", np.array(known.encode("the")))
            assert judge.all == (known.decode(ids) == text), number


def test_an_engine_that_left_something_out_is_noticed() -> None:
    known = train_tokenizer("bytes", [])
    for judge in (Restores(known), Covers(known)):
        judge.see(b"abc", np.array([97, 98, 99]))
        assert judge.all
        judge.see(b"abc", np.array([97, 98]))
        assert not judge.all
        judge.see(b"abc", np.array([97, 98, 99]))
        assert not judge.all


def test_one_reading_gives_every_split_as_each_by_itself(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one.txt").write_text("\n\n".join(some_documents(5)), encoding="utf-8")
    for file in (text, tmp_path / "one.txt"):
        corpus = open_corpus(str(file))
        found: dict[str, list[str]] = {}
        for split, document in corpus.stream():
            found.setdefault(split, []).append(document)
        assert found == {split: list(corpus.documents(split)) for split in corpus.splits}
    read: list[str] = []
    real = paths.read_documents
    monkeypatch.setattr(paths, "read_documents", lambda file, column: read.append(file) or real(file, column))
    assert len(list(open_corpus(str(text)).stream())) == 150
    assert len(read) == 2  # one of them only for its first documents


def test_the_volume_of_a_text_is_told_without_reading_it(text: Path, tmp_path: Path) -> None:
    corpus = open_corpus(str(text))
    assert corpus.volume() == pytest.approx(sum(map(corpus.size, corpus.splits)), rel=0.15)
    (tmp_path / "a.txt").write_text("ä" * 1000, encoding="utf-8")
    assert open_corpus(str(tmp_path / "a.txt")).volume() == 2000
    assert np.isnan(open_corpus("-").volume())


def test_a_damaged_zstandard_file_is_one_line(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    packed = zstandard.compress(rows([f"{random.Random(n).random()}" for n in range(20_000)]).encode())
    middle = len(packed) // 2
    (tmp_path / "a.jsonl.zst").write_bytes(packed[:middle] + bytes(64) + packed[middle + 64 :])
    with pytest.raises(UserError, match=r"a\.jsonl\.zst") as error:
        list(open_corpus(str(tmp_path / "a.jsonl.zst")).stream())
    assert "\n" not in str(error.value)


# --- elsewhere


def test_a_corpus_is_prepared_in_object_storage(
    text: Path, tokenizer: Path, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = pytest.importorskip("moto.server")
    s3fs = pytest.importorskip("s3fs")
    (host := server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)).start()
    address = f"http://127.0.0.1:{host.get_host_and_port()[1]}"
    about = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in (about | {"AWS_ENDPOINT_URL": address}).items():
        monkeypatch.setenv(name, value)
    system = s3fs.S3FileSystem(skip_instance_cache=True)
    try:
        with pytest.raises(UserError, match="s3://nowhere/corpus"):
            prepare(text, tokenizer, "s3://nowhere/corpus", workers=1)  # type: ignore[arg-type]
        system.mkdir("bucket")
        assert prepare(text, tokenizer, "s3://bucket/corpus", workers=1).again == 0  # type: ignore[arg-type]
        for name, content in files(prepared).items():
            assert system.cat_file(f"bucket/corpus/{name}") == content, name
        system.rm_file("bucket/corpus/train/00001.json")
        found = prepare(text, tokenizer, "s3://bucket/corpus", workers=1)  # type: ignore[arg-type]
        assert found.again == sum(map(len, found.parts.values())) - 1
    finally:
        host.stop()


@pytest.mark.slow
def test_ray_prepares_the_same_bit_for_bit_and_a_killed_worker_loses_nothing(
    text: Path, tokenizer: Path, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    pytest.importorskip("ray")
    psutil = pytest.importorskip("psutil")
    given: list[str] = []
    real = engines.Rays.start

    def start(self: engines.Rays, part: Part) -> None:
        real(self, part)
        given.append(part.name)
        if len(given) != 4:
            return
        for _ in range(3000):
            processes = psutil.process_iter(["cmdline"])
            workers = [one for one in processes if "ray::attempt_shared" in " ".join(one.info["cmdline"] or [])]
            if workers or self.ray.wait(list(self.parts), num_returns=len(self.parts), timeout=0)[1] == []:
                break
            time.sleep(0.001)
        for worker in workers:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.kill()

    monkeypatch.setattr(engines.Rays, "start", start)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    found = prepare(text, tokenizer, tmp_path / "x", engine="ray")
    assert files(tmp_path / "x") == files(prepared)
    assert found.worker_peak > 0 or sys.platform != "linux"
    assert "is done again" in capsys.readouterr().err


def test_a_tokeniser_is_the_same_in_a_worker(tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hornbook.data.encoding import tokenizer_of

    for name in ("TOKENIZERS_PARALLELISM", "RAYON_NUM_THREADS"):
        monkeypatch.setenv(name, "false" if "PAR" in name else "1")
    known = load_tokenizer(tokenizer)
    there: Tokenizer = tokenizer_of(setup_of(Place(str(tmp_path)), known))
    assert (there.hash, there.eos, there.vocab) == (known.hash, known.eos, known.vocab)
