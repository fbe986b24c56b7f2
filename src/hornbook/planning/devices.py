"""The GPUs that a plan can be made for: one table, to be edited as prices change."""

from __future__ import annotations

from dataclasses import dataclass

from hornbook.errors import UserError, unknown
from hornbook.machine.datasheets import HALF_PRECISION, SINGLE_PRECISION

NODE = 8
"""GPUs of one machine, which reach each other by `link`; those of others by `network`."""
USABLE = 0.94
"""Of a GPU's memory: the rest is CUDA's own, NCCL's, and what lies between tensors."""
RUNPOD = "Runpod's list, March 2026, as deploybase.ai/articles/runpod-gpu-pricing has it"
LAMBDA = "Lambda's list, May 2024, as github.com/karpathy/llm.c/discussions/481 has it"


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU. Figures are the data sheet's; those of speed are a second."""

    card: str
    """Its name in `machine/datasheets.py`, where its dense products in bfloat16 stand."""
    memory: float
    """Bytes."""
    bandwidth: float
    """Bytes between its memory and it."""
    link: float
    """Bytes to the others in its machine, one way: NVLink, or PCI Express."""
    network: float
    """Bytes to other machines, one way, for each GPU: 400 Gb/s beside H100 and later, 200 beside A100, elsewhere an
    eighth of 100 Gb/s (assumed)."""
    power: float
    """Watts of the board."""
    price: float | None
    """Dollars an hour, rented; None where none is known: `--price` gives one."""
    priced: str = ""
    """Where the price is from, and when."""

    @property
    def flops(self) -> float:
        """A second: bfloat16, on the T4 float16."""
        return HALF_PRECISION[self.card]

    def peak(self, precision: str) -> float:
        """Operations a second; in float32 those of TF32, which training takes, where the card has it."""
        return self.flops if precision != "float32" else SINGLE_PRECISION.get(self.card, self.flops / 2)


def shared(card: str, memory: float, bandwidth: float, link: float, power: float, price: float | None) -> Gpu:
    """A card without a network of its own."""
    return Gpu(card, memory, bandwidth, link, 100e9 / 8 / NODE, power, price, RUNPOD if price else "")


GPUS: dict[str, Gpu] = {
    "a100-40": Gpu("A100", 40e9, 1.555e12, 300e9, 25e9, 400, 1.29, LAMBDA),
    "a100-80": Gpu("A100", 80e9, 2.039e12, 300e9, 25e9, 400, 1.39, RUNPOD),
    "h100": Gpu("H100 HBM3", 80e9, 3.35e12, 450e9, 50e9, 700, 2.69, RUNPOD),
    "h200": Gpu("H200", 141e9, 4.8e12, 450e9, 50e9, 700, 3.59, RUNPOD),
    "b200": Gpu("B200", 180e9, 7.7e12, 900e9, 50e9, 1000, 5.98, RUNPOD),
    "l4": shared("L4", 24e9, 300e9, 32e9, 72, 0.44),
    "l40s": shared("L40S", 48e9, 864e9, 32e9, 350, 0.79),
    "t4": shared("T4", 16e9, 300e9, 16e9, 70, None),
    "rtx-4090": shared("RTX 4090", 24e9, 1.008e12, 32e9, 450, 0.34),
    "rtx-3090": shared("RTX 3090", 24e9, 936e9, 32e9, 350, 0.22),
}
OTHERWISE = {"a100": "a100-80", "h100-80": "h100", "4090": "rtx-4090", "3090": "rtx-3090"}
"""Other names of the same."""


def find_gpu(asked: str) -> tuple[str, Gpu, int]:
    """'h100:64' -> its name, its row, 64; one where no number is given. UserError for what is neither."""
    name, colon, number = asked.strip().lower().replace(" ", "-").replace("_", "-").partition(":")
    name = OTHERWISE.get(name, name)
    if name not in GPUS:
        raise unknown("GPU", asked.partition(":")[0], GPUS, "planning/devices.py is the table.")
    if colon and not (number.isdecimal() and int(number) > 0):
        raise UserError(f"--gpu {asked}: after the colon stands how many, as in --gpu {name}:8")
    return name, GPUS[name], int(number) if colon else 1
