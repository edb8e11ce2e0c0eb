"""A study that is killed in the middle and goes on has the results of an unbroken one."""

import dataclasses
import os
import subprocess
import sys
import time

import compiling
import pytest
import tiny

from moe_jax.compare.progress import last_step
from moe_jax.compare.records import RunRecord
from moe_jax.compare.results_file import read_records

SETTINGS = [line.replace(" = ", "=") for line in (tiny.RUN + tiny.STEADY).splitlines()]
COMMON = [
    "runs/quickstart.gin",
    *(line for line in SETTINGS if "=" in line),
    "STEPS=12",
    "Model.num_layers=1",
    "Model.moe_every=1",
    "Train.eval_every=3",
    "Checkpoints.every=4",
    "Writers.tensorboard=False",
]
STUDY = f"""
Study.question = 'Does anything change?'
Study.common = {COMMON}
Study.arms = {{'ec': ['routers/expert_choice.gin'], 'switch': ['routers/switch.gin']}}
Study.baseline = 'switch'
Study.seeds = (1,)
Study.aa = False
Study.timing_rounds = 0
Study.leak_test_steps = 0
"""


def start(home, name):
    command = [sys.executable, "-m", "moe_jax.cli", "compare", f"--gin_file={home / 'study.gin'}"]
    log = open(home / f"{name}.log", "a")  # noqa: SIM115
    return subprocess.Popen(
        [*command, f"--output_dir={home / name}"],
        env=os.environ | compiling.ENVIRONMENT,
        stdout=log,
        stderr=log,
    )


def wait_for(process, condition):
    deadline = time.monotonic() + 300
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


def lasting(home, name):
    """Returns what is recorded of the runs, without what differs each time."""
    runs = [r for r in read_records(home / name / "results.jsonl") if isinstance(r, RunRecord)]
    speed = {"step_seconds": None, "tokens_per_second": None, "memory_bytes": None}
    return {
        run.name: dataclasses.replace(
            run,
            health=dataclasses.replace(run.health, **speed),
            wall_seconds=None,
            command=run.command.replace(str(home / name), "DIR"),
        )
        for run in runs
    }


@pytest.mark.slow
def test_a_killed_study_goes_on_to_the_same_results(tmp_path):
    (tmp_path / "study.gin").write_text(STUDY)
    assert start(tmp_path, "whole").wait() == 0

    process = start(tmp_path, "killed")
    second = tmp_path / "killed/runs/switch/seed_1"
    # After a checkpoint that is not the last.
    wait_for(process, lambda: (last_step(second) or 0) >= 6)
    process.kill()
    process.wait()
    assert lasting(tmp_path, "killed").keys() == {"ec/seed_1"}
    assert start(tmp_path, "killed").wait() == 0

    assert lasting(tmp_path, "killed") == lasting(tmp_path, "whole")
    assert (tmp_path / "killed/report.html").exists()
