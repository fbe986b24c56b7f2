"""The certificate of healthy models, what it says of those that it cannot judge whole, and how it is printed."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import hornbook
from doctor_subject import BYTES, IDS, examined, failed, healthy, subject_of
from folders import edit
from helpers import tiny_model
from hornbook import checkpoint, models
from hornbook.cli import main
from hornbook.data.batches import NO_TARGET, Batch
from hornbook.doctor import subject as subjects
from hornbook.doctor.certificate import CHECKS, findings, trained_here
from hornbook.doctor.finding import FAIL, PASS, SKIP, WARN, gap
from hornbook.doctor.foreign import open_foreign, read_tokenizer
from hornbook.doctor.loss import next_token
from hornbook.doctor.sample_text import TEXT
from hornbook.doctor.subject import reduced
from hornbook.errors import UserError
from hornbook.text.tokenizer_training import train_tokenizer
from hornbook.training.objective import Objective

FAMILIES = models.families()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_healthy_model_of_every_family_passes(family: str, tmp_path: Path) -> None:
    found = examined(healthy(family, tmp_path))
    assert not failed(found.values()), "\n".join(f.line for f in found.values())
    assert list(found) == list(CHECKS)
    skipped = {name for name, f in found.items() if f.verdict == SKIP}
    if not models.family(family).Model.counted:
        assert len(skipped) <= 8, "\n".join(found[name].line for name in skipped)
    assert all(f.meaning for f in found.values())
    assert not [f for f in found.values() if f.verdict == WARN and f.name not in ("hugging face", "bfloat16")]


def test_the_shortest_context_is_enough_and_a_shorter_one_is_refused(tmp_path: Path) -> None:
    found = examined(healthy("gpt2", tmp_path, context=8))
    assert not failed(found.values()), "\n".join(f.line for f in found.values())
    with pytest.raises(UserError, match="too short"):
        examined(healthy("gpt2", tmp_path, context=7))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_large_model_learns_as_a_small_one_of_the_same_parts(family: str) -> None:
    for config in models.family(family).SIZES.values():
        small = models.build(reduced(config.replace(vocab=max(config.vocab, 4096))))
        assert small.parameter_count() < subjects.SMALL
        assert type(small) is models.family(family).Model


def test_what_is_too_large_to_train_here_says_that_a_smaller_copy_was_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("SMALL", "FRESH"):
        monkeypatch.setattr(subjects, limit, 100)
    found = examined(healthy("gpt2", tmp_path))
    assert not failed(found.values())
    for name in ("first loss", "accumulation", "learns a row"):
        assert "smaller copy: 2 layers of 64" in found[name].meaning


def test_what_is_too_large_to_store_here_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subjects, "STORED", 100)
    found = examined(healthy("gpt2", tmp_path))
    assert {found[name].verdict for name in ("save and load", "hugging face")} == {SKIP}


def test_counted_models_and_encoders_skip_what_they_do_not_have(tmp_path: Path) -> None:
    counted = examined(healthy("ngram", tmp_path))
    assert counted["first loss"].verdict == SKIP
    assert "counted" in counted["first loss"].meaning
    assert counted["cache"].verdict == counted["future leak"].verdict == PASS
    encoder = examined(healthy("bert", tmp_path))
    assert encoder["future leak"].verdict == SKIP
    assert "both sides" in encoder["future leak"].meaning
    assert encoder["targets"].verdict == encoder["hugging face"].verdict == PASS


@pytest.mark.parametrize(("ours", "verdict"), [(True, FAIL), (False, WARN)])
def test_padding_that_is_the_end_of_text_fails_ours_and_warns_of_imports(
    ours: bool, verdict: str, tmp_path: Path
) -> None:
    model = tiny_model("llama", **(IDS | {"pad": BYTES.eos}))
    found = examined(subject_of(model, tmp_path, ours))
    assert found["special tokens"].verdict == verdict
    assert failed(found.values()) == ({"special tokens"} if ours else set())


@pytest.mark.parametrize(
    ("changes", "name", "told"),
    [
        ({"vocab": 300}, "vocabulary", "41 of them unused"),
        ({"vocab": 1000}, "vocabulary", "right tokeniser"),
        ({"vocab": 200, "eos": 1, "bos": 1, "pad": 2}, "vocabulary", "do not belong together"),
        ({"eos": None, "bos": None}, "special tokens", "never stops"),
        ({"eos": 5, "bos": 5}, "special tokens", "eos is 5 to the model and 256 to the tokeniser"),
        ({"pad": 400}, "special tokens", "outside"),
    ],
)
def test_ids_that_do_not_fit_are_told(changes: dict[str, Any], name: str, told: str, tmp_path: Path) -> None:
    model = tiny_model("gpt2", **(IDS | changes))
    found = examined(subject_of(model, tmp_path))[name]
    assert told in found.meaning
    assert found.verdict == {300: PASS, 1000: WARN}.get(changes.get("vocab", 0), FAIL)


def test_a_model_without_a_tokeniser_is_stored_and_compared_all_the_same(tmp_path: Path) -> None:
    subject = healthy("llama", tmp_path)
    subject.tokenizer = None
    found = examined(subject)
    assert not failed(found.values())
    assert found["save and load"].verdict == PASS
    for name in ("next token", "special text", "vocabulary"):
        assert found[name].meaning == "there is no tokeniser that can be read"


def test_an_encoder_without_a_head_is_refused_and_not_failed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="without a masked-token head"):
        examined(healthy("bert", tmp_path, masked_head=False))


def test_words_that_are_lost_are_a_warning_and_not_an_error(tmp_path: Path) -> None:
    words = train_tokenizer("word", [TEXT])
    model = tiny_model("gpt2", vocab=words.vocab, bos=words.bos, eos=words.eos, pad=words.pad)
    subject = subject_of(model, tmp_path)
    subject.tokenizer = words
    found = examined(subject)
    assert found["tokeniser round trip"].verdict == WARN
    assert not failed(found.values())


@pytest.mark.parametrize(("shift", "verdict"), [(1, PASS), (0, FAIL), (2, FAIL)])
def test_a_model_that_was_trained_on_other_tokens_than_the_next_is_found_out(
    shift: int, verdict: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = models.build(tiny_model("gpt2", **IDS).config)
    ids = torch.tensor(BYTES.encode(TEXT)[:640])
    optimizer, objective = torch.optim.Adam(model.parameters(), lr=1e-2), Objective(model)
    for step in range(150):
        x = torch.stack([ids[at : at + 50] for at in range(step % 7, 590, 75)])
        batch = Batch(x[:, :48], x[:, shift : shift + 48])
        nats, count = objective(batch.tokens, batch.targets)
        optimizer.zero_grad()
        (nats / count).backward()
        optimizer.step()
    subject = subject_of(model.eval(), tmp_path)
    found = next_token(subject)
    assert found.verdict == verdict, found.meaning
    if shift != 1:
        assert ("same" if shift == 0 else "after the next") in found.meaning.split(":")[0]


def test_an_untrained_model_is_not_judged_by_what_it_predicts(tmp_path: Path) -> None:
    model = models.build(tiny_model("gpt2", **IDS).config).eval()
    found = examined(subject_of(model, tmp_path))
    assert found["next token"].verdict == SKIP
    assert "not trained" in found["next token"].meaning
    assert not failed(found.values())


def test_a_check_that_breaks_off_is_a_failure_that_says_why(tmp_path: Path) -> None:
    subject = healthy("gpt2", tmp_path)
    subject.model.make_cache = None  # type: ignore[assignment]
    found = examined(subject)
    assert failed(found.values()) == {"cache"}
    assert "TypeError" in found["cache"].meaning


def test_gaps_are_measured_in_deviations_and_know_infinities() -> None:
    inf = float("inf")
    wanted = torch.tensor([1.0, -1.0, 1.0, -1.0, -inf])
    assert gap(wanted, wanted) == 0
    assert gap(wanted + 0.5, wanted) == pytest.approx(0.5 / wanted[:4].std().item())
    assert gap(torch.tensor([1.0, -1.0, 1.0, -1.0, 0.0]), wanted) == inf
    assert gap(torch.tensor([1.0, -1.0, 1.0, float("nan"), -inf]), wanted) == inf


@pytest.mark.skipif(not hornbook.machine.can_compile(), reason="needs a C++ compiler")
@pytest.mark.slow
def test_the_compiled_model_is_compared_when_asked_for(tmp_path: Path) -> None:
    found = {f.name: f for f in findings(healthy("llama", tmp_path), compile=True)}
    assert found["compiled"].verdict == PASS


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with the settings of a run beside it."""
    folder = tmp_path_factory.mktemp("run")
    checkpoint.save_model(folder, tiny_model("llama", **IDS), BYTES)
    (folder / "train.json").write_text("{}")
    return folder


