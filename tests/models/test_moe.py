"""The mixture-of-experts layer: what stands in padding reaches nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx
from tiers import slow

from moe_jax.models.batch_context import BatchContext
from moe_jax.models.layer_routing import RoutingContext
from moe_jax.models.moe import MixtureOfExperts
from moe_jax.routers.adaptive import Adaptive
from moe_jax.routers.capped_expert_choice import CappedExpertChoice
from moe_jax.routers.expert_choice import ExpertChoice
from moe_jax.routers.expert_threshold import ExpertThreshold
from moe_jax.routers.token_choice import TokenChoice
from moe_jax.routing.pools import Pool

# Padding at the beginning too: an empty slot names token 0.
MASK_BS = np.array([[0, 1, 1, 1, 1, 1, 1, 0], [0, 1, 1, 1, 0, 0, 0, 0], [0] * 8], bool)
SEQUENCE = Pool("sequence")


@pytest.mark.parametrize(
    ("router", "dispatch"),
    [
        (ExpertChoice(2.0, SEQUENCE), "grouped"),
        (TokenChoice(), "gather"),
        slow(ExpertChoice(2.0, SEQUENCE), "gather"),
        slow(ExpertChoice(2.0, SEQUENCE), "oracle"),
        slow(CappedExpertChoice(2.0, SEQUENCE, cap=2), "grouped"),
        slow(ExpertThreshold(), "grouped"),
        slow(TokenChoice(), "grouped"),
        slow(Adaptive(), "grouped"),
    ],
    ids=str,
)
def test_padding_that_is_not_finite_reaches_no_result_and_no_gradient(router, dispatch):
    """NaN and infinity in padding: the outputs, losses and gradients are those of zeros, bitwise.

    A token that is not finite has logits that are not finite, and 0 times such a number is NaN.
    """
    config = tiny.config(dispatch=dispatch)
    graph, parameters = nnx.split(MixtureOfExperts(config, router, nnx.Rngs(0)))
    batch = BatchContext(
        tokens_BS=jnp.asarray(tiny.tokens(*MASK_BS.shape)),
        positions_BS=jnp.broadcast_to(jnp.arange(MASK_BS.shape[1]), MASK_BS.shape),
        mask_BS=jnp.asarray(MASK_BS),
    )
    x_BSD = np.random.default_rng(0).normal(size=(*MASK_BS.shape, config.d_model)).astype("f")
    filler_BS = np.resize([np.nan, np.inf, -np.inf], MASK_BS.shape)[..., None]

    @jax.jit
    def outputs(x_BSD):
        def loss(parameters, x_BSD):
            y_BSD, routing = nnx.merge(graph, parameters)(x_BSD, batch, RoutingContext())
            y_BSD = jnp.where(batch.mask_BS[..., None], y_BSD, 0.0)
            return jnp.square(y_BSD).sum() + sum(routing.losses.values()), (y_BSD, routing)

        return jax.value_and_grad(loss, (0, 1), has_aux=True, allow_int=True)(parameters, x_BSD)

    of_zeros = outputs(np.where(MASK_BS[..., None], x_BSD, 0.0))
    of_filler = outputs(np.where(MASK_BS[..., None], x_BSD, filler_BS).astype("f"))
    jax.tree.map(np.testing.assert_array_equal, of_filler, of_zeros)
    (loss, _), (_, gradient_BSD) = of_filler
    assert np.isfinite(loss)
    assert np.abs(gradient_BSD).max() > 0
    assert not np.asarray(gradient_BSD)[~MASK_BS].any()
