"""What `benchmarks/serving_throughput.py` counts, and a small run of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.exists(), reason="the benchmarks are not in the source distribution")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import serving_throughput

    return serving_throughput


def test_shares_are_of_the_engine_s_speed_in_the_same_round(bench: Any) -> None:
    engine, streaming, waiting = bench.WAYS
    speeds = {engine: (100, 50, 80), streaming: (90, 48, 40), waiting: (100, 50, 80)}
    found = {way: [bench.Turn(tokens, 1.0, 0.25) for tokens in turns] for way, turns in speeds.items()}
    lines = {line[:20].strip(): line[20:].split() for line in bench.table(found)}
    assert lines[streaming] == ["48", "40", "90", "90.0%", "25.0%"]
    assert lines[waiting][3] == "100.0%"


def test_every_id_of_its_tokeniser_is_text(bench: Any) -> None:
    made = bench.letters(50_257)
    assert made.vocab == 50_257
    assert (made.decode([256]), made.decode([256 + 26**2 + 1])) == ("aa", "aaab")
    assert all(made.token_bytes(token) for token in (0, 255, 256, 50_256))


def test_a_small_run_is_told_with_every_way(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--shape", "tiny", "--streams", "3", "--rounds", "1", "--new", "5", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["serving_throughput", *words])
    bench.main()
    told = capsys.readouterr().out
    assert all(f"\n{way}" in told for way in bench.WAYS)
    assert (tmp_path / "tiny" / "tokenizer.json").exists()
