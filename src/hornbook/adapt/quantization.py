"""Which matrices of a model are quantised, and how they change places with what stands for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from hornbook.adapt.packing import Scheme
from hornbook.adapt.products import product
from hornbook.adapt.quantized import Quantized, stand_in, worded
from hornbook.config import GROUPS, Quantization
from hornbook.errors import UserError, unknown
from hornbook.layers.model import LanguageModel

HEAD = ("embedding", "output")
"""The token embedding and the head's matrix, by name. Other tables (positions) stay as they are."""
CLASS_HEAD = "class_head."
"""What the names of layers in a class head begin with; it stays as it is."""
BITS = {8: "int8", 4: "int4"}


def quantization_of(bits: int | None) -> Quantization | None:
    """What `load(bits=...)` stands for. UserError for other bits than 8 and 4."""
    if bits is None:
        return None
    if bits not in BITS:
        raise UserError(f"bits {bits}: possible are 8 and 4")
    return Quantization(BITS[bits], GROUPS[BITS[bits]])


def check(model: LanguageModel) -> None:
    """UserError for a model that cannot be quantised: a counted one, or one that is already."""
    if model.counted:
        raise UserError(f"a model of the family {model.config.family} is counted: it has no matrices to quantise")
    if model.quantization is not None:
        raise UserError(f"the model is quantised already ({described(model.quantization)}): take what it was made from")


def schemes(model: LanguageModel, how: Quantization) -> dict[str, Scheme]:
    """The modules to be quantised -> how: every nn.Linear and the token embedding, but for those to `keep`.

    A recurrent cell's own matrices stay as they are. UserError for a name in `keep` that is no module's, and where
    nothing is left.
    """
    check(model)
    names = dict(model.named_modules())
    for kept in how.keep:
        if kept not in names or not kept:
            raise unknown("module", kept, [name for name, module in names.items() if isinstance(module, nn.Linear)])
    found = {}
    for name, module in names.items():
        if name.startswith(CLASS_HEAD):
            continue
        wanted = isinstance(module, nn.Linear) or (isinstance(module, nn.Embedding) and name in HEAD)
        if wanted and around(name).isdisjoint(how.keep):
            found[name] = scheme_of(how, name in HEAD)
    if not any(found.values()):
        raise UserError("nothing of this model is left to be quantised: its matrices are recurrent, or to be kept")
    return {name: scheme for name, scheme in found.items() if scheme is not None}


def around(name: str) -> set[str]:
    """The names of a module and of all that hold it."""
    parts = name.split(".")
    return {".".join(parts[: n + 1]) for n in range(len(parts))}


def scheme_of(how: Quantization, head: bool) -> Scheme | None:
    """How a matrix is kept; None for one that stays as it is."""
    if not head:
        return Scheme(how.kind, how.group, how.outliers, how.symmetric, how.double)
    if how.head == "none":
        return None
    group = how.group if how.head == how.kind and not how.outliers else GROUPS[how.head]
    return Scheme(how.head, group, 0.0, how.symmetric, how.double)


def exchanged(model: LanguageModel, how: Quantization) -> Iterator[tuple[str, nn.Module, Quantized]]:
    """Put an empty stand-in in the place of each matrix: its name, what was there, what is there now."""
    for name, scheme in schemes(model, how).items():
        before = model.get_submodule(name)
        after = stand_in(before, scheme)
        model.set_submodule(name, after)
        yield name, before, after
    model.quantization = how


def prepare(model: LanguageModel, how: Quantization) -> LanguageModel:
    """Make a model on the meta device one whose matrices are still to come, quantised. In place."""
    for _ in exchanged(model, how):
        pass
    return model


def quantize(
    model: LanguageModel, how: Quantization, look: Callable[[str, Tensor, Quantized], None] = lambda *_: None
) -> LanguageModel:
    """Quantise a model in place, one matrix at a time; `look` is shown each one's name, before and after.

    UserError for a counted model and for one that is quantised already.
    """
    for name, before, after in exchanged(model, how):
        weight = before.get_parameter("weight").detach()
        after.take(weight)
        look(name, weight, after)
    return model


@torch.no_grad()
def dequantize(model: LanguageModel) -> LanguageModel:
    """Put plain modules back, with the numbers that quantisation left. In place; nothing for a plain model."""
    for name, module in list(model.named_modules()):
        if isinstance(module, Quantized):
            model.set_submodule(name, module.plain())
    model.quantization = None
    return model


def receiver(model: LanguageModel) -> Callable[[str, Tensor], None]:
    """What puts a full tensor, by its name in the plain model, into a prepared one."""
    state = model.state_dict()

    def put(name: str, tensor: Tensor) -> None:
        owner, _, leaf = name.rpartition(".")
        module = model.get_submodule(owner)
        if isinstance(module, Quantized) and leaf == "weight":
            module.take(tensor)
        else:
            state[name].copy_(tensor)

    return put


def weights_only(model: LanguageModel) -> LanguageModel:
    """Have LLM.int8() products take activations in full. In place."""
    for module in model.modules():
        if isinstance(module, Quantized):
            module.product = product
    return model


def described(how: Quantization) -> str:
    """In words: int4 in groups of 32, embedding and head int8 in groups of 32."""
    main, head = scheme_of(how, head=False), scheme_of(how, head=True)
    assert main is not None
    if head is None:
        return f"{worded(main)}, embedding and head in full"
    return worded(main) if head == main else f"{worded(main)}, embedding and head {worded(head)}"
