"""The update of a training step: compute it, check it, then apply or skip it."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from moe_jax.models.functional import Arrays, LanguageModel, Variables
from moe_jax.training.finite import all_finite
from moe_jax.training.loss_spike_guard import GuardConfig, SkipReason, decide_skip
from moe_jax.training.optimizers import Optimizer
from moe_jax.training.state import TrainState, state_shardings

# From (state, gradients of the trained parameters, new router state, loss) to (new state,
# SkipReason, gradient norm).
Update = Callable[[TrainState, Arrays, Arrays, jax.Array], tuple[TrainState, jax.Array, jax.Array]]


def make_update(model: LanguageModel, optimizer: Optimizer, config: GuardConfig) -> Update:
    """Returns the function that computes the new state of a step, or keeps the old one.

    The new parameters, optimiser state and router state are computed and checked before they
    replace the old ones, whose memory they reuse. An elementwise update is therefore computed
    twice, once to check it and once to apply it, which costs one pass over the arrays; keeping the
    first result would need memory for a second copy of all of them.

    Args:
        model: the model.
        optimizer: the optimiser.
        config: which updates are skipped.
    """
    transform = optax.with_extra_args_support(optimizer.transform)
    stored = state_shardings(model, optimizer)
    shardings: tuple[Any, ...] = ()
    if stored is not None:
        variables = stored.variables
        params = optimizer.trained(variables.params)
        shardings = ((params, stored.optimizer_state), variables.router_state)

    @functools.partial(jax.jit, inline=True)  # Traced only once.
    def make(gradients: Arrays, norm: jax.Array, kept: tuple[Arrays, Any]) -> tuple[Arrays, Any]:
        params, optimizer_state = kept
        updates, optimizer_state = transform.update(
            gradients, optimizer_state, params, gradient_norm=norm
        )
        return optax.apply_updates(params, updates), optimizer_state

    def update(
        state: TrainState, gradients: Arrays, router_state: Arrays, loss: jax.Array
    ) -> tuple[TrainState, jax.Array, jax.Array]:
        norm = optax.global_norm(gradients)
        kept = optimizer.trained(state.variables.params), state.optimizer_state
        made = make(gradients, norm, kept)
        finite = all_finite((made, router_state), model.partition, shardings)
        reason, seen = decide_skip(config, state.guard, loss, norm, finite[0], finite[1])
        if optimizer.elementwise:
            # Without the barrier the compiler would merge the two and keep the first result.
            reason, gradients, norm_again, kept = jax.lax.optimization_barrier(
                (reason, gradients, norm, kept)
            )
            made = make(gradients, norm_again, kept)
        ok = reason == SkipReason.NONE
        (params, optimizer_state), router_state = jax.tree.map(
            lambda new, old: jnp.where(ok, new, old),
            (made, router_state),
            (kept, state.variables.router_state),
        )
        variables = Variables({**state.variables.params, **params}, router_state)
        return TrainState(state.step + 1, variables, optimizer_state, seen), reason, norm

    return update
