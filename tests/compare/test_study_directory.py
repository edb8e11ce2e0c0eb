"""The directory of a study."""

import dataclasses
import json

import fake_runs
import fake_study
import pytest
from etils import epath

from moe_jax.compare.study_directory import (
    StudyDirectory,
    holds_study,
    keep_records,
    no_empty_directory,
)
from moe_jax.errors import UserError


def test_a_run_is_recorded_once(tmp_path):
    study, _ = fake_study.plan(tmp_path)
    job = study.comparison({})[0]
    fake_study.write_job(study, job)
    record = study.directory.read(job)
    for _ in range(2):
        study.directory.append(record)
    assert study.directory.records() == [record]
    assert (record.name, record.arm, record.fingerprint) == ("ec/seed_1", "ec", job.fingerprint)


def test_a_run_without_an_evaluation_has_no_record(tmp_path):
    study, _ = fake_study.plan(tmp_path)
    job = study.comparison({})[0]
    assert study.directory.read(job) is None
    (fake_study.write_job(study, job) / "metrics.jsonl").unlink()
    assert study.directory.read(job) is None


def test_the_log_is_beside_the_run(tmp_path, monkeypatch):
    study, _ = fake_study.plan(tmp_path)
    job = study.comparison({})[0]
    assert study.directory.log(job) == tmp_path / "study/runs/ec/seed_1.log"
    # A child process cannot write to an object store.
    monkeypatch.chdir(tmp_path)
    study.directory.path = epath.Path("gs://bucket/study")
    assert study.directory.log(job) == tmp_path / "ec-seed_1.log"


def test_study_json(tmp_path):
    study, _ = fake_study.plan(tmp_path)
    study.directory.write_study(study.plan, {"ec/seed_1": {"state": "waiting"}})
    found = json.loads((tmp_path / "study/study.json").read_text())
    assert found["plan"]["baseline"] == "gshard"
    assert found["jobs"] == {"ec/seed_1": {"state": "waiting"}}
    assert dataclasses.asdict(study.plan)["seeds"] == tuple(found["plan"]["seeds"])


def test_a_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to the output directory"):
        StudyDirectory(str(tmp_path / "file"))


def test_what_another_process_has_appended_is_read(tmp_path):
    study, _ = fake_study.plan(tmp_path)
    mine, other = study.directory, StudyDirectory(str(tmp_path / "study"))
    mine.append(study.plan)
    assert other.records() == [study.plan]
    other.append(dataclasses.replace(study.plan, question="2"))
    mine.append(dataclasses.replace(study.plan, question="3"))
    for directory in (mine, other):
        assert [plan.question for plan in directory.records()] == [study.plan.question, "2", "3"]
    # A line that a killed process has begun is replaced.
    with open(mine.results, "a") as file:
        file.write('{"kind"')
    mine.append(dataclasses.replace(study.plan, question="4"))
    assert [plan.question for plan in mine.records()][1:] == ["2", "3", "4"]


def test_a_job_is_read_with_the_permissions_of_the_study(tmp_path, monkeypatch):
    (tmp_path / "permitted_by_test.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("MOE_JAX_ALLOW_IMPORTS", "permitted_by_test")
    study, _ = fake_study.plan(tmp_path)
    job = study.comparison({})[0]
    config = fake_study.write_job(study, job) / "config.gin"
    config.write_text(f"import permitted_by_test\n{config.read_text()}")
    assert study.directory.read(job).outcome == "finished"
    monkeypatch.delenv("MOE_JAX_ALLOW_IMPORTS")
    with pytest.raises(UserError, match="'import permitted_by_test' was refused"):
        study.directory.read(job)


def test_the_directory_of_a_run_is_refused(tmp_path):
    directory = fake_runs.write_run(tmp_path / "run")
    with pytest.raises(UserError, match=r"run is a run directory \(it has a config.gin\)"):
        StudyDirectory(str(directory))


def test_a_failure_leaves_no_empty_directory(tmp_path):
    path = epath.Path(tmp_path / "a" / "b")

    def fail(*files):
        path.mkdir(parents=True, exist_ok=True)
        for name in files:
            (path / name).write_text("")
        raise ValueError("failed")

    with pytest.raises(ValueError, match="failed"), no_empty_directory(path):
        fail()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="failed"), no_empty_directory(path):
        fail("file")
    assert (tmp_path / "a/b/file").exists()
    (tmp_path / "a/b/file").unlink()
    # It was there before.
    with pytest.raises(ValueError, match="failed"), no_empty_directory(path):
        fail()
    assert (tmp_path / "a/b").exists()


def test_a_report_on_runs_is_no_study(tmp_path):
    study, _ = fake_study.plan(tmp_path)
    assert not holds_study(study.directory.path)
    keep_records(study.directory.path, study.plan, [])
    assert not holds_study(study.directory.path)
    study.directory.write_study(study.plan, {"ec/seed_1": {}})
    assert holds_study(study.directory.path)
    (tmp_path / "study/study.json").unlink()
    assert holds_study(study.directory.path)
