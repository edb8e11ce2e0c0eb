"""Law 4: ten steps and ten more are twenty, on the same devices to the last digit, and on others.

The data are a packed mixture of two texts, shuffled, and several epochs of it; the updates are
made of two micro-batches; one router has a state and the other draws.
"""

import json
import math
import re
import shutil
from pathlib import Path

import jax
import pytest
import tiny
from on_disk import evaluation, losses, records, saved
from tiers import slow

from moe_jax import cli
from moe_jax.compare.run_reader import read_run
from moe_jax.sharding import mesh

pytestmark = pytest.mark.multidevice

# Relative, of losses in float32: sums are in another order. 3e-7 was seen.
TOLERANCE = 1e-5
GIN = f"""{tiny.RUN}{tiny.STEADY}
STEPS = 20
Model.num_layers = 1
Model.moe_every = 1
Model.num_experts = 4
Data.pack = True
Data.shards = 2
Train.accumulation = 2
Checkpoints.every = 10
"""
# The router, how many devices go on, and how they are arranged.
CASES = [
    ("expert_choice", 1, []),
    slow("expert_choice", 2, ["--gin.Mesh.fsdp=2"]),
    slow("expert_choice", 4, ["--gin.Mesh.expert=2"]),
    slow("vmoe_priority", 1, []),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Returns a directory with a configuration and two texts, of which 20 steps see epochs."""
    directory = tmp_path_factory.mktemp("resume")
    for name, count in {"whales": 300, "ships": 300}.items():
        lines = (f"Chapter {i} tells of number {i * 7} of the {name}.\n\n" for i in range(count))
        (directory / f"{name}.txt").write_text("".join(lines))
    task = {f"text:{directory}/whales.txt": 1, f"text:{directory}/ships.txt": 2}
    (directory / "tiny.gin").write_text(f"{GIN}TASK = {task}\n")
    return directory


def train(home, name, *more):
    """Trains in this process."""
    argv = ["train", f"--gin_file={home / 'tiny.gin'}", f"--output_dir={home / name}", *more]
    assert cli.main(argv) == 0


def lasting(directory):
    """Returns the records of a run without speed and memory, which differ."""
    return [
        {name: v for name, v in record.items() if not re.search("per_second|memory", name)}
        for kind in ("train", "eval")
        for record in records(directory, kind)
    ]


@pytest.fixture(scope="module")
def whole(home):
    """Returns a function: the directory of a router's run of 20 steps on one device."""

    def directory(router):
        if not (home / router).exists():
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(mesh, "available_devices", lambda: jax.devices()[:1])
                train(home, router, f"--gin_file=routers/{router}.gin")
        return home / router

    return directory


@pytest.mark.parametrize(("router", "devices", "flags"), CASES)
def test_ten_steps_and_ten_more_are_twenty(
    home, whole, monkeypatch, capsys, router, devices, flags
):
    monkeypatch.setattr(mesh, "available_devices", lambda: jax.devices()[:devices])
    # As a process that was killed at step 13 leaves it.
    resumed = Path(shutil.copytree(whole(router), home / f"{router}_{devices}"))
    shutil.rmtree(resumed / "checkpoints" / "20")
    metrics = resumed / "metrics.jsonl"
    metrics.write_text("".join(metrics.read_text().splitlines(keepends=True)[:13]))
    assert (saved(resumed), list(losses(resumed))) == ([10], list(range(1, 14)))
    train(home, resumed.name, f"--gin_file=routers/{router}.gin", *flags)
    assert "Going on from step 10" in capsys.readouterr().out
    sizes = json.loads((resumed / "run.json").read_text())["mesh"]
    assert devices == 1 or math.prod(sizes.values()) == devices
    found, expected = losses(resumed), losses(whole(router))
    assert list(found) == list(expected) == list(range(1, 21))
    if devices == 1:
        assert lasting(resumed) == lasting(whole(router))
    for step, loss in found.items():
        assert loss == pytest.approx(expected[step], rel=TOLERANCE), step
    ends = [evaluation(of)["causal_loss"] for of in (resumed, whole(router))]
    assert ends[0] == pytest.approx(ends[1], rel=TOLERANCE)


def test_a_comparison_reads_what_the_run_has_written(whole):
    directory = whole("expert_choice")
    run, facts = read_run(directory), json.loads((directory / "run.json").read_text())
    assert (run.outcome, run.planned_steps, run.router) == ("finished", 20, "expert_choice")
    found = evaluation(directory)
    assert run.curve.loss[-1] == found["loss"]
    assert run.curve.causal_loss[-1] == found["causal_loss"]
    assert run.eval_tokens == found["tokens"]
    assert run.tokens_per_step == facts["tokens_per_step"]
    assert run.flops_per_token == facts["train_flops_per_token"]
    assert {"total": run.parameters, "active": run.active_parameters} == facts["parameters"]
    digests = {task: files["digest"] for task, files in facts["data"].items()}
    assert run.data["digests"] == digests
    assert len(digests) == 2
