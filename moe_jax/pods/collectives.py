"""The collectives of a program: what is sent among which devices, and how often in a step.

Payload, by kind, of one run on one device:

- all-gather: bytes of the gathered result;
- reduce-scatter, all-reduce, all-to-all, collective-permute, collective-broadcast: bytes of the
  operands;
- ragged-all-to-all: bytes of the operand that is sent from, its static size.

Bytes on the wire are what a device has to send in a group of n: (n - 1) / n of the payload, twice
that for an all-reduce (Thakur et al. 2005, "Optimization of Collective Communication Operations in
MPICH", section 4), and for a permutation the payload times the share of devices that send.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from moe_jax.pods.device_groups import DeviceGroups, parse_groups, parse_pairs, spanned_axes
from moe_jax.pods.hlo import Computation, Instruction, Module
from moe_jax.pods.hlo_text import Array, leaves
from moe_jax.pods.loops import Runs

KINDS = (
    "all-to-all",
    "ragged-all-to-all",
    "all-gather",
    "reduce-scatter",
    "all-reduce",
    "collective-permute",
    "collective-broadcast",
)
_THROUGH = ("get-tuple-element", "bitcast", "tuple", "copy", "opt-barrier")


@dataclasses.dataclass(frozen=True, eq=False)
class Collective:
    """One collective.

    Attributes:
        kind: one of `KINDS`.
        name: of its instruction.
        computation: the scheduled computation in which it is started.
        start: position there of what starts it: itself, or the fusion or the asynchronous wrapper
            that holds it.
        done: position there of what waits for it; `start` if nothing can run meanwhile.
        groups: the devices that take part.
        devices: of the program.
        dtype: of the largest array that is sent.
        payload_bytes: of one run, see above.
        runs: in one step.
        op_name: JAX's name of what it comes from.
        is_offloaded: whether a SparseCore runs it.
        is_gather: whether it is an all-reduce of arrays that each device has filled with zeros but
            for its own part: what the compiler writes for an all-gather over a whole 3-D torus.
            Kind and bytes are those of the all-reduce.
    """

    kind: str
    name: str
    computation: str
    start: int
    done: int
    groups: DeviceGroups
    devices: int
    dtype: str
    payload_bytes: int
    runs: float
    op_name: str
    is_offloaded: bool = False
    is_gather: bool = False

    @property
    def wire_bytes(self) -> float:
        """Bytes that a device sends in one run, on average over the devices for a permutation."""
        if self.groups.pairs:
            return self.payload_bytes * self.groups.moved / max(self.devices, 1)
        n = self.groups.size
        factor = 2 if self.kind == "all-reduce" else 1
        return factor * self.payload_bytes * (n - 1) / n

    @property
    def is_async(self) -> bool:
        """Whether other instructions can run before its result is waited for."""
        return self.done > self.start

    def axes(self, mesh: np.ndarray, names: Sequence[str]) -> tuple[str, ...] | None:
        """Returns the mesh axes that it spans; see `spanned_axes`."""
        return spanned_axes(self.groups, mesh, names)


@dataclasses.dataclass(frozen=True)
class Row:
    """All collectives of a kind over the same mesh axes.

    Attributes:
        kind: one of `KINDS`.
        axes: names; None for groups that are those of no set of axes.
        count: runs in one step.
        payload_bytes: in one step, per device.
        wire_bytes: in one step, per device.
    """

    kind: str
    axes: tuple[str, ...] | None
    count: float
    payload_bytes: float
    wire_bytes: float


def find_collectives(module: Module, runs: Runs) -> list[Collective]:
    """Finds the collectives that a step runs, each once, in the order of the text.

    One that is written as two instructions, in an asynchronous wrapper, in a fusion, or in a chain
    of fusions that go on with it while they compute (continuation fusions) counts once, where it is
    started. An all-reduce of which a fusion keeps only the slice of this device is what the
    compiler writes for a reduce-scatter, and counts as one.

    Args:
        module: the program.
        runs: of its computations.
    """
    return [
        _collective(module, computation, start, inner, holder, times)
        for computation, start, instruction, times in runs.instructions(module)
        for inner, holder in _started(module, computation, instruction)
    ]


def kind_of(instruction: Instruction) -> str:
    """Returns which of `KINDS` an instruction runs or starts, or an empty string."""
    kind = instruction.opcode.removesuffix("-start")
    return kind if kind in KINDS else ""


def _started(
    module: Module, computation: Computation, instruction: Instruction, is_nested: bool = False
) -> Iterator[tuple[Instruction, Computation]]:
    """Yields the collectives that an instruction runs or starts, with where they stand.

    What a plain call reaches is scheduled itself, unless the call stands in another wrapper.
    """
    if kind_of(instruction):
        yield instruction, computation
    elif instruction.is_wrapper and (is_nested or instruction.opcode != "call"):
        for name in instruction.called:
            called = module.computation(name)
            for inner in called.instructions:
                for collective, holder in _started(module, called, inner, is_nested=True):
                    if not _continues(holder, collective):
                        yield collective, holder


def _continues(holder: Computation, collective: Instruction) -> bool:
    """Returns whether a fusion only goes on with, or waits for, what another one has started."""
    if collective.config("async_collective_fusion_config") is None:
        return False
    return not any(
        user.custom_call_target == "AsyncCollectiveStart" for user in holder.users[collective.name]
    )


def _collective(
    module: Module,
    computation: Computation,
    start: int,
    inner: Instruction,
    holder: Computation,
    runs: float,
) -> Collective:
    kind = kind_of(inner)
    outer = computation.instructions[start]
    pairs = inner.attributes.get("source_target_pairs")
    if pairs is not None:
        groups = parse_pairs(pairs)
    else:
        text = inner.attributes.get("replica_groups", "{}")
        listed = inner.attributes.get("device_ids")
        text = f"{text}, device_ids={listed}" if listed else text
        groups = parse_groups(text, module.devices)
    if kind == "all-reduce" and _keeps_one_slice(holder, inner, groups.size):
        kind = "reduce-scatter"
    arrays = _sent(holder, inner)
    return Collective(
        kind=kind,
        name=inner.name,
        computation=computation.name,
        start=start,
        done=_done(module, computation, start),
        groups=groups,
        devices=module.devices,
        dtype=max(arrays, key=lambda array: array.bytes).dtype if arrays else "",
        payload_bytes=sum(array.bytes for array in arrays),
        runs=runs,
        op_name=inner.op_name or outer.op_name or _name_of_user(computation, outer),
        is_offloaded="sparsecore" in outer.attributes.get("async_execution_thread", ""),
        is_gather=kind == "all-reduce"
        and holder is computation
        and all(_fills_zeros(module, holder, name) for name in inner.operands),
    )


def _name_of_user(computation: Computation, instruction: Instruction) -> str:
    """Returns JAX's name of what reads a result first, for what the compiler left unnamed."""
    reached = [instruction]
    for each in reached:
        for user in computation.users[each.name]:
            if user.op_name:
                return user.op_name
            if user.opcode in (*_THROUGH, "copy-start", "copy-done"):
                reached.append(user)
    return ""


