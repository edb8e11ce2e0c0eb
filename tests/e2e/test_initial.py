"""Fine-tuning: a run that starts from another one's checkpoint, stops early, and goes on."""

import json
import re
import shutil
import signal
import time

import jax
import numpy as np
import pytest
import tiny
from on_disk import evaluation, losses, records, saved

import moe_jax
from moe_jax import cli
from moe_jax.models.functional import LanguageModel, Variables
from moe_jax.runs import task_evaluation
from moe_jax.sharding import mesh
from moe_jax.training.step import LossConfig, forward, token_loss

GIN = f"""{tiny.RUN}{tiny.STEADY}
STEPS = 4
Model.num_layers = 1
Model.moe_every = 1
Model.num_experts = 4
Checkpoints.every = 2
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Returns a trained run of expert choice."""
    home = tmp_path_factory.mktemp("initial")
    (home / "tiny.gin").write_text(GIN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mesh, "available_devices", lambda: jax.devices()[:1])
        assert cli.main(["train", f"--gin_file={home}/tiny.gin", f"--output_dir={home}/base"]) == 0
    return home / "base"


def tune(base, directory, *more, files=()):
    """Fine-tunes; returns the exit code."""
    names = [f"--gin_file={name}" for name in (base / "config.gin", *files)]
    return cli.main(
        ["train", *names, f"--gin.Initial.checkpoint={base}", f"--output_dir={directory}", *more]
    )


def loss_of(base, tuned):
    """Returns the held-out loss of the base's parameters with the router of another run."""
    run, router = moe_jax.load(base), moe_jax.load(tuned).model.router
    model = LanguageModel(run.model.config, router)
    variables = Variables(run.variables.params, {})
    from moe_jax.data.pipeline.batch_source import open_source

    batches = open_source(run.experiment.data).eval_batches()

    @jax.jit
    def sums(batch):
        output = forward(model, variables, batch)
        return token_loss(model, variables, output, batch, LossConfig())[1]

    total = sum(float(sums(batch)) for batch in batches)
    return total / sum(float(batch.weights_BS.sum()) for batch in batches)


@pytest.mark.slow
def test_another_router_starts_from_the_same_parameters(base, tmp_path, capsys):
    run = tmp_path / "top2"
    more = ["--gin.STEPS=2", "--gin.Model.dropout=0.1", "--gin.Model.expert_dropout=0.4"]
    assert tune(base, run, *more, files=["routers/gshard_top2.gin"]) == 0
    out = capsys.readouterr().out
    assert re.search(rf"Starting from step 4 of {base}: taken: \d+ arrays of parameters; ", out)
    assert "dropped: threshold; optimiser fresh" in out
    record = json.loads((run / "run.json").read_text())
    assert record["initial"] == {"checkpoint": str(base), "step": 4, "optimizer": "fresh"}
    assert [r["step"] for r in records(run, "eval")] == [0, 2]
    expected = loss_of(base, run)
    np.testing.assert_allclose(records(run, "eval")[0]["loss"], expected, rtol=1e-5)
    assert min(losses(run)) == 1


class Scorer:
    """Accuracies that rise and fall, of a task that the tests do not have."""

    calls = 0
    values = (0.25, 0.5, 0.75, 0.5, 0.75, 1.0)

    def __init__(self, experiment, model, examples=0):
        assert experiment.task_scores.in_training

    def __call__(self, variables):
        assert isinstance(variables, Variables)
        Scorer.calls += 1
        value = self.values[Scorer.calls - 1]
        return {"task/accuracy": value, "task/causal/accuracy": value / 2}


STOP = [
    "--gin.STEPS=20",
    "--gin.Train.eval_every=1",
    "--gin.Train.patience=2",
    "--gin.TaskScores.in_training=True",
    "--gin.Checkpoints.best_is=task/accuracy",
    "--gin.Checkpoints.every=1",
    "--gin.Checkpoints.keep=1",
    "--gin.Checkpoints.keep_best=1",
]


@pytest.mark.slow
def test_early_stop_by_a_score_of_the_task(base, tmp_path, capsys, monkeypatch):
    """Step 0 has 0.25, then 0.5, 0.75, 0.5, 0.75: two evaluations without a better one."""
    monkeypatch.setattr(task_evaluation, "TaskScorer", Scorer)
    monkeypatch.setattr(Scorer, "calls", 0)
    source, run = tmp_path / "source", tmp_path / "run"
    shutil.copytree(base, source)
    assert tune(source, run, "--json", "--gin.Initial.optimizer=continued", *STOP) == 0
    out = capsys.readouterr().out
    message = (
        "Stopped early after step 4: 2 evaluations without improvement (Train.patience); "
        "the highest task/accuracy: 0.75 at step 4"
    )
    assert message in out
    assert "step 0: held-out" in out
    assert "task/accuracy 0.25; task/causal/accuracy 0.125" in out
    assert "optimiser continued" in out
    # Untouched before the first step: what the source's own last evaluation has.
    first, *rest = records(run, "eval")
    for name in ("loss", "causal_loss", "bytes", "causal_mean_experts"):
        np.testing.assert_allclose(first[name], evaluation(source)[name], rtol=1e-5)
    assert [r["task/accuracy"] for r in rest] == [0.5, 0.75, 0.5, 0.75]
    # Of equal ones the latest.
    assert saved(run) == [4]
    found = json.loads(out.splitlines()[-1])
    assert (found["step"], found["task/accuracy"]) == (4, 0.75)
    early = {"step": 4, "best_step": 4, "best_is": "highest task/accuracy"}
    assert json.loads((run / "run.json").read_text())["early_stop"] == early
    # It is finished, whatever became of its source.
    shutil.rmtree(source)
    assert resume(run, *STOP) == 0
    out = capsys.readouterr().out
    assert "Done already" in out
    assert message in out
    assert moe_jax.load(run, step="best").step == 4
    assert cli.main(["status", str(run), "--json"]) == 0
    status = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (status["state"], status["step"]) == ("finished", 4)
    # With more patience it goes on, from its own checkpoint.
    more = "--gin.Train.patience=3"
    assert resume(run, *STOP[:1], "--gin.STEPS=5", *STOP[1:], more) == 0
    assert "Going on from step 4" in capsys.readouterr().out
    record = json.loads((run / "run.json").read_text())
    assert record["early_stop"] is None
    assert record["initial"]["step"] == 4
    assert moe_jax.load(run, step="best").step == 5


