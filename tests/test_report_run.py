"""The page of runs: one or several, finished or on their way, from whatever their folders hold."""

from __future__ import annotations

import json
import math
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hornbook import cli
from hornbook.errors import UserError
from hornbook.lock import LOCK
from hornbook.report import panels, run_page, run_tables, status
from hornbook.report.axes import SECONDS, STEPS, TOKENS
from hornbook.report.curves import Line
from hornbook.report.record import Record, open_records
from hornbook.report.run_page import render_runs, write_runs
from ladder_figures import counted, encoder, neural, validation
from test_report import Reader

NOW = 2e9
ENGINE = {"machine": "2 cores of a test", "threads": "2", "compile": "yes"}
SETTINGS = {
    "model": "gpt2-tiny",
    "data": "python-docs",
    "out": "runs/x",
    "steps": 120,
    "minutes": None,
    "lr": 0.002,
    "prompt": "The ",
    "track": [],
    "seed": 0,
    "tokenizer_hash": "ab" * 32,
}


def make(
    folder: Path, bits: float = 2.0, new: bool = True, finished: bool = True, share: float = 1.0, **settings: Any
) -> Path:
    """A run folder of 120 steps, with (`new`) or without the figures that older runs lack."""
    folder.mkdir(parents=True)
    rung = neural("x", bits)
    lines = [dict(line) for line in rung.log]
    for line in lines:
        if "loss" in line and new:
            line |= {"lr": 0.002 * min(1, line["step"] / 10), "gradient_norm": 0.5 + 5 / line["step"]}
        elif "loss" in line:
            del line["tokens"]
    kept = lines[: round(share * len(lines))]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    (folder / "train.json").write_text(json.dumps(SETTINGS | settings))
    if finished:
        extra = {"mfu": 0.612, "peak_memory": 1.5e9, "engine": ENGINE} if new else {}
        (folder / "summary.json").write_text(json.dumps(rung.summary | extra))
    return folder


def page(*folders: Path, now: float = NOW) -> str:
    return render_runs(open_records(folders), now)


def text_of(html: str) -> str:
    return " ".join(Reader(html).text.split())


def table_rows(html: str, heading: str) -> dict[str, list[str]]:
    """The rows of the table under a heading: row header -> cells."""
    table = html.split(f">{heading}</h2>")[1].split("</table>")[0]
    found = re.findall(r'<th scope="row">(.*?)</th>(.*?)</tr>', table, re.DOTALL)
    return {re.sub("<.*?>", "", name): re.findall(r"<td.*?>(.*?)</td>", cells, re.DOTALL) for name, cells in found}


# --- one run


def test_the_page_of_a_run_refers_to_nothing_outside_and_runs_nothing(tmp_path: Path) -> None:
    html = page(make(tmp_path / "x"))
    reader = Reader(html)
    assert "://" not in html
    assert not {"script", "iframe", "img", "object", "link"} & {
        tag for tag, a in reader.elements if a.get("href") != "data:,"
    }
    assert not any(name.startswith("on") for _, attributes in reader.elements for name in attributes)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", html))


def test_a_run_is_summed_up_with_its_interval_its_figures_and_what_it_ran_on(tmp_path: Path) -> None:
    html = page(make(tmp_path / "x"))
    told = text_of(html)
    assert "x needs 2.000 bits (95 % interval 1.910 to 2.080) for each byte of text from python-docs" in told
    rows = table_rows(html, "The figures")
    assert rows["Bits per byte"] == ["2.000"]
    assert rows["MFU"] == ["61 %"]
    assert rows["Peak memory"] == ["1.50 GB"]
    assert rows["Steps"] == ["120"]
    assert "More than the best" not in rows
    assert "<dt>machine</dt><dd>2 cores of a test</dd>" in html


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"engine": "bfloat16, compiled"}, {"engine": "bfloat16, compiled"}),
        ({"engine": {"threads": "2"}, "machine": "a test"}, {"machine": "a test", "threads": "2"}),
        ({"engine": None}, {}),
    ],
)
def test_the_engine_is_told_in_one_line_or_in_several_or_not_at_all(
    changes: dict[str, Any], told: dict[str, str], tmp_path: Path
) -> None:
    folder = make(tmp_path / "x")
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps(summary | changes))
    html = page(folder)
    assert dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", html)) == told


