"""Pictures: what is behind each of them is right, and what is written are files that others can open."""

from __future__ import annotations

import io
import json
import math
import sys
from pathlib import Path
from typing import Any, get_args
from xml.etree import ElementTree

import pytest
import torch
from safetensors import SafetensorError

import hornbook
from folders import folder_of, speaking
from helpers import VOCAB, stream, tiny_model
from hornbook import models
from hornbook.adapt.layer_report import layer_of, outlying_columns
from hornbook.adapt.quantization import quantize
from hornbook.adapt.quantized import Quantized
from hornbook.checkpoint import load
from hornbook.cli import main
from hornbook.config import Inspect, Picture, Quantization
from hornbook.errors import PassingError, UserError
from hornbook.inspection import patch, record
from hornbook.inspection.lens import attention_weights
from hornbook.layers.model import LanguageModel
from hornbook.layers.positions import sinusoids
from hornbook.training.callbacks import Moment
from hornbook.training.snapshots import snapshots

pytest.importorskip("matplotlib")

from matplotlib.figure import Figure

from hornbook import pictures
from hornbook.pictures import style
from hornbook.pictures.album import DRAW
from hornbook.pictures.attention import tiled, weights
from hornbook.pictures.heads import habits, induction_score, previous_token_score, repeated_tokens
from hornbook.pictures.histograms import activation_histograms, weight_histograms
from hornbook.pictures.neighbours import embeddings, nearest, principal
from hornbook.pictures.norms import norms
from hornbook.pictures.positions import NOISE, columns, roughness, table, wavelengths
from hornbook.pictures.predictions import surprise
from hornbook.pictures.reading import read
from hornbook.pictures.recurrence import look_back, reaches
from hornbook.pictures.timelapse import roughnesses, saved_models

NEURAL = [name for name in models.families() if not models.family(name).Model.counted]
TRANSFORMERS = [name for name in NEURAL if not name.startswith("rnn")]
LOOKING = [name for name in NEURAL if name != "rnn"]
TEXT = "The fox, the hen."
CLOSE = {"rtol": 0, "atol": 2e-5}
"""float32 sums of at most a few hundred terms of size 1, in another order: about 100 roundings of 6e-8 (times 3)."""


