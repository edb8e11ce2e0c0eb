"""The texts of generation tasks, for invented examples."""

import pytest
import tensorflow as tf

from moe_jax.data.tasks import generation
from moe_jax.data.tasks.generation.generation_tasks import FEATURES
from moe_jax.data.tasks.generation.preprocess_example import preprocess_example
from moe_jax.errors import UserError

SQUAD = {
    "id": "1",
    "title": "Red house",
    "context": "The red-house (built in 1901)\nhas  two doors.",
    "question": "When was it built?",
    "answers": {"text": ["1901", "in  1901)"], "answer_start": [24, 21]},
}
NEWS = {"article": "A tower fell .\nNobody was hurt .", "highlights": "Tower fell .\nAll well ."}
PAIR = {"de": "Guten Tag, Köln.", "en": "Good day, Cologne."}
TALK = {
    "narrative": "Ann meets Ben.",
    "speakers": ["Ann", "Ben", "Ann"],
    "dialogue": ["Hi!", "Oh: you?", "Yes."],
}


def test_squad_has_punctuation_apart():
    name = "squad_v010_allanswers"
    (row,) = preprocess_example(generation.DEFINITIONS[name], FEATURES[name], SQUAD)
    assert row == {
        "inputs": "question: When was it built ? "
        "context: The red - house ( built in 1901 ) has two doors . ",
        "targets": "1901",
        "answers": ["1901", "in 1901 ) "],
    }


def test_squad_leaves_other_scripts_alone():
    row = {**SQUAD, "context": "Köln—日本。", "question": "«Wo?»", "answers": {"text": ["Köln"]}}
    texts = generation.text_to_text("squad_v010_allanswers", row)
    assert texts == {"inputs": "question: «Wo ? » context: Köln—日本。", "targets": "Köln"}


def test_cnn_dailymail_leaves_lines_as_they_are():
    texts = generation.text_to_text("cnn_dailymail", NEWS)
    assert texts == {"inputs": f"summarize: {NEWS['article']}", "targets": NEWS["highlights"]}


def test_wmt19_translates_in_either_direction():
    assert generation.text_to_text("wmt19_de_en", PAIR) == {
        "inputs": "translate German to English: Guten Tag, Köln.",
        "targets": "Good day, Cologne.",
    }
    assert generation.text_to_text("wmt19_en_de", PAIR) == {
        "inputs": "translate English to German: Good day, Cologne.",
        "targets": "Guten Tag, Köln.",
    }


def test_soda_has_a_row_for_each_reply():
    before = "soda narrative: Ann meets Ben. dialogue: Ann: Hi! Ben:"
    assert generation.text_to_text("soda", TALK) == [
        {"inputs": before, "targets": "Oh: you?"},
        {"inputs": f"{before} Oh: you? Ann:", "targets": "Yes."},
    ]


@pytest.mark.parametrize("turns", [0, 1, 2])
def test_a_dialogue_gives_one_row_less_than_it_has_turns(turns):
    talk = {**TALK, "speakers": TALK["speakers"][:turns], "dialogue": TALK["dialogue"][:turns]}
    assert len(generation.text_to_text("soda", talk)) == max(0, turns - 1)


@pytest.mark.parametrize(
    ("task", "row", "message"),
    [
        (
            "soda",
            {**TALK, "speakers": ["Ann", "Ben"]},
            r"invalid: a dialogue has not one speaker",
        ),
        (
            "squad",
            {**SQUAD, "answers": {"text": []}},
            "is invalid: a question has no answers$",
        ),
        ("squad", {**SQUAD, "answers": {}}, "has no field 'answers/text'; it has none"),
        ("squad", {**SQUAD, "answers": "1901"}, "has no field 'answers/text'"),
        ("squad", {**SQUAD, "answers": {"text": "1901"}}, "must be a list of texts, not '1901'"),
        ("wmt19_de_en", {"de": "Wort"}, "has no field 'en'; it has de"),
        ("wmt19_de_en", {"de": "Wort", "en": 3}, "'en' of a row of .* must be a text, not 3"),
        ("cnn_dailymail", {**NEWS, "article": b"\xff"}, "is invalid: 'utf-8' codec"),
    ],
)
def test_a_wrong_row_is_a_message(task, row, message):
    with pytest.raises(UserError, match=message):
        generation.text_to_text(task, row)


def test_rows_of_a_source_without_a_feature_are_a_message():
    rows = generation.get_definition("soda").preprocessor
    with pytest.raises(UserError, match="soda_v001 has no field 'speakers'"):
        rows(tf.data.Dataset.from_tensors({"narrative": "n", "dialogue": ["a"]}))
    with pytest.raises(UserError, match="'dialogue' of rows of soda_v001 must be a list of texts"):
        rows(tf.data.Dataset.from_tensors({"narrative": "n", "speakers": ["a"], "dialogue": "a"}))


def test_a_feature_within_a_feature_is_checked_too():
    rows = generation.get_definition("squad").preprocessor
    with pytest.raises(UserError, match="no field 'answers/text'; it has answer_start"):
        rows(tf.data.Dataset.from_tensors({**SQUAD, "answers": {"answer_start": [3]}}))


def test_an_unknown_task_is_a_message_with_the_nearest_name():
    with pytest.raises(UserError, match=r"unknown generation task 'squat'.*Did you mean 'squad'"):
        generation.text_to_text("squat", SQUAD)
