"""The size of the layer that `moe-jax bench routing` and `adaptive` measure."""

from moe_jax.benchmarks import layer
from moe_jax.errors import UserError, nearest
from moe_jax.models.config import DTYPES


def get_size(name: str, dtype: str) -> layer.Size:
    """Returns the layer of a name.

    Raises:
        UserError: for an unknown size or precision.
    """
    if name not in layer.SIZES:
        raise UserError(f"unknown size {name!r}; known: {', '.join(layer.SIZES)}")
    if dtype not in DTYPES:
        raise UserError(
            f"unknown precision {dtype!r}; known: {', '.join(DTYPES)}." + nearest(dtype, DTYPES)
        )
    return layer.SIZES[name]


def layer_title(size: str, dtype: str) -> str:
    """Returns the shape and precision of a layer in words."""
    s = layer.SIZES[size]
    return f"{s.tokens} tokens, width {s.width}, {s.num_experts} experts of {s.hidden}, {dtype}"
