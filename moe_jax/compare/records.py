"""The records of a study: the lines of `results.jsonl`, from which every report can be made again.

A line is one of the classes below as a JSON object with its `kind`. Nothing that a report shows
comes from elsewhere, so that a committed file of some hundred lines replaces gigabytes of run
directories.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

# What a run is for: the comparison, the baseline again with other initial parameters (A/A), or
# the choice of a learning rate.
Role = Literal["comparison", "aa", "rate_trial"]
# `diverged`: the run ended because its loss was not finite.
Outcome = Literal["finished", "unfinished", "diverged"]


@dataclasses.dataclass(frozen=True)
class Curve:
    """The evaluations of a run, in the order of their steps; K values each.

    Attributes:
        steps: number of finished training steps.
        loss: held-out loss in nats per token, routed as trained.
        causal_loss: held-out loss in nats per token, routed causally; equal to `loss` for routers
            that are causal in training.
    """

    steps: tuple[int, ...]
    loss: tuple[float, ...]
    causal_loss: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Health:
    """Whether a run was in order; None for what is unknown or does not apply.

    Shares and `mean_experts` are means over layers and over the last tenth of the training records.

    Attributes:
        dropped_share: share of the choices that no slot was left for.
        unrouted_share: share of the tokens without an expert.
        max_violation: largest over the layers of (largest load / mean load - 1).
        mean_experts: experts per token in training.
        causal_mean_experts: experts per token in the last evaluation, routed causally.
        skipped_updates: number of updates that the guard skipped.
        step_seconds: median wall time of a step in the run itself.
        tokens_per_second: median over the run.
        memory_bytes: largest memory of a device or, on CPU, of the process.
    """

    dropped_share: float | None = None
    unrouted_share: float | None = None
    max_violation: float | None = None
    mean_experts: float | None = None
    causal_mean_experts: float | None = None
    skipped_updates: int | None = None
    step_seconds: float | None = None
    tokens_per_second: float | None = None
    memory_bytes: int | None = None


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """A run of a study.

    Attributes:
        arm: name of the arm that the run belongs to.
        name: name of the run, unique in the study: its directory below `runs/`.
        role: what the run is for.
        seed: `Train.seed`.
        data_seed: `Data.seed`, the seed of the data order. Runs of two arms with the same one are
            paired.
        learning_rate: the peak of the learning rate, where the schedule has one.
        fingerprint: digest of the configuration that decides what is computed; a run is done if
            `results.jsonl` has a finished record with the same one.
        planned_steps: `Train.steps`.
        outcome: how the run ended.
        curve: its evaluations.
        tokens_per_step: tokens in a batch.
        eval_tokens: tokens of the held-out set.
        slots_per_token: expert slots computed per token and layer; 0 for a dense model.
        flops_per_token: active FLOPs of a training step per token (`moe_jax.flops`), with
            `slots_per_token` experts.
        parameters: number of all parameters.
        active_parameters: number of parameters that a token uses on average.
        router: name of the router; `dense` without one.
        pool: kind of its pool; empty without a router.
        is_causal: False if training lets a token see later positions or other rows' later
            positions.
        health: whether the run was in order.
        settings: the complete configuration, values as gin writes them, by name such as
            `Train.steps`.
        data: what is known of the data: task, vocabulary, and digests of the user's files.
        environment: versions, commit, devices.
        command: the command line that trains this run.
        wall_seconds: wall time of all attempts.
    """

    kind: ClassVar[str] = "run"

    arm: str
    name: str
    role: Role
    seed: int
    data_seed: int
    learning_rate: float | None
    fingerprint: str
    planned_steps: int
    outcome: Outcome
    curve: Curve
    tokens_per_step: int
    eval_tokens: int
    slots_per_token: float
    flops_per_token: float
    parameters: int
    active_parameters: int
    router: str
    pool: str
    is_causal: bool
    health: Health
    settings: Mapping[str, str]
    data: Mapping[str, Any]
    environment: Mapping[str, Any]
    command: str
    wall_seconds: float | None = None

    @property
    def last_step(self) -> int:
        """The step of the last evaluation; 0 without one."""
        return self.curve.steps[-1] if self.curve.steps else 0


@dataclasses.dataclass(frozen=True)
class StepTimes:
    """The wall times of one arm's training step, timed in turn with those of the other arms.

    Attributes:
        arm: name of the arm.
        fingerprint: that of the arm's runs; times of another configuration are not used.
        seconds: one value per round, [R]; the same index in two arms is the same round.
        device: kind and number of devices, such as `1 x cpu`.
        session: identifier of the process that timed the arms in turn; only times of one session
            are compared. Empty if it is not known.
    """

    kind: ClassVar[str] = "step_times"

    arm: str
    fingerprint: str
    seconds: tuple[float, ...]
    device: str
    session: str = ""


@dataclasses.dataclass(frozen=True)
class LeakTest:
    """A small model with an arm's router, trained on uniform random tokens.

    No causal model predicts them better than ln V. A loss below it is read from the future.

    Attributes:
        arm: name of the arm.
        router: name of the router, with its pool.
        steps: training steps.
        loss: training loss over the last steps in nats per token.
        floor: ln V.
        deviation: (loss - floor) / standard error: far below 0 if the router leaks.
        leaks: True if the loss is below the floor by more than the error allows.
    """

    kind: ClassVar[str] = "leak_test"

    arm: str
    router: str
    steps: int
    loss: float
    floor: float
    deviation: float
    leaks: bool


@dataclasses.dataclass(frozen=True)
class StudyPlan:
    """What a study compares, and how; also the contents of `study.json` beside its jobs.

    Attributes:
        question: the question in one sentence.
        baseline: name of the arm that the others are compared with.
        arms: names of the arms, in the order of the report, with the words that describe them.
        aa: True if the baseline is run again with other initial parameters.
        seeds: seeds of the comparison.
        matched_by: the cost in which the answer is given: `steps`, `tokens`,
            `slots`, `flops` or `seconds`.
        targets: held-out causal losses to report the cost of, besides the baseline's last one.
        learning_rates: learning rates that were tried for each arm.
        rate_seed: the seed of these trials.
        command: the command line of the study.
        source: text of the gin file.
    """

    kind: ClassVar[str] = "study"

    question: str
    baseline: str
    arms: Mapping[str, str]
    aa: bool
    seeds: tuple[int, ...]
    matched_by: str
    targets: tuple[float, ...] = ()
    learning_rates: tuple[float, ...] = ()
    rate_seed: int | None = None
    command: str = ""
    source: str = ""


Record = RunRecord | StepTimes | LeakTest | StudyPlan
