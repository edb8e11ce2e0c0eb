"""One training step: loss, gradients, update, router state. Compiled once."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from moe_jax.data.batch import Batch
from moe_jax.errors import UserError
from moe_jax.models.attention import Rows
from moe_jax.models.decoder import DecoderOutput
from moe_jax.models.functional import LanguageModel, Variables
from moe_jax.models.moe import Routing
from moe_jax.routing.router import Router
from moe_jax.training.loss import DEFAULT_CHUNK, vocabulary_loss
from moe_jax.training.optimizers import Optimizer
from moe_jax.training.state import TrainState

# Scalars and vectors by name.
Metrics = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Weights of the terms of the loss.

    Attributes:
        z_loss: of the squared log partition of the vocabulary's logits (GLaM: 1e-4).
        router_z_loss: of the routers' (ST-MoE: 1e-3); expert choice needs none.
        chunk: tokens whose vocabulary logits are in memory at a time.
    """

    z_loss: float = 1e-4
    router_z_loss: float = 0.0
    chunk: int = DEFAULT_CHUNK

    def __post_init__(self) -> None:
        if not isinstance(self.chunk, int) or self.chunk < 1:
            raise UserError(f"Loss.chunk must be a whole number above 0, not {self.chunk!r}")

    def auxiliary(self, routing: Routing) -> jax.Array:
        """Returns the weighted sum over layers of the routers' losses."""
        weights = {"router_z": self.router_z_loss}
        total = jnp.zeros((), jnp.float32)
        for name, loss_L in routing.losses.items():
            total += weights[name] * jnp.sum(loss_L)
        return total


def forward(
    model: LanguageModel, variables: Variables, batch: Batch, router: Router | None = None
) -> DecoderOutput:
    """Runs the model on a batch, packed or not."""
    rows = None
    if batch.positions_BS is not None:
        rows = Rows(batch.positions_BS, batch.segments_BS)
    decoder = model.bind(variables)
    return decoder(batch.inputs_BS, rows=rows, mask_BS=batch.mask_BS, router=router)


def token_loss(
    variables: Variables, output: DecoderOutput, batch: Batch, config: LossConfig
) -> tuple[jax.Array, jax.Array]:
    """Returns (objective, negative log-likelihood) summed over the batch's targets, nats."""
    with jax.named_scope("vocabulary_loss"):
        hidden_BSD = output.hidden_BSD
        return vocabulary_loss(
            hidden_BSD.reshape(-1, hidden_BSD.shape[-1]),
            variables.params["embedding"],
            batch.targets_BS.reshape(-1),
            batch.weights_BS.reshape(-1).astype(jnp.float32),
            config.z_loss,
            config.chunk,
        )


def make_train_step(
    model: LanguageModel, optimizer: Optimizer, loss: LossConfig, accumulation: int = 1
) -> Any:
    """Returns the jitted step, (state, batch) -> (state, metrics); the state is donated to it.

    Args:
        model: the model.
        optimizer: the optimiser.
        loss: weights of the loss terms.
        accumulation: micro-batches in a batch, worked on one after the other. Pools then hold
            tokens of a micro-batch, everything else is as with one.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        gradients, routing, metrics = _accumulate(model, state.variables, batch, loss, accumulation)
        with jax.named_scope("optimizer"):
            params = state.variables.params
            updates, optimizer_state = optimizer.transform.update(
                gradients, state.optimizer_state, params
            )
            params = optax.apply_updates(params, updates)
            metrics["gradient_norm"] = optax.global_norm(gradients)
            metrics["learning_rate"] = jnp.asarray(optimizer.learning_rate(state.step))
        router_state = model.update_router_state(
            state.variables.router_state, routing.statistics, state.step
        )
        for name, value in {**routing.losses, **routing.metrics}.items():
            metrics[f"router/{name}"] = value
        return TrainState(state.step + 1, Variables(params, router_state), optimizer_state), metrics

    return jax.jit(step, donate_argnums=0)


def _accumulate(
    model: LanguageModel, variables: Variables, batch: Batch, loss: LossConfig, accumulation: int
) -> tuple[dict[str, jax.Array], Routing, Metrics]:
    """Returns gradients, routing and metrics of the whole batch."""
    total = jnp.maximum(jnp.sum(batch.weights_BS.astype(jnp.float32)), 1.0)
    real = jnp.maximum(jnp.sum(batch.mask_BS), 1)

    def objective(params: dict[str, jax.Array], part: Batch) -> tuple[jax.Array, tuple]:
        part_variables = Variables(params, variables.router_state)
        output = forward(model, part_variables, part)
        summed, nll = token_loss(part_variables, output, part, loss)
        # Means over the part's real tokens, weighted so that the parts add up to the batch's mean.
        share = jnp.sum(part.mask_BS) / real
        value = summed / total + loss.auxiliary(output.routing) * share
        routing = Routing(
            losses=_scaled(output.routing.losses, share),
            metrics=_scaled(output.routing.metrics, share),
            statistics=_scaled(output.routing.statistics, 1 / accumulation),
        )
        return value, (routing, {"loss": nll / total, "objective": value})

    gradient = jax.grad(objective, has_aux=True)
    if accumulation == 1:
        gradients, (routing, metrics) = gradient(variables.params, batch)
    else:
        gradients, routing, metrics = _scan_micro_batches(
            gradient, variables.params, batch, accumulation
        )
    return gradients, routing, {**metrics, "tokens": total}


def _scan_micro_batches(
    gradient: Callable, params: dict[str, jax.Array], batch: Batch, accumulation: int
) -> tuple[dict[str, jax.Array], Routing, Metrics]:
    """Sums what each micro-batch of rows adds to gradients, routing and metrics."""
    rows = batch.targets_BS.shape[0]
    if rows % accumulation:
        raise UserError(f"a batch of {rows} rows does not split into {accumulation} micro-batches")
    # Micro-batch i takes rows i, i + accumulation, ...: each keeps every data shard busy.
    parts = jax.tree.map(
        lambda a: a.reshape(rows // accumulation, accumulation, *a.shape[1:]).swapaxes(0, 1), batch
    )

    def one(total: dict[str, jax.Array], part: Batch) -> tuple:
        gradients, (routing, metrics) = gradient(params, part)
        return jax.tree.map(jnp.add, total, gradients), (routing, metrics)

    zeros = jax.tree.map(jnp.zeros_like, params)
    routings: Routing
    metrics: Metrics
    gradients, (routings, metrics) = jax.lax.scan(one, zeros, parts)
    routing, metrics = jax.tree.map(lambda a: a.sum(0), (routings, metrics))
    return gradients, routing, metrics


def _scaled(values: Metrics, factor: jax.Array | float) -> Metrics:
    return {name: value * factor for name, value in values.items()}
