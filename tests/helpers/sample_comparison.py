"""Comparisons made by hand, for tests of the report: no run and no statistics are needed."""

import dataclasses
import math

from moe_jax.compare.records import Curve, Health, LeakTest, RunRecord, StudyPlan
from moe_jax.compare.results import (
    ArmResult,
    Comparison,
    Estimate,
    MeanCurve,
    RateChoice,
    SpeedUp,
    SpeedUpCurve,
    StepCost,
    TargetCost,
)

STEPS = tuple(range(50, 1001, 50))
RATES = (0.001, 0.002, 0.004)
BASELINE = "switch"
# Arm: (final causal loss, loss as trained, speed-up; None for the baseline).
ARMS = {
    "switch": (3.482, 3.482, None),
    "ec_sequence": (3.391, 3.237, 1.43),
    "ec_threshold": (3.402, 3.402, 1.31),
    "dense": (3.655, 3.655, 0.62),
}
DESCRIPTIONS = {
    "switch": "top-1, capacity factor 2",
    "ec_sequence": "expert choice, c = 2, pool: sequence",
    "ec_threshold": "expert choice by a threshold",
    "dense": "dense, equal active FLOPs",
}
HOSTILE = "<script>alert(1)</script>|`x`*_$\\frac$\x1b[31m\n</svg>"
ENVIRONMENT = {
    "moe_jax": "0.1.0",
    "commit": "0123456789abcdef0123456789abcdef01234567",
    "python": "3.11.7",
    "packages": {"jax": "0.10.2", "flax": "0.12.8"},
    "devices": {"kind": "cpu", "count": 1},
}


def estimate(value, half, seeds, p=None):
    """Returns an estimate with an interval of value ± half; none with one seed."""
    if seeds < 2:
        return Estimate(value, None, None, seeds)
    return Estimate(value, value - half, value + half, seeds, p, p and min(1.0, 3 * p))


def run(arm, seed, role="comparison"):
    """Returns the record of a finished run."""
    causal, trained, _ = ARMS[arm]
    is_dense = arm == "dense"
    losses = tuple(causal + 60 / step + 0.01 * (seed % 3) for step in STEPS)
    return RunRecord(
        arm=arm,
        name=f"{arm}-{role}-{seed}",
        role=role,
        seed=seed,
        data_seed=seed,
        learning_rate=0.002,
        fingerprint="f" * 16,
        planned_steps=STEPS[-1],
        outcome="finished",
        curve=Curve(STEPS, tuple(loss + trained - causal for loss in losses), losses),
        tokens_per_step=4096,
        eval_tokens=65536,
        slots_per_token=0.0 if is_dense else 2.0,
        flops_per_token=4.4e7,
        parameters=7_100_000 if is_dense else 13_114_112,
        active_parameters=6_822_656,
        router="dense" if is_dense else arm.partition("_")[0],
        pool="" if is_dense else "sequence",
        is_causal=arm != "ec_sequence",
        health=Health(),
        settings={"Train.steps": "1000", "Train.seed": str(seed)},
        data={},
        environment=ENVIRONMENT,
        command=f"moe-jax train --gin_file=runs/{arm}.gin --gin.Train.seed={seed}",
        wall_seconds=321.0,
    )


def speed_up(value, seeds, shift=0.0):
    """Returns a speed-up with one ratio per seed around a value."""
    ratios = {seed: value * (1 + 0.02 * (seed % 3 - 1)) + shift for seed in seeds}
    reached = len(seeds) if value > 1 else 0
    return SpeedUp(estimate(value + shift, 0.09, len(seeds), 0.0031), ratios, reached, 3.48)


