"""The training step: loss, gradients, optimizer update and router state, in one program."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from moe_jax.data.batch import Batch
from moe_jax.errors import UserError, nearest
from moe_jax.models.batch_context import BatchContext
from moe_jax.models.decoder import DecoderOutput
from moe_jax.models.functional import Arrays, LanguageModel, Variables
from moe_jax.models.layer_routing import Routing, RoutingContext
from moe_jax.registration import configurable
from moe_jax.routers import ROUTERS
from moe_jax.routing.losses import share
from moe_jax.routing.metrics import summarise
from moe_jax.routing.router import Router
from moe_jax.settings import Name, NonNegative, PositiveInt, Settings
from moe_jax.training.consistency_loss import consistency_loss
from moe_jax.training.loss_spike_guard import GuardConfig, SkipReason
from moe_jax.training.losses import DEFAULT_CHUNK, VocabularyLossOptions, vocabulary_loss
from moe_jax.training.optimizers import Optimizer
from moe_jax.training.sharded_loss import sum_over_data_shards
from moe_jax.training.state import TrainState, state_shardings
from moe_jax.training.update import make_update

# Scalars and vectors by name.
Metrics = dict[str, jax.Array]
BalancedOver = Literal["batch", "micro_batch"]


@configurable
@dataclasses.dataclass(frozen=True)
class LossConfig(Settings, called="Loss"):
    """Weights and options of the loss.

    Attributes:
        z_loss: weight of the squared log partition function of the vocabulary logits (GLaM: 1e-4).
        weights: weights of the router's auxiliary losses, by name: `balance`, which is 1 for a
            balanced router (Switch, GLaM, adaptive gating: 0.01), `router_z` (ST-MoE: 1e-3),
            V-MoE's `importance` and `load` for routers with noise, `consistency` of THOR's two
            passes (alpha), and the losses of custom routers. A loss without a weight here has the
            default of its router (`Router.loss_weights`). In gin files, a binding adds items to
            those of earlier bindings.
        balance_over: with gradient accumulation, compute the experts' fractions in the balance
            loss over the whole `batch` (exact, at the cost of another forward pass) or over each
            `micro_batch`.
        chunk: number of tokens whose vocabulary logits are in memory at a time.
    """

    z_loss: NonNegative = 1e-4
    weights: Mapping[Name, NonNegative] = dataclasses.field(default_factory=dict)
    balance_over: BalancedOver = "batch"
    chunk: PositiveInt = DEFAULT_CHUNK

    def __hash__(self) -> int:
        """Returns a hash of all fields; a mapping has none of its own."""
        weights = tuple(sorted(self.weights.items()))
        return hash((self.z_loss, weights, self.balance_over, self.chunk))

    def weight(self, name: str, router: Router) -> float:
        """Returns the weight of an auxiliary loss of a router.

        Raises:
            UserError: if the loss has no weight.
        """
        if name in self.weights:
            return self.weights[name]
        if name not in router.loss_weights:
            raise UserError(
                f"the router {router.name} returns the loss {name!r}, which has no weight: set "
                f"Loss.weights = {{{name!r}: ...}}, or {type(router).__name__}.loss_weights"
            )
        return router.loss_weights[name]

    def check(self, router: Router, returned: Iterable[str]) -> None:
        """Checks that every returned loss has a weight, and that every weight belongs to a loss.

        Args:
            router: the router of the model.
            returned: names of the losses that the router returns.

        Raises:
            UserError: for a loss without a weight, and for a weight of an unknown loss, with the
                names of the known losses.
        """
        names = list(returned)
        for name in names:
            self.weight(name, router)
        of_others = {loss for made in ROUTERS.values() for loss in made.loss_weights}
        known = {*names, *router.loss_weights, *of_others}
        for name in self.weights:
            if name not in known:
                raise UserError(
                    f"Loss.weights has {name!r}, a loss that no router returns; {router.name} "
                    f"returns: {', '.join(sorted(names)) or 'none'}; others: "
                    f"{', '.join(sorted(known - set(names)))}.{nearest(name, sorted(known))}"
                )

    def auxiliary(self, routing: Routing, router: Router | None) -> jax.Array:
        """Returns the weighted sum of the router's losses over the layers.

        Raises:
            UserError: see `check`.
        """
        if router is not None:
            self.check(router, routing.losses)
        total = jnp.zeros((), jnp.float32)
        for name, loss_L in routing.losses.items():
            assert router is not None
            total += self.weight(name, router) * jnp.sum(loss_L)
        return total


def forward(
    model: LanguageModel,
    variables: Variables,
    batch: Batch,
    context: RoutingContext | None = None,
) -> DecoderOutput:
    """Runs the model on a batch, packed or not.

    Args:
        model: the model.
        variables: its arrays.
        batch: the batch.
        context: random key and options of routing; None to route as in evaluation.

    Raises:
        UserError: if the model has bidirectional prefixes and the batch has none.
    """
    if model.config.bidirectional_prefix and batch.prefix_BS is None:
        raise UserError(
            "Model.bidirectional_prefix needs data with inputs and targets: set Data.objective = "
            "'prefix_lm' or 'span_corruption', or name such a task"
        )
    positions_BS = batch.positions_BS
    if positions_BS is None:
        positions_BS = jnp.broadcast_to(jnp.arange(batch.inputs_BS.shape[1]), batch.inputs_BS.shape)
    prefix_BS = batch.prefix_BS if model.config.bidirectional_prefix else None
    tokens = BatchContext(
        batch.inputs_BS, positions_BS, batch.mask_BS, batch.segments_BS, prefix_BS
    )
    return model.bind(variables)(tokens, context=context)


def token_loss(
    model: LanguageModel,
    variables: Variables,
    output: DecoderOutput,
    batch: Batch,
    config: LossConfig,
) -> tuple[jax.Array, jax.Array]:
    """Returns (objective, negative log-likelihood) in nats, summed over the batch's targets."""

    def sums(embedding_VD: jax.Array, rows: tuple, axis: str | None) -> tuple:
        hidden_TD, targets_T, weights_T = rows
        options = VocabularyLossOptions(config.z_loss, config.chunk, axis)
        return vocabulary_loss(hidden_TD, embedding_VD, targets_T, weights_T, options)

    rows = (output.hidden_BSD, batch.targets_BS, batch.weights_BS.astype(jnp.float32))
    with jax.named_scope("vocabulary_loss"):
        objective, nll = sum_over_data_shards(
            model.partition, sums, variables.params["embedding"], rows
        )
    return objective, nll


