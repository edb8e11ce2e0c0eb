import dataclasses

import numpy as np
import pytest
from scipy import stats
from synthetic_studies import Law, run_record

from moe_jax.compare.analysis import compare
from moe_jax.compare.records import Curve, Health, LeakTest, StepTimes, StudyPlan
from moe_jax.errors import UserError

DECAYS = "the learning rate decays to the end of each run, which pulls speed-ups towards 1"
STEPS = tuple(range(50, 1001, 50))
SHIFTS = {1: 0.0, 2: 0.02, 3: -0.015, 4: 0.01, 5: -0.005}
PLAN = StudyPlan(
    question="Is a faster?",
    baseline="switch",
    arms={"switch": "Switch", "a": "arm A", "b": "arm B"},
    aa=True,
    seeds=(1, 2, 3, 4, 5),
    matched_by="steps",
)


def curve(pace=1.0, shift=0.0, gap=0.0):
    loss = Law(pace=pace).loss(np.array(STEPS), 1000) + shift
    return Curve(STEPS, tuple((loss - gap).tolist()), tuple(loss.tolist()))


def runs(arm, pace, seeds=PLAN.seeds, gap=0.0, own=0.004, role="comparison", **changes):
    """Runs whose shift is that of their data order and, by turns, their own."""
    return [
        run_record(
            arm, s, curve(pace, SHIFTS[s] + own * (-1) ** s * (s % 3), gap), role=role, **changes
        )
        for s in seeds
    ]


def study(**of_a):
    return [
        *runs("switch", 1.0, own=0.0),
        *runs("switch", 1.0, role="aa"),
        *runs("a", 1.5, **of_a),
        *runs("b", 1.01),
    ]


def times(arm, seconds, device="1 x cpu"):
    return StepTimes(arm, f"{arm}-comparison-1", tuple(seconds), device)


def test_planted_speed_ups():
    found = compare(PLAN, study())
    a, b = found.arms["a"], found.arms["b"]
    assert list(found.arms) == ["switch", "a", "b"]
    assert found.can_tell
    assert a.speed_ups["causal"]["steps"].estimate.value == pytest.approx(1.5, rel=0.03)
    assert a.speed_ups["causal"]["steps"].estimate.is_difference
    assert not b.speed_ups["causal"]["steps"].estimate.is_difference
    assert found.baseline.speed_ups == {}
    assert found.baseline.difference is None
    assert found.aa.name == "switch (A/A)"
    assert found.aa.speed_ups["causal"]["steps"].estimate.low < 1
    assert found.warnings == (DECAYS,)
    assert found.left_out == ()


def test_difference_of_final_losses_is_the_paired_t_test():
    found = compare(PLAN, study()).arms
    finals = {
        name: [run.curve.causal_loss[-1] for run in arm.runs.values()]
        for name, arm in found.items()
    }
    p = {n: stats.ttest_rel(finals[n], finals["switch"]).pvalue for n in ("a", "b")}
    assert found["a"].difference.p == pytest.approx(p["a"], rel=0.05)
    assert found["a"].difference.p_holm == pytest.approx(2 * found["a"].difference.p)
    assert found["b"].difference.p_holm == pytest.approx(found["b"].difference.p)


def test_both_losses():
    a = compare(PLAN, study(gap=0.1)).arms["a"]
    assert a.gap.value == pytest.approx(0.1)
    assert a.loss.value == pytest.approx(a.causal_loss.value - 0.1)
    trained = a.speed_ups["trained"]["steps"].estimate.value
    assert trained > a.speed_ups["causal"]["steps"].estimate.value


