"""Reading tasks for evaluation: every example once, in order, with what metrics need."""

import dataclasses
import functools

import pytest
import seqio
import task_data
import tensorflow as tf

from moe_jax.data.config import DataConfig
from moe_jax.data.pipeline.task_examples import MissingSplit
from moe_jax.data.pipeline.task_reader import (
    ReadOptions,
    is_scored,
    names_of_tasks,
    read_task_examples,
)
from moe_jax.data.tasks.glue import text_to_text
from moe_jax.data.tasks.vocabulary import load_vocabulary
from moe_jax.errors import UserError

OPTIONS = ReadOptions("validation")
SOURCES = {
    "super_glue_cb_v102": "super_glue/cb",
    "glue_stsb_v002": "glue/stsb",
    "super_glue_record_v102": "super_glue/record",
    "super_glue_multirc_v102": "super_glue/multirc",
    "glue_wnli_v002_simple_eval": "glue/wnli",
}
LABELS = ["no", "yes"]


@pytest.fixture
def golden(monkeypatch):
    """Lets every task of SOURCES read its rows."""
    rows = {source: task_data.golden_rows(task) for task, source in SOURCES.items()}
    task_data.use_rows(monkeypatch, rows)
    return {task: rows[source] for task, source in SOURCES.items()}


def read(name, options=OPTIONS, **changes):
    return read_task_examples(DataConfig(name, **changes), name, options)


def label_of(text, label_classes, **unused):
    return label_classes.index(text) if text in label_classes else -1


@pytest.fixture
def registered():
    """Registers a task with seqio, with changes; what is registered goes away after the test."""
    added = []

    def add(name, **changes):
        def dataset(split, shuffle_files, seed=None):
            texts = {"inputs": ["is it", "was it", "so"], "targets": ["yes", "no", "no"]}
            return tf.data.Dataset.from_tensor_slices(texts)

        feature = seqio.Feature(load_vocabulary("embedded"), add_eos=True, dtype=tf.int32)
        task = {
            "source": seqio.FunctionDataSource(dataset, splits=["train", "validation"]),
            "preprocessors": [seqio.preprocessors.tokenize, seqio.preprocessors.append_eos],
            "output_features": {"inputs": feature, "targets": feature},
            **changes,
        }
        added.append(name)
        return seqio.TaskRegistry.add(name, **task)

    yield add
    for name in added:
        seqio.TaskRegistry.remove(name)


def exact(targets, predictions):
    return {"exact": 100.0}


def likelihood(targets, scores):
    return {"likelihood": 1.0}


@pytest.mark.parametrize("task", SOURCES)
def test_every_example_once_in_order_with_its_texts(golden, task):
    made = [text_to_text(task, row) for row in golden[task]]
    texts = [pair for pairs in made for pair in (pairs if isinstance(pairs, list) else [pairs])]
    found = read(task)
    vocabulary = load_vocabulary("embedded")
    assert [example.index for example in found.examples] == list(range(len(texts)))
    for example, text in zip(found.examples, texts, strict=True):
        assert example.target_text == text["targets"]
        # The end-of-sequence token, and nothing is cut off.
        assert example.inputs == (*vocabulary.encode(text["inputs"]), vocabulary.eos_id)
        assert example.targets == (*vocabulary.encode(text["targets"]), vocabulary.eos_id)
        for choice in example.choices:
            assert choice.tokens == (*vocabulary.encode(choice.text), vocabulary.eos_id)


