"""The error about a checkpoint of another configuration names the differing settings."""

import pytest
from etils import epath

from moe_jax import config, experiments
from moe_jax.config_source import ConfigSource
from moe_jax.errors import UserError
from moe_jax.training.checkpointing.mismatch import (
    CheckpointMismatch,
    explain_mismatch,
    mismatch_error,
)

ARRAYS = "the checkpoint does not fit this configuration: groups/layers/0/wi: [8] -> [16]"


def said(path, item, before, now, trains=True):
    """Returns the message for a run that was started with `before` and is resumed with `now`."""
    texts = []
    for bindings in (before, now):
        experiments.load(ConfigSource(["runs/quickstart.gin"], bindings))
        texts.append(config.operative())
    (path / "config.gin").write_text(texts[0])
    return str(
        mismatch_error(
            CheckpointMismatch(ARRAYS, item, 7), epath.Path(path), texts[1], trains=trains
        )
    )


def test_another_optimiser(tmp_path):
    line = said(tmp_path, "optimizer", ["Experiment.optimizer=@Adafactor()"], [])
    assert line == (
        f"the checkpoint at step 7 in {tmp_path} does not fit: the optimiser was Adafactor and is "
        "now AdamW; start in another directory (--output_dir), or set it back: "
        '--gin.Experiment.optimizer="@Adafactor()"'
    )


def test_another_shape_is_named_whatever_else_changed(tmp_path):
    changed = ["Model.d_model=512", "Model.num_layers=2", "Model.remat=full", "Model.dropout=0.1"]
    line = said(tmp_path, "variables", [], changed)
    assert "Model.d_model was 256 and is now 512, Model.num_layers was 4 and is now 2;" in line
    assert line.endswith("set them back: --gin.Model.d_model=256 --gin.Model.num_layers=4")
    assert "remat" not in line
    assert "dropout" not in line


def test_values_behind_macros_are_compared(tmp_path):
    width = "Model.d_model=%WIDTH"
    line = said(tmp_path, "variables", [width, "WIDTH=64"], [width, "WIDTH=128"])
    assert "Model.d_model was 64 and is now 128" in line


def test_another_router_at_evaluation(tmp_path):
    choice = ["Experiment.router=@TokenChoice()"]
    line = said(tmp_path, "variables", [], choice, trains=False)
    assert "the router was ExpertChoice and is now TokenChoice; set it back:" in line
    assert "--output_dir" not in line
    line = said(tmp_path, "variables", choice, [*choice, "TokenChoice.balance=bias"])
    assert "TokenChoice.balance was 'none' and is now 'bias'" in line


def test_other_frozen_parameters_have_other_optimiser_state(tmp_path):
    frozen = ["Train.frozen=('router_kernel',)"]
    line = said(tmp_path, "optimizer", frozen, [])
    assert "Train.frozen was ('router_kernel',) and is now ();" in line
    assert line.endswith("""--gin.Train.frozen="('router_kernel',)\"""")
    # Runs of earlier versions have no such setting.
    text = (tmp_path / "config.gin").read_text()
    assert "Train.frozen = ('router_kernel',)" in text
    said(tmp_path, "optimizer", [], frozen)
    config_file = tmp_path / "config.gin"
    config_file.write_text(config_file.read_text().replace("Train.frozen = ()\n", ""))
    error = CheckpointMismatch(ARRAYS, "optimizer", 7)
    line = str(mismatch_error(error, epath.Path(tmp_path), config.operative(), trains=True))
    assert "Train.frozen was () and is now ('router_kernel',);" in line


def test_without_a_difference_the_arrays_are_shown(tmp_path):
    assert said(tmp_path, "variables", [], ["Data.seed=3"]) == ARRAYS
    (tmp_path / "config.gin").unlink()
    error = mismatch_error(
        CheckpointMismatch(ARRAYS, "variables", 7), epath.Path(tmp_path), "", trains=True
    )
    assert str(error) == ARRAYS


def test_the_error_is_replaced_on_its_way(tmp_path):
    said(tmp_path, "variables", [], [])
    experiments.load(ConfigSource(["runs/quickstart.gin"], ["Model.d_ff=512"]))
    run, now = epath.Path(tmp_path), config.operative()
    with (
        pytest.raises(UserError, match=r"Model\.d_ff was 1024 and is now 512"),
        explain_mismatch(run, now, trains=True),
    ):
        raise CheckpointMismatch(ARRAYS, "variables", 7)
