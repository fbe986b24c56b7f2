"""A model whose matrices go through the compiled kernels where these are faster: few rows, on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hornbook import kernels, machine
from hornbook.adapt.packing import unpack
from hornbook.adapt.products import product
from hornbook.adapt.quantized import Quantized
from hornbook.checkpoint import load
from hornbook.config import Speaking
from hornbook.layers.attention import Attention, Where
from hornbook.layers.model import LanguageModel

FEW = 8
"""Rows from which torch's own product of bfloat16 matrices is faster."""
SOME = 64
"""Rows from which it pays to make a quantised matrix whole, and multiply that."""


def opened(settings: Speaking) -> LanguageModel:
    """The model that generation is asked of, ready for it. UserError as `load` raises."""
    device = settings.device or machine.pick_device()
    model = load(settings.run, device, settings.dtype, text=True, bits=settings.bits)
    quicken(model)
    return model


def quicken(model: LanguageModel) -> None:
    """Let generation with this model use the kernels. Nothing else changes, and gradients take the plain way."""
    for module in model.modules():
        if isinstance(module, Quantized) and module.product is product and module.scheme.kind != "nf4":
            module.product = Coded(module)
        elif isinstance(module, Attention):
            module.step = AttentionStep(getattr(model.config, "window", None))
        elif type(module) is nn.Linear and module.weight.dtype == torch.bfloat16:
            module.forward = Dense(module.weight, module.bias)  # type: ignore[method-assign, assignment]
    if model.counted:
        return
    if not isinstance(model.readout, Quantized) and model.unembedding[0].dtype == torch.bfloat16:
        head, features = Dense(*model.unembedding), model.features
        model.head = lambda hidden: head(features(hidden))  # type: ignore[method-assign]


class AttentionStep:
    """Attention of one new token in each row, written to the cache and computed in one go."""

    def __init__(self, window: int | None) -> None:
        self.window = window

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, where: Where, layer: int) -> Tensor | None:
        cache, slots = where.cache, where.slots
        assert cache is not None
        assert slots is not None
        if torch.is_grad_enabled() or not kernels.attends(query, cache.keys):
            return None
        return kernels.attend(query, key, value, cache.keys[layer], cache.values[layer], slots, self.window)


class Dense:
    """A product with a bfloat16 matrix (rows, width), and a bias (rows,) or none."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight, self.bias = weight, bias
        self.wide_bias = None if bias is None else bias.detach().float()

    def __call__(self, x: Tensor) -> Tensor:
        width = self.weight.shape[1]
        if x.numel() >= FEW * width or torch.is_grad_enabled() or not kernels.suits(x, width, width):
            return nn.functional.linear(x, self.weight, self.bias)
        return kernels.multiply(x, self.weight, self.wide_bias)


class Coded:
    """A product with a quantised matrix, as `adapt.products.product`, by the kernel."""

    def __init__(self, matrix: Quantized) -> None:
        codes, bits = matrix.codes, 8
        if matrix.scheme.kind == "int4":
            codes, bits = unpack(codes), 4
        self.matrix = kernels.interleave(codes, matrix.scales, getattr(matrix, "minimums", None), bits)
        self.group = codes.shape[1] // matrix.scales.shape[1]
        self.filled = codes.shape[1] != matrix.columns

    def __call__(self, x: Tensor, matrix: Quantized) -> Tensor:
        columns = matrix.columns
        if x.numel() >= SOME * columns or self.filled or not kernels.suits(x, columns, self.group):
            return product(x, matrix)
        return kernels.multiply_coded(x, self.matrix)
