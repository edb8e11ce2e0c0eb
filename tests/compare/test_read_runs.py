import dataclasses
import json
import shutil
import time

import numpy as np
import pytest
from fake_runs import write_run

from moe_jax.compare.analysis import compare
from moe_jax.compare.grouping import make_plan
from moe_jax.compare.read_runs import read_inputs
from moe_jax.compare.records import LeakTest, RunRecord, StepTimes, StudyPlan
from moe_jax.compare.results_file import write_records
from moe_jax.compare.run_reader import read_run
from moe_jax.errors import UserError

# The 97.5% quantile of Student's t distribution with 2 degrees of freedom.
T_OF_THREE = 4.302652729749464


def names(found):
    return [(r.name, r.arm, r.role) for r in found.records if isinstance(r, RunRecord)]


@pytest.fixture
def runs(tmp_path):
    return [
        str(write_run(tmp_path / "runs" / f"{router}_{seed}", router=router, seed=seed))
        for router in ("expert_choice", "switch")
        for seed in (0, 1)
    ]


def test_run_directories_are_grouped(runs):
    found = read_inputs(runs)
    assert found.plan is None
    assert found.left_out == []
    assert names(found) == [
        (f"{router}_{seed}", router, "comparison")
        for router in ("expert_choice", "switch")
        for seed in (0, 1)
    ]
    # A directory that is given several times is read once, and that is said once.
    again = read_inputs([*runs, runs[0], f"{runs[0]}/", f"{runs[0]}/../expert_choice_0"])
    assert again.records == found.records
    assert again.left_out == [f"{runs[0]}: given more than once, and used once"]


def test_names_of_directories_are_long_enough_to_be_unique(tmp_path):
    paths = [
        str(write_run(tmp_path / router / f"seed_{seed}", router=router, seed=seed))
        for router in ("switch", "gshard")
        for seed in (0, 1)
    ]
    assert names(read_inputs(paths))[0] == ("switch/seed_0", "switch", "comparison")


def test_other_parameters_on_the_same_data_are_aa_runs(tmp_path, runs):
    again = write_run(
        tmp_path / "runs" / "switch_again", router="switch", seed=0, changes={"Train.seed": "1000"}
    )
    found = read_inputs([str(again), *runs])
    assert names(found)[0] == ("switch_again", "switch", "aa")
    assert [role for *_, role in names(found)[1:]] == ["comparison"] * 4


def test_refused_runs_do_not_name_arms(tmp_path, runs):
    late = write_run(tmp_path / "runs" / "late", {10: 5.0}, router="switch", seed=2)
    renamed = [tmp_path / "runs" / name for name in ("ec-0", "ec-1", "mine-0", "mine-1")]
    for path, name in zip(runs, renamed, strict=True):
        shutil.move(path, name)
    found = read_inputs([*map(str, renamed), str(late)])
    assert [arm for _, arm, _ in names(found)] == ["ec", "ec", "mine", "mine"]


def test_runs_that_cannot_be_read_are_left_out_in_a_line(tmp_path, runs):
    broken = write_run(tmp_path / "runs" / "broken")
    (broken / "run.json").unlink()
    found = read_inputs([*runs, str(broken)])
    assert len(found.records) == 4
    (line,) = found.left_out
    assert line.startswith("broken: refused: ")
    assert "has no run.json" in line


def test_what_is_no_run_is_refused(tmp_path, runs):
    with pytest.raises(UserError, match="there is no run directory and no file /nowhere"):
        read_inputs([*runs, "/nowhere"])
    with pytest.raises(UserError, match=r"neither a run directory .* such as .*/runs/\*"):
        read_inputs([str(tmp_path / "runs")])
    (tmp_path / "text").write_text("hello\n")
    with pytest.raises(UserError, match="text, line 1 is not JSON"):
        read_inputs([str(tmp_path / "text")])


def test_without_two_arms_the_reasons_are_said(tmp_path, runs):
    unfinished = write_run(tmp_path / "runs" / "late", {10: 5.0}, router="gshard")
    with pytest.raises(UserError, match="no two arms to compare") as error:
        read_inputs([*runs[:2], str(unfinished)])
    assert "late: refused: unfinished" in str(error.value)


