"""Formatted examples, against those of t5 (golden.json names its version)."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from moe_jax.data.tasks.glue import DEFINITIONS, text_to_text
from moe_jax.errors import UserError

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text(encoding="utf-8"))
TASKS = GOLDEN["tasks"]
WSC = "super_glue_wsc_v102_simple_eval"
WNLI = "glue_wnli_v002_simple_eval"
WSC_ROW = {
    "text": "Nora thanked Ruth because she had brought bread.",
    "span1_text": "Ruth",
    "span1_index": 2,
    "span2_text": "she",
    "span2_index": 4,
    "label": 1,
    "idx": 0,
}


def as_list(made):
    return made if isinstance(made, list) else [made]


def as_tfds(value, field=""):
    """Returns a value in the types that TensorFlow Datasets gives."""
    if isinstance(value, dict):
        return {name: as_tfds(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return np.array([item.encode() for item in value], object)
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, float):
        return np.float32(value)
    return (np.int64 if field == "label" else np.int32)(value)


def dataset_of(rows):
    """Returns TFDS rows as a data set; lists may differ in length."""

    def stacked(values):
        if isinstance(values[0], dict):
            return {name: stacked([value[name] for value in values]) for name in values[0]}
        if isinstance(values[0], np.ndarray):
            return tf.ragged.constant([value.tolist() for value in values], dtype=tf.string)
        return np.stack(values)

    # A slice of a ragged tensor is a list of its own length.
    return tf.data.Dataset.from_tensor_slices(stacked([as_tfds(row) for row in rows]))


def texts_of(examples):
    return [{name: row[name].decode() for name in ("inputs", "targets")} for row in examples]


def test_all_of_t5s_tasks_are_there():
    assert set(TASKS) == set(DEFINITIONS)
    assert len(DEFINITIONS) == 25
    assert all(name == definition.name for name, definition in DEFINITIONS.items())


@pytest.mark.parametrize("task", TASKS)
def test_one_row_is_as_in_t5(task):
    for golden in TASKS[task]:
        assert as_list(text_to_text(task, golden["row"])) == golden["texts"]
        assert as_list(text_to_text(task, as_tfds(golden["row"]))) == golden["texts"]


@pytest.mark.parametrize("task", TASKS)
def test_a_data_set_is_as_in_t5(task):
    made = DEFINITIONS[task].preprocessor(dataset_of([golden["row"] for golden in TASKS[task]]))
    expected = [text for golden in TASKS[task] for text in golden["texts"]]
    assert texts_of(made.as_numpy_iterator()) == expected


def test_where_a_row_may_become_several_it_is_a_list():
    record = {"passage": "p", "query": "q", "entities": ["a"], "answers": []}
    inputs = "record query: q entities: a passage: p"
    made = text_to_text("super_glue_record_v102", record)
    assert made == [{"inputs": inputs, "targets": "<unk>"}]
    made = text_to_text("super_glue_record_v102", {**record, "answers": ["a", "b"]})
    assert made == [{"inputs": inputs, "targets": answer} for answer in ("a", "b")]
    text = {"inputs": "wsc: Nora thanked Ruth because *she* had brought bread.", "targets": "Ruth"}
    assert text_to_text("super_glue_wsc_v102_simple_train", WSC_ROW) == text
    assert text_to_text("super_glue_wsc_v102_simple_train", {**WSC_ROW, "label": 0}) == []
    assert text_to_text(WSC, {**WSC_ROW, "label": 0}) == text


# The published data have one row of each kind, which T5 gives by its full text.
@pytest.mark.parametrize(
    ("text", "index", "expected"),
    [
        # The index points at the word before the pronoun.
        ("Put the ring away until you need it , said Per.", 6, "need *it* , said"),
        # Punctuation clings to the pronoun; the space at the end of the text goes.
        ('Ola missed it," he said. ', 2, 'Ola missed *it* ," he said.'),
    ],
)
def test_pronouns_that_are_not_where_the_index_says(text, index, expected):
    row = {**WSC_ROW, "text": text, "span2_text": "it", "span2_index": index}
    inputs = text_to_text(WSC, row)["inputs"]
    assert expected in inputs
    assert inputs == inputs.rstrip()


def test_metrics_get_what_they_need():
    def first(task):
        rows = [golden["row"] for golden in TASKS[task]]
        return list(DEFINITIONS[task].preprocessor(dataset_of(rows)).as_numpy_iterator())

    assert [row["idx/question"] for row in first("super_glue_multirc_v102")] == [7, 7, 8, 9, 9]
    assert [row["label"] for row in first(WSC)][:3] == [1, 0, -1]
    assert [row["label"] for row in first(WNLI)][:3] == [1, 0, -1]
    # The second query has three answers, so three rows; each knows all answers.
    rows = first("super_glue_record_v102")[1:4]
    assert [row["targets"] for row in rows] == [b"A", b"B, C", b"D"]
    assert [row["answers"].tolist() for row in rows] == [[b"A", b"B, C", b"D"]] * 3
    assert [(row["idx/passage"], row["idx/query"]) for row in rows] == [(0, 1)] * 3


@pytest.mark.parametrize(
    "task",
    sorted(
        {"glue_sst2_v002", "glue_stsb_v002", "dpr_v001_simple"}
        | {name for name in TASKS if "multirc" in name or "record" in name or "wsc" in name}
    ),
)
def test_an_iterator_can_be_saved(task, tmp_path):
    rows = [golden["row"] for golden in TASKS[task]]
    iterator = iter(DEFINITIONS[task].preprocessor(dataset_of(rows)))
    next(iterator)
    next(iterator)
    path = tf.train.Checkpoint(iterator=iterator).save(str(tmp_path / "iterator"))
    expected = [row["inputs"].numpy() for row in iterator]
    restored = iter(DEFINITIONS[task].preprocessor(dataset_of(rows)))
    tf.train.Checkpoint(iterator=restored).restore(path).assert_consumed()
    assert [row["inputs"].numpy() for row in restored] == expected
    assert expected


def test_an_unknown_task_is_one_line_with_the_nearest_name():
    with pytest.raises(UserError, match=r"'glue_sst_v002'.*Did you mean 'glue_sst2_v002'\?") as e:
        text_to_text("glue_sst_v002", {})
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("task", TASKS)
def test_a_missing_field_is_named(task):
    row = TASKS[task][0]["row"]
    carried = {"idx", "label"} if task in (WSC, WNLI) or "label" not in row else {"idx"}
    for field in row.keys() - carried - {"span1_index", "start1", "start2", "end1", "end2"}:
        less = {name: value for name, value in row.items() if name != field}
        with pytest.raises(UserError, match=f"row of {task} has no field '{field}'") as error:
            text_to_text(task, less)
        assert "\n" not in str(error.value)
        with pytest.raises(UserError, match=f"row of {task} has no field '{field}'"):
            DEFINITIONS[task].preprocessor(dataset_of([less]))


@pytest.mark.parametrize(
    ("task", "change", "message"),
    [
        ("glue_sst2_v002", {"label": 2}, "invalid: the label is none of negative, positive: 2$"),
        ("glue_sst2_v002", {"label": -2}, "invalid: the label is none of negative, positive: -2$"),
        ("glue_sst2_v002", {"label": "positive"}, "field 'label' .* must be a whole number"),
        ("glue_sst2_v002", {"sentence": None}, "field 'sentence' .* must be a text, not None"),
        ("glue_sst2_v002", {"sentence": ["a"]}, "field 'sentence' .* must be a text"),
        ("glue_sst2_v002", {"sentence": b"\xff"}, "not UTF-8"),
        ("super_glue_record_v102", {"answers": "a"}, "'answers' .* must be a list of texts"),
        (WSC, {"span2_index": 0}, "must be a word of the text after the first: [08] 'Nora thanked"),
        (WSC, {"span2_index": 8}, "must be a word of the text after the first: [08] 'Nora thanked"),
        (WNLI, {"sentence1": "Nora sang."}, "invalid: the premise has no pronoun: 'Nora sang.'"),
        (WNLI, {"sentence2": "Old  Ruth had brought bread."}, "noun cannot be found again"),
        (
            WSC,
            {"span2_index": 2},
            "invalid: the word at span2_index is not the pronoun; the two: 'she' 'Nora",
        ),
    ],
)
def test_a_value_that_cannot_be_right_is_one_line(task, change, message):
    row = {**(WSC_ROW if task == WSC else TASKS[task][0]["row"]), **change}
    with pytest.raises(UserError, match=message) as error:
        text_to_text(task, row)
    assert "\n" not in str(error.value)
    assert task in str(error.value)
