"""Law 2 for expert choice and the dense model: a step is the same on every mesh."""

import jax
import numpy as np
import pytest
import tiny
from mesh_step import SEED, Setting, check, label
from tiers import mostly_slow, slow

from moe_jax.models.functional import LanguageModel
from moe_jax.routers.capped_expert_choice import CappedExpertChoice
from moe_jax.routers.expert_choice import ExpertChoice
from moe_jax.routers.expert_threshold import ExpertThreshold
from moe_jax.routing.pools import Pool
from moe_jax.sharding.mesh import MeshConfig
from moe_jax.sharding.partition import make_partition
from moe_jax.training.optimizers import adafactor
from moe_jax.training.state import make_state

WHOLE, OWN = ExpertChoice(pool=Pool("batch")), ExpertChoice(pool=Pool("batch", rows=2))
MESHES = {
    "data 2": MeshConfig(data=2),
    "expert 4": MeshConfig(data=1, expert=4),
    "fsdp 2, tensor 2": MeshConfig(data=1, fsdp=2, tensor=2),
    "data 2, expert 4": MeshConfig(data=2, expert=4),
    "slice 2, data 2, fsdp 2": MeshConfig(slice=2, data=2, fsdp=2),
    "fsdp 2, expert 2, tensor 2": MeshConfig(data=1, fsdp=2, expert=2, tensor=2),
}
IMPLICIT = MeshConfig(data=2, fsdp=1, expert=2, tensor=2, expert_parallelism="implicit")


@pytest.mark.parametrize("mesh", mostly_slow(MESHES, ["data 2, expert 4"]))
def test_pools_of_one_device(mesh):
    check(OWN, MESHES[mesh])


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["data 2, expert 4", "fsdp 2, expert 2, tensor 2"])
def test_pools_that_straddle_devices(mesh):
    check(WHOLE, MESHES[mesh], Setting(num_layers=2))


@pytest.mark.parametrize("router", [slow(WHOLE), OWN], ids=["whole batch", "two rows"])
def test_implicit_expert_parallelism(router):
    check(router, IMPLICIT)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("router", "mesh"),
    [
        (ExpertChoice(pool=Pool("sequence")), MESHES["fsdp 2, expert 2, tensor 2"]),
        (ExpertChoice(pool=Pool("position", rows=4)), MESHES["data 2"]),
        (ExpertChoice(pool=Pool("position")), MESHES["expert 4"]),
        (CappedExpertChoice(pool=Pool("sequence"), iterations=20), MESHES["expert 4"]),
        (ExpertThreshold(Pool("batch", rows=2), warmup_steps=0), MESHES["data 2, expert 4"]),
        (ExpertThreshold(Pool("batch"), warmup_steps=2), MESHES["data 2"]),
    ],
    ids=label,
)
def test_variants(router, mesh):
    check(router, mesh)


@pytest.mark.parametrize(
    "setting",
    [
        slow(Setting(remat="full", num_layers=4, scan_layers=False)),
        Setting(remat="dots_no_batch", num_layers=4, accumulation=2),
        slow(Setting(dispatch="gather")),
        slow(Setting(attention="kernel")),
    ],
    ids=label,
)
def test_settings(setting):
    check(OWN, MESHES["fsdp 2, expert 2, tensor 2"], setting)


@pytest.mark.parametrize(
    "setting",
    [
        Setting(accumulation=2, remat="full", num_layers=2, dropout=0.4),
        slow(Setting(num_layers=4, scan_layers=False, dropout=0.4)),
        slow(Setting(dispatch="gather", dropout=0.4)),
        slow(Setting(dispatch="oracle", dropout=0.4)),
    ],
    ids=label,
)
def test_dropout(setting):
    """The masks do not depend on the mesh, on micro-batches' sharding or on recomputation."""
    check(OWN, MESHES["fsdp 2, expert 2, tensor 2"], setting)


@pytest.mark.slow
@pytest.mark.parametrize(
    "setting",
    [
        Setting(dispatch="gather", dropout=0.4),
        Setting(dispatch="oracle", dropout=0.4),
        Setting(remat="full", num_layers=2, dropout=0.4),
        Setting(remat="dots", num_layers=2, scan_layers=False, dropout=0.4),
    ],
    ids=label,
)
def test_dropout_on_one_device(setting):
    """Nor on the dispatch and the form of the loop."""
    check(OWN, None, setting)


@pytest.mark.slow
def test_dense_weights_in_parts_over_two_axes():
    """The layout of `mesh/pod_64_experts.gin`."""
    check(OWN, MeshConfig(data=1, fsdp=2, expert=4, rules={"embed": ("fsdp", "expert")}))


@pytest.mark.parametrize("mesh", [slow("slice 2, data 2, fsdp 2"), "fsdp 2, tensor 2"])
def test_dense_model(mesh):
    check(None, MESHES[mesh])


@pytest.mark.slow
def test_initial_state_does_not_depend_on_the_mesh():
    """Of the model and of an optimiser whose state has other shapes than the parameters."""
    optimizer = adafactor()
    devices = jax.devices()
    partition = make_partition(MESHES["fsdp 2, expert 2, tensor 2"], devices)
    alone = make_state(LanguageModel(tiny.config(), OWN), optimizer, SEED)
    spread = make_state(LanguageModel(tiny.config(), OWN, partition), optimizer, SEED)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(alone), jax.device_get(spread))
    wi = spread.variables.params["groups/layers/0/ffn/experts/wi"]
    assert len(wi.sharding.device_set) == 8
    assert wi.addressable_shards[0].data.size == wi.size // 8
