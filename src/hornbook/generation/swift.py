"""A model whose passes over few tokens go through the compiled kernels, on a CPU."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import torch
from torch import Tensor, nn

from hornbook import kernels, machine
from hornbook.adapt.lora import merge
from hornbook.adapt.packing import pack, unpack
from hornbook.adapt.products import product
from hornbook.adapt.quantized import Quantized
from hornbook.checkpoint import load
from hornbook.config import Speaking
from hornbook.generation.step import Misfit, Step
from hornbook.layers.model import LanguageModel
from hornbook.layers.transformer import Transformer

BITS = {"int8": kernels.INT8, "int4": kernels.INT4}


def opened(settings: Speaking) -> LanguageModel:
    """The model that generation is asked of, ready for it. UserError as `load` raises."""
    device = settings.device or machine.pick_device()
    model = load(settings.run, device, settings.dtype, text=True, bits=settings.bits)
    quicken(model)
    return model


def quicken(model: LanguageModel) -> None:
    """Let generation with this model use the kernels, from now on with the weights that it has.

    An adapter on a plain model is merged. Nothing else changes: many tokens, and whatever needs gradients, take the
    plain way. Hooks inside see only that. A model that tells classes apart is left as it is.
    """
    if model.class_head is not None:
        return
    if model.adapter is not None and model.quantization is None:
        merge(model)
    if model.counted or model.device.type != "cpu" or kernels.library() is None:
        return
    matrices = {}
    for module in model.modules():
        if (found := matrix_of(module, model)) is not None:
            matrices[module] = found
            use(found, module)
    if model.readout in matrices:
        head = matrices[model.readout].biased(model.readout_bias)
        model.unembed = few(head, model.unembed, torch.float32)  # type: ignore[method-assign]
    if isinstance(model, Transformer):
        with contextlib.suppress(Misfit):
            model.step = Step(model, matrices)


def matrix_of(module: nn.Module, model: LanguageModel) -> kernels.Matrix | None:
    """A linear layer, or the head, for the kernels, without its bias; None for what they cannot have."""
    if isinstance(module, Quantized):
        if module.product is not product or module.scheme.kind not in BITS:
            return None
        codes = unpack(module.codes) if module.scheme.kind == "int4" else module.codes
        whole = codes.shape[1] == module.columns
        low = getattr(module, "minimums", None)
        return kernels.coded(codes, module.scales, low, BITS[module.scheme.kind]) if whole else None
    if type(module) is nn.Linear or (isinstance(module, nn.Embedding) and module is model.readout):
        return kernels.plain(module.weight)
    return None


def use(matrix: kernels.Matrix, module: nn.Module) -> None:
    """Have a module multiply by the kernels. In float32 only whole passes do, where torch's products are fast."""
    if isinstance(module, Quantized):
        module.product = few(matrix, product)
        take_over(module, matrix)
    elif isinstance(module, nn.Linear) and module.weight.dtype == torch.bfloat16:
        plain = module.forward
        module.forward = few(matrix.biased(module.bias), plain)  # type: ignore[method-assign]


def take_over(module: Quantized, matrix: kernels.Matrix) -> None:
    """Keep the codes of a module as the kernels have them only, so that they do not take twice the memory."""
    paired = module.scheme.kind == "int4"

    def rows_of(rows: slice | Tensor) -> Tensor:
        codes = kernels.codes_of(matrix, rows)
        return pack(codes) if paired else codes

    module.elsewhere, module.codes = rows_of, module.codes.new_empty(0)


def few(
    matrix: kernels.Matrix, plain: Callable[..., Tensor], dtype: torch.dtype | None = None
) -> Callable[..., Tensor]:
    """The kernels' product for few rows of x, of a dtype; `plain` for more, and where gradients are taken."""

    def multiply(x: Tensor, *rest: object) -> Tensor:
        if torch.is_grad_enabled() or x.numel() > matrix.most * matrix.width or not kernels.suits(x):
            return plain(x, *rest)
        return kernels.multiply(x, matrix, dtype)

    return multiply
