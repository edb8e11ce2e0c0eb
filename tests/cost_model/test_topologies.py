"""Slices: names, counts and rings against published ones, devices against libtpu."""

import json

import pytest
import tpu_compiler

from moe_jax.cost_model import topologies
from moe_jax.cost_model.chips import CHIPS, GIB
from moe_jax.cost_model.topologies import compiler_environment, known_slice_shapes, parse_topology
from moe_jax.errors import UserError


@pytest.mark.parametrize(
    ("name", "shape", "chips", "devices", "hosts"),
    [
        ("v4:8x8x8", (8, 8, 8), 512, 512, 128),
        ("v4:2x2x1", (2, 2, 1), 4, 4, 1),
        ("v5p:16x16x24", (16, 16, 24), 6144, 6144, 1536),  # Google's page of v5p.
        ("v5e:16x16", (16, 16), 256, 256, 64),
        ("V6e:2x4", (2, 4), 8, 8, 1),
        ("v6e:1x1", (1, 1), 1, 1, 1),
        ("ironwood:4x4x4", (4, 4, 4), 64, 128, 16),
        ("2*v5e:16x16", (16, 16), 512, 512, 128),
        ("3*tpu7x:2x2x1", (2, 2, 1), 12, 24, 3),
    ],
)
def test_sizes(name, shape, chips, devices, hosts):
    topology = parse_topology(name)
    assert topology.shape == shape
    assert (topology.chips, topology.device_count, topology.hosts) == (chips, devices, hosts)
    assert not topology.shape_is_default
    assert parse_topology(str(topology)) == topology


# Google's default topologies of v4 and, from MaxText's accelerator_to_spec_map.py, of v5p.
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("v4-8", "v4:2x2x1"),
        ("v4-32", "v4:2x2x4"),
        ("v4-64", "v4:2x4x4"),
        ("v4-128", "v4:4x4x4"),
        ("v4-384", "v4:4x4x12"),
        ("v4-512", "v4:4x8x8"),
        ("v4-1024", "v4:8x8x8"),
        ("v4-1536", "v4:8x8x12"),
        ("v4-4096", "v4:8x16x16"),
        ("v5p-640", "v5p:4x4x20"),
        ("v5p-768", "v5p:4x8x12"),
        ("v5p-4608", "v5p:12x12x16"),
        ("v5p-9216", "v5p:12x16x24"),
        ("v5p-10368", "v5p:12x12x36"),
        ("v5p-12288", "v5p:16x16x24"),
        ("v5litepod-256", "v5e:16x16"),
        ("v5e-8", "v5e:2x4"),
        ("v6e-128", "v6e:8x16"),
        ("2*v6e-256", "2*v6e:16x16"),
        ("tpu7x-128", "tpu7x:4x4x4"),
    ],
)
def test_googles_names_have_googles_default_shapes(name, expected):
    topology = parse_topology(name)
    assert str(topology) == expected
    # The name of one slice leads back to it.
    assert topology.accelerator_type.rpartition("-")[2] == name.rpartition("-")[2]
    assert parse_topology(topology.accelerator_type).shape == topology.shape


def test_a_shape_is_chosen_only_where_there_are_several():
    chosen = {
        name: parse_topology(name).shape_is_default for name in ("v4-1024", "v5p-256", "v5e-256")
    }
    assert chosen == {"v4-1024": True, "v5p-256": False, "v5e-256": False}


@pytest.mark.parametrize(
    ("name", "wraps"),
    [
        ("v4:4x4x4", (True, True, True)),
        ("v5p:4x4x8", (True, True, True)),
        ("tpu7x:8x16x16", (True, True, True)),
        ("v5p:2x4x4", (False, False, False)),
        ("v4:2x2x1", (False, False, False)),
        ("v5e:16x16", (True, True)),
        ("v5e:8x16", (False, True)),
        ("v6e:8x8", (False, False)),
    ],
)
def test_rings_by_the_scaling_book(name, wraps):
    assert parse_topology(name).wraps == wraps