def test_choices_groups_and_numbers(golden):
    cb = read("super_glue_cb_v102")
    words = ["entailment", "contradiction", "neutral"]
    assert [[choice.text for choice in e.choices] for e in cb.examples] == [words] * len(
        cb.examples
    )
    assert [e.idx for e in cb.examples] == [row["idx"] for row in golden["super_glue_cb_v102"]]
    assert cb.has_choices
    assert not cb.is_generated
    stsb = read("glue_stsb_v002").examples[0]
    assert [choice.text for choice in stsb.choices][:3] == ["0.0", "0.2", "0.4"]
    assert [choice.text for choice in stsb.choices][-1] == "5.0"
    assert len(stsb.choices) == 26
    record, rows = read("super_glue_record_v102"), golden["super_glue_record_v102"]
    queries = [row for row in rows for _ in row["answers"] or [None]]
    for example, row in zip(record.examples, queries, strict=True):
        assert [choice.text for choice in example.choices] == list(dict.fromkeys(row["entities"]))
        assert example.target["value"] == row["answers"]
        assert example.idx == row["idx"]
    multirc = read("super_glue_multirc_v102")
    groups = [row["idx"]["question"] for row in golden["super_glue_multirc_v102"]]
    assert [example.target["group"] for example in multirc.examples] == groups
    # WNLI as a Winograd schema is answered with a noun, and compared with the label.
    wnli = read("glue_wnli_v002_simple_eval")
    assert wnli.is_generated
    assert [e.target for e in wnli.examples] == [
        row["label"] for row in golden["glue_wnli_v002_simple_eval"]
    ]


def test_the_first_examples_and_the_length_of_answers(golden):
    task = "glue_wnli_v002_simple_eval"
    few = read(task, dataclasses.replace(OPTIONS, examples=2))
    assert few.examples == read(task).examples[:2]
    assert few.max_new_tokens == 128
    assert read(task, sequence_length=64).max_new_tokens == 32
    assert read(task, dataclasses.replace(OPTIONS, max_new_tokens=5)).max_new_tokens == 5
    assert read(task, targets_length=9).max_new_tokens == 9


def test_a_task_without_the_split_is_refused_in_one_line(golden):
    with pytest.raises(MissingSplit, match=r"task super_glue_cb has no split 'test' to be scored"):
        read("super_glue_cb", ReadOptions("test"))


def test_tasks_of_mixtures():
    glue = names_of_tasks(DataConfig("glue"))
    assert glue["glue_sst2_v002"]
    # Evaluated only.
    assert not glue["glue_mnli_mismatched_v002"]
    assert names_of_tasks(DataConfig({"glue_rte": 1, "glue_cola": 2})) == {
        "glue_cola": True,
        "glue_rte": True,
    }
    assert not is_scored(DataConfig("embedded"), "embedded", OPTIONS)
    assert is_scored(DataConfig("glue"), "glue_ax_v002", OPTIONS)
    assert not is_scored(DataConfig("soda"), "soda", OPTIONS)


def test_a_users_task_has_its_own_classes_and_metrics(registered):
    registered(
        "own_of_t5",
        postprocess_fn=functools.partial(label_of, label_classes=LABELS),
        metric_fns=[exact, likelihood],
    )
    found = read("own_of_t5")
    assert [choice.text for choice in found.examples[0].choices] == LABELS
    assert [example.target for example in found.examples] == [1, 0, 0]
    assert found.predict_metrics == (exact,)
    assert found.score_metrics == (likelihood,)
    assert found.postprocess("yes", {}) == 1


def test_a_users_task_without_classes_is_generated_unless_they_are_given(registered):
    registered("own_plain", metric_fns=[exact])
    found = read("own_plain")
    assert found.is_generated
    # The longest reference, with its end.
    assert found.max_new_tokens == max(len(example.targets) for example in found.examples)
    given = read("own_plain", dataclasses.replace(OPTIONS, classes=("yes", "no")))
    assert [choice.text for choice in given.examples[2].choices] == ["yes", "no"]
    registered("own_without_metrics")
    assert not is_scored(DataConfig(), "own_without_metrics", OPTIONS)


def test_a_class_that_the_vocabulary_lacks_is_refused_in_one_line(registered):
    registered("own_classes", metric_fns=[exact])
    with pytest.raises(UserError, match="the class '' of task own_classes has no tokens"):
        read("own_classes", dataclasses.replace(OPTIONS, classes=("yes", "")))
