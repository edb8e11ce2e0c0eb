"""Matrix-product FLOPs of a program, per device and step.

The rule is that of `moe_jax/flops.py`: 2 m k n for a product of [m, k] and [k, n], and nothing for
anything else. The TPU's compiler writes matrix products as convolutions, with windows that are
padded, dilated and reversed; only those multiply-adds count that meet an element of both operands
(https://openxla.org/xla/operation_semantics#conv_convolution).
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

import numpy as np

from moe_jax.errors import UserError
from moe_jax.pods.hlo import Computation, Instruction, Module
from moe_jax.pods.hlo_text import integers
from moe_jax.pods.loops import Runs

# Custom calls that only arrange buffers or say something to the compiler.
NO_KERNELS = frozenset(
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


@dataclasses.dataclass(frozen=True)
class Product:
    """One matrix product, or one kernel.

    Attributes:
        name: of its instruction.
        computation: the scheduled computation that runs it.
        position: there, of it or of the fusion or wrapper that holds it.
        op_name: JAX's name of it.
        dtype: of its first operand.
        flops: of one run; None for a kernel that does not say its cost.
        runs: in one step.
        is_kernel: whether it is a custom call (Mosaic, Pallas), whose FLOPs are its own
            `cost_estimate`, which for `lax.ragged_dot` counts all rows of the static buffer, times
            the share of them that is filled.
    """

    name: str
    computation: str
    position: int
    op_name: str
    dtype: str
    flops: float | None
    runs: float
    is_kernel: bool


def find_products(module: Module, runs: Runs, kernel_fill: float = 1.0) -> list[Product]:
    """Finds the matrix products and kernels that a step runs, in the order of the text.

    Args:
        module: the program.
        runs: of its computations.
        kernel_fill: share of their rows that kernels work on: they are those of `lax.ragged_dot`
            and its gradient, which pass over tiles of nobody's rows.

    Raises:
        UserError: if a product's dimensions cannot be read.
    """
    found = []
    for computation, position, outer, times in runs.instructions(module):
        for holder, inner in _work(module, computation, outer):
            is_kernel = inner.opcode == "custom-call"
            operands = [holder.by_name[o] for o in inner.operands]
            if is_kernel:
                flops = kernel_flops(inner)
                flops = flops if flops is None else flops * kernel_fill
            else:
                flops = product_flops(holder, inner)
            found.append(
                Product(
                    name=inner.name,
                    computation=computation.name,
                    position=position,
                    op_name=inner.op_name or outer.op_name,
                    dtype=operands[0].arrays[0].dtype if operands else "",
                    flops=flops,
                    runs=times,
                    is_kernel=is_kernel,
                )
            )
    return found


def total_flops(products: list[Product], kernels: bool = True) -> float:
    """Returns the FLOPs of a step on one device.

    Args:
        products: of the program.
        kernels: whether to count those of kernels that say their cost.
    """
    return sum(
        (each.flops or 0.0) * each.runs for each in products if kernels or not each.is_kernel
    )


def unpriced(products: list[Product]) -> list[Product]:
    """Returns the kernels that do not say their cost."""
    return [each for each in products if each.flops is None]


def _work(
    module: Module, computation: Computation, instruction: Instruction, is_nested: bool = False
) -> Iterator[tuple[Computation, Instruction]]:
    """Yields the products and kernels that an instruction is or holds, with where they stand.

    What a plain call reaches is scheduled itself, unless the call stands in another wrapper.
    """
    if instruction.opcode in ("dot", "convolution"):
        yield computation, instruction
    elif instruction.opcode == "custom-call" and not instruction.called:
        if instruction.custom_call_target not in NO_KERNELS:
            yield computation, instruction
    elif instruction.is_wrapper and (is_nested or instruction.opcode != "call"):
        for name in instruction.called:
            called = module.computation(name)
            for inner in called.instructions:
                yield from _work(module, called, inner, is_nested=True)


def kernel_flops(instruction: Instruction) -> float | None:
    """Returns the FLOPs that a kernel's author gave for it, or None."""
    estimate = instruction.config("custom_call_config", "cost_estimate")
    if estimate is None:
        estimate = instruction.config("cost_estimate")
    return float(estimate["flops"]) if isinstance(estimate, dict) and "flops" in estimate else None


def product_flops(computation: Computation, instruction: Instruction) -> float:
    """Returns the FLOPs of one run of a dot or a convolution.

    Args:
        computation: where it stands.
        instruction: the dot or convolution.

    Raises:
        UserError: if its dimensions cannot be read.
    """
    left = computation.operand(instruction, 0).arrays[0].dims
    if instruction.opcode == "dot":
        contracted = integers(instruction.attributes.get("lhs_contracting_dims", ""))
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
        n = int(axis)
        pad = _of_axis(window, "pad", n, "0_0").partition("_")
        flops *= _valid_positions(
            size=lhs[axis],
            kernel=rhs[axis],
            result=out[axis],
            stride=int(_of_axis(window, "stride", n, "1")),
            pad=int(pad[0]),
            dilate=int(_of_axis(window, "lhs_dilate", n, "1")),
            kernel_dilate=int(_of_axis(window, "rhs_dilate", n, "1")),
        )
    return flops


def _of_axis(window: dict[str, str], key: str, axis: int, default: str) -> str:
    return window[key].split("x")[axis] if key in window else default


@functools.lru_cache(maxsize=4096)
def _valid_positions(
    size: int, kernel: int, result: int, stride: int, pad: int, dilate: int, kernel_dilate: int
) -> int:
    """Returns how many pairs of a result's and a kernel's position meet an element of the input.

    The input stands `dilate` apart, `pad` positions after the first of the result's window. A
    reversed kernel meets as many.
    """
    window = np.arange(kernel) * kernel_dilate - pad
    count = 0
    for position in range(result):
        at = window + position * stride
        count += int(((at >= 0) & (at <= (size - 1) * dilate) & (at % dilate == 0)).sum())
    return count
