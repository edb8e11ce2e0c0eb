"""The results of a fine-tuning study: means over seeds with 95% t-intervals, and differences."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

from moe_jax.compare import intervals
from moe_jax.compare.results import Estimate
from moe_jax.compare.task_records import AnyRecord, FinetunedRun, FinetuningPlan, TaskBaseline
from moe_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class TaskSummary:
    """The result of one arm on one task.

    Attributes:
        runs: the finished runs by seed.
        score: the metric in percent at the best evaluations, routed as trained; None without runs.
        causal: the same, routed causally, at the same steps; None where it is the same routing.
        last: the metric at the last evaluations.
    """

    runs: Mapping[int, FinetunedRun]
    score: Estimate | None
    causal: Estimate | None
    last: Estimate | None


@dataclasses.dataclass(frozen=True)
class FinetuningResults:
    """What a fine-tuning study has found.

    Attributes:
        plan: its plan.
        tasks: results by arm, then by full name of the task.
        averages: mean over all tasks by arm, one value per seed that has all tasks; None without
            such a seed.
        differences: an arm's average minus that of the first arm, paired by seed, with p-values
            corrected for the number of arms; None where there is no pair.
        baselines: scores in percent by task, then by name of the method.
        missing: a line for each run that is not finished.
    """

    plan: FinetuningPlan
    tasks: Mapping[str, Mapping[str, TaskSummary]]
    averages: Mapping[str, Estimate | None]
    differences: Mapping[str, Estimate | None]
    baselines: Mapping[str, Mapping[str, TaskBaseline]]
    missing: tuple[str, ...]

    @property
    def runs(self) -> list[FinetunedRun]:
        """All finished runs."""
        return [
            run
            for results in self.tasks.values()
            for result in results.values()
            for run in result.runs.values()
        ]


def summarise(records: Sequence[AnyRecord]) -> FinetuningResults:
    """Computes the results of a fine-tuning study from its records; of equal ones the last counts.

    Raises:
        UserError: if the records have no plan of a fine-tuning study.
    """
    plans = [record for record in records if isinstance(record, FinetuningPlan)]
    if not plans:
        raise UserError(
            "these are not the results of a fine-tuning study: they have no plan of one"
        )
    plan = plans[-1]
    latest = {record.name: record for record in records if isinstance(record, FinetunedRun)}
    tasks: dict[str, dict[str, TaskSummary]] = {arm: {} for arm in plan.arms}
    for arm in plan.arms:
        for task, metric in plan.tasks.items():
            runs = {
                run.seed: run
                for run in latest.values()
                if (run.arm, run.task, run.outcome) == (arm, task, "finished")
            }
            tasks[arm][task] = _summary(runs, plan.seeds, metric)
    averages = {arm: _averages(plan, tasks[arm]) for arm in plan.arms}
    baselines: dict[str, dict[str, TaskBaseline]] = {task: {} for task in plan.tasks}
    for record in records:
        if isinstance(record, TaskBaseline) and record.task in baselines:
            baselines[record.task][record.name] = record
    return FinetuningResults(
        plan=plan,
        tasks=tasks,
        averages={arm: _estimate(found.values()) for arm, found in averages.items()},
        differences=_differences(plan, averages),
        baselines=baselines,
        missing=tuple(_missing(plan, latest)),
    )


def _summary(runs: Mapping[int, FinetunedRun], seeds: Sequence[int], metric: str) -> TaskSummary:
    kept = {seed: runs[seed] for seed in seeds if seed in runs}
    causal = [run.causal_scores for run in kept.values()]
    return TaskSummary(
        runs=kept,
        score=_estimate(run.scores.get(metric, math.nan) for run in kept.values()),
        causal=_estimate(c.get(metric, math.nan) for c in causal) if any(causal) else None,
        last=_estimate(run.last_scores.get(metric, math.nan) for run in kept.values()),
    )


def _averages(plan: FinetuningPlan, results: Mapping[str, TaskSummary]) -> dict[int, float]:
    """Returns the mean over the tasks for every seed that has all of them."""
    complete = [
        seed for seed in plan.seeds if all(seed in results[task].runs for task in plan.tasks)
    ]
    return {
        seed: math.fsum(
            results[task].runs[seed].scores.get(metric, math.nan)
            for task, metric in plan.tasks.items()
        )
        / len(plan.tasks)
        for seed in complete
    }


def _differences(
    plan: FinetuningPlan, averages: Mapping[str, Mapping[int, float]]
) -> dict[str, Estimate | None]:
    first, *others = plan.arms
    found: dict[str, Estimate | None] = {}
    for arm in others:
        values = [
            averages[arm][seed] - averages[first][seed]
            for seed in plan.seeds
            if seed in averages[arm] and seed in averages[first]
        ]
        found[arm] = intervals.difference(values) if values else None
    known = {arm: e for arm, e in found.items() if e is not None and e.p is not None}
    corrected = intervals.holm([e.p for e in known.values() if e.p is not None])
    for (arm, estimate), p in zip(known.items(), corrected, strict=True):
        found[arm] = dataclasses.replace(estimate, p_holm=p)
    return found


def _estimate(values: Iterable[float]) -> Estimate | None:
    listed = list(values)
    return intervals.estimate(listed) if listed else None


def _missing(plan: FinetuningPlan, runs: Mapping[str, FinetunedRun]) -> list[str]:
    outcomes = {(run.arm, run.task, run.seed): run.outcome for run in runs.values()}
    lines = []
    for arm in plan.arms:
        for task in plan.tasks:
            for seed in plan.seeds:
                outcome = outcomes.get((arm, task, seed), "not trained")
                if outcome != "finished":
                    lines.append(f"{arm} on {task}, seed {seed}: {outcome}")
    return lines


def json_summary(results: FinetuningResults) -> dict[str, object]:
    """Returns the results as JSON values: `tasks` of the first arm, and of every arm in `arms`."""
    arms = {
        arm: {
            task: _json_of(found, results.plan.tasks[task])
            for task, found in by_task.items()
            if found.score is not None
        }
        for arm, by_task in results.tasks.items()
    }
    return {
        "tasks": arms[next(iter(results.plan.arms))],
        "arms": arms,
        "averages": {arm: _json_estimate(e) for arm, e in results.averages.items()},
        "differences": {arm: _json_estimate(e) for arm, e in results.differences.items()},
        "baselines": {
            task: {name: dict(found.scores) for name, found in by_name.items()}
            for task, by_name in results.baselines.items()
        },
        "missing": list(results.missing),
    }


def _json_of(result: TaskSummary, metric: str) -> dict[str, object]:
    values = [run.scores.get(metric, math.nan) for run in result.runs.values()]
    mean = math.fsum(values) / len(values)
    spread = math.fsum((value - mean) ** 2 for value in values)
    std = math.sqrt(spread / (len(values) - 1)) if len(values) > 1 else None
    assert result.score is not None
    return {
        "metric": metric,
        "mean": result.score.value,
        "std": std,
        "low": result.score.low,
        "high": result.score.high,
        "seeds": {str(seed): run.scores.get(metric) for seed, run in result.runs.items()},
        "causal": _json_estimate(result.causal),
    }


def _json_estimate(estimate: Estimate | None) -> dict[str, object] | None:
    if estimate is None:
        return None
    return {
        "mean": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "seeds": estimate.seeds,
        "p": estimate.p,
        "p_holm": estimate.p_holm,
    }