def tokens(length: int = 20) -> torch.Tensor:
    return torch.randint(3, VOCAB, (length,), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("family", LOOKING)
@torch.no_grad()
def test_weights_of_attention_are_the_model_s_sum_to_1_and_are_causal(family: str) -> None:
    model, x = tiny_model(family), tokens()
    found = weights(model, x)
    torch.testing.assert_close(found.sum(-1), torch.ones(found.shape[:-1]), **CLOSE)
    if model.causal:
        assert not found.triu(1).any()
    for layer in range(found.shape[0]):
        for head in range(found.shape[1]):
            torch.testing.assert_close(found[layer, head], attention_weights(model, x, layer, head), **CLOSE)


def test_a_page_of_maps_has_each_in_its_place() -> None:
    maps = torch.rand(2, 3, 5, 5)
    page = tiled(maps, 2)
    assert page.shape == (12, 19)
    assert page[7:12, 14:19].equal(maps[1, 2])
    assert page[5:7].isnan().all()
    assert page.isfinite().sum() == maps.numel()


def test_a_head_that_looks_at_the_token_before_scores_1() -> None:
    before = torch.eye(9).roll(1, 0)
    assert previous_token_score(before) == 1
    assert previous_token_score(torch.eye(9)) == 0


def perfect(length: int, opening: int) -> torch.Tensor:
    """Weights of an induction head: in the second copy, all on the token after the same one in the first."""
    size = opening + 2 * length
    found = torch.eye(size)
    for place in range(opening + length, size):
        found[place] = torch.eye(size)[place - length + 1]
    return found


@pytest.mark.parametrize("opening", [0, 1])
def test_a_perfect_induction_head_scores_1_and_others_do_not(opening: int) -> None:
    assert induction_score(perfect(7, opening), 7) == 1
    assert induction_score(torch.eye(14 + opening), 7) == 0
    assert induction_score(perfect(7, opening).roll(1, -1), 7) < 0.2


def test_the_model_s_heads_are_scored_on_random_tokens_that_come_twice() -> None:
    model = tiny_model("gpt2")
    x = repeated_tokens(model, 7)
    assert x[:, 1:8].equal(x[:, 8:])
    assert not {model.config.bos, model.config.pad} & set(x[:, 1:].flatten().tolist())
    with patch(model, {"blocks.1.attention.pattern": perfect(7, 1)}):
        found = habits(model, 7)
    assert found.induction[1].tolist() == [1] * 4
    assert found.induction[0].max() < 1
    with pytest.raises(UserError, match="left to right"):
        habits(tiny_model("bert"))


@torch.no_grad()
def test_what_both_copies_cost_is_told_apart() -> None:
    model, x = tiny_model("llama"), repeated_tokens(tiny_model("llama"), 7)
    bits = -model.log_prob(x[:, :-1], x[:, 1:]) / math.log(2)
    found = habits(model, 7)
    assert found.first == pytest.approx(float(bits[:, 1:7].mean()))
    assert found.second == pytest.approx(float(bits[:, 8:].mean()))


def test_noise_is_rough_and_smooth_curves_are_not() -> None:
    noise = torch.randn(2000, 64, generator=torch.Generator().manual_seed(0))
    assert roughness(noise) == pytest.approx(NOISE, rel=0.02)  # 128,000 numbers: an error of about 0.5 %
    smooth = sinusoids(torch.arange(2000)[None], 64)[0]
    assert roughness(smooth) < 0.2
    assert roughness(smooth) < roughness(smooth + 0.1 * noise) < roughness(noise)
    apart = torch.arange(64.0)  # where a column lies says nothing of how it changes
    assert roughness(3 * noise + apart) == pytest.approx(roughness(noise), rel=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "opt", "bert", "transformer"])
def test_the_table_of_positions_is_what_is_added_at_each(family: str) -> None:
    model = tiny_model(family)
    found = record(model, torch.full((48,), 5), "positions.embedding")["positions.embedding"][0]
    assert table(model).equal(found)


def test_columns_are_the_classic_ones_where_there_are_any() -> None:
    assert columns(768) == (150, 200, 250)
    assert columns(250) == (62, 125, 187)
    assert max(columns(4)) < 4


