"""A small mixture-of-experts layer with random inputs, to test routers and dispatches."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from moe_jax.dispatch import get_dispatch
from moe_jax.dispatch.network import ExpertNetwork
from moe_jax.routing.assignment import Assignment, RouterOutput, RouterScores, Slots
from moe_jax.routing.router import Router, RouterState
from moe_jax.routing.scores import router_logits
from moe_jax.types import ActivationsBSD

_WIDTH, _HIDDEN = 8, 16


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Inputs:
    """Inputs of a layer: activations, tokens, mask, router matrix, weights of the experts."""

    x_BSD: jax.Array
    tokens_BS: jax.Array
    mask_BS: jax.Array
    kernel_DE: jax.Array
    wi_EDF: jax.Array
    wo_EDF: jax.Array


def random_inputs(batch: int, length: int, num_experts: int, seed: int) -> Inputs:
    """Returns random inputs; rows have different lengths, and the first row has no padding."""
    random = np.random.default_rng(seed)
    ends = random.integers(length // 2, length + 1, batch)
    ends[0] = length
    shapes = (_WIDTH, num_experts), (num_experts, _WIDTH, _HIDDEN), (num_experts, _WIDTH, _HIDDEN)
    weights = (random.normal(size=shape).astype(np.float32) for shape in shapes)
    return Inputs(
        jnp.asarray(random.normal(size=(batch, length, _WIDTH)), jnp.float32),
        jnp.asarray(random.integers(1, 100, (batch, length)), jnp.int32),
        jnp.asarray(np.arange(length) < ends[:, None]),
        *map(jnp.asarray, weights),
    )


def changed(inputs: Inputs, kept_BS: jax.Array, seed: int) -> Inputs:
    """Returns inputs with new random values except at the kept tokens; row lengths can change."""
    batch, length = inputs.mask_BS.shape
    other = random_inputs(batch, length, inputs.kernel_DE.shape[1], seed)
    return dataclasses.replace(
        inputs,
        x_BSD=jnp.where(kept_BS[..., None], inputs.x_BSD, other.x_BSD),
        tokens_BS=jnp.where(kept_BS, inputs.tokens_BS, other.tokens_BS),
        mask_BS=jnp.where(kept_BS, inputs.mask_BS, other.mask_BS),
    )


def compiled(function: Callable[..., Any], static: tuple[int, ...] = (0,)) -> Any:
    """Compiles a function with low optimization, which reduces the time of compilation."""
    fast = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else {}
    return jax.jit(function, static_argnums=static, compiler_options=fast)


def route(
    router: Router, inputs: Inputs, key: jax.Array | None, state: RouterState
) -> RouterOutput:
    """Routes the inputs, as in training if there is a random key."""
    logits_BSE = logits(router, inputs, key)
    return router(scores_of_batch(router, logits_BSE, inputs, key), state)


def logits(router: Router, inputs: Inputs, key: jax.Array | None) -> jax.Array:
    """Returns the router's logits [B, S, E]; zeros for a router without a matrix."""
    shape = (*inputs.mask_BS.shape, inputs.kernel_DE.shape[1])
    if not router.is_learned:
        return jnp.zeros(shape, jnp.float32)
    jitter_key = None if key is None else jax.random.fold_in(key, 1)
    return router_logits(inputs.x_BSD, inputs.kernel_DE, router.input_jitter, jitter_key)


def scores_of_batch(
    router: Router,
    logits_BSE: jax.Array,
    inputs: Inputs,
    key: jax.Array | None,
    first_pool: jax.Array | int = 0,
    axes: tuple[str, ...] = (),
) -> RouterScores:
    """Returns the router scores by pool."""
    split = router.pool.split
    time_BS = jnp.arange(inputs.mask_BS.shape[1], dtype=jnp.int32)
    time_PN = split(jnp.broadcast_to(time_BS, inputs.mask_BS.shape))
    return RouterScores.from_logits(
        split(logits_BSE),
        split(inputs.mask_BS),
        tokens_PN=split(inputs.tokens_BS),
        positions_PN=time_PN,
        time_PN=time_PN,
        key=key,
        first_pool=first_pool,
        axes=axes,
    )


def layer(
    router: Router,
    dispatch: str,
    inputs: Inputs,
    key: jax.Array | None,
    state: RouterState | None = None,
) -> ActivationsBSD:
    """Computes the output of the layer with the named dispatch; by default in the initial state."""
    if state is None:
        state = router.init_state(inputs.kernel_DE.shape[1])
    routed = route(router, inputs, key, state)
    experts = ExpertNetwork(inputs.wi_EDF, inputs.wo_EDF, jnp.tanh)
    x_PND = router.pool.split(inputs.x_BSD)
    y_PND = get_dispatch(dispatch)(routed.assignment, x_PND, experts)
    return router.pool.join(y_PND, *inputs.mask_BS.shape)


run_layer = compiled(layer, static=(0, 1))
run_router = compiled(
    lambda router, inputs, key: route(
        router, inputs, key, router.init_state(inputs.kernel_DE.shape[1])
    )
)


def chosen_PNE(assignment: Assignment, tokens: int) -> np.ndarray:
    """Counts the assignments of each token to each expert, [P, N, E], on the host."""
    if isinstance(assignment, Slots):
        index_PEC, filled_PEC = map(np.asarray, (assignment.token_index_PEC, assignment.filled_PEC))
        pools, num_experts, _ = index_PEC.shape
        count_PNE = np.zeros((pools, tokens, num_experts), int)
        pool, expert, _ = np.nonzero(filled_PEC)
        np.add.at(count_PNE, (pool, index_PEC[filled_PEC], expert), 1)
        return count_PNE
    index_PNK, chosen_PNK = map(np.asarray, (assignment.expert_index_PNK, assignment.chosen_PNK))
    count_PNE = np.zeros((*index_PNK.shape[:2], assignment.num_experts), int)
    pool, token, _ = np.nonzero(chosen_PNK)
    np.add.at(count_PNE, (pool, token, index_PNK[chosen_PNK]), 1)
    return count_PNE