def test_one_line_says_what_it_is():
    assert parse_topology("v4-1024").describe() == (
        "v4:8x8x8: 512 chips, 512 devices, 128 hosts, rings of 8, 8, 8 "
        "(the default shape of v4-1024; others as v4:AxBxC)"
    )
    assert (
        parse_topology("ironwood:2x2x1").describe()
        == "tpu7x:2x2x1: 4 chips, 8 devices, 1 host, no rings"
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v7:4x4x4", r"no TPU chip is called 'v7'; known: v4, v5e"),
        ("v5ee:4x4", r"Did you mean 'v5e'\?"),
        ("v4:8x8x4", r"no slice of v4 is 8x8x4; known: 2x2x1, .* Did you mean '4x8x8'\?"),
        ("v4:8x8", r"no slice of v4 is 8x8;"),
        ("v4:3x3x3", r"multiples of 4 in rising order, up to 4,096 chips"),
        ("v4:0x4x4", r"no slice of v4 is 0x4x4"),
        ("v4:16x16x32", r"up to 4,096 chips"),
        ("v5e:32x32", r"no slice of v5e is 32x32; known: 1x1, .*, 16x16\."),
        ("v5e:8x4", r"Did you mean '4x8'\?"),
        ("v4-1023", r"no slice is called 'v4-1023': its number counts cores; .*'v4-1024'\?"),
        ("v5litepod-17", r"counts chips; known: v5e-1, .*'v5e-16'\?"),
        ("v4", r"'v4' does not name a TPU slice; expected such as v4:8x8x8"),
        ("", r"does not name a TPU slice"),
        ("0*v4:4x4x4", r"number of slices must be above 0"),
    ],
)
def test_unknown_names_are_one_line_with_the_known_ones(name, message):
    with pytest.raises(UserError, match=message) as error:
        parse_topology(name)
    assert "\n" not in str(error.value)


def test_every_known_shape_is_one():
    for chip in CHIPS:
        for shape in known_slice_shapes(chip):
            topology = parse_topology(f"{chip.name}:{'x'.join(map(str, shape))}")
            assert topology.chips <= chip.largest_slice
            assert topology.hosts >= 1


def test_without_libtpu_the_message_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    monkeypatch.setattr(topologies.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'moe_jax\[tpu\]'"):
        parse_topology("v4:8x8x8").devices()
    # A path that leads nowhere does not help.
    monkeypatch.setenv("TPU_LIBRARY_PATH", str(tmp_path / "libtpu.so"))
    with pytest.raises(UserError, match="not installed"):
        parse_topology("v4:8x8x8").devices()


def test_the_environment_of_a_child():
    variables = compiler_environment(parse_topology("2*v5e:16x16"))
    assert variables["TPU_ACCELERATOR_TYPE"] == "v5litepod-256"
    assert variables["JAX_PLATFORMS"] == "cpu"
    assert all(isinstance(value, str) for value in variables.values())


DESCRIBE = """
import json, sys
from moe_jax.cost_model.topologies import parse_topology
found = {}
for name in sys.argv[1:]:
    devices = parse_topology(name).devices()
    found[name] = [
        [d.device_kind, *d.coords, d.core_on_chip, d.process_index, getattr(d, "slice_index", 0)]
        for d in devices
    ]
print(json.dumps(found))
"""
# More than any chip's memory: the compiler's message says how much there is.
TOO_LARGE = """
import json, re, sys
import jax, jax.numpy as jnp
from moe_jax.cost_model.topologies import parse_topology
found = {}
for name in sys.argv[1:]:
    one = jax.sharding.SingleDeviceSharding(parse_topology(name).devices()[0])
    array = jax.ShapeDtypeStruct((256, 1 << 28), jnp.float32, sharding=one)
    try:
        jax.jit(lambda x: x * 2).lower(array).compile()
    except jax.errors.JaxRuntimeError as error:
        found[name] = float(re.search(r"exceeds available HBM \\(([0-9.]+)G", str(error))[1])
print(json.dumps(found))
"""


def in_a_child(code, *names):
    """Returns the JSON that a process prints which has the variables that libtpu needs."""
    return json.loads(tpu_compiler.run_child(names[0], code, *names).splitlines()[-1])


@tpu_compiler.needed
def test_libtpu_has_the_devices():
    """Every chip, in slices of every kind: as many devices, at the coordinates of the shape."""
    names = [f"{c.name}:{'x'.join(map(str, s))}" for c in CHIPS for s in known_slice_shapes(c)[:8]]
    names += ["2*v5e:16x16", "2*v4:4x4x4", "3*tpu7x:2x2x1"]
    for name, devices in in_a_child(DESCRIBE, *names).items():
        topology = parse_topology(name)
        assert len(devices) == topology.device_count, name
        assert {device[0] for device in devices} == {topology.chip.device_kind}, name
        places = {(*device[1:5], device[6]) for device in devices}
        x, y, z = (*topology.shape, 1)[:3]
        assert places == {
            (i, j, k, core, piece)
            for i in range(x)
            for j in range(y)
            for k in range(z)
            for core in range(topology.chip.devices)
            for piece in range(topology.slices)
        }, name
        hosts = {(device[5], device[6]) for device in devices}
        assert len(hosts) == topology.hosts, name


@tpu_compiler.needed
def test_the_compiler_has_the_memory():
    """To 0.02 GiB, by which versions of libtpu differ."""
    names = {f"{c.name}:{'x'.join(map(str, known_slice_shapes(c)[0]))}": c for c in CHIPS}
    for name, gib in in_a_child(TOO_LARGE, *names).items():
        assert gib == pytest.approx(names[name].hbm_limit_per_device / GIB, abs=0.02), name
