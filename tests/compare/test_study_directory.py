"""The directory of a study."""

import dataclasses
import json

import fake_study
import pytest
from etils import epath

from moe_jax.compare.study_directory import StudyDirectory
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
