"""The groups of devices that a collective joins, and the mesh axes that they span.

A device is named here by its position in the program's device assignment, which for a program
that JAX cut over a mesh (SPMD) is its position in `mesh.devices.flatten()`.

Source of the text forms: `xla/hlo/ir/collective_device_list.h`, `xla/hlo/ir/tile_assignment.h`
and `xla/hlo/ir/replica_group.h` in https://github.com/openxla/xla.
"""

import dataclasses
import functools
import itertools
import math
import re
from collections.abc import Sequence

import numpy as np

from moe_jax.errors import UserError
from moe_jax.pods.hlo_text import integers, matching

_IOTA = re.compile(r"\[([\d,\s]+)\](?:<=\[([\d,\s]+)\])?(?:T\(([\d,\s]+)\))?")
_AXIS_SIZE = re.compile(r"'([^']*)'=(\d+)")
_AXIS = re.compile(r"'([^']*)'(?::\((\d+)\)(\d+))?")


@dataclasses.dataclass(frozen=True, eq=False)
class DeviceGroups:
    """Groups of devices.

    Attributes:
        members: device ids, int64 [groups, size]; -1 fills up a group smaller than the largest.
        pairs: whether each row is a pair of a source and a target, as in a permutation.
    """

    members: np.ndarray
    pairs: bool = False

    @property
    def size(self) -> int:
        """Devices of the largest group; for pairs 2, or 1 if no device sends to another."""
        if self.pairs:
            return 2 if self.moved else 1
        return int(self.members.shape[1]) if self.members.size else 1

    @property
    def moved(self) -> int:
        """Pairs whose source is not their target."""
        return int((self.members[:, 0] != self.members[:, 1]).sum()) if self.pairs else 0

    @functools.cached_property
    def key(self) -> tuple[tuple[int, ...], ...]:
        """The same groups in a normal order, without fillings."""
        rows = (tuple(int(i) for i in row if i >= 0) for row in self.members)
        return tuple(sorted(row if self.pairs else tuple(sorted(row)) for row in rows))


@functools.lru_cache(maxsize=4096)
def parse_groups(text: str, devices: int) -> DeviceGroups:
    """Parses the attribute `replica_groups`.

    Understood are lists (`{{0,1},{2,3}}`), rearranged counts (`[2,4]<=[4,2]T(1,0)`) and axes of a
    named mesh (`mesh['a'=2,'b'=4] {'a'}`, with parts of axes `'b':(2)2` and with
    `device_ids=([4,2]T(1,0))` before the axes).

    Args:
        text: as it is written.
        devices: of the program; an empty list is one group of them all.

    Raises:
        UserError: if the text is none of these.
    """
    text = text.strip()
    if text.startswith("mesh["):
        return DeviceGroups(_of_named_axes(text))
    if text.startswith("["):
        return DeviceGroups(_rearranged(text))
    if text.startswith("{"):
        rows = [integers(row) for row in re.findall(r"\{([^{}]*)\}", text)]
        rows = [row for row in rows if row]
        return DeviceGroups(_padded(rows or [tuple(range(devices))]))
    raise UserError(f"not a list of replica groups: {text[:60]!r}")


@functools.lru_cache(maxsize=4096)
def parse_pairs(text: str) -> DeviceGroups:
    """Parses the attribute `source_target_pairs`, such as `{{0,1},{1,0}}`."""
    return DeviceGroups(np.array(integers(text), np.int64).reshape(-1, 2), pairs=True)


def _padded(rows: Sequence[tuple[int, ...]]) -> np.ndarray:
    width = max(len(row) for row in rows)
    return np.array([row + (-1,) * (width - len(row)) for row in rows], np.int64)


def _rearranged(text: str) -> np.ndarray:
    """Returns the ids of `[groups,size]<=[dims]T(axes)`: counted over dims, transposed, cut."""
    match = _IOTA.match(text)
    if not match:
        raise UserError(f"not a list of replica groups: {text[:60]!r}")
    shape = integers(match[1])
    dims = integers(match[2]) if match[2] else shape
    ids = np.arange(math.prod(dims)).reshape(dims)
    if match[3]:
        ids = ids.transpose(integers(match[3]))
    return ids.reshape(shape)


