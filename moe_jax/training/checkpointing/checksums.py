"""Checksums of arrays that do not depend on the arrays' shardings.

A checkpoint contains the checksums of its arrays, and restored arrays must have the same ones. This
detects damage of any origin (disk, network, software), on any mesh, without reading files twice.
The same pass finds non-finite values, which a checkpoint must not contain.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

# Odd constants that spread bits (Weyl and Murmur3).
_WEYL, _MIX_1, _MIX_2 = 0x9E3779B1, 0x85EBCA6B, 0xC2B2AE35


def checksums(arrays: Mapping[str, Any]) -> dict[str, int]:
    """Returns a 32-bit checksum of each array, by name.

    Every element is mixed with its index in the global array, and the results are added modulo
    2^32: the sum is exact in any order, and therefore the same on any mesh.
    """
    return inspect_arrays(arrays)[0]


def inspect_arrays(arrays: Mapping[str, Any]) -> tuple[dict[str, int], list[str]]:
    """Returns the checksums by name, and the names of arrays with non-finite values."""
    found: dict[str, Any] = jax.device_get(_inspect(dict(arrays)))
    sums = {name: int(value) for name, (value, _) in found.items()}
    return sums, [name for name, (_, is_finite) in found.items() if not is_finite]


def compile_inspect_arrays(arrays: Mapping[str, jax.Array]) -> None:
    """Compiles `inspect_arrays` for arrays of these shapes; does not wait for their values."""
    _inspect.lower(dict(arrays)).compile()


@jax.jit
def _inspect(arrays: dict[str, jax.Array]) -> dict[str, tuple[jax.Array, jax.Array]]:
    return {name: (_checksum(array), _is_finite(array)) for name, array in arrays.items()}


# Jitted separately, these are traced once per shape: for parameters and their moments.
@jax.jit
def _is_finite(array: jax.Array) -> jax.Array:
    is_floating = jnp.issubdtype(array.dtype, jnp.floating)
    return jnp.all(jnp.isfinite(array)) if is_floating else jnp.ones((), jnp.bool_)


@jax.jit
def _checksum(array: jax.Array) -> jax.Array:
    unsigned = jnp.dtype(f"uint{array.dtype.itemsize * 8}")
    bits = jax.lax.bitcast_convert_type(array, unsigned).astype(jnp.uint32)
    place = jnp.zeros(array.shape, jnp.uint32)
    stride = 1
    for axis in reversed(range(array.ndim)):
        index = jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis)
        place += index * jnp.uint32(stride & 0xFFFFFFFF)
        stride *= array.shape[axis]
    mixed = bits ^ (place * jnp.uint32(_WEYL) + jnp.uint32(_WEYL))
    mixed = (mixed ^ (mixed >> 16)) * jnp.uint32(_MIX_1)
    mixed = (mixed ^ (mixed >> 13)) * jnp.uint32(_MIX_2)
    return jnp.sum(mixed ^ (mixed >> 16), dtype=jnp.uint32)


def shapes(arrays: Mapping[str, Any]) -> dict[str, str]:
    """Returns the type and shape of each array as a string, such as `float32[8,64]`."""
    return {
        name: f"{jnp.dtype(array.dtype).name}[{','.join(map(str, array.shape))}]"
        for name, array in arrays.items()
    }
