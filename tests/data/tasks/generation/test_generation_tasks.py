"""The generation tasks with TensorFlow Datasets, iterator checkpoints, and their metrics."""

import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from moe_jax.data.tasks import generation
from moe_jax.data.tasks.task_definition import TaskDefinition

TASKS = list(generation.DEFINITIONS)
PUBLISHED_ROWS = {
    "squad": 87_599,
    "cnn_dailymail": 287_113,
    "wmt19_de_en": 38_690_334,
    "wmt19_en_de": 38_690_334,
    "soda": 1_191_582,
}


def invented(task, rows=6):
    """Rows of a task's source, all different, with features as TensorFlow Datasets types them."""

    def row(i):
        if task.startswith("squad"):
            answers = {"text": [f"a {k}." for k in range(i % 3 + 1)]}
            return {"question": f"q {i}?", "context": f"c {i}.", "answers": answers}
        if task.startswith("cnn"):
            return {"article": f"article {i}", "highlights": f"highlight {i}"}
        if task.startswith("wmt"):
            return {"de": f"Wort {i}", "en": f"word {i}"}
        turns = [f"turn {i} {k}" for k in range(i % 4 + 1)]
        return {"narrative": f"n {i}", "speakers": ["A"] * len(turns), "dialogue": turns}

    def signature(value):
        if isinstance(value, dict):
            return {name: signature(field) for name, field in value.items()}
        return tf.TensorSpec([None] if isinstance(value, list) else [], tf.string)

    made = [row(i) for i in range(rows)]
    return tf.data.Dataset.from_generator(lambda: made, output_signature=signature(made[0]))


def in_memory(task):
    """The same rows from a source whose position can be saved, which a generator's cannot."""
    rows = [tf.data.Dataset.from_tensors(row) for row in invented(task)]
    dataset = rows[0]
    for other in rows[1:]:
        dataset = dataset.concatenate(other)
    return dataset


def test_short_names_lead_to_definitions():
    assert set(generation.ALIASES.values()) == set(generation.DEFINITIONS)
    for name, definition in generation.DEFINITIONS.items():
        assert isinstance(definition, TaskDefinition)
        assert definition.name == name
    assert {
        a: generation.get_definition(a).num_train_examples for a in PUBLISHED_ROWS
    } == PUBLISHED_ROWS


@pytest.mark.parametrize("task", TASKS)
def test_rows_are_strings_in_a_graph(task):
    made = generation.DEFINITIONS[task].preprocessor(invented(task))
    assert made.element_spec["inputs"] == tf.TensorSpec([], tf.string)
    assert made.element_spec["targets"] == tf.TensorSpec([], tf.string)
    rows = list(made.as_numpy_iterator())
    # Of dialogues with 1, 2, 3, 4, 1, 2 turns 7 are replies.
    assert len(rows) == (7 if task.startswith("soda") else 6)
    assert len({row["inputs"] for row in rows}) == len(rows)


@pytest.mark.parametrize("task", TASKS)
def test_an_iterator_resumes_where_it_was_saved(task, tmp_path):
    made = generation.DEFINITIONS[task].preprocessor(in_memory(task))
    iterator = iter(made)
    for _ in range(3):
        next(iterator)
    path = tf.train.Checkpoint(iterator=iterator).write(str(tmp_path / "state"))
    rest = [row["inputs"].numpy() for row in iterator]
    again = iter(made)
    tf.train.Checkpoint(iterator=again).read(path)
    assert rest
    assert [row["inputs"].numpy() for row in again] == rest


@pytest.mark.parametrize("task", [t for t in TASKS if not t.startswith("soda")])
def test_tensorflow_datasets_has_the_source_with_these_features(task, tmp_path):
    definition = generation.DEFINITIONS[task]
    with tfds.testing.mock_data(num_examples=2):
        made = definition.preprocessor(
            tfds.load(definition.source, split="train", data_dir=tmp_path)
        )
        assert len(list(made.take(2))) == 2
    builder = tfds.builder(definition.source, data_dir=tmp_path)
    assert f":{builder.version}" == definition.source[-6:]


@pytest.mark.parametrize("task", TASKS)
def test_the_target_itself_is_a_perfect_prediction(task):
    definition = generation.DEFINITIONS[task]
    rows = list(definition.preprocessor(invented(task)).as_numpy_iterator())
    texts = [row["targets"].decode() + " one two three" for row in rows]
    for row, text in zip(rows, texts, strict=True):
        row["answers"] = [text.encode(), b"another"]
    targets = predictions = texts
    if definition.postprocessor:
        pairs = list(zip(texts, rows, strict=True))
        targets = [definition.postprocessor(t, example=row, is_target=True) for t, row in pairs]
        predictions = [
            definition.postprocessor(t, example=row, is_target=False) for t, row in pairs
        ]
        assert targets[0] == [texts[0], "another"]
        assert predictions == texts
    for metric in definition.metric_fns:
        for figure in metric(targets, predictions).values():
            assert figure == pytest.approx(100)