def _of_named_axes(text: str) -> np.ndarray:
    """Returns the groups along some axes of a mesh, whose parts count from the major side."""
    close = matching(text, 4)
    sizes = {name: int(size) for name, size in _AXIS_SIZE.findall(text[4:close])}
    rest = text[close + 1 :]
    ids = np.arange(math.prod(sizes.values()))
    if "device_ids=" in rest:
        start = rest.index("(")
        listed = rest[start + 1 : matching(rest, start)]
        ids = _rearranged(listed) if listed.startswith("[") else np.array(integers(listed))
    chosen = {name: (pre, size) for name, pre, size in _AXIS.findall(rest[rest.index("{") :])}
    parts: list[tuple[int, bool]] = []
    split_axes: dict[str, list[tuple[int, int]]] = {}
    for name, pre, size in _AXIS.findall(rest[rest.index("{") :]):
        whole = sizes.get(name, 1)
        split_axes.setdefault(name, []).append((int(pre or 1), int(size or whole)))
    if set(chosen) - set(sizes):
        raise UserError(f"replica groups over an axis that their mesh has not: {text[:60]!r}")
    for name, whole in sizes.items():
        done = 1
        for pre, size in sorted(split_axes.get(name, [])):
            parts += [(pre // done, False), (size, True)]
            done = pre * size
        parts.append((whole // done, False))
    grid = ids.reshape([size for size, _ in parts])
    inside = [axis for axis, (_, taken) in enumerate(parts) if taken]
    outside = [axis for axis, (_, taken) in enumerate(parts) if not taken]
    width = math.prod(parts[axis][0] for axis in inside)
    return grid.transpose(outside + inside).reshape(-1, width)


def spanned_axes(
    groups: DeviceGroups, mesh: np.ndarray, names: Sequence[str]
) -> tuple[str, ...] | None:
    """Returns the mesh axes that groups span, in the order of the mesh.

    Args:
        groups: of a collective. For pairs, the axes along which any source differs from its
            target.
        mesh: device ids by their coordinates, one axis for each name, such as
            `np.arange(512).reshape(1, 1, 8, 64, 1)`.
        names: of the axes.

    Returns:
        Names of axes of more than one device, empty if no group has two devices; None if the
        groups are those of no set of axes.
    """
    sizes = dict(zip(names, mesh.shape, strict=True))
    wide = [axis for axis, name in enumerate(names) if sizes[name] > 1]
    if groups.pairs:
        return _axes_of_pairs(groups, mesh, names)
    if groups.size == 1:
        return ()
    for count in range(1, len(wide) + 1):
        for axes in itertools.combinations(wide, count):
            if math.prod(mesh.shape[axis] for axis in axes) != groups.size:
                continue
            others = [axis for axis in range(mesh.ndim) if axis not in axes]
            along = mesh.transpose(others + list(axes)).reshape(-1, groups.size)
            if DeviceGroups(along).key == groups.key:
                return tuple(names[axis] for axis in axes)
    return None


def _axes_of_pairs(
    groups: DeviceGroups, mesh: np.ndarray, names: Sequence[str]
) -> tuple[str, ...] | None:
    flat = mesh.reshape(-1)
    place = {int(device): position for position, device in enumerate(flat)}
    if any(int(device) not in place for device in groups.members.reshape(-1)):
        return None
    positions = np.array([[place[int(i)] for i in pair] for pair in groups.members])
    if not positions.size:
        return ()
    coordinates = np.stack(np.unravel_index(positions, mesh.shape))  # [axes, pairs, 2]
    differs = (coordinates[..., 0] != coordinates[..., 1]).any(axis=1)
    return tuple(name for name, moved in zip(names, differs, strict=True) if moved)
