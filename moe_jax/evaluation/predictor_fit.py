"""Predictors of expert choice, fitted after training to the choices in the pools of a sample.

The predictor of an expert is a logistic regression (`PredictedExpertChoice`): its features are the
router's log-probabilities of a token, its target is whether the expert chose the token in its pool,
with the routing of training. The objective is the mean binary cross-entropy over tokens plus a
small ridge penalty, which bounds the weights if the choices are linearly separable. It is convex,
and minimised by steps with the upper bound 1/4 F^T F of its Hessian, F the features: every step
lowers it, and one matrix is factored for all experts and steps of a layer (Boehning and Lindsay
1988, Annals of the Institute of Statistical Mathematics 40, section 4).
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from moe_jax.data.batch import Batch
from moe_jax.evaluation.calibration import Calibration
from moe_jax.models.functional import Arrays, LanguageModel, Variables
from moe_jax.models.layer_routing import RoutingContext
from moe_jax.routing.capacity import expert_choice_capacity
from moe_jax.training.step import forward

STEPS = 300
RIDGE = 1e-5
_PREDICTOR = "predictor"


def fit_predictors(
    model: LanguageModel,
    variables: Variables,
    batches: Sequence[Batch],
    capacity_factor: float,
    ridge: float = RIDGE,
) -> Calibration:
    """Fits the predictors of all layers to the choices for some batches.

    All processes must call it.

    Args:
        model: the model, with the router `PredictedExpertChoice`.
        variables: its arrays, which stay as they are.
        batches: the sample, placed on the model's devices.
        capacity_factor: c, of the router.
        ridge: the weight of half the squared norm of an expert's predictor in the objective.

    Raises:
        UserError: if the experts take no token.
    """
    observe = jax.jit(functools.partial(_observe, model))
    seen: list[tuple[jax.Array, ...]] = []
    for batch in batches:
        seen.append(jax.block_until_ready(observe(variables, batch)))
    replicated = model.partition.replicated if model.partition.is_sharded else None
    fit = jax.jit(_fit, out_shardings=replicated)
    predictor_LEF, real = jax.block_until_ready(fit(*map(list, zip(*seen, strict=True)), ridge))
    state: Arrays = {
        path: predictor_LEF if path.rsplit("/", 1)[-1] == _PREDICTOR else value
        for path, value in variables.router_state.items()
    }
    tokens = int(real)
    taken = expert_choice_capacity(tokens, capacity_factor, model.config.num_experts)
    return Calibration(dataclasses.replace(variables, router_state=state), tokens, taken, [])


def read_predictors(variables: Variables) -> np.ndarray:
    """Returns the predictors of all layers, [L, E, E + 1]."""
    (path,) = (p for p in variables.router_state if p.rsplit("/", 1)[-1] == _PREDICTOR)
    return np.asarray(variables.router_state[path])


def _observe(
    model: LanguageModel, variables: Variables, batch: Batch
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns features [L, B, S, F], choices [L, B, S, E] and the mask of real tokens [B, S]."""
    context = RoutingContext(keeps_scores=True, keeps_choices=True)
    routing = forward(model, variables, batch, context).routing
    assert routing.score_BSE is not None
    assert routing.chosen_BSE is not None
    return features_of(routing.score_BSE), routing.chosen_BSE, batch.mask_BS


def features_of(probabilities: jax.Array) -> jax.Array:
    """Returns log p + log E, and a last feature that is 1; the last axis is the expert."""
    tiny = jnp.finfo(jnp.float32).tiny
    centred = jnp.log(jnp.maximum(probabilities, tiny)) + jnp.log(probabilities.shape[-1] * 1.0)
    return jnp.concatenate([centred, jnp.ones_like(centred[..., :1])], axis=-1)


def _fit(
    features: list[jax.Array], chosen: list[jax.Array], masks: list[jax.Array], ridge: float
) -> tuple[jax.Array, jax.Array]:
    """Returns the fitted weights of all experts, [L, E, F], and the number of real tokens."""
    features_KLBSF, chosen_KLBSE = jnp.stack(features), jnp.stack(chosen)
    mask_KBS = jnp.stack(masks).astype(jnp.float32)
    tokens = jnp.maximum(mask_KBS.sum(), 1.0)
    width, experts = features_KLBSF.shape[-1], chosen_KLBSE.shape[-1]
    ridge_FF = ridge * jnp.eye(width)
    gram_LFF = jnp.einsum("klbsf,klbsg,kbs->lfg", features_KLBSF, features_KLBSF, mask_KBS)
    bound_LFF = gram_LFF / (4.0 * tokens) + ridge_FF
    factors = jax.scipy.linalg.cho_factor(bound_LFF)

    def improve(_: int, weight_LEF: jax.Array) -> jax.Array:
        logits_KLBSE = jnp.einsum("klbsf,lef->klbse", features_KLBSF, weight_LEF)
        error_KLBSE = (jax.nn.sigmoid(logits_KLBSE) - chosen_KLBSE) * mask_KBS[:, None, ..., None]
        gradient_LEF = jnp.einsum("klbse,klbsf->lef", error_KLBSE, features_KLBSF) / tokens
        gradient_LFE = (gradient_LEF + ridge * weight_LEF).swapaxes(1, 2)
        return weight_LEF - jax.scipy.linalg.cho_solve(factors, gradient_LFE).swapaxes(1, 2)

    layers = features_KLBSF.shape[1]
    first_EF = jnp.eye(experts, width)
    start_LEF = jnp.broadcast_to(first_EF, (layers, experts, width))
    return jax.lax.fori_loop(0, STEPS, improve, start_LEF), mask_KBS.sum()
