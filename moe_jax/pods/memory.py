"""How much of a chip's memory a step takes, and what for, from the compiler's buffers."""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Mapping

from moe_jax.pods.hlo import Computation, Instruction, Module
from moe_jax.pods.scopes import scope_of

_ALLOCATION = re.compile(r"^allocation \d+: size (\d+), (.*):$")
_VALUE = re.compile(
    r"^\s+value: <\d+ ([\w.\-]+)(?:\{([\d,]*)\})?(?: \(phi\))? @\d+> \(size=\d+,offset=(\d+)\)"
)
_ALIVE = re.compile(r"^\s+([\w.\-]+)\{([\d,]*)\}: (\d+) bytes")
# Instructions whose result is made of one of their operands.
_THROUGH = frozenset(
    {"bitcast", "broadcast", "convert", "copy", "copy-done", "copy-start", "get-tuple-element"}
    | {"async-done", "async-start", "opt-barrier", "reshape", "slice", "transpose", "tuple"}
    | {"custom-call", "slice-done", "slice-start"}
)
_DEPTH = 16
_KEPT = ", kept of every layer"
_REST = "the rest"
# Ends the names of what is there when the most is alive.
AT_PEAK = ", while the step runs"
PACKING, PADDING = "packing", "padding and results"


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes a chip.

    Attributes:
        total: the program's buffers in HBM: arguments, results and the heap of temporaries.
        arguments: parameters, router state, optimiser state and batch, without padding.
        heap: the heap of temporaries.
        at_peak: what is in the heap when it is fullest, by the part of the step that made it.
    """

    total: int
    arguments: Mapping[str, int]
    heap: int
    at_peak: Mapping[str, int]

    @property
    def parts(self) -> dict[str, int]:
        """Bytes of all arguments, of what is there at the peak, and of what lies between.

        Packing is what the heap has more than what is in it at its peak: gaps between buffers
        that are not alive together. Padding are XLA's tiles, of arguments and results.
        """
        made = {f"{part}{AT_PEAK}": size for part, size in self.at_peak.items()}
        between = {
            f"{PACKING}{AT_PEAK}": self.heap - sum(self.at_peak.values()),
            PADDING: self.total - self.heap - sum(self.arguments.values()),
        }
        return {**self.arguments, **made, **{k: size for k, size in between.items() if size > 0}}

    @property
    def rows(self) -> list[tuple[str, int]]:
        """The consumers and their bytes, the largest first."""
        return sorted(self.parts.items(), key=lambda item: -item[1])

    def largest(self, count: int) -> list[tuple[str, int]]:
        """Returns the largest consumers and their bytes."""
        return self.rows[:count]


def read_memory(buffers: str, live: str, arguments: Mapping[str, int], module: Module) -> Memory:
    """Reads the compiler's texts of its buffer assignment and live ranges.

    Args:
        buffers: the assignment; counted are the buffers in HBM that are not local to a thread.
        live: the live ranges, which list what is there at the peak, in all memories.
        arguments: bytes a chip of the step's arguments by what they hold.
        module: the program, which says what a buffer is of.

    Raises:
        ValueError: if it is no such text.
    """
    sizes, offsets = _allocated(buffers)
    if not sizes:
        raise ValueError("the compiler's buffer assignment has no allocation in HBM")
    owners = _Owners(module)
    # By place: a loop's parameter can be listed beside what it was given, which is the same memory.
    found: dict[tuple[int, int], str] = {}
    for name, index, size in _alive(live):
        place = (offsets.get((name, index), -1), size)
        if place[0] >= 0 and found.get(place, _REST).startswith(_REST):
            part = owners.part(name, int(index.split(",")[0] or 0))
            found[place] = part or "copies of the arguments"
    at_peak: Counter[str] = Counter()
    for (_, size), part in found.items():
        at_peak[part] += size
    parts = dict(at_peak.most_common())
    return Memory(sum(sizes.values()), dict(arguments), sizes["heap"], parts)


def _allocated(buffers: str) -> tuple[Counter[str], dict[tuple[str, str], int]]:
    """Returns bytes in HBM, of the heap and of the rest, and where the heap has its buffers."""
    sizes: Counter[str] = Counter()
    offsets = {}
    is_heap = False
    for line in buffers.splitlines():
        if found := _ALLOCATION.match(line):
            # Those with a colour are in another memory.
            is_counted = "thread-local" not in found[2] and "color" not in found[2]
            is_heap = is_counted and "preallocated-temp" in found[2]
            if is_counted:
                sizes["heap" if is_heap else "rest"] += int(found[1])
        elif is_heap and (value := _VALUE.match(line)):
            offsets[value[1], value[2] or ""] = int(value[3])
    return sizes, offsets


def _alive(live: str) -> Iterator[tuple[str, str, int]]:
    """Yields name, index in its tuple and bytes of the buffers that are alive at the peak."""
    _, _, after = live.partition("(peak):")
    for line in after.splitlines()[1:]:
        found = _ALIVE.match(line)
        if not found:
            return
        yield found[1], found[2], int(found[3])


def _loops_of(
    computation: Computation, instruction: Instruction
) -> Iterator[tuple[Instruction, int]]:
    """Yields the loops that an array goes into, and its place in their state."""
    reached = [instruction]
    for each in reached:
        for user in computation.users[each.name]:
            if user.opcode == "tuple":
                for loop in computation.users[user.name]:
                    if loop.opcode == "while":
                        yield loop, user.operands.index(each.name)
            elif user.opcode in _THROUGH and user not in reached:
                reached.append(user)


class _Owners:
    """Which part of the step a buffer belongs to."""

    def __init__(self, module: Module):
        self.module = module
        self.where = {instruction.name: computation for computation, instruction in module.walk()}
        # Of the body of a loop: where the loop stands.
        self.loops: dict[str, tuple[Computation, Instruction]] = {
            instruction.calls("body"): (computation, instruction)
            for computation, instruction in module.walk()
            if instruction.opcode == "while"
        }

    def part(self, name: str, index: int) -> str | None:
        """Returns the part; None for an argument of the step."""
        computation = self.where.get(name)
        if computation is None:
            return _REST
        return self._of(computation, computation.by_name[name], index, _DEPTH)

    def _of(
        self, computation: Computation, instruction: Instruction, index: int, depth: int
    ) -> str | None:
        opcode = instruction.opcode
        if opcode == "parameter" and computation.name == self.module.entry:
            return None
        if depth == 0:
            return _REST
        if opcode == "parameter" and computation.name in self.loops:
            return self._of(*self.loops[computation.name], index, depth - 1)
        if opcode == "while":
            return self._carried(computation, instruction, index, depth - 1)
        scope = scope_of(instruction.op_name)
        if scope:
            return scope
        if opcode in ("broadcast", "custom-call"):
            # What a loop fills belongs to what fills it.
            for loop, place in _loops_of(computation, instruction):
                return self._carried(computation, loop, place, depth - 1)
        return self._of_operands(computation, instruction, index, depth - 1)

    def _carried(
        self, computation: Computation, loop: Instruction, index: int, depth: int
    ) -> str | None:
        """Returns whose the element of a loop's state is."""
        body = self.module.computation(loop.calls("body"))
        root = body.root
        if root.opcode != "tuple" or index >= len(root.operands):
            return _REST
        source = body.by_name[root.operands[index]]
        if source.opcode == "get-tuple-element" and body.operand(source).opcode == "parameter":
            # It is handed on as it came.
            came = computation.operand(loop)
            if came.opcode == "tuple" and index < len(came.operands):
                inner = computation.by_name[came.operands[index]]
                return self._of(computation, inner, 0, depth) if depth else _REST
            return _REST
        found = self._of(body, source, 0, depth) if depth else None
        return f"{(found or _REST).removesuffix(_KEPT)}{_KEPT}"

    def _of_operands(
        self, computation: Computation, instruction: Instruction, index: int, depth: int
    ) -> str | None:
        if instruction.opcode == "get-tuple-element":
            index = int(instruction.attributes["index"])
        names = list(instruction.operands)
        if instruction.opcode in ("fusion", "dynamic-update-slice"):
            names = names[1:] + names[:1]  # What is written, before what it is written to.
        elif instruction.opcode == "tuple":
            names = names[index : index + 1]
        elif instruction.opcode not in _THROUGH:
            return _REST
        found: list[str | None] = []
        for name in names:
            operand = computation.by_name[name]
            found.append(self._of(computation, operand, index, depth) if depth else _REST)
            if not (found[-1] or _REST).startswith(_REST):
                return found[-1]
        # An argument of the step as it came, or converted.
        is_copy = instruction.opcode in _THROUGH and found and all(each is None for each in found)
        return None if is_copy else _REST
