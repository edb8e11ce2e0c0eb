"""Properties of the compiled training steps of pod configurations."""

import functools
import re

import jax
import numpy as np
import pytest
import tpu_compiler

from moe_jax import experiments
from moe_jax.config_source import ConfigSource
from moe_jax.cost_model.memory_usage import read_memory_usage
from moe_jax.cost_model.named_scopes import component_of
from moe_jax.cost_model.topologies import parse_topology
from moe_jax.hlo.collectives import find_collectives
from moe_jax.hlo.execution_counts import count_executions
from moe_jax.hlo.flops import find_matrix_products
from moe_jax.hlo.parser import parse_module
from moe_jax.models.decoder import in_compute_precision
from moe_jax.pods import compiler
from moe_jax.pods.compiler import CompileJob, compile_step
from moe_jax.training.state import abstract_state

pytestmark = tpu_compiler.NEEDED

POD = ("runs/pretrain.gin", "models/8b_64e.gin", "mesh/v4_512_64_experts.gin")
SMALL = ("runs/pretrain.gin", "models/tiny_8e.gin", "mesh/expert_fsdp.gin")
SMALL_BINDINGS = (
    "Model.d_model = 256",
    "Model.d_ff = 1024",
    "Model.num_heads = 2",
    "Model.head_dim = 128",
    "Model.vocab_size = 2048",
    "Model.compute_dtype = 'bfloat16'",
    "Model.scan_layers = True",
    "Model.remat = 'named'",
    "Model.remat_names = ('qkv', 'attention_context', 'ffn_hidden', 'moe_in', 'moe_hidden', "
    "'moe_rows', 'moe_out')",
    "Data.sequence_length = 256",
    "Data.batch_size = 16",
    "EXPERT_DEVICES = 4",
)
# A row of every pool is on one device, as in mesh/v4_512_64_experts.gin.
CASES = {
    "pod, expert choice": ("v4:8x8x8", (*POD, "routers/expert_choice.gin"), ("Pool.rows = 2",)),
    "pod, Switch": ("v4:8x8x8", (*POD, "routers/switch.gin"), ()),
    "pod, GShard": ("v4:8x8x8", (*POD, "routers/gshard_top2.gin"), ()),
    "small, GShard": ("v4:2x2x2", (*SMALL, "routers/gshard_top2.gin"), SMALL_BINDINGS),
}


class Step:
    """A compiled step and what is read of it."""

    def __init__(self, topology, files, bindings):
        self.topology = parse_topology(topology)
        self.experiment = experiments.load(ConfigSource(list(files), list(bindings)))
        names, read = [], compiler._read_output

        def reading(job, directory):
            found = (directory / "dump").glob("*after_optimizations.txt")
            names.extend(path.name for path in found if "jit_" in path.name)
            return read(job, directory)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(compiler, "_read_output", reading)
            self.compiled = compile_step(CompileJob(self.topology, ConfigSource(files, bindings)))
        self.modules = names
        self.module = parse_module(self.compiled.program)
        self.executions = count_executions(self.module, unknown_trip_count=0)
        self.collectives = find_collectives(self.module, self.executions)
        names = tuple(self.compiled.mesh)
        mesh = np.arange(self.module.num_devices).reshape(tuple(self.compiled.mesh.values()))
        self.axes = {id(each): each.mesh_axes(mesh, names) for each in self.collectives}

    def bytes(self, kind, axis, what=""):
        """Returns the bytes of the bounds of a kind that cross an axis."""
        return sum(
            bound.bytes
            for bound in self.compiled.bounds
            if bound.kind == kind and axis in bound.axes and bound.what.startswith(what)
        )


@functools.cache
def compile_case(case):
    return Step(*CASES[case])


@pytest.fixture(params=list(CASES))
def step(request):
    return compile_case(request.param)


def expert_layer_bytes(experiment):
    """Returns the bytes of one matrix of all experts of a layer, in bfloat16."""
    model = experiment.model
    return 2 * model.num_experts * model.d_model * model.d_ff


def gathered_over_experts(step):
    """Returns the bytes of arrays that are put together from devices along the axis of experts.

    An array of that many bytes has been gathered whatever it is called: by an all-gather, or by an
    all-reduce of zeros and one part.
    """
    return sum(
        each.payload_bytes * each.executions
        for each in step.collectives
        if (each.kind == "all-gather" or each.is_gather)
        and (step.axes[id(each)] is None or "expert" in step.axes[id(each)])
    )


def assert_no_gather_of_experts(step):
    """Other weights may be sharded over the axis of experts too: nothing but those is gathered.

    If one matrix of one layer's experts were, once, it would be more than what is tolerated.
    """
    others = step.bytes("all-gather", "expert", "other weights")
    slack = 0.05 * others + 0.25 * expert_layer_bytes(step.experiment)
    assert slack < expert_layer_bytes(step.experiment) * step.experiment.model.num_moe_layers
    assert gathered_over_experts(step) <= others + slack


