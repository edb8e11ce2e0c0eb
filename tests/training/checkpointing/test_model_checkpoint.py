"""A checkpoint of a model alone is read like any other, and training does not resume from it."""

import jax.numpy as jnp
import mesh_step
import numpy as np
import pytest
import tiny
from etils import epath

from moe_jax.errors import UserError
from moe_jax.routers.expert_choice import ExpertChoice
from moe_jax.training.checkpointing.checkpoint_manager import CheckpointManager
from moe_jax.training.checkpointing.model_checkpoint import save_model


def test_what_is_saved_is_restored(tmp_path):
    model, variables = tiny.make(ExpertChoice())
    directory = epath.Path(tmp_path / "checkpoints")
    save_model(directory, 7, variables)
    checkpoints = CheckpointManager(directory)
    try:
        assert checkpoints.steps() == [7]
        restored = checkpoints.restore_variables(7, model)
        with pytest.raises(UserError, match=r"step 7 .* has the model only"):
            checkpoints.restore(model, mesh_step.keep_gradients(), None)
    finally:
        checkpoints.close()
    for name in ("params", "router_state"):
        saved, found = getattr(variables, name), getattr(restored, name)
        assert saved.keys() == found.keys()
        for path in saved:
            np.testing.assert_array_equal(found[path], saved[path])
    assert (directory / "7").exists()


def test_values_that_are_not_finite_are_not_saved(tmp_path):
    _, variables = tiny.make(ExpertChoice())
    variables.params["embedding"] = variables.params["embedding"].at[0, 0].set(jnp.nan)
    directory = epath.Path(tmp_path / "checkpoints")
    with pytest.raises(UserError, match="params/embedding has values that are not finite"):
        save_model(directory, 7, variables)
    assert not directory.exists()