def study(directory, runs, arm="ec", **changes):
    """Writes a study of a plan, runs, step times and a leak test."""
    plan = StudyPlan("?", "base", {"base": "", arm: ""}, False, (0, 1), "steps")
    records = [
        dataclasses.replace(read_run(path), name=f"{name}/seed_{i % 2}", arm=name, **changes)
        for i, (path, name) in enumerate(zip(runs, [arm, arm, "base", "base"], strict=True))
    ]
    times = StepTimes(arm, "x", (0.1,), "1 x cpu")
    leak = LeakTest(arm, "expert_choice", 10, 1.0, 1.0, 0.0, False)
    directory.mkdir()
    write_records(directory / "results.jsonl", [plan, *records, times, leak])
    return plan, records, [times, leak]


@pytest.mark.parametrize("name", ["", "results.jsonl"])
def test_a_study_keeps_its_plan(tmp_path, runs, name):
    plan, records, others = study(tmp_path / "study", runs)
    found = read_inputs([str(tmp_path / "study" / name)])
    assert found.plan == plan
    assert found.records == [*records, *others]


def test_later_records_replace_earlier_ones(tmp_path, runs):
    plan, records, _ = study(tmp_path / "study", runs)
    changed = dataclasses.replace(records[0], command="again")
    other = dataclasses.replace(plan, question="??")
    path = tmp_path / "study" / "results.jsonl"
    write_records(path, [plan, *records, changed, other])
    found = read_inputs([str(path)])
    assert found.plan == other
    assert found.records == [changed, *records[1:]]


def test_studies_are_put_together(tmp_path, runs):
    study(tmp_path / "one", runs)
    # The same arms with other seeds, and an arm of the same name with other settings.
    study(tmp_path / "two", runs, seed=7, data_seed=7)
    study(tmp_path / "three", [*runs[2:], *runs[2:]], seed=8, data_seed=8)
    paths = [str(tmp_path / name) for name in ("one", "two", "three")]
    found = read_inputs(paths)
    assert found.plan is None
    arms = {r.arm for r in found.records if isinstance(r, RunRecord)}
    assert arms == {"ec", "base", "ec #2"}
    assert [r.arm for r in found.records if isinstance(r, StepTimes)] == ["ec", "ec", "ec #2"]
    assert {r.data_seed for r in found.records if isinstance(r, RunRecord)} == {0, 1, 7, 8}


def test_twelve_directories_take_a_moment(tmp_path):
    steps = 2000
    losses = {step: 6.0 - 0.3 * np.log(step) for step in range(10, steps + 1, 10)}
    paths = [
        str(write_run(tmp_path / f"{router}_{s}", losses, steps=steps, router=router, seed=s))
        for router in ("expert_choice", "switch", "gshard", "topk")
        for s in range(3)
    ]
    start = time.perf_counter()
    assert len(read_inputs(paths).records) == 12
    print(f"{time.perf_counter() - start:.2f} s")