def test_wavelengths_are_those_of_the_rotation() -> None:
    model = tiny_model("llama")
    c = model.config.resolved()
    expected = [2 * math.pi * c.rope_theta ** (2 * pair / c.head_dim) for pair in range(c.head_dim // 2)]
    assert wavelengths(model).tolist() == pytest.approx(expected, rel=1e-5)
    for family, told in (("llama", "turns queries"), ("rnn", "in turn"), ("ngram", "in turn")):
        with pytest.raises(UserError, match=told):
            table(tiny_model(family))


@pytest.mark.parametrize("family", ["llama", "rnn", "ngram"])
@torch.no_grad()
def test_surprise_is_the_model_s_own(family: str) -> None:
    model, x = tiny_model(family), torch.from_numpy(stream()[:20].copy())
    found = surprise(model, x)
    own = -model.log_prob(x[None, :-1], x[None, 1:])[0] / math.log(2)
    assert found.bits[0].isnan()
    torch.testing.assert_close(found.bits[1:], own, **CLOSE)
    assert found.best[5] == model(x[None])[0, 4].argmax()


@torch.no_grad()
def test_an_encoder_s_surprise_is_of_each_token_hidden_alone() -> None:
    model = speaking("bert")
    x = torch.tensor(model.tokenizer.encode("abcde")) if hasattr(model, "tokenizer") else tokens(5)
    model.tokenizer = type("WithMask", (), {"mask": 7})()  # type: ignore[assignment]
    found = surprise(model, x)
    hidden = x.clone()
    hidden[2] = 7
    own = -model(hidden[None])[0, 2].log_softmax(-1)[x[2]] / math.log(2)
    assert found.bits[2] == pytest.approx(float(own), abs=2e-5)


@pytest.mark.parametrize("family", NEURAL)
@torch.no_grad()
def test_norms_of_a_stream_come_of_what_layers_add(family: str) -> None:
    model, x = tiny_model(family), tokens()
    found = norms(model, x)
    assert found.stream.shape == (len(found.depths), 20)
    if family == "gpt2":
        values = record(model, x, ["embedding", "blocks.1.output", "blocks.*.attention.output"])
        torch.testing.assert_close(found.stream[0], values["embedding"][0].norm(dim=-1))
        torch.testing.assert_close(found.stream[2], values["blocks.1.output"][0].norm(dim=-1))
        torch.testing.assert_close(
            found.added["attention adds"][1], values["blocks.1.attention.output"][0].norm(dim=-1)
        )


def test_far_weights_are_those_that_quantize_reports() -> None:
    model = tiny_model("gpt2", layers=2)
    reported: dict[str, int] = {}
    with torch.no_grad():
        model.blocks[0].mlp.up.weight[3, 5] = 40  # type: ignore[union-attr]
        model.blocks[1].mlp.up.weight[0, 0] = -40  # type: ignore[union-attr]
    found = {each.kind: each for each in weight_histograms(model)}

    def look(name: str, weight: torch.Tensor, after: Quantized) -> None:
        kind = name.replace("0.", "").replace("1.", "")
        reported[kind] = reported.get(kind, 0) + layer_of(name, weight, after).far

    quantize(model, Quantization("int8"), look)
    assert found["blocks.mlp.up"].far == 2
    assert reported
    assert all(found[kind].far == far for kind, far in reported.items())
    assert found["blocks.mlp.up"].counts.sum() == found["blocks.mlp.up"].numbers == 2 * 32 * 48
    again = {each.kind: each for each in weight_histograms(model)}  # in 8 bits
    assert again.keys() == found.keys()
    assert again["blocks.mlp.up"].far == 2


def test_what_a_decoder_s_network_reads_is_what_its_last_norm_gives() -> None:
    """Which, where norms stand after their sub-layers, is that of the attention to the source."""
    model, x = tiny_model("transformer"), tokens()
    with torch.no_grad():
        model.blocks[0].cross_norm.weight.mul_(20)
    up = next(each for each in activation_histograms(model, x) if each.kind == "read by the MLP's way up")
    told = outlying_columns(model, x[None], 6.0)
    assert (
        up.columns == sum(count for name, count in told.items() if name.startswith("blocks.") and "mlp.up" in name) > 0
    )


@pytest.mark.parametrize("family", TRANSFORMERS)
def test_outliers_among_activations_stand_in_the_columns_that_quantize_counts(family: str) -> None:
    model, x = tiny_model(family), tokens()
    found = activation_histograms(model, x)
    told = outlying_columns(model, x[None], 6.0)
    parts = ("attention.query", "attention.output", "mlp.up", "mlp.down")
    expected = [
        sum(count for name, count in told.items() if name.startswith("blocks.") and name.endswith(f".{part}"))
        for part in parts
    ]
    if family == "transformer":
        expected[1] -= sum(count for name, count in told.items() if name.endswith("cross_attention.output"))
    assert [each.columns for each in found] == expected


@torch.no_grad()
def test_neighbours_are_the_nearest_by_cosine() -> None:
    points = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.0, 5.0], [-1.0, 0.0]])
    found = nearest(points, torch.tensor([0, 2]), 2)
    assert found.near.tolist() == [[1, 2], [3, 1]] or found.near.tolist() == [[1, 3], [3, 1]]
    assert found.cosines[1, 0] == pytest.approx(1)
    model = speaking("gpt2")
    assert embeddings(model).equal(model.embedding.weight)


