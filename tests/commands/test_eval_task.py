"""`moe-jax eval` on tasks with inputs and targets, in this process on a tiny model."""

import json

import gin
import pytest
import seqio
import task_data
import tiny

from moe_jax import cli

pytestmark = pytest.mark.slow

GIN = f"""import evaluated_task_module
{tiny.RUN}{tiny.STEADY}
include 'routers/expert_choice.gin'
STEPS = 2
TASK = 'evaluated_task'
Model.num_layers = 2
Model.num_experts = 2
Checkpoints.every = 1000
"""
IMPORTS = "--allow_imports=evaluated_task_module"
CLASSES = "--gin.TaskScores.classes=('no', 'yes')"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Returns a directory with a run of two steps."""
    directory = tmp_path_factory.mktemp("evaluated")
    (directory / "evaluated_task_module.py").write_text(task_data.OWN_TASK)
    (directory / "my.gin").write_text(GIN)
    flags = [f"--gin_file={directory / 'my.gin'}", IMPORTS, f"--output_dir={directory / 'run'}"]
    assert cli.main(["train", *flags]) == 0
    yield directory
    gin.clear_config()
    seqio.TaskRegistry.remove("evaluated_task")
    seqio.TaskRegistry.remove("ranked_task")


@pytest.fixture
def run(home, capsys):
    """Evaluates the run; returns the exit code, the JSON and what was said of errors."""

    def evaluate(*flags):
        capsys.readouterr()
        code = cli.main(["eval", f"--checkpoint={home / 'run'}", IMPORTS, "--json", *flags])
        out, err = capsys.readouterr()
        return code, (json.loads(out.splitlines()[-1]) if code == 0 else None), out + err

    return evaluate


def test_scores_by_classes_beside_the_perplexity(home, run):
    path = home / "predictions.jsonl"
    code, found, shown = run(CLASSES, f"--output={path}")
    assert code == 0, shown
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["index"] for row in rows] == list(range(15))
    for row in rows:
        assert row["prediction"] == max(row["scores"], key=row["scores"].get)
    right = sum(row["prediction"] == row["target"] for row in rows)
    assert found["task"] == "evaluated_task"
    assert found["metrics"] == {"accuracy": pytest.approx(100 * right / 15)}
    trained = sum(row["trained_prediction"] == row["target"] for row in rows)
    assert found["trained_metrics"] == {"accuracy": pytest.approx(100 * trained / 15)}
    assert (found["examples"], found["routing"], found["method"]) == (15, "causal", "classes")
    assert found["output"] == str(path)
    # As of a text.
    assert found["perplexity"] > 1
    assert found["causal_loss"] > 0


def test_answers_are_generated_without_classes(run):
    code, found, shown = run("--gin.TaskScores.examples=2")
    assert code == 0, shown
    assert (found["examples"], found["method"]) == (2, "generation")
    assert "trained_metrics" not in found


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--gin.TaskScores.split='test'"], "task evaluated_task has no split 'test'"),
        (["--gin.TaskScores.classes=('yes', 'yes')"], "the classes 'yes' and 'yes' of task"),
        (["--gin.TaskScores.max_new_tokens=40"], "answers of up to 40 tokens leave no room"),
        (["--gin.TASK='embedded'", "--output=p.jsonl"], "--output is for tasks with metrics"),
        (["--output=/nowhere/p.jsonl"], "there is no directory /nowhere"),
    ],
)
def test_mistakes_are_one_line(run, flags, said):
    code, _, shown = run(*flags)
    assert code == 1
    (line,) = [line for line in shown.splitlines() if line.startswith("moe-jax: ")]
    assert said in line


def test_another_vocabulary_is_refused(home, run, monkeypatch, tmp_path):
    """The run of a text was trained with the package's vocabulary."""
    import hashlib

    record = home / "run" / "run.json"
    before, config = record.read_text(), home / "run" / "config.gin"
    saved = config.read_text()
    try:
        other = {**json.loads(before), "vocabulary_digest": hashlib.sha256(b"other").hexdigest()}
        record.write_text(json.dumps(other))
        config.write_text(saved.replace("Data.task = %TASK", "Data.task = 'embedded'"))
        code, _, shown = run("--gin.Data.task='evaluated_task'", CLASSES)
    finally:
        record.write_text(before)
        config.write_text(saved)
    assert code == 1
    assert "task evaluated_task is tokenised with another vocabulary" in shown
