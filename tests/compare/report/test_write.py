"""The files of a report."""

import os

import pytest
from etils import epath
from sample_comparison import hostile_comparison, sample_comparison

from moe_jax.compare.report import write, write_report
from moe_jax.errors import UserError


def contents(directory):
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def test_equal_comparisons_give_equal_bytes(tmp_path):
    for name in ("one", "two"):
        written = write_report(sample_comparison(), epath.Path(tmp_path / name / "deep"))
    one, two = (contents(tmp_path / name / "deep") for name in ("one", "two"))
    assert one == two
    drawn = ("loss_curves", "speed_up", "speed_up_by_loss", "both_losses")
    figures = {f"figures/{name}.{end}" for name in drawn for end in ("png", "svg")}
    assert set(one) == {"report.html", "report.md"} | figures
    assert {os.path.relpath(path, written.html.parent) for path in written.figures} == figures
    for content in one.values():
        assert str(tmp_path).encode() not in content
    for name in drawn:
        assert f"figures/{name}.png".encode() in one["report.md"]


def test_a_report_replaces_the_one_before(tmp_path, monkeypatch):
    monkeypatch.setattr(write, "draw_figures", lambda comparison: ())
    write_report(sample_comparison(), epath.Path(tmp_path))
    written = write_report(hostile_comparison("other"), epath.Path(tmp_path))
    assert "<h1>other</h1>" in written.html.read_text()


def test_a_directory_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(write, "draw_figures", lambda comparison: ())
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^cannot write .*file: "):
        write_report(sample_comparison(), epath.Path(tmp_path / "file"))
