"""Sizes of meshes, sharding rules, and one-line errors."""

import jax
import numpy as np
import pytest
import tiny
from jax.sharding import PartitionSpec

from moe_jax.errors import UserError
from moe_jax.models.functional import LanguageModel
from moe_jax.routers.expert_choice import ExpertChoice
from moe_jax.sharding.mesh import MeshConfig, make_mesh
from moe_jax.sharding.partition import make_partition
from moe_jax.sharding.rules import AXES


def test_minus_one_takes_the_devices_that_are_left():
    assert MeshConfig(fsdp=2).sizes(8) == dict(zip(AXES, (1, 4, 2, 1, 1), strict=True))
    assert make_mesh(MeshConfig(data=1, expert=-1), jax.devices()).shape["expert"] == 8


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"expert": 3}, "Mesh: data -1 x expert 3 does not make 8 devices"),
        ({"data": 4, "tensor": 4}, "Mesh: data 4 x tensor 4 does not make 8 devices"),
        ({"data": -1, "fsdp": -1}, "only one axis of Mesh can be -1"),
        ({"expert": 0}, "Mesh.expert must be a whole number above 0, or -1 for the rest, not 0"),
        ({"expert_parallelism": "explict"}, "did you mean 'explicit'"),
        ({"buffer_factor": 0.0}, "Mesh.buffer_factor must be above 0"),
        ({"rules": {"embd": "fsdp"}}, "no parameter has an axis 'embd'"),
        ({"rules": {"embed": "fdsp"}}, "'embed' -> 'fdsp' is not a mesh axis"),
        ({"rules": {"experts": "tensor"}}, "'experts' cannot be sharded along 'tensor'"),
    ],
)
def test_mistakes(settings, message):
    with pytest.raises(UserError) as error:
        MeshConfig(**settings).sizes(8)
    assert message.lower() in str(error.value).lower()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("mesh", "shape", "message"),
    [
        (
            MeshConfig(data=1, expert=8),
            {},
            "Mesh.expert = 8 does not divide Model.num_experts = 4 (the axis 'experts' of "
            "groups/layers/0/ffn/experts/wi)",
        ),
        (
            MeshConfig(data=1, fsdp=8),
            {"d_model": 36},
            "Mesh.fsdp = 8 does not divide Model.d_model = 36 (",
        ),
        (
            MeshConfig(data=4, fsdp=2, rules={"mlp": "fsdp"}),
            {},
            "its axes 'embed' and 'mlp' are both sharded along the mesh axis 'fsdp'",
        ),
    ],
)
def test_a_parameter_that_cannot_be_cut_is_named(mesh, shape, message):
    partition = make_partition(mesh, jax.devices())
    with pytest.raises(UserError) as error:
        LanguageModel(tiny.config(**shape), ExpertChoice(), partition)
    assert message in str(error.value)


def test_stored_and_computed_layouts():
    rules = {"embed": ("fsdp", "expert")}
    partition = make_partition(
        MeshConfig(data=1, fsdp=2, expert=2, tensor=2, rules=rules), jax.devices()
    )
    assert partition.stored(("embed", "mlp")) == PartitionSpec(("fsdp", "expert"), "tensor")
    assert partition.computed(("embed", "mlp")) == PartitionSpec(None, "tensor")
    experts = ("layers", "experts", "expert_embed", "expert_mlp")
    assert partition.stored(experts) == PartitionSpec(None, "expert", "fsdp", "tensor")
    assert partition.computed(experts) == PartitionSpec(None, "expert", None, "tensor")
    assert partition.batch_shards == 4


@pytest.mark.parametrize(
    ("targets", "passed"),
    [
        ("expert", "expert"),
        (("expert", "fsdp"), ("expert", "fsdp")),
        # A device's experts are not neighbours there: the compiler has to put them together.
        (("fsdp", "expert"), "expert"),
    ],
)
def test_a_gathered_part_is_what_is_computed_with(targets, passed):
    config = MeshConfig(data=1, fsdp=2, expert=4, rules={"experts": targets, "expert_embed": None})
    partition = make_partition(config, jax.devices())
    axes = ("experts", "expert_embed", "expert_mlp")
    assert partition.passed(axes) == PartitionSpec(passed, None, "tensor")
    weight = np.arange(8 * 3 * 2.0).reshape(8, 3, 2)
    gathered = jax.shard_map(
        lambda part: partition.gather(part, axes),
        mesh=partition.mesh,
        in_specs=partition.passed(axes),
        out_specs=partition.computed(axes),
        check_vma=False,
    )(weight)
    np.testing.assert_array_equal(gathered, weight)
