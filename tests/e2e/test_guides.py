"""The code in the guides runs as it is written, with tiny models in the place of large ones."""

import json
import os
import subprocess
import sys
from pathlib import Path

import guides
import pytest
import tiny

# Over every command of a guide.
SMALL = [
    "--gin.STEPS=2",
    "--gin.Model.d_model=16",
    "--gin.Model.d_ff=32",
    "--gin.Model.num_heads=2",
    "--gin.Model.head_dim=8",
    "--gin.Data.batch_size=8",
    "--gin.Data.sequence_length=32",
    "--gin.Data.eval_batches=1",
    "--gin.Train.log_every=1",
    "--gin.Train.eval_every=0",
    "--gin.Sampling.max_new_tokens=1",
    "--gin.WarmupCosine.warmup_fraction=0.5",
]


# Programs that run for two steps are compiled fast.
FAST = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "True"}


def run_python(code, directory):
    """Runs code in a process of its own, whose directory has the files of the guide."""
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=directory,
        env=os.environ | FAST,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


@pytest.fixture
def extending(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = guides.write_files("extending.md", tmp_path)
    assert {"my_router.py", "my.gin", "my_optimizer.py", "my_dispatch.py"} <= set(files)
    return tmp_path


def test_a_router_in_one_file_trains_with_two_flags(extending):
    """In a process of its own, as a user starts it: the module is found beside the gin file."""
    command, *_ = guides.commands("extending.md")
    assert [argument.split("=")[0] for argument in command] == [
        "train",
        "--gin_file",
        "--allow_imports",
        "--output_dir",
    ]
    arguments = [*command, *SMALL[:-1], "--json"]
    output = run_python(
        f"import sys; from moe_jax.cli import main; sys.exit(main({arguments}))", extending
    )
    assert json.loads(output.splitlines()[-1])["loss"] > 0
    (record, *_) = (
        json.loads(line) for line in Path("runs/top_p/metrics.jsonl").read_text().splitlines()
    )
    assert record["router/entropy"][0] > 0
    assert 1 <= record["router/mean_experts"][0] <= 4
    kept = Path("runs/top_p/config.gin").read_text()
    assert "import my_router" in kept
    assert "'balance': 0.01" in kept
    assert "'entropy': 0.0001" in kept


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2], ids=["optimiser", "dispatch"])
def test_the_other_commands_train(extending, number):
    arguments = [*guides.commands("extending.md")[number], *SMALL[:-1]]
    code = f"import sys; from moe_jax.cli import main; sys.exit(main({arguments}))"
    assert "held-out bits per byte" in run_python(code, extending)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(3), ids=["check_router", "experiment", "check_dispatch"])
def test_the_python_of_the_page_runs(extending, number):
    code = guides.python_blocks("extending.md")[number]
    output = run_python(code, extending)
    assert ("TopP(" in output) == (number == 1)


@pytest.mark.slow
def test_names_of_a_users_module_are_listed_and_suggested(extending, capsys):
    flags = ["--gin_file=my.gin", "--allow_imports=my_router"]
    listed = run_python(
        f"from moe_jax.cli import main; main({['config', 'list', *flags]})", extending
    )
    assert "TopP" in listed
    wrong = [*flags, "--gin.Experiment.router=@TopQ()"]
    code = f"from moe_jax.cli import main; main({['config', 'check', *wrong]})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "Did you mean 'TopP'?" in result.stderr


@pytest.mark.slow
def test_a_loss_without_a_weight_names_the_losses(extending):
    """The router of the guide returns `entropy`, which has no default weight."""
    Path("bare.gin").write_text(
        "import my_router\n" + tiny.RUN + "Experiment.router = @TopP()\nSTEPS = 1\n"
    )
    flags = [
        "--gin_file=bare.gin",
        "--allow_imports=my_router",
        "--gin.WarmupCosine.warmup_fraction=0.0",
    ]
    code = "from moe_jax.cli import main; import sys; sys.exit(main({}))"
    train = ["train", *flags, "--output_dir=run"]
    for arguments in (train, ["config", "check", *flags]):
        result = subprocess.run(
            [sys.executable, "-c", code.format(arguments)], capture_output=True, text=True
        )
        assert result.returncode == 1
        assert "returns the loss 'entropy', which has no weight" in result.stderr
        assert "Loss.weights = {'entropy': ...}" in result.stderr


@pytest.mark.slow
def test_the_python_guide_runs_from_top_to_bottom(tmp_path):
    """On a tiny run in the place of the quickstart's, with a text of the user's own."""
    (tmp_path / "mine").mkdir()
    text = "".join(f"The square of {n} is {n * n}.\n" for n in range(2000))
    (tmp_path / "mine" / "squares.txt").write_text(text)
    (tmp_path / "tiny.gin").write_text(tiny.RUN + tiny.STEADY + "STEPS = 2\n")
    train = "import moe_jax; moe_jax.experiment(['tiny.gin']).train('runs/quickstart', quiet=True)"
    run_python(train, tmp_path)
    parts = guides.python_blocks("python.md")
    assert len(parts) >= 6
    code = "\n".join(parts).replace(
        '["runs/quickstart.gin"], ["STEPS=20"]', '["tiny.gin"], ["STEPS=3"]'
    )
    output = run_python(code, tmp_path)
    assert "bits per byte) routed as trained" in output
    assert (tmp_path / "runs" / "x" / "checkpoints" / "3").is_dir()
