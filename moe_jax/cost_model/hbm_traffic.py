"""HBM traffic: bytes that each scheduled instruction reads from and writes to HBM.

Arrays in another memory (VMEM, the common memory of v4, the host's) do not count, nor do the bytes
of a collective that fusions continue (continuation fusions). As in XLA's `HloCostAnalysis`, a slice
reads only its result and an in-place update writes only the update, inside fusions too. Padding of
tiles counts, since it is read and written with them.
Source: https://github.com/openxla/xla/blob/main/xla/service/hlo_cost_analysis.cc.
"""

import dataclasses

from moe_jax.hlo.collectives import collective_kind
from moe_jax.hlo.execution_counts import ExecutionCounts
from moe_jax.hlo.flops import NON_COMPUTE_CUSTOM_CALLS
from moe_jax.hlo.module import Computation, Instruction, Module
from moe_jax.hlo.shape import ArrayShape, leaves

# Instructions without traffic, or whose traffic counts with other instructions.
_FREE = frozenset(
    {
        "add-dependency",
        "after-all",
        "bitcast",
        "call",
        "conditional",
        "constant",
        "domain",
        "get-dimension-size",
        "get-tuple-element",
        "opt-barrier",
        "parameter",
        "partition-id",
        "replica-id",
        "tuple",
        "while",
    }
)
# Memory space of the host.
HOST = 5
_SLICES = frozenset({"dynamic-slice", "slice", "gather"})
_VIEWS = frozenset({"bitcast", "reshape"})
_UPDATES = frozenset({"dynamic-update-slice", "scatter"})


@dataclasses.dataclass(frozen=True)
class HbmTraffic:
    """HBM traffic of one scheduled instruction.

    Attributes:
        name: of the instruction.
        computation: name of the computation that holds it.
        position: there.
        read: bytes from HBM in one execution.
        written: bytes to HBM in one execution.
        executions: in one step.
        estimated_cycles: of one execution, by the code generator; None if unknown.
        is_host: whether the bytes come from or go to the host's memory.
    """

    name: str
    computation: str
    position: int
    read: int
    written: int
    executions: float
    estimated_cycles: int | None
    is_host: bool = False

    @property
    def bytes(self) -> int:
        """Bytes read and written in one execution."""
        return self.read + self.written


def find_hbm_traffic(module: Module, counts: ExecutionCounts) -> list[HbmTraffic]:
    """Returns the HBM traffic of the scheduled instructions, in the order of the text.

    Instructions without traffic are left out, and loops and calls, whose bodies are listed. An
    asynchronous instruction counts where it starts.

    Args:
        module: the program.
        counts: executions of its computations.
    """
    found = []
    for computation, position, instruction, executions in counts.instructions(module):
        if _is_free(instruction):
            continue
        read, written = instruction_bytes(module, computation, instruction)
        found.append(
            HbmTraffic(
                name=instruction.name,
                computation=computation.name,
                position=position,
                read=read,
                written=written,
                executions=executions,
                estimated_cycles=instruction.estimated_cycles,
                is_host=_is_host(computation, instruction),
            )
        )
    return found


def _is_host(computation: Computation, instruction: Instruction) -> bool:
    operands = (computation.by_name[name] for name in instruction.operands)
    return any(
        array.memory_space == HOST for each in (instruction, *operands) for array in each.arrays
    )


def _is_free(instruction: Instruction) -> bool:
    if instruction.opcode in _FREE:
        return True
    if instruction.opcode == "custom-call":
        return instruction.custom_call_target in NON_COMPUTE_CUSTOM_CALLS
    return instruction.opcode.endswith(("-done", "-update"))


def instruction_bytes(
    module: Module, computation: Computation, instruction: Instruction
) -> tuple[int, int]:
    """Returns the bytes that one execution of an instruction reads from HBM and writes to it."""
    opcode = instruction.opcode
    operands = [computation.by_name[name] for name in instruction.operands]
    if opcode == "fusion":
        called = module.computation(instruction.called[0])
        return _body_bytes(module, called, operands, instruction.arrays)
    if instruction.is_wrapper and opcode.endswith("-start") and len(instruction.called) == 1:
        return _wrapped_bytes(module, operands, instruction)
    results = _results(instruction)
    if opcode in _SLICES:
        taken = sum(array.padded_bytes for array in results)
        read = taken if _is_in_hbm(operands[0].arrays[0]) else 0
        return read + _operand_bytes(operands[1:]), _bytes_in_hbm(results)
    if opcode in _UPDATES:
        update = operands[1] if opcode == "dynamic-update-slice" else operands[-1]
        moved = update.padded_bytes if _is_in_hbm(results[0]) else 0
        accumulated = moved if opcode == "scatter" else 0  # A scatter reads its target.
        return _operand_bytes(operands[1:]) + accumulated, moved
    return _operand_bytes(operands), _bytes_in_hbm(results)


