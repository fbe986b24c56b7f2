"""The main job, small: every kind of rung on one text, measured, sampled, reported."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hornbook.cli import main
from hornbook.config import Ladder
from hornbook.ladder import claim
from hornbook.run import read_log

RUNGS = ["bigram", "rnn-tiny", "bert-tiny", "gpt2-tiny"]


@pytest.fixture(scope="module")
def climbed(text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ladder") / "climb"
    main(command(text_folder, folder))
    return folder


def command(text: Path, folder: Path, minutes: str = "0.03") -> list[str]:
    return ["ladder", str(text), "--out", str(folder), "--minutes", minutes, "--vocab", "300", "--rungs", *RUNGS]


def test_a_ladder_measures_every_rung_on_the_same_bytes(climbed: Path) -> None:
    summaries = {name: json.loads((climbed / name / "summary.json").read_text()) for name in RUNGS}
    scored = {name: s["validation"] for name, s in summaries.items() if "validation" in s}
    assert set(scored) == {"bigram", "rnn-tiny", "gpt2-tiny"}
    assert len({s["bytes"] for s in scored.values()}) == 1
    assert len({s["targets"] for s in scored.values()}) == 1
    assert summaries["bert-tiny"]["pseudo_perplexity"] > 1
    for name in scored:
        low, high = scored[name]["bits_per_byte_interval"]
        assert low < scored[name]["bits_per_byte"] < high
        assert summaries[name]["sample"].startswith("The")


def test_its_report_shows_every_rung_and_how_to_repeat_it(climbed: Path) -> None:
    page = (climbed / "report.html").read_text()
    assert all(name in page for name in RUNGS)
    assert "sha256" in page
    command = re.sub("<[^>]*>", "", page.split('class="command">')[1].split("</code>")[0])
    assert command.startswith("hornbook ladder ")
    assert "--minutes 0.03 --rungs bigram rnn-tiny bert-tiny gpt2-tiny --vocab 300" in command
    assert "://" not in page.split("<body", 1)[1]


def test_what_a_killed_ladder_had_only_begun_to_write_is_in_nobody_s_way(tmp_path: Path) -> None:
    (tmp_path / ".ladder.json.999999999.part").write_text("{")
    claim(tmp_path, Ladder(), "ladder.json", "runs", "is not a ladder", ())
    assert (tmp_path / "ladder.json").exists()


def test_a_ladder_that_cannot_be_finished_is_not_begun(text_folder: Path, tmp_path: Path) -> None:
    for flags in (["--vocab", "999999"], ["--device", "tpu"], ["--minutes", "0"], ["--rungs", "bigram", "lama-tiny"]):
        with pytest.raises(SystemExit) as stop:
            main(["ladder", str(text_folder), "--out", str(tmp_path / "climb"), *flags])
        assert stop.value.code == 2
        assert not (tmp_path / "climb").exists()


def test_the_same_command_again_measures_nothing_anew_and_says_so(
    climbed: Path, text_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stamps = {name: (climbed / name / "summary.json").stat().st_mtime_ns for name in RUNGS}
    main(command(text_folder, climbed))
    assert {name: (climbed / name / "summary.json").stat().st_mtime_ns for name in RUNGS} == stamps
    assert f"{len(RUNGS)} of them finished in {climbed} (another --out begins anew)" in capfd.readouterr().err


def test_a_ladder_of_other_settings_is_not_mixed_in(
    climbed: Path, text_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(command(text_folder, climbed, minutes="0.5"))
    assert stop.value.code == 2
    assert "minutes was 0.03 and is now 0.5" in capsys.readouterr().err


@pytest.mark.slow
def test_a_ladder_stopped_in_the_middle_goes_on_from_there(text_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "climb"
    full = [sys.executable, "-m", "hornbook", *command(text_folder, folder, minutes="0.1")]
    process = subprocess.Popen(full, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while len(read_log(folder / "rnn-tiny")) < 3:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "the same command carries on" in told
    done = subprocess.run(full, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "carrying on at step" in done.stderr
    assert done.stdout.rstrip().endswith("report.html")
    steps = [line["step"] for line in read_log(folder / "rnn-tiny") if "loss" in line]
    assert steps == list(range(1, len(steps) + 1))
