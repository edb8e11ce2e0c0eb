"""A study from its gin file to its records, with child processes that do not train."""

import dataclasses
import json

import fake_study
import pytest

from moe_jax.compare import run_study, scheduler, study_directory
from moe_jax.compare.records import LeakTest, StepTimes, StudyPlan
from moe_jax.errors import Interrupted, UserError
from moe_jax.training.run_directory.process_identity import this_process

RATES = ["Study.learning_rates=(1e-3, 2e-3)", "Study.seeds=(1,)"]


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr(scheduler, "POLL_SECONDS", 0.001)


def run(study, options, behaviour=()):
    children = fake_study.FakeChildren(study, behaviour)
    lines = []
    failed = run_study.run_study(study, options, lambda progress: None, lines.append, children)
    return failed, children, lines


def finish_with(study, loss):
    def write(job):
        fake_study.write_job(study, job, {10: 5.0, 40: loss})
        return 0

    return write


def test_all_is_recorded_and_the_second_time_nothing_is_done(tmp_path):
    study, options = fake_study.plan(tmp_path)
    failed, children, _ = run(study, options)
    assert failed == []
    assert len(children.started) == 6
    assert set(fake_study.states(study).values()) == {"finished"}
    records = (tmp_path / "study/results.jsonl").read_text()
    assert json.loads(records.splitlines()[0])["kind"] == "study"
    failed, children, _ = run(study, options)
    assert (failed, children.started) == ([], [])
    assert (tmp_path / "study/results.jsonl").read_text() == records


def test_a_changed_plan_is_recorded_anew(tmp_path):
    run(*fake_study.plan(tmp_path))
    study, options = fake_study.plan(tmp_path, "Study.seeds=(1,)", "Study.matched_by=flops")
    run(study, options)
    plans = [r for r in study.directory.records() if isinstance(r, StudyPlan)]
    assert [plan.matched_by for plan in plans] == ["steps", "flops"]


def test_trials_are_first_and_the_best_rate_is_used(tmp_path):
    study, options = fake_study.plan(tmp_path, *RATES)
    best = {"ec/rate_0.002": 3.0, "gshard/rate_0.001": 3.0}
    behaviour = {name: finish_with(study, loss) for name, loss in best.items()}
    _, children, _ = run(study, options, behaviour)
    assert children.started[:4] == [
        "ec/rate_0.001",
        "gshard/rate_0.001",
        "ec/rate_0.002",
        "gshard/rate_0.002",
    ]
    runs = study.directory.runs()
    assert runs["ec/rate_0.001"].role == "rate_trial"
    assert runs["ec/seed_1"].learning_rate == 0.002
    assert runs["gshard/seed_1"].learning_rate == 0.001
    # The A/A runs have the baseline's rate.
    assert runs["gshard_aa/seed_1"].learning_rate == 0.001
    assert runs["gshard_aa/seed_1"].settings["WarmupCosine.peak"] == "0.001"


def test_trials_can_be_shorter(tmp_path):
    study, _ = fake_study.plan(tmp_path, *RATES, "Study.rate_items=('STEPS=10',)")
    assert {job.steps for job in study.trials()} == {10}
    assert {job.steps for job in study.comparison({})} == {40}


def test_an_arm_without_all_trials_is_not_compared_and_the_others_are(tmp_path):
    study, options = fake_study.plan(tmp_path, *RATES)
    failed, children, _ = run(study, options, {"ec/rate_0.001": "fails"})
    assert len(failed) == 1
    assert children.started[4:] == ["gshard/seed_1", "gshard_aa/seed_1"]
    assert fake_study.states(study)["ec/rate_0.001"] == "failed"
    # A trial that has diverged has ended.
    failed, children, _ = run(study, options, {"ec/rate_0.001": "diverges"})
    assert failed == []
    assert children.started == ["ec/rate_0.001", "ec/seed_1"]
    assert study.directory.runs()["ec/seed_1"].learning_rate == 0.002


