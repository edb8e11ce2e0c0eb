"""The trainer's own step, compiled for TPU, against `moe_jax/flops.py`."""

import json

import pytest
import tpu_compiler
from collective_totals import totals

from moe_jax.hlo.collectives import find_collectives
from moe_jax.hlo.execution_counts import count_executions
from moe_jax.hlo.flops import find_matrix_products, total_flops
from moe_jax.hlo.parser import parse_module

pytestmark = tpu_compiler.NEEDED

BINDINGS = [
    "Model.d_model = 512",
    "Model.d_ff = 2048",
    "Model.num_heads = 4",
    "Model.head_dim = 128",
    "Model.attention = 'plain'",  # tests/hlo/test_mosaic.py has the kernel's.
    "Model.compute_dtype = 'bfloat16'",
    "Model.scan_layers = True",
    "Model.remat = 'full'",
    "Data.sequence_length = 512",
    "Data.batch_size = 16",
    "EXPERT_DEVICES = 4",
]
FILES = [
    "runs/pretrain.gin",
    "models/tiny_8e.gin",
    "routers/gshard_top2.gin",
    "mesh/expert_fsdp.gin",
]
CHILD = """
import json, sys
from jax.experimental import topologies
import jax, numpy as np
from moe_jax import experiments, flops
from moe_jax.config_source import ConfigSource
from moe_jax.data.batch import Batch
from moe_jax.sharding import mesh
from moe_jax.training.state import abstract_state
from moe_jax.training.step import StepOptions, make_train_step

folder, files, bindings = sys.argv[1], *map(json.loads, sys.argv[2:])
devices = topologies.get_topology_desc("v4:2x2x2", "tpu", chip_config_name="megacore").devices
mesh.available_devices = lambda: list(devices)
run = experiments.load(ConfigSource(files, bindings))
partition = run.partition()
model = run.language_model(partition)
shape = (run.data.batch_size, run.data.sequence_length)
ids, weights = (
    jax.ShapeDtypeStruct(shape, dtype, sharding=partition.rows) for dtype in (np.int32, np.float32)
)
options = StepOptions(run.train.accumulation, run.train.seed, run.guard)
step = make_train_step(model, run.optimizer, run.loss, options)
lowered = step.lower(abstract_state(model, run.optimizer), Batch(ids, ids, weights))
open(f"{folder}/step.txt", "w").write(lowered.compile().as_text())
parts = flops.forward_flops_per_token(run.model, run.experts_per_token, shape[1])
inner = run.model.num_heads * run.model.head_dim
facts = dict(parts=parts, mesh=dict(partition.mesh.shape), tokens=shape[0] * shape[1])
# Attention to the keys up to the end of each of two blocks of queries: not all of the square.
parts["attention"] -= run.model.num_layers * 4 * shape[1] * inner / 4
# Every device makes the bias of all heads for half a row, by products with 0 and 1: in three parts
# forward and again, and one product backward.
bias = 2 * run.model.relative_buckets * run.model.num_heads * shape[1] ** 2 / 2
facts["bias"] = run.model.num_layers * (3 + 3 + 1) * bias
open(f"{folder}/step.json", "w").write(json.dumps(facts))
"""


@pytest.fixture(scope="module")
def step(tmp_path_factory):
    folder = tmp_path_factory.mktemp("step")
    tpu_compiler.run_child("v4:2x2x2", CHILD, folder, json.dumps(FILES), json.dumps(BINDINGS))
    module = parse_module((folder / "step.txt").read_text())
    return module, json.loads((folder / "step.json").read_text())


# Passes of each part in a step that computes layers again: forward, again, and two backward. The
# last of the three products of a dense feed-forward is not needed again; the loss is in no layer.
PASSES = {
    "attention": 4.0,
    "feed_forward": 3 + 2 / 3,
    "router": 4.0,
    "vocabulary": 3.0,
    "moe": 4.0,  # The experts.
}


def test_flops_by_part_are_the_analytic_ones(step):
    module, facts = step
    products = find_matrix_products(module, count_executions(module))
    order = ["vocabulary", "router", "attention", "feed_forward", "moe"]
    found = dict.fromkeys(order, 0.0)
    for each in products:
        part = next(name for name in order if name in each.op_name)
        found[part] += each.flops * each.executions
    tokens = facts["tokens"] / module.num_devices
    parts = facts["parts"] | {"moe": facts["parts"]["experts"]}
    found["attention"] -= facts["bias"]
    for part, passes in PASSES.items():
        assert found[part] == pytest.approx(passes * parts[part] * tokens, rel=5e-3), part
    assert total_flops(products) == pytest.approx(sum(found.values()) + facts["bias"])


def test_all_to_all_carries_every_expert_slot_six_times(step):
    module, facts = step
    names, shape = zip(*facts["mesh"].items(), strict=True)
    found = totals(find_collectives(module, count_executions(module)), shape, names)
    assert all(axes is not None for _, axes in found)
    ((axes, (_, payload)),) = [(k[1], row) for k, row in found.items() if k[0] == "all-to-all"]
    assert axes == ("expert",)
    tokens = facts["tokens"] / module.num_devices
    # There and back; forward, again, and backward; 2 layers; top 2; 512 numbers of two bytes.
    assert payload == pytest.approx(6 * 2 * tokens * 2 * 512 * 2, rel=1e-3)