def _results(instruction: Instruction) -> tuple[ArrayShape, ...]:
    """Returns the arrays that are written: of a `-start`, those after the operands."""
    shape = instruction.shape
    if instruction.opcode == "copy-start" and not isinstance(shape, ArrayShape):
        return leaves(shape[0])  # The target precedes the source.
    paired = instruction.opcode.endswith("-start") and instruction.opcode != "all-reduce-start"
    if paired and not isinstance(shape, ArrayShape):
        return leaves(shape[1])  # The operands precede the results.
    return instruction.arrays


def _is_in_hbm(array: ArrayShape) -> bool:
    return array.memory_space == 0


def _bytes_in_hbm(arrays: tuple[ArrayShape, ...]) -> int:
    return sum(array.padded_bytes for array in arrays if _is_in_hbm(array))


def _operand_bytes(instructions: list[Instruction]) -> int:
    return sum(_bytes_in_hbm(instruction.arrays) for instruction in instructions)


def _wrapped_bytes(
    module: Module, operands: list[Instruction], instruction: Instruction
) -> tuple[int, int]:
    """Returns the bytes of the innermost computation of an asynchronous wrapper."""
    called = module.computation(instruction.called[0])
    while called.root.opcode in ("call", "async-done"):
        inner = called.root
        if inner.opcode == "async-done":
            inner = called.operand(inner)
        if len(inner.called) != 1:
            break
        called = module.computation(inner.called[0])
    return _body_bytes(module, called, operands, _results(instruction))


def _body_bytes(
    module: Module,
    called: Computation,
    operands: list[Instruction],
    results: tuple[ArrayShape, ...],
) -> tuple[int, int]:
    """Returns the bytes that a fused computation reads and writes.

    Args:
        module: the program.
        called: the fused computation.
        operands: of the fusion.
        results: of the fusion, with their memory spaces.
    """
    read = 0
    for number, parameter in called.parameters.items():
        share = _bytes_read(module, called, parameter.name) / max(parameter.padded_bytes, 1)
        read += round(_operand_bytes([operands[number]]) * min(share, 1.0))
    root = called.root
    outputs = [called.by_name[o] for o in root.operands] if root.opcode == "tuple" else [root]
    if len(outputs) != len(results):
        return read, 0 if _is_free(root) or collective_kind(root) else _bytes_in_hbm(results)
    pairs = zip(outputs, results, strict=True)
    return read, sum(
        _bytes_written(module, called, out) for out, array in pairs if _is_in_hbm(array)
    )


def _bytes_read(module: Module, called: Computation, name: str) -> int:
    """Returns the bytes of an array that the instructions of a fused computation read."""
    total = 0
    for user in called.users[name]:
        positions = [i for i, operand in enumerate(user.operands) if operand == name]
        if user.opcode in _VIEWS or user.opcode == "get-tuple-element":
            total += _bytes_read(module, called, user.name)
        elif user.opcode in _SLICES and 0 in positions:
            total += user.padded_bytes
        elif user.opcode == "dynamic-update-slice" and positions == [0]:
            continue
        elif user.opcode == "scatter" and positions == [0]:
            total += called.operand(user, -1).padded_bytes
        elif user.opcode == "fusion":
            inner = module.computation(user.called[0])
            total += sum(_bytes_read(module, inner, inner.parameters[i].name) for i in positions)
        elif user.opcode == "tuple" or _is_free(user):
            continue  # Passed on.
        elif collective_kind(user) and user.config("async_collective_fusion_config") is not None:
            continue
        else:
            total += called.by_name[name].padded_bytes
    return total


def _bytes_written(module: Module, called: Computation, output: Instruction) -> int:
    """Returns the bytes that one result of a fused computation in HBM writes."""
    source = output
    while source.opcode in _VIEWS:
        source = called.operand(source)
    if _is_free(source):
        return 0  # Passed on in place.
    if source.opcode == "fusion":
        inner = module.computation(source.called[0])
        return _bytes_written(module, inner, inner.root)
    if source.opcode in _UPDATES and _update_target(called, source).opcode == "parameter":
        return called.operand(source, 1 if source.opcode[0] == "d" else -1).padded_bytes
    return output.padded_bytes


def _update_target(called: Computation, update: Instruction) -> Instruction:
    """Returns the array that an update writes into."""
    target = called.operand(update)
    while target.opcode in _VIEWS:
        target = called.operand(target)
    return target
