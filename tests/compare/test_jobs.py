"""The jobs of a study, their order and their command lines."""

import fake_study
import pytest
from etils import epath

from moe_jax import config, experiments
from moe_jax.compare.fingerprints import fingerprint, resolved_settings
from moe_jax.compare.jobs import changes, check_unchanged
from moe_jax.errors import UserError


def test_seed_by_seed_over_all_arms(tmp_path):
    study, _ = fake_study.plan(tmp_path)
    assert [(j.name, j.role, j.seed, j.data_seed) for j in study.comparison({})] == [
        ("ec/seed_1", "comparison", 1, 1),
        ("gshard/seed_1", "comparison", 1, 1),
        ("gshard_aa/seed_1", "aa", 1001, 1),
        ("ec/seed_2", "comparison", 2, 2),
        ("gshard/seed_2", "comparison", 2, 2),
        ("gshard_aa/seed_2", "aa", 1002, 2),
    ]
    assert {job.arm for job in study.comparison({}) if job.role == "aa"} == {"gshard"}
    assert study.trials() == []


def test_the_first_trial_of_every_arm_is_first(tmp_path):
    bindings = ["Study.learning_rates=(1e-3, 2e-3)", "Study.arm_rates={'ec': (3e-3, 4e-3, 5e-3)}"]
    study, _ = fake_study.plan(tmp_path, *bindings)
    names = [job.name for job in study.trials()]
    assert names == [
        "ec/rate_0.003",
        "gshard/rate_0.001",
        "ec/rate_0.004",
        "gshard/rate_0.002",
        "ec/rate_0.005",
    ]
    assert {(job.role, job.seed, job.data_seed) for job in study.trials()} == {("rate_trial", 0, 0)}


def test_one_rate_is_not_tried(tmp_path):
    study, _ = fake_study.plan(tmp_path, "Study.learning_rates=(5e-3,)")
    assert study.trials() == []
    assert study.chosen_rates() == {"ec": 0.005, "gshard": 0.005}
    job = study.comparison(study.chosen_rates())[0]
    assert job.learning_rate == 0.005
    assert job.settings["WarmupCosine.peak"] == "0.005"


def test_the_command_line(tmp_path):
    study, _ = fake_study.plan(tmp_path)
    job = study.comparison({})[2]
    command = job.command(epath.Path("/a b/study"), ["--no_cache"])
    assert command.startswith("moe-jax train --gin_file=runs/quickstart.gin ")
    assert command.endswith(
        "--gin.Train.seed=1001 --gin.Data.seed=1 --no_cache "
        "'--output_dir=/a b/study/runs/gshard_aa/seed_1'"
    )
    assert job.child(epath.Path("/x"))[1:4] == ["-m", "moe_jax.cli", "train"]


def test_settings_and_fingerprint_are_those_of_the_run(tmp_path):
    study, _ = fake_study.plan(tmp_path, "Study.learning_rates=(1e-5,)")
    jobs = study.comparison(study.chosen_rates())
    for job in jobs[::3]:
        experiments.load(job.source)
        loaded = resolved_settings(config.operative())
        assert job.settings == loaded
        assert job.fingerprint == fingerprint(loaded)
    assert len({job.fingerprint for job in jobs}) == len(jobs)


def test_what_has_changed():
    before = {"Train.steps": "4", "Model.d_ff": "8", "Writers.tensorboard": "True", "Old.x": "1"}
    now = {"Train.steps": "5", "Model.d_ff": "8", "Writers.tensorboard": "False", "New.x": "1"}
    assert changes(now, before) == ["Train.steps is 5, was 4"]
    # A weight with its default value is not written down.
    weight, other = {"Loss.weights['balance']": "0.1"}, {"Loss.weights['balance']": "0.2"}
    assert changes(weight, {}) == ["Loss.weights['balance'] is 0.1, was the default"]
    assert changes({}, weight) == ["Loss.weights['balance'] is the default, was 0.1"]
    assert changes(weight, other) == ["Loss.weights['balance'] is 0.1, was 0.2"]
    assert changes(weight, weight) == []


def test_a_changed_configuration_is_one_line(tmp_path):
    study, _ = fake_study.plan(tmp_path)
    jobs = study.comparison({})
    trained = {job.name: {**job.settings, "Model.d_ff": "7"} for job in jobs}
    with pytest.raises(UserError) as raised:
        check_unchanged(jobs, trained)
    message = str(raised.value)
    assert "\n" not in message
    assert "ec/seed_1, gshard/seed_1, gshard_aa/seed_1 and 3 more has changed" in message
    assert "Model.d_ff is 1024, was 7" in message
    check_unchanged(jobs, {"ec/seed_1": jobs[0].settings, "other": {}})
