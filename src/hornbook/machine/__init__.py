"""What this machine is, and what it can do: device, cores, memory; how fast it multiplies and reads, measured."""

from hornbook.machine.hardware import (
    can_compile,
    check_device,
    compile_fault,
    cores,
    describe,
    number_of,
    pick_device,
    processor,
    synchronize,
    versions,
)
from hornbook.machine.memory import (
    available_memory,
    forget_peak,
    keep_freed_memory,
    out_of_memory,
    peak_memory,
    resident_memory,
)
from hornbook.machine.settings import best_threads, fastest_exact_products
from hornbook.machine.speed import (
    Bandwidth,
    Peak,
    bf16_pays,
    float32_precision,
    matmul_peak,
    matmul_speeds,
    memory_bandwidth,
    reference_peak,
)

__all__ = [
    "Bandwidth",
    "Peak",
    "available_memory",
    "best_threads",
    "bf16_pays",
    "can_compile",
    "check_device",
    "compile_fault",
    "cores",
    "describe",
    "fastest_exact_products",
    "float32_precision",
    "forget_peak",
    "keep_freed_memory",
    "matmul_peak",
    "matmul_speeds",
    "memory_bandwidth",
    "number_of",
    "out_of_memory",
    "peak_memory",
    "pick_device",
    "processor",
    "reference_peak",
    "resident_memory",
    "synchronize",
    "versions",
]
