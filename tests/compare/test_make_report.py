"""Reports, and what they need to be made again."""

import json
import shutil

import fake_runs
import fake_study
import pytest
from etils import epath

from moe_jax.compare import make_report
from moe_jax.compare.make_report import ReportChoices
from moe_jax.compare.records import RunRecord
from moe_jax.compare.results_file import read_records


@pytest.fixture(autouse=True)
def no_pages(monkeypatch):
    """The pages are tested in `tests/compare/report`."""
    monkeypatch.setattr(make_report, "write_report", lambda comparison, directory: None)


def write_runs(directory):
    return [
        str(fake_runs.write_run(directory / f"{router}_{seed}", router=router, seed=seed))
        for router in ("expert_choice", "gshard")
        for seed in (1, 2)
    ]


def report(paths, directory, *choices):
    directory.mkdir(exist_ok=True)
    made, _ = make_report.make_report(paths, epath.Path(directory), ReportChoices(*choices))
    return made


def test_a_report_on_runs_can_be_made_again_without_them(tmp_path):
    paths = write_runs(tmp_path / "runs")
    late = fake_runs.write_run(tmp_path / "runs/late", {10: 4.0}, router="switch")
    report_directory = tmp_path / "report"
    first = report([*paths, str(late)], report_directory, "expert_choice", None, "moe-jax compare")
    records = read_records(report_directory / "results.jsonl")
    assert records[0] == first.plan
    assert [r.name for r in records[1:]] == [path.rpartition("/")[2] for path in paths]
    assert json.loads((report_directory / "study.json").read_text())["jobs"] == {}
    shutil.rmtree(tmp_path / "runs")
    again = report([str(report_directory)], report_directory)
    assert (again.plan, again.answer, again.arms) == (first.plan, first.answer, first.arms)
    # Another baseline is one for that report.
    other = report([f"{report_directory}/results.jsonl"], report_directory, "gshard")
    assert other.plan.baseline == "gshard"
    assert read_records(report_directory / "results.jsonl") == records


def test_a_report_on_other_runs_replaces_the_records(tmp_path):
    paths = write_runs(tmp_path / "runs")
    report(paths, tmp_path / "report")
    report([paths[0], paths[2]], tmp_path / "report")
    records = read_records(tmp_path / "report/results.jsonl")
    assert sum(isinstance(record, RunRecord) for record in records) == 2


def test_a_study_keeps_its_records(tmp_path):
    study, _ = fake_study.plan(tmp_path)
    study.directory.append(study.plan)
    for job in study.comparison({}):
        fake_study.write_job(study, job)
        study.directory.append(study.directory.read(job))
    study.directory.write_study(study.plan, {"ec/seed_1": {}})
    before = (tmp_path / "study/results.jsonl").read_bytes()
    made = report([str(tmp_path / "study")], tmp_path / "study", "ec", None, "moe-jax compare x")
    assert made.plan.question == "How do the arms compare with ec, in training steps?"
    assert made.plan.command == "moe-jax compare x"
    assert report([str(tmp_path / "study")], tmp_path / "study").plan == study.plan
    report(write_runs(tmp_path / "runs"), tmp_path / "study")
    assert (tmp_path / "study/results.jsonl").read_bytes() == before
    # A report elsewhere has a copy.
    report([str(tmp_path / "study")], tmp_path / "copy")
    assert [r for r in read_records(tmp_path / "copy/results.jsonl") if r.kind == "study"] == [
        study.plan
    ]
