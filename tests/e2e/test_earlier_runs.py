"""A run made by an earlier version: it evaluates and goes on to the same losses.

`tests/golden/run_of_0_1_0.tar.xz` has a run directory of Switch routing after 4 steps, the text
that it was trained on, and the figures that the earlier version then gave. Names in its
configuration have changed since: `@TokenChoice()` for `@Switch()`, `Loss.router_z_loss` and its
kin for `Loss.weights`.
"""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from moe_jax import cli

GOLDEN = Path(__file__).parent.parent / "golden" / "run_of_0_1_0.tar.xz"
# The command that the run was made with.
TRAIN = [
    "train",
    "--gin_file=runs/quickstart.gin",
    "--gin_file=optim/adafactor.gin",
    "--gin_file=routers/switch.gin",
    "--gin.TASK=text:numbers.txt",
    "--gin.Model.d_model=8",
    "--gin.Model.d_ff=16",
    "--gin.Model.num_heads=2",
    "--gin.Model.head_dim=4",
    "--gin.Model.num_layers=2",
    "--gin.Data.batch_size=4",
    "--gin.Data.sequence_length=32",
    "--gin.Data.eval_batches=1",
    "--gin.Checkpoints.every=4",
    "--gin.Checkpoints.keep=1",
    "--gin.Train.eval_every=0",
    "--gin.Sampling.max_new_tokens=1",
    "--gin.Writers.tensorboard=False",
    "--output_dir=run",
]
OLD_NAME = "--gin.Loss.router_z_loss=0.001"
NEW_NAME = "--gin.Loss.weights={'router_z': 0.001}"


@pytest.fixture
def expected(tmp_path, monkeypatch):
    """Unpacks the run into the working directory; returns the figures of the earlier version."""
    with tarfile.open(GOLDEN) as archive:
        # Python 3.11 has filters from 3.11.4 on.
        filters = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        archive.extractall(tmp_path, **filters)
    monkeypatch.chdir(tmp_path)
    return json.loads(Path("expected.json").read_text())


def assert_same(found, expected):
    """On the same processor they are equal to the last digit; others round differently."""
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6, err_msg=name)


@pytest.mark.slow
def test_it_evaluates_to_the_same_figures(expected, capsys):
    assert cli.main(["eval", "--checkpoint=run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert_same(found, expected["eval_step_4"])


@pytest.mark.slow
@pytest.mark.parametrize("z_loss", [OLD_NAME, NEW_NAME], ids=["old name", "new name"])
def test_it_goes_on_to_the_same_losses(expected, capsys, z_loss):
    """With the names of then and of now; neither is taken for a change of the configuration."""
    assert cli.main([*TRAIN, z_loss, "--gin.STEPS=6"]) == 0
    out = capsys.readouterr().out
    changes = [line for line in out.splitlines() if "configuration changed" in line]
    assert all("STEPS" in line or "total_steps" in line for line in changes), changes
    records = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    for step, figures in expected["steps"].items():
        (record,) = [r for r in records if r["kind"] == "train" and r["step"] == int(step)]
        assert_same(record, figures)
    (record,) = [r for r in records if r["kind"] == "eval" and r["step"] == 6]
    assert_same(record, expected["eval_step_6"])


def test_a_finished_one_is_no_other_configuration(expected, capsys):
    """Its router has another name in the configuration of today, and is the same one."""
    assert cli.main([*TRAIN, OLD_NAME, "--gin.STEPS=4"]) == 0
    out = capsys.readouterr().out
    assert "Done already" in out
    assert "differs" not in out
