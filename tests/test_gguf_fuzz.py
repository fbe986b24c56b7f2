"""A damaged GGUF file is a UserError or a sound result: nothing else, and nothing large is made from a wrong number."""

from __future__ import annotations

import random
import re
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hornbook import models
from hornbook.errors import UserError
from hornbook.formats.gguf import load_gguf, save_gguf
from hornbook.formats.gguf_file import GGUFFile, write
from hornbook.text.tokenizer_training import train_tokenizer

METADATA: dict[str, Any] = {
    "general.architecture": "llama",
    "a.count": 7,
    "a.negative": -3,
    "a.large": 2**40,
    "a.number": 0.5,
    "a.flag": True,
    "a.words": ["one", "zwei", ""],
    "a.numbers": [1, -2, 3],
    "a.scores": [0.5, -1.5],
    "a.flags": [True, False],
    "a.none": [],
}
TENSORS: dict[str, tuple[torch.Tensor, str]] = {
    "first": (torch.arange(12.0).reshape(3, 4), "F32"),
    "second.weight": (torch.arange(5.0), "F16"),
    "third": (torch.arange(8.0).reshape(2, 2, 2), "BF16"),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small file with values of every kind that we write."""
    path = tmp_path_factory.mktemp("gguf") / "x.gguf"
    write(path, METADATA, [(name, t.shape, kind, lambda t=t: t) for name, (t, kind) in TENSORS.items()])
    return path.read_bytes()


def opened(path: Path, data: bytes) -> str | None:
    """Open and read everything; the message of a UserError, None where all is sound. Anything else escapes."""
    path.write_bytes(data)
    try:
        file = GGUFFile(path)
        for name in file.tensors:
            assert file.read(name).shape == file.tensors[name].shape
    except UserError as error:
        message = str(error)
    else:
        return None
    assert "\n" not in message
    return message


def test_a_file_that_we_write_reads_back_as_it_was(sound: bytes, tmp_path: Path) -> None:
    assert opened(tmp_path / "x.gguf", sound) is None
    file = GGUFFile(tmp_path / "x.gguf")
    assert file.metadata == METADATA
    assert {name: info.kind for name, info in file.tensors.items()} == {n: kind for n, (_, kind) in TENSORS.items()}
    for name, (tensor, _) in TENSORS.items():
        assert torch.equal(file.read(name), tensor)


def test_a_file_cut_off_anywhere_is_refused(sound: bytes, tmp_path: Path) -> None:
    end = len(sound) - (-(2 * 8) % 32)  # behind the last tensor, before its padding
    for length in range(end):
        assert opened(tmp_path / "x.gguf", sound[:length]), length
    assert opened(tmp_path / "x.gguf", sound[:end]) is None


def test_flipped_bytes_are_refused_or_harmless(sound: bytes, tmp_path: Path) -> None:
    chooser, refused = random.Random(0), 0
    for _ in range(2500):
        data = bytearray(sound)
        for _ in range(chooser.choice([1, 1, 1, 2, 5])):
            data[chooser.randrange(len(data) - 96)] = chooser.choice([0, 1, 0x7F, 0x80, 0xFF, chooser.randrange(256)])
        refused += opened(tmp_path / "x.gguf", bytes(data)) is not None
    assert 500 < refused < 2500


def test_absurd_numbers_anywhere_are_refused_or_harmless(sound: bytes, tmp_path: Path) -> None:
    chooser = random.Random(1)
    absurd = [0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64 - 31]
    tracemalloc.start()
    for _ in range(2000):
        data, width = bytearray(sound), chooser.choice([4, 8])
        at = chooser.randrange(len(data) - 96)
        data[at : at + width] = (chooser.choice(absurd) % (1 << 8 * width)).to_bytes(width, "little")
        opened(tmp_path / "x.gguf", bytes(data))
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


# --- each check


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def head(tensors: int = 0, keys: int = 0, version: int = 3, magic: bytes = b"GGUF") -> bytes:
    return magic + struct.pack("<IQQ", version, tensors, keys)


def entry(name: str = "x", shape: tuple[int, ...] = (4,), kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def nested(depth: int) -> bytes:
    return b"".join(struct.pack("<IQ", 9, 1) for _ in range(depth - 1)) + struct.pack("<IQB", 0, 1, 7)


def key(kind: int, value: bytes, name: str = "k") -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def build(*parts: bytes) -> bytes:
    whole = b"".join(parts)
    return whole + bytes(-len(whole) % 32) + bytes(64)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "it is empty"),
        (b"PK\3\4" + bytes(99), "does not begin with 'GGUF'"),
        (head(version=1), "of GGUF version 1"),
        (head(version=4), "of GGUF version 4"),
        (head(version=3 << 24), "is big-endian"),
        (head(tensors=2**60), r"announces 1,152,921,504,606,846,976 tensors"),
        (head(keys=2**32), r"and 4,294,967,296 keys"),
        (build(head(keys=1), struct.pack("<Q", 2**63)), "a text of"),
        (build(head(keys=1), struct.pack("<Q", 60000)), "ends within its header"),
        (build(head(keys=1), key(8, struct.pack("<Q", 2**62))), "a text of"),
        (build(head(keys=1), key(8, struct.pack("<Q", 2) + b"\xff\xfe")), "not UTF-8"),
        (build(head(keys=1), key(13, b"")), "unknown type 13"),
        (build(head(keys=1), key(7, b"\2")), "2 where there should be true or false"),
        (build(head(keys=1), key(9, struct.pack("<IQ", 7, 2) + b"\1\3")), "3 where there should be"),
        (build(head(keys=1), key(9, struct.pack("<IQ", 4, 2**61))), "an array of"),
        (build(head(keys=1), key(9, struct.pack("<IQ", 4, 2**20))), "ends within its header"),
        (build(head(keys=1), key(9, struct.pack("<IQ", 8, 2**20))), "ends within its header"),
        (build(head(keys=1), key(9, struct.pack("<IQ", 99, 1))), "unknown type 99"),
        (build(head(keys=1), key(9, nested(5))), "5 deep"),
        (build(head(keys=2), key(0, b"\1"), key(0, b"\1")), "'k' occurs twice"),
        (build(head(keys=1), key(4, bytes(4), "general.alignment")), "no power of two"),
        (build(head(keys=1), key(4, struct.pack("<I", 2**31), "general.alignment")), "no power of two"),
        (build(head(tensors=2), entry(), entry(offset=32)), "'x' occurs twice"),
        (build(head(tensors=1), entry(shape=())), "has 0 dimensions"),
        (build(head(tensors=1), entry(shape=(1,) * 5)), "has 5 dimensions"),
        (build(head(tensors=1), entry(shape=(4, 0))), "cannot be F32"),
        (build(head(tensors=1), entry(shape=(2**62, 2**62))), "cut off"),
        (build(head(tensors=1), entry(kind=4)), "unknown type 4; known are F32"),
        (build(head(tensors=1), entry(shape=(33,), kind=2)), r"shape \[33\] cannot be Q4_0"),
        (build(head(tensors=1), entry(offset=8)), "cannot be F32 at 8"),
        (build(head(tensors=1), entry(offset=64)), "ends at byte"),
        (build(head(tensors=1), entry(offset=2**63)), "ends at byte"),
        (build(head(tensors=2), entry(shape=(12,)), entry("y", offset=32)), "'x' and 'y' lie on each other"),
    ],
)
def test_each_contradiction_is_named(data: bytes, told: str, tmp_path: Path) -> None:
    message = opened(tmp_path / "x.gguf", data)
    assert message is not None
    assert re.search(told, message), message
    assert str(tmp_path / "x.gguf") in message


def test_version_2_nested_arrays_and_another_alignment_are_read(tmp_path: Path) -> None:
    aligned = key(4, struct.pack("<I", 8), "general.alignment")
    whole = head(1, 2, version=2) + key(9, nested(4)) + aligned + entry("a-longer-name", shape=(2, 1), offset=8)
    assert -(-len(whole) // 8) * 8 % 32, "aligned to 32 by chance"
    data = whole + bytes(-len(whole) % 8) + bytes(8) + np.array([1.5, -2], "<f4").tobytes()
    assert opened(tmp_path / "x.gguf", data) is None
    file = GGUFFile(tmp_path / "x.gguf")
    assert file.metadata["k"] == [[[[7]]]]
    assert file.read("a-longer-name").tolist() == [[1.5, -2]]


def test_a_missing_file_or_a_folder_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.gguf"):
        with pytest.raises(UserError, match="cannot read"):
            GGUFFile(path)


# --- whole models


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A tiny Llama."""
    config = next(iter(models.family("llama").SIZES.values())).replace(
        vocab=259, context=16, dim=8, layers=1, heads=2, kv_heads=1, mlp=8
    )
    path = tmp_path_factory.mktemp("gguf") / "x.gguf"
    save_gguf(path, models.build(config), train_tokenizer("bytes", []), "F32")
    return path.read_bytes()


def numbers(data: bytes, chooser: random.Random) -> bytes:
    """Another number in place of a setting."""
    at = data.index(b"llama.context_length") + chooser.randrange(400)
    return data[:at] + chooser.choice([0, 3, 8, 255, 2**16, 2**31]).to_bytes(4, "little") + data[at + 4 :]


def flipped(data: bytes, chooser: random.Random) -> bytes:
    at = chooser.randrange(len(data) - 8 * 259 * 4)
    return data[:at] + bytes([chooser.randrange(256)]) + data[at + 1 :]


@pytest.mark.parametrize("damage", [numbers, flipped])
def test_a_damaged_model_is_refused_or_runs(
    damage: Callable[[bytes, random.Random], bytes], whole: bytes, tmp_path: Path
) -> None:
    chooser, path = random.Random(2), tmp_path / "x.gguf"
    messages: list[str] = []
    for _ in range(150):
        path.write_bytes(damage(whole, chooser))
        try:
            model = load_gguf(path)
            with torch.inference_mode():
                model(torch.tensor([model.tokenizer.encode("abc")]))
        except UserError as error:
            messages.append(str(error))
    assert 20 < len(messages) < 150
    assert not [message for message in messages if "\n" in message or len(message) > 500]
