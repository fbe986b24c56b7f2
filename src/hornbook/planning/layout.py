"""How a model is spread over devices, and the part of it that one device has."""

from __future__ import annotations

from dataclasses import dataclass

from hornbook.config import ModelConfig, TransformerConfig
from hornbook.errors import UserError
from hornbook.planning.devices import NODE


@dataclass(frozen=True)
class Layout:
    """`tensor` devices share each matrix; the groups of them read different rows."""

    devices: int = 1
    sharding: str = "none"
    """'none' (one group), 'data' (every group holds all), 'shard' (ZeRO-3: weights, gradients and optimiser over all
    groups), 'hybrid' (over those of one machine, copied between machines)."""
    tensor: int = 1

    def __post_init__(self) -> None:
        if self.devices % self.tensor:
            good = ", ".join(str(n) for n in range(1, min(self.devices, NODE) + 1) if self.devices % n == 0)
            raise UserError(f"--tensor {self.tensor} does not divide {self.devices} devices: {good} do")
        if self.sharding == "none" and self.groups > 1:
            raise UserError(
                f"--parallel none is for one device, or one group of --tensor devices: {self.devices} devices "
                "take data, shard or hybrid"
            )

    @property
    def groups(self) -> int:
        """Data parallel degree."""
        return self.devices // self.tensor

    @property
    def shards(self) -> int:
        """Parts that weights, gradients and optimiser are in, beyond `tensor`."""
        inside = max(1, NODE // self.tensor)
        return {"shard": self.groups, "hybrid": min(self.groups, inside)}.get(self.sharding, 1)

    def __str__(self) -> str:
        return f"{self.sharding}, tensor parallel {self.tensor}" if self.tensor > 1 else self.sharding


def share_of(config: ModelConfig, tensor: int) -> ModelConfig:
    """The config whose matrices are those of one of `tensor` devices (Shoeybi et al. 2019, "Megatron-LM").

    Heads and the MLP's inner width are divided; embedding and head are whole on each.
    """
    if tensor == 1:
        return config
    if not isinstance(config, TransformerConfig):
        raise UserError(f"--tensor divides a Transformer's heads: {config.family} has none")
    c = config.resolved()
    divided = c.heads, c.kv_heads, c.mlp
    if any(size % tensor for size in divided):
        good = ", ".join(str(n) for n in range(1, c.kv_heads + 1) if not any(size % n for size in divided))
        shared = f" with {c.kv_heads} of keys and values" if c.kv_heads < c.heads else ""
        raise UserError(f"--tensor {tensor} does not divide {c.heads} heads{shared}: {good} do")
    heads, kv_heads, mlp = (size // tensor for size in divided)
    return c.replace(heads=heads, kv_heads=kv_heads, mlp=mlp)
