"""Checksums of arrays that do not depend on how the arrays are spread over devices.

A checkpoint holds them beside the arrays, and a restored array must have the same: damage is found
whatever it came from (a disk, a network, a program), on any mesh, without reading files twice.
The same pass finds values that are not finite, which no checkpoint is to hold.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

# Odd constants that spread bits (Weyl and Murmur3).
_WEYL, _MIX_1, _MIX_2 = 0x9E3779B1, 0x85EBCA6B, 0xC2B2AE35


def checksums(arrays: Mapping[str, Any]) -> dict[str, int]:
    """Returns a 32-bit checksum of each array, by name.

    Every element is mixed with its place in the whole array, and the results are added modulo
    2^32: the sum is exact in any order, so it is the same on any mesh.
    """
    return inspect_arrays(arrays)[0]


def inspect_arrays(arrays: Mapping[str, Any]) -> tuple[dict[str, int], list[str]]:
    """Returns the checksums, and the names of arrays with values that are not finite."""
    found: dict[str, Any] = jax.device_get(_inspect(dict(arrays)))
    sums = {name: int(value) for name, (value, _) in found.items()}
    return sums, [name for name, (_, is_finite) in found.items() if not is_finite]


def compile_inspect_arrays(arrays: Mapping[str, jax.Array]) -> None:
    """Compiles what `inspect_arrays` computes of such arrays; does not wait for them."""
    _inspect.lower(dict(arrays)).compile()


@jax.jit
def _inspect(arrays: dict[str, jax.Array]) -> dict[str, tuple[jax.Array, jax.Array]]:
    return {name: (_digest(array), _is_finite(array)) for name, array in arrays.items()}


# Jitted by themselves, they are traced once for all arrays of a shape: parameters and moments.
@jax.jit
def _is_finite(array: jax.Array) -> jax.Array:
    is_floating = jnp.issubdtype(array.dtype, jnp.floating)
    return jnp.all(jnp.isfinite(array)) if is_floating else jnp.ones((), jnp.bool_)


@jax.jit
def _digest(array: jax.Array) -> jax.Array:
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
    """Returns shape and type of each array in a word, such as `float32[8,64]`."""
    return {
        name: f"{jnp.dtype(array.dtype).name}[{','.join(map(str, array.shape))}]"
        for name, array in arrays.items()
    }
