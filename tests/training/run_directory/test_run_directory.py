"""Directories that a run may be written to."""

import os

import pytest

from moe_jax.errors import UserError
from moe_jax.training.run_directory import run_directory


def test_a_place_that_is_new_or_has_other_files_is_taken(tmp_path):
    assert run_directory.prepare(str(tmp_path / "a" / "b")).is_dir()
    # As of `moe-jax train > DIR/train.log`.
    (tmp_path / "train.log").write_text("x")
    (tmp_path / "my.gin").write_text("y")
    run_directory.prepare(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == ["a", "my.gin", "train.log"]


@pytest.mark.parametrize("inside", ["", "run"])
def test_a_file_is_no_directory(tmp_path, inside):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"is a file|cannot write to .*: Not a directory"):
        run_directory.prepare(str(tmp_path / "file" / inside))


def test_a_link_to_nothing_is_named(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match="link is a link to a place that is not there"):
        run_directory.prepare(str(tmp_path / "link"))


def test_a_configuration_that_is_no_runs_is_not_written_over(tmp_path):
    (tmp_path / "config.gin").write_text("my own")
    with pytest.raises(UserError, match=r"has a config\.gin that is not a run's"):
        run_directory.prepare(str(tmp_path))
    assert (tmp_path / "config.gin").read_text() == "my own"
    # A run's has one or the other beside it.
    (tmp_path / "checkpoints").mkdir()
    run_directory.prepare(str(tmp_path))


def test_a_home_directory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("~", str(tmp_path), "/"):
        with pytest.raises(UserError, match="would spread a run's files over that directory"):
            run_directory.prepare(name)
    assert os.listdir(tmp_path) == []


def test_a_file_is_whole_or_not_there(tmp_path, monkeypatch):
    directory = run_directory.prepare(str(tmp_path))
    run_directory.write_config(directory, "first")

    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="No space"):
            run_directory.write_config(directory, "second")
    assert (tmp_path / "config.gin").read_text() == "first"
    assert os.listdir(tmp_path) == ["config.gin"]