def test_the_plane_is_that_of_principal_components() -> None:
    points = torch.randn(30, 8, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 9)
    places, shares = principal(points)
    torch.manual_seed(0)
    left, sizes, _ = torch.pca_lowrank(points, q=8, center=True)
    torch.testing.assert_close(places.abs(), (left[:, :2] * sizes[:2]).abs(), rtol=1e-3, atol=1e-3)
    assert float(shares.sum()) == pytest.approx(float(sizes[:2].square().sum() / sizes.square().sum()), rel=1e-4)
    assert (places.max(0).values >= -places.min(0).values).all()


@pytest.mark.parametrize("family", [name for name in NEURAL if name != "bert"])
def test_reach_is_the_gradient_in_each_embedding(family: str) -> None:
    model = tiny_model(family)
    x = tokens(42).view(2, 21)
    kept: list[torch.Tensor] = []

    def keep(module: Any, given: Any, made: torch.Tensor) -> torch.Tensor:
        kept.append(made.detach().requires_grad_())
        return kept[-1]

    hook = model.embedding.register_forward_hook(keep)
    loss = -model.log_prob(x[:, :-1], x[:, 1:])[:, -1].sum()
    hook.remove()
    own = torch.autograd.grad(loss, kept)[0].norm(dim=-1).mean(0).flip(0)
    torch.testing.assert_close(reaches(model, x), own, rtol=1e-4, atol=1e-6)


def test_a_state_that_is_forgotten_passes_no_gradient() -> None:
    model = tiny_model("rnn", layers=1, cell="tanh")
    with torch.no_grad():
        model.recurrent.weight_hh_l0.zero_()  # type: ignore[union-attr]
    found = reaches(model, tokens(21)[None])
    assert found[0] > 0
    assert not found[1:].any()
    with pytest.raises(UserError, match="left to right"):
        reaches(tiny_model("bert"), tokens(21)[None])


@torch.no_grad()
def test_what_a_recurrent_model_looks_back_at_is_its_states_mixed() -> None:
    model, x = tiny_model("rnn_attention"), tokens()
    found = look_back(model, x)
    torch.testing.assert_close(found.weights, weights(model, x)[0, 0])
    later = torch.ones(20, 20, dtype=torch.bool).triu(1)
    torch.testing.assert_close(found.scores.masked_fill(later, -math.inf).softmax(-1), found.weights, **CLOSE)
    torch.testing.assert_close(found.weights @ found.state, found.mix, **CLOSE)
    torch.testing.assert_close(found.state + found.added, model.hidden(x[None])[0], **CLOSE)
    with pytest.raises(UserError, match="rnn-attention"):
        look_back(tiny_model("rnn"), x)


def test_a_long_text_is_cut_and_a_picture_says_so() -> None:
    model = speaking("gpt2")
    model.tokenizer = load_tokenizer()
    reading = read(model, "x" * 200)
    assert len(reading.pieces) == 48
    assert reading.note == "the first 48 of 201 tokens"
    assert read(model, "xy").note == ""
    with pytest.raises(UserError, match="2 tokens at least"):
        read(model, [3])


def load_tokenizer() -> Any:
    from folders import TOKENIZER

    return TOKENIZER


def test_pieces_are_readable_on_an_axis() -> None:
    assert style.label(" the") == "\u00b7the"
    assert style.label("\n\x1b") == "\\n\\x1b"
    assert style.label("\u4f60") == "\\u4f60"  # the font lacks it
    assert len(style.label("a" * 50)) == style.LETTERS


def test_a_model_is_left_in_the_mode_it_was_in() -> None:
    model = tiny_model("gpt2", dropout=0.5).train()
    assert weights(model, tokens()).equal(weights(model, tokens()))
    assert reaches(model, tokens(21)[None]).equal(reaches(model, tokens(21)[None]))
    assert model.training


def run_of(family: str, folder: Path, **changes: Any) -> Path:
    return folder_of(speaking(family, **changes), folder)


def lines(capfd: pytest.CaptureFixture[str], *words: str) -> list[str]:
    main(["inspect", *words])
    return capfd.readouterr().out.splitlines()


