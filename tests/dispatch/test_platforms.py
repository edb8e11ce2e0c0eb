"""The program follows the platform it is compiled for, also on a machine without that platform."""

import jax
import jax.numpy as jnp
import pytest

from moe_jax.dispatch.grouped import grouped
from moe_jax.dispatch.network import ExpertNetwork
from moe_jax.routing.assignment import RouterScores
from moe_jax.routing.expert_choice import ExpertChoice
from moe_jax.routing.token_choice import TokenChoice

P, N, D, F, E = 2, 64, 16, 32, 4


def gradient(router):
    """Returns forward and backward of a layer, in bfloat16."""

    def layer(x, kernel, wi, wo):
        logits = jnp.einsum("pnd,de->pne", x.astype(jnp.float32), kernel)
        scores = RouterScores(logits, jax.nn.softmax(logits), jnp.ones((P, N), bool))
        return grouped(router(scores, {}).assignment, x, ExpertNetwork(wi, wo)).sum()

    return jax.jit(jax.value_and_grad(layer, argnums=(0, 1, 2, 3)))


def lowered(router, platform):
    """Returns the program for a platform, as text."""
    shapes = [(P, N, D), (D, E), (E, D, F), (E, D, F)]
    dtypes = [jnp.bfloat16, jnp.float32, jnp.bfloat16, jnp.bfloat16]
    arguments = [jax.ShapeDtypeStruct(s, t) for s, t in zip(shapes, dtypes, strict=True)]
    return gradient(router).trace(*arguments).lower(lowering_platforms=(platform,)).as_text()


def test_tpu_gets_grouped_products_for_pairs():
    """Two forward, four backward, and not one loop over experts."""
    text = lowered(TokenChoice(), "tpu")
    assert text.count('"chlo.ragged_dot"(') + text.count("chlo.ragged_dot ") == 6
    assert "stablehlo.while" not in text


def test_tpu_gets_batched_products_for_slots():
    text = lowered(ExpertChoice(), "tpu")
    assert "ragged_dot" not in text
    assert "stablehlo.while" not in text
    assert text.count(f"tensor<{E}x{P * N * 2 // E}x{F}xbf16>") > 0


@pytest.mark.parametrize("router", [TokenChoice(), ExpertChoice()], ids=["pairs", "slots"])
def test_cpu_gets_loops_and_never_a_dense_product_over_experts(router):
    text = lowered(router, "cpu")
    assert "ragged_dot" not in text
    assert "stablehlo.while" in text
