"""Postprocessors, against t5's on the same texts."""

import json
import math
from pathlib import Path

import pytest

from moe_jax.data.tasks.glue import DEFINITIONS
from moe_jax.data.tasks.glue.postprocessors import string_to_float

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text(encoding="utf-8"))


def as_json(value):
    return json.loads(json.dumps(value))


def encoded(value):
    """Returns texts as the bytes that rows of a data set hold."""
    if isinstance(value, list):
        return [item.encode() for item in value]
    return value.encode() if isinstance(value, str) else value


@pytest.mark.parametrize("task", GOLDEN["label_numbers"])
def test_labels_become_numbers_as_in_t5(task):
    postprocess = DEFINITIONS[task].postprocessor
    numbers = [postprocess(text, example={}, is_target=True) for text in GOLDEN["label_texts"]]
    assert numbers == GOLDEN["label_numbers"][task]
    assert numbers == [postprocess(text) for text in GOLDEN["label_texts"]]


@pytest.mark.parametrize("case", GOLDEN["postprocess"], ids=lambda c: f"{c['task']}-{c['text']}")
def test_other_texts_are_as_in_t5(case):
    postprocess = DEFINITIONS[case["task"]].postprocessor
    row = {name: encoded(value) for name, value in case["example"].items()}
    for is_target, key in ((True, "target"), (False, "prediction")):
        made = postprocess(case["text"], example=row, is_target=is_target)
        assert as_json(made) == case[key]


def test_tasks_without_a_postprocessor_are_t5s():
    without = {name for name, task in DEFINITIONS.items() if task.postprocessor is None}
    assert without == {"super_glue_wsc_v102_simple_train", "dpr_v001_simple"}


def test_a_number_may_be_no_number():
    assert math.isnan(string_to_float("nan"))
    assert string_to_float("four") == -1.0


def test_every_target_of_a_labelled_row_is_its_label():
    for name, rows in GOLDEN["tasks"].items():
        if name in GOLDEN["label_numbers"]:
            for golden in rows:
                number = DEFINITIONS[name].postprocessor(golden["texts"][0]["targets"])
                assert number == golden["row"]["label"]
