"""Memory usage of a step on a device, by consumer, from the compiler's buffer assignment."""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Mapping

from moe_jax.cost_model.named_scopes import component_of
from moe_jax.hlo.module import Computation, Instruction, Module

_ALLOCATION = re.compile(r"^allocation \d+: size (\d+), (.*):$")
_VALUE = re.compile(
    r"^\s+value: <\d+ ([\w.\-]+)(?:\{([\d,]*)\})?(?: \(phi\))? @\d+> \(size=\d+,offset=(\d+)\)"
)
_LIVE_BUFFER = re.compile(r"^\s+([\w.\-]+)\{([\d,]*)\}: (\d+) bytes")
# Instructions whose result is derived from one of their operands.
_PASS_THROUGH = frozenset(
    {"bitcast", "broadcast", "convert", "copy", "copy-done", "copy-start", "get-tuple-element"}
    | {"async-done", "async-start", "opt-barrier", "reshape", "slice", "transpose", "tuple"}
    | {"custom-call", "slice-done", "slice-start"}
)
_DEPTH = 16
_KEPT = ", kept of every layer"
_REST = "the rest"
# Suffix of the consumers in the heap of temporaries when it is fullest.
AT_PEAK = ", while the step runs"
PACKING, PADDING = "packing", "padding and results"


@dataclasses.dataclass(frozen=True)
class MemoryUsage:
    """Bytes of HBM on one device.

    Attributes:
        total: the program's buffers in HBM: arguments, results and the heap of temporaries.
        arguments: parameters, router state, optimiser state and batch, without padding.
        heap: the heap of temporaries.
        at_peak: live bytes of the heap when it is fullest, by the component that wrote them.
    """

    total: int
    arguments: Mapping[str, int]
    heap: int
    at_peak: Mapping[str, int]

    @property
    def parts(self) -> dict[str, int]:
        """Bytes by consumer: arguments, live temporaries at the peak, packing and padding.

        Packing is the difference between the heap and its live bytes at the peak: gaps between
        buffers with different live ranges. Padding is that of XLA's tiles in arguments and results.
        """
        temporaries = {f"{part}{AT_PEAK}": size for part, size in self.at_peak.items()}
        overhead = {
            f"{PACKING}{AT_PEAK}": self.heap - sum(self.at_peak.values()),
            PADDING: self.total - self.heap - sum(self.arguments.values()),
        }
        present = {what: size for what, size in overhead.items() if size > 0}
        return {**self.arguments, **temporaries, **present}

    @property
    def consumers(self) -> list[tuple[str, int]]:
        """Consumers and their bytes, in descending order."""
        return sorted(self.parts.items(), key=lambda item: -item[1])

    def largest(self, count: int) -> list[tuple[str, int]]:
        """Returns the largest consumers and their bytes."""
        return self.consumers[:count]


def read_memory_usage(
    buffer_assignment: str, live_ranges: str, arguments: Mapping[str, int], module: Module
) -> MemoryUsage:
    """Reads the memory usage from the texts of buffer assignment and live ranges.

    Args:
        buffer_assignment: of the compiler. Buffers in HBM count, except thread-local ones.
        live_ranges: of the compiler, with the live buffers at the peak, in all memories.
        arguments: bytes of the step's arguments on one device, by content.
        module: the program.

    Raises:
        ValueError: if the text is not a buffer assignment.
    """
    sizes, offsets = _allocations(buffer_assignment)
    if not sizes:
        raise ValueError("the compiler's buffer assignment has no allocation in HBM")
    owners = _BufferOwners(module)
    # By location, because a loop's parameter shares the memory of the array it was passed.
    found: dict[tuple[int, int], str] = {}
    for name, index, size in _live_at_peak(live_ranges):
        location = (offsets.get((name, index), -1), size)
        if location[0] >= 0 and found.get(location, _REST).startswith(_REST):
            owner = owners.owner(name, int(index.split(",")[0] or 0))
            found[location] = owner or "copies of the arguments"
    at_peak: Counter[str] = Counter()
    for (_, size), owner in found.items():
        at_peak[owner] += size
    return MemoryUsage(
        sum(sizes.values()), dict(arguments), sizes["heap"], dict(at_peak.most_common())
    )


def _allocations(buffer_assignment: str) -> tuple[Counter[str], dict[tuple[str, str], int]]:
    """Returns bytes in HBM, of the heap and of the rest, and offsets of the heap's buffers."""
    sizes: Counter[str] = Counter()
    offsets = {}
    is_heap = False
    for line in buffer_assignment.splitlines():
        if found := _ALLOCATION.match(line):
            # Allocations with a colour are in another memory.
            is_counted = "thread-local" not in found[2] and "color" not in found[2]
            is_heap = is_counted and "preallocated-temp" in found[2]
            if is_counted:
                sizes["heap" if is_heap else "rest"] += int(found[1])
        elif is_heap and (value := _VALUE.match(line)):
            offsets[value[1], value[2] or ""] = int(value[3])
    return sizes, offsets


