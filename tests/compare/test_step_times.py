"""Interleaved step times, in a child process."""

import dataclasses
from typing import ClassVar

import fake_study
import pytest

from moe_jax.compare import step_times, timing_process
from moe_jax.compare.records import StepTimes
from moe_jax.errors import UserError

TINY = ["Model.d_model=16", "Model.d_ff=32", "Model.num_heads=2", "Model.head_dim=8"]
TINY += ["Model.num_layers=1", "Model.moe_every=1"]


def first_jobs(tmp_path, *bindings):
    study, _ = fake_study.plan(tmp_path, *bindings)
    return [job for job in study.comparison({}) if job.role == "comparison"][:2]


def test_times_are_missing_until_all_arms_have_those_of_their_configuration(tmp_path):
    jobs = first_jobs(tmp_path)
    prints = {"ec": "1", "gshard": "2"}
    times = [StepTimes(arm, found, (1.0,), "1 x cpu") for arm, found in prints.items()]
    assert step_times.are_missing(jobs, prints, [])
    assert step_times.are_missing(jobs, prints, times[:1])
    assert not step_times.are_missing(jobs, prints, times)
    other = dataclasses.replace(times[1], fingerprint="3")
    assert step_times.are_missing(jobs, prints, [times[0], other])
    sessions = [dataclasses.replace(found, session=found.arm) for found in times]
    assert step_times.are_missing(jobs, prints, sessions)
    # The last ones count.
    assert not step_times.are_missing(jobs, prints, [other, *times])


def test_an_error_of_the_process_is_one_line(tmp_path):
    jobs = first_jobs(tmp_path)
    source = dataclasses.replace(jobs[0].source, bindings=("Train.stepz=3",))
    jobs[0] = dataclasses.replace(jobs[0], source=source)
    with pytest.raises(UserError, match=r"the steps of the arms could not be timed: .*stepz"):
        step_times.measure_step_times(jobs, {"ec": "1", "gshard": "2"}, 1)


class FakeArm:
    order: ClassVar[list[str]] = []

    def __init__(self, experiment, on_host):
        self.name = experiment

    def seconds(self):
        self.order.append(self.name)
        return float(len(self.order))


def test_arms_are_timed_in_turn_and_each_begins_a_round(monkeypatch):
    monkeypatch.setattr(timing_process, "TimedArm", FakeArm)
    monkeypatch.setattr(timing_process, "_fit", lambda experiments: True)
    times = timing_process.time_arms({"a": "A", "b": "B"}, 3, lambda stage: None)
    assert FakeArm.order == ["A", "B", "B", "A", "A", "B"]
    assert times == {"a": [1.0, 4.0, 5.0], "b": [2.0, 3.0, 6.0]}


@pytest.mark.slow
def test_steps_are_timed_with_their_states_on_the_host(tmp_path, monkeypatch):
    monkeypatch.setattr(timing_process, "_fit", lambda experiments: False)
    jobs = first_jobs(tmp_path, *TINY)
    experiments = {job.arm: timing_process.load(job.source) for job in jobs}
    times = timing_process.time_arms(experiments, 2, lambda stage: None)
    assert list(times) == ["ec", "gshard"]
    assert all(len(found) == 2 and min(found) > 0 for found in times.values())
