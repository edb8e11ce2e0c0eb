"""The metrics of a task among others."""

from moe_jax.training.task_metrics import task_metrics, task_summary

METRICS = {"loss": 2.0, "task/accuracy": 0.5, "task/causal/accuracy": 0.25, "tasks": 1.0}


def test_they_are_found_by_their_names():
    assert task_metrics(METRICS) == {"task/accuracy": 0.5, "task/causal/accuracy": 0.25}


def test_they_end_a_line():
    assert task_summary(METRICS) == "; task/accuracy 0.5; task/causal/accuracy 0.25"
    assert task_summary({"loss": 2.0}) == ""
