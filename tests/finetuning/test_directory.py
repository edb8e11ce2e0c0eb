"""The scores in the records of a run."""

import fake_finetuning
import pytest

from moe_jax.finetuning.directory import read_scores


def test_the_last_of_the_best_evaluations():
    records = [
        {"kind": "train", "step": 5, "task/accuracy": 99.0},
        {"kind": "eval", "step": 5, "loss": 3.0},
        *(
            fake_finetuning.evaluation(step, accuracy, causal)
            for step, accuracy, causal in [
                (0, 90.0, 80.0),
                (10, 70.0, 59.0),
                (20, 70.0, 66.0),
                (30, 60.0, 68.0),
            ]
        ),
    ]
    scores = read_scores(records)
    assert scores.steps == (0, 10, 20, 30)
    # That before the first step is of the checkpoint, not of the run.
    assert scores.best("accuracy") == 2
    assert scores.trained[2] == {"accuracy": 70.0, "score": 70.0}
    assert scores.causal[2] == {"accuracy": 66.0}


def test_an_evaluation_that_was_repeated_counts_once():
    first, again = (fake_finetuning.evaluation(10, value) for value in (60.0, 61.0))
    scores = read_scores([first, again])
    assert scores.trained == ({"accuracy": 61.0, "score": 61.0},)
    assert scores.causal == ()


def test_a_score_that_is_no_number_is_never_the_best():
    scores = read_scores(
        [fake_finetuning.evaluation(10, None), fake_finetuning.evaluation(20, 50.0)]
    )
    assert scores.trained[0]["accuracy"] != scores.trained[0]["accuracy"]
    assert scores.best("accuracy") == 1


@pytest.mark.parametrize("records", [[], [{"kind": "eval", "step": 3, "loss": 1.0}]])
def test_runs_without_scores(records):
    assert read_scores(records).steps == ()
