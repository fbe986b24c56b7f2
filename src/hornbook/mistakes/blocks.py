"""Mistakes in how a block is put together."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from hornbook.mistakes.attention import attentions
from hornbook.mistakes.comparing import Plant, read_so
from hornbook.mistakes.piece import HONEST, MISTAKEN, Figure, Piece, swapped
from hornbook.mistakes.school import gpt2, opt, stream


def has_blocks(model: Any) -> bool:
    """Whether it is made of blocks with an attention, an MLP and a norm for each."""
    return all(hasattr(b, "mlp_norm") and hasattr(b.mlp, "activation") for b in getattr(model, "blocks", [None]))


BLOCKS: dict[str, Any] = {"fits": has_blocks, "needs": "blocks with two norms"}


def post_norm(model: Any) -> AbstractContextManager[None]:
    """Norms behind the sums, and none at the end."""
    return swapped(*((block, "pre_norm", False) for block in model.blocks), (model, "final_norm", None))


def shared_norm(model: Any) -> AbstractContextManager[None]:
    """One norm for both halves of every block."""
    return swapped(*((block, "mlp_norm", block.attention_norm) for block in model.blocks))


def relu_after_attention(model: Any) -> AbstractContextManager[None]:
    """The activation on what attention gives, and none in the MLP."""

    def rectified(module: Any) -> Any:
        real = module.forward
        return lambda *given: real(*given).relu()

    changes = [(module, "forward", rectified(module)) for module in attentions(model)]
    return swapped(*changes, *((block.mlp, "activation", lambda x: x) for block in model.blocks))


def parameters(plant: Plant | None) -> int:
    model = gpt2()
    with plant(model) if plant else swapped():
        return model.parameter_count()


@torch.no_grad()
def silenced() -> Figure:
    """Share of attention's output that ReLU sets to 0."""
    model: Any = opt()
    found: list[Tensor] = []
    with relu_after_attention(model):
        for module in attentions(model):
            module.register_forward_hook(lambda module, given, output: found.append(output))
        model(stream().get(0).tokens)
    return Figure(
        "share of attention's output that is set to 0", float((torch.cat(found) == 0).float().mean()), MISTAKEN
    )


PIECES = (
    Piece(
        "post-norm",
        "Post-norm, called OPT",
        "The norm comes behind each sum, and none at the end. OPT has it in front of each sub-layer, as GPT-2 has "
        "(of its sizes, only opt-350m is post-norm).",
        "OPT from scratch, A3 and its diagram A16: norm1(attention + x), norm2(forward + x).",
        "A small model learns. OPT's weights read so predict badly, and deep models of this kind want a careful "
        "warm-up.",
        "hugging face",
        post_norm,
        read_so(post_norm, "opt"),
        opt,
        **BLOCKS,
    ),
    Piece(
        "shared-norm",
        "One LayerNorm for two sub-layers",
        "Attention and MLP go through the same norm, so that one scale and shift must serve both.",
        "GPT overview, C2: self.layer_norm is called twice.",
        "Nothing but fewer parameters than the formula says; a published model's second norm has no place to go.",
        "parameters",
        shared_norm,
        read_so(
            shared_norm,
            "gpt2",
            lambda: Figure("parameters of the tiny model", parameters(shared_norm), MISTAKEN),
            lambda: Figure("parameters with two norms a block", parameters(None), HONEST),
        ),
        gpt2,
        **BLOCKS,
    ),
    Piece(
        "relu-on-attention",
        "ReLU on attention's output",
        "The activation stands behind attention, and between the MLP's two matrices there is none: these are then a "
        "single matrix, and nearly half of what attention found is thrown away.",
        "OPT-1.3B in 8 bit, E11 and E12: the walk applies activation_fn to attention's output and feeds fc1 to fc2 "
        "as it is.",
        "Shapes fit all the way, so the walk looks right; its numbers are not the model's.",
        "hugging face",
        relu_after_attention,
        read_so(relu_after_attention, "opt", silenced),
        opt,
        **BLOCKS,
    ),
)
