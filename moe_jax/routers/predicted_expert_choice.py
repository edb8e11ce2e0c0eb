"""Expert choice with a predictor of its choices, from which it decodes.

Experts choose as in `ExpertChoice`; beside it, every expert learns to predict from a token alone
whether it chooses it:

    z = W (log p + log E) + b,   the expert takes the token if sigmoid(z) > 0.5

where p are the router's probabilities of the token. W and b are trained by the binary cross-entropy
with the choices made in the pools, and no gradient of it reaches the model: they are router state,
with an optimiser of their own, so that the model trains as with `ExpertChoice`. Their first values
are those of a threshold of 1 / E. An expert that weighs only its own probability has a threshold;
the predictor also sees the others'. Source: the auxiliary predictor of Mixture-of-Depths (Raposo et
al. 2024, arXiv 2404.02258, section 3.5), a small network on the token's activations; here it is
linear in the router's log-probabilities.
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from moe_jax.registration import configurable
from moe_jax.routers.expert_choice import ExpertChoice
from moe_jax.routers.expert_threshold import pairs_of_chosen
from moe_jax.routing.assignment import RouterOutput, RouterScores
from moe_jax.routing.losses import masked_mean, router_z_loss
from moe_jax.routing.metrics import health
from moe_jax.routing.pools import Pool
from moe_jax.routing.router import Description, Router, RouterState
from moe_jax.settings import Positive
from moe_jax.types import ScoresPNE


@configurable
@dataclasses.dataclass(frozen=True)
class PredictedExpertChoice(ExpertChoice):
    """Expert choice with capacity factor c, and causal routing by a predictor of its choices.

    Attributes:
        predictor_rate: learning rate of the predictor, by Adam.
    """

    predictor_rate: Positive = 0.01

    name = "predicted_expert_choice"
    description = Description(
        "as expert choice; causally, every expert whose predictor, linear in log p, says that it "
        "would choose the token; weight p",
        source="Zhou et al. 2022, eq. 1-4; predictor: Raposo et al. 2024, section 3.5",
        balanced="always, by construction; causally as far as predictions are right",
    )

    def init_state(self, experts: int) -> RouterState:
        """Returns thresholds, and the predictor with the moments of its gradient, [E, E + 1]."""
        predictor = initial_predictor(experts)
        return {
            **super().init_state(experts),
            "predictor": predictor,
            "predictor_mean": jnp.zeros_like(predictor),
            "predictor_square": jnp.zeros_like(predictor),
        }

    def __call__(self, scores: RouterScores, state: RouterState) -> RouterOutput:
        """Assigns as `ExpertChoice`, and compares the predictions with the choices."""
        routed = super().__call__(scores, state)
        tokens = scores.mask_PN.shape[1]
        _, chosen_PNE = routed.assignment.dense(tokens)
        features_PNF = predictor_features(scores)
        logits_PNE = jnp.einsum("pnf,ef->pne", features_PNF, state["predictor"])
        # The gradient of the binary cross-entropy, summed over the real tokens.
        error_PNE = jax.nn.sigmoid(logits_PNE) - chosen_PNE.astype(jnp.float32)
        error_PNE = jnp.where(scores.mask_PN[..., None], error_PNE, 0.0)
        is_right_PN = ((logits_PNE > 0) == chosen_PNE).mean(-1, dtype=jnp.float32)
        learned = {
            "predictor_gradient": jnp.einsum("pne,pnf->ef", error_PNE, features_PNF),
            "predictor_tokens": scores.mask_PN.sum(dtype=jnp.float32),
        }
        accuracy = {"predictor_accuracy": masked_mean(is_right_PN, scores.mask_PN)}
        return dataclasses.replace(
            routed,
            metrics=routed.metrics | jax.lax.stop_gradient(accuracy),
            statistics=routed.statistics | jax.lax.stop_gradient(learned),
        )

    def update_state(
        self, state: RouterState, statistics: dict[str, jax.Array], step: jax.Array
    ) -> RouterState:
        """Moves the thresholds, and the predictor by one step of Adam if there are tokens."""
        tokens = statistics["predictor_tokens"][..., None, None]
        gradient = statistics["predictor_gradient"] / jnp.where(tokens > 0, tokens, 1.0)
        moments = optax.ScaleByAdamState(
            count=step.astype(jnp.int32), mu=state["predictor_mean"], nu=state["predictor_square"]
        )
        update, moved = optax.scale_by_adam().update(gradient, moments)
        new = {
            "predictor": state["predictor"] - self.predictor_rate * update,
            "predictor_mean": moved.mu,
            "predictor_square": moved.nu,
        }
        kept = {name: jnp.where(tokens > 0, value, state[name]) for name, value in new.items()}
        return {**super().update_state(state, statistics, step), **kept}

    def causal(self) -> "PredictedExperts":  # type: ignore[override]
        """Returns the router that takes the experts whose predictors say so."""
        return PredictedExperts(self.pool, self.capacity_factor)


@dataclasses.dataclass(frozen=True)
class PredictedExperts(Router):
    """Routes a token to every expert whose predictor is positive: the causal form.

    Attributes:
        pool: the pools of training; the choice does not depend on it.
        capacity_factor: c, the experts per token that the predictor was trained for.
    """

    pool: Pool = dataclasses.field(default_factory=Pool)
    capacity_factor: Positive = 2.0

    name = "predicted_experts"

    @property
    def is_causal(self) -> bool:
        """Always true: a token is routed by itself."""
        return True

    @property
    def experts_per_token(self) -> float:
        """The capacity factor."""
        return self.capacity_factor

    def init_state(self, experts: int) -> RouterState:
        """Returns the predictor before training, [E, E + 1]."""
        return {"predictor": initial_predictor(experts)}

    def __call__(self, scores: RouterScores, state: RouterState) -> RouterOutput:
        """Chooses by the sign of the predictor; the weight is the probability."""
        features_PNF = predictor_features(scores)
        logits_PNE = jnp.einsum("pnf,ef->pne", features_PNF, state["predictor"])
        pairs = pairs_of_chosen((logits_PNE > 0) & scores.mask_PN[..., None], scores)
        return RouterOutput(
            assignment=pairs,
            losses={"router_z": router_z_loss(scores)},
            metrics=health(pairs, scores),
        )


def initial_predictor(experts: int) -> jax.Array:
    """Returns the predictor of a threshold of 1 / E, [E, E + 1]."""
    bias_E1 = jnp.zeros((experts, 1), jnp.float32)
    return jnp.concatenate([jnp.eye(experts, dtype=jnp.float32), bias_E1], axis=1)


def predictor_features(scores: RouterScores) -> ScoresPNE:
    """Returns log p + log E, and a last feature that is 1, [P, N, E + 1]; without a gradient."""
    log_p_PNE = jax.nn.log_softmax(scores.logits_PNE, axis=-1)
    centred_PNE = log_p_PNE + jnp.log(jnp.float32(log_p_PNE.shape[-1]))
    ones_PN1 = jnp.ones((*log_p_PNE.shape[:2], 1), jnp.float32)
    return jax.lax.stop_gradient(jnp.concatenate([centred_PNE, ones_PN1], axis=-1))
