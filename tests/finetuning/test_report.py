"""The files of the report on a fine-tuning study."""

import fake_finetuning
import pytest
from etils import epath

from moe_jax.compare.make_report import ReportChoices
from moe_jax.compare.make_report import make_report as compare_report
from moe_jax.compare.results_file import read_records, write_records
from moe_jax.errors import UserError
from moe_jax.finetuning.report import make_report, summary_lines


def write(path):
    write_records(path, fake_finetuning.records())
    return str(path)


def test_a_report_from_its_records_alone(tmp_path):
    file = write(tmp_path / "results.jsonl")
    directory = epath.Path(tmp_path / "report")
    results, files = make_report(file, directory)
    html, markdown = files.html.read_text(), files.markdown.read_text()
    for text in ("Does EC fine-tune better?", "82.0", "[77.0, 87.0]", "SST-2", "bag of words"):
        assert text in html
    assert "| **ec**" in markdown or "| ec<br>" in markdown
    assert [str(path.name) for path in files.figures] == ["scores.png", "scores.svg"]
    # The records are beside it, and give the same report.
    assert read_records(directory / "results.jsonl") == fake_finetuning.records()
    again = epath.Path(tmp_path / "again")
    make_report(str(directory), again)
    assert (again / "report.html").read_bytes() == (directory / "report.html").read_bytes()
    lines = summary_lines(results, files)
    assert lines[0].startswith("ec reaches 52.0")
    assert any(line.startswith("dense") and "81.0 [74.4, 87.6]" in line for line in lines)


def test_other_records_are_refused_by_both_commands(tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(UserError, match="no plan of one"):
        make_report(str(tmp_path / "empty.jsonl"), epath.Path(tmp_path / "a"))
    with pytest.raises(UserError, match="there are no results of a fine-tuning study in"):
        make_report(str(tmp_path / "missing"), epath.Path(tmp_path / "a"))
    file = write(tmp_path / "results.jsonl")
    with pytest.raises(UserError, match="is a fine-tuning study, which has scores of tasks"):
        compare_report([file], epath.Path(tmp_path / "b"), ReportChoices())
