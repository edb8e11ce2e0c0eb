"""Replica groups: the devices of a collective, and the mesh axes that they span.

A device is identified by its position in the program's device assignment, which for a program that
JAX partitioned over a mesh (SPMD) is its position in `mesh.devices.flatten()`.

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
from moe_jax.hlo.lexer import closing_bracket, parse_integers

_IOTA = re.compile(r"\[([\d,\s]+)\](?:<=\[([\d,\s]+)\])?(?:T\(([\d,\s]+)\))?")
_AXIS_SIZE = re.compile(r"'([^']*)'=(\d+)")
_AXIS = re.compile(r"'([^']*)'(?::\((\d+)\)(\d+))?")


@dataclasses.dataclass(frozen=True, eq=False)
class ReplicaGroups:
    """Groups of devices that communicate.

    Attributes:
        members: device ids, int64 [groups, size]; -1 pads groups smaller than the largest.
        is_permutation: whether each row is a pair of a source and a target.
    """

    members: np.ndarray
    is_permutation: bool = False

    @property
    def size(self) -> int:
        """Devices of the largest group; of a permutation 2, or 1 if no device sends to another."""
        if self.is_permutation:
            return 2 if self.num_transfers else 1
        return int(self.members.shape[1]) if self.members.size else 1

    @property
    def num_transfers(self) -> int:
        """Pairs with different source and target."""
        if not self.is_permutation:
            return 0
        return int((self.members[:, 0] != self.members[:, 1]).sum())

    @functools.cached_property
    def canonical(self) -> tuple[tuple[int, ...], ...]:
        """The groups in canonical order, without padding."""
        rows = (tuple(int(i) for i in row if i >= 0) for row in self.members)
        return tuple(sorted(row if self.is_permutation else tuple(sorted(row)) for row in rows))


@functools.lru_cache(maxsize=4096)
def parse_replica_groups(text: str, num_devices: int) -> ReplicaGroups:
    """Parses the attribute `replica_groups`.

    The forms are lists (`{{0,1},{2,3}}`), reshaped iotas (`[2,4]<=[4,2]T(1,0)`) and axes of a named
    mesh (`mesh['a'=2,'b'=4] {'a'}`, with sub-axes `'b':(2)2` and with `device_ids=([4,2]T(1,0))`
    before the axes).

    Args:
        text: unparsed attribute.
        num_devices: of the program; an empty list is one group of all of them.

    Raises:
        UserError: if the text has none of these forms.
    """
    text = text.strip()
    if text.startswith("mesh["):
        return ReplicaGroups(_mesh_axes_groups(text))
    if text.startswith("["):
        return ReplicaGroups(_iota_groups(text))
    if text.startswith("{"):
        rows = [parse_integers(row) for row in re.findall(r"\{([^{}]*)\}", text)]
        rows = [row for row in rows if row]
        return ReplicaGroups(_pad(rows or [tuple(range(num_devices))]))
    raise UserError(f"not a list of replica groups: {text[:60]!r}")


@functools.lru_cache(maxsize=4096)
def parse_source_target_pairs(text: str) -> ReplicaGroups:
    """Parses the attribute `source_target_pairs`, such as `{{0,1},{1,0}}`."""
    return ReplicaGroups(
        np.array(parse_integers(text), np.int64).reshape(-1, 2), is_permutation=True
    )


def _pad(rows: Sequence[tuple[int, ...]]) -> np.ndarray:
    width = max(len(row) for row in rows)
    return np.array([row + (-1,) * (width - len(row)) for row in rows], np.int64)


def _iota_groups(text: str) -> np.ndarray:
    """Returns the ids of `[groups,size]<=[dims]T(axes)`: iota over dims, transposed, reshaped."""
    match = _IOTA.match(text)
    if not match:
        raise UserError(f"not a list of replica groups: {text[:60]!r}")
    shape = parse_integers(match[1])
    dims = parse_integers(match[2]) if match[2] else shape
    ids = np.arange(math.prod(dims)).reshape(dims)
    if match[3]:
        ids = ids.transpose(parse_integers(match[3]))
    return ids.reshape(shape)


def _mesh_axes_groups(text: str) -> np.ndarray:
    """Returns the groups along axes of a mesh; sub-axes are numbered from the major side."""
    close = closing_bracket(text, 4)
    sizes = {name: int(size) for name, size in _AXIS_SIZE.findall(text[4:close])}
    rest = text[close + 1 :]
    ids = np.arange(math.prod(sizes.values()))
    if "device_ids=" in rest:
        start = rest.index("(")
        listed = rest[start + 1 : closing_bracket(rest, start)]
        ids = _iota_groups(listed) if listed.startswith("[") else np.array(parse_integers(listed))
    chosen = {name: (pre, size) for name, pre, size in _AXIS.findall(rest[rest.index("{") :])}
    sub_axes: list[tuple[int, bool]] = []
    split_axes: dict[str, list[tuple[int, int]]] = {}
    for name, pre, size in _AXIS.findall(rest[rest.index("{") :]):
        whole = sizes.get(name, 1)
        split_axes.setdefault(name, []).append((int(pre or 1), int(size or whole)))
    if set(chosen) - set(sizes):
        raise UserError(f"replica groups over an axis that their mesh does not have: {text[:60]!r}")
    for name, whole in sizes.items():
        done = 1
        for pre, size in sorted(split_axes.get(name, [])):
            sub_axes += [(pre // done, False), (size, True)]
            done = pre * size
        sub_axes.append((whole // done, False))
    grid = ids.reshape([size for size, _ in sub_axes])
    inside = [axis for axis, (_, taken) in enumerate(sub_axes) if taken]
    outside = [axis for axis, (_, taken) in enumerate(sub_axes) if not taken]
    width = math.prod(sub_axes[axis][0] for axis in inside)
    return grid.transpose(outside + inside).reshape(-1, width)


def spanned_mesh_axes(
    groups: ReplicaGroups, mesh: np.ndarray, names: Sequence[str]
) -> tuple[str, ...] | None:
    """Returns the mesh axes that groups span, in the order of the mesh.

    Args:
        groups: of a collective. A permutation spans the axes along which any source differs from
            its target.
        mesh: device ids by their coordinates, one axis for each name, such as
            `np.arange(512).reshape(1, 1, 8, 64, 1)`.
        names: of the axes.

    Returns:
        Names of axes of more than one device, empty if no group has two devices; None if no set of
        axes has these groups.
    """
    sizes = dict(zip(names, mesh.shape, strict=True))
    wide = [axis for axis, name in enumerate(names) if sizes[name] > 1]
    if groups.is_permutation:
        return _permuted_axes(groups, mesh, names)
    if groups.size == 1:
        return ()
    for count in range(1, len(wide) + 1):
        for axes in itertools.combinations(wide, count):
            if math.prod(mesh.shape[axis] for axis in axes) != groups.size:
                continue
            others = [axis for axis in range(mesh.ndim) if axis not in axes]
            along = mesh.transpose(others + list(axes)).reshape(-1, groups.size)
            if ReplicaGroups(along).canonical == groups.canonical:
                return tuple(names[axis] for axis in axes)
    return None


def _permuted_axes(
    groups: ReplicaGroups, mesh: np.ndarray, names: Sequence[str]
) -> tuple[str, ...] | None:
    flat = mesh.reshape(-1)
    positions_of = {int(device): position for position, device in enumerate(flat)}
    if any(int(device) not in positions_of for device in groups.members.reshape(-1)):
        return None
    positions = np.array([[positions_of[int(i)] for i in pair] for pair in groups.members])
    if not positions.size:
        return ()
    coordinates = np.stack(np.unravel_index(positions, mesh.shape))  # [axes, pairs, 2]
    differs = (coordinates[..., 0] != coordinates[..., 1]).any(axis=1)
    return tuple(name for name, moved in zip(names, differs, strict=True) if moved)
