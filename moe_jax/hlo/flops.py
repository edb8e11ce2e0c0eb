"""Matrix-product FLOPs of a program, per device and step.

The rule is that of `moe_jax/flops.py`: 2 m k n for a product of [m, k] and [k, n], and nothing for
anything else. The TPU compiler writes matrix products as convolutions with windows that are padded,
dilated and reversed; only multiply-adds between elements of both operands count, not those with
padding (https://openxla.org/xla/operation_semantics#conv_convolution).
"""

import dataclasses
import functools
import math
import re

import numpy as np

from moe_jax.errors import UserError
from moe_jax.hlo.execution_counts import ExecutionCounts
from moe_jax.hlo.lexer import parse_integers
from moe_jax.hlo.module import Computation, Instruction, Module
from moe_jax.hlo.mosaic import KernelWork, kernel_work

# Custom calls that compute nothing: they arrange buffers or annotate the program.
NON_COMPUTE_CUSTOM_CALLS = frozenset(
    {
        "AllocateBuffer",
        "AssumeGatherIndicesInBound",
        "AsyncCollectiveDone",
        "AsyncCollectiveStart",
        "ConcatBitcast",
        "GatherScatterIndicesBitpacked",
        "MoveToDevice",
        "MoveToHost",
        "PrepareAsyncCallDone",
        "PrepareAsyncCallStart",
        "SliceBitcast",
    }
)

# JAX's names of the kernels of attention.
_ATTENTION = re.compile(r"\battention_(forward|backward)\b")


@dataclasses.dataclass(frozen=True)
class MatrixProduct:
    """One matrix product, or one kernel.

    Attributes:
        name: of its instruction.
        computation: name of the scheduled computation that executes it.
        position: there, of it or of the fusion or wrapper that holds it.
        op_name: JAX's name of it.
        flops: of one execution; None for a kernel whose work is unknown.
        executions: in one step.
        is_kernel: whether it is a custom call (Mosaic, Pallas). Its FLOPs are its own
            `cost_estimate`, which for `lax.ragged_dot` counts all rows of the static buffer, or
            else those of its code, times the occupancy.
        work: of a kernel, by its code; None if that cannot be read.
        occupancy: share of the kernel's work that is done: that of the rows of its buffer which
            are assigned; 1 for kernels of fixed work, such as those of attention.
    """

    name: str
    computation: str
    position: int
    op_name: str
    flops: float | None
    executions: float
    is_kernel: bool
    work: KernelWork | None = None
    occupancy: float = 1.0


def find_matrix_products(
    module: Module, counts: ExecutionCounts, kernel_occupancy: float = 1.0
) -> list[MatrixProduct]:
    """Finds the matrix products and kernels of a step, in the order of the text.

    Args:
        module: the program.
        counts: executions of its computations.
        kernel_occupancy: share of their rows that kernels process, except those of attention. The
            others are those of `lax.ragged_dot` and its gradient, which skip tiles of unassigned
            rows.

    Raises:
        UserError: if a product's dimensions cannot be read.
    """
    found = []
    for computation, position, outer, executions in counts.instructions(module):
        for holder, inner in module.inlined(computation, outer):
            is_kernel = _is_kernel(inner)
            op_name = inner.op_name or outer.op_name
            work, occupancy = None, 1.0
            if is_kernel:
                work = _kernel_work(holder, inner)
                occupancy = 1.0 if _ATTENTION.search(op_name) else kernel_occupancy
                flops = kernel_flops(inner)
                if flops is None and work is not None:
                    flops = work.flops()
                if flops is not None:
                    flops *= occupancy
            elif inner.opcode in ("dot", "convolution"):
                flops = product_flops(holder, inner)
            else:
                continue
            found.append(
                MatrixProduct(
                    name=inner.name,
                    computation=computation.name,
                    position=position,
                    op_name=op_name,
                    flops=flops,
                    executions=executions,
                    is_kernel=is_kernel,
                    work=work,
                    occupancy=occupancy,
                )
            )
    return found


def total_flops(products: list[MatrixProduct]) -> float:
    """Returns the FLOPs of a step on one device, without kernels whose work is unknown."""
    return sum((each.flops or 0.0) * each.executions for each in products)


