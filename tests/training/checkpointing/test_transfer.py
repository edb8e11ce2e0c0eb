"""What a new model takes from the checkpoint of another run, on any mesh."""

import functools

import jax
import numpy as np
import optax
import pytest
import tiny
from etils import epath
from tiers import mostly_slow

from moe_jax.models.functional import LanguageModel
from moe_jax.routers.expert_choice import ExpertChoice
from moe_jax.routers.gshard import GShardTop2
from moe_jax.routers.hash import Hash
from moe_jax.routers.token_choice import TokenChoice
from moe_jax.sharding.mesh import MeshConfig
from moe_jax.sharding.partition import SINGLE_DEVICE, make_partition
from moe_jax.training.checkpointing.checkpoint_config import CheckpointConfig
from moe_jax.training.checkpointing.checkpoint_manager import CheckpointManager
from moe_jax.training.checkpointing.mismatch import CheckpointMismatch
from moe_jax.training.checkpointing.transfer import (
    continue_optimizer,
    plan_transfer,
    transfer_state,
)
from moe_jax.training.optimizers import Optimizer, adafactor, adamw
from moe_jax.training.schedules import warmup_cosine
from moe_jax.training.state import TrainState, make_state

SHAPE = {"num_layers": 2, "moe_every": 1, "position": "rotary", "d_model": 8, "d_ff": 8}
SHAPE |= {"num_heads": 2, "head_dim": 4}
EC = ExpertChoice(2.0)
OPTIMIZER = adamw(warmup_cosine(1e-2, 10, 2))
FFN = "groups/layers/0/ffn"
THRESHOLD, BIAS = (f"router_state/{FFN}/router_state/{name}" for name in ("threshold", "bias"))
KERNEL = f"params/{FFN}/router_kernel"


class Position:
    """A position in the data."""

    def save(self, directory):
        directory.mkdir(parents=True, exist_ok=True)

    def restore(self, directory): ...


def make(router, mesh=None, **changes):
    partition = SINGLE_DEVICE if mesh is None else make_partition(mesh, jax.devices()[:4])
    return LanguageModel(tiny.config(**SHAPE | changes), router, partition)


@functools.cache
def trained():
    """Returns a state with values everywhere that no initialisation gives, on the host."""
    state = jax.device_get(make_state(make(EC), OPTIMIZER, seed=3))
    rng = np.random.default_rng(0)

    def other(leaf):
        if np.issubdtype(leaf.dtype, np.integer):
            return leaf + 7
        return (leaf + rng.uniform(0.01, 0.02, leaf.shape)).astype(leaf.dtype)

    return TrainState(
        state.step,
        jax.tree.map(other, state.variables),
        jax.tree.map(other, state.optimizer_state),
        state.guard,
    )


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    directory = epath.Path(tmp_path_factory.mktemp("source")) / "checkpoints"
    manager = CheckpointManager(directory, CheckpointConfig(every=1))
    manager.save(7, jax.tree.map(jax.numpy.asarray, trained()), Position(), last=True)
    manager.wait()
    yield manager
    manager.close()


def check_params(state, names=None):
    for name, value in trained().variables.params.items():
        if names is None or name in names:
            np.testing.assert_array_equal(state.variables.params[name], value, err_msg=name)


MESHES = {
    "one device": None,
    "fsdp 2, expert 2": MeshConfig(fsdp=2, expert=2),
}


@pytest.mark.parametrize("mesh", mostly_slow(MESHES, ["one device"]))
def test_the_same_router_takes_everything(checkpoints, mesh):
    model = make(ExpertChoice(1.0), MESHES[mesh])
    state, transfer = transfer_state(checkpoints, 7, model, OPTIMIZER, seed=0)
    assert int(state.step) == 0
    assert transfer.dropped == transfer.made == ()
    check_params(state)
    (threshold,) = state.variables.router_state.values()
    np.testing.assert_array_equal(threshold, *trained().variables.router_state.values())
    # A fresh optimiser, and everything where a new state has it.
    fresh = make_state(model, OPTIMIZER, seed=0)
    for ours, new in zip(jax.tree.leaves(state), jax.tree.leaves(fresh), strict=True):
        assert ours.sharding.is_equivalent_to(new.sharding, new.ndim)
        assert (ours.shape, ours.dtype) == (new.shape, new.dtype)
    moments = jax.tree.leaves(state.optimizer_state)
    assert all(not np.asarray(leaf).any() for leaf in moments)