def _fills_zeros(module: Module, computation: Computation, name: str) -> bool:
    """Returns whether an array is zeros into which one part is written."""
    source = computation.by_name[name]
    while source.opcode in (*_THROUGH, "copy-start", "copy-done"):
        if source.opcode in ("get-tuple-element", "tuple"):
            return False
        source = computation.operand(source)
    target = None
    if source.opcode == "dynamic-update-slice":
        target = computation.operand(source)
    elif source.opcode == "fusion":
        called = module.computation(source.called[0])
        if called.root.opcode == "dynamic-update-slice":
            target = called.operand(called.root)
            if target.opcode == "parameter":
                target = computation.operand(source, int(target.literal))
    return target is not None and target.opcode == "broadcast"


def _sent(holder: Computation, inner: Instruction) -> Sequence[Array]:
    """Returns the arrays whose bytes are the payload."""
    if inner.opcode == "all-gather":
        return inner.arrays
    if inner.opcode == "all-gather-start":  # A tuple of operands and of results.
        return inner.arrays if isinstance(inner.shape, Array) else leaves(inner.shape[1])
    count = 1 if kind_of(inner) == "ragged-all-to-all" else len(inner.operands)
    return [array for i in range(count) for array in holder.operand(inner, i).arrays]


def _keeps_one_slice(holder: Computation, inner: Instruction, size: int) -> bool:
    if inner.opcode != "all-reduce" or holder.root.opcode != "dynamic-slice" or size == 1:
        return False
    users = holder.users[inner.name]
    return list(users) == [holder.root] and holder.root.bytes * size == inner.bytes


