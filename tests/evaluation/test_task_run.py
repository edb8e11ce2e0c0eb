"""One task's evaluation: what is scored, what is predicted, and what the user is told."""

import dataclasses
import math

import numpy as np
import pytest
import task_data
import tiny

from moe_jax.data.tasks.metrics import accuracy
from moe_jax.evaluation.rank_classification import LikelihoodScorer
from moe_jax.evaluation.task_run import RunOptions, TaskRun
from moe_jax.routers.expert_choice import ExpertChoice

LENGTH = 16
CLASSES = ("no", "maybe")
ROWS = [("is it", "no"), ("was it so very long ago", "maybe"), ("so", "no")]


class FakeScorer:
    """Knows a log-likelihood for every text; with training routing another."""

    routings_differ = True

    def __init__(self, values):
        self.values, self.inputs = values, []

    def score(self, answer):
        self.inputs.append(task_data.LETTERS.decode(answer.inputs))
        return self.values[task_data.LETTERS.decode(answer.targets)]

    def causal(self, variables, answers, progress):
        if progress is not None:
            progress(len(answers), len(answers))
        return np.array([self.score(answer) for answer in answers])

    def trained(self, variables, answers, progress):
        return [np.array([-self.score(answer) for answer in own]) for own in answers]


def mean_of(targets, scores):
    return {"mean": float(np.mean(scores))}


def run(task, values, options=None):
    scorer = FakeScorer(values)
    made = TaskRun(task, None, scorer, options or RunOptions(LENGTH))
    return made, scorer


def test_the_most_likely_class_with_either_routing():
    task = task_data.make_task(ROWS, CLASSES, predict_metrics=(accuracy,))
    made, _ = run(task, {"no": -1.0, "maybe": -2.0})
    said = []
    result = made(None, said.append)
    assert result.method == "classes"
    assert [p.text for p in result.causal.predictions] == ["no"] * 3
    assert [p.text for p in result.trained.predictions] == ["maybe"] * 3
    assert result.causal.metrics == pytest.approx({"accuracy": 200 / 3})
    assert result.trained.metrics == pytest.approx({"accuracy": 100 / 3})
    assert result.causal.score == pytest.approx(200 / 3)
    assert said == ["a_task, causal routing: 6 of 6"]
    found = result.as_dict()
    assert found["routing"] == "causal"
    assert found["examples"] == 3
    assert found["metrics"] == result.causal.metrics
    assert found["trained_metrics"] == result.trained.metrics


def test_a_row_of_predictions():
    task = task_data.make_task(ROWS, CLASSES, predict_metrics=(accuracy,))
    numbered = dataclasses.replace(task.examples[1], features={"idx": np.int32(7)})
    task = dataclasses.replace(task, examples=(numbered,))
    made, _ = run(task, {"no": -1.0, "maybe": -2.0})
    assert made(None).rows() == [
        {
            "task": "a_task",
            "split": "validation",
            "index": 1,
            "idx": 7,
            "prediction": "no",
            "target": "maybe",
            "scores": {"no": -1.0, "maybe": -2.0},
            "trained_scores": {"no": 1.0, "maybe": 2.0},
            "trained_prediction": "maybe",
        }
    ]


def test_scores_are_divided_by_their_length_only_if_asked():
    """With their end, "no" has 3 tokens and "maybe" 6."""
    task = task_data.make_task(ROWS[:1], CLASSES, predict_metrics=(accuracy,))
    values = {"no": -3.0, "maybe": -4.0}
    plain = run(task, values)[0](None).causal.predictions[0]
    assert (plain.text, plain.class_scores) == ("no", values)
    options = RunOptions(LENGTH, normalize_by_length=True)
    divided = run(task, values, options)[0](None).causal.predictions[0]
    assert (divided.text, divided.class_scores) == ("maybe", {"no": -1.0, "maybe": -4 / 6})


def test_all_answers_of_an_example_have_the_same_inputs_and_cuts_are_counted():
    """The longest answer has 6 tokens, so that a row of 16 has room for 10."""
    task = task_data.make_task(ROWS, CLASSES, predict_metrics=(accuracy,))
    made, scorer = run(task, {"no": -1.0, "maybe": -2.0})
    result = made(None)
    assert set(scorer.inputs) == {"is it", "was it so", "so"}
    assert result.shortened == 1
    assert result.as_dict()["shortened"] == 1
    (note,) = made.notes
    assert "the inputs of 1 of 3 examples do not fit in a row of 16 tokens" in note


def test_metrics_of_scores_get_the_reference_beside_the_classes():
    task = task_data.make_task(ROWS, CLASSES, score_metrics=(mean_of,))
    result = run(task, {"no": -1.0, "maybe": -2.0})[0](None)
    assert result.causal.metrics == pytest.approx({"mean": (-1 - 2 - 1) / 3})
    assert result.rows()[1]["target_score"] == -2.0
    alone = task_data.make_task(ROWS, (), score_metrics=(mean_of,))
    result = run(alone, {"no": -1.0, "maybe": -2.0})[0](None)
    assert result.method == "references"
    assert result.causal.metrics == pytest.approx({"mean": (-1 - 2 - 1) / 3})
    assert result.rows()[0]["prediction"] is None


def test_a_task_without_metrics_has_predictions_and_no_score():
    result = run(task_data.make_task(ROWS, CLASSES), {"no": -1.0, "maybe": -2.0})[0](None)
    assert result.causal.metrics == {}
    assert math.isnan(result.causal.score)
    assert "score" not in result.as_dict()
    assert len(result.rows()) == 3


@pytest.mark.slow
def test_answers_without_classes_are_generated():
    model, variables = tiny.make(ExpertChoice(2.0), num_layers=2)

    def same(targets, predictions):
        return {"same": 100 * float(np.mean(np.array(targets) == np.array(predictions)))}

    task = task_data.make_task(ROWS, predict_metrics=(same,), max_new_tokens=4)
    scorer = LikelihoodScorer(model, 4, LENGTH)
    result = TaskRun(task, model, scorer, RunOptions(LENGTH))(variables)
    assert result.method == "generation"
    # Routed causally, as all generated text.
    assert result.trained is None
    texts = [prediction.text for prediction in result.causal.predictions]
    wanted = [target for _, target in ROWS]
    assert result.causal.metrics == {"same": 100 * sum(map(str.__eq__, texts, wanted)) / 3}
    own = dataclasses.replace(task, examples=task.examples[2:])
    alone = TaskRun(own, model, scorer, RunOptions(LENGTH))(variables)
    assert alone.causal.predictions[0].text == texts[2]


def test_an_example_without_choices_gets_an_empty_answer():
    """As a query of ReCoRD without entities; the others are not generated for it."""
    task = task_data.make_task(ROWS, CLASSES, predict_metrics=(accuracy,))
    first = dataclasses.replace(task.examples[0], choices=())
    task = dataclasses.replace(task, examples=(first, *task.examples[1:]))
    result = run(task, {"no": -1.0, "maybe": -2.0})[0](None)
    assert result.method == "classes"
    assert [p.text for p in result.causal.predictions] == ["", "no", "no"]
    assert [p.text for p in result.trained.predictions] == ["", "maybe", "maybe"]
    assert result.causal.metrics == pytest.approx({"accuracy": 100 / 3})
