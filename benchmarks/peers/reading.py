"""How fast this machine's memory can be read: python -m peers.reading prints bytes a second.

2 GiB, which no cache holds, in large pages where Linux gives them (THP_MEM_ALLOC_ENABLE=1 has torch ask for them), read
by matrix-vector products and by sums; the fastest of several.
"""

from __future__ import annotations

import torch

from hornbook.machine.speed import seconds_of

BYTES = 2 * 2**30
WIDTHS = (1024, 4096, 16384)
"""Of matrices: how far apart lies what is read at the same time."""


def read_speed(size: int = BYTES) -> float:
    """Bytes a second."""
    numbers = torch.ones(size // 4)
    runs = [
        numbers.sum,
        lambda: numbers.dot(numbers),
        *(lambda width=width: numbers.view(-1, width) @ numbers[:width] for width in WIDTHS),
    ]
    return numbers.nbytes / min(min(seconds_of(run, numbers.device)) for run in runs)


if __name__ == "__main__":
    print(read_speed())