def resume(run, *more):
    """Goes on with the configuration of the run, as a file that the user names."""
    copy = run.parent / "again.gin"
    copy.write_text((run / "config.gin").read_text())
    return cli.main(["train", f"--gin_file={copy}", f"--output_dir={run}", *more])


@pytest.mark.slow
def test_a_killed_run_goes_on_without_its_source(base, tmp_path, capsys):
    """The same losses as a run that was not killed; the changed source is reported."""
    from forked import Forked

    whole, run = tmp_path / "whole", tmp_path / "run"
    more = ["--gin.Model.dropout=0.2", "--gin.Checkpoints.every=2"]
    router = ["routers/switch.gin"]
    assert tune(base, whole, "--gin.STEPS=8", *more, files=router) == 0
    source = tmp_path / "source"
    shutil.copytree(base, source)
    names = [f"--gin_file={name}" for name in (source / "config.gin", *router)]
    argv = ["train", *names, f"--output_dir={run}", f"--gin.Initial.checkpoint={source}", *more]
    process = Forked([*argv, "--gin.STEPS=1000"], tmp_path / "log")
    while process.poll() is None and not any(step >= 2 for step in saved(run)):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    shutil.rmtree(source)
    last = saved(run)[-1]
    capsys.readouterr()
    assert resume(run, f"--gin.STEPS={max(8, last + 2)}", "--gin.Initial.checkpoint=elsewhere") == 0
    out = capsys.readouterr().out
    assert f"Going on from step {last}" in out
    assert "Initial.checkpoint = 'elsewhere'" in out
    expected, found = losses(whole), losses(run)
    for step in expected:
        np.testing.assert_allclose(found[step], expected[step], rtol=1e-5)
    np.testing.assert_allclose(records(run, "eval")[0]["loss"], loss_of(base, run), rtol=1e-5)
    assert json.loads((run / "run.json").read_text())["initial"]["checkpoint"] == str(source)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("Model.d_ff=64", "has other parameters than this model: Model.d_ff was 32 and is now 64"),
        ("Initial.step=3", "Initial.checkpoint: .* has no checkpoint at step 3; it has: 2, 4"),
        ("Initial.checkpoint=nowhere", "Initial.checkpoint: there is no run directory .*nowhere"),
        ("Experiment.router=None", "needs a router"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(base, tmp_path, capsys, setting, message):
    assert tune(base, tmp_path / "run", f"--gin.{setting}") == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert re.search(message, err)
    written = {path.name for path in (tmp_path / "run").glob("*")}
    assert not written & {"run.json", "config.gin", "metrics.jsonl"}


def test_another_optimiser_cannot_be_continued(base, tmp_path, capsys):
    more = ["--gin.Initial.optimizer=continued", "--gin.Train.frozen=('experts',)"]
    assert tune(base, tmp_path / "run", *more) == 1
    err = capsys.readouterr().err
    assert "Initial.optimizer = 'continued': the optimiser state of the checkpoint at step 4" in err
    assert "Train.frozen was () and is now ('experts',)" in err
    assert "or set Initial.optimizer = 'fresh'" in err


def test_a_checkpoint_of_another_vocabulary_is_refused(base, tmp_path, capsys):
    source = tmp_path / "source"
    shutil.copytree(base, source)
    record = json.loads((source / "run.json").read_text())
    (source / "run.json").write_text(json.dumps(record | {"vocabulary_digest": "0" * 64}))
    assert tune(source, tmp_path / "run") == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert f"{source} was trained with the vocabulary 'embedded', and this run has" in err
    # Runs of earlier versions do not say which they had.
    del record["vocabulary_digest"]
    (source / "run.json").write_text(json.dumps(record))
    assert tune(source, tmp_path / "run", "--gin.Initial.step=3") == 1
    assert "no checkpoint at step 3" in capsys.readouterr().err


def test_the_best_of_what_was_not_evaluated(base, tmp_path, capsys):
    """The base was evaluated after its last step only."""
    assert moe_jax.load(base, step="best").step == 4
    with pytest.raises(moe_jax.UserError, match=r"no checkpoint whose evaluation has task/f1"):
        moe_jax.load(
            base,
            step="best",
            bindings=["Checkpoints.best_is=task/f1", "TaskScores.in_training=True"],
        )
