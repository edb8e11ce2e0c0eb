"""A program as the TPU's compiler left it: computations, and their instructions in order.

Reads the text of an optimised, scheduled HLO module, as XLA writes it with `--xla_dump_to` (the
file `*after_optimizations.txt`) or as `compiled.as_text()` returns it. JAX is not needed.
"""

import dataclasses
import functools
import json
import re
from collections.abc import Iterator
from typing import Any

from moe_jax.errors import UserError
from moe_jax.pods.hlo_text import (
    Array,
    Shape,
    integers,
    leaves,
    logical_lines,
    matching,
    parse_attributes,
    parse_shape,
    split,
)

_HEADER = re.compile(r"(ENTRY\s+)?%?([\w.\-]+)\s*(?:\(.*)?\{\s*$", re.DOTALL)
_NAME = re.compile(r"\s+(ROOT\s+)?%?([\w.\-]+) = ")
_OPCODE = re.compile(r"\s*([a-z][\w\-]*)\(")
_SHAPE = re.compile(r"[a-z]\w*\[[^\]]*\](?:\{[^{}]*\})?")
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
# Opcodes that run the computations they call as a part of themselves, once; with `-start` behind
# them they are waited for later.
_WRAPPERS = ("fusion", "call", "custom-call", "async")
# What these hold between their parentheses is no list of operands.
_LITERALS = ("constant", "parameter")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
        name: without the percent sign.
        opcode: XLA's name, such as `fusion`.
        shape: of the result.
        operands: names of instructions of the same computation.
        literal: what a constant or a parameter has between its parentheses, else empty.
        attribute_text: everything after the operands, as it is written.
        is_root: whether its result is the computation's.
        line: where it begins in the text, from 1.
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
        """Whether it runs the computations it calls once, as a part of itself.

        So do fusions, calls and asynchronous wrappers, which are written as `async-start` or, as
        in `call-start`, with the opcode that they wrap. A reduction, a sort or a collective runs
        its computation once for each element instead.
        """
        return self.opcode.removesuffix("-start") in _WRAPPERS

    @functools.cached_property
    def arrays(self) -> tuple[Array, ...]:
        """The arrays of the result, in order."""
        return leaves(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes of the result."""
        return sum(array.bytes for array in self.arrays)

    @functools.cached_property
    def attributes(self) -> dict[str, str]:
        """Attributes as they are written, by name."""
        return parse_attributes(self.attribute_text)

    @functools.cached_property
    def called(self) -> tuple[str, ...]:
        """Names of the computations it calls, each once, in the order of the attributes."""
        names: list[str] = []
        for key in _CALLED:
            text = self.attributes.get(key, "").strip("{} ")
            names += [name.strip().removeprefix("%") for name in text.split(",") if name.strip()]
        return tuple(dict.fromkeys(names))

    def calls(self, key: str) -> str:
        """Returns the one computation of an attribute such as `body`, or an empty string."""
        return self.attributes.get(key, "").strip("{} ").removeprefix("%")

    @functools.cached_property
    def metadata(self) -> dict[str, str]:
        """The metadata, such as `op_name`, `source_file` and `source_line`, unquoted."""
        text = self.attributes.get("metadata", "")
        pairs = re.findall(r'(\w+)=(?:"((?:[^"\\]|\\.)*)"|([^\s{}"]+))', text)
        return {key: quoted or plain for key, quoted, plain in pairs}

    @property
    def op_name(self) -> str:
        """JAX's name of the operation it comes from, or an empty string."""
        return self.metadata.get("op_name", "")

    @functools.cached_property
    def backend_config(self) -> Any:
        """The compiler's own settings: parsed JSON, the text if it is none, None without any."""
        text = self.attributes.get("backend_config")
        if text is None:
            return None
        try:
            parsed = json.loads(text)
            return json.loads(parsed) if isinstance(parsed, str) else parsed
        except json.JSONDecodeError:
            return text

    def config(self, *keys: str) -> Any:
        """Returns what stands in the backend's settings under nested keys, or None."""
        value = self.backend_config
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    @property
    def estimated_cycles(self) -> int | None:
        """Cycles as the code generator estimates them; None where it does not say.

        It writes 2^63 - 1 for what it does not know.
        """
        cycles = self.config("window_config", "estimated_cycles")
        cycles = self.config("estimated_cycles") if cycles is None else cycles
        return int(cycles) if cycles is not None and int(cycles) < 1 << 62 else None

    @property
    def custom_call_target(self) -> str:
        """The kernel of a custom call, or an empty string."""
        return self.attributes.get("custom_call_target", "").strip('"')

    @property
    def dimensions(self) -> tuple[int, ...]:
        """The attribute `dimensions`, empty without it."""
        return integers(self.attributes.get("dimensions", ""))

    @property
    def control_predecessors(self) -> tuple[str, ...]:
        """Names of the instructions that have to come first though no data flows."""
        text = self.attributes.get("control-predecessors", "")
        return tuple(re.findall(r"[\w.\-]+", text))

    @property
    def channel_id(self) -> int | None:
        """The number of the channel, or None."""
        text = self.attributes.get("channel_id")
        return int(text) if text is not None else None


@dataclasses.dataclass(frozen=True)
class Computation:
    """A list of instructions, in the order in which they run if the module is scheduled.

    Attributes:
        name: without the percent sign.
        instructions: in order.
        is_entry: whether the program begins here.
    """

    name: str
    instructions: tuple[Instruction, ...]
    is_entry: bool = False

    @functools.cached_property
    def by_name(self) -> dict[str, Instruction]:
        """Instructions by their names."""
        return {instruction.name: instruction for instruction in self.instructions}

    @functools.cached_property
    def position(self) -> dict[str, int]:
        """Positions in `instructions` by name."""
        return {instruction.name: i for i, instruction in enumerate(self.instructions)}

    @functools.cached_property
    def root(self) -> Instruction:
        """The instruction whose result is the computation's: the last if none is marked."""
        marked = [instruction for instruction in self.instructions if instruction.is_root]
        return marked[-1] if marked else self.instructions[-1]

    @functools.cached_property
    def parameters(self) -> dict[int, Instruction]:
        """Parameters by their numbers."""
        return {int(i.literal): i for i in self.instructions if i.opcode == "parameter"}

    @functools.cached_property
    def users(self) -> dict[str, tuple[Instruction, ...]]:
        """The instructions that read a result, by its name."""
        users: dict[str, list[Instruction]] = {name: [] for name in self.by_name}
        for instruction in self.instructions:
            for operand in dict.fromkeys(instruction.operands):
                users.setdefault(operand, []).append(instruction)
        return {name: tuple(readers) for name, readers in users.items()}

    def operand(self, instruction: Instruction, index: int = 0) -> Instruction:
        """Returns the instruction that an operand names.

        Raises:
            UserError: if there is none.
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
        entry: name of the computation it begins with.
        is_scheduled: whether instructions stand in the order in which they run.
        partitions: devices that a program is cut over (SPMD).
        replicas: copies of that.
    """

    name: str
    computations: dict[str, Computation]
    entry: str
    is_scheduled: bool = False
    partitions: int = 1
    replicas: int = 1

    @property
    def devices(self) -> int:
        """Devices that run the program together."""
        return self.partitions * self.replicas

    def computation(self, name: str) -> Computation:
        """Returns a computation.

        Raises:
            UserError: if there is none of this name.
        """
        if name not in self.computations:
            raise UserError(f"HLO text: computation {name!r} is called but not defined")
        return self.computations[name]

    def walk(self) -> Iterator[tuple[Computation, Instruction]]:
        """Yields every instruction of every computation."""
        for computation in self.computations.values():
            for instruction in computation.instructions:
                yield computation, instruction


def parse_module(text: str) -> Module:
    """Parses the text of an HLO module.

    Raises:
        UserError: if the text is no HLO; the message names the line.
    """
    header: dict[str, str] = {}
    computations: dict[str, Computation] = {}
    entry, open_name, module_name = "", "", ""
    is_entry, body = False, list[Instruction]()
    for number, line in logical_lines(text):
        if line.startswith("HloModule"):
            module_name, _, rest = line.removeprefix("HloModule").strip().partition(",")
            header = parse_attributes(rest)
        elif open_name and line.startswith("}"):
            computations[open_name] = Computation(open_name, tuple(body), is_entry)
            open_name = ""
        elif open_name and line.strip():
            body.append(_instruction(line, number))
        elif not line[:1].isspace() and (match := _HEADER.match(line)):
            open_name, is_entry, body = match[2], bool(match[1]), []
            entry = open_name if is_entry else entry
    if open_name:
        raise UserError(f"HLO text ends inside the computation {open_name!r}")
    if not computations:
        raise UserError("no HLO text: line 1 should begin with HloModule, and computations follow")
    return Module(
        module_name.strip(),
        computations,
        entry or list(computations)[-1],
        header.get("is_scheduled") == "true",
        int(header.get("num_partitions", 1)),
        int(header.get("replica_count", 1)),
    )


def _instruction(line: str, number: int) -> Instruction:
    """Parses one instruction.

    Raises:
        UserError: if it is none; the message names the line.
    """
    match = _NAME.match(line)
    if not match:
        raise UserError(f"HLO text, line {number}: not an instruction: {line.strip()[:60]!r}")
    try:
        start = match.end()
        if line[start] == "(":
            end = matching(line, start) + 1
        elif shape_match := _SHAPE.match(line, start):
            end = shape_match.end()
        else:
            raise UserError("no shape")
        shape = parse_shape(line[start:end])
        opcode = _OPCODE.match(line, end)
        if not opcode:
            raise UserError("no opcode")
        close = matching(line, opcode.end() - 1)
    except (UserError, IndexError) as error:
        raise UserError(f"HLO text, line {number}: {match[2]}: {error}") from None
    inside = line[opcode.end() : close]
    is_literal = opcode[1] in _LITERALS
    return Instruction(
        name=match[2],
        opcode=opcode[1],
        shape=shape,
        operands=() if is_literal else tuple(_operand(piece) for piece in split(inside)),
        literal=inside.strip() if is_literal else "",
        attribute_text=line[close + 1 :],
        is_root=bool(match[1]),
        line=number,
    )


def _operand(text: str) -> str:
    """Returns the name in an operand, which may be written with its shape before it."""
    return text.rsplit(" ", 1)[-1].removeprefix("%")