@pytest.mark.parametrize("mesh", mostly_slow(MESHES, ["fsdp 2, expert 2"]))
def test_another_router_drops_and_makes_state(checkpoints, mesh):
    model = make(TokenChoice(k=2, balance="bias"), MESHES[mesh])
    state, transfer = transfer_state(checkpoints, 7, model, OPTIMIZER, seed=0)
    assert transfer.dropped == (THRESHOLD,)
    assert transfer.made == (BIAS,)
    assert str(transfer) == (
        f"taken: {len(trained().variables.params)} arrays of parameters; dropped: threshold; "
        "made new: bias"
    )
    check_params(state)
    assert not np.asarray(state.variables.router_state[f"{FFN}/router_state/bias"]).any()


def test_routers_without_a_matrix():
    """Of an unlearned router, and to one: the matrix is made new or dropped."""
    learned, hashed = {"params/embedding": "float32[8,4]", KERNEL: "float32[4,2]"}, {}
    hashed["params/embedding"] = learned["params/embedding"]
    assert plan_transfer(learned, hashed).dropped == (KERNEL,)
    assert plan_transfer(hashed, learned).made == (KERNEL,)


@pytest.mark.slow
@pytest.mark.parametrize("router", [Hash(), GShardTop2()])
def test_routers_without_state(checkpoints, router):
    state, _ = transfer_state(checkpoints, 7, make(router), OPTIMIZER, seed=0)
    assert not state.variables.router_state
    check_params(state, state.variables.params)


def test_state_of_another_shape_is_made_new():
    saved = {"params/embedding": "float32[8,4]", THRESHOLD: "float32[1,4]"}
    transfer = plan_transfer(saved, saved | {THRESHOLD: "float32[1,8]"})
    assert transfer.dropped == transfer.made == (THRESHOLD,)


@pytest.mark.parametrize(
    "change",
    [
        {"params/embedding": "float32[16,4]"},
        {"params/other": "float32[4]"},
        {KERNEL: "float32[4,8]"},
    ],
)
def test_other_parameters_are_refused(change):
    saved = {"params/embedding": "float32[8,4]", KERNEL: "float32[4,2]"}
    (name,) = change
    for before, now in ((saved, saved | change), (saved | change, saved)):
        with pytest.raises(ValueError, match=name):
            plan_transfer(before, now)


def test_another_model_is_a_mismatch(checkpoints):
    with pytest.raises(CheckpointMismatch, match=r"params/embedding: float32\[64,8\] ->"):
        transfer_state(checkpoints, 7, make(EC, d_model=16), OPTIMIZER, seed=0)


def test_a_continued_optimiser_has_the_moments_and_schedules_start_anew(checkpoints):
    model = make(GShardTop2())
    state, _ = transfer_state(checkpoints, 7, model, OPTIMIZER, seed=0)
    state = continue_optimizer(checkpoints, 7, state, model, OPTIMIZER)
    expected = jax.tree.leaves(trained().optimizer_state)
    found = jax.tree.leaves(state.optimizer_state)
    schedules = [
        node
        for node in jax.tree.leaves(
            state.optimizer_state, is_leaf=lambda n: isinstance(n, optax.ScaleByScheduleState)
        )
        if isinstance(node, optax.ScaleByScheduleState)
    ]
    assert [int(node.count) for node in schedules] == [0]
    differing = [
        ours.shape for ours, theirs in zip(found, expected, strict=True) if (ours != theirs).any()
    ]
    # The count of the schedule only: Adam's own count goes on.
    assert differing == [()]


@pytest.mark.parametrize(
    "optimizer",
    [adafactor(), Optimizer(OPTIMIZER.transform, OPTIMIZER.learning_rate, True, ("experts",))],
    ids=["another", "frozen"],
)
def test_another_optimiser_cannot_go_on(checkpoints, optimizer):
    model = make(EC)
    state = TrainState(None, None, None, None)
    with pytest.raises(CheckpointMismatch) as error:
        continue_optimizer(checkpoints, 7, state, model, optimizer)
    assert error.value.item == "optimizer"
