"""Collectives of a program: kinds, replica groups, payloads and executions in one step.

Payload, by kind, of one execution on one device:

- all-gather: bytes of the gathered result;
- reduce-scatter, all-reduce, all-to-all, collective-permute, collective-broadcast: bytes of the
  operands;
- ragged-all-to-all: bytes of the send operand, its static size.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from moe_jax.hlo.execution_counts import ExecutionCounts
from moe_jax.hlo.module import Computation, Instruction, Module
from moe_jax.hlo.replica_groups import (
    ReplicaGroups,
    parse_replica_groups,
    parse_source_target_pairs,
    spanned_mesh_axes,
)
from moe_jax.hlo.shape import ArrayShape, leaves

COLLECTIVE_KINDS = (
    "all-to-all",
    "ragged-all-to-all",
    "all-gather",
    "reduce-scatter",
    "all-reduce",
    "collective-permute",
    "collective-broadcast",
)
_PASS_THROUGH = ("get-tuple-element", "bitcast", "tuple", "copy", "opt-barrier")


@dataclasses.dataclass(frozen=True, eq=False)
class Collective:
    """One collective.

    Attributes:
        kind: one of `COLLECTIVE_KINDS`.
        computation: name of the scheduled computation in which it starts.
        start: position there of the instruction that starts it: itself, or the fusion or the
            asynchronous wrapper that holds it.
        done: position there of the instruction that waits for it; `start` if it is synchronous.
        groups: the participating devices.
        dtype: of the largest array that is sent.
        payload_bytes: of one execution, as defined above.
        executions: in one step.
        is_gather: whether it is an all-reduce of zeros into which each device has written its own
            shard. The compiler writes an all-gather over a whole 3-D torus so. Kind and bytes are
            those of the all-reduce.
    """

    kind: str
    computation: str
    start: int
    done: int
    groups: ReplicaGroups
    dtype: str
    payload_bytes: int
    executions: float
    is_gather: bool = False

    @property
    def is_async(self) -> bool:
        """True if other instructions can run before its result is waited for."""
        return self.done > self.start

    def mesh_axes(self, mesh: np.ndarray, names: Sequence[str]) -> tuple[str, ...] | None:
        """Returns the mesh axes that it spans; see `spanned_mesh_axes`."""
        return spanned_mesh_axes(self.groups, mesh, names)


def find_collectives(module: Module, counts: ExecutionCounts) -> list[Collective]:
    """Finds the collectives of a step, each once, in the order of the text.

    A collective that is written as two instructions, in an asynchronous wrapper, in a fusion, or in
    a chain of fusions that continue it while they compute (continuation fusions) counts once, where
    it starts. An all-reduce of which a fusion keeps only the slice of the local device counts as a
    reduce-scatter, for which the compiler writes it.

    Args:
        module: the program.
        counts: executions of its computations.
    """
    return [
        _collective(module, (computation, start), (holder, inner), executions)
        for computation, start, instruction, executions in counts.instructions(module)
        for holder, inner in module.inlined(computation, instruction)
        if collective_kind(inner) and (inner is instruction or not _is_continuation(holder, inner))
    ]


def collective_kind(instruction: Instruction) -> str:
    """Returns the kind of collective that an instruction runs or starts, or an empty string."""
    kind = instruction.opcode.removesuffix("-start")
    return kind if kind in COLLECTIVE_KINDS else ""


def _is_continuation(holder: Computation, collective: Instruction) -> bool:
    """Returns whether a fusion continues, or waits for, a collective that another one started."""
    if collective.config("async_collective_fusion_config") is None:
        return False
    return not any(
        user.custom_call_target == "AsyncCollectiveStart" for user in holder.users[collective.name]
    )


def _collective(
    module: Module,
    scheduled: tuple[Computation, int],
    found: tuple[Computation, Instruction],
    executions: float,
) -> Collective:
    """Returns a collective by its scheduled position and by its own instruction."""
    (computation, start), (holder, inner) = scheduled, found
    groups = _replica_groups(inner, module.num_devices)
    kind = collective_kind(inner)
    if kind == "all-reduce" and _keeps_one_slice(holder, inner, groups.size):
        kind = "reduce-scatter"
    arrays = _sent_arrays(holder, inner)
    return Collective(
        kind=kind,
        computation=computation.name,
        start=start,
        done=_done_position(module, computation, start),
        groups=groups,
        dtype=max(arrays, key=lambda array: array.bytes).dtype if arrays else "",
        payload_bytes=sum(array.bytes for array in arrays),
        executions=executions,
        is_gather=kind == "all-reduce"
        and holder is computation
        and all(_is_zeros_with_shard(module, holder, name) for name in inner.operands),
    )


def _replica_groups(instruction: Instruction, num_devices: int) -> ReplicaGroups:
    pairs = instruction.attributes.get("source_target_pairs")
    if pairs is not None:
        return parse_source_target_pairs(pairs)
    text = instruction.attributes.get("replica_groups", "{}")
    device_ids = instruction.attributes.get("device_ids")
    text = f"{text}, device_ids={device_ids}" if device_ids else text
    return parse_replica_groups(text, num_devices)


def _is_zeros_with_shard(module: Module, computation: Computation, name: str) -> bool:
    """Returns whether an array is a broadcast into which one shard is written."""
    source = computation.by_name[name]
    while source.opcode in (*_PASS_THROUGH, "copy-start", "copy-done"):
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


def _sent_arrays(holder: Computation, inner: Instruction) -> Sequence[ArrayShape]:
    """Returns the arrays of the payload."""
    if inner.opcode == "all-gather":
        return inner.arrays
    if inner.opcode == "all-gather-start":  # A tuple of operands and of results.
        return inner.arrays if isinstance(inner.shape, ArrayShape) else leaves(inner.shape[1])
    count = 1 if collective_kind(inner) == "ragged-all-to-all" else len(inner.operands)
    return [array for i in range(count) for array in holder.operand(inner, i).arrays]


def _keeps_one_slice(holder: Computation, inner: Instruction, size: int) -> bool:
    if inner.opcode != "all-reduce" or holder.root.opcode != "dynamic-slice" or size == 1:
        return False
    users = holder.users[inner.name]
    return list(users) == [holder.root] and holder.root.bytes * size == inner.bytes


def _done_position(module: Module, computation: Computation, start: int) -> int:
    """Returns the position of the instruction that waits for a collective started at `start`."""
    first = computation.instructions[start]
    position = computation.position
    if first.opcode == "fusion":
        return _chain_end(module, computation, start)
    if not first.opcode.endswith("-start"):
        return start
    reached = [first.name]
    for name in reached:
        for user in computation.users[name]:
            if user.opcode.endswith("-done"):
                return position[user.name]
            continues = user.opcode in _PASS_THROUGH or user.opcode.endswith("-update")
            if continues and user.name not in reached:
                reached.append(user.name)
    return start


def _chain_end(module: Module, computation: Computation, start: int) -> int:
    """Returns the position of the fusion that waits for a collective that a fusion started.

    The fusions between pass the collective's buffers on, by `output_to_operand_aliasing`.
    """
    first = computation.instructions[start]
    if "AsyncCollectiveStart" not in _custom_call_targets(module, first):
        return start
    elements = {first.name: set(_collective_elements(module, first))}
    reached = [first.name]
    for name in reached:
        for user in computation.users[name]:
            if user.name in elements:
                continue
            if user.opcode == "get-tuple-element":
                aliased = {0} if int(user.attributes["index"]) in elements[name] else set()
            elif user.opcode == "fusion":
                if "AsyncCollectiveDone" in _custom_call_targets(module, user):
                    return computation.position[user.name]
                aliased = _aliased_outputs(
                    user, {i for i, o in enumerate(user.operands) if o == name}
                )
            else:
                aliased = {0} if user.opcode in _PASS_THROUGH else set()
            if aliased:
                elements[user.name] = aliased
                reached.append(user.name)
    return start


def _collective_elements(module: Module, fusion: Instruction) -> Iterable[int]:
    """Returns the indices of a fusion's results that belong to the collective it starts."""
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


def _custom_call_targets(module: Module, fusion: Instruction) -> set[str]:
    return {
        inner.custom_call_target
        for name in fusion.called
        for inner in module.computation(name).instructions
        if inner.opcode == "custom-call"
    }


def _aliased_outputs(fusion: Instruction, operands: set[int]) -> set[int]:
    """Returns the indices of a fusion's results that alias some of its operands."""
    text = fusion.attributes.get("output_to_operand_aliasing", "")
    aliased = set()
    for piece in text.strip("{}").split("{"):
        numbers = [part.strip(" {},()") for part in piece.split(":")]
        if len(numbers) == 2 and numbers[1].split(",")[0].isdigit():
            output, operand = numbers[0], int(numbers[1].split(",")[0])
            if operand in operands:
                aliased.add(int(output or 0))
    return aliased