def test_a_stopped_study_says_how_to_go_on(tmp_path):
    study, options = fake_study.plan(tmp_path)

    def stop(job):
        raise KeyboardInterrupt

    with pytest.raises(Interrupted, match=r"run the same command again:\\n  moe-jax compare"):
        run(study, options, {"gshard/seed_1": stop})
    found = fake_study.states(study)
    assert (found["ec/seed_1"], found["gshard/seed_1"]) == ("finished", "waiting")


def test_measurements_are_recorded_once(tmp_path, monkeypatch):
    """Step times for the configuration of an arm's first run; one leak test for each router."""
    measured = []

    def time_steps(jobs, fingerprints, rounds, say, variables):
        measured.append([job.name for job in jobs])
        return [
            StepTimes(arm, found, (1.0,) * rounds, "1 x cpu") for arm, found in fingerprints.items()
        ]

    def test_leaks(router, steps, seed):
        measured.append(router.name)
        return LeakTest("", run_study.describe(router), steps, 1.4, 1.39, 0.1, False)

    monkeypatch.setattr(run_study, "measure_step_times", time_steps)
    monkeypatch.setattr(run_study, "run_leak_test", test_leaks)
    same = "{'ec': ['routers/expert_choice.gin'], 'gshard': ['routers/gshard_top2.gin'], 'wide': "
    bindings = [
        f"Study.arms={same}['routers/expert_choice.gin', 'Model.d_ff=2048']}}",
        "Study.timing_rounds=3",
        "Study.leak_test_steps=20",
    ]
    study, options = fake_study.plan(tmp_path, *bindings)
    for _ in range(2):
        run(study, options)
    times = ["ec/seed_1", "gshard/seed_1", "wide/seed_1"]
    assert measured == [times, "expert_choice", "gshard_top2"]
    records = study.directory.records()
    assert [r.arm for r in records if isinstance(r, LeakTest)] == ["ec", "gshard", "wide"]
    runs = study.directory.runs()
    assert {r.arm: r.fingerprint for r in records if isinstance(r, StepTimes)} == {
        arm: runs[f"{arm}/seed_1"].fingerprint for arm in ("ec", "gshard", "wide")
    }


def test_one_of_several_machines_measures(tmp_path):
    study, options = fake_study.plan(tmp_path, "Study.timing_rounds=3")
    owner = dataclasses.asdict(this_process())
    record = {"identity": owner, "directory": str(tmp_path / "study")}
    (tmp_path / "study/owner.json").write_text(json.dumps(record))
    failed, _, lines = run(study, options)
    assert failed == []
    (line,) = lines
    assert line.startswith("not measured: ")


def test_what_cannot_be_measured_does_not_end_the_study(tmp_path, monkeypatch):
    def fail(*_):
        raise UserError("no memory")

    monkeypatch.setattr(run_study, "measure_step_times", fail)
    study, options = fake_study.plan(tmp_path, "Study.timing_rounds=3")
    failed, _, lines = run(study, options)
    assert failed == []
    assert lines == ["not measured: no memory"]


def test_a_failed_run_does_not_prevent_the_measurements(tmp_path, monkeypatch):
    measured = []

    def time_steps(jobs, fingerprints, rounds, say, variables):
        measured.extend(job.name for job in jobs)
        return []

    monkeypatch.setattr(run_study, "measure_step_times", time_steps)
    study, options = fake_study.plan(tmp_path, "Study.timing_rounds=3")
    failed, _, _ = run(study, options, {"ec/seed_1": "fails"})
    assert len(failed) == 1
    assert measured == ["gshard/seed_1", "ec/seed_2"]


def test_configurations_and_records_are_read_once(tmp_path, monkeypatch):
    counts = {"rate_jobs": 0, "read_records": 0}

    def counted(module, name):
        real = getattr(module, name)

        def call(*args):
            counts[name] += 1
            return real(*args)

        monkeypatch.setattr(module, name, call)

    counted(run_study.study_jobs, "rate_jobs")
    counted(study_directory, "read_records")
    study, options = fake_study.plan(tmp_path, *RATES)
    failed, children, _ = run(study, options)
    assert (failed, len(children.started)) == ([], 7)
    assert counts["rate_jobs"] == 1
    assert counts["read_records"] == 0