def test_units():
    records = study(slots_per_token=1.0, flops_per_token=12e6)
    records += [times("switch", [1.0, 1.1, 1.2] * 3), times("a", [0.8, 0.88, 0.97] * 3)]
    found = compare(PLAN, records).arms
    by_unit = {u: s.estimate.value for u, s in found["a"].speed_ups["causal"].items()}
    assert by_unit["tokens"] == pytest.approx(by_unit["steps"])
    assert by_unit["slots"] == pytest.approx(2 * by_unit["steps"])
    assert by_unit["flops"] == pytest.approx(by_unit["steps"] / 2)
    assert by_unit["seconds"] == pytest.approx(by_unit["steps"] / 0.8, rel=0.01)
    assert found["a"].cost.seconds_ratio.value == pytest.approx(0.8, rel=0.01)
    assert "seconds" not in found["b"].speed_ups["causal"]
    in_seconds, in_steps = (
        found["a"].speed_ups["causal"][u].estimate for u in ("seconds", "steps")
    )
    assert in_seconds.high / in_seconds.low >= in_steps.high / in_steps.low


def test_a_dense_arm_has_no_slots():
    plan = dataclasses.replace(PLAN, matched_by="slots")
    found = compare(plan, study(slots_per_token=0.0))
    assert set(found.arms["a"].speed_ups["causal"]) == {"steps", "tokens", "flops"}
    assert "a: not in the answer, which is in expert slots; see the other costs" in (found.warnings)
    assert found.arms["a"].speed_ups["causal"]["steps"].estimate.seeds == 5


def test_times_of_other_configurations_and_devices_are_not_used():
    other = StepTimes("a", "unknown", (1.0, 1.0), "1 x cpu")
    found = compare(PLAN, [*study(), times("switch", [1, 1]), other, times("b", [1, 1], "1 x gpu")])
    assert found.arms["a"].cost.seconds is None
    assert "seconds" not in found.arms["b"].speed_ups["causal"]
    assert any(line.startswith("step times of a: not used") for line in found.warnings)
    assert any(line.startswith("b: wall time not compared") for line in found.warnings)


def test_a_study_that_cannot_tell():
    records = [r for r in study() if r.role != "aa"] + runs("switch", 1.2, role="aa")
    found = compare(PLAN, records)
    assert not found.can_tell
    assert found.warnings[0].startswith("This study cannot tell")
    assert found.answer.startswith("This study cannot tell")


def test_a_run_that_failed_drops_its_pair_only():
    records = study()
    records[11] = dataclasses.replace(records[11], outcome="diverged")
    records[17] = dataclasses.replace(records[17], outcome="unfinished")
    found = compare(PLAN, records, ["runs/x: refused"])
    assert list(found.arms["a"].runs) == [1, 3, 4, 5]
    assert found.arms["a"].difference.seeds == found.arms["b"].difference.seeds == 4
    assert any(line.startswith("a-comparison-2 diverged") for line in found.warnings)
    assert found.left_out[:2] == (
        "runs/x: refused",
        "b-comparison-3: unfinished, last evaluation at step 1,000 of 1,000",
    )
    assert "a: no finished run for seed 2" in found.left_out
    assert "a: 1 of 5 runs are left out or missing" in found.warnings
    assert not any(line.startswith("switch: ") for line in found.warnings)


def test_runs_of_seeds_that_are_not_planned_are_left_out():
    extra = [run_record("a", 9, curve(3.0)), run_record("switch", 9, curve(), role="aa")]
    found = compare(PLAN, [*study(), *extra, run_record("switch", 9, curve())])
    assert found.arms == compare(PLAN, study()).arms
    assert found.aa == compare(PLAN, study()).aa
    assert found.left_out[0] == (
        "a-comparison-9: its data seed 9 is not in the study (seeds 1, 2, 3, 4, 5)"
    )
    assert len(found.left_out) == 3
    assert [run.data_seed for run in found.all_runs].count(9) == 3


def test_a_speed_up_that_is_a_bound():
    """An arm that is below the baseline's final loss at its first evaluation."""
    plan = dataclasses.replace(PLAN, targets=(4.0,))
    records = [*study(), *runs("a", 60.0)]
    found = compare(plan, records)
    estimate = found.arms["a"].speed_ups["causal"]["steps"].estimate
    assert (estimate.value, estimate.low, estimate.p) == (pytest.approx(20), None, None)
    assert "a at least 20.00×" in found.answer
    assert (
        "a: in 5 of 5 pairs a passed the compared loss before its first evaluation, so the "
        "speed-up is a lower bound, without an interval; evaluate earlier and more often "
        "(Train.eval_every)"
    ) in found.warnings
    target = found.arms["a"].targets[1]
    assert (target.steps.value, target.steps.low, target.censored) == (pytest.approx(50), None, 5)
    again = compare(PLAN, [*study(), *runs("switch", 60.0, role="aa")])
    assert "A/A: its speed-up has no interval, so the study is not checked" in again.warnings


