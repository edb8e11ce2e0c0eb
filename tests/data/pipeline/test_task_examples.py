"""Examples of tasks as tokens: what fits in a row, and classes that a vocabulary lacks."""

import dataclasses

import numpy as np
import pytest

from moe_jax.data.pipeline.task_examples import (
    Choice,
    TaskExample,
    TaskExamples,
    check_lengths,
    fit_inputs,
    make_choices,
)
from moe_jax.errors import UserError


def encode(text):
    """Tokens of an alphabet of two letters; 2 is unknown."""
    return [{"a": 3, "b": 4}.get(letter, 2) for letter in text.strip()]


def example(choices=(), targets=(3, 1), **features):
    return TaskExample(0, (3, 4, 1), targets, "a", 0, tuple(choices), features)


def examples(*made, **changes):
    task = TaskExamples(
        name="a_task",
        split="validation",
        examples=made,
        postprocess=lambda text, features: text,
        predict_metrics=(lambda targets, predictions: {},),
        score_metrics=(),
        vocabulary=None,
        max_new_tokens=4,
    )
    return dataclasses.replace(task, **changes)


def test_classes_have_their_tokens():
    assert make_choices("t", ("ab", "b"), encode, 2) == (Choice("ab", (3, 4)), Choice("b", (4,)))


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (("ab", "ac"), "the class 'ac' of task t has an unknown token in the vocabulary"),
        (("a", " "), "the class ' ' of task t has no tokens in the vocabulary"),
        (("a", "a "), "the classes 'a' and 'a ' of task t have the same tokens"),
    ],
)
def test_a_class_that_no_model_can_say_is_refused_in_one_line(classes, said):
    with pytest.raises(UserError) as caught:
        make_choices("t", classes, encode, 2)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_long_inputs_lose_their_end_but_for_the_last_token():
    assert fit_inputs((5, 6, 7, 1), 4) == (5, 6, 7, 1)
    assert fit_inputs((5, 6, 7, 1), 3) == (5, 6, 1)
    assert fit_inputs((5, 6, 7, 1), 1) == (1,)


def test_answers_must_leave_room_for_a_token_of_the_inputs():
    choice = Choice("long", (3,) * 8)
    check_lengths(examples(example([choice])), 9)
    with pytest.raises(UserError, match=r"task a_task: example 0 .* 'long' has 8 tokens .* 9; set"):
        check_lengths(examples(example([choice])), 8)
    check_lengths(examples(example()), 5)
    with pytest.raises(UserError, match="answers of up to 4 tokens leave no room"):
        check_lengths(examples(example()), 4)
    scored = examples(example(targets=(3,) * 8), predict_metrics=(), score_metrics=(print,))
    with pytest.raises(UserError, match="its reference has 8 tokens"):
        check_lengths(scored, 8)


def test_numbers_of_the_benchmark_keep_their_nesting():
    assert example(idx=np.int32(7)).idx == 7
    nested = example(**{"idx/question": np.int32(2), "idx/answer": np.int32(5)})
    assert nested.idx == {"question": 2, "answer": 5}
    assert example().idx is None


def test_what_is_chosen_is_not_generated():
    assert examples(example()).is_generated
    assert not examples(example([Choice("a", (3,))])).is_generated
    assert not examples(example(), predict_metrics=()).is_generated


def test_a_digest_tells_examples_apart():
    assert examples(example()).digest() == examples(example()).digest()
    assert examples(example()).digest() != examples(example(targets=(4, 1))).digest()