def test_numbers_are_those_computed_by_hand(tmp_path):
    """The loss of seed s of the arm at step t is that of the baseline at step r_s t.

    With losses a_s - b ln t, smoothing by local parabolas in ln t changes nothing, and the speed-up
    of seed s is r_s exactly. The interval is recomputed here from the files alone.
    """
    true = np.array([1.5, 1.2, 1.35])
    steps = np.arange(50, 1001, 50)
    for seed, speed in enumerate(true):
        for router, factor in (("switch", 1.0), ("expert_choice", speed)):
            losses = {int(t): 6.0 + 0.01 * seed - 0.4 * np.log(factor * t) for t in steps}
            write_run(tmp_path / f"{router}_{seed}", losses, steps=1000, router=router, seed=seed)
    found = read_inputs([str(path) for path in sorted(tmp_path.iterdir())])
    comparison = compare(make_plan(found.records), found.records, found.left_out)
    assert comparison.plan.baseline == "switch"
    actual = comparison.arms["expert_choice"].speed_ups["causal"]["steps"]

    logs = []
    for seed in range(3):
        curves = {}
        for router in ("switch", "expert_choice"):
            lines = (tmp_path / f"{router}_{seed}" / "metrics.jsonl").read_text().splitlines()
            records = [r for r in map(json.loads, lines) if r["kind"] == "eval"]
            curves[router] = np.array([[np.log(r["step"]), r["causal_loss"]] for r in records]).T
        log_step, loss = curves["expert_choice"]
        reached = np.interp(-curves["switch"][1][-1], -loss, log_step)
        logs.append(np.log(1000) - reached)
    np.testing.assert_allclose(logs, np.log(true), rtol=1e-9)
    half = T_OF_THREE * np.std(logs, ddof=1) / np.sqrt(3)
    expected = np.exp([np.mean(logs), np.mean(logs) - half, np.mean(logs) + half])

    estimate = actual.estimate
    np.testing.assert_allclose([estimate.value, estimate.low, estimate.high], expected, rtol=1e-7)
    np.testing.assert_allclose([actual.by_seed[s] for s in range(3)], true, rtol=1e-7)
    assert (actual.reached, estimate.seeds) == (3, 3)
    # The difference of the final losses is b ln r, paired.
    final = comparison.arms["expert_choice"].difference
    np.testing.assert_allclose(final.value, -0.4 * np.log(true).mean(), rtol=1e-7)
    half = 0.4 * T_OF_THREE * np.std(np.log(true), ddof=1) / np.sqrt(3)
    np.testing.assert_allclose(final.high - final.value, half, rtol=1e-6)


def test_the_plan_of_a_study_with_other_runs_is_not_used(tmp_path, runs):
    study(tmp_path / "study", runs)
    other = write_run(tmp_path / "other", router="gshard")
    found = read_inputs([str(tmp_path / "study"), str(other)])
    assert found.plan is None
    (line,) = (line for line in found.left_out if "study" in line)
    assert line.startswith("the study's own question, baseline and arms are not used, as other")


def test_a_study_given_by_two_of_its_paths_is_read_once(tmp_path, runs):
    plan, records, others = study(tmp_path / "study", runs)
    found = read_inputs([str(tmp_path / "study"), str(tmp_path / "study/results.jsonl")])
    assert (found.plan, found.records) == (plan, [*records, *others])
    assert len(found.left_out) == 1


def test_what_is_given_by_mistake_is_corrected(tmp_path, runs, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "images").mkdir()
    (tmp_path / "images/x.png").write_bytes(b"")
    for name in ("empty", "images"):
        with pytest.raises(UserError, match=f"there are no runs below .*{name}: give run dir"):
            read_inputs([str(tmp_path / name)])
    path, _ = tmp_path / "study", study(tmp_path / "study", runs)
    write_run(path / "runs/ec/seed_0")
    for part in ("runs", "runs/ec", "runs/ec/seed_0/"):
        with pytest.raises(UserError, match=f"is part of the study {path}: give {path}$"):
            read_inputs([str(path / part)])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^study/runs/ec is part of the study study: give study$"):
        read_inputs(["study/runs/ec"])
    (path / "study.json").write_text("{}")
    with pytest.raises(UserError, match=f"give {path} or {path}/results.jsonl"):
        read_inputs([str(path / "study.json")])
    write_run(tmp_path / "grouped/ec/seed_0")
    with pytest.raises(UserError, match=r"such as grouped/\*/\*$"):
        read_inputs(["grouped"])


def test_a_damaged_file_refuses_one_run(runs, monkeypatch):
    with open(f"{runs[0]}/time.jsonl", "ab") as file:
        file.write(b"\xff")
    with open(f"{runs[1]}/metrics.jsonl", "ab") as file:
        file.write(b"\xff")
    found = read_inputs(runs)
    assert [name for name, *_ in names(found)] == ["expert_choice_0", "switch_0", "switch_1"]
    (line,) = found.left_out
    assert line.startswith("expert_choice_1: refused: ")