def test_every_chart_is_drawn_along_steps_tokens_and_time_and_steps_are_shown_first(tmp_path: Path) -> None:
    html = page(make(tmp_path / "x"))
    reader = Reader(html)
    names = [a["id"] for _, a in reader.elements if "id" in a]
    assert len(names) == len(set(names))
    assert html.count("<h3>") - html.count("<h3>As it learnt") == 5
    assert len(reader.all("svg")) == 5 * 3 * 2
    (speed,) = re.findall(r"<h3>(Tokens a second[^<]*)</h3>", html)
    assert re.search(r", in \w+$", speed)
    assert f"{speed} at the end: " in html  # what a screen reader says has the unit too
    assert [a["id"] for a in reader.all("input") if "checked" in a] == ["along-step"]
    style = (Path(run_page.__file__).parent / "page.css").read_text()
    for axis in panels.AXES:
        assert f"#along-{axis.key}:checked ~ figure .by-{axis.key}" in style


def test_an_older_run_without_the_newer_figures_has_a_page_all_the_same(tmp_path: Path) -> None:
    html = page(make(tmp_path / "x", new=False))
    told = text_of(html)
    assert "Training loss" in told
    assert not any(word in told for word in ("Learning rate", "Norm of the gradient", "MFU", "Peak memory"))
    assert "by tokens" in told  # from the totals: every step reads as many
    assert not re.search(r"\bnan\b|None", told)


def test_samples_are_shown_as_they_improve_with_the_best_marked(tmp_path: Path) -> None:
    folder = make(tmp_path / "x")
    html = page(folder)
    assert html.count('class="text"') == 10
    (marked,) = re.findall(r'<th scope="row">(\d+)</th>\s*<td>[\d.]+ <strong>best</strong>', html)
    assert marked == "120"
    assert '<span class="prompt">The </span>x</td>' in html


