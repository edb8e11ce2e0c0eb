"""Checksums are the same on any mesh, and change with any element."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from moe_jax.training.checkpointing.checksums import checksums, inspect_arrays, shapes


def numpy_digest(array):
    """Computes the checksum by definition, element by element, in Python integers."""
    limit, total = 1 << 32, 0
    bits = array.reshape(-1).view(f"uint{array.dtype.itemsize * 8}")
    for place, value in enumerate(bits.tolist()):
        mixed = value ^ ((place + 1) * 0x9E3779B1 % limit)
        mixed = (mixed ^ (mixed >> 16)) * 0x85EBCA6B % limit
        mixed = (mixed ^ (mixed >> 13)) * 0xC2B2AE35 % limit
        total += mixed ^ (mixed >> 16)
    return total % limit


@pytest.mark.parametrize("shape", [(), (7,), (4, 6), (2, 4, 8)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32"])
def test_the_definition(shape, dtype):
    array = np.random.default_rng(0).normal(size=shape) * 100
    array = np.asarray(jnp.asarray(array).astype(dtype))
    assert checksums({"x": array}) == {"x": numpy_digest(array)}


def test_no_change_goes_unseen():
    array = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
    original = checksums({"x": array})["x"]
    seen = {original}
    for index in range(64):
        changed = array.copy()
        changed.view(np.uint32).reshape(-1)[index] ^= 1 << (index % 32)
        seen.add(checksums({"x": changed})["x"])
    seen.add(checksums({"x": array.T.copy()})["x"])
    seen.add(checksums({"x": array[::-1].copy()})["x"])
    assert len(seen) == 1 + 64 + 2
    # Two zeros that have other bits are other data.
    zeros = checksums({"a": np.float32([0.0]), "b": np.float32([-0.0])})
    assert zeros["a"] != zeros["b"]


def test_the_same_on_any_mesh():
    array = np.random.default_rng(0).normal(size=(8, 16)).astype(np.float32)
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("a", "b"))
    for spec in (PartitionSpec("a", "b"), PartitionSpec(None, "a"), PartitionSpec(("b", "a"))):
        placed = jax.device_put(array, NamedSharding(mesh, spec))
        assert checksums({"x": placed}) == {"x": numpy_digest(array)}


def test_shapes_say_what_an_array_is():
    arrays = {"a": np.zeros((8, 64), np.float32), "b": jax.ShapeDtypeStruct((), jnp.bfloat16)}
    assert shapes(arrays) == {"a": "float32[8,64]", "b": "bfloat16[]"}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_named(value):
    bad = np.ones((3, 4), np.float32)
    bad[2, 1] = value
    arrays = {"good": np.float32([3e38]), "bad": bad, "count": np.int32([2**31 - 1])}
    sums, names = inspect_arrays(arrays)
    assert names == ["bad"]
    assert sums == checksums(arrays)
