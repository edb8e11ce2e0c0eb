"""Compiler options of the chips."""

from moe_jax.cost_model.topologies import parse_topology
from moe_jax.pods import variants


def test_sparse_cores_are_tried_where_there_are_some():
    names = {v.name for v in variants.option_variants(parse_topology("v5p:4x4x4"))}
    assert names == {
        "XLA's defaults",
        "asynchronous collectives",
        "asynchronous, all-reduces in products",
        "collectives on SparseCores",
    }
    assert len(variants.option_variants(parse_topology("v4:4x4x4"))) == 3


def test_options_that_a_chip_refuses_are_not_tried():
    for topology, is_there in (("v5e:4x4", False), ("v4:4x4x4", True)):
        bindings = [v.bindings[0] for v in variants.option_variants(parse_topology(topology))]
        assert any("xla_tpu_enable_async_all_to_all" in b for b in bindings) == is_there
