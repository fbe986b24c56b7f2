"""`make bench-generate`: figures that follow from their definitions, and a small run of ours."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from hornbook.checkpoint import load
from hornbook.generation.stream import stream_tokens

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.exists(), reason="the benchmarks are not in the source distribution")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import generation_against_peers

    return generation_against_peers


def run_of(entry: Any, seconds: list[tuple[float, float]], **more: Any) -> dict[str, Any]:
    told = {"seconds": seconds, "early": entry.rows, "load_seconds": 1.0, "peak_bytes": 10**9, "weights": 10**8}
    return entry._asdict() | told | {"logits": [0.0, 2.0, 4.0], "wall_seconds": 9.0} | more


def test_tokens_that_came_with_the_first_ones_do_not_count_as_decoded(bench: Any) -> None:
    run = run_of(bench.Entry(1, "tiny", 16, "hornbook-bf16"), [(1.0, 3.0), (1.0, 2.0), (1.0, 5.0)], early=48)
    assert bench.decoding(run) == (16 * 128 - 48) / 2
    assert bench.overall(run) == pytest.approx(16 * 128 / 3)
    assert bench.first_token(run) == 1.0


def test_the_table_compares_with_the_fastest_peer_of_the_same_bits(bench: Any, tmp_path: Path) -> None:
    kept = bench.Kept(tmp_path / "results.json", bench.Entry, {}, peak=20e9)
    seconds = {
        "hornbook-bf16": 2.0,
        "transformers": 8.0,
        "transformers-static": 5.0,
        "llama-bf16": 1.5,
        "llama-q4_0": 1,
    }
    for name, wanted in seconds.items():
        for number, factor in ((1, 1.0), (2, 0.9), (3, 2.0)):
            entry = bench.Entry(number, "tiny", 1, name)
            kept.keep(entry, run_of(entry, [(0.5, 0.5 + factor * wanted)]))
    lines = bench.table("tiny", 1, bench.Kept(tmp_path / "results.json", bench.Entry, {}))
    text = "\n".join(lines)
    assert "Hornbook, bf16: 2.50 x transformers, bf16, static, compiled" in text
    assert "Hornbook, bf16: 0.75 x llama.cpp, BF16" in text
    assert "Q4_0" not in text.split("\n\n")[-1], "there is no run of ours with 4 bits"
    ours = next(line for line in lines if line.startswith("Hornbook, bf16"))
    assert "63.5" in ours, "127 tokens in 2 s, the median round"
    assert f"{0.1 * 63.5 / 20:.1%}" in ours, "0.1 GB a token, of a limit of 20 GB/s"
    assert bench.table("tiny", 16, kept)[0].endswith("nothing measured")


def test_a_share_of_the_memory_limit_is_told_of_single_rows_only(bench: Any) -> None:
    for rows in (1, 16):
        run = run_of(bench.Entry(1, "tiny", rows, "hornbook-bf16"), [(0.5, 2.5)])
        assert ("%" in bench.line("hornbook-bf16", [run], 20e9)) == (rows == 1)


def test_logits_differ_by_a_share_of_their_own_deviation(bench: Any) -> None:
    assert bench.difference([0.0, 2.0, 4.0], [0.0, 2.0, 4.0]) == 0
    assert bench.difference([1.0, 3.0, 5.0], [0.0, 2.0, 4.0]) == pytest.approx(1 / (8 / 3) ** 0.5)


def test_a_generation_of_too_few_tokens_is_no_measurement(bench: Any) -> None:
    from peers import generating

    def short(mark: Any) -> list[list[int]]:
        mark(1)
        return [[0] * (generating.NEW - 1)]

    with pytest.raises(AssertionError, match="127"):
        generating.timed(short, 1)


def test_llama_cpp_runs_without_amx_where_it_died(bench: Any, tmp_path: Path) -> None:
    from peers import making

    folder = making.model_folder(tmp_path, "tiny")
    answers = {"llama": {"error": "left out (the process died of SIGILL)"}, "llama-no-amx": {"early": 1}}
    found = bench.llama(folder, "BF16", lambda name, source: answers[name])
    assert found["remark"] == "without AMX, for with it the process died of SIGILL"
    assert found["early"] == 1
    assert found["weights"] == making.gguf_weights(tmp_path / "tiny-BF16.gguf")
    missing = bench.llama(folder, "Q4_0", lambda name, source: {"error": "left out (No module named 'llama_cpp')"})
    assert missing == {"error": "left out (No module named 'llama_cpp')"}


def test_a_process_that_fails_is_left_out_with_its_reason(bench: Any) -> None:
    def ask(code: str) -> dict[str, Any]:
        return bench.asked([sys.executable, "-c", code], {})

    assert ask("print('{}')").keys() == {"wall_seconds"}
    assert ask("raise SystemExit('no such thing')") == {"error": "left out (no such thing)"}
    assert ask("import os; os.abort()") == {"error": "left out (the process died of SIGABRT)"}
    assert "No such file" in bench.asked(["/nowhere/python"], {})["error"]


@pytest.mark.parametrize("name", ["hornbook-bf16", "hornbook-int8", "hornbook-int4"])
def test_ours_writes_what_the_plain_loop_does_for_every_row(
    bench: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from peers import generating, making, ours_generating

    folder = making.model_folder(tmp_path, "tiny")
    assert folder == making.model_folder(tmp_path, "tiny"), "made once"
    monkeypatch.setattr(sys, "argv", ["ours", name, str(folder), "--rows", "3", "--repeats", "1"])
    ours_generating.main()
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(told["seconds"]) == 1
    assert 0 < told["seconds"][0][0] < told["seconds"][0][1]
    assert 3 <= told["early"] < 3 * generating.NEW
    model = load(folder, "cpu", "float32", bits=ours_generating.BITS[name])
    texts = generating.prompts(3, model.config.vocab)
    assert len({tuple(text) for text in texts}) == 3
    found = ours_generating.generate(model, texts, lambda count: None)
    assert found == [list(stream_tokens(model, text, generating.NEW, temperature=0)) for text in texts]


def test_weights_are_what_is_read_for_a_token(bench: Any, tmp_path: Path) -> None:
    from peers import making, ours_generating

    model = load(making.model_folder(tmp_path, "tiny"), "cpu", torch.bfloat16)
    assert ours_generating.weights(model) == 2 * model.parameter_count(), "a tied head is read whole"
    assert making.make_gguf(tmp_path / "tiny", "BF16", lambda *command: pytest.fail("ours is enough")) == {}
    norms = sum(p.numel() for name, p in model.named_parameters() if "norm" in name)
    assert making.gguf_weights(tmp_path / "tiny-BF16.gguf") == 2 * model.parameter_count() + 2 * norms, (
        "norms in float32"
    )
