"""The command line as people use it, rightly and wrongly: one clear line, nothing left half-written."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from folders import edit, folder_of, speaking, store, tensors_of
from hornbook import checkpoint
from hornbook.cli import COMMANDS, main
from hornbook.doctor import certificate
from hornbook.doctor.finding import PASS, Finding
from terminal import on_terminal

SMALL = ["--tokenizer", "bytes", "--context", "32", "--batch", "2", "--steps", "2", "--layers", "1", "--dim", "16"]


def refused(capfd: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    """Run a command that must fail; returns its one line."""
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    told = [line for line in capfd.readouterr().err.splitlines() if line.startswith("hornbook: ")]
    assert stop.value.code == code
    assert len(told) == 1
    return told[0]


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    code = "import sys; from hornbook.cli import main; main(['--help']); print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    help_text, modules = out.rsplit("\n", 2)[0], out.splitlines()[-1].split()
    assert all(word in help_text for word in COMMANDS)
    assert not {"torch", "tyro", "numpy", "rich"} & set(modules)


@pytest.mark.parametrize("word", COMMANDS)
def test_every_command_has_help_that_opens_with_an_example(word: str) -> None:
    command = [sys.executable, "-m", "hornbook", word, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "200"})
    assert f"hornbook {word}" in done.stdout.split("options")[0].split("\n\n", 1)[1]


@pytest.mark.parametrize("word", COMMANDS)
def test_help_says_what_each_word_stands_for(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([word, "--help"])
    usage = capsys.readouterr().out.split("\n\n")[0]
    assert "STR" not in re.sub(r"\[[^\]]*\]", "", usage)  # options in brackets tell what they take
    if word == "import":
        assert "SOURCE RUN" in usage


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--version"])
    assert capsys.readouterr().out == "hornbook 0.1.0\n"


def test_an_unknown_command_is_told_with_the_nearest(capfd: pytest.CaptureFixture[str]) -> None:
    assert "Did you mean 'train'?" in refused(capfd, "trian")


def test_an_unknown_rung_is_told_with_the_nearest(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    line = refused(capfd, "train", "lama-tiny", "--out", str(tmp_path / "x"))
    assert "Did you mean 'llama-tiny'?" in line
    assert not (tmp_path / "x").exists()
    assert len(line) < 300, "of many names, the nearest"


def test_capitals_do_not_hide_the_nearest(capfd: pytest.CaptureFixture[str]) -> None:
    assert "Did you mean 'llama-3.2-1b'?" in refused(capfd, "inspect", "Llama-3.2-1B")
    assert "Did you mean 'gpt2'?" in refused(capfd, "import", "GPT2", "x")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "nowhere.txt"),
        (b"", "empty"),
        (b"PK\x03\x04\x00\x00\x00binary", "not text"),
        ("caf\u00e9 ".encode("latin-1") * 50, "UTF-8"),
        (b"short", "fewer than one block|too little|validation"),
    ],
)
def test_bad_text_is_one_line_and_leaves_no_run(
    content: bytes | None, told: str, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / ("text.txt" if content is not None else "nowhere.txt")
    if content is not None:
        file.write_bytes(content)
    line = refused(capfd, "train", "gpt2-tiny", "--data", str(file), "--out", str(tmp_path / "run"), *SMALL)
    assert re.search(told, line)
    assert not (tmp_path / "run").exists()


def test_a_vocabulary_larger_than_the_text_supports_is_refused(
    capfd: pytest.CaptureFixture[str], text_folder: Path, tmp_path: Path
) -> None:
    run = ["--out", str(tmp_path / "run"), "--vocab", "100000"]
    line = refused(capfd, "train", "gpt2-tiny", "--data", str(text_folder), *run)
    assert "100,000" in line or "100000" in line


def test_settings_that_a_rung_does_not_have_are_refused(
    capfd: pytest.CaptureFixture[str], text_folder: Path, tmp_path: Path
) -> None:
    run = ["--data", str(text_folder), "--out", str(tmp_path / "run"), "--tokenizer", "bytes"]
    assert "--order" in refused(capfd, "train", "llama-tiny", *run, "--order", "3")
    assert "--heads" in refused(capfd, "train", "bigram", *run, "--heads", "3")
    assert "cannot be divided" in refused(capfd, "train", "gpt2-tiny", *run, "--dim", "100", "--heads", "3")


def test_a_folder_that_is_no_run_is_not_written_into(
    capfd: pytest.CaptureFixture[str], text_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    line = refused(capfd, "train", "gpt2-tiny", "--data", str(text_folder), "--out", str(tmp_path / "mine"), *SMALL)
    assert "not a run" in line
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_device_that_is_not_there_is_refused(
    capfd: pytest.CaptureFixture[str], runs: dict[str, str], tmp_path: Path
) -> None:
    assert "Possible: cpu" in refused(capfd, "train", "gpt2-tiny", "--out", str(tmp_path / "x"), "--device", "tpu")
    assert "Possible: cpu" in refused(capfd, "generate", runs["gpt2-tiny"], "The ", "--device", "tpu")
    assert "Possible: cpu" in refused(capfd, "generate", runs["gpt2-tiny"], "The ", "--device", "cpu:abc")


def test_the_home_of_nobody_is_told_in_a_line(capfd: pytest.CaptureFixture[str]) -> None:
    assert "write the whole path" in refused(capfd, "generate", "~nobody-of-that-name/x", "hi")


def test_an_encoder_that_cannot_go_on_prints_nothing_but_why(
    capfd: pytest.CaptureFixture[str], runs: dict[str, str]
) -> None:
    capfd.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(["generate", runs["bert-tiny"], "The "])
    out, err = capfd.readouterr()
    assert (stop.value.code, out) == (2, "")
    assert "fills in gaps" in err


def test_what_a_folder_calls_its_parts_is_no_order_to_the_terminal(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder, order = folder_of(speaking(), tmp_path / "theirs"), "x\x1b]0;pwned\x07\x1b[2J\rhornbook: \u202e"
    store(folder, tensors_of(folder) | {order: torch.ones(1)})
    capfd.readouterr()
    main(["import", str(folder), str(tmp_path / "out")])
    told = capfd.readouterr().err
    assert r"x\x1b]0;pwned\x07\x1b[2J\rhornbook: \u202e" in told
    assert told.count("\n") == 1
    edit(folder / "config.json", model_type=f"{order}\nhornbook: all is well")
    line = refused(capfd, "import", str(folder), str(tmp_path / "again"))
    assert r"x\x1b]0;pwned\x07\x1b[2J\rhornbook: \u202e\nhornbook: all is well" in line


def test_a_finding_is_one_line_whatever_it_tells(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Finding(PASS, "\x1b[2J\nFAIL")
    monkeypatch.setattr(certificate, "examine", lambda settings: [found])
    main(["doctor", "x"])
    assert capfd.readouterr().out.splitlines()[0].endswith(r"\x1b[2J\nFAIL")


def test_a_missing_run_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    for word in ("generate", "evaluate"):
        assert "runs/none" in refused(capfd, word, "runs/none")


@pytest.mark.parametrize("word", ["evaluate", "generate", "export", "inspect"])
def test_a_run_that_is_nearly_called_so_is_suggested(
    word: str, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder_of(speaking(), tmp_path / "llama")
    (tmp_path / "lama2").mkdir()
    more = [str(tmp_path / "out")] if word == "export" else []
    line = refused(capfd, word, str(tmp_path / "lama"), *more)
    assert line.endswith(f"there is no run or model folder '{tmp_path / 'lama'}'. Did you mean '{tmp_path / 'llama'}'?")
    assert "Did you mean" not in refused(capfd, word, str(tmp_path / "5gram"), *more)


@pytest.fixture(scope="module")
def runs(text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A counted run, a neural one and an encoder."""
    folder, made = tmp_path_factory.mktemp("runs"), {}
    for model, flags in (("trigram", []), ("gpt2-tiny", SMALL[2:]), ("bert-tiny", SMALL[2:])):
        made[model] = str(folder / model)
        extra = ["--heads", "2"] if flags else []
        flags = ["--tokenizer", "bpe", "--vocab", "400", *flags, *extra]
        main(["train", model, "--data", str(text_folder), "--out", made[model], *flags])
    return made


