"""Scheduling of jobs, with child processes that write runs without training."""

import dataclasses
import json
import os
import signal
import threading

import fake_study
import pytest

from moe_jax.compare import scheduler
from moe_jax.compare.scheduler import Scheduler
from moe_jax.errors import Interrupted, UserError
from moe_jax.training.run_directory.process_identity import this_process


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr(scheduler, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(scheduler, "_LOOK_SECONDS", 0.0)


def run(study, behaviour=(), parallel=1, observe=lambda progress: None):
    children = fake_study.FakeChildren(study, behaviour)
    found = Scheduler(study.directory, children, parallel, observe)
    found.run(study.comparison({}))
    return found, children


def lock(directory, **identity):
    """Writes the lock of a process, by default of this one."""
    directory.mkdir(parents=True, exist_ok=True)
    owner = dataclasses.asdict(this_process()) | identity
    record = {"identity": owner, "directory": str(directory)}
    (directory / "owner.json").write_text(json.dumps(record))
    return directory / "owner.json"


def names(study):
    return [job.name for job in study.comparison({})]


def test_all_jobs_in_order_and_recorded(tmp_path):
    study, _ = fake_study.plan(tmp_path)
    found, children = run(study)
    assert children.started == names(study)
    runs = study.directory.runs()
    assert list(runs) == names(study)
    assert runs["gshard_aa/seed_2"].role == "aa"
    assert runs["gshard_aa/seed_2"].arm == "gshard"
    assert runs["ec/seed_1"].command.startswith("moe-jax train ")
    assert set(found.progress.states.values()) == {"finished"}


def test_what_is_recorded_is_skipped_without_its_directory(tmp_path):
    study, _ = fake_study.plan(tmp_path)
    run(study)
    (tmp_path / "study/runs").rename(tmp_path / "gone")
    _, children = run(study)
    assert children.started == []


def test_what_is_finished_but_not_recorded_is_recorded_and_not_trained(tmp_path):
    study, _ = fake_study.plan(tmp_path)
    job = study.comparison({})[1]
    fake_study.write_job(study, job)
    _, children = run(study)
    assert job.name not in children.started
    assert study.directory.runs()[job.name].outcome == "finished"


def test_an_unfinished_run_is_trained_on(tmp_path):
    study, _ = fake_study.plan(tmp_path)
    job = study.comparison({})[0]
    directory = fake_study.write_job(study, job, {10: 4.0})

    def finish(job):
        directory.rename(tmp_path / "before")
        fake_study.write_job(study, job)
        return 0

    _, children = run(study, {job.name: finish})
    assert children.started[0] == job.name
    assert study.directory.runs()[job.name].last_step == 40


def test_a_diverged_run_is_recorded_and_not_tried_again(tmp_path):
    study, _ = fake_study.plan(tmp_path)
    found, _ = run(study, {"ec/seed_1": "diverges"})
    assert found.progress.states["ec/seed_1"] == "diverged"
    _, children = run(study)
    assert children.started == []


def test_a_failed_run_is_shown_with_its_log_and_the_others_go_on(tmp_path):
    study, _ = fake_study.plan(tmp_path)
    found, children = run(study, {"ec/seed_1": "fails"})
    assert children.started == names(study)
    (line,) = scheduler.failed(found.progress)
    log = tmp_path / "study/runs/ec/seed_1.log"
    assert line == f"ec/seed_1: moe-jax: there is no file x.txt (exit code 1, log: {log})"
    _, children = run(study)
    assert children.started == ["ec/seed_1"]


def test_a_run_that_ends_early_without_an_error_has_failed(tmp_path):
    study, _ = fake_study.plan(tmp_path)
    found, _ = run(study, {"ec/seed_1": lambda job: 0})
    assert "it ended before its last step" in found.progress.errors["ec/seed_1"]


def test_several_at_a_time(tmp_path):
    study, _ = fake_study.plan(tmp_path)
    most = []

    def observe(progress):
        most.append(sum(state == "running" for state in progress.states.values()))

    _, children = run(study, parallel=2, observe=observe)
    assert sorted(children.started) == sorted(names(study))
    assert set(children.places) == {0, 1}


def test_a_run_of_another_process_is_looked_at_again_at_the_end(tmp_path):
    study, _ = fake_study.plan(tmp_path)
    job = study.comparison({})[0]
    owner = lock(tmp_path / "study/runs" / job.name)
    seen = []

    def observe(progress):
        seen.append(progress.states[job.name])
        if set(progress.states.values()) == {"finished", "elsewhere"} and owner.exists():
            # The other process ends without finishing it.
            owner.unlink()
            owner.parent.rmdir()

    _, children = run(study, observe=observe)
    assert children.started == [*names(study)[1:], job.name]
    assert seen[0] == "elsewhere"
    assert seen[-1] == "finished"


def test_what_another_process_has_recorded_meanwhile_is_not_trained(tmp_path):
    study, _ = fake_study.plan(tmp_path)
    first, last = study.comparison({})[0], study.comparison({})[-1]

    def observe(progress):
        if progress.states[first.name] == "finished" and last.name not in study.directory.runs():
            fake_study.write_job(study, last)
            study.directory.append(study.directory.read(last))

    _, children = run(study, observe=observe)
    assert last.name not in children.started


def test_a_child_that_finds_its_directory_locked_has_not_failed(tmp_path):
    """Two machines have started the same job at the same moment."""
    study, _ = fake_study.plan(tmp_path)
    job = study.comparison({})[0]
    attempts = []

    def start(job):
        attempts.append(job.name)
        if len(attempts) == 1:
            lock(tmp_path / "study/runs" / job.name)
            return 1
        fake_study.write_job(study, job)
        return 0

    def observe(progress):
        owner = tmp_path / "study/runs" / job.name / "owner.json"
        if progress.states[job.name] == "elsewhere" and owner.exists():
            owner.unlink()
            owner.parent.rmdir()

    found, _ = run(study, {job.name: start}, observe=observe)
    assert attempts == [job.name] * 2
    assert found.progress.states[job.name] == "finished"


def test_the_lock_of_a_dead_process_is_none(tmp_path):
    study, _ = fake_study.plan(tmp_path)
    directory = tmp_path / "study/runs/ec/seed_1"
    lock(directory, started="long ago")

    def finish(job):
        (directory / "owner.json").unlink()
        directory.rmdir()
        fake_study.write_job(study, job)
        return 0

    _, children = run(study, {"ec/seed_1": finish})
    assert children.started == names(study)


def test_a_silent_lock_of_another_machine_expires(tmp_path, monkeypatch):
    study, _ = fake_study.plan(tmp_path)
    directory = tmp_path / "study/runs/ec/seed_1"
    lock(directory, boot="another", host="another", machine="another")
    found = Scheduler(study.directory, fake_study.FakeChildren(study))
    place = study.comparison({})[0].directory(study.directory.path)
    assert found._is_locked(place)
    assert found._is_locked(place)
    monkeypatch.setattr(scheduler, "_STALE_SECONDS", 0.0)
    assert not found._is_locked(place)
    # A sign of life.
    os.utime(directory / "owner.json", (1.0, 1.0))
    assert found._is_locked(place)


@pytest.mark.parametrize("recorded", [True, False])
def test_a_changed_configuration_is_refused(tmp_path, recorded):
    before, _ = fake_study.plan(tmp_path)
    job = before.comparison({})[0]
    directory = fake_study.write_job(before, job)
    if recorded:
        before.directory.append(before.directory.read(job))
        directory.rename(tmp_path / "gone")
    study, _ = fake_study.plan(tmp_path, "ExpertChoice.capacity_factor=1.0")
    message = r"ec/seed_1 .*ExpertChoice.capacity_factor is 1.0, was 2.0"
    with pytest.raises(UserError, match=message):
        run(study)
    # What does not decide the numbers may change.
    study, _ = fake_study.plan(tmp_path, "Checkpoints.keep=1")
    run(study)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_children_save(tmp_path, number):
    study, _ = fake_study.plan(tmp_path)
    children = fake_study.FakeChildren(study, {"ec/seed_1": "runs"})

    def observe(progress):
        if progress.states["ec/seed_1"] == "running" and not sent:
            sent.append(number)
            threading.Timer(0.01, os.kill, (os.getpid(), number)).start()

    sent = []
    found = Scheduler(study.directory, children, observe=observe)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted) as raised:
        found.run(study.comparison({}))
    assert raised.value.args[0] == number
    assert children.started == ["ec/seed_1"]
    assert children.children["ec/seed_1"].terminated == 1
    assert found.progress.states["ec/seed_1"] == "waiting"
    assert signal.getsignal(signal.SIGTERM) is before