def test_a_long_run_shows_a_dozen_samples_among_them_the_best(tmp_path: Path) -> None:
    folder = make(tmp_path / "x")
    lines = [
        {"step": k, "seconds": k, "sample": f"The {k}", "validation_bits_per_byte": 2 + abs(k - 333) / 1000}
        for k in range(1, 1001)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (record,) = open_records([folder])
    found = run_tables.samples(record)
    assert len(found) == run_tables.ROWS + 1
    assert [s.step for s in found if s.best] == ["333"]
    assert (found[0].step, found[-1].step) == ("1", "1,000")


def test_the_command_gives_what_is_not_the_default_and_names_no_folder(tmp_path: Path) -> None:
    folder = make(tmp_path / "x", apart=True, prompt="Once upon", track=["wandb"], kv_heads=2, tied_to_nothing=1)
    (record,) = open_records([folder])
    assert run_tables.command(record) == (
        "hornbook train gpt2-tiny --steps 120 --lr 0.002 --prompt 'Once upon' --apart --kv-heads 2"
    )


def test_the_command_has_each_number_whole_and_of_a_repetition_by_the_log_no_steps(tmp_path: Path) -> None:
    rate = 0.0031622776601683794
    folder = make(tmp_path / "x", lr=rate, like="runs/y", minutes=5.0)
    (record,) = open_records([folder])
    words = run_tables.command(record).split()
    assert float(words[words.index("--lr") + 1]) == rate
    assert words[words.index("--minutes") + 1] == "5"
    assert "--steps" not in words


def test_a_repetition_of_a_run_by_the_clock_is_done_when_its_steps_are(tmp_path: Path) -> None:
    folder = make(tmp_path / "x", like="runs/y", minutes=1.0, finished=False)
    (record,) = open_records([folder])
    steps = record.settings["steps"]
    assert status.share_at(record, {"step": steps / 4, "seconds": 300.0}) == 0.25


# --- on its way


def test_a_run_on_its_way_says_how_far_it_is_and_how_long_it_will_take(tmp_path: Path) -> None:
    folder = make(tmp_path / "x", finished=False, share=0.5)
    (folder / LOCK).write_text(json.dumps({"process": os.getpid(), "host": platform.node()}))
    told = text_of(page(folder))
    assert re.search(r"x is being trained: 50 % done, about 2\d s left\. Its best evaluation: 2\.\d+ bits", told)
    assert "so far" in told


def test_a_run_whose_process_died_is_called_stopped(tmp_path: Path) -> None:
    folder = make(tmp_path / "x", finished=False, share=0.5)
    with subprocess.Popen([sys.executable, "-c", "pass"]) as dead:
        dead.wait()
    (folder / LOCK).write_text(json.dumps({"process": dead.pid, "host": platform.node()}))
    changed = (folder / "metrics.jsonl").stat().st_mtime
    told = text_of(page(folder, now=changed + 5))
    assert "x stopped before its end: 50 % done, 5 s ago" in told


@pytest.mark.parametrize("lock", [None, "not JSON", '{"process": 1, "host": "elsewhere"}'])
def test_where_no_lock_tells_the_stillness_of_the_log_does(lock: str | None, tmp_path: Path) -> None:
    folder = make(tmp_path / "x", finished=False, share=0.5)
    if lock is not None:
        (folder / LOCK).write_text(lock)
    (record,) = open_records([folder])
    assert status.status_of(record, record.changed + 100).state == "running"
    assert status.status_of(record, record.changed + 200).state == "stopped"


def test_a_budget_in_minutes_or_one_of_unknown_length_is_understood(tmp_path: Path) -> None:
    (timed,) = open_records([make(tmp_path / "a", finished=False, share=0.5, steps=None, minutes=2.0)])
    assert status.status_of(timed, NOW).share == pytest.approx(25 / 120, abs=0.01)
    (endless,) = open_records([make(tmp_path / "b", finished=False, share=0.5, steps=None, epochs=1.0)])
    assert status.status_of(endless, NOW).share is None
    assert "b stopped before its end, " in text_of(page(tmp_path / "b"))
    (told,) = open_records([make(tmp_path / "c", finished=False, share=0.5, steps=None, epochs=1.0, total_steps=240)])
    assert status.status_of(told, NOW).share == pytest.approx(0.25, abs=0.01)


def test_a_run_that_has_just_begun_has_a_page(tmp_path: Path) -> None:
    folder = make(tmp_path / "x", finished=False)
    (folder / "metrics.jsonl").unlink()
    assert "x stopped before its end" in text_of(page(folder))


# --- whatever the log holds


def test_a_torn_line_a_loss_that_is_no_number_and_a_skipped_step_break_no_plot(tmp_path: Path) -> None:
    folder = make(tmp_path / "x")
    with open(folder / "metrics.jsonl", "a") as log:
        for line in (
            {"step": 121, "loss": math.nan, "seconds": 49.0, "tokens": 1, "lr": math.inf, "gradient_norm": math.nan},
            {"step": 122, "skipped": "the loss became <nan>", "batch": 122},
            {"step": 123, "seconds": None, "sample": None, "validation_bits_per_byte": math.nan},
        ):
            log.write(json.dumps(line) + "\n")
        log.write('{"step": 12')
    html = page(folder)
    Reader(html)
    for drawing in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        assert not re.search(r"\b(nan|inf)\b", drawing)
    assert html.count('class="lost"') == 2 * 3 * 2  # two strokes, three axes, two sizes
    assert "step 122, batch 122: the loss became &lt;nan&gt;" in html
    assert "1 skipped step" in text_of(html)


def test_foreign_text_is_shown_and_not_obeyed(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\u202e"
    folder = make(tmp_path / "a<b>", prompt=evil, model=evil)
    summary = json.loads((folder / "summary.json").read_text())
    changed = summary | {"sample": evil, "data": evil, "engine": {evil: evil}}
    (folder / "summary.json").write_text(json.dumps(changed))
    for html in (page(folder), page(folder, make(tmp_path / "y"))):
        assert not {"script", "b"} & {tag for tag, _ in Reader(html).elements}
        assert "\u202e" not in html


def test_counted_runs_and_encoders_have_pages_too(tmp_path: Path) -> None:
    for rung in (counted("bigram", 2.4), encoder()):
        folder = tmp_path / rung.name
        folder.mkdir()
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in rung.log))
        (folder / "summary.json").write_text(json.dumps(rung.summary))
    told = text_of(page(tmp_path / "bigram"))
    assert "bigram needs 2.400 bits" in told
    assert "While training" not in told
    told = text_of(page(tmp_path / "bert-tiny"))
    assert "pseudo-perplexity of 215" in told
    assert "Loss on hidden tokens" in told
    both = page(tmp_path / "bigram", make(tmp_path / "x"))
    assert 'class="level"' in both
    assert "Dashed: counted runs" in text_of(both)