def test_few_evaluations_are_a_warning():
    few = Curve(*(tuple(values[3::5]) for values in dataclasses.astuple(curve(1.01))))
    records = [*study()[:-5], *(run_record("b", s, few) for s in PLAN.seeds)]
    assert any(
        line.startswith("b: fewer than 5 evaluations in a run")
        for line in compare(PLAN, records).warnings
    )


@pytest.mark.parametrize("unit", ["steps", "tokens", "flops"])
def test_flops_that_the_answer_does_not_account_for(unit):
    plan = dataclasses.replace(PLAN, matched_by=unit)
    lines = compare(plan, study(flops_per_token=12e6)).warnings
    expected = f"the FLOPs of a {unit[:-1]} differ from switch's: a (2.00 times)"
    assert any(line.startswith(expected) for line in lines) == (unit != "flops")


def test_a_rate_that_does_not_decay_is_no_warning():
    settings = {"AdamW.learning_rate": "@WarmupCosine()", "WarmupCosine.final_fraction": "1.0"}
    records = [dataclasses.replace(run, settings=settings) for run in study()]
    assert compare(PLAN, records).warnings == ()


def test_runs_without_a_partner_and_arms_without_runs():
    records = [*runs("switch", 1.0, (1, 2, 3)), *runs("a", 1.5, (2, 3, 4))]
    found = compare(PLAN, records)
    assert list(found.arms) == ["switch", "a"]
    assert list(found.arms["a"].speed_ups["causal"]["steps"].by_seed) == [2, 3]
    assert "a: seed 4 not compared, the baseline has no such run" in found.left_out
    assert "b has no finished run and is not in the comparison" in found.warnings
    assert "a: two seeds, so the interval is wide" in found.warnings
    assert found.aa is None
    assert any(line.startswith("no A/A runs") for line in found.warnings)


def test_of_two_runs_with_a_seed_the_later_counts():
    again = dataclasses.replace(run_record("a", 1, curve(1.5)), name="a-again")
    found = compare(PLAN, [*study(), again])
    assert found.arms["a"].runs[1].name == "a-again"
    assert any(line.startswith("a-comparison-1: another run") for line in found.left_out)


def test_mistakes_in_the_plan():
    with pytest.raises(UserError, match=r"baseline 'switsh' is not one of .* mean 'switch'"):
        compare(dataclasses.replace(PLAN, baseline="switsh"), study())
    with pytest.raises(UserError, match=r"matched_by = 'slot' .* mean 'slots'"):
        compare(dataclasses.replace(PLAN, matched_by="slot"), study())
    with pytest.raises(UserError, match="no finished run"):
        compare(PLAN, runs("a", 1.5))


def test_targets():
    plan = dataclasses.replace(PLAN, targets=(3.5, 1.0))
    found = compare(plan, study()).arms
    own, reached, never = found["a"].targets
    assert own.reached == own.seeds == 5
    assert own.steps.value == pytest.approx(1000 / 1.5, rel=0.03)
    assert found["switch"].targets[0].steps.value == pytest.approx(1000)
    assert found["b"].targets[0].reached < 5
    expected = np.exp(np.mean([np.log((6 / (1 - s)) ** (1 / 0.3)) for s in SHIFTS.values()]))
    assert found["switch"].targets[1].steps.value == pytest.approx(expected, rel=0.02)
    assert reached.loss == 3.5
    assert (never.steps, never.reached, never.seeds) == (None, 0, 5)


