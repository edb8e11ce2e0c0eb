"""Scores of tasks in two processes: the predictions of one, each example once."""

import json

import forked
import pytest
import task_data
import tiny

# Seconds that no process takes, even on a busy machine.
PATIENCE = 600
pytestmark = [pytest.mark.slow, pytest.mark.multidevice]

GIN = f"""import task_of_two
{tiny.RUN}{tiny.STEADY}
include 'routers/expert_choice.gin'
STEPS = 1
TASK = 'evaluated_task'
Model.num_layers = 2
Model.num_experts = 2
Mesh.expert = 2
Data.shards = 2
"""
IMPORTS = "--allow_imports=task_of_two"


def start(home, name, argv):
    return forked.Forked([*argv, IMPORTS], home / name, paths=[home])


def finish(*processes):
    for process in processes:
        assert process.wait(PATIENCE) == 0, process.err.read_text()


def test_two_processes_score_tasks_like_one(tmp_path):
    (tmp_path / "task_of_two.py").write_text(task_data.OWN_TASK)
    (tmp_path / "my.gin").write_text(GIN)
    train = ["train", f"--gin_file={tmp_path / 'my.gin'}", f"--output_dir={tmp_path / 'run'}"]
    finish(start(tmp_path, "train", [*train, "--cpu_devices=4"]))
    # One that is generated, and one with classes.
    argv = ["eval", f"--checkpoint={tmp_path / 'run'}", "--json"]
    argv.append("--gin.Data.task={'evaluated_task': 1, 'ranked_task': 1}")
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    finish(start(tmp_path, "one", [*argv, f"--output={one}", "--cpu_devices=4"]))
    flags = [f"--coordinator={forked.free_address()}", "--num_processes=2", "--cpu_devices=2"]
    both = [
        start(tmp_path, f"two_{index}", [*argv, f"--output={two}", *flags, f"--process_id={index}"])
        for index in range(2)
    ]
    finish(*both)
    rows = [[json.loads(line) for line in file.read_text().splitlines()] for file in (one, two)]
    order = [(task, index) for task in ("evaluated_task", "ranked_task") for index in range(15)]
    assert [(row["task"], row["index"]) for row in rows[1]] == order
    for of_one, of_two in zip(*rows, strict=True):
        expected, found = (row.pop("scores", {}) for row in (of_one, of_two))
        assert found == pytest.approx(expected, abs=1e-5)
        expected, found = (row.pop("trained_scores", {}) for row in (of_one, of_two))
        assert found == pytest.approx(expected, abs=1e-4)
        assert of_two == of_one
    # The main process alone prints.
    figures = json.loads(both[0].out.read_text().splitlines()[-1])
    right = sum(row["prediction"] == row["target"] for row in rows[1][15:])
    accuracy = figures["tasks"]["ranked_task"]["metrics"]["accuracy"]
    assert accuracy == pytest.approx(100 * right / 15)
    assert both[1].out.read_text() == ""
