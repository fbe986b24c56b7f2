"""What may stand in the place of nn.Linear or nn.Embedding: a matrix that is kept in another form (see `adapt/`)."""

from __future__ import annotations

from torch import Tensor, nn


class StandIn(nn.Module):
    """A matrix (rows, columns) that is no parameter: its numbers follow from something smaller."""

    rows: int
    columns: int
    looked_up = False
    """True for a table, whose rows are looked up; a tied head multiplies with it nevertheless."""

    @property
    def weight(self) -> Tensor:
        """The whole matrix (rows, columns), made anew at every call."""
        raise NotImplementedError

    def multiply(self, x: Tensor) -> Tensor:
        """x (..., columns) times the transposed matrix: (..., rows), without a bias."""
        raise NotImplementedError