def test_mean_curve():
    found = compare(PLAN, study()).baseline.curve
    clean = Law().loss(np.array(STEPS), 1000) + np.mean(list(SHIFTS.values()))
    assert found.steps == pytest.approx(STEPS)
    np.testing.assert_allclose(found.loss[3:-1], clean[3:-1], atol=0.003)
    half = stats.t.ppf(0.975, 4) * np.std(list(SHIFTS.values()), ddof=1) / 5**0.5
    assert found.high[-1] - found.loss[-1] == pytest.approx(half)


def test_health_is_the_median():
    records = study()
    for index, dropped in zip(range(10, 15), (0.5, 0.1, 0.2, None, 0.4), strict=True):
        health = Health(dropped_share=dropped, skipped_updates=index % 2)
        records[index] = dataclasses.replace(records[index], health=health)
    found = compare(PLAN, records).arms["a"].health
    assert found.dropped_share == pytest.approx(0.3)
    assert found.skipped_updates == 0
    assert found.memory_bytes is None


def test_leak():
    leak = LeakTest("a", "expert_choice, batch", 100, 3.0, 4.16, -50.0, True)
    found = compare(PLAN, [*study(is_causal=False), leak])
    assert found.arms["a"].leak_test == leak
    assert any("a: training reads the future" in line for line in found.warnings)


def test_environments():
    other = {"moe_jax": "0.1.0", "devices": {"kind": "gpu", "count": 1}}
    found = compare(PLAN, study(environment=other))
    assert len(found.environments) == 2
    assert (
        "the runs come from 2 environments (devices.kind cpu: switch 1-5, b 1-5, switch (A/A) 1-5; "
        "devices.kind gpu: a 1-5); pairs across environments: a 1-5"
    ) in found.warnings


def test_commits_are_short_and_a_dirty_one_is_named_once():
    records = [dataclasses.replace(run, environment={"commit": 5 * "12345678"}) for run in study()]
    dirty = {"commit": 5 * "abcdef01" + "-dirty"}
    for index in (10, 12, 13):
        records[index] = dataclasses.replace(records[index], environment=dirty)
    lines = [line for line in compare(PLAN, records).warnings if "commit" in line]
    assert lines == [
        "the runs come from 2 environments (commit 12345678: switch 1-5, a 2/5, b 1-5, "
        "switch (A/A) 1-5; commit abcdef01-dirty: a 1/3-4); pairs across environments: a 1/3-4",
        "commit abcdef01-dirty: the source had changes that were not committed, so the commit "
        "does not say what was run",
    ]


def test_rates():
    plan = dataclasses.replace(PLAN, rate_seed=9)
    trials = [
        run_record("a", 9, curve(pace), role="rate_trial", learning_rate=rate)
        for rate, pace in ((0.005, 1.0), (0.01, 1.2), (0.02, 1.3))
    ]
    found = compare(plan, [*study(), *trials])
    assert found.arms["a"].rate.chosen == 0.02
    assert any("0.02 is the highest that was tried" in line for line in found.warnings)
    assert any("trained with the learning rate 0.01" in line for line in found.warnings)
    assert any("switch, b: no learning rate was tried" in line for line in found.warnings)


def test_a_loss_that_rises_at_the_end_is_a_warning():
    rising = Curve(STEPS, *2 * ((*curve().loss[:10], *curve().loss[10:0:-1]),))
    records = [*study()[:-5], *(run_record("b", s, rising) for s in PLAN.seeds)]
    found = compare(PLAN, records)
    assert any(line.startswith("b: the held-out causal loss rises") for line in found.warnings)


def test_what_is_not_shown():
    found = " ".join(compare(PLAN, study(slots_per_token=1.0)).not_shown)
    assert "One data set (books)" in found
    assert "65,536 tokens" in found
    assert "4.0M parameters (1.0M active), trained on 1.0M tokens" in found
    assert "decays to the end of the run (WarmupCosine)" in found
    assert "expert slots (0.50 to 1.00 times the baseline's per step)" in found
    assert "No learning rates were tried" in found
    assert "Wall time was not compared" in found
