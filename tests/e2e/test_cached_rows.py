"""A run that seqio began goes on, evaluates and samples from cached rows, with no TensorFlow."""

import json
import os
import shutil
import subprocess
import sys

import cached_rows
import compiling
import jax
import pytest
import tiny
from on_disk import evaluation, losses

from moe_jax import cli
from moe_jax.sharding import mesh

# Dense: it compiles fast.
GIN = f"""{tiny.RUN}{tiny.STEADY}
STEPS = 4
Model.num_layers = 1
Model.num_experts = 0
Checkpoints.every = 2
"""
# As if the packages were not installed.
WITHOUT = """
import sys

MISSING = ("tensorflow", "tensorflow_text", "tensorflow_datasets", "seqio")

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in MISSING:
            return self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
from moe_jax import cli

train, evaluate = sys.argv[1:].index("--") + 1, sys.argv[1:].index("--") + 2
assert cli.main(sys.argv[1:train]) == 0
assert cli.main(sys.argv[evaluate:]) == 0
assert not set(MISSING) & set(sys.modules)
"""


def test_a_run_of_seqio_goes_on_without_tensorflow(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(mesh, "available_devices", lambda: jax.devices()[:1])
    task = cached_rows.write_text(tmp_path / "numbers.txt", 1_000)
    (tmp_path / "tiny.gin").write_text(f"{GIN}TASK = '{task}'\n")
    flags = [f"--gin_file={tmp_path / 'tiny.gin'}"]
    cache = ["data", "cache", "--rows", "--steps=4", f"--output_dir={tmp_path / 'rows'}"]
    assert cli.main([*cache, *flags]) == 0
    assert "4 steps of 8 rows" in capsys.readouterr().out
    assert cli.main(["train", *flags, f"--output_dir={tmp_path / 'whole'}"]) == 0
    resumed = shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
    shutil.rmtree(resumed / "checkpoints" / "4")
    # Not even the texts are there.
    (tmp_path / "numbers.txt").unlink()
    rows = f"--gin.Data.rows_dir={tmp_path / 'rows'}"
    train = ["train", *flags, rows, f"--output_dir={resumed}"]
    evaluate = ["eval", f"--checkpoint={resumed}", "--json"]
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT, *train, "--", *evaluate],
        env=os.environ | compiling.ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert "Going on from step 2" in result.stdout
    assert "A sample that it wrote" in result.stdout
    assert losses(resumed) == losses(tmp_path / "whole")
    assert list(losses(resumed)) == [1, 2, 3, 4]
    found, expected = evaluation(resumed), evaluation(tmp_path / "whole")
    figures = json.loads(result.stdout.splitlines()[-1])
    for name in ("loss", "causal_loss", "bits_per_byte", "tokens"):
        assert found[name] == expected[name]
        assert figures[name] == pytest.approx(expected[name], rel=1e-6), name
    before, after = (
        json.loads((path / "run.json").read_text()) for path in (tmp_path / "whole", resumed)
    )
    for name in ("data", "prompt", "is_question", "has_padding"):
        assert after[name] == before[name]
