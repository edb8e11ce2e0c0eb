"""The result on the terminal."""

from etils import epath
from sample_comparison import HOSTILE, hostile_comparison, sample_comparison

from moe_jax.compare.report import ReportFiles, summary_lines


def test_answer_table_and_paths():
    files = ReportFiles(epath.Path("out/report.html"), epath.Path("out/report.md"), ())
    lines = summary_lines(sample_comparison(), files)
    assert lines[0].startswith("Yes: ec_sequence")
    assert lines[1].startswith("warning: ec_sequence sees the future")
    head = next(line for line in lines if line.startswith("arm "))
    dense = next(line for line in lines if line.startswith("dense "))
    assert head.split("  ")[0] == "arm"
    assert dense.split()[1:6] == ["3.655", "3.655", "0.62×", "(not", "reached)"]
    assert lines[-2:] == ["report: out/report.html", "        out/report.md"]


def test_a_study_that_cannot_tell_says_so_first():
    assert summary_lines(sample_comparison(aa_ratio=1.2))[0].startswith("This study cannot tell.")


def test_control_characters_do_not_reach_the_terminal():
    lines = summary_lines(hostile_comparison())
    assert all(line.isprintable() for line in lines)
    assert lines[0] == HOSTILE.replace("\x1b", "\\x1b").replace("\n", "\\n")