def test_a_prompt_longer_than_the_context_is_refused(capfd: pytest.CaptureFixture[str], runs: dict[str, str]) -> None:
    assert "context" in refused(capfd, "generate", runs["gpt2-tiny"], "far too long " * 50)


def test_an_encoder_does_not_pretend_to_write(capfd: pytest.CaptureFixture[str], runs: dict[str, str]) -> None:
    assert "cannot continue" in refused(capfd, "generate", runs["bert-tiny"], "The ")
    assert "no probability" in refused(capfd, "evaluate", runs["bert-tiny"], "--text", "The cat")


def test_generate_streams_after_its_prompt_and_repeats_with_its_seed(
    capfd: pytest.CaptureFixture[str], runs: dict[str, str]
) -> None:
    texts = []
    for seed in ("1", "1", "2"):
        main(["generate", runs["trigram"], "The ", "--tokens", "20", "--seed", seed])
        texts.append(capfd.readouterr().out)
    assert texts[0].startswith("The ")
    assert texts[0] == texts[1] != texts[2]


def test_several_samples_are_numbered_for_they_may_hold_blank_lines(
    capfd: pytest.CaptureFixture[str], runs: dict[str, str]
) -> None:
    main(["generate", runs["trigram"], "The ", "--tokens", "20", "--samples", "2"])
    out = capfd.readouterr().out
    assert out.startswith("--- sample 1 of 2\nThe ")
    assert len(re.findall(r"^--- sample \d of 2\nThe ", out, re.MULTILINE)) == 2


def test_generate_reads_its_prompt_from_a_pipe(runs: dict[str, str]) -> None:
    command = [sys.executable, "-m", "hornbook", "generate", runs["trigram"], "--tokens", "5"]
    done = subprocess.run(command, input="A list", capture_output=True, text=True, check=True)
    assert done.stdout.startswith("A list")


