"""Metrics of predictions against scikit-learn, and greedy answers against full forward passes."""

import jax
import numpy as np
import pytest
import task_data
import tiny
from sklearn.metrics import accuracy_score, f1_score

from moe_jax.data.tasks.metrics import accuracy, f1_invalid_as_wrong, record_em_f1
from moe_jax.errors import UserError
from moe_jax.evaluation.task_scores import (
    Prediction,
    TaskScores,
    choose,
    compute_metrics,
    generate_answers,
    has_hidden_targets,
    mean_score,
)
from moe_jax.models.batch_context import BatchContext
from moe_jax.routers.expert_choice import ExpertChoice

CLASSES = ("no", "yes")


def number_of(text, features):
    return CLASSES.index(text) if text in CLASSES else -1


def judged(labels, **changes):
    """Returns a task whose targets are the numbers of classes."""
    import dataclasses

    task = task_data.make_task([("is it", CLASSES[label]) for label in labels], CLASSES)
    examples = tuple(
        dataclasses.replace(example, target=label)
        for example, label in zip(task.examples, labels, strict=True)
    )
    return dataclasses.replace(task, examples=examples, postprocess=number_of, **changes)


def test_metrics_are_those_of_scikit_learn():
    draws = np.random.default_rng(2)
    labels, scores = draws.integers(0, 2, 40).tolist(), draws.normal(size=(40, 2))
    task = judged(labels, predict_metrics=(f1_invalid_as_wrong, accuracy))
    predictions = [choose(*both) for both in zip(task.examples, scores.tolist(), strict=True)]
    predicted = (scores[:, 1] > scores[:, 0]).astype(int)
    assert compute_metrics(task, predictions) == pytest.approx(
        {
            "accuracy": 100 * accuracy_score(labels, predicted),
            "f1": 100 * f1_score(labels, predicted),
        }
    )
    assert predictions[3].class_scores == dict(zip(CLASSES, scores[3], strict=True))


def test_metrics_of_scores_get_the_log_likelihoods_of_the_references():
    def seen(targets, scores):
        return {"sum": sum(scores), "first": targets[0]}

    task = judged([1, 0], score_metrics=(seen,))
    predictions = [Prediction(e, None, {}, -1.5 * (e.index + 1)) for e in task.examples]
    assert compute_metrics(task, predictions) == {"sum": -4.5, "first": 1.0}


def test_the_first_of_equal_choices():
    example = judged([1]).examples[0]
    assert choose(example, [-2.0, -2.0]).text == "no"


def test_withheld_labels_have_no_metrics():
    task = judged([1, 1], predict_metrics=(accuracy,))
    assert not has_hidden_targets(task)
    hidden = judged([-1, -1], predict_metrics=(accuracy,))
    assert has_hidden_targets(hidden)
    predictions = [Prediction(example, "yes", {}) for example in hidden.examples]
    assert compute_metrics(hidden, predictions) == {}


def test_answers_of_a_query_count_once():
    """Two examples of one query of ReCoRD, and one of another."""
    import dataclasses

    rows = [("a query", "ida holm"), ("a query", "ida"), ("another", "norhamn")]
    values = [(["ida holm", "ida"], (0, 0))] * 2 + [(["norhamn"], (0, 1))]
    task = task_data.make_task(rows, predict_metrics=(record_em_f1,))
    task = dataclasses.replace(
        task,
        postprocess=lambda text, features: {"value": text},
        examples=tuple(
            dataclasses.replace(example, target={"value": answers, "group": group})
            for example, (answers, group) in zip(task.examples, values, strict=True)
        ),
    )
    said = [Prediction(e, t, {}) for e, t in zip(task.examples, ("holm", "ida", "no"), strict=True)]
    # F1 of "holm": precision 1, recall 1/2.
    assert compute_metrics(task, said) == pytest.approx({"em": 0.0, "f1": 100 * (2 / 3) / 2})


def test_a_metric_that_fails_is_named_in_one_line():
    def broken(targets, predictions):
        raise ValueError("no\nway")

    task = judged([1], predict_metrics=(broken,))
    with pytest.raises(UserError, match="the metric broken of task a_task failed: ValueError: no"):
        compute_metrics(task, [Prediction(task.examples[0], "yes", {})])


def test_a_mean_of_nothing_is_no_number():
    assert mean_score([70.0, 80.0]) == 75.0
    assert np.isnan(mean_score([]))


@pytest.mark.parametrize("name", ["examples", "max_new_tokens"])
def test_settings_below_zero_are_refused(name):
    with pytest.raises(UserError, match=rf"TaskScores\.{name} must be"):
        TaskScores(**{name: -1})


def test_answers_are_the_most_likely_tokens_up_to_the_end():
    model, variables = tiny.make(ExpertChoice(2.0), num_layers=2)
    causal = model.causal()

    @jax.jit
    def logits(variables, tokens_BS):
        decoder = causal.bind(variables)
        return decoder.logits(decoder(BatchContext.of_tokens(tokens_BS)).hidden_BSD)

    def greedy(prompt):
        tokens = [0, *prompt]
        for _ in range(4):
            row = np.zeros((1, 16), np.int32)
            row[0, : len(tokens)] = tokens
            tokens.append(int(np.argmax(logits(variables, row)[0, len(tokens) - 1])))
        return tokens[len(prompt) + 1 :]

    prompts = [tuple(row.tolist()) for row in tiny.tokens(3, 7, seed=4)]
    prompts[1] = prompts[1][:3]
    full = [greedy(prompt) for prompt in prompts]
    # The third token of the first answer shall be the end.
    end = full[0][2]
    expected = [row[: row.index(end)] if end in row else row for row in full]
    seen = []
    answers = generate_answers(model, prompts, end, 4)
    assert answers(variables, lambda *at: seen.append(at)) == expected
    # They are answered in one batch.
    assert seen == [(3, 3)]