# --- several runs


def test_runs_are_compared_best_first_with_the_interval_of_each_difference(tmp_path: Path) -> None:
    html = page(
        make(tmp_path / "worse", 2.1), make(tmp_path / "best", 2.0), make(tmp_path / "on", finished=False, share=0.5)
    )
    rows = table_rows(html, "The figures")
    assert list(rows) == ["best", "worse", "on"]
    assert rows["best"][2] == "–"
    assert re.fullmatch(r"0\.100 \(0\.\d{3} to 0\.\d{3}\)", rows["worse"][2])
    assert "so far" in rows["on"][0]
    told = text_of(html)
    assert "best needs 2.000 bits" in told
    assert "the fewest of 2 runs" in told
    assert "best is best: it leads worse by 0.100 bits per byte" in told
    assert "on stopped before its end: 50 % done" in told
    assert [a["id"] for a in Reader(html).all("input") if "checked" in a] == ["along-seconds"]


def test_only_settings_that_differ_are_set_side_by_side(tmp_path: Path) -> None:
    html = page(make(tmp_path / "a", lr=0.01), make(tmp_path / "b", out="elsewhere"))
    assert table_rows(html, "Settings") == {"lr": ["0.01", "0.002"]}
    assert "<summary>The same in all</summary>" in html


def test_what_the_runs_ran_on_is_compared_with_differences_marked(tmp_path: Path) -> None:
    folders = [make(tmp_path / name) for name in "ab"]
    summary = json.loads((folders[1] / "summary.json").read_text())
    (folders[1] / "summary.json").write_text(json.dumps(summary | {"engine": ENGINE | {"threads": "1"}}))
    table = page(*folders).split("What they ran on</h3>")[1].split("</table>")[0]
    assert re.findall(r'<tr class="marked">\s*<th scope="row">(\w+)', table) == ["threads"]


def test_runs_that_differ_in_their_seed_only_are_taken_together(tmp_path: Path) -> None:
    folders = [make(tmp_path / f"s{k}", 2.0 + k / 100, seed=k, out=f"runs/{k}") for k in range(3)]
    told = text_of(page(*folders, make(tmp_path / "other", 2.5, lr=0.1)))
    assert "s0, s1 and s2 differ in their seed only: 2.010 bits per byte on average, 2.000 to 2.020" in told
    assert "standard deviation of 0.010" in told
    assert "not how much another seed would" not in told


def test_runs_measured_on_different_texts_are_not_ranked_in_the_headline(tmp_path: Path) -> None:
    folders = [make(tmp_path / name) for name in "ab"]
    summary = json.loads((folders[1] / "summary.json").read_text())
    (folders[1] / "summary.json").write_text(json.dumps(summary | {"data": "wikitext-2"}))
    told = text_of(page(*folders))
    assert "different texts (python-docs and wikitext-2): their figures do not compare" in told
    assert "has the fewest bits per byte" not in told


