"""Thresholds of expert choice, set after training from a sample of tokens.

Every expert of every layer gets the threshold at which it takes k = N c / E of the sample's N
tokens, as if the whole sample were one pool (`moe_jax.routing.top_scores`). The thresholds of a
layer decide what the next layer sees. The first pass over the sample routes as in training and sets
all layers; each further pass routes causally with the thresholds so far and sets all again. The
first layer's scores depend on no router, the second's only on the first's thresholds, and so on:
after l passes the first l layers are exactly those that layer-by-layer calibration gives, and after
as many passes as there are layers all are. The passes end earlier if all experts take their shares
already, to within `LOAD_TOLERANCE`.

The mechanism is that of Expert Threshold routing (arXiv 2603.11535), whose thresholds are moving
averages over training steps.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import PartitionSpec

from moe_jax.data.batch import Batch
from moe_jax.models.functional import LanguageModel, Variables
from moe_jax.models.layer_routing import RoutingContext
from moe_jax.routing.top_scores import TopScores
from moe_jax.sharding.rules import BATCH_AXES
from moe_jax.training.step import forward

# The passes end when every expert takes its share of the sample, with this relative error.
LOAD_TOLERANCE = 0.01
_THRESHOLD = "threshold"


@dataclasses.dataclass(frozen=True)
class CalibrationPass:
    """One pass over the sample.

    Attributes:
        routing: `trained` or `causal`, in the layers before the one that is measured.
        load_error: with the thresholds before this pass, the largest relative error of the number
            of tokens of an expert, over all experts and layers.
    """

    routing: str
    load_error: float


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Causal routing that was set from a sample.

    Attributes:
        variables: the arrays of the model with these thresholds, or predictors.
        tokens: number of tokens of the sample, N.
        tokens_per_expert: number of them that each expert takes in a pool of all of them, k.
        passes: the passes over the sample that set thresholds.
    """

    variables: Variables
    tokens: int
    tokens_per_expert: int
    passes: list[CalibrationPass]


def calibrate_thresholds(
    model: LanguageModel, variables: Variables, batches: Sequence[Batch], capacity_factor: float
) -> Calibration:
    """Sets the thresholds of all layers from the tokens of some batches.

    All processes must call it.

    Args:
        model: the model with the router that it was trained with, whose causal form reads
            thresholds.
        variables: its arrays, which stay as they are.
        batches: the sample, placed on the model's devices.
        capacity_factor: c, the mean number of experts per token.

    Raises:
        UserError: if the experts would take no token of the sample, or more than there are.
    """
    layers = model.config.num_moe_layers
    causal = model.causal()
    routed_as = {"trained": _Scorer(model), "causal": _Scorer(causal)}
    passes: list[CalibrationPass] = []
    for number in range(layers):
        routing = "causal" if number else "trained"
        sample = routed_as[routing](variables, batches, capacity_factor)
        error = float(np.abs(sample.taken_LE / sample.tokens_per_expert - 1.0).max())
        passes.append(CalibrationPass(routing, error))
        if number and error <= LOAD_TOLERANCE:
            break
        variables = with_thresholds(variables, sample.thresholds_LE)
    return Calibration(variables, sample.tokens, sample.tokens_per_expert, passes)


def read_thresholds(variables: Variables) -> np.ndarray:
    """Returns the thresholds of all layers, [L, E]."""
    return np.asarray(variables.router_state[_threshold_path(variables)])


def with_thresholds(variables: Variables, thresholds_LE: np.ndarray) -> Variables:
    """Returns variables with other thresholds, on the same devices."""
    path = _threshold_path(variables)
    old = variables.router_state[path]
    values = thresholds_LE.astype(old.dtype)
    new = jax.make_array_from_callback(old.shape, old.sharding, lambda index: values[index])
    return dataclasses.replace(variables, router_state={**variables.router_state, path: new})


def _threshold_path(variables: Variables) -> str:
    (path,) = (p for p in variables.router_state if p.rsplit("/", 1)[-1] == _THRESHOLD)
    return path


@dataclasses.dataclass(frozen=True)
class _Sample:
    """The quantiles of a sample and what the thresholds before it took, see `Calibration`."""

    thresholds_LE: np.ndarray
    taken_LE: np.ndarray
    tokens: int
    tokens_per_expert: int


class _Scorer:
    """Computes the scores of a sample with one router; compiles once."""

    def __init__(self, model: LanguageModel):
        self._model = model
        self._run = jax.jit(self._score)

    def __call__(
        self, variables: Variables, batches: Sequence[Batch], capacity_factor: float
    ) -> _Sample:
        """Returns the thresholds of the sample under the routing of these variables."""
        experts = self._model.config.num_experts
        most = sum(batch.targets_BS.size for batch in batches)
        top = TopScores(capacity_factor, most, experts)
        taken_LE, tokens = np.zeros((), np.int64), 0
        for batch in batches:
            score_LBSE, taken, real = self._run(variables, batch)
            for part in local_parts(score_LBSE):
                top.add(part.transpose(0, 3, 1, 2).reshape(*part.shape[::3], -1))
            taken_LE = taken_LE + np.asarray(taken, np.int64)
            tokens += int(real)
        thresholds_LE, capacity = _of_all_processes(top).thresholds(tokens)
        return _Sample(thresholds_LE, taken_LE, tokens, capacity)

    def _score(self, variables: Variables, batch: Batch) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns scores, -1 for padding; the tokens that reach the thresholds; real tokens."""
        context = RoutingContext(keeps_scores=True)
        score_LBSE = forward(self._model, variables, batch, context).routing.score_BSE
        assert score_LBSE is not None
        score_LBSE = jnp.where(batch.mask_BS[..., None], score_LBSE, -1.0)
        threshold_LE = variables.router_state[_threshold_path(variables)]
        taken_LE = (score_LBSE >= threshold_LE[:, None, None]).sum((1, 2), dtype=jnp.int32)
        rows = PartitionSpec(None, BATCH_AXES)
        real = batch.mask_BS.sum(dtype=jnp.int32)
        return self._model.partition.constrain(score_LBSE, rows), taken_LE, real


def local_parts(array: jax.Array) -> list[np.ndarray]:
    """Returns the parts of an array on this process's devices, each part on one process only."""
    return [np.asarray(s.data) for s in array.addressable_shards if s.replica_id == 0]


def _of_all_processes(top: TopScores) -> TopScores:
    """Merges the largest scores of all processes."""
    if jax.process_count() == 1:
        return top
    parts: Any = multihost_utils.process_allgather(top.padded())
    return top.merged(list(np.asarray(parts)))
