"""Runs of two processes: the same curve as one, stopped together, resumed by any number.

Launches are dear on a small machine, so that all tests look at the same five runs.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import forked
import numpy as np
import pytest
import tiny
from on_disk import losses, saved

pytestmark = [pytest.mark.slow, pytest.mark.multidevice]

SCRIPT = Path(__file__).parents[2] / "scripts" / "launch_local.sh"
# Relative, of losses in float32: sums are in another order. 2e-7 was seen.
TOLERANCE = 1e-5
# Seconds that no process takes, even on a busy machine.
PATIENCE = 600
GIN = f"""{tiny.RUN}{tiny.STEADY}
include 'routers/topk.gin'
STEPS = 100000
Model.num_layers = 1
Model.moe_every = 1
Model.num_experts = 2
Mesh.expert = 2
Data.shards = 2
Checkpoints.every = 100000
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    directory = tmp_path_factory.mktemp("processes")
    (directory / "tiny.gin").write_text(f"{GIN}TASK = 'text:{directory}/book.txt'\n")
    (directory / "book.txt").write_text(
        "\n".join(f"Chapter {i} tells of whale number {i * 7}." for i in range(1500))
    )
    return directory


def environment():
    """Returns the environment of a launch with the script, which compiles like a forked process."""
    return {**os.environ, **forked.ENVIRONMENT, "MOE_JAX_PYTHON": sys.executable}


def arguments(home, name, *more):
    return [
        "train",
        f"--gin_file={home / 'tiny.gin'}",
        f"--output_dir={home / name}",
        *more,
    ]


def launch(home, processes, devices, argv):
    """Runs a command as several processes with the script; returns what the first printed."""
    done = subprocess.run(
        ["bash", SCRIPT, str(processes), str(devices), "--", *argv],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def alone(home, devices, argv):
    """Runs a command as one process; returns what it printed."""
    process = forked.Forked([*argv, f"--cpu_devices={devices}"], home / "log_of_one")
    assert process.wait(PATIENCE) == 0, process.err.read_text()
    return process.out.read_text()


def start(home, index, address, argv, processes=2, devices=2):
    """Starts one process of several."""
    flags = [f"--coordinator={address}", f"--num_processes={processes}", f"--process_id={index}"]
    log = home / f"log_of_{argv[2].rpartition('/')[2]}_{index}"
    return forked.Forked([*argv, *flags, f"--cpu_devices={devices}"], log)


@pytest.fixture(scope="module")
def stopped(home):
    """Returns a run of two processes of which one got a SIGTERM: step, codes and outputs."""
    address = forked.free_address()
    both = [start(home, index, address, arguments(home, "stopped")) for index in range(2)]
    metrics = home / "stopped" / "metrics.jsonl"
    while all(p.poll() is None for p in both) and not (
        metrics.exists() and metrics.read_text().count("\n") >= 3
    ):
        time.sleep(0.05)
    both[1].send_signal(signal.SIGTERM)
    codes = [process.wait(PATIENCE) for process in both]
    step = max(losses(home / "stopped"), default=0)
    return step, codes, [(process.out.read_text(), process.err.read_text()) for process in both]


@pytest.fixture(scope="module")
def whole(home, stopped):
    """Returns the run of one process with four devices, four steps longer than the stopped."""
    step = stopped[0]
    more = [f"--gin.STEPS={step + 4}", f"--gin.Checkpoints.every={step}", "--json"]
    return alone(home, 4, arguments(home, "whole", *more))


def test_a_signal_to_one_process_stops_both_at_the_same_step(home, stopped):
    step, codes, ((out_0, err_0), (out_1, err_1)) = stopped
    assert codes == [128 + signal.SIGTERM] * 2, err_0 + err_1
    assert f"Stopped and saved at step {step} of 100000" in out_0
    assert out_1 == ""
    assert "Traceback" not in err_0 + err_1
    assert saved(home / "stopped") == [step]
    checkpoint = home / "stopped" / "checkpoints" / str(step)
    assert (checkpoint / "commit_success.txt").exists()
    assert sorted(p.name for p in (checkpoint / "data").glob("stream_*")) == [
        f"stream_{i}" for i in range(2)
    ]
    record = json.loads((home / "stopped" / "run.json").read_text())
    assert record["mesh"] == {"slice": 1, "data": 2, "fsdp": 1, "expert": 2, "tensor": 1}
    assert record["devices"]["processes"] == 2


def test_two_processes_train_like_one(home, stopped, whole):
    step, *_ = stopped
    assert np.isfinite(json.loads(whole.splitlines()[-1])["causal_loss"])
    two, one = losses(home / "stopped"), losses(home / "whole")
    assert list(two) == list(range(1, step + 1))
    for done, loss in two.items():
        assert loss == pytest.approx(one[done], rel=TOLERANCE), done


@pytest.mark.parametrize(
    ("source", "processes", "devices"), [("stopped", 1, 4), ("stopped", 1, 2), ("whole", 2, 2)]
)
def test_any_number_of_processes_goes_on(home, stopped, whole, source, processes, devices):
    """Saved by two, restored by one on as many or fewer devices; saved by one, restored by two."""
    step, *_ = stopped
    name = f"{source}_{processes}_{devices}"
    shutil.copytree(home / source, home / name)
    shutil.rmtree(home / name / "checkpoints" / str(step + 4), ignore_errors=True)
    assert saved(home / name) == [step]
    argv = arguments(home, name, f"--gin.STEPS={step + 4}")
    shown = alone(home, devices, argv) if processes == 1 else launch(home, processes, devices, argv)
    assert f"Going on from step {step}" in shown
    expected, found = losses(home / "whole"), losses(home / name)
    assert list(found) == list(range(1, step + 5))
    for done in range(step + 1, step + 5):
        assert found[done] == pytest.approx(expected[done], rel=TOLERANCE), done


def test_processes_that_differ_are_refused(home):
    address = forked.free_address()
    argv = arguments(home, "differ")
    both = [
        start(home, 0, address, argv),
        start(home, 1, address, [*argv, "--gin.Data.batch_size=16"]),
    ]
    host = socket.gethostname()
    for process in both:
        assert process.wait(PATIENCE) == 1
        err = process.err.read_text()
        assert (
            "moe-jax: the processes are not the same: "
            f"Data.batch_size is 8 in process 0 ({host}), 16 in process 1 ({host})"
        ) in err
        assert "Traceback" not in err
    assert not (home / "differ").exists()


def test_a_missing_process_is_named(home):
    address = forked.free_address()
    argv = arguments(home, "missing", "--start_timeout=4")
    here = [start(home, index, address, argv, processes=3) for index in (0, 2)]
    late = start(home, 1, forked.free_address(), argv)
    for process in here:
        assert process.wait(PATIENCE) == 1
        err = process.err.read_text()
        assert "process 1 is missing: 2 of 3 processes came within 4 seconds" in err
        assert err.count("\n") == 1
    assert late.wait(PATIENCE) == 1
    err = late.err.read_text()
    assert "process 0 is missing: it did not answer process 1" in err
    assert not (home / "missing").exists()
