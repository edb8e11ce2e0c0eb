"""Training does not write through symbolic links that leave the run directory."""

import pytest
from etils import epath

from moe_jax.errors import UserError
from moe_jax.training.run_directory import run_directory
from moe_jax.training.run_directory.symlinks import refuse_external_symlinks


@pytest.fixture
def run(tmp_path):
    """Returns a run directory beside a file of the user."""
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    return tmp_path / "run"


@pytest.mark.parametrize("name", ["metrics.jsonl", "config.gin", "run.json", "time.jsonl"])
@pytest.mark.parametrize("target", ["../precious", "../new"])
def test_a_link_to_a_file_outside_is_refused(run, name, target):
    (run / name).symlink_to(target)
    with pytest.raises(UserError, match=f"{name} is a link to .*{target[3:]}, outside"):
        run_directory.prepare(str(run))
    assert (run.parent / "precious").read_text() == "mine"
    assert not (run.parent / "new").exists()


def test_links_inside_and_to_directories_stand(run, tmp_path):
    (run / "first.json").write_text("")
    (run / "latest.json").symlink_to("first.json")
    (tmp_path / "large_disk").mkdir()
    (run / "tensorboard").symlink_to(tmp_path / "large_disk")
    assert run_directory.prepare(str(run)) == epath.Path(run)


def test_a_run_directory_may_be_a_link(run, tmp_path):
    (run / "metrics.jsonl").write_text("")
    (tmp_path / "alias").symlink_to(run)
    refuse_external_symlinks(epath.Path(tmp_path / "alias"))
    refuse_external_symlinks(epath.Path("gs://bucket/run"))
