"""Gathers, scatters and sorts of a program.

Gathers and scatters count as rows that are read or written one by one.
"""

import dataclasses
import math

from moe_jax.hlo.execution_counts import ExecutionCounts
from moe_jax.hlo.lexer import parse_integers
from moe_jax.hlo.module import Computation, Instruction, Module


@dataclasses.dataclass(frozen=True)
class RowAccess:
    """A gather or a scatter.

    Attributes:
        computation: name of the computation that holds the scheduled instruction.
        position: of the scheduled instruction, which may be a fusion.
        is_scatter: whether rows are written.
        is_sorted: whether the compiler has sorted the indices, so that it can stream the rows.
        rows: number of rows in one execution.
        row_bytes: bytes of a row.
        executions: in one step.
    """

    computation: str
    position: int
    is_scatter: bool
    is_sorted: bool
    rows: int
    row_bytes: float
    executions: float


@dataclasses.dataclass(frozen=True)
class Sort:
    """A sort.

    Attributes:
        computation: name of the computation that holds the scheduled instruction.
        position: of the scheduled instruction, which may be a fusion.
        length: elements that are sorted together.
        elements: of all operands, in one execution.
        executions: in one step.
    """

    computation: str
    position: int
    length: int
    elements: int
    executions: float


def find_row_accesses(module: Module, counts: ExecutionCounts) -> list[RowAccess | Sort]:
    """Returns the gathers, scatters and sorts of a program, inside fusions too.

    Args:
        module: the program.
        counts: executions of its computations.
    """
    found: list[RowAccess | Sort] = []
    for computation, position, outer, executions in counts.instructions(module):
        for holder, inner in module.inlined(computation, outer):
            if inner.opcode == "sort":
                axis = parse_integers(inner.attributes.get("dimensions", "0"))[0]
                elements = sum(array.elements for array in inner.arrays)
                length = inner.arrays[0].dims[axis]
                found.append(Sort(computation.name, position, length, elements, executions))
            if inner.opcode not in ("gather", "scatter"):
                continue
            rows, row_bytes = _rows(holder, inner)
            found.append(
                RowAccess(
                    computation=computation.name,
                    position=position,
                    is_scatter=inner.opcode == "scatter",
                    is_sorted=inner.attributes.get("indices_are_sorted") == "true",
                    rows=rows,
                    row_bytes=row_bytes,
                    executions=executions,
                )
            )
    return found


def _rows(computation: Computation, instruction: Instruction) -> tuple[int, float]:
    """Returns the number of rows and the bytes of one, of all operands of a scatter together."""
    if instruction.opcode == "gather":
        row = math.prod(parse_integers(instruction.attributes.get("slice_sizes", "")))
        array = instruction.arrays[0]
        return array.elements // max(row, 1), array.bytes * row / max(array.elements, 1)
    updates = instruction.operands[len(instruction.operands) // 2 + 1 :]
    arrays = [computation.by_name[name].arrays[0] for name in updates]
    window = parse_integers(instruction.attributes.get("update_window_dims", ""))
    row = math.prod(arrays[0].dims[axis] for axis in window)
    rows = arrays[0].elements // max(row, 1)
    return rows, sum(array.bytes for array in arrays) / max(rows, 1)
