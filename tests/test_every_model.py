"""What every rung must do. The list of rungs is the folder `models/`: a new file is tested by being there."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from helpers import MASK, PAD, VOCAB, stream, tiny_config, tiny_model
from hornbook import models
from hornbook.checkpoint import load, save_model
from hornbook.data.batches import NO_TARGET, Batch
from hornbook.data.masking import mask_tokens
from hornbook.layers.attention import fused, materialised
from hornbook.layers.model import LanguageModel
from hornbook.text.tokenizer_training import train_tokenizer
from hornbook.training.objective import Objective

FAMILIES = models.families()
CAUSAL = [name for name in FAMILIES if models.family(name).Model.causal]
NEURAL = [name for name in FAMILIES if not models.family(name).Model.counted]

CLOSE = {"rtol": 0, "atol": 2e-5}
"""float32 sums of at most a few hundred terms of size 1, in another order: about 100 roundings of 6e-8 (times 3)."""


def tokens(rows: int = 3, length: int = 20, seed: int = 1) -> torch.Tensor:
    return torch.randint(3, VOCAB, (rows, length), generator=torch.Generator().manual_seed(seed))


def with_kernel(model: LanguageModel, kernel: Callable[..., torch.Tensor]) -> LanguageModel:
    """The model with all of its attention computed one way."""
    for module in model.modules():
        if hasattr(module, "kernel"):
            module.kernel = kernel
    return model


@pytest.mark.parametrize("kernel", [fused, materialised])
@pytest.mark.parametrize("family", CAUSAL)
def test_a_changed_token_leaves_all_earlier_logits_bit_identical(
    family: str, kernel: Callable[..., torch.Tensor]
) -> None:
    model, x = with_kernel(tiny_model(family), kernel), tokens()
    changed = x.clone()
    changed[:, 10] = 3 + (changed[:, 10] - 2) % (VOCAB - 3)
    assert torch.equal(model(x)[:, :10], model(changed)[:, :10])
    assert not torch.equal(model(x)[:, 10:], model(changed)[:, 10:])


@pytest.mark.parametrize("family", NEURAL)
@pytest.mark.parametrize("segments", [None, torch.tensor([[1] * 9 + [2] * 8 + [0] * 3])])
def test_attention_written_out_equals_the_fused_kernel(family: str, segments: torch.Tensor | None) -> None:
    x = tokens(1)
    first, second = (with_kernel(tiny_model(family), kernel)(x, segments=segments) for kernel in (fused, materialised))
    torch.testing.assert_close(first, second, **CLOSE)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in CAUSAL])
def test_an_encoder_sees_both_sides(family: str) -> None:
    model, x = tiny_model(family), tokens()
    changed = x.clone()
    changed[:, 10] = 3 + (changed[:, 10] - 2) % (VOCAB - 3)
    assert not torch.allclose(model(x)[:, 5], model(changed)[:, 5])


@pytest.mark.parametrize("family", CAUSAL)
@pytest.mark.parametrize("cuts", [[1] * 20, [7, 1, 12], [20]])
def test_reading_in_pieces_with_a_cache_equals_reading_at_once(family: str, cuts: list[int]) -> None:
    model, x = tiny_model(family), tokens()
    cache = model.make_cache(3, 24)
    parts = [model(part, cache) for part in x.split(cuts, dim=1)]
    torch.testing.assert_close(torch.cat(parts, 1), model(x), **CLOSE)
    assert cache.lengths.tolist() == [20, 20, 20]
    assert cache.bytes > 0


@pytest.mark.parametrize("family", CAUSAL)
def test_a_cache_follows_selected_rows_and_forgets_what_is_rewound(family: str) -> None:
    model, x = tiny_model(family), tokens()
    cache = model.make_cache(3, 24)
    model(x[:, :15], cache)
    cache.rewind(torch.tensor([10, 10, 10]))
    cache.select(torch.tensor([2, 0, 0]))
    found = model(x[[2, 0, 0], 10:], cache)
    torch.testing.assert_close(found, model(x[[2, 0, 0]])[:, 10:], **CLOSE)


@pytest.mark.parametrize("family", CAUSAL)
def test_rows_of_unequal_length_go_on_from_their_own_ends(family: str) -> None:
    model, x = tiny_model(family), tokens(2, 12)
    cache = model.make_cache(2, 16)
    first = torch.stack([x[0, :8], torch.cat([torch.full((3,), PAD), x[1, :5]])])  # the second row is padded left
    model(first, cache, (first != PAD).long())
    assert cache.lengths.tolist() == [8, 5]
    second = torch.stack([x[0, 8:12], x[1, 5:9]])
    found = model(second, cache)
    torch.testing.assert_close(found[0], model(x[:1])[0, 8:12], **CLOSE)
    torch.testing.assert_close(found[1], model(x[1:, :9])[0, 5:9], **CLOSE)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(family: str, side: str) -> None:
    model, x = tiny_model(family), tokens(2, 12)
    pads = torch.full((2, 5), PAD)
    padded = torch.cat([pads, x] if side == "left" else [x, pads], 1)
    found = model(padded, segments=(padded != PAD).long())
    torch.testing.assert_close(found[:, 5:] if side == "left" else found[:, :12], model(x), **CLOSE)
    assert found.isfinite().all() or model.counted


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_documents_do_not_see_each_other(family: str) -> None:
    model, x = tiny_model(family), tokens(1, 30)
    segments = torch.tensor([[1] * 10 + [2] * 15 + [0] * 2 + [3] * 3])
    found = model(x, segments=segments)
    for span in (slice(0, 10), slice(10, 25), slice(27, 30)):
        torch.testing.assert_close(found[:, span], model(x[:, span]), **CLOSE)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_does_not_depend_on_the_rest_of_its_batch(family: str) -> None:
    model, x = tiny_model(family), tokens(4)
    torch.testing.assert_close(model(x)[2:3], model(x[2:3]), **CLOSE)


@pytest.mark.parametrize("family", FAMILIES)
def test_log_prob_is_the_log_softmax_of_the_logits_at_the_targets(family: str) -> None:
    model, x = tiny_model(family), tokens(2, 13)
    inputs, targets = x[:, :-1], x[:, 1:].clone()
    targets[0, 3] = NO_TARGET
    wanted = model(inputs).log_softmax(-1).gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    wanted[0, 3] = 0
    torch.testing.assert_close(model.log_prob(inputs, targets), wanted, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("family", NEURAL)
def test_the_first_loss_is_the_logarithm_of_the_vocabulary(family: str) -> None:
    torch.manual_seed(0)
    config = tiny_config(family, vocab=4096, context=256)
    if hasattr(config, "heads"):
        config = config.replace(dim=256, mlp=0)
    model = models.build(config).eval()
    x = torch.randint(3, 4096, (4, 257))
    with torch.no_grad():
        loss = -float(model.log_prob(x[:, :-1], x[:, 1:]).mean())
        excess = float(model(x[:1, :-1]).var(-1).mean()) / 2  # logits of deviation s cost s^2 / 2 nats
    assert abs(loss / math.log(4096) - 1) < 0.02
    assert abs(loss - math.log(4096) - excess) < 0.05  # 1,024 targets of deviation s < 0.5: 0.5 / 32, three times


@pytest.mark.parametrize("family", NEURAL)
def test_a_neural_rung_learns_a_tiny_text_by_heart(family: str) -> None:
    torch.manual_seed(0)
    model = models.build(tiny_config(family))
    x = torch.from_numpy(stream(33, seed=3))[None]
    batch = Batch(x[:, :-1], x[:, 1:])
    if not model.causal:
        batch = mask_tokens(Batch(x[:, :-1], x[:, :-1]), MASK, VOCAB, (0,), share=0.3)
    optimizer, objective = torch.optim.Adam(model.parameters(), lr=1e-2), Objective(model)
    for _ in range(300):
        nats, count = objective(batch.tokens, batch.targets, batch.segments)
        (nats / count).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert nats.item() / count.item() < 0.25  # ln 40 = 3.7 at the start


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in NEURAL])
def test_a_counted_rung_knows_its_text_better_than_chance(family: str) -> None:
    model = tiny_model(family)
    x = torch.from_numpy(stream())[None]
    assert -float(model.log_prob(x[:, :-1], x[:, 1:]).mean()) < 0.7 * math.log(VOCAB)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_model_loads_bit_identical(family: str, tmp_path) -> None:
    tokenizer = train_tokenizer("bytes", [])
    model = tiny_model(family, vocab=tokenizer.vocab, bos=tokenizer.bos, eos=tokenizer.eos, pad=tokenizer.pad)
    save_model(tmp_path, model, tokenizer)
    again = load(tmp_path)
    assert again.config.resolved() == model.config.resolved()
    assert again.tokenizer.hash == tokenizer.hash
    x = tokens()
    assert torch.equal(again(x), model(x))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_size_can_be_built_without_memory(family: str) -> None:
    for config in models.family(family).SIZES.values():
        with torch.device("meta"):
            model = models.build(config if config.vocab else config.replace(vocab=VOCAB))
        assert model.config.family == family