def test_the_command_draws_all_there_is_of_a_model(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = str(run_of("gpt2", tmp_path / "run", context=100))
    files = [Path(line) for line in lines(capfd, run, TEXT, "--pictures", str(tmp_path / "new" / "out"))]
    stems = {file.stem for file in files}
    still = set(DRAW) - {"look-back", "roughness", "time-lapse"}
    assert stems == still | {"attention-0", "attention-1"}
    for file in files:
        assert file.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        assert width_of(file) > 300
    assert set((tmp_path / "new" / "out").iterdir()) == set(files)


def width_of(file: Path) -> int:
    from PIL import Image

    with Image.open(file) as image:
        image.load()
        return image.width


def test_what_a_model_does_not_have_is_told_in_a_line_each(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = str(folder_of(fitted(), tmp_path / "run"))
    told = json.loads("".join(lines(capfd, run, TEXT, "--pictures", str(tmp_path / "out"), "--json")))
    assert [Path(file).name for file in told["files"]] == ["surprise.png"]
    assert set(told["left_out"]) == set(DRAW) - {"surprise"}
    assert all("\n" not in why for why in told["left_out"].values())


def fitted() -> LanguageModel:
    return speaking("ngram")


def test_one_picture_may_be_asked_for_as_svg_and_png(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = str(run_of("rnn_attention", tmp_path / "run"))
    asked = (run, "a $x$ b", "--pictures", str(tmp_path), "--picture", "look-back", "--picture", "lens")
    files = lines(capfd, *asked, "--format", "both")
    assert [Path(file).name for file in files] == ["look-back.png", "look-back.svg", "lens.png", "lens.svg"]
    text = "".join(ElementTree.parse(files[1]).getroot().itertext())
    assert "A recurrent model looks back" in text
    assert "$" in text
    one = Path(files[1]).read_bytes()
    lines(capfd, *asked, "--format", "svg")
    assert Path(files[1]).read_bytes() == one


def test_only_one_layer_s_maps_may_be_asked_for(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = str(run_of("llama", tmp_path / "run"))
    asked = (run, TEXT, "--pictures", str(tmp_path), "--picture", "attention")
    assert [Path(file).name for file in lines(capfd, *asked, "--layer", "1")] == ["attention-1.png"]
    for more, told in ((["--layer", "7"], "no layer 7"), ([], "needs a text")):
        with pytest.raises(SystemExit):
            main(["inspect", run, *asked[1 if more else 2 :], *more])
        assert told in capfd.readouterr().err


def test_python_draws_beside_what_it_returns(tmp_path: Path) -> None:
    run = str(run_of("gpt2", tmp_path / "run", context=100))
    walk = hornbook.inspect(run, TEXT, pictures=str(tmp_path / "out"), picture=("lens",), format="svg")
    assert walk.steps
    assert [path.suffix for path in (tmp_path / "out").iterdir()] == [".svg"]
    assert hornbook.inspect(run, diagram=str(tmp_path / "x.mmd")).parameters
    assert (tmp_path / "x.mmd").read_text(encoding="utf-8").startswith("---")


@pytest.mark.parametrize("family", ["bert", "transformer", "opt"])
def test_every_kind_of_model_has_its_pictures(family: str) -> None:
    model = speaking(family)
    model.tokenizer = load_tokenizer()
    for draw in (pictures.attention_overview, pictures.lens, pictures.stream_norms, pictures.activations):
        assert style.as_png(draw(model, TEXT)).startswith(b"\x89PNG")
    assert style.as_png(pictures.positions(model)).startswith(b"\x89PNG")


def test_models_stand_side_by_side_in_the_picture_of_reach() -> None:
    found = {family: speaking(family, context=30) for family in ("rnn", "rnn_attention", "llama")}
    for model in found.values():
        model.tokenizer = load_tokenizer()
    legend = pictures.reach(found).axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == list(found)


def course(folder: Path, steps: int = 6) -> Path:
    """A run whose position embeddings become smooth."""
    model, keep = speaking("gpt2"), snapshots(every=2)
    model.tokenizer = load_tokenizer()
    assert model.positions is not None
    smooth = sinusoids(torch.arange(48)[None], 32)[0]
    for step in range(1, steps + 1):
        with torch.no_grad():
            model.positions.weight.copy_(torch.lerp(model.positions.weight, smooth, 0.5))  # type: ignore[union-attr]
        for event in ("step", "evaluation"):
            keep(Moment(event, step, {}, model, folder))  # type: ignore[arg-type]
    return folder


def test_snapshots_are_models_of_the_first_step_and_every_so_many(tmp_path: Path) -> None:
    run = course(tmp_path / "run")
    assert [path.name for path in saved_models(run).values()] == ["000001", "000002", "000004", "000006"]
    assert load(run / "snapshots" / "000004", text=True).config.dim == 32
    course(run)  # carried on from before them
    with pytest.raises(UserError, match="every 1 step"):
        snapshots(0)
    with pytest.raises(UserError, match="saved 0 models"):
        saved_models(tmp_path)


def test_positions_that_become_smooth_are_seen_to(tmp_path: Path) -> None:
    found = roughnesses(course(tmp_path / "run"))
    assert list(found) == [1, 2, 4, 6]
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_a_time_lapse_has_a_frame_a_snapshot(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    run = course(tmp_path / "run")
    folder_of(speaking("gpt2"), run)
    asked = (str(run), "ab", "--pictures", str(tmp_path), "--picture", "time-lapse", "--picture", "roughness")
    files = lines(capfd, *asked)
    names = [Path(file).name for file in files]
    assert names == ["time-lapse-positions.gif", "time-lapse-attention.gif", "roughness.png"]
    for file in files[:2]:
        with Image.open(file) as image:
            assert image.format == "GIF"
            assert image.n_frames == 4  # type: ignore[attr-defined]
    with Image.open(files[0]) as image:
        seen = {colour for _, colour in image.convert("RGB").getcolors(1 << 16) or ()}
    for wanted in style.COLOURS[:3]:  # those of the three columns
        parts = [int(wanted[at : at + 2], 16) for at in (1, 3, 5)]
        assert any(max(abs(a - b) for a, b in zip(colour, parts, strict=True)) < 40 for colour in seen), wanted


def test_every_picture_that_can_be_named_can_be_drawn() -> None:
    assert list(get_args(Picture)) == list(DRAW)


def test_pictures_and_the_rest_of_inspect_do_not_mix() -> None:
    with pytest.raises(UserError, match="--format is for pictures"):
        Inspect("x", format="svg")
    with pytest.raises(UserError, match="--names and --pictures"):
        Inspect("x", pictures="out", names=True)
    assert Inspect("x", pictures="out", bits=8).picture == ()


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    style.plotting.cache_clear()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=r"hornbook\[plots\]"):
        pictures.positions(tiny_model("gpt2"))
    monkeypatch.undo()
    style.plotting.cache_clear()
    assert io.BytesIO(style.as_png(pictures.positions(tiny_model("gpt2")))).read(4) == b"\x89PNG"


def test_a_snapshot_that_cannot_be_written_is_told_of_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "snapshots").mkdir()
    (tmp_path / "snapshots" / ".000001.999999999.part").mkdir()  # of a process that was killed

    def full(*_: object, **__: object) -> None:
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr("hornbook.checkpoint.save_file", full)
    with pytest.raises(PassingError, match=r"could not write the snapshot .*000001 .*No space left"):
        snapshots(1)(Moment("step", 1, {}, speaking("gpt2"), tmp_path))
    assert not list((tmp_path / "snapshots").iterdir())


def test_runs_of_one_name_are_told_apart_in_the_picture_of_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    drawn: list[str] = []
    runs = [folder_of(speaking("rnn"), tmp_path / place / "rnn") for place in ("a", "b")]
    monkeypatch.setattr("hornbook.pictures.album.reach", lambda models: drawn.extend(models) or Figure())
    main(
        ["inspect", str(runs[0]), "--pictures", str(tmp_path / "out"), "--picture", "reach", "--against", str(runs[1])]
    )
    assert drawn == ["a/rnn", "b/rnn"]
