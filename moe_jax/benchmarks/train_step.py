"""Time of a training step by part, and its utilisation of the machine."""

import dataclasses
import statistics
import time
from collections.abc import Callable

import jax

from moe_jax.benchmarks.matmul import make_matmul, seconds
from moe_jax.benchmarks.profile import time_by_scope
from moe_jax.data.batch import Batch
from moe_jax.experiments import Experiment
from moe_jax.training.state import make_state

# The named scopes of the step, as printed.
SCOPES = {
    "router": "router",
    "dispatch": "dispatch and combine",
    "experts": "experts",
    "feed_forward": "dense feed-forward",
    "attention": "attention",
    "vocabulary_loss": "loss over the vocabulary",
    "optimizer": "optimiser",
    "embed": "embedding",
}


@dataclasses.dataclass(frozen=True)
class StepTimes:
    """The measured times of a training step.

    Attributes:
        step_seconds: median wall time of a step, the batch included.
        parts: median seconds by part; `input` and `other` included; they add up to the step.
        tokens: tokens in a step.
        flops: counted FLOPs of a step (`moe_jax.flops`).
        matmul_flops_per_second: median rate of a large matrix product in the same run.
    """

    step_seconds: float
    parts: dict[str, float]
    tokens: int
    flops: float
    matmul_flops_per_second: float

    @property
    def utilisation(self) -> float:
        """Counted FLOPs per second, relative to the machine's matrix-product rate."""
        return self.flops / self.step_seconds / self.matmul_flops_per_second


def measure(experiment: Experiment, next_batch: Callable[[], Batch], steps: int) -> StepTimes:
    """Measures steps of an experiment, interleaved with matrix products, after one to warm up.

    Args:
        experiment: the experiment.
        next_batch: returns the next batch.
        steps: steps to measure, each twice: for its wall time, and under the profiler.
    """
    model = experiment.language_model()
    step = experiment.train_step(model)
    state = make_state(model, experiment.optimizer, experiment.train.seed)
    batch = next_batch()
    hlo = step.lower(state, batch).compile().as_text()
    matmul, matmul_flops = make_matmul(experiment.model.compute_dtype)

    def run() -> None:
        nonlocal state
        state, _ = step(state, batch)
        jax.block_until_ready(state)

    run()
    walls, inputs, matmuls, profiles = [], [], [], []
    for _ in range(steps):
        start = time.perf_counter()
        batch = next_batch()
        inputs.append(time.perf_counter() - start)
        walls.append(inputs[-1] + seconds(run))
        profiles.append(time_by_scope(run, hlo, list(SCOPES)))
        # The best of three: a rate that the machine can reach.
        matmuls.append(min(seconds(matmul) for _ in range(3)))
    tokens = batch.targets_BS.size
    return StepTimes(
        step_seconds=statistics.median(walls),
        parts=_parts(statistics.median(walls), statistics.median(inputs), profiles),
        tokens=tokens,
        flops=experiment.train_flops_per_token() * tokens,
        matmul_flops_per_second=matmul_flops / statistics.median(matmuls),
    )


def _parts(
    wall: float, input_seconds: float, profiles: list[tuple[dict[str, float], float]]
) -> dict[str, float]:
    """Scales the profiled shares to the unprofiled wall time: profiling slows a step down."""
    total = sum(covered for _, covered in profiles)
    parts = {"input": input_seconds}
    for scope in (*SCOPES, "other"):
        share = sum(by_scope.get(scope, 0.0) for by_scope, _ in profiles) / total
        parts[SCOPES.get(scope, scope)] = share * (wall - input_seconds)
    return parts
