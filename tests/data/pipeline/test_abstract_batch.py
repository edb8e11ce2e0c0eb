"""The abstract batch has the shapes and types of the training batches."""

import dataclasses

import jax
import pytest
from tiers import mostly_slow

from moe_jax.data.config import DataConfig
from moe_jax.data.pipeline.abstract_batch import abstract_batch
from moe_jax.data.pipeline.input_pipeline import TrainBatches

SMALL = DataConfig(batch_size=2, sequence_length=64)


@pytest.mark.parametrize(
    "changes",
    mostly_slow(
        [
            {"objective": "prefix_lm", "pack": True},
            {},
            {"pack": True},
            {"objective": "prefix_lm"},
        ]
    ),
)
def test_a_batch_has_the_shapes_and_types_that_were_expected(changes):
    config = dataclasses.replace(SMALL, **changes)
    expected, batch = abstract_batch(config, None), next(TrainBatches(config))
    assert jax.tree.structure(expected) == jax.tree.structure(batch)
    for leaf, found in zip(jax.tree.leaves(expected), jax.tree.leaves(batch), strict=True):
        assert (leaf.shape, leaf.dtype) == (found.shape, found.dtype)


@pytest.mark.parametrize("task", ["glue_sst2", "of_a_user", {"embedded": 1.0, "of_a_user": 1.0}])
def test_nothing_is_expected_of_tasks_that_only_seqio_knows(task):
    assert abstract_batch(dataclasses.replace(SMALL, task=task), None) is None


def test_files_of_ones_own_are_plain_texts():
    config = dataclasses.replace(SMALL, task="jsonl:my/*.jsonl#content")
    assert abstract_batch(config, None).targets_BS.shape == (2, 64)