@dataclasses.dataclass(frozen=True)
class StepOptions:
    """Options of a training step.

    Attributes:
        accumulation: number of micro-batches in a batch, processed sequentially. Pools then
            contain tokens of one micro-batch; random routers draw anew for each micro-batch, and
            V-MoE's importance and load losses are means over micro-batches. All other results are
            the same as with one.
        seed: seed of random routers; their choices are a function of the seed and the step.
        guard: conditions under which updates are skipped.
        compiler_options: options of the TPU compiler; ignored on other platforms.
    """

    accumulation: int = 1
    seed: int = 0
    guard: GuardConfig = dataclasses.field(default_factory=GuardConfig)
    compiler_options: Mapping[str, bool | int | float | str] = dataclasses.field(
        default_factory=dict
    )


def make_train_step(
    model: LanguageModel,
    optimizer: Optimizer,
    loss: LossConfig,
    options: StepOptions | None = None,
) -> Any:
    """Returns the jitted step, (state, batch) -> (state, metrics); the state is donated.

    Args:
        model: the model.
        optimizer: the optimizer.
        loss: weights and options of the loss.
        options: options of the step; None for the defaults.
    """
    options = options or StepOptions()
    update = make_update(model, optimizer, options.guard)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(options.seed), state.step)
        work = _Work(model, loss, state.variables, batch, options.accumulation, key)
        gradients, routing, metrics = work.run(optimizer.trained(state.variables.params))
        router_state = model.update_router_state(
            state.variables.router_state, routing.statistics, state.step
        )
        with jax.named_scope("optimizer"):
            metrics["learning_rate"] = jnp.asarray(optimizer.learning_rate(state.step))
            state, reason, norm = update(state, gradients, router_state, metrics["loss"])
        metrics |= {
            "gradient_norm": norm,
            "skipped": (reason != SkipReason.NONE).astype(jnp.int32),
            "skip_reason": reason,
            "skipped_in_row": state.guard.in_row,
            "skipped_total": state.guard.skipped,
        }
        for name, value in {**routing.losses, **summarise(routing.metrics)}.items():
            metrics[f"router/{name}"] = value
        return state, metrics

    compiler_options = dict(options.compiler_options) if model.partition.platform == "tpu" else {}
    shardings = (state_shardings(model, optimizer), model.partition.replicated)
    return jax.jit(
        step, donate_argnums=0, out_shardings=shardings, compiler_options=compiler_options
    )


