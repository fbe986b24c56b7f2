"""FineWeb-Edu from a fake of the Hub on this machine: whole, resumed where it broke off, streamed, told beforehand."""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import threading
import tracemalloc
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from hornbook.errors import UserError
from hornbook.text import fineweb, hub, resuming
from hornbook.text.corpora import open_corpus
from hornbook.text.resuming import download_resuming, part_of
from hornbook.text.row_groups import rows, texts

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

PLACE = f"/datasets/{fineweb.DATASET}/resolve/{fineweb.REVISION}/{fineweb.FOLDER}/"


class FakeHub:
    """Serves files by path, from any byte on; `allowance` is how many bytes one answer gives before it breaks off."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.allowance: int | None = None
        self.ranges = True
        self.asked: list[tuple[str, int]] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
                start = int(wanted[1]) if wanted and hub.ranges else 0
                hub.asked.append((self.path, start))
                body = hub.files.get(self.path)
                self.send_response(404 if body is None else 206 if start else 200)
                body = body or b""
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
                self.send_header("Content-Length", str(len(body) - start))
                self.end_headers()
                self.wfile.write(body[start:] if hub.allowance is None else body[start : start + hub.allowance])

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


def document(number: int) -> str:
    return f"Page {number} of the web says {number * 7} things.\n" * (1 + number % 3)


def parquet_bytes(numbers: range, group: int = 40) -> bytes:
    buffer = io.BytesIO()
    table = pyarrow.table({"id": [str(n) for n in numbers], "text": [document(n) for n in numbers]})
    parquet.write_table(table, buffer, row_group_size=group)
    return buffer.getvalue()


PARTS = [parquet_bytes(range(300)), parquet_bytes(range(300, 500)), parquet_bytes(range(500, 520))]
NAMES = list(fineweb.FILES)[:3]


@pytest.fixture
def fakes(monkeypatch, tmp_path):
    fakes = [FakeHub(), FakeHub()]
    for fake in fakes:
        fake.files = {PLACE + name: data for name, data in zip(NAMES, PARTS, strict=True)}
    known = {n: (len(data), hashlib.sha256(data).hexdigest()) for n, data in zip(NAMES, PARTS, strict=True)}
    monkeypatch.setattr(fineweb, "FILES", known)
    monkeypatch.setattr(fineweb, "HELD_OUT", 25)
    monkeypatch.setattr(resuming, "PAUSE", 0.0)
    monkeypatch.setattr(hub, "MIRRORS", tuple(fake.address for fake in fakes))
    monkeypatch.setenv("HORNBOOK_HOME", str(tmp_path / "home"))
    for name in ("HF_ENDPOINT", "HORNBOOK_DATA", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield fakes
    for fake in fakes:
        fake.server.shutdown()
        fake.server.server_close()


def corpus(count: int = 3):
    return fineweb.fineweb_corpus("fineweb-edu", count)


# --- which documents


def test_the_first_documents_are_held_out_and_all_others_are_to_train_on(fakes):
    assert corpus().splits == ("train", "validation")
    assert list(corpus().documents("validation")) == [document(n) for n in range(25)]
    assert list(corpus().documents("train")) == [document(n) for n in range(25, 520)]


def test_a_small_first_file_gives_a_tenth_of_itself_to_validation(fakes, monkeypatch):
    monkeypatch.setattr(fineweb, "HELD_OUT", 5000)
    assert len(list(corpus().documents("validation"))) == 30
    assert len(list(corpus().documents("train"))) == 490


def test_a_slice_has_the_first_files_and_the_same_validation(fakes):
    assert list(corpus(1).documents("validation")) == list(corpus(3).documents("validation"))
    assert list(corpus(1).documents("train")) == [document(n) for n in range(25, 300)]


def test_only_the_first_file_is_downloaded_to_validate(fakes):
    list(corpus().documents("validation"))
    assert {path for path, _ in fakes[0].asked} == {PLACE + NAMES[0]}


def test_the_named_corpora_are_all_files_and_the_first(fakes):
    assert len(list(open_corpus("fineweb-edu").documents("train"))) == 495
    assert len(list(open_corpus("fineweb-edu-1").documents("train"))) == 275


def test_the_table_of_files_is_that_of_the_sample():
    sizes = [size for size, _ in fineweb.FILES.values()]
    assert len(sizes) == 14
    assert sum(sizes) == 28_518_193_415
    assert all(re.fullmatch(r"[0-9a-f]{64}", sha256) for _, sha256 in fineweb.FILES.values())


def test_parquet_files_of_ones_own_are_read_instead(fakes, tmp_path, monkeypatch):
    folder = tmp_path / "data" / "fineweb-edu" / "sample" / "10BT"
    folder.mkdir(parents=True)
    for name, data in zip(NAMES[:2], PARTS[:2], strict=True):
        (folder / name).write_bytes(data)
    monkeypatch.setenv("HORNBOOK_DATA", str(tmp_path / "data"))
    assert len(list(corpus(14).documents("train"))) == 475
    assert len(list(corpus(1).documents("train"))) == 275
    assert not fakes[0].asked


# --- downloading


def test_what_was_downloaded_is_read_without_asking_again(fakes):
    first = list(corpus().documents("train"))
    asked = len(fakes[0].asked)
    assert asked == 3
    assert list(corpus().documents("train")) == first
    assert len(fakes[0].asked) == asked


def test_sizes_and_licence_are_told_before_anything_comes(fakes, capfd):
    fakes[0].allowance = fakes[1].allowance = 0
    with pytest.raises(UserError, match="cannot download"):
        list(corpus().documents("train"))
    told = capfd.readouterr().err
    assert f"{sum(map(len, PARTS)) / 1e9:,.3g} GB" in told
    assert "3 of 3 files" in told
    assert "ODC-By" in told


def test_a_download_that_breaks_off_goes_on_behind_what_came(fakes):
    fakes[0].allowance = len(PARTS[0]) // 3
    assert len(list(corpus().documents("train"))) == 495
    starts = [start for path, start in fakes[0].asked if path.endswith(NAMES[0])]
    assert starts == [0, len(PARTS[0]) // 3, len(PARTS[0]) // 3 * 2] + (
        [len(PARTS[0]) // 3 * 3] if len(starts) > 3 else []
    )
    assert not fakes[1].asked


def test_the_next_call_goes_on_where_an_interrupted_one_stopped(fakes, tmp_path):
    half, size, sha256 = len(PARTS[0]) // 2, len(PARTS[0]), hashlib.sha256(PARTS[0]).hexdigest()
    target = tmp_path / "x"
    part_of(target).write_bytes(PARTS[0][:half])
    assert download_resuming([fakes[0].address + PLACE + NAMES[0]], target, size, sha256).read_bytes() == PARTS[0]
    assert fakes[0].asked == [(PLACE + NAMES[0], half)]
    assert not part_of(target).exists()


def test_two_that_want_the_same_file_fetch_it_once(fakes, tmp_path):
    sha256 = hashlib.sha256(PARTS[0]).hexdigest()
    arguments = ([fakes[0].address + PLACE + NAMES[0]], tmp_path / "x", len(PARTS[0]), sha256)
    threads = [threading.Thread(target=download_resuming, args=arguments) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "x").read_bytes() == PARTS[0]
    assert len(fakes[0].asked) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_an_address_that_cannot_resume_sends_the_whole_again(fakes, tmp_path):
    fakes[0].ranges = False
    target = tmp_path / "x"
    part_of(target).write_bytes(PARTS[0][:100])
    sha256 = hashlib.sha256(PARTS[0]).hexdigest()
    found = download_resuming([fakes[0].address + PLACE + NAMES[0]], target, len(PARTS[0]), sha256)
    assert found.read_bytes() == PARTS[0]


def test_what_came_is_kept_when_all_addresses_fail_and_the_error_says_so(fakes, tmp_path):
    size, sha256 = len(PARTS[0]), hashlib.sha256(PARTS[0]).hexdigest()
    target = tmp_path / "x"
    part_of(target).write_bytes(PARTS[0][:1000])
    with pytest.raises(UserError, match=r"Not Found.*are kept: the same command carries on") as error:
        download_resuming([fake.address + "/gone" for fake in fakes], target, size, sha256)
    assert "\n" not in str(error.value)
    assert part_of(target).read_bytes() == PARTS[0][:1000]
    assert not target.exists()


@pytest.mark.parametrize("damage", ["changed", "longer"])
def test_a_file_that_is_not_the_pinned_one_is_thrown_away_and_the_next_mirror_asked(fakes, damage, tmp_path):
    path = PLACE + NAMES[0]
    fakes[0].files[path] = PARTS[0][:-1] + b"?" if damage == "changed" else PARTS[0] + b"?"
    assert len(list(corpus(1).documents("train"))) == 275
    assert fakes[1].asked == [(path, 0)]
    fakes[1].files[path] = fakes[0].files[path]
    for file in (tmp_path / "home" / "hub").rglob("*.parquet"):
        file.unlink()
    with pytest.raises(UserError, match="sha256 is" if damage == "changed" else "longer than"):
        list(corpus(1).documents("train"))
    assert not list((tmp_path / "home" / "hub").rglob("*.parquet"))


def test_a_disk_too_small_is_noticed_before_anything_comes(fakes, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, sum(map(len, PARTS)) - 1))
    with pytest.raises(UserError, match=r"takes about .* GB .* free: take fineweb-edu-1") as error:
        list(corpus().documents("train"))
    assert "\n" not in str(error.value)
    assert not fakes[0].asked
    assert len(list(corpus(1).documents("validation"))) == 25  # one file fits


def test_without_a_network_one_line_says_so(fakes):
    for fake in fakes:
        fake.server.shutdown()
        fake.server.server_close()
    with pytest.raises(UserError, match=r"cannot download 000_00000.parquet: 127.0.0.1") as error:
        list(corpus().documents("train"))
    assert "\n" not in str(error.value)


# --- reading


def test_measures_are_kept_until_the_files_change(fakes, tmp_path, monkeypatch):
    first = corpus().measure("train")
    assert first.documents == 495
    assert first.size == sum(len(document(n).encode()) for n in range(25, 520))
    monkeypatch.setattr(fineweb, "texts", None)  # not read again
    assert corpus().measure("train") == first
    monkeypatch.undo()
    monkeypatch.setenv("HORNBOOK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HORNBOOK_DATA", str(tmp_path / "data"))
    (tmp_path / "data" / "fineweb-edu").mkdir(parents=True)
    (tmp_path / "data" / "fineweb-edu" / "a.parquet").write_bytes(PARTS[1])
    assert corpus().measure("train").documents == 180


@pytest.mark.parametrize(
    ("start", "stop"), [(0, None), (0, 25), (39, 41), (40, 80), (95, None), (299, 300), (300, None)]
)
def test_any_range_of_rows_is_read(tmp_path, start, stop):
    (tmp_path / "x.parquet").write_bytes(PARTS[0])
    assert rows(tmp_path / "x.parquet") == 300
    assert list(texts(tmp_path / "x.parquet", start, stop)) == [document(n) for n in range(300)][start:stop]


def test_memory_is_that_of_a_row_group(tmp_path):
    writer, text = None, "word " * 2000
    for _ in range(30):
        table = pyarrow.table({"text": [f"{text}{n}" for n in range(100)]})
        writer = writer or parquet.ParquetWriter(tmp_path / "x.parquet", table.schema, compression="none")
        writer.write_table(table)
    writer.close()
    assert (tmp_path / "x.parquet").stat().st_size > 25e6
    tracemalloc.start()
    before = pyarrow.total_allocated_bytes()
    most = max(pyarrow.total_allocated_bytes() - before for _ in texts(tmp_path / "x.parquet"))
    python = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most + python < 10e6  # a row group is 1 MB: as parquet, as Arrow and as strings


@pytest.mark.parametrize(("data", "told"), [(b"PAR1nonsense", "cannot read"), (None, "no column 'text'")])
def test_a_file_that_cannot_be_read_is_named_in_one_line(tmp_path, data, told):
    path = tmp_path / "x.parquet"
    if data:
        path.write_bytes(data)
    else:
        parquet.write_table(pyarrow.table({"body": ["a"]}), path)
    with pytest.raises(UserError, match=told) as error:
        list(texts(path))
    assert "\n" not in str(error.value)
