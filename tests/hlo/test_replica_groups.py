"""Replica groups in all text forms, and the mesh axes that they span."""

import itertools
import math

import numpy as np
import pytest

from moe_jax.errors import UserError
from moe_jax.hlo.replica_groups import (
    parse_replica_groups,
    parse_source_target_pairs,
    spanned_mesh_axes,
)

NAMES = ("data", "fsdp", "expert", "tensor")


def written(groups):
    return "{" + ",".join("{" + ",".join(map(str, row)) + "}" for row in groups) + "}"


@pytest.mark.parametrize("seed", range(40))
def test_rearranged_counts_equal_numpy(seed):
    rng = np.random.default_rng(seed)
    dims = [int(size) for size in rng.choice([1, 2, 3, 4, 5], size=rng.integers(1, 5))]
    order = [int(axis) for axis in rng.permutation(len(dims))]
    devices = math.prod(dims)
    size = int(rng.choice([d for d in range(1, devices + 1) if devices % d == 0]))
    expected = np.arange(devices).reshape(dims).transpose(order).reshape(-1, size)
    text = f"[{devices // size},{size}]<=[{','.join(map(str, dims))}]"
    if order != sorted(order):
        text += f"T({','.join(map(str, order))})"
    groups = parse_replica_groups(text, devices)
    np.testing.assert_array_equal(groups.members, expected)
    assert groups.size == size
    # The same groups as a list, in another order.
    shuffled = [rng.permutation(row).tolist() for row in rng.permutation(expected)]
    assert parse_replica_groups(written(shuffled), devices).canonical == groups.canonical


def test_the_forms_of_the_compiler():
    assert parse_replica_groups("[2,4]<=[8]", 8).members.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert parse_replica_groups("[4,2]<=[2,4]T(1,0)", 8).members.tolist() == [
        [0, 4],
        [1, 5],
        [2, 6],
        [3, 7],
    ]
    assert parse_replica_groups("{}", 4).members.tolist() == [[0, 1, 2, 3]]
    assert parse_replica_groups("{{0},{1}}", 2).size == 1
    uneven = parse_replica_groups("{{0,1,2},{3}}", 4)
    assert uneven.size == 3
    assert uneven.canonical == ((0, 1, 2), (3,))


@pytest.mark.parametrize("axes", [s for n in (1, 2, 3) for s in itertools.combinations("xyz", n)])
@pytest.mark.parametrize("reordered", [False, True])
def test_axes_of_a_named_mesh_equal_numpy(axes, reordered):
    sizes = {"x": 2, "y": 3, "z": 4}
    listed = ",".join(f"'{name}'={size}" for name, size in sizes.items())
    ids = np.arange(24)
    text = f"mesh[{listed}]"
    if reordered:
        ids = ids.reshape(6, 4).T.reshape(-1)
        text += ", device_ids=([6,4]T(1,0))"
    text += " {" + ",".join(f"'{name}'" for name in axes) + "}"
    grid = ids.reshape(2, 3, 4)
    inside = ["xyz".index(name) for name in axes]
    outside = [axis for axis in range(3) if axis not in inside]
    width = math.prod(sizes[name] for name in axes)
    expected = grid.transpose(outside + inside).reshape(-1, width)
    np.testing.assert_array_equal(parse_replica_groups(text, 24).members, expected)


def test_a_part_of_a_named_axis():
    ids = np.arange(16).reshape(2, 2, 4)  # The axis b of 8 is split into 2 x 4.
    major = parse_replica_groups("mesh['a'=2,'b'=8] {'b':(1)2}", 16)
    minor = parse_replica_groups("mesh['a'=2,'b'=8] {'b':(2)4}", 16)
    np.testing.assert_array_equal(major.members, ids.transpose(0, 2, 1).reshape(-1, 2))
    np.testing.assert_array_equal(minor.members, ids.reshape(-1, 4))


@pytest.mark.parametrize("text", ["", "nonsense", "[a]", "mesh['a'=2] {'b'}"])
def test_what_is_no_list_of_groups_is_refused(text):
    with pytest.raises(UserError, match="replica groups"):
        parse_replica_groups(text, 4)


@pytest.mark.parametrize("axes", [s for n in (1, 2, 3) for s in itertools.combinations(NAMES, n)])
def test_groups_along_axes_are_found_again(axes):
    mesh = np.arange(24).reshape(2, 3, 4, 1)
    inside = [NAMES.index(name) for name in axes]
    outside = [axis for axis in range(4) if axis not in inside]
    width = math.prod(mesh.shape[axis] for axis in inside)
    groups = mesh.transpose(outside + inside).reshape(-1, width).tolist()
    expected = tuple(name for name in axes if name != "tensor")  # One device: spans nothing.
    assert spanned_mesh_axes(parse_replica_groups(written(groups), 24), mesh, NAMES) == expected


def test_groups_of_no_axes_are_not_forced_onto_some():
    mesh = np.arange(16).reshape(1, 4, 4, 1)
    half = parse_replica_groups("[8,2]<=[16]", 16)
    assert spanned_mesh_axes(half, mesh, NAMES) is None
    diagonal = parse_replica_groups("{{0,5,10,15},{1,6,11,12},{2,7,8,13},{3,4,9,14}}", 16)
    assert spanned_mesh_axes(diagonal, mesh, NAMES) is None


def test_axes_of_the_same_size_are_distinguished():
    mesh = np.arange(16).reshape(1, 4, 4, 1)
    assert spanned_mesh_axes(parse_replica_groups("[4,4]<=[16]", 16), mesh, NAMES) == ("expert",)
    assert spanned_mesh_axes(parse_replica_groups("[4,4]<=[4,4]T(1,0)", 16), mesh, NAMES) == (
        "fsdp",
    )


def test_pairs_span_the_axes_along_which_they_send():
    mesh = np.arange(8).reshape(1, 2, 4, 1)
    ring = parse_source_target_pairs("{{0,1},{1,2},{2,3},{3,0},{4,5},{5,6},{6,7},{7,4}}")
    assert spanned_mesh_axes(ring, mesh, NAMES) == ("expert",)
    assert ring.num_transfers == 8
    across = parse_source_target_pairs("{{0,4},{4,0},{1,1}}")
    assert spanned_mesh_axes(across, mesh, NAMES) == ("fsdp",)
    assert (across.num_transfers, across.size) == (2, 2)
    assert spanned_mesh_axes(parse_source_target_pairs("{{0,5}}"), mesh, NAMES) == (
        "fsdp",
        "expert",
    )
    assert spanned_mesh_axes(parse_source_target_pairs("{{0,9}}"), mesh, NAMES) is None
