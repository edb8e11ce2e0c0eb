"""Example prompts, by the names of tasks and from their batches."""

import numpy as np
import pytest
import seqio

from moe_jax.data.batch import Batch
from moe_jax.data.config import DataConfig
from moe_jax.data.pipeline.example_prompts import (
    ExamplePrompt,
    encode_prompt,
    example_prompt,
    first_prompt,
    has_padding,
    has_questions,
)
from moe_jax.data.tasks.vocabulary import load_vocabulary

VOCABULARY = load_vocabulary("embedded")
EOS = VOCABULARY.eos_id


@pytest.mark.parametrize(
    ("settings", "questions", "padding"),
    [
        ({}, False, False),
        ({"task": "text:/nowhere/*.txt"}, False, False),
        ({"task": "c4", "objective": "prefix_lm"}, False, False),
        ({"task": "c4", "objective": "span_corruption"}, True, False),
        ({"task": "glue_sst2"}, True, True),
        ({"task": "super_glue_boolq_v102"}, True, True),
        ({"task": "glue"}, True, True),
        ({"task": {"wmt19_de_en": 1.0, "squad": 2.0}}, True, True),
        ({"task": {"c4": 0.9, "text:own": 0.1}}, False, False),
        ({"task": "curriculum:/nowhere"}, False, True),
        ({"task": "nobody_knows"}, False, True),
        ({"task": "asks"}, True, True),
        ({"task": "tells"}, False, True),
    ],
)
def test_kinds_of_data_by_name(settings, questions, padding, own_tasks):
    config = DataConfig(**settings)
    assert has_questions(config) is questions
    assert has_padding(config) is padding


@pytest.fixture(scope="module")
def own_tasks():
    """Registers a user's own tasks with seqio, one with inputs."""
    feature = seqio.Feature(VOCABULARY, add_eos=True)
    source = seqio.FunctionDataSource(
        lambda split, shuffle_files, seed=None: None, splits=["train"]
    )
    features = {"asks": ("inputs", "targets"), "tells": ("targets",)}
    for name, names in features.items():
        seqio.TaskRegistry.add(
            name, source, preprocessors=[], output_features=dict.fromkeys(names, feature)
        )
    yield
    for name in features:
        seqio.TaskRegistry.remove(name)


def test_a_question_ends_as_in_training():
    tokens = VOCABULARY.encode("sst2 sentence: fine")
    assert encode_prompt(DataConfig(task="glue_sst2"), VOCABULARY, "sst2 sentence: fine") == [
        *tokens,
        EOS,
    ]
    assert encode_prompt(DataConfig(), VOCABULARY, "sst2 sentence: fine") == tokens
    assert encode_prompt(DataConfig(task="glue_sst2"), VOCABULARY, "") == []


def batch(*documents, segments=None):
    """Returns a row of (text, whether it is predicted) and a second row that is not looked at."""
    tokens, weights = [], []
    for text, is_predicted in documents:
        part = [*VOCABULARY.encode(text), EOS]
        tokens += part
        weights += [float(is_predicted)] * len(part)
    targets = np.array([[*tokens, 0, 0], [9] * (len(tokens) + 2)])
    weights = np.array([[*weights, 0, 0]] * 2, np.float32)
    return Batch(targets, targets, weights, None, segments)


def test_the_prompt_is_a_question_of_the_data():
    config = DataConfig(task="glue_sst2")
    question = "sst2 sentence: it 's a charming journey ."
    row = batch((question, False), ("positive", True))
    assert first_prompt(config, row, VOCABULARY) == question
    assert example_prompt(config, row, VOCABULARY) == ExamplePrompt(question, is_question=True)
    # Of a packed row the first.
    first = len(VOCABULARY.encode(question)) + len(VOCABULARY.encode("positive")) + 2
    both = (question, False), ("positive", True), ("sst2 sentence: no", False), ("bad", True)
    width = batch(*both).targets_BS.shape[1]
    segments = np.tile(1 + (np.arange(width) >= first), (2, 1))
    assert first_prompt(config, batch(*both, segments=segments), VOCABULARY) == question
    long = "a question of many words " * 30
    cut = first_prompt(config, batch((long, False), ("yes", True)), VOCABULARY)
    assert 380 < len(cut) <= 400
    assert long.startswith(f"{cut} ")


def test_the_prompt_of_a_text_is_its_first_words():
    row = batch(("It was\nthe best of times, it was", True))
    assert first_prompt(DataConfig(), row, VOCABULARY) == "It was the best of"
    assert not example_prompt(DataConfig(), row, VOCABULARY).is_question
