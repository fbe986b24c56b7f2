"""A plain model spread over processes, from outside: no line of a model knows of it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hornbook.errors import UserError
from hornbook.layers.attention import Attention
from hornbook.layers.mlp import MLP
from hornbook.layers.model import LanguageModel
from hornbook.layers.transformer import Transformer
from hornbook.parallel.processes import Processes

ENTRANCES = ("nats", "log_prob", "hidden", "head", "class_logits")
"""What a model is called by, beside `forward`."""
PLANS: dict[type[nn.Module], tuple[tuple[str, ...], tuple[str, ...]]] = {
    Attention: (("query", "key", "value"), ("output",)),
    MLP: (("gate", "up"), ("down",)),
}
"""Linear layers whose outputs are shared out, and those whose inputs are (Shoeybi et al. 2019, section 3)."""


def spread(model: LanguageModel, processes: Processes, dtype: torch.dtype = torch.float32) -> None:
    """Split the matrices over `processes.tensor` processes, and all parameters over the groups that share a model.

    Products are computed in `dtype`. Where every group holds a whole model there is nothing to do here: `averaged`
    brings its gradients together.
    """
    if processes.mesh is None:
        return
    if processes.tensor > 1:
        split_matrices(model, processes)
    if sharded(processes):
        shard(model, processes, dtype)


def divided(processes: Processes) -> bool:
    """Whether a process holds parts of a model only."""
    return processes.tensor > 1 or sharded(processes)


def compile_blocks(model: LanguageModel) -> None:
    """Compile each block by itself: what puts it together stands between them, and is no work for a compiler."""
    for block in blocks(model):
        block.forward = torch.compile(block.forward, dynamic=False)


def sharded(processes: Processes) -> bool:
    """Whether parameters lie in parts, or must be handled as if they did: DDP knows no split matrices."""
    return processes.mesh is not None and (processes.mesh["shard"].size() > 1 or together(processes))


def together(processes: Processes) -> bool:
    """Whether there are both groups and split matrices."""
    return processes.tensor > 1 and processes.groups > 1


def require_transformer(model: LanguageModel, wish: str) -> None:
    """UserError for a model that is not made of blocks."""
    if not isinstance(model, Transformer):
        raise UserError(f"{wish} is for Transformers, and {model.config.family} is none: --parallel data works")
    if model.quantization is not None:
        raise UserError(f"{wish} cannot split a quantised model: --parallel data works, or a base in full")


def split_matrices(model: LanguageModel, processes: Processes) -> None:
    """Tensor parallelism (Shoeybi et al. 2019): heads and the network's width are shared out."""
    from torch.distributed.tensor.parallel import ColwiseParallel, ParallelStyle, RowwiseParallel, parallelize_module

    require_transformer(model, "--tensor")
    assert processes.mesh is not None
    for name, module in list(model.named_modules()):
        for kind, (out, back) in PLANS.items():
            if isinstance(module, kind):
                require_divisible(name, module, processes.tensor)
                styles: list[tuple[tuple[str, ...], type[ParallelStyle]]] = [
                    (out, ColwiseParallel),
                    (back, RowwiseParallel),
                ]
                plan = {part: style() for parts, style in styles for part in parts if getattr(module, part) is not None}
                parallelize_module(module, processes.mesh["tensor"], plan)


def has_split_matrices(model: nn.Module) -> bool:
    """Whether it went through `split_matrices`."""
    meshes = (getattr(p, "device_mesh", None) for p in model.parameters())
    names = (mesh.mesh_dim_names or () for mesh in meshes if mesh is not None)
    return any("tensor" in each for each in names)


def require_divisible(name: str, module: nn.Module, parts: int) -> None:
    """UserError for heads or a width that so many processes cannot share."""
    if isinstance(module, Attention):
        heads = {getattr(module, part).out_features // module.width for part in ("query", "key")}
        if wrong := [str(count) for count in sorted(heads) if count % parts]:
            raise UserError(f"--tensor {parts} does not divide the {wrong[0]} heads of {name}")
    elif isinstance(module, MLP) and module.up.out_features % parts:
        raise UserError(f"--tensor {parts} does not divide the width {module.up.out_features} of {name}")


def shard(model: LanguageModel, processes: Processes, dtype: torch.dtype = torch.float32) -> None:
    """FSDP2 (Zhao et al. 2023): every parameter lies in parts, and a block is put together while it computes.

    Blocks are sent in `dtype`, as autocast would make of their matrices. What lies here, gradients as they are added
    up, the residual stream, what norms compute, and whatever is outside of blocks stay in full precision.
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    require_transformer(model, "--parallel shard")
    assert processes.mesh is not None
    mesh = processes.mesh["replicate", "shard"]
    policy = MixedPrecisionPolicy()
    if dtype == torch.bfloat16:
        policy = MixedPrecisionPolicy(dtype, torch.float32, cast_forward_inputs=False)
    for block in blocks(model):
        if dtype == torch.bfloat16:
            norm_in_full(block)
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh)
    for name in ENTRANCES:
        register_fsdp_forward_method(model, name)


def norm_in_full(block: nn.Module) -> None:
    """Let the norms of a block compute in float32, whatever their weights come in."""
    for module in block.modules():
        if isinstance(module, nn.LayerNorm | nn.RMSNorm):
            module.forward = partial(normed, module)  # type: ignore[method-assign]


def normed(norm: nn.LayerNorm | nn.RMSNorm, x: Tensor) -> Tensor:
    """What a norm makes of (...,D)."""
    weight = None if norm.weight is None else norm.weight.float()
    if isinstance(norm, nn.RMSNorm):
        return F.rms_norm(x, norm.normalized_shape, weight, norm.eps)
    bias = None if norm.bias is None else norm.bias.float()
    return F.layer_norm(x, norm.normalized_shape, weight, bias, norm.eps)


def blocks(model: LanguageModel) -> Iterator[nn.Module]:
    """The layers of a Transformer, those of an encoder included."""
    for part in ("blocks", "encoder"):
        yield from getattr(model, part, None) or ()


def rest(model: nn.Module) -> None:
    """Let every parameter lie in its parts again, whatever was computed last."""
    for module in model.modules():
        if reshard := getattr(module, "reshard", None):  # FSDP2's own, which it gives to what it shards
            reshard()


def averaged(objective: nn.Module, processes: Processes) -> nn.Module:
    """The objective, with gradients that are the mean over all groups; those of a sharded model are already."""
    if processes.mesh is None or processes.groups == 1 or sharded(processes):
        return objective
    ids = [torch.cuda.current_device()] if next(objective.parameters()).device.type == "cuda" else None
    model: LanguageModel = objective.model  # type: ignore[assignment]
    some = model.reads_source or not model.causal  # which have parts that not every batch needs
    ddp = nn.parallel.DistributedDataParallel
    found = ddp(objective, device_ids=ids, gradient_as_bucket_view=True, find_unused_parameters=some)
    found.broadcast_buffers = False  # they never change: codes of a quantised base would be sent again every step
    return found


def exchange(objective: nn.Module, model: nn.Module, wanted: bool) -> None:
    """Whether the next backward pass brings gradients together: only the last one of a step needs to.

    Where parameters lie in parts, every pass divides its gradients among those who share a model, for in full they
    would take the memory that sharding saves; only between such groups they wait for the last one.
    """
    inner = getattr(objective, "_orig_mod", objective)
    if isinstance(inner, nn.parallel.DistributedDataParallel):
        inner.require_backward_grad_sync = wanted
    elif tell := getattr(model, "set_requires_all_reduce", None):
        tell(wanted)
