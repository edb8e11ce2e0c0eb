"""The curve and the health of a run, from its `metrics.jsonl`."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from moe_jax.compare.json_values import LARGEST
from moe_jax.compare.records import Curve, Health, Outcome

# Health is that of the last tenth of the training records.
_LAST_PART = 10
_GIB = 1 << 30

MetricRecord = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class RunMetrics:
    """What `metrics.jsonl` says of a run.

    Attributes:
        curve: the evaluations with finite losses.
        is_finite: False if a loss of the last evaluation is not finite.
        last_evaluation: the step of the last evaluation; 0 without one.
        eval_tokens: tokens of the last evaluation; 0 without one.
        mean_experts: experts per token, averaged over layers and all training records; None
            without a router.
        skipped_in_row: number of consecutive updates skipped up to the last training record.
        health: whether the run was in order.
    """

    curve: Curve
    is_finite: bool
    last_evaluation: int
    eval_tokens: int
    mean_experts: float | None
    skipped_in_row: int
    health: Health

    def outcome(self, planned_steps: int, guard_limit: int) -> Outcome:
        """Returns how the run ended.

        A loss in the middle of a run that is not finite may become so again, as long as the guard
        has not ended the run.

        Args:
            planned_steps: `Train.steps`.
            guard_limit: `Guard.limit`, the number of consecutive skipped updates that ends a run;
                0 for none.
        """
        if 0 < guard_limit <= self.skipped_in_row:
            return "diverged"
        if self.last_evaluation < planned_steps:
            return "unfinished"
        return "finished" if self.is_finite else "diverged"


def summarise(records: Iterable[MetricRecord]) -> RunMetrics:
    """Summarises the records of a run; values of a wrong type count as missing."""
    usable = [r for r in records if type(r["step"]) is int and 0 <= r["step"] < LARGEST]
    training = _kept([r for r in usable if r["kind"] == "train"])
    evaluations = _kept([r for r in usable if r["kind"] == "eval"])
    losses = [(_number(r, "loss"), _number(r, "causal_loss")) for r in evaluations]
    points = [
        (record["step"], *pair)
        for record, pair in zip(evaluations, losses, strict=True)
        if all(map(math.isfinite, pair))
    ]
    steps, loss, causal_loss = zip(*points, strict=True) if points else ((), (), ())
    last: MetricRecord = evaluations[-1] if evaluations else {}
    latest: MetricRecord = training[-1] if training else {}
    return RunMetrics(
        curve=Curve(steps, loss, causal_loss),
        is_finite=not losses or all(map(math.isfinite, losses[-1])),
        last_evaluation=last.get("step", 0),
        eval_tokens=_count(last, "tokens") or 0,
        mean_experts=_mean(training, "router/mean_experts"),
        skipped_in_row=_count(latest, "skipped_in_row") or 0,
        health=_health(training, last),
    )


def _health(training: Sequence[MetricRecord], last_evaluation: MetricRecord) -> Health:
    recent = training[-max(len(training) // _LAST_PART, 1) :]
    # The first step of every attempt has no speed.
    timed = [
        r for r in training if _number(r, "tokens_per_second") > 0 and _number(r, "tokens") > 0
    ]
    peaks = [p for r in training if math.isfinite(p := _number(r, "memory/peak_gib"))]
    causal_experts = _number(last_evaluation, "causal_mean_experts")
    return Health(
        dropped_share=_mean(recent, "router/dropped_share"),
        unrouted_share=_mean(recent, "router/unrouted_share"),
        max_violation=_mean(recent, "router/max_violation", np.max),
        mean_experts=_mean(recent, "router/mean_experts"),
        causal_mean_experts=causal_experts if math.isfinite(causal_experts) else None,
        skipped_updates=_count(training[-1], "skipped_total") if training else None,
        step_seconds=_median(r["tokens"] / r["tokens_per_second"] for r in timed),
        tokens_per_second=_median(r["tokens_per_second"] for r in timed),
        memory_bytes=round(max(peaks) * _GIB) if peaks else None,
    )


def _kept(records: Sequence[MetricRecord]) -> list[MetricRecord]:
    """Returns the records of steps that no later attempt has repeated, in order of their steps."""
    kept: list[MetricRecord] = []
    for record in records:
        while kept and kept[-1]["step"] >= record["step"]:
            kept.pop()
        kept.append(record)
    return kept


def _number(record: MetricRecord, name: str) -> float:
    """Returns a number; nan if it is missing, null, or none."""
    value = record.get(name)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    try:
        return float(value) if is_number else math.nan  # type: ignore[arg-type]
    except OverflowError:
        return math.inf


def _count(record: MetricRecord, name: str) -> int | None:
    value = _number(record, name)
    return int(value) if 0 <= value < LARGEST else None


def _mean(records: Sequence[MetricRecord], name: str, over_layers: Any = np.mean) -> float | None:
    """Returns the mean over records of a mean over layers; None if no record has the metric."""
    values = []
    for record in records:
        layers = record.get(name)
        try:
            array = np.asarray(layers, float)
        except (TypeError, ValueError, OverflowError):
            continue
        if layers is not None and array.size and np.isfinite(array).all():
            values.append(over_layers(array))
    return float(np.mean(values)) if values else None


def _median(values: Iterable[float]) -> float | None:
    found = list(values)
    return float(np.median(found)) if found else None