def without_cost_estimate(products: list[MatrixProduct]) -> list[MatrixProduct]:
    """Returns the kernels whose work is unknown: no estimate of the author's, no readable code."""
    return [each for each in products if each.flops is None]


def _is_kernel(instruction: Instruction) -> bool:
    if instruction.opcode != "custom-call" or instruction.called:
        return False
    return instruction.custom_call_target not in NON_COMPUTE_CUSTOM_CALLS


def _kernel_work(computation: Computation, instruction: Instruction) -> KernelWork | None:
    body = instruction.config("custom_call_config", "body")
    if not isinstance(body, str):
        return None
    operands = [computation.by_name[name] for name in instruction.operands]
    arrays = [array.dims for each in (*operands, instruction) for array in each.arrays]
    return kernel_work(body, tuple(arrays))


def kernel_flops(instruction: Instruction) -> float | None:
    """Returns the FLOPs of a kernel by its author's cost estimate, or None."""
    estimate = instruction.config("custom_call_config", "cost_estimate")
    if estimate is None:
        estimate = instruction.config("cost_estimate")
    return float(estimate["flops"]) if isinstance(estimate, dict) and "flops" in estimate else None


def product_flops(computation: Computation, instruction: Instruction) -> float:
    """Returns the FLOPs of one execution of a dot or a convolution.

    Args:
        computation: of the instruction.
        instruction: the dot or convolution.

    Raises:
        UserError: if its dimensions cannot be read.
    """
    left = computation.operand(instruction, 0).arrays[0].dims
    if instruction.opcode == "dot":
        contracted = parse_integers(instruction.attributes.get("lhs_contracting_dims", ""))
        depth = math.prod(left[axis] for axis in contracted)
        return 2.0 * instruction.arrays[0].elements * depth
    right = computation.operand(instruction, 1).arrays[0].dims
    return _convolution_flops(instruction, left, right)


def _convolution_flops(
    instruction: Instruction, left: tuple[int, ...], right: tuple[int, ...]
) -> float:
    labels = re.fullmatch(r"(\w+)_(\w+)->(\w+)", instruction.attributes.get("dim_labels", ""))
    result = instruction.arrays[0].dims
    if not labels or [len(label) for label in labels.groups()] != [
        *map(len, (left, right, result))
    ]:
        raise UserError(
            f"HLO text, line {instruction.line}: dim_labels of {instruction.name} do not fit"
        )
    lhs, rhs, out = (
        dict(zip(label, dims, strict=True))
        for label, dims in zip(labels.groups(), (left, right, result), strict=True)
    )
    window = dict(re.findall(r"(\w+)=(\S+)", instruction.attributes.get("window", "").strip("{}")))
    flops = 2.0 * out["b"] * out["f"] * rhs["i"]
    for axis in sorted(label for label in out if label.isdigit()):
        dimension = _window_dimension(window, int(axis))
        flops *= _multiply_adds(lhs[axis], rhs[axis], out[axis], dimension)
    return flops


@dataclasses.dataclass(frozen=True)
class _WindowDimension:
    """One spatial dimension of a convolution's window, with the names of XLA's messages."""

    stride: int
    padding_low: int
    base_dilation: int
    window_dilation: int


def _window_dimension(window: dict[str, str], axis: int) -> _WindowDimension:
    def of_axis(key: str, default: str) -> str:
        return window[key].split("x")[axis] if key in window else default

    return _WindowDimension(
        stride=int(of_axis("stride", "1")),
        padding_low=int(of_axis("pad", "0_0").partition("_")[0]),
        base_dilation=int(of_axis("lhs_dilate", "1")),
        window_dilation=int(of_axis("rhs_dilate", "1")),
    )


@functools.lru_cache(maxsize=4096)
def _multiply_adds(size: int, kernel: int, result: int, dimension: _WindowDimension) -> int:
    """Returns the pairs of a result's and a kernel's position that meet an element of the input.

    Elements of the input are `base_dilation` apart; the first is `padding_low` positions after the
    start of the first window. A reversed kernel has as many pairs.
    """
    window = np.arange(kernel) * dimension.window_dilation - dimension.padding_low
    spacing = dimension.base_dilation
    count = 0
    for position in range(result):
        at = window + position * dimension.stride
        count += int(((at >= 0) & (at <= (size - 1) * spacing) & (at % spacing == 0)).sum())
    return count