def test_losses_of_different_tokenisers_are_said_not_to_compare(tmp_path: Path) -> None:
    same = page(make(tmp_path / "a"), make(tmp_path / "b"))
    assert "do not compare" not in same
    assert "losses a token do not compare" in page(tmp_path / "a", make(tmp_path / "c", tokenizer_hash="cd" * 32))


def test_many_runs_have_lines_that_can_be_told_apart_and_no_raw_losses(tmp_path: Path) -> None:
    folders = [make(tmp_path / f"run-{k:02d}", 2 + k / 50) for k in range(18)]
    records = open_records(folders)
    colours = run_page.colour(records)
    assert len(set(colours.values())) == 18
    assert {"c0", "c0 round1", "c1 round2"} <= set(colours.values())
    assert 'class="raw"' not in page(*folders)
    assert 'class="raw"' in page(*folders[:2])


# --- which runs


def test_a_ladder_s_folder_means_its_rungs_in_their_order(tmp_path: Path) -> None:
    for name in ("llama-tiny", "bigram", "not-a-rung"):
        make(tmp_path / "ladder" / name)
    (tmp_path / "ladder" / "ladder.json").write_text(json.dumps({"rungs": ["llama-tiny", "gone", "bigram"]}))
    assert [r.name for r in open_records([tmp_path / "ladder"])] == ["llama-tiny", "bigram"]


def test_a_folder_of_runs_means_all_of_them_and_one_named_twice_is_there_once(tmp_path: Path) -> None:
    for name in ("b", "a"):
        make(tmp_path / "runs" / name)
    (tmp_path / "runs" / "notes").mkdir()
    assert [r.name for r in open_records([tmp_path / "runs", tmp_path / "runs" / "a"])] == ["a", "b"]


def test_runs_of_the_same_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    folders = [make(tmp_path / where / "x") for where in ("monday", "tuesday")]
    assert [r.name for r in open_records(folders)] == ["monday/x", "tuesday/x"]


def test_what_is_no_run_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere is no folder"):
        open_records([tmp_path / "nowhere"])
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"model is no run, and holds none: there is no metrics\.jsonl"):
        open_records([model])
    with pytest.raises(UserError, match=r"Did you mean 'model'\?"):
        open_records([tmp_path / "modle"])
    make(tmp_path / "x")
    (tmp_path / "x" / "summary.json").write_text("[]")
    with pytest.raises(UserError, match="holds a JSON list, not an object"):
        open_records([tmp_path / "x"])


def test_the_page_lies_in_the_run_or_beside_its_runs_or_where_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        make(tmp_path / "runs" / name)
    assert write_runs(("runs/a",), None) == Path("runs/a/report.html")
    assert write_runs(("runs",), None) == Path("runs/runs.html")
    assert write_runs(("runs/a", "runs/b"), None) == Path("runs.html")
    cli.main(["report", "runs/a", "runs/b", "--out", "deep/both.html"])
    assert capsys.readouterr().out.strip() == "deep/both.html"
    assert "2 runs" in Path("deep/both.html").read_text()
    with pytest.raises(SystemExit):
        cli.main(["report"])
    assert "report needs a run" in capsys.readouterr().err


def test_no_torch_is_loaded_for_a_page(tmp_path: Path) -> None:
    make(tmp_path / "x")
    code = "import sys; from hornbook.cli import main; main(sys.argv[1:]); print(*sys.modules)"
    command = [sys.executable, "-c", code, "report", str(tmp_path / "x")]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert "jinja2" in loaded
    assert not {"torch", "matplotlib", "transformers"} & set(loaded)


# --- curves


def record(lines: list[dict[str, Any]]) -> Record:
    return Record("x", {}, lines, {}, Path(), 0.0)


