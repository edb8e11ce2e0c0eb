"""`moe-jax config show --sharding`, against sizes worked out by hand."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.multidevice


def show(*argv):
    own = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    return subprocess.run(
        [sys.executable, "-m", "moe_jax.cli", "config", "show", "--sharding", *argv, "--json"],
        env=own,
        capture_output=True,
        text=True,
        check=False,
    )


def test_bytes_of_every_parameter_on_a_mesh_of_eight():
    mesh = ["--gin.Mesh.fsdp=2", "--gin.Mesh.expert=2", "--gin.Mesh.tensor=2"]
    run = show("--gin_file=runs/quickstart.gin", "--cpu_devices=8", *mesh)
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout.splitlines()[-1])
    assert result["mesh"] == {"slice": 1, "data": 1, "fsdp": 2, "expert": 2, "tensor": 2}
    rows = {row["name"]: row for row in result["parameters"]}
    # Vocabulary over tensor, width over fsdp, in float32.
    embedding = rows["embedding"]
    assert embedding["stored"] == [["tensor"], ["fsdp"]]
    vocabulary, width = embedding["shape"]
    assert embedding["bytes_per_device"] == vocabulary * width * 4 // 4
    experts = [row for row in rows.values() if "experts" in row["axes"] and len(row["shape"]) == 4]
    assert experts
    for row in experts:
        assert dict(zip(row["axes"], row["stored"], strict=True))["experts"] == ["expert"]
        count = 1
        for size in row["shape"]:
            count *= size
        assert row["bytes_per_device"] == count * 4 // 8
    assert result["bytes_per_device"] == sum(r["bytes_per_device"] for r in rows.values())
    assert f"{result['bytes_per_device']:,} bytes of parameters a device" in run.stdout


def test_a_mesh_that_does_not_fit_is_refused():
    run = show("--gin_file=runs/quickstart.gin", "--cpu_devices=4", "--gin.Mesh.expert=3")
    assert run.returncode == 1
    assert "Mesh: data -1 x expert 3 does not make 4 devices" in run.stderr
    assert run.stderr.count("\n") == 1
