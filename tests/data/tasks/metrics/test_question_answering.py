"""Exact match and F1 of SQuAD, ReCoRD and MultiRC, by hand."""

import pytest

from moe_jax.data.tasks import metrics
from moe_jax.data.tasks.metrics.question_answering import normalize_answer
from moe_jax.errors import UserError


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The  Red-House, a tower!", "redhouse tower"),
        ("An\tapple\n", "apple"),
        ("theatre", "theatre"),
        ("U . S .", "u s"),
        ("«Köln»", "«köln»"),
        ("up—the—down", "up— —down"),
        ("the", ""),
    ],
)
def test_normalisation_is_that_of_the_squad_script(text, normal):
    assert normalize_answer(text) == normal


def test_squad_takes_the_best_answer_for_each_figure():
    targets = [["the red house", "a house"], ["Köln"], ["nothing"]]
    # House: exact. "big Köln": precision 1/2, recall 1. The empty answer: none.
    figures = metrics.squad(targets, ["House!", "big Köln", ""])
    assert figures["em"] == pytest.approx(100 / 3)
    assert figures["f1"] == pytest.approx(100 * (1 + 2 / 3 + 0) / 3)
    assert metrics.squad(targets, [None, None, None]) == {"em": 0.0, "f1": 0.0}


def test_squad_counts_repeated_words():
    # Two of the three words predicted are expected, two of two found.
    figures = metrics.squad([["red red"]], ["red red red"])
    assert figures["f1"] == pytest.approx(100 * 2 * (2 / 3) * 1 / (2 / 3 + 1))


def test_squad_says_what_is_wrong_with_targets():
    with pytest.raises(UserError, match="squad: a question has no answers"):
        metrics.squad([[]], ["a"])
    with pytest.raises(UserError, match="squad: targets are lists"):
        metrics.squad(["house"], ["a"])


def test_record_counts_a_query_once():
    def target(group):
        return {"value": ["Ann", "Ben"], "group": (0, group)}

    targets = [target(1), target(1), target(2)]
    guesses = [{"value": "Ben"}, {"value": "wrong"}, {"value": "wrong"}]
    assert metrics.record_em_f1(targets, guesses) == {"em": 50.0, "f1": 50.0}


def test_multirc_exact_match_asks_for_all_answers_of_a_question():
    groups = [0, 0, 1, 1, 2, 0]
    targets = [{"value": 1, "group": group} for group in groups]
    guesses = [{"value": v} for v in (1, 1, 1, 0, 1, 1)]
    assert metrics.multirc_exact_match(targets, guesses)["exact_match"] == pytest.approx(200 / 3)
    guesses[-1] = {"value": -1}
    assert metrics.multirc_exact_match(targets, guesses)["exact_match"] == pytest.approx(100 / 3)