class _Work:
    """Computes the gradients of one step over all micro-batches and passes."""

    def __init__(
        self,
        model: LanguageModel,
        loss: LossConfig,
        variables: Variables,
        batch: Batch,
        accumulation: int,
        key: jax.Array,
    ):
        self._model, self._loss, self._variables = model, loss, variables
        self._batch, self._accumulation, self._key = batch, accumulation, key
        self._total = jnp.maximum(jnp.sum(batch.weights_BS.astype(jnp.float32)), 1.0)
        self._real = jnp.maximum(jnp.sum(batch.mask_BS), 1)
        # All real tokens, and those that are predicted (for a task with inputs, only its targets).
        self._counts = {"tokens": self._real, "target_tokens": self._total}

    def run(self, params: Arrays) -> tuple[Arrays, Routing, Metrics]:
        """Computes gradients with respect to `params`, routing and metrics of the whole batch."""
        gradient = jax.grad(self._objective, has_aux=True)
        if self._accumulation == 1:
            gradients, (routing, metrics) = gradient(params, self._batch, self._key, None)
            return gradients, routing, {**metrics, **self._counts}
        parts = self._micro_batches()
        share_LE = self._shares(parts)

        def one(total: dict[str, jax.Array], part: tuple[Batch, jax.Array]) -> tuple:
            gradients, (routing, metrics) = gradient(params, *part, share_LE)
            return jax.tree.map(jnp.add, total, gradients), (routing, metrics)

        zeros = jax.tree.map(jnp.zeros_like, params)
        routings: Routing
        of_parts: Metrics
        gradients, (routings, of_parts) = jax.lax.scan(one, zeros, parts)
        routing, metrics = jax.tree.map(lambda a: a.sum(0), (routings, of_parts))
        return gradients, routing, {**metrics, **self._counts}

    def _micro_batches(self) -> tuple[Batch, jax.Array]:
        """Splits the batch by rows into micro-batches, each with its own random key."""
        rows, parts = self._batch.targets_BS.shape[0], self._accumulation
        if rows % parts:
            raise UserError(f"a batch of {rows} rows does not split into {parts} micro-batches")
        # Micro-batch i has the rows i, i + accumulation, ...: every data shard has rows in each.
        batches = jax.tree.map(
            lambda a: a.reshape(rows // parts, parts, *a.shape[1:]).swapaxes(0, 1), self._batch
        )
        return batches, jax.random.split(self._key, parts)

    def _objective(
        self,
        params: Arrays,
        part: Batch,
        key: jax.Array,
        share_LE: jax.Array | None,
    ) -> tuple[jax.Array, tuple[Routing, Metrics]]:
        """Returns the contribution of a micro-batch to the objective, routing and metrics."""
        params = {**self._variables.params, **params}
        variables = Variables(params, self._variables.router_state)
        outputs = self._passes(variables, part, key, share_LE)
        losses = [
            token_loss(self._model, variables, output, part, self._loss) for output in outputs
        ]
        # Means over real tokens, weighted such that the sum over micro-batches is the batch's mean.
        weight = jnp.sum(part.mask_BS) / self._real
        routing = _mean([output.routing for output in outputs])
        summed = sum(summed for summed, _ in losses)
        value = summed / self._total + self._loss.auxiliary(routing, self._model.router) * weight
        metrics = {"loss": sum(nll for _, nll in losses) / len(losses) / self._total}
        if len(outputs) == 2:
            router = self._model.router
            assert router is not None
            divergence = self._divergence(params, outputs, part) / self._total
            value += self._loss.weight("consistency", router) * divergence
            metrics["consistency"] = divergence
        routing = Routing(
            losses=_scaled(routing.losses, weight),
            metrics=_scaled(routing.metrics, weight),
            statistics=_scaled(routing.statistics, 1 / self._accumulation),
        )
        return value, (routing, {**metrics, "objective": value})

    def _passes(
        self, variables: Variables, part: Batch, key: jax.Array, share_LE: jax.Array | None
    ) -> list[DecoderOutput]:
        router = self._model.router
        keys = [jax.random.fold_in(key, i) for i in range(router.passes if router else 1)]
        return [
            forward(self._model, variables, part, RoutingContext(key, share_LE)) for key in keys
        ]

    def _divergence(
        self, params: dict[str, jax.Array], outputs: list[DecoderOutput], part: Batch
    ) -> jax.Array:
        def sums(embedding_VD: jax.Array, rows: tuple, axis: str | None) -> tuple:
            first_TD, second_TD, weights_T = rows
            divergence = consistency_loss(
                first_TD, second_TD, embedding_VD, weights_T, self._loss.chunk, axis
            )
            return (divergence,)

        hidden = tuple(output.hidden_BSD for output in outputs)
        rows = (*hidden, part.weights_BS.astype(jnp.float32))
        return sum_over_data_shards(self._model.partition, sums, params["embedding"], rows)[0]

    def _shares(self, parts: tuple[Batch, jax.Array]) -> jax.Array | None:
        """Returns the experts' fractions of the choices of the whole batch, if the loss needs them.

        The balance loss is a product of fractions of choices and mean scores: with the fractions
        of each micro-batch, the sum over micro-batches would not be the loss of the batch. Choices
        have no gradient, so that one forward pass over all micro-batches suffices.
        """
        router = self._model.router
        if router is None or not router.has_batch_balance_loss:
            return None
        if self._loss.balance_over != "batch" or not self._loss.weight("balance", router):
            return None

        def one(total: None, part: tuple[Batch, jax.Array]) -> tuple[None, jax.Array]:
            (output, *_) = self._passes(self._variables, *part, None)
            return total, output.routing.statistics["choices"]

        choices: jax.Array
        _, choices = jax.lax.scan(one, None, parts)
        return share(choices.sum(0))


def _mean(routings: list[Routing]) -> Routing:
    """Averages routings over passes."""
    return jax.tree.map(lambda *values: sum(values) / len(values), *routings)


def _scaled(values: Metrics, factor: jax.Array | float) -> Metrics:
    return {name: value * factor for name, value in values.items()}
