"""Bytes that each scheduled instruction reads from and writes to HBM.

Arrays that the compiler keeps in another memory (VMEM, the common memory of v4, the host's) do not
count on their side, nor does what a collective moves while other fusions go on with it
(continuation fusions). The rules follow XLA's `HloCostAnalysis` in that a slice reads what it takes
and an update in place writes what it brings, inside fusions too; tiles' padding is not counted.
Source: https://github.com/openxla/xla/blob/main/xla/service/hlo_cost_analysis.cc.
"""

import dataclasses

from moe_jax.pods.collectives import kind_of
from moe_jax.pods.hlo import Computation, Instruction, Module
from moe_jax.pods.hlo_flops import NO_KERNELS
from moe_jax.pods.hlo_text import Array, leaves
from moe_jax.pods.loops import Runs

# No bytes move, or they are counted with other instructions.
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
_SLICES = frozenset({"dynamic-slice", "slice", "gather"})
_VIEWS = frozenset({"bitcast", "reshape"})
_UPDATES = frozenset({"dynamic-update-slice", "scatter"})


@dataclasses.dataclass(frozen=True)
class Traffic:
    """HBM traffic of one scheduled instruction.

    Attributes:
        name: of the instruction.
        opcode: its opcode.
        computation: where it stands.
        position: there.
        op_name: JAX's name of it.
        read: bytes from HBM in one run.
        written: bytes to HBM in one run.
        runs: in one step.
        estimated_cycles: of one run, as the code generator sees it; None if it does not say.
    """

    name: str
    opcode: str
    computation: str
    position: int
    op_name: str
    read: int
    written: int
    runs: float
    estimated_cycles: int | None

    @property
    def bytes(self) -> int:
        """Bytes in one run, both ways."""
        return self.read + self.written


def find_traffic(module: Module, runs: Runs) -> list[Traffic]:
    """Lists the instructions that a step runs, with their HBM traffic, in the order of the text.

    Instructions that move nothing, and loops and calls, whose insides are listed, are left out.
    What is started and waited for counts where it is started.

    Args:
        module: the program.
        runs: of its computations.
    """
    found = []
    for computation, position, instruction, times in runs.instructions(module):
        if _is_free(instruction):
            continue
        read, written = instruction_bytes(module, computation, instruction)
        found.append(
            Traffic(
                name=instruction.name,
                opcode=instruction.opcode,
                computation=computation.name,
                position=position,
                op_name=instruction.op_name,
                read=read,
                written=written,
                runs=times,
                estimated_cycles=instruction.estimated_cycles,
            )
        )
    return found


def _is_free(instruction: Instruction) -> bool:
    if instruction.opcode in _FREE:
        return True
    if instruction.opcode == "custom-call":
        return instruction.custom_call_target in NO_KERNELS
    return instruction.opcode.endswith(("-done", "-update"))


def instruction_bytes(
    module: Module, computation: Computation, instruction: Instruction
) -> tuple[int, int]:
    """Returns the bytes that one run of an instruction reads from HBM and writes to it."""
    opcode = instruction.opcode
    operands = [computation.by_name[name] for name in instruction.operands]
    if opcode == "fusion":
        called = module.computation(instruction.called[0])
        return _body_bytes(module, called, operands, instruction.arrays)
    if instruction.is_wrapper and opcode.endswith("-start") and len(instruction.called) == 1:
        return _wrapped_bytes(module, operands, instruction)
    results = _results(instruction)
    if opcode in _SLICES:
        taken = sum(array.bytes for array in results)
        read = taken if _in_hbm(operands[0].arrays[0]) else 0
        return read + _hbm_bytes(operands[1:]), _sum(results)
    if opcode in _UPDATES:
        update = operands[1] if opcode == "dynamic-update-slice" else operands[-1]
        moved = update.bytes if _in_hbm(results[0]) else 0
        again = moved if opcode == "scatter" else 0  # It adds to what is there.
        return _hbm_bytes(operands[1:]) + again, moved
    return _hbm_bytes(operands), _sum(results)


