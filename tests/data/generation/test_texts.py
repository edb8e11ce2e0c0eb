"""The texts of generation tasks, for invented rows."""

import pytest

from moe_jax.data import generation
from moe_jax.errors import UserError

SQUAD = {
    "id": "1",
    "title": "Red house",
    "context": "The red-house (built in 1901)\nhas  two doors.",
    "question": "When was it built?",
    "answers": {"text": ["1901", "in 1901)"], "answer_start": [24, 21]},
}
NEWS = {"article": "A tower fell .\nNobody was hurt .", "highlights": "Tower fell .\nAll well ."}
PAIR = {"de": "Guten Tag, Köln.", "en": "Good day, Cologne."}
TALK = {
    "narrative": "Ann meets Ben.",
    "speakers": ["Ann", "Ben", "Ann"],
    "dialogue": ["Hi!", "Oh: you?", "Yes."],
}


def test_squad_has_punctuation_apart():
    (row,) = generation.text_rows(generation.get_definition("squad"), SQUAD)
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
    rows = generation.text_rows(generation.get_definition("soda"), TALK)
    assert rows == [
        {"inputs": before, "targets": "Oh: you?"},
        {"inputs": f"{before} Oh: you? Ann:", "targets": "Yes."},
    ]
    assert generation.text_to_text("soda", TALK) == rows[0]


@pytest.mark.parametrize("turns", [0, 1])
def test_a_dialogue_without_a_reply_gives_no_row(turns):
    talk = {**TALK, "speakers": TALK["speakers"][:turns], "dialogue": TALK["dialogue"][:turns]}
    assert generation.text_rows(generation.get_definition("soda"), talk) == []
    with pytest.raises(ValueError, match="makes no text"):
        generation.text_to_text("soda", talk)


def test_an_unknown_task_is_a_message_with_the_nearest_name():
    with pytest.raises(UserError, match="unknown generation task 'squat'.*Did you mean 'squad'"):
        generation.text_to_text("squat", SQUAD)