def test_the_command_prints_a_line_a_check_and_a_last_one(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    main(["doctor", str(run)])
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == len(CHECKS) + 1
    assert lines[1].startswith("PASS  future leak ")
    assert lines[1].endswith("changing a later token changes nothing before it")
    assert "0 failed" in lines[-1]
    assert "nothing is wrong with it" in lines[-1]


def test_what_is_wrong_ends_the_command_with_1(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = json.loads((run / "config.json").read_text())
    for name in ("model.safetensors", "tokenizer.json", "tokenizer_config.json", "train.json"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(config | {"pad_token_id": config["eos_token_id"]}))
    with pytest.raises(SystemExit) as stop:
        main(["doctor", str(tmp_path)])
    assert stop.value.code == 1
    assert capfd.readouterr().out.splitlines()[-1].endswith("wrong: special tokens")
    (tmp_path / "train.json").unlink()
    main(["doctor", str(tmp_path)])  # as an import it is only warned of


def test_json_holds_every_finding(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    main(["doctor", str(run), "--json"])
    told = json.loads(capfd.readouterr().out)
    assert told["passed"] is True
    assert [check["name"] for check in told["checks"]] == list(CHECKS)
    assert {"name", "verdict", "figure", "meaning"} == set(told["checks"][0])


def test_python_gets_the_findings_too(run: Path) -> None:
    assert not failed(hornbook.examine(str(run)))


def test_what_is_not_there_is_one_line(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for flags in ([], ["--foreign"]):
        with pytest.raises(SystemExit) as stop:
            main(["doctor", str(tmp_path / "none"), *flags])
        assert stop.value.code == 2
        assert "none" in capfd.readouterr().err


def test_without_transformers_all_but_its_own_check_is_made(
    tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    found = examined(healthy("gpt2", tmp_path))
    assert not failed(found.values())
    assert found["hugging face"].verdict == SKIP
    assert "hornbook[transformers]" in found["hugging face"].meaning
    with pytest.raises(UserError, match="hornbook\\[transformers\\]"):
        hornbook.examine(str(run), foreign=True)


def test_only_runs_and_their_checkpoints_were_trained_here(tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoints" / "000001").mkdir(parents=True)
    (tmp_path / "run" / "export" / "other").mkdir(parents=True)
    (tmp_path / "run" / "train.json").write_text("{}")
    assert trained_here(tmp_path / "run")
    assert trained_here(tmp_path / "run" / "checkpoints" / "000001")
    assert not trained_here(tmp_path / "run" / "export" / "other")


def foreign_folder(family: str, folder: Path) -> Path:
    """A tiny model as transformers saves it."""
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": BYTES.vocab, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
    ends = {"bos_token_id": BYTES.bos, "eos_token_id": BYTES.eos, "pad_token_id": BYTES.pad}
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(family, **sizes, **ends, intermediate_size=40)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    BYTES.save(folder)
    return folder


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_foreign_model_is_judged_as_transformers_runs_it(family: str, tmp_path: Path) -> None:
    found = {f.name: f for f in hornbook.examine(str(foreign_folder(family, tmp_path)), foreign=True)}
    assert not failed(found.values()), "\n".join(f.line for f in found.values())
    passed = {name for name, f in found.items() if f.verdict == PASS}
    assert {"future leak", "attention weights", "cache", "padding left", "loss", "save and load"} <= passed
    assert {"first loss", "accumulation", "learns a row", "hugging face", "bfloat16"} <= passed
    assert found["packed documents"].verdict == found["too long"].verdict == SKIP
    assert (found["heads"].verdict, found["heads"].figure) == (PASS, 4)


def test_a_foreign_model_is_held_to_what_so_many_layers_may_round(tmp_path: Path) -> None:
    subject = open_foreign(foreign_folder("gpt2", tmp_path / "model"), "cpu", tmp_path)
    assert (subject.layers, subject.heads) == (2, 4)


def test_weights_that_transformers_would_draw_are_refused(tmp_path: Path) -> None:
    folder = foreign_folder("llama", tmp_path)
    tensors = load_file(folder / "model.safetensors")
    lost = "model.layers.1.mlp.up_proj.weight"
    save_file(
        {name: tensor for name, tensor in tensors.items() if name != lost},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(UserError, match=f"lack 1 tensor of such a model, .*at random: {lost}"):
        hornbook.examine(str(folder), foreign=True)


def test_a_foreign_folder_may_have_an_empty_list_of_ends(tmp_path: Path) -> None:
    folder = foreign_folder("gpt2", tmp_path / "model")
    edit(folder / "config.json", eos_token_id=[])
    edit(folder / "generation_config.json", eos_token_id=None)
    assert open_foreign(folder, "cpu", tmp_path).config.eos is None


def test_a_tokeniser_that_is_not_stored_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BYTES, "save", lambda *_: None)
    found = CHECKS["save and load"][0](subject_of(tiny_model("llama", **IDS), tmp_path))
    assert (found.verdict, found.meaning) == (FAIL, "the tokeniser comes back changed, or not at all")


@pytest.mark.parametrize("sure", [0.05, 0.5])
def test_the_end_of_text_is_judged_by_what_it_costs_however_sure_the_model_is(
    sure: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = subject_of(tiny_model("llama", **IDS), tmp_path)

    def logits(tokens: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        chances = torch.full((*tokens.shape, BYTES.vocab), (1 - math.exp(-sure)) / (BYTES.vocab - 1))
        chances[..., BYTES.eos] = math.exp(-sure)
        return chances.log()

    def objective(learnt: bool) -> Any:
        def cost(tokens: torch.Tensor, targets: torch.Tensor, segments: None) -> tuple[torch.Tensor, torch.Tensor]:
            free = (targets == NO_TARGET) | ((targets == BYTES.eos) & (not learnt))
            nats = -logits(tokens).gather(-1, targets.clamp(min=0)[..., None])[..., 0]
            return nats.masked_fill(free, 0.0).sum(), (targets != NO_TARGET).sum()

        return cost

    monkeypatch.setattr(subject.model, "forward", logits)
    for learnt, verdict in ((True, PASS), (False, FAIL)):
        monkeypatch.setattr(subject, "objective", lambda model, learnt=learnt: objective(learnt))
        found = CHECKS["end of text in loss"][0](subject)
        assert found.verdict == verdict, found.meaning
        assert found.figure == pytest.approx(sure if learnt else 0.0, abs=1e-3)


@pytest.mark.parametrize("family", ["ngram", "rnn_attention"])
def test_a_rung_that_only_we_have_is_judged_in_its_class_for_transformers(family: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    checkpoint.save_model(tmp_path, tiny_model(family, **IDS), BYTES)
    found = {f.name: f for f in hornbook.examine(str(tmp_path), foreign=True)}
    assert not failed(found.values()), "\n".join(f.line for f in found.values())
    assert found["cache"].verdict == found["loss"].verdict == found["hugging face"].verdict == PASS


def test_a_foreign_loss_that_does_not_shift_its_labels_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformers = pytest.importorskip("transformers")

    def unshifted(logits: torch.Tensor, labels: torch.Tensor, vocab_size: int, **rest: Any) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(logits.view(-1, vocab_size), labels.view(-1), ignore_index=-100)

    monkeypatch.setattr(transformers.GPT2LMHeadModel, "loss_function", staticmethod(unshifted))
    found = {f.name: f for f in hornbook.examine(str(foreign_folder("gpt2", tmp_path)), foreign=True)}
    assert "loss" in failed(found.values())


def test_what_transformers_cannot_continue_texts_with_is_refused(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 40}
    transformers.BertForMaskedLM(transformers.BertConfig(**sizes)).save_pretrained(tmp_path / "bert")
    with pytest.raises(UserError, match=r"is an encoder.*leave --foreign out"):
        hornbook.examine(str(tmp_path / "bert"), foreign=True)
    edit(tmp_path / "bert" / "config.json", architectures=["BertModel"])
    with pytest.raises(UserError, match=r"is an encoder.*leave --foreign out"):
        hornbook.examine(str(tmp_path / "bert"), foreign=True)
    edit(tmp_path / "bert" / "config.json", architectures=["GPT2ForSequenceClassification"], model_type="gpt2")
    with pytest.raises(UserError, match=r"tells classes apart.*leave --foreign out"):
        hornbook.examine(str(tmp_path / "bert"), foreign=True)
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    for name in ("nothing", "x.gguf"):
        with pytest.raises(UserError, match="--foreign takes a Hugging Face folder on this machine; there is none at"):
            hornbook.examine(str(tmp_path / name), foreign=True)


def test_no_code_of_a_foreign_folder_is_run(tmp_path: Path) -> None:
    folder = foreign_folder("gpt2", tmp_path / "model")
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass M: pass\nclass C: pass\n")
    config = json.loads((folder / "config.json").read_text())
    code = {"auto_map": {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}}
    (folder / "config.json").write_text(json.dumps(config | code))
    assert not failed(hornbook.examine(str(folder), foreign=True))  # transformers' own class is known
    (folder / "config.json").write_text(json.dumps(config | code | {"model_type": "evil"}))
    with pytest.raises(UserError, match="its own code, which is never run"):
        hornbook.examine(str(folder), foreign=True)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"model_type": ["x"]}', r"no model type '\['x'\]'"),
        ('{"model_type": {}, "architectures": {}}', "no model type"),
        ("[" * 200_000, "cannot read .*config.json"),
        ("3", "holds a JSON int"),
    ],
)
def test_settings_of_a_foreign_folder_that_mean_nothing_are_one_line(content: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=told) as error:
        hornbook.examine(str(tmp_path), foreign=True)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["3", '{"eos_token": ["x"]}', "[" * 200_000])
def test_a_foreign_tokeniser_that_cannot_be_read_is_none(content: str, tmp_path: Path) -> None:
    BYTES.save(tmp_path)
    assert read_tokenizer(tmp_path) is not None
    (tmp_path / "tokenizer_config.json").write_text(content)
    assert read_tokenizer(tmp_path) is None


def test_a_foreign_folder_of_pickles_is_refused(tmp_path: Path) -> None:
    folder = foreign_folder("gpt2", tmp_path)
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="transformers cannot read"):
        hornbook.examine(str(folder), foreign=True)
