"""HLO modules: computations and their instructions, in the order of the schedule."""

import dataclasses
import functools
import json
import re
from collections.abc import Iterator
from typing import Any

from moe_jax.errors import UserError
from moe_jax.hlo.lexer import parse_attributes
from moe_jax.hlo.shape import ArrayShape, Shape, leaves

_CALLED = (
    "calls",
    "to_apply",
    "body",
    "condition",
    "true_computation",
    "false_computation",
    "branch_computations",
    "called_computations",
    "select",
    "scatter",
)
# Opcodes that run the computations they call once, inline. With the suffix `-start` they are
# asynchronous.
_WRAPPERS = ("fusion", "call", "custom-call", "async")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
        name: without the percent sign.
        opcode: XLA's name, such as `fusion`.
        shape: of the result.
        operands: names of instructions of the same computation.
        literal: text between the parentheses of a constant or a parameter, else empty.
        attribute_text: unparsed text after the operands.
        is_root: whether its result is the computation's.
        line: number of its first line in the text, from 1.
    """

    name: str
    opcode: str
    shape: Shape
    operands: tuple[str, ...]
    literal: str = ""
    attribute_text: str = ""
    is_root: bool = False
    line: int = 0

    @property
    def is_wrapper(self) -> bool:
        """True if it runs the computations it calls once, inline.

        Examples are fusions, calls and asynchronous wrappers, whose opcode is `async-start` or, as
        in `call-start`, the wrapped opcode. A reduction, a sort or a collective runs its
        computation once for each element instead.
        """
        return self.opcode.removesuffix("-start") in _WRAPPERS

    @functools.cached_property
    def arrays(self) -> tuple[ArrayShape, ...]:
        """Shapes of the arrays of the result, in order."""
        return leaves(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes of the result."""
        return sum(array.bytes for array in self.arrays)

    @property
    def padded_bytes(self) -> int:
        """Bytes of the result in memory, the padding of tiled layouts included."""
        return sum(array.padded_bytes for array in self.arrays)

    @functools.cached_property
    def attributes(self) -> dict[str, str]:
        """Unparsed attributes by name."""
        return parse_attributes(self.attribute_text)

    @functools.cached_property
    def called(self) -> tuple[str, ...]:
        """Names of the called computations, without repeats, in the order of the attributes."""
        names: list[str] = []
        for key in _CALLED:
            text = self.attributes.get(key, "").strip("{} ")
            names += [name.strip().removeprefix("%") for name in text.split(",") if name.strip()]
        return tuple(dict.fromkeys(names))

    def called_as(self, attribute: str) -> str:
        """Returns the computation that an attribute such as `body` names, or an empty string."""
        return self.attributes.get(attribute, "").strip("{} ").removeprefix("%")

    @functools.cached_property
    def metadata(self) -> dict[str, str]:
        """Metadata such as `op_name`, `source_file` and `source_line`, unquoted."""
        text = self.attributes.get("metadata", "")
        pairs = re.findall(r'(\w+)=(?:"((?:[^"\\]|\\.)*)"|([^\s{}"]+))', text)
        return {key: quoted or plain for key, quoted, plain in pairs}

    @property
    def op_name(self) -> str:
        """JAX's name of the source operation, or an empty string."""
        return self.metadata.get("op_name", "")

    @functools.cached_property
    def backend_config(self) -> Any:
        """Backend configuration: parsed JSON, text that is not JSON as it is, or None."""
        text = self.attributes.get("backend_config")
        if text is None:
            return None
        try:
            parsed = json.loads(text)
            return json.loads(parsed) if isinstance(parsed, str) else parsed
        except json.JSONDecodeError:
            return text

    def config(self, *keys: str) -> Any:
        """Returns the value under nested keys of the backend configuration, or None."""
        value = self.backend_config
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    @property
    def estimated_cycles(self) -> int | None:
        """Cycles estimated by the code generator, None if unknown (written as 2^63 - 1)."""
        cycles = self.config("window_config", "estimated_cycles")
        cycles = self.config("estimated_cycles") if cycles is None else cycles
        return int(cycles) if cycles is not None and int(cycles) < 1 << 62 else None

    @property
    def custom_call_target(self) -> str:
        """Target of a custom call, or an empty string."""
        return self.attributes.get("custom_call_target", "").strip('"')