def _results(instruction: Instruction) -> tuple[Array, ...]:
    """Returns the arrays that are written: of a `-start`, those that are not operands."""
    shape = instruction.shape
    if instruction.opcode == "copy-start" and not isinstance(shape, Array):
        return leaves(shape[0])  # The target; then the source.
    paired = instruction.opcode.endswith("-start") and instruction.opcode != "all-reduce-start"
    if paired and not isinstance(shape, Array):
        return leaves(shape[1])  # The operands stand before.
    return instruction.arrays


def _in_hbm(array: Array) -> bool:
    return array.memory_space == 0


def _sum(arrays: tuple[Array, ...]) -> int:
    return sum(array.bytes for array in arrays if _in_hbm(array))


def _hbm_bytes(instructions: list[Instruction]) -> int:
    return sum(_sum(instruction.arrays) for instruction in instructions)


def _wrapped_bytes(
    module: Module, operands: list[Instruction], instruction: Instruction
) -> tuple[int, int]:
    """Returns the bytes of the computation in an asynchronous wrapper, the innermost if nested."""
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
    results: tuple[Array, ...],
) -> tuple[int, int]:
    """Returns the bytes that a fused computation reads of its operands, and writes.

    Args:
        module: the program.
        called: the fused computation.
        operands: of the fusion.
        results: of the fusion; they know their memory.
    """
    read = 0
    for number, parameter in called.parameters.items():
        share = _read(module, called, parameter.name) / max(parameter.bytes, 1)
        read += round(_hbm_bytes([operands[number]]) * min(share, 1.0))
    root = called.root
    outputs = [called.by_name[o] for o in root.operands] if root.opcode == "tuple" else [root]
    if len(outputs) != len(results):
        return read, 0 if _is_free(root) or kind_of(root) else _sum(results)
    pairs = zip(outputs, results, strict=True)
    return read, sum(_written(module, called, out) for out, array in pairs if _in_hbm(array))


def _read(module: Module, called: Computation, name: str) -> int:
    """Returns how many bytes of an array the instructions of a fused computation read."""
    total = 0
    for user in called.users[name]:
        places = [i for i, operand in enumerate(user.operands) if operand == name]
        if user.opcode in _VIEWS or user.opcode == "get-tuple-element":
            total += _read(module, called, user.name)
        elif user.opcode in _SLICES and 0 in places:
            total += user.bytes
        elif user.opcode == "dynamic-update-slice" and places == [0]:
            continue
        elif user.opcode == "scatter" and places == [0]:
            total += called.operand(user, -1).bytes
        elif user.opcode == "fusion":
            inner = module.computation(user.called[0])
            total += sum(_read(module, inner, inner.parameters[i].name) for i in places)
        elif user.opcode == "tuple" or _is_free(user):
            continue  # Handed on.
        elif kind_of(user) and user.config("async_collective_fusion_config") is not None:
            continue
        else:
            total += called.by_name[name].bytes
    return total


def _written(module: Module, called: Computation, output: Instruction) -> int:
    """Returns the bytes that one result of a fused computation writes, if it is in HBM."""
    source = output
    while source.opcode in _VIEWS:
        source = called.operand(source)
    if _is_free(source):
        return 0  # Handed on in place.
    if source.opcode == "fusion":
        inner = module.computation(source.called[0])
        return _written(module, inner, inner.root)
    if source.opcode in _UPDATES and _base(called, source).opcode == "parameter":
        return called.operand(source, 1 if source.opcode[0] == "d" else -1).bytes
    return output.bytes


def _base(called: Computation, update: Instruction) -> Instruction:
    """Returns what an update writes into."""
    place = called.operand(update)
    while place.opcode in _VIEWS:
        place = called.operand(place)
    return place
