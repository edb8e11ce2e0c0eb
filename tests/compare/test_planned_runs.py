"""The commands of a study's missing jobs, as another scheduler is given them."""

import fake_study

from moe_jax.compare.planned_runs import missing_commands
from moe_jax.compare.run_study import run_study

RATES = ["Study.learning_rates=(1e-3, 2e-3)", "Study.seeds=(1,)"]


def test_commands_of_missing_runs(tmp_path):
    study, _ = fake_study.plan(tmp_path)
    fake_study.write_job(study, study.comparison({})[1])
    commands = missing_commands(study, ["--no_cache"])
    assert len(commands) == 5
    assert all(c.startswith("moe-jax train ") and " --no_cache " in c for c in commands)
    assert not any("runs/gshard/seed_1" in command for command in commands)


def test_commands_before_the_rates_are_chosen(tmp_path):
    study, options = fake_study.plan(tmp_path, *RATES, "Study.arm_rates={'ec': (5e-3,)}")
    commands = missing_commands(study)
    assert [c.rpartition("runs/")[2] for c in commands] == [
        "gshard/rate_0.001",
        "gshard/rate_0.002",
        "ec/seed_1",
    ]
    children = fake_study.FakeChildren(study, {"ec/seed_1": "fails"})
    run_study(study, options, lambda progress: None, lambda line: None, children)
    (command,) = missing_commands(study)
    assert command.endswith("runs/ec/seed_1")


def test_commands_of_the_next_jobs_once_the_trials_have_ended(tmp_path):
    """Another scheduler has trained the trials: nothing has recorded them."""
    study, _ = fake_study.plan(tmp_path, *RATES)
    assert len(missing_commands(study)) == 4
    for job in study.trials():
        fake_study.write_job(study, job)
    commands = missing_commands(study)
    assert [c.rpartition("runs/")[2] for c in commands] == [
        "ec/seed_1",
        "gshard/seed_1",
        "gshard_aa/seed_1",
    ]
    assert [record.kind for record in study.directory.records()] == ["study", *["run"] * 4]


def test_a_broken_run_is_trained_again(tmp_path):
    study, _ = fake_study.plan(tmp_path)
    directory = fake_study.write_job(study, study.comparison({})[0])
    (directory / "run.json").write_text("[]")
    assert len(missing_commands(study)) == 6
