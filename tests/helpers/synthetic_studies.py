"""Synthetic studies whose speed-up is known, without anything of `moe_jax.compare` that estimates.

A run's noise-free loss is L(t) = a + b t^-c; with a decaying learning rate it falls further by a
share of the cosine that the schedule has covered. An arm with the speed-up s is planted by its
noise-free loss alone, so that the two curves reach the higher of their final losses at steps whose
ratio is s.
"""

import dataclasses

import numpy as np

from moe_jax.compare.records import Curve, Health, RunRecord


@dataclasses.dataclass(frozen=True)
class Law:
    """A noise-free curve of losses.

    Attributes:
        floor: a, the loss after endless training.
        scale: b.
        exponent: c.
        pace: a factor on the steps.
        drop: by how much the decay of the learning rate lowers the loss by the end of the run.
    """

    floor: float = 2.5
    scale: float = 6.0
    exponent: float = 0.3
    pace: float = 1.0
    drop: float = 0.0

    def loss(self, steps: np.ndarray, total: int) -> np.ndarray:
        covered = (1 - np.cos(np.pi * np.minimum(steps / total, 1))) / 2
        power = self.scale * (self.pace * np.asarray(steps, float)) ** -self.exponent
        return self.floor + power - self.drop * covered

    def step_at(self, loss: float, total: int) -> float:
        """Returns the step of a loss by bisection."""
        low, high = 1e-3, float(total)
        for _ in range(60):
            middle = (low * high) ** 0.5
            low, high = (middle, high) if self.loss(middle, total) > loss else (low, middle)
        return high


def true_speed_up(arm: Law, baseline: Law, total: int) -> float:
    """Returns the ratio of the steps to the higher of the two final noise-free losses."""
    loss = float(max(arm.loss(total, total), baseline.loss(total, total)))
    return baseline.step_at(loss, total) / arm.step_at(loss, total)


def arm_with(speed_up: float, baseline: Law, total: int) -> Law:
    """Returns a law of the baseline's shape, at the pace that gives a speed-up."""
    low, high = 0.05, 20.0
    for _ in range(60):
        middle = (low * high) ** 0.5
        arm = dataclasses.replace(baseline, pace=middle)
        low, high = (
            (middle, high) if true_speed_up(arm, baseline, total) < speed_up else (low, middle)
        )
    return dataclasses.replace(baseline, pace=high)


@dataclasses.dataclass(frozen=True)
class Noise:
    """How runs differ from their law, in nats.

    Attributes:
        evaluation: standard deviation of single evaluations.
        data: standard deviation over seeds of a shift of the loss that paired runs share: their
            data order.
        initial: that of a shift of a run's own: its initial parameters.
    """

    evaluation: float = 0.01
    data: float = 0.02
    initial: float = 0.006


def losses(
    rng: np.random.Generator, laws: list[Law], seeds: int, steps: np.ndarray, noise: Noise = Noise()
) -> np.ndarray:
    """Returns the losses of a study, [arm, seed, step], whose last evaluation is at `steps[-1]`."""
    clean = np.stack([law.loss(steps, int(steps[-1])) for law in laws])[:, None, :]
    shape = (len(laws), seeds)
    shift = noise.data * rng.standard_normal((1, seeds)) + noise.initial * rng.standard_normal(
        shape
    )
    jitter = noise.evaluation * rng.standard_normal((*shape, len(steps)))
    return clean + shift[..., None] + jitter


def run_record(
    arm: str = "switch", seed: int = 1, curve: Curve | None = None, **changes
) -> RunRecord:
    """Returns the record of a finished run; `changes` are fields of `RunRecord`."""
    role = changes.get("role", "comparison")
    steps = tuple(range(50, 1001, 50))
    loss = tuple((Law().loss(np.array(steps), 1000) + 0.001 * seed).tolist())
    fields = {
        "arm": arm,
        "name": f"{arm}-{role}-{seed}",
        "role": role,
        "seed": seed + 1000 * (role == "aa"),
        "data_seed": seed,
        "learning_rate": 0.01,
        "fingerprint": f"{arm}-{role}-{seed}",
        "planned_steps": 1000,
        "outcome": "finished",
        "curve": curve or Curve(steps, loss, loss),
        "tokens_per_step": 1024,
        "eval_tokens": 65536,
        "slots_per_token": 2.0,
        "flops_per_token": 6e6,
        "parameters": 4_000_000,
        "active_parameters": 1_000_000,
        "router": "switch",
        "pool": "batch",
        "is_causal": True,
        "health": Health(dropped_share=0.1, skipped_updates=0),
        "settings": {"AdamW.learning_rate": "@WarmupCosine()", "Data.task": "'books'"},
        "data": {"task": "books"},
        "environment": {"moe_jax": "0.1.0", "devices": {"kind": "cpu", "count": 1}},
        "command": f"moe-jax train --arm={arm}",
    }
    return RunRecord(**{**fields, **changes})
