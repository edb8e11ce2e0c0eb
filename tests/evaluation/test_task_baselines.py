"""Yardsticks without a language model."""

import pytest

from moe_jax.evaluation.task_baselines import bag_of_words, most_frequent


def test_the_most_frequent_target():
    assert most_frequent(["b", "a", "b"]) == "b"
    assert most_frequent(["b", "a"]) == "a"
    with pytest.raises(ValueError, match="no targets"):
        most_frequent([])


def test_words_that_decide_are_learned():
    good, bad = ["a fine film", "fine and warm"], ["a dull film", "dull and cold"]
    inputs = (good + bad) * 5
    targets = (["positive"] * 2 + ["negative"] * 2) * 5
    found = bag_of_words(inputs, targets, ["a dull thing", "so fine", "fine and dull film warm"])
    assert found[:2] == ["negative", "positive"]


def test_pairs_of_words_tell_what_words_do_not():
    """The two orders of the same words differ in their pairs only."""
    inputs, targets = ["not good just bad", "not bad just good"] * 10, ["no", "yes"] * 10
    assert bag_of_words(inputs, targets, inputs[:2]) == ["no", "yes"]


def test_degenerate_training_sets():
    assert bag_of_words(["a b", "c d"], ["x", "x"], ["e"]) == ["x"]
    assert bag_of_words(["aa", "bb", "cc"], ["x", "y", "y"], ["dd"]) == ["y"]