def _done(module: Module, computation: Computation, start: int) -> int:
    """Returns the position of what waits for a collective that is started at a position."""
    first = computation.instructions[start]
    position = computation.position
    if first.opcode == "fusion":
        return _end_of_chain(module, computation, start)
    if not first.opcode.endswith("-start"):
        return start
    reached = [first.name]
    for name in reached:
        for user in computation.users[name]:
            if user.opcode.endswith("-done"):
                return position[user.name]
            goes_on = user.opcode in _THROUGH or user.opcode.endswith("-update")
            if goes_on and user.name not in reached:
                reached.append(user.name)
    return start


def _end_of_chain(module: Module, computation: Computation, start: int) -> int:
    """Returns the position of the fusion that waits for a collective that a fusion started.

    Fusions between hand on what they do not compute themselves, as `output_to_operand_aliasing`
    says.
    """
    first = computation.instructions[start]
    if "AsyncCollectiveStart" not in _targets(module, first):
        return start
    elements = {first.name: set(_elements(module, first))}
    reached = [first.name]
    for name in reached:
        for user in computation.users[name]:
            if user.name in elements:
                continue
            if user.opcode == "get-tuple-element":
                handed = {0} if int(user.attributes["index"]) in elements[name] else set()
            elif user.opcode == "fusion":
                if "AsyncCollectiveDone" in _targets(module, user):
                    return computation.position[user.name]
                handed = _handed_on(user, {i for i, o in enumerate(user.operands) if o == name})
            else:
                handed = {0} if user.opcode in _THROUGH else set()
            if handed:
                elements[user.name] = handed
                reached.append(user.name)
    return start


def _elements(module: Module, fusion: Instruction) -> Iterable[int]:
    """Returns which elements of a fusion's result belong to the collective that it starts."""
    root = module.computation(fusion.called[0]).root
    if root.custom_call_target == "AsyncCollectiveStart":
        return range(len(fusion.arrays))
    computation = module.computation(fusion.called[0])
    belongs = []
    for i, name in enumerate(root.operands):
        source = computation.by_name[name]
        if source.opcode == "get-tuple-element":
            source = computation.operand(source)
        if source.custom_call_target == "AsyncCollectiveStart":
            belongs.append(i)
    return belongs


def _targets(module: Module, fusion: Instruction) -> set[str]:
    return {
        inner.custom_call_target
        for name in fusion.called
        for inner in module.computation(name).instructions
        if inner.opcode == "custom-call"
    }


def _handed_on(fusion: Instruction, operands: set[int]) -> set[int]:
    """Returns the elements of a fusion's result that are some of its operands, in place."""
    text = fusion.attributes.get("output_to_operand_aliasing", "")
    handed = set()
    for piece in text.strip("{}").split("{"):
        numbers = [part.strip(" {},()") for part in piece.split(":")]
        if len(numbers) == 2 and numbers[1].split(",")[0].isdigit():
            output, operand = numbers[0], int(numbers[1].split(",")[0])
            if operand in operands:
                handed.add(int(output or 0))
    return handed


def summarise(
    collectives: Iterable[Collective], mesh: np.ndarray, names: Sequence[str]
) -> list[Row]:
    """Adds up collectives by kind and mesh axes, the most bytes on the wire first.

    Args:
        collectives: of a program.
        mesh: device ids by their coordinates (see `spanned_axes`).
        names: of the mesh axes.
    """
    totals: dict[tuple[str, tuple[str, ...] | None], np.ndarray] = {}
    cached: dict[int, tuple[str, ...] | None] = {}
    for each in collectives:
        if id(each.groups) not in cached:
            cached[id(each.groups)] = each.axes(mesh, names)
        row = np.array([1.0, each.payload_bytes, each.wire_bytes]) * each.runs
        key = (each.kind, cached[id(each.groups)])
        totals[key] = totals.get(key, np.zeros(3)) + row
    rows = [Row(kind, axes, *map(float, total)) for (kind, axes), total in totals.items()]
    return sorted(rows, key=lambda row: -row.wire_bytes)
