"""The FLOPs that the routing benchmark counts."""

import jax

from moe_jax.benchmarks import layer
from moe_jax.benchmarks.routing import expert_flops


def test_counted_flops_are_the_compilers():
    """Of the dense layer with the FLOPs of one expert, by XLA's own account."""
    size = layer.SIZES["XS"]
    x, dy, _ = layer.random_inputs(size, "float32")
    params = layer.dense_parameters(size, 1.0, "float32")
    compiled = jax.jit(layer.step_of(layer.dense)).lower(params, x, dy).compile()
    counted = compiled.cost_analysis()["flops"]
    # The compiler also counts what is done elementwise, some tens of operations a hidden unit.
    elementwise = 60 * size.tokens * size.hidden
    assert expert_flops(size) <= counted <= expert_flops(size) + elementwise