def _live_at_peak(live_ranges: str) -> Iterator[tuple[str, str, int]]:
    """Yields name, index in its tuple and bytes of the buffers that are live at the peak."""
    _, _, after = live_ranges.partition("(peak):")
    for line in after.splitlines()[1:]:
        found = _LIVE_BUFFER.match(line)
        if not found:
            return
        yield found[1], found[2], int(found[3])


def _loops_using(
    computation: Computation, instruction: Instruction
) -> Iterator[tuple[Instruction, int]]:
    """Yields the loops that carry an array, and its index in their state."""
    reached = [instruction]
    for each in reached:
        for user in computation.users[each.name]:
            if user.opcode == "tuple":
                for loop in computation.users[user.name]:
                    if loop.opcode == "while":
                        yield loop, user.operands.index(each.name)
            elif user.opcode in _PASS_THROUGH and user not in reached:
                reached.append(user)


class _BufferOwners:
    """Model components that buffers belong to."""

    def __init__(self, module: Module):
        self.module = module
        self.computation_of = {
            instruction.name: computation for computation, instruction in module.walk()
        }
        # Loops and the computations that hold them, by the name of the loop's body.
        self.loops: dict[str, tuple[Computation, Instruction]] = {
            instruction.called_as("body"): (computation, instruction)
            for computation, instruction in module.walk()
            if instruction.opcode == "while"
        }

    def owner(self, name: str, index: int) -> str | None:
        """Returns the component of a buffer; None for an argument of the step."""
        computation = self.computation_of.get(name)
        if computation is None:
            return _REST
        return self._owner_of(computation, computation.by_name[name], index, _DEPTH)

    def _owner_of(
        self, computation: Computation, instruction: Instruction, index: int, depth: int
    ) -> str | None:
        opcode = instruction.opcode
        if opcode == "parameter" and computation.name == self.module.entry:
            return None
        if depth == 0:
            return _REST
        if opcode == "parameter" and computation.name in self.loops:
            return self._owner_of(*self.loops[computation.name], index, depth - 1)
        if opcode == "while":
            return self._carried(computation, instruction, index, depth - 1)
        component = component_of(instruction.op_name)
        if component:
            return component
        if opcode in ("broadcast", "custom-call"):
            # A buffer that a loop fills belongs to the component that writes it.
            for loop, position in _loops_using(computation, instruction):
                return self._carried(computation, loop, position, depth - 1)
        return self._owner_of_operands(computation, instruction, index, depth - 1)

    def _carried(
        self, computation: Computation, loop: Instruction, index: int, depth: int
    ) -> str | None:
        """Returns the owner of an element of a loop's state."""
        body = self.module.computation(loop.called_as("body"))
        root = body.root
        if root.opcode != "tuple" or index >= len(root.operands):
            return _REST
        source = body.by_name[root.operands[index]]
        if source.opcode == "get-tuple-element" and body.operand(source).opcode == "parameter":
            # The body passes the element through.
            initial = computation.operand(loop)
            if initial.opcode == "tuple" and index < len(initial.operands):
                inner = computation.by_name[initial.operands[index]]
                return self._owner_of(computation, inner, 0, depth) if depth else _REST
            return _REST
        found = self._owner_of(body, source, 0, depth) if depth else None
        return f"{(found or _REST).removesuffix(_KEPT)}{_KEPT}"

    def _owner_of_operands(
        self, computation: Computation, instruction: Instruction, index: int, depth: int
    ) -> str | None:
        if instruction.opcode == "get-tuple-element":
            index = int(instruction.attributes["index"])
        names = list(instruction.operands)
        if instruction.opcode in ("fusion", "dynamic-update-slice"):
            names = names[1:] + names[:1]  # The update before its target.
        elif instruction.opcode == "tuple":
            names = names[index : index + 1]
        elif instruction.opcode not in _PASS_THROUGH:
            return _REST
        found: list[str | None] = []
        for name in names:
            operand = computation.by_name[name]
            found.append(self._owner_of(computation, operand, index, depth) if depth else _REST)
            if not (found[-1] or _REST).startswith(_REST):
                return found[-1]
        # An argument of the step, possibly converted.
        is_copy = (
            instruction.opcode in _PASS_THROUGH and found and all(each is None for each in found)
        )
        return None if is_copy else _REST
