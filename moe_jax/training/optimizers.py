"""Optimisers from optax, over parameters by name."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

import jax
import jax.numpy as jnp
import optax

from moe_jax.models.functional import STACKED_PREFIX, Arrays
from moe_jax.registration import configurable
from moe_jax.settings import Decay, NonNegative, Positive, Range
from moe_jax.training.frozen import frozen_names
from moe_jax.training.schedules import inverse_square_root

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """A gradient transformation and its learning-rate schedule, for logging.

    Attributes:
        transform: maps gradients to updates; may take `gradient_norm`, their global norm.
        learning_rate: the schedule used by `transform`.
        elementwise: True if the update of an element depends on other elements only through
            `gradient_norm`; computing it twice is then cheaper than storing it.
        frozen: patterns of the names of parameters that are not trained
            (`moe_jax.training.frozen`); an experiment sets it to `Train.frozen`. `transform` never
            sees these parameters: they have no gradient, update, weight decay or optimiser state.
    """

    transform: optax.GradientTransformation
    learning_rate: optax.Schedule
    elementwise: bool = False
    frozen: tuple[str, ...] = ()

    def trained(self, params: Mapping[str, T]) -> dict[str, T]:
        """Returns the parameters that are trained, or what there is of them, by name.

        Raises:
            UserError: for a pattern of `frozen` that matches no name, and if no parameter is left.
        """
        frozen = frozen_names(self.frozen, params)
        return {name: value for name, value in params.items() if name not in frozen}

    def init(self, params: Arrays) -> optax.OptState:
        """Returns the initial optimiser state, for the trained ones of all parameters."""
        return self.transform.init(self.trained(params))


_Clipping = Annotated[float, Range(least=0, zero="no clipping")]


@configurable("Adafactor")
def adafactor(
    learning_rate: optax.Schedule | None = None,
    decay_exponent: NonNegative = 0.8,
    update_clipping: Positive = 1.0,
    multiply_by_parameter_scale: bool = True,
    max_gradient_norm: _Clipping = 0.0,
) -> Optimizer:
    """Adafactor as in the paper: factored second moments, no momentum (beta1 = 0).

    The decay of the second moment is 1 - (t + 1)^-0.8; the paper's "beta2 = 0.99" has no effect in
    its training code when this decay is set. Updates are clipped to a root mean square of 1 and
    scaled by the root mean square of the parameter. Each layer of stacked parameters has separate
    statistics, as if it were not stacked.
    Source: Shazeer and Stern 2018; Zhou et al. 2022, section 4.1; GLaM's settings in Lingvo.

    Args:
        learning_rate: by default `inverse_square_root()`.
        decay_exponent: exponent of the decay of the second moment.
        update_clipping: largest root mean square of an update before scaling.
        multiply_by_parameter_scale: scale updates by the root mean square of the parameter.
        max_gradient_norm: global norm that gradients are clipped to first; 0 for no clipping.
    """
    schedule = learning_rate or inverse_square_root()
    rule = optax.adafactor(
        learning_rate=None,
        decay_rate=decay_exponent,
        clipping_threshold=update_clipping,
        multiply_by_parameter_scale=multiply_by_parameter_scale,
    )
    return Optimizer(
        optax.chain(_clip(max_gradient_norm), _per_layer(rule), optax.scale_by_schedule(schedule)),
        schedule,
    )


@configurable("AdamW")
def adamw(
    learning_rate: optax.Schedule,
    b1: Decay = 0.9,
    b2: Decay = 0.95,
    epsilon: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.1,
    max_gradient_norm: _Clipping = 1.0,
) -> Optimizer:
    """AdamW with decoupled weight decay on matrices only (Loshchilov and Hutter 2019).

    Norm scales and position-bias tables are not decayed.
    """
    rule = optax.adamw(
        learning_rate, b1=b1, b2=b2, eps=epsilon, weight_decay=weight_decay, mask=_decayed
    )
    transform = optax.chain(_clip(max_gradient_norm), rule)
    return Optimizer(transform, learning_rate, elementwise=True)


def _clip(max_norm: float) -> optax.GradientTransformation:
    """Returns `optax.clip_by_global_norm` that reuses the norm if it is given."""
    if not max_norm:
        return optax.identity()

    def update(
        updates: Any,
        state: optax.OptState,
        params: Any = None,
        *,
        gradient_norm: jax.Array | None = None,
        **_: Any,
    ) -> tuple[Any, optax.OptState]:
        norm = optax.global_norm(updates) if gradient_norm is None else gradient_norm

        def clip(update: jax.Array) -> jax.Array:
            return jnp.where(norm < max_norm, update, update / norm.astype(update.dtype) * max_norm)

        return jax.tree.map(clip, updates), state

    return optax.GradientTransformationExtraArgs(optax.identity().init, update)


def _decayed(params: Arrays) -> dict[str, bool]:
    return {name: name.rsplit("/", 1)[-1] not in ("scale", "table") for name in params}


def _per_layer(rule: optax.GradientTransformation) -> optax.GradientTransformation:
    """Applies a transformation to each layer of stacked parameters separately."""

    def over_layers(function: Callable[..., Any]) -> Callable[..., Any]:
        return jax.vmap(function)

    stacked = optax.GradientTransformation(over_layers(rule.init), over_layers(rule.update))

    def labels(params: Arrays) -> dict[str, str]:
        return {n: "stacked" if n.startswith(STACKED_PREFIX) else "single" for n in params}

    return optax.partition({"stacked": stacked, "single": rule}, labels)
