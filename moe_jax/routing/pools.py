"""Pools: groups of tokens that compete for the experts.

The kind of pool determines causality, capacity and communication:

| kind       | a pool is                                  | P                 | N                 |
|------------|--------------------------------------------|-------------------|-------------------|
| `sequence` | one row                                    | B                 | S                 |
| `position` | the same position of `rows` rows           | (B / rows) * S    | rows              |
| `batch`    | `rows` whole rows (GShard's "group")       | B / rows          | rows * S          |

`rows = 0` stands for all rows of the batch, or of the micro-batch with gradient accumulation.
"""

import dataclasses
from typing import Annotated, Literal, get_args

import jax

from moe_jax.errors import UserError
from moe_jax.registration import configurable
from moe_jax.settings import Settings, counted

Kind = Literal["sequence", "position", "batch"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@configurable
@dataclasses.dataclass(frozen=True)
class Pool(Settings):
    """The division of a batch into pools.

    Attributes:
        kind: one of `KINDS`.
        rows: number of rows in a pool for the kinds `position` and `batch`; 0 for all.

    Raises:
        UserError: for an unknown kind or a negative number of rows.
    """

    kind: Kind = "batch"
    rows: Annotated[int, counted("all")] = 0

    def shape(self, batch: int, length: int) -> tuple[int, int]:
        """Returns (P, N) for a batch of `batch` rows of `length` positions.

        Raises:
            UserError: if `rows` does not divide the batch.
        """
        if self.kind == "sequence":
            return batch, length
        rows = self.rows or batch
        if batch % rows:
            raise UserError(
                f"a {self.kind} pool of {rows} rows does not divide a batch of {batch} rows; "
                f"set its rows to a divisor of {batch}, or to 0 for all"
            )
        if self.kind == "position":
            return batch // rows * length, rows
        return batch // rows, rows * length

    def split(self, x: jax.Array) -> jax.Array:
        """Splits `x` of shape [B, S, ...] into pools: [P, N, ...]."""
        batch, length, *rest = x.shape
        pools, tokens = self.shape(batch, length)
        if self.kind == "position":
            x = x.reshape(batch // tokens, tokens, length, *rest).swapaxes(1, 2)
        return x.reshape(pools, tokens, *rest)

    def join(self, x: jax.Array, batch: int, length: int) -> jax.Array:
        """Joins pools [P, N, ...] into a batch [B, S, ...]: the inverse of `split`."""
        _, tokens, *rest = x.shape
        if self.kind == "position":
            x = x.reshape(batch // tokens, length, tokens, *rest).swapaxes(1, 2)
        return x.reshape(batch, length, *rest)
