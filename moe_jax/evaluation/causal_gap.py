"""What causal routing costs a model that was trained with pools: losses and choices that differ.

Held-out data are routed as in training and causally, each from the first layer on, so that a choice
also counts as flipped if only the layer's inputs differ, as in generation.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from moe_jax.data.batch import Batch
from moe_jax.models.functional import LanguageModel, Variables
from moe_jax.models.layer_routing import RoutingContext
from moe_jax.training.step import LossConfig, forward, token_loss
from moe_jax.types import MaskBS


@dataclasses.dataclass(frozen=True)
class LayerGap:
    """Causal routing of one mixture-of-experts layer, compared with that of training.

    Attributes:
        flipped_share: fraction of all decisions, one for each token and expert, that differ.
        kept_share: fraction of the choices in training that causal routing makes, too.
        mean_experts: experts per token with causal routing.
        unrouted_share: fraction of tokens without an expert, with causal routing.
        max_load: tokens of the busiest expert over the mean, with causal routing; 1 if balanced.
    """

    flipped_share: float
    kept_share: float
    mean_experts: float
    unrouted_share: float
    max_load: float


@dataclasses.dataclass(frozen=True)
class CausalGap:
    """Causal routing of a model, compared with that of training.

    Attributes:
        loss: mean negative log-likelihood per target with causal routing, nats.
        layers: the mixture-of-experts layers in order.
    """

    loss: float
    layers: list[LayerGap]

    @property
    def mean_experts(self) -> float:
        """Experts per token, the mean over the layers."""
        return sum(layer.mean_experts for layer in self.layers) / len(self.layers)


@dataclasses.dataclass(frozen=True)
class GapReport:
    """The result of one comparison.

    Attributes:
        loss: mean negative log-likelihood per target, routed as in training, nats.
        mean_experts: experts per token, routed as in training.
        tokens: number of targets.
        gaps: causal routing, in the order of the models given.
    """

    loss: float
    mean_experts: float
    tokens: int
    gaps: list[CausalGap]


@dataclasses.dataclass(frozen=True)
class CausalVariant:
    """A model with causal routing and its arrays."""

    model: LanguageModel
    variables: Variables


def measure_gaps(
    trained: LanguageModel,
    variables: Variables,
    variants: Sequence[CausalVariant],
    batches: Iterable[Batch],
) -> GapReport:
    """Compares causal variants of a model with its routing in training, on held-out batches.

    All processes must call it.

    Args:
        trained: the model with the router of training.
        variables: its arrays.
        variants: the variants; those with the same model share a compiled program.
        batches: the batches, on the host.
    """
    routes = {
        id(model): jax.jit(_Route(model)) for model in (trained, *(v.model for v in variants))
    }
    partition = trained.partition
    sums: Any = None
    for batch in batches:
        batch = partition.place_rows(batch)
        nll, targets, chosen = routes[id(trained)](variables, batch)
        of_batch = [_sums(nll, targets, chosen, chosen, batch.mask_BS)]
        for variant in variants:
            causal_nll, _, choice = routes[id(variant.model)](variant.variables, batch)
            of_batch.append(_sums(causal_nll, targets, chosen, choice, batch.mask_BS))
        # Waits: the devices never have the programs of several batches before them.
        values = jax.tree.map(lambda v: np.asarray(v, np.float64), jax.device_get(of_batch))
        sums = values if sums is None else jax.tree.map(np.add, sums, values)
    itself, *gaps = [_summarise(of_variant) for of_variant in sums]
    return GapReport(itself.loss, itself.mean_experts, int(sums[0]["targets"]), gaps)


class _Route:
    """Computes the summed loss of a batch, the number of targets, and the choices [L, B, S, E]."""

    def __init__(self, model: LanguageModel):
        self._model = model

    def __call__(
        self, variables: Variables, batch: Batch
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        output = forward(self._model, variables, batch, RoutingContext(keeps_choices=True))
        _, nll = token_loss(self._model, variables, output, batch, LossConfig())
        assert output.routing.chosen_BSE is not None
        return nll, jnp.sum(batch.weights_BS), output.routing.chosen_BSE


@jax.jit
def _sums(
    nll: jax.Array, targets: jax.Array, trained: jax.Array, causal: jax.Array, mask_BS: MaskBS
) -> dict[str, jax.Array]:
    """Returns sums over a batch, given the choices in training and causally, [L, B, S, E]."""

    def total(value: jax.Array, axes: tuple[int, ...] | None) -> jax.Array:
        return value.sum(axes, dtype=jnp.int32)

    return {
        "nll": nll,
        "targets": targets,
        "tokens": total(mask_BS, None),
        "flipped_L": total(trained != causal, (1, 2, 3)),
        "kept_L": total(trained & causal, (1, 2, 3)),
        "trained_L": total(trained, (1, 2, 3)),
        "load_LE": total(causal, (1, 2)),
        "unrouted_L": total(mask_BS & ~causal.any(-1), (1, 2)),
    }


def _summarise(sums: dict[str, np.ndarray]) -> CausalGap:
    tokens, load_LE = max(float(sums["tokens"]), 1.0), sums["load_LE"]
    layers = [
        LayerGap(
            flipped_share=float(sums["flipped_L"][layer] / (tokens * load_E.size)),
            kept_share=float(sums["kept_L"][layer] / max(sums["trained_L"][layer], 1.0)),
            mean_experts=float(load_E.sum() / tokens),
            unrouted_share=float(sums["unrouted_L"][layer] / tokens),
            max_load=float(load_E.max() / load_E.mean()) if load_E.any() else 1.0,
        )
        for layer, load_E in enumerate(load_LE)
    ]
    return CausalGap(float(sums["nll"] / max(sums["targets"], 1.0)), layers)