def arm_result(name, seeds, **changes):
    """Returns the result of an arm."""
    causal, trained, ratio = ARMS[name]
    count, is_dense = len(seeds), name == "dense"
    losses = tuple(causal + 60 / step for step in STEPS)
    low = tuple(None if count < 2 else loss - 0.02 for loss in losses)
    high = tuple(None if count < 2 else loss + 0.02 for loss in losses)
    speed_ups, curve = {}, None
    if ratio is not None:
        by_unit = {unit: speed_up(ratio, seeds) for unit in ("steps", "tokens", "flops")}
        by_unit["seconds"] = speed_up(ratio * 0.93, seeds)
        if not is_dense:
            by_unit["slots"] = speed_up(ratio, seeds)
        gained = causal - trained
        shifted = {unit: speed_up(ratio, seeds, 2 * gained) for unit in by_unit}
        speed_ups = {"causal": by_unit, "trained": shifted}
        points = tuple(4.6 - 0.05 * k for k in range(20))
        ratios = tuple(1 + (ratio - 1) * k / 19 for k in range(20))
        ends = [tuple(None if count < 2 else r * f for r in ratios) for f in (0.94, 1.06)]
        curve = SpeedUpCurve(points, ratios, ends[0], ends[1], (count,) * 20)
    final = estimate(1000 / (ratio or 1), 41, count)
    targets = (
        TargetCost(3.482, None, 0, count)
        if causal > 3.482
        else TargetCost(3.482, final, count, count),
        TargetCost(4.0, estimate(400 / (ratio or 1), 21, count), count, count),
        TargetCost(3.45, None, 0, count)
        if causal > 3.45
        else TargetCost(3.45, estimate(812, 35, count), count, count),
    )
    result = ArmResult(
        name=name,
        description=DESCRIPTIONS[name],
        runs={seed: run(name, seed) for seed in seeds},
        loss=estimate(trained, 0.0123, count),
        causal_loss=estimate(causal, 0.0131, count),
        gap=estimate(causal - trained, 0.0021 if causal > trained else 0.0, count),
        difference=None if ratio is None else estimate(causal - 3.482, 0.011, count, 0.004),
        speed_ups=speed_ups,
        curve=MeanCurve(STEPS, losses, low, high),
        speed_up_curve=curve,
        targets=targets,
        cost=StepCost(4096, 0 if is_dense else 8192, 1.8e11, 0.412, estimate(1.07, 0.013, 12)),
        rate=RateChoice(dict(zip(RATES, (3.7, 3.61, math.inf), strict=True)), 0.002, False),
        health=Health()
        if is_dense
        else Health(0.013, 0.0004, 0.61, 2.0, 1.97, 0, 0.43, 9526, 2**31),
        is_causal=name != "ec_sequence",
        leak_test=LeakTest(name, name, 200, 5.545, 5.545, 0.2, False),
    )
    return dataclasses.replace(result, **changes)


def sample_comparison(seeds=(11, 12, 13, 14, 15), aa_ratio=1.02):
    """Returns a comparison of four arms: one leaks, one does not reach the baseline's loss.

    The A/A interval is `aa_ratio` ± 0.09.
    """
    arms = {name: arm_result(name, seeds) for name in ARMS}
    arms["ec_sequence"] = arm_result(
        "ec_sequence",
        seeds,
        leak_test=LeakTest("ec_sequence", "ec", 200, 4.871, 5.545, -41.3, True),
        rate=RateChoice(dict(zip(RATES, (3.7, 3.6, 3.5), strict=True)), 0.004, True),
    )
    aa = dataclasses.replace(
        arm_result(BASELINE, seeds),
        runs={seed: run(BASELINE, seed, "aa") for seed in seeds},
        speed_ups={
            "causal": {unit: speed_up(aa_ratio, seeds) for unit in ("steps", "flops", "slots")}
        },
    )
    can_tell = len(seeds) < 2 or abs(aa_ratio - 1) <= 0.09
    plan = StudyPlan(
        question="Does expert choice need fewer steps than Switch for the same held-out loss?",
        baseline=BASELINE,
        arms=DESCRIPTIONS,
        aa=True,
        seeds=seeds,
        matched_by="flops",
        targets=(4.0, 3.45),
        learning_rates=RATES,
        rate_seed=1,
        command="moe-jax compare --gin_file=runs/compare.gin --output_dir=study",
        source="Study.seeds = (11, 12, 13, 14, 15)\nStudy.baseline = 'switch'\n",
    )
    return Comparison(
        plan=plan,
        answer="Yes: ec_sequence needs 1.43× fewer active FLOPs than switch for the same causal "
        "loss (95% interval 1.34 to 1.52, 5 seeds).",
        arms=arms,
        aa=aa,
        can_tell=can_tell,
        warnings=("ec_sequence sees the future in training; its loss as trained is no measure.",),
        left_out=("runs/ec_old: another vocabulary",),
        not_shown=("Nothing is shown for models larger than 13M parameters.",),
        environments=(ENVIRONMENT,),
    )


def hostile_comparison(text=HOSTILE):
    """Returns the sample with `text` as a name of an arm and in all other texts."""
    found = sample_comparison()
    arms = {name if name != "dense" else text: arm for name, arm in found.arms.items()}
    runs = {s: dataclasses.replace(r, command=text) for s, r in arms[text].runs.items()}
    arms[text] = dataclasses.replace(arms[text], name=text, description=text, runs=runs)
    plan = dataclasses.replace(
        found.plan, question=text, command=text, source=f"{text}\n```\n# heading\n"
    )
    return dataclasses.replace(
        found,
        plan=plan,
        arms=arms,
        answer=text,
        warnings=(text,),
        left_out=(text,),
        not_shown=(text,),
        environments=({**ENVIRONMENT, text: text}, ENVIRONMENT),
    )
