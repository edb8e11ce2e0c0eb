"""The table of scores and its JSON, of results that need no model."""

import dataclasses

import numpy as np
import pytest
import task_data
from rich.console import Console

from moe_jax.commands.score_report import print_scores, scores_as_dict
from moe_jax.evaluation.task_run import Scored, TaskResult
from moe_jax.evaluation.task_scores import Prediction


def scored(task, accuracy):
    predictions = [Prediction(example, "no", {}) for example in task.examples]
    return Scored(predictions, {"accuracy": accuracy}, accuracy)


def result(name, causal, trained=None, classes=("no", "yes")):
    task = task_data.make_task([("is it", "no"), ("so", "yes")], classes)
    task = dataclasses.replace(task, name=name)
    made = [None if value is None else scored(task, value) for value in (causal, trained)]
    return TaskResult(task, *made, shortened=1)


def shown(results):
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_scores(console, results)
    return console.export_text()


def test_json_of_one_task():
    assert scores_as_dict([result("t", 50.0, 75.0)], "p.jsonl") == {
        "split": "validation",
        "examples": 2,
        "method": "classes",
        "routing": "causal",
        "metrics": {"accuracy": 50.0},
        "shortened": 1,
        "score": 50.0,
        "trained_metrics": {"accuracy": 75.0},
        "trained_score": 75.0,
        "output": "p.jsonl",
    }
    same = scores_as_dict([result("t", 50.0)], None)
    assert not {"trained_metrics", "trained_score", "output"} & same.keys()


def test_json_of_a_mixture_has_every_task_and_the_mean():
    found = scores_as_dict([result("one", 50.0, 60.0), result("two", 70.0)], None)
    assert found["tasks"].keys() == {"one", "two"}
    assert found["tasks"]["one"]["metrics"] == {"accuracy": 50.0}
    assert found["metrics"] == {"score": 60.0}
    assert (found["score"], found["trained_score"], found["examples"]) == (60.0, 65.0, 4)
    assert found["routing"] == "causal"


def test_tasks_without_metrics_are_not_in_the_mean():
    hidden = dataclasses.replace(result("hidden", 0.0), causal=Scored([], {}, np.nan))
    assert scores_as_dict([result("one", 50.0), hidden], None)["score"] == 50.0
    assert scores_as_dict([hidden], None)["metrics"] == {}
    assert "score" not in scores_as_dict([hidden], None)
    assert "none" in shown([hidden])


def test_the_table_shows_both_routings_where_they_differ():
    text = shown([result("one", 50.0, 60.0), result("two", 70.0, classes=())])
    rows = [line for line in text.splitlines() if "accuracy" in line]
    assert [("50.00" in rows[0], "60.00" in rows[0]), "70.00" in rows[1]] == [(True, True), True]
    assert "the most likely class" in rows[0]
    assert "as trained" in text
    (mean,) = [line for line in text.splitlines() if "mean of the scores" in line]
    assert "60.00" in mean
    assert "65.00" in mean
    assert "as trained" not in shown([result("one", 50.0)])


@pytest.mark.parametrize(("classes", "said"), [((), "likelihood of the reference")])
def test_how_answers_are_found(classes, said):
    assert said in shown([result("one", 50.0, classes=classes)])