@dataclasses.dataclass(frozen=True)
class Computation:
    """A list of instructions, in execution order if the module is scheduled.

    Attributes:
        name: without the percent sign.
        instructions: in order.
    """

    name: str
    instructions: tuple[Instruction, ...]

    @functools.cached_property
    def by_name(self) -> dict[str, Instruction]:
        """Instructions by name."""
        return {instruction.name: instruction for instruction in self.instructions}

    @functools.cached_property
    def position(self) -> dict[str, int]:
        """Positions in `instructions` by name."""
        return {instruction.name: i for i, instruction in enumerate(self.instructions)}

    @functools.cached_property
    def root(self) -> Instruction:
        """Instruction that computes the result: the one marked ROOT, else the last."""
        marked = [instruction for instruction in self.instructions if instruction.is_root]
        return marked[-1] if marked else self.instructions[-1]

    @functools.cached_property
    def parameters(self) -> dict[int, Instruction]:
        """Parameters by number."""
        return {int(i.literal): i for i in self.instructions if i.opcode == "parameter"}

    @functools.cached_property
    def users(self) -> dict[str, tuple[Instruction, ...]]:
        """Instructions that read a result, by the name of its instruction."""
        users: dict[str, list[Instruction]] = {name: [] for name in self.by_name}
        for instruction in self.instructions:
            for operand in dict.fromkeys(instruction.operands):
                users.setdefault(operand, []).append(instruction)
        return {name: tuple(readers) for name, readers in users.items()}

    def operand(self, instruction: Instruction, index: int = 0) -> Instruction:
        """Returns the instruction of an operand.

        Raises:
            UserError: if it is not in this computation.
        """
        try:
            return self.by_name[instruction.operands[index]]
        except (IndexError, KeyError):
            raise UserError(
                f"HLO text, line {instruction.line}: operand {index} of {instruction.name} is "
                f"not in {self.name}"
            ) from None


@dataclasses.dataclass(frozen=True)
class Module:
    """A program.

    Attributes:
        name: such as `jit_step`.
        computations: by name, in the order of the text.
        entry: name of the entry computation.
        is_scheduled: whether instructions are in execution order.
        num_partitions: devices that one replica is partitioned over (SPMD).
        num_replicas: replicas of the partitioned program.
    """

    name: str
    computations: dict[str, Computation]
    entry: str
    is_scheduled: bool = False
    num_partitions: int = 1
    num_replicas: int = 1

    @property
    def num_devices(self) -> int:
        """Devices that run the program together."""
        return self.num_partitions * self.num_replicas

    def computation(self, name: str) -> Computation:
        """Returns the computation of a name.

        Raises:
            UserError: if it is not defined.
        """
        if name not in self.computations:
            raise UserError(f"HLO text: computation {name!r} is called but not defined")
        return self.computations[name]

    def walk(self) -> Iterator[tuple[Computation, Instruction]]:
        """Yields every instruction of every computation."""
        for computation in self.computations.values():
            for instruction in computation.instructions:
                yield computation, instruction

    def inlined(
        self, computation: Computation, instruction: Instruction, is_nested: bool = False
    ) -> Iterator[tuple[Computation, Instruction]]:
        """Yields the instructions that a scheduled instruction runs, with their computations.

        Those are the instruction itself or, for a wrapper, the instructions inside. A plain call is
        not expanded, because its computation is scheduled itself, unless another wrapper holds it.

        Args:
            computation: of the instruction.
            instruction: scheduled.
            is_nested: whether a wrapper holds the instruction.
        """
        is_expanded = is_nested or instruction.opcode != "call"
        if not (instruction.is_wrapper and instruction.called and is_expanded):
            yield computation, instruction
            return
        for name in instruction.called:
            called = self.computation(name)
            for inner in called.instructions:
                yield from self.inlined(called, inner, is_nested=True)