@pytest.mark.parametrize("flag", ["--temperature=-1", "--top-p=0", "--samples=0", "--tokens=0", "--top-k=-1"])
def test_sampling_settings_out_of_range_are_refused(
    flag: str, capfd: pytest.CaptureFixture[str], runs: dict[str, str]
) -> None:
    assert "it must be" in refused(capfd, "generate", runs["gpt2-tiny"], "The ", flag)


def test_a_text_from_a_pipe_can_be_tokenised_and_climbed(text_folder: Path, tmp_path: Path) -> None:
    text = "\n\n".join(path.read_text() for path in sorted(text_folder.iterdir()))
    climb = ["ladder", "-", "--out", str(tmp_path / "climb"), "--vocab", "300", "--rungs", "unigram", "bigram"]
    for words in (["tokenize", "-", "--vocab", "300"], climb):
        command = [sys.executable, "-m", "hornbook", *words]
        done = subprocess.run(command, input=text, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_a_start_never_seen_backs_off_and_says_so(capfd: pytest.CaptureFixture[str], runs: dict[str, str]) -> None:
    main(["generate", runs["trigram"], "zqx\u00ff", "--tokens", "5"])
    assert "nothing was ever counted after" in capfd.readouterr().err


def test_evaluate_prints_all_three_figures_and_the_protocol(
    capfd: pytest.CaptureFixture[str], runs: dict[str, str], text_folder: Path
) -> None:
    main(["evaluate", runs["trigram"], str(text_folder)])
    out = capfd.readouterr().out
    for words in ("bits per byte", "95 % interval", "word perplexity", "token perplexity", "scored once", "stride"):
        assert words in out


def test_evaluate_shows_the_surprise_of_each_token(capfd: pytest.CaptureFixture[str], runs: dict[str, str]) -> None:
    main(["evaluate", runs["trigram"], "--text", "the class", "--text", "ssalc eht"])
    out = capfd.readouterr().out
    header, probabilities = out.splitlines()[:2]
    assert "'the class'" in header
    assert "'ssalc eht'" in header
    assert probabilities.count("probability ") == 2
    assert " bits  " in out


def test_tokenize_trains_shows_and_stores(capfd: pytest.CaptureFixture[str], text_folder: Path, tmp_path: Path) -> None:
    main(["tokenize", str(text_folder), "--vocab", "400", "--out", str(tmp_path / "tok")])
    assert "bytes per token" in capfd.readouterr().out
    main(["tokenize", "--load", str(tmp_path / "tok"), "--text", "the class"])
    cut = capfd.readouterr().out
    assert cut.replace("|", "").strip() == "the class"
    assert cut.count("|")
    seen = on_terminal("tokenize", "--load", str(tmp_path / "tok"), "--text", "the class")
    assert re.sub(r"\x1b\[[0-9;]*m", "", seen) == cut != seen


def test_a_full_disk_leaves_the_last_checkpoint_whole(
    capfd: pytest.CaptureFixture[str], text_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = checkpoint.save_file, []

    def full(*arguments: object, **keywords: object) -> None:
        calls.append(1)
        if len(calls) > 1:  # the first checkpoint is written, the second is not
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*arguments, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(checkpoint, "save_file", full)
    run = ["--data", str(text_folder), "--out", str(tmp_path / "run"), *SMALL, "--heads", "2", "--eval-every", "1"]
    line = refused(capfd, "train", "gpt2-tiny", *run, code=1)
    assert "No space left" in line
    assert checkpoint.load(tmp_path / "run").config.layers == 1
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["000001"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--optimizer muno", "unknown --optimizer 'muno'. Did you mean 'muon'? Possible: adafactor, adamw, muon."),
        ("--guard skipp", "unknown --guard 'skipp'. Did you mean 'skip'? Possible: skip, stop."),
        ("--batch abc", "--batch abc: it must be a whole number or auto"),
        ("--steps x", "--steps x: it must be a whole number"),
        ("--lr fast", "--lr fast: it must be a number"),
        ("--stps 5", "Unrecognized options: --stps, 5. Perhaps you meant --steps (hornbook train --help)"),
        ("--steps", "Missing value for argument '--steps'. Expected 1 values (hornbook train --help)"),
        ("gpt2-tiny", "Unrecognized options: gpt2-tiny (hornbook train --help)"),
    ],
)
def test_a_wrong_option_is_one_line(words: str, told: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert refused(capfd, "train", "llama-tiny", *words.split()).strip() == f"hornbook: {told}"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("train llama-tiny --minuts 1", "Unrecognized options: --minuts, 1. Perhaps you meant --minutes"),
        ("train llama-tiny --minutes abc", "--minutes abc: it must be a number"),
        ("train llama-tiny --guard skipp", "unknown --guard 'skipp'. Did you mean 'skip'? Possible: skip, stop."),
        ("evaluate", "Missing from hornbook evaluate: RUN"),
    ],
)
def test_a_wrong_option_is_the_same_line_on_a_terminal_without_codes_for_colours(words: str, told: str) -> None:
    line = on_terminal(*words.split())
    assert line.startswith(f"hornbook: {told}")
    assert line.count("\n") == 1
    assert not re.search(r"\x1b|\\x1b", line)