def test_the_speed_leaves_out_evaluations(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = []
    seconds = 0.0
    for k in range(1, 31):
        seconds += 1.0
        lines.append({"step": k, "loss": 1.0, "seconds": seconds, "tokens": 100.0 * k})
        if k % 10 == 0:
            seconds += 50
            lines.append({"step": k, "seconds": seconds, "tokens": 100.0 * k, "validation_loss": 1.0})
    line = panels.speed(record(lines), STEPS)
    assert line is not None
    assert {y for _, y in line.points} == {100.0}
    assert [x for x, _ in line.points] == [k for k in range(2, 31) if k not in (11, 21)]


def test_the_speed_of_a_long_run_is_drawn_in_medians() -> None:
    lines = [{"step": k, "loss": 1.0, "seconds": float(k), "tokens": 100.0 * k} for k in range(1, 2001)]
    lines[1000]["seconds"] -= 0.9  # one step far too quick, the next as much too slow
    line = panels.speed(record(lines), SECONDS)
    assert line is not None
    assert len(line.points) == panels.SPEEDS
    assert {y for _, y in line.points} == {100.0}


def test_thinning_the_raw_figures_keeps_every_spike() -> None:
    points = [(float(i), 1.0 + (50.0 if i == 777 else 0.0)) for i in range(5000)]
    kept = panels.extremes(points, 100)
    assert (777.0, 51.0) in kept
    assert len(kept) <= 200
    assert kept == sorted(kept)


def test_a_spike_does_not_flatten_the_panel_of_the_gradient() -> None:
    points = [(float(i), 1.0) for i in range(1000)]
    raw = [(x, 500.0 if x == 700 else y) for x, y in points]
    assert panels.usual_from_zero([Line("", "c0", points, raw=raw)], 999)[1] < 2


def test_small_and_large_figures_are_drawn_in_a_unit_that_suits_them() -> None:
    assert panels.magnitude([Line("", "", [(0, 0.004)])]) == 1e-3
    assert panels.magnitude([Line("", "", [(0, 9400.0)])]) == 1e3
    assert panels.magnitude([Line("", "", [(0, 0.0)])]) == 1.0


@pytest.mark.parametrize(
    ("axis", "last", "told"),
    [
        (SECONDS, 60, (1, "seconds of training")),
        (SECONDS, 3600, (60, "minutes of training")),
        (STEPS, 1389, (1, "steps")),
        (STEPS, 50_000, (1e3, "thousand steps")),
        (TOKENS, 5.7e6, (1e6, "million tokens read")),
        (TOKENS, 1.9e6, (1e3, "thousand tokens read")),
    ],
)
def test_an_axis_is_in_the_unit_that_suits_its_length(axis: Any, last: float, told: tuple[float, str]) -> None:
    assert axis.unit(last) == told


def test_a_run_without_bits_per_byte_is_followed_by_its_loss(tmp_path: Path) -> None:
    folder = make(tmp_path / "x")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        if "validation_bits_per_byte" in line:
            line["validation_loss"] = line.pop("validation_bits_per_byte") * 2
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    summary = json.loads((folder / "summary.json").read_text())
    lossy = validation(2.0) | {"bits_per_byte": None, "bits_per_byte_interval": None}
    (folder / "summary.json").write_text(json.dumps(summary | {"validation": lossy}))
    told = text_of(page(folder))
    assert "No run has been measured in bits per byte" in told
    assert "Loss on the validation text, in nats per token" in told


def test_what_a_well_known_model_reaches_is_drawn_beside_the_runs_that_it_compares_with(tmp_path: Path) -> None:
    folder = make(tmp_path / "x")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    scores = {"hellaswag_accuracy": 0.27, "validation_loss": 3.3}
    lines = [line | scores if "sample" in line else line for line in lines]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    told = text_of(page(folder))
    assert "Hellaswag: accuracy" in told
    assert "OpenAI's GPT-2 (124M), 0.2892 (lm-evaluation-harness" in told
    assert "3.2924" not in told
    saved = json.loads((folder / "train.json").read_text())
    (folder / "train.json").write_text(json.dumps(saved | {"data": "fineweb-edu"}))
    (folder / "config.json").write_text(json.dumps({"vocab_size": 50257}))
    assert "OpenAI's GPT-2 (124M), 3.2924" in text_of(page(folder))
    (folder / "config.json").write_text(json.dumps({"vocab_size": 8192}))
    assert "3.2924" not in text_of(page(folder)), "nats a token of another tokeniser"
