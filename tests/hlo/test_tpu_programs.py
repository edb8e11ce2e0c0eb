"""Collectives, loops and FLOPs of programs of the TPU compiler, against closed forms."""

import pytest
import tpu_compiler
from collective_totals import totals

from moe_jax.cost_model.hbm_traffic import find_hbm_traffic
from moe_jax.hlo.collectives import find_collectives
from moe_jax.hlo.execution_counts import count_executions
from moe_jax.hlo.flops import find_matrix_products, total_flops
from moe_jax.hlo.parser import parse_module

pytestmark = tpu_compiler.NEEDED

CHILD = """
import sys
from functools import partial
import jax, jax.numpy as jnp, numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

topology, folder = sys.argv[1:]
options = dict(chip_config_name="megacore") if topology.startswith("v4") else {}
devices = topologies.get_topology_desc(topology, "tpu", **options).devices
devices = [devices[i] for i in (3, 0, 6, 5, 1, 7, 2, 4)]  # HLO counts along the mesh.
mesh = Mesh(np.array(devices).reshape(2, 4), ("data", "expert"))
line = Mesh(np.array(devices).reshape(8), ("x",))

def write(name, f, *shapes, mesh=mesh, options=None, **jit):
    arrays = [jax.ShapeDtypeStruct(s, d, sharding=NamedSharding(mesh, p)) for s, d, p in shapes]
    text = jax.jit(f, **jit).lower(*arrays).compile(compiler_options=options or {}).as_text()
    open(f"{folder}/{name}.txt", "w").write(text)

@partial(jax.shard_map, mesh=mesh, in_specs=P(("data", "expert")), out_specs=P(("data", "expert")),
         check_vma=False)
def collectives(x):  # [512, 256] on a device.
    def body(x, _):
        x = jax.lax.all_to_all(x, "expert", 0, 0, tiled=True)
        return jax.lax.ppermute(x * 2, "expert", [(i, (i + 1) % 4) for i in range(4)]) + 1, None
    x, _ = jax.lax.scan(body, x, None, length=7)
    gathered = jax.lax.all_gather(x.astype(jnp.bfloat16), "expert", axis=0, tiled=True)
    summed = jax.lax.psum(x, "data")
    part = jax.lax.psum_scatter(jnp.sin(gathered.astype(jnp.float32)), "expert", tiled=True)
    return part + summed

write("collectives", collectives, ((4096, 256), jnp.float32, P(("data", "expert"))))

def nested(x, w):  # 5 x 3 products of [1024, 512] and [512, 512] on a device.
    def inner(x, _):
        return jnp.tanh(x @ w), None
    def outer(x, _):
        return jax.lax.scan(inner, x, None, length=3)[0] * 2, None
    return jax.lax.scan(outer, x, None, length=5)[0]

write("nested", nested, ((8192, 512), jnp.bfloat16, P(("data", "expert"))),
      ((512, 512), jnp.bfloat16, P()))

def attention(q, k, v):  # 2 rows of 256 positions and 4 heads of 128 on a device.
    scores = jnp.einsum("bshk,bthk->bhst", q, k, preferred_element_type=jnp.float32)
    mixed = jnp.einsum("bhst,bthk->bshk", jax.nn.softmax(scores).astype(q.dtype), v)
    return jnp.sum(jnp.square(mixed.astype(jnp.float32)))

qkv = ((16, 256, 4, 128), jnp.bfloat16, P(("data", "expert")))
write("attention", jax.grad(attention, argnums=(0, 1, 2)), qkv, qkv, qkv)

def windowed(x, w1, w2):  # 3 layers; GSPMD overlaps the gathers with parts of the products.
    def layer(x, w):
        h = jnp.einsum("bd,df->bf", x, w[0])
        h = jax.lax.with_sharding_constraint(h, NamedSharding(line, P(None, "x")))
        y = jnp.einsum("bf,fd->bd", jax.nn.relu(h), w[1])
        return jax.lax.with_sharding_constraint(y, NamedSharding(line, P("x", None))), None
    return jax.lax.scan(layer, x, (w1, w2))[0]

write("windowed", windowed, ((16384, 4096), jnp.bfloat16, P("x", None)),
      ((3, 4096, 16384), jnp.bfloat16, P(None, None, "x")),
      ((3, 16384, 4096), jnp.bfloat16, P(None, "x", None)), mesh=line,
      out_shardings=NamedSharding(line, P("x", None)),
      options={"xla_jf_spmd_threshold_for_windowed_einsum_mib": "0"})
"""


@pytest.fixture(scope="module", params=["v4:2x2x2", "v5e:2x4"])
def programs(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("programs")
    tpu_compiler.run_child(request.param, CHILD, request.param, folder)
    return {path.stem: parse_module(path.read_text()) for path in folder.iterdir()}


def test_every_module_is_scheduled_for_eight_devices(programs):
    assert sorted(programs) == ["attention", "collectives", "nested", "windowed"]
    assert all(module.is_scheduled and module.num_devices == 8 for module in programs.values())


def test_collectives_and_their_bytes(programs):
    module = programs["collectives"]
    found = find_collectives(module, count_executions(module))
    local = 512 * 256 * 4
    assert totals(found, (2, 4), ("data", "expert")) == {
        ("all-to-all", ("expert",)): (7, 7 * local),
        ("collective-permute", ("expert",)): (7, 7 * local),
        ("all-gather", ("expert",)): (1, 4 * local / 2),
        ("reduce-scatter", ("expert",)): (1, 4 * local),
        ("all-reduce", ("data",)): (1, local),
    }


def test_loops_in_loops(programs):
    module = programs["nested"]
    runs = count_executions(module)
    assert sorted(loop.trip_count for loop in runs.loops) == [3, 5]
    products = find_matrix_products(module, runs)
    assert total_flops(products) == 5 * 3 * 2 * 1024 * 512 * 512
    assert not find_collectives(module, runs)


def test_attention_and_its_gradient(programs):
    module = programs["attention"]
    one = 2 * 2 * 4 * 256 * 256 * 128  # Scores; as many mix the values; each twice backward.
    assert total_flops(find_matrix_products(module, count_executions(module))) == 6 * one


def test_products_that_overlap_with_their_gathers(programs):
    module = programs["windowed"]
    runs = count_executions(module)
    assert total_flops(find_matrix_products(module, runs)) == 3 * 2 * 2 * 16384 * 4096 * 16384 / 8
    found = find_collectives(module, runs)
    assert {each.kind for each in found} == {"collective-permute"}
    assert all(each.is_async for each in found)


def test_hbm_traffic_is_at_least_what_goes_in_and_out(programs):
    module = programs["attention"]
    traffic = find_hbm_traffic(module, count_executions(module))
    array = 2 * 256 * 4 * 128 * 2
    moved = sum(each.bytes * each.executions for each in traffic)
    scores = 2 * 4 * 256 * 256 * 4
    assert (3 + 3) * array <= moved <= (3 + 3) * array * 10 + 20 * scores
