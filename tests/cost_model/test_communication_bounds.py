"""Communication bounds by hand, for a model of round numbers on small meshes."""

import math

from moe_jax import experiments
from moe_jax.config_source import ConfigSource
from moe_jax.cost_model.communication_bounds import communication_bounds, expert_buffer_occupancy

D, FF, HEADS, K, EXPERTS, VOCABULARY = 64, 128, 4, 16, 8, 512
BATCH, LENGTH, LAYERS, MOE_LAYERS, BUCKETS = 16, 32, 4, 2, 32
BINDINGS = [
    f"Model.d_model = {D}",
    f"Model.d_ff = {FF}",
    f"Model.num_heads = {HEADS}",
    f"Model.head_dim = {K}",
    f"Model.num_experts = {EXPERTS}",
    f"Model.vocab_size = {VOCABULARY}",
    f"Model.num_layers = {LAYERS}",
    "Model.compute_dtype = 'bfloat16'",
    f"Data.batch_size = {BATCH}",
    f"Data.sequence_length = {LENGTH}",
]
FILES = ["runs/pretrain.gin", "models/tiny_8e.gin", "routers/gshard_top2.gin"]

# Parameters, in elements.
ATTENTION = LAYERS * 4 * D * HEADS * K
FEED_FORWARD = (LAYERS - MOE_LAYERS) * 3 * D * FF  # Gated.
# Bytes: these travel in bfloat16, and are gathered for the forward and for the backward pass.
LAYER = 2 * (ATTENTION + FEED_FORWARD)
EXPERT = 2 * MOE_LAYERS * EXPERTS * 2 * D * FF
# These in float32; every device has the whole of norms, router and the bias of positions.
EMBEDDING = 4 * VOCABULARY * D
WHOLE = 4 * ((2 * LAYERS + 1) * D + MOE_LAYERS * D * EXPERTS + LAYERS * BUCKETS * HEADS)
# A row of tokens on a device, with 8 devices; 4 times there and back, to two experts each.
ROW = 2 * BATCH * LENGTH // 8 * D
TOKENS = 4 * 2 * MOE_LAYERS * ROW


def bounds(rules=None, capacity=1.0, **mesh):
    lines = [f"Mesh.{axis} = {size}" for axis, size in {"data": 1, "fsdp": 1, **mesh}.items()]
    lines += [f"Mesh.rules = {rules or {}!r}", f"GShardTop2.capacity_factor = {capacity}"]
    run = experiments.load(ConfigSource(FILES, [*BINDINGS, *lines]))
    model = run.language_model(run.partition())
    found = communication_bounds(run, model)
    assert len({(b.kind, b.axes, b.what) for b in found}) == len(found)
    return {(b.kind, "+".join(b.axes), b.what): b.bytes for b in found}


OTHER_GRADIENTS, EXPERT_GRADIENTS = "gradients of other weights", "gradients of experts"
TRAVEL = "tokens to experts and back"


def test_fsdp_alone(all_devices):
    assert bounds(fsdp=8) == {
        ("all-gather", "fsdp", "other weights"): 2 * LAYER + EMBEDDING,
        ("all-gather", "fsdp", "experts"): 2 * EXPERT,
        ("reduce-scatter", "fsdp", OTHER_GRADIENTS): LAYER + EMBEDDING,
        ("reduce-scatter", "fsdp", EXPERT_GRADIENTS): EXPERT,
        ("all-reduce", "fsdp", OTHER_GRADIENTS): WHOLE,
    }


def test_data_alone(all_devices):
    assert bounds(data=8) == {
        ("all-reduce", "data", OTHER_GRADIENTS): LAYER + EMBEDDING + WHOLE,
        ("all-reduce", "data", EXPERT_GRADIENTS): EXPERT,
    }


def test_experts_and_fsdp(all_devices):
    assert bounds(fsdp=2, expert=4) == {
        ("all-gather", "fsdp", "other weights"): 2 * LAYER + EMBEDDING,
        ("all-gather", "fsdp", "experts"): 2 * EXPERT / 4,
        ("reduce-scatter", "fsdp", OTHER_GRADIENTS): LAYER + EMBEDDING,
        ("reduce-scatter", "fsdp", EXPERT_GRADIENTS): EXPERT / 4,
        # What is left of the gradients after they were scattered over two.
        ("all-reduce", "expert", OTHER_GRADIENTS): (LAYER + EMBEDDING) / 2,
        ("all-reduce", "fsdp+expert", OTHER_GRADIENTS): WHOLE,
        ("all-to-all", "expert", TRAVEL): TOKENS,
    }


def test_weights_over_the_axis_of_experts(all_devices):
    assert bounds(rules={"embed": "expert"}, data=2, expert=4) == {
        ("all-gather", "expert", "other weights"): 2 * LAYER + EMBEDDING,
        ("reduce-scatter", "expert", OTHER_GRADIENTS): LAYER + EMBEDDING,
        ("all-reduce", "data", OTHER_GRADIENTS): (LAYER + EMBEDDING) / 4,
        ("all-reduce", "data+expert", OTHER_GRADIENTS): WHOLE,
        ("all-reduce", "data", EXPERT_GRADIENTS): EXPERT / 4,
        ("all-to-all", "expert", TRAVEL): TOKENS,
    }


def test_tensor_and_fsdp(all_devices):
    assert bounds(fsdp=4, tensor=2) == {
        ("all-gather", "fsdp", "other weights"): (2 * LAYER + EMBEDDING) / 2,
        ("all-gather", "fsdp", "experts"): 2 * EXPERT / 2,
        ("reduce-scatter", "fsdp", OTHER_GRADIENTS): (LAYER + EMBEDDING) / 2,
        ("reduce-scatter", "fsdp", EXPERT_GRADIENTS): EXPERT / 2,
        ("all-reduce", "fsdp", OTHER_GRADIENTS): WHOLE,
        # After attention and after the feed-forward, and backward; two devices see the same rows.
        ("all-reduce", "tensor", "activations"): LAYERS * 4 * 2 * ROW,
    }


def test_a_capacity_factor_is_what_travels(all_devices):
    exchange = ("all-to-all", "expert", TRAVEL)
    assert bounds(capacity=1.25, expert=8)[exchange] == 1.25 * TOKENS
    # Without a capacity only what is chosen has to travel.
    assert bounds(capacity=None, expert=8)[exchange] == TOKENS


def test_what_a_balanced_router_fills_of_the_buffers():
    """Rows to each of 4 devices are multiples of 8."""
    mesh = {"slice": 1, "data": 1, "fsdp": 2, "expert": 4, "tensor": 1}
    tokens = BATCH * LENGTH // 8
    run = experiments.load(ConfigSource(FILES, [*BINDINGS, "Mesh.buffer_factor = 1.7"]))
    expected = 2 * tokens / 4
    assert expert_buffer_occupancy(run, mesh) == expected / (8 * math.ceil(expected * 1.7 / 8))
    run = experiments.load(ConfigSource(FILES, [*BINDINGS, "Mesh.buffer_factor = 0.5"]))
    assert expert_buffer_occupancy(run, mesh) == 1.0
    assert expert_buffer_occupancy(run, {**mesh, "expert": 1, "fsdp": 8}) == 1.0