def test_no_weights_of_experts_are_gathered_along_the_axis_of_experts(step):
    assert_no_gather_of_experts(step)


def test_wrongly_sharded_expert_weights_are_found():
    """The same test, failing: experts sharded over their width, which each device has to gather."""
    topology, files, bindings = CASES["small, GShard"]
    wrong = "Mesh.rules = {'experts': None, 'expert_embed': 'expert'}"
    step = Step(topology, files, (*bindings, wrong, "Mesh.expert_parallelism = 'implicit'"))
    # All experts of all layers, at least for the forward pass.
    least = 2 * expert_layer_bytes(step.experiment) * step.experiment.model.num_moe_layers
    assert gathered_over_experts(step) >= least
    with pytest.raises(AssertionError, match="gathered_over_experts"):
        assert_no_gather_of_experts(step)


def test_all_to_alls_carry_the_slots_and_nothing_else(step):
    found = [each for each in step.collectives if each.kind == "all-to-all"]
    assert {step.axes[id(each)] for each in found} == {("expert",)}
    carried = sum(each.payload_bytes * each.executions for each in found)
    assert carried == pytest.approx(step.bytes("all-to-all", "expert"), rel=0.05)
    # By hand: forward and backward, there and back; k slots of d numbers of two bytes a token.
    model, data = step.experiment.model, step.experiment.data
    slots = {"switch": 1.25}.get(getattr(step.experiment.router, "name", ""), 2.0)
    tokens = data.batch_size * data.sequence_length / step.topology.device_count
    by_hand = 4 * slots * tokens * model.d_model * 2 * model.num_layers / 2
    assert carried == pytest.approx(by_hand, rel=0.05)


def test_it_fits(step):
    compiled = step.compiled
    memory = read_memory_usage(
        compiled.buffer_assignment, compiled.live_ranges, compiled.argument_bytes, step.module
    )
    limit = step.topology.chip.hbm_limit_per_device
    assert sum(memory.arguments.values()) < memory.total < limit
    assert sum(memory.at_peak.values()) <= memory.heap


def test_the_router_is_computed_in_float32(step):
    lines = [
        line
        for line in step.compiled.program.splitlines()
        if re.search(r" (convolution|dot)\(", line) and "/router/" in line
    ]
    products = [
        p
        for p in find_matrix_products(step.module, step.executions)
        if component_of(p.op_name) == "router"
    ]
    assert len(lines) >= len(products) >= 3  # Forward, and two backward.
    # An operand may still be in bfloat16: x, which is exact. The precision says what it is made.
    assert all(re.search(r" = f32\[", line) for line in lines)
    assert all("operand_precision={highest,highest}" in line for line in lines)


def test_weights_and_their_gradients_travel_in_bfloat16(step):
    """All but the embedding, which is looked up in float32, and what every device has whole."""
    model = step.experiment.language_model()
    sizes = {name: value.size for name, value in model.abstract().params.items()}
    rounded = {name for name, axes in model.logical_axes().items() if in_compute_precision(axes)}
    in_float32 = 4 * sum(size for name, size in sizes.items() if name not in rounded)
    smallest_weight = 2 * model.config.d_model**2
    large = [each for each in step.collectives if each.payload_bytes >= smallest_weight]
    assert {each.dtype for each in large if each.executions > 1} == {"bf16"}
    assert all(each.payload_bytes <= in_float32 for each in large if each.dtype != "bf16")


def test_the_state_is_donated(step):
    model = step.experiment.language_model()
    leaves = len(jax.tree.leaves(abstract_state(model, step.experiment.optimizer)))
    header = step.compiled.program.partition("\n")[0]
    assert leaves > 20
    assert header.count("-alias)") == leaves


def test_one_module_is_compiled_without_warnings(step):
    assert len(step.modules) == 1
    assert step.compiled.warnings == ()
    assert step.compiled.exceeded is None


def test_routers_of_two_experts_a_token_move_as_much():
    """Expert choice with c = 2 beside GShard's top-2: the comparison is fair."""
    two = [compile_case(f"pod, {name}") for name in ("expert choice", "GShard")]
    carried = [
        {
            (each.kind, step.axes[id(each)]): sum(
                other.payload_bytes * other.executions
                for other in step.collectives
                if (other.kind, step.axes[id(other)]) == (each.kind, step.axes[id(each)])
            )
            for each in step.collectives
            if each.kind in ("all-to-all", "all-gather")
        }
        for step in two
    ]
    assert carried[0] == carried[1]
